//! Who may read metrics: the token of a request, and whoever decides about it.

use std::pin::Pin;

use hyper::header::{AUTHORIZATION, HeaderMap};

/// Decides who is let through.
pub(crate) trait Gate: Send + Sync + 'static {
    /// Whether who has this token may read metrics. Neither keeps nor shows the token.
    fn admit<'a>(&'a self, token: &'a str) -> Pin<Box<dyn Future<Output = Admission> + Send + 'a>>;
}

/// What came of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// He may.
    Admitted,
    /// Nobody knows him.
    Unknown,
    /// He is known by this name, and may not.
    Forbidden(String),
    /// Nobody could be asked.
    CannotTell,
}

/// The bearer token of a request (RFC 6750, 2.1), if it has one and no second.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && is_token(token)).then_some(token)
}

/// `b64token`: letters, digits and some signs, then as many `=` as there are.
fn is_token(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(is_letter)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn a_bearer_token_is_found_and_nothing_else_is_one() {
        for (value, token) in [
            ("Bearer abc.DEF-1_2~3+4/5==", Some("abc.DEF-1_2~3+4/5==")),
            ("bearer  abc ", Some("abc")),
            ("Basic YTpi", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearer ==", None),
            ("Bearer a b", None),
            ("Bearer a\"b", None),
            ("abc", None),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).expect("a header"))]);
            assert_eq!(bearer(&headers), token, "{value:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
        let mut two = HeaderMap::new();
        two.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        two.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        assert_eq!(bearer(&two), None, "which of the two is meant?");
    }
}
