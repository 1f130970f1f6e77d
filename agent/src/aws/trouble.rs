//! What may go wrong between here and EC2, sorted by what to do about it, told without anything secret.

use serde::Deserialize;

/// Longest text of an error, bytes.
const TEXT_BYTES_MAX: usize = 256;
/// Longest code of an error that is believed to be one, bytes.
const CODE_BYTES_MAX: usize = 64;
/// Status of an overloaded service.
const UNAVAILABLE: u16 = 503;
const TOO_MANY: u16 = 429;

/// Something went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Try again.
    Passing,
    /// Asked too often, by whomever in this account.
    Throttled,
    /// The credentials are not, or no longer, good: get them anew.
    Credentials,
    /// No credentials or no region are configured.
    NotConfigured,
    /// The role may not.
    Denied,
    /// EC2 does not take the request, or its answer cannot be read: nothing that another try at once would change.
    Refused,
    /// A part of the answer means nothing here; the rest does.
    Unreadable,
    /// A call for what is not there any more.
    Absent,
    /// A trial call that would have been allowed.
    Allowed,
}

/// EC2's form of an error: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    errors: Errors,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Errors {
    error: Error,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Error {
    code: String,
    #[serde(default)]
    message: String,
}

// === impl Trouble ===

impl Trouble {
    pub(super) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// What an answer says that is no success. `secrets`: what must not be in the text.
    pub(super) fn of_answer(status: u16, body: &[u8], secrets: &[&str]) -> Self {
        let error = std::str::from_utf8(body).ok().and_then(|text| quick_xml::de::from_str::<Answer>(text).ok());
        let Some(Error { code, message }) =
            error.map(|answer| answer.errors.error).filter(|error| is_code(&error.code))
        else {
            let kind = match status {
                UNAVAILABLE | TOO_MANY => Kind::Throttled,
                500.. => Kind::Passing,
                _ => Kind::Refused,
            };
            return Self::new(kind, format!("status {status}, without an error of EC2 in it"));
        };
        let kind = kind(&code, status);
        // What EC2 says of refused signatures and credentials may quote the request, with its token.
        let is_quotable =
            matches!(kind, Kind::Denied | Kind::Refused) && !secrets.iter().any(|one| message.contains(one));
        let text = if is_quotable { format!("{code}: {}", clean(&message)) } else { code };
        Self::new(kind, text)
    }
}

/// Codes as the API reference lists them, and those of the services that look at signatures.
fn kind(code: &str, status: u16) -> Kind {
    match code {
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "RequestThrottled"
        | "SlowDown"
        | "EC2ThrottledException"
        | "TooManyRequestsException" => Kind::Throttled,
        "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "InvalidToken"
        | "MissingAuthenticationToken"
        | "NotAuthenticated" => Kind::Credentials,
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" | "OptInRequired" | "Blocked" => {
            Kind::Denied
        }
        "DryRunOperation" => Kind::Allowed,
        _ if code.ends_with(".NotFound") => Kind::Absent,
        "Unavailable" | "ServiceUnavailable" => Kind::Throttled,
        _ if status >= 500 => Kind::Passing,
        _ => Kind::Refused,
    }
}

/// A word, so that a page of a proxy is not taken for one.
fn is_code(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_';
    !text.is_empty() && text.len() <= CODE_BYTES_MAX && text.bytes().all(plain)
}

/// One line of bounded length; without the encoded part, which only `sts decode-authorization-message` can read.
fn clean(message: &str) -> String {
    let message = message.split("Encoded authorization failure message").next().unwrap_or_default();
    let mut text: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text.trim_end_matches([' ', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, code: &str, message: &str) -> Trouble {
        let body = format!(
            "<?xml version=\"1.0\"?><Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error>\
             </Errors><RequestID>x</RequestID></Response>"
        );
        Trouble::of_answer(status, body.as_bytes(), &["hush"])
    }

    #[test]
    fn codes_say_what_to_do() {
        for (status, code, expected) in [
            (503, "RequestLimitExceeded", Kind::Throttled),
            (503, "Unavailable", Kind::Throttled),
            (500, "InternalError", Kind::Passing),
            (401, "AuthFailure", Kind::Credentials),
            (400, "RequestExpired", Kind::Credentials),
            (403, "UnauthorizedOperation", Kind::Denied),
            (400, "InvalidParameterValue", Kind::Refused),
            (400, "InvalidPrefixListID.NotFound", Kind::Absent),
            (412, "DryRunOperation", Kind::Allowed),
        ] {
            assert_eq!(of(status, code, "m").kind, expected, "{code}");
        }
    }

    #[test]
    fn what_is_no_error_of_ec2_goes_by_its_status() {
        for (status, expected) in
            [(503, Kind::Throttled), (429, Kind::Throttled), (502, Kind::Passing), (407, Kind::Refused)]
        {
            let trouble = Trouble::of_answer(status, b"<html><body>no</body></html>", &[]);
            assert_eq!(trouble.kind, expected, "{status}");
            assert!(trouble.text.contains(&status.to_string()));
        }
    }

    #[test]
    fn messages_are_shown_where_they_help_and_never_with_a_secret() {
        let denied = "You are not authorized to perform this operation. User: arn:aws:sts::1:assumed-role/node/i-1 is not \
                      authorized to perform: ec2:DescribeVpcs. Encoded authorization failure message: dGhlIGVuY29kZWQ";
        let text = of(403, "UnauthorizedOperation", denied).text;
        assert!(text.ends_with("perform: ec2:DescribeVpcs") && !text.contains("dGhl"), "{text}");
        assert_eq!(
            of(403, "SignatureDoesNotMatch", "the canonical string was x-amz-security-token:abc").text,
            "SignatureDoesNotMatch"
        );
        assert_eq!(of(400, "InvalidParameterValue", "you sent hush").text, "InvalidParameterValue");
        let long = of(400, "InvalidParameterValue", &"é".repeat(1_000)).text;
        assert!(long.len() < 300 && long.ends_with('…'));
        assert!(!of(400, "InvalidParameterValue", "a\u{7}b\nc").text.contains(char::is_control));
    }
}
