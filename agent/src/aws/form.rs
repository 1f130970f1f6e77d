//! A request of EC2's Query API: an action and its parameters as a form
//! (<https://docs.aws.amazon.com/ec2/latest/devguide/ec2-query-requests.html>).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The API's version: the only one there has been since.
const VERSION: &str = "2016-11-15";
/// What RFC 3986 leaves unreserved stays as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Most values of one filter (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Filter.html> and
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html>).
pub(super) const FILTER_VALUES_MAX: usize = 200;

/// A request in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form {
    action: &'static str,
    body: String,
    filters: u32,
}

// === impl Form ===

impl Form {
    pub(super) fn new(action: &'static str) -> Self {
        Self { action, body: format!("Action={action}&Version={VERSION}"), filters: 0 }
    }

    /// The action's name.
    pub(super) fn action(&self) -> &'static str {
        self.action
    }

    /// With a parameter.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.put(name, value);
        self
    }

    /// With a filter: one of the values. What a filter asks for and is not there is absent from the answer, while what
    /// is asked for by an id parameter makes it an error.
    pub(super) fn filter(mut self, name: &str, values: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.filters += 1;
        let filter = self.filters;
        self.put(&format!("Filter.{filter}.Name"), name);
        for (at, value) in values.into_iter().take(FILTER_VALUES_MAX).enumerate() {
            self.put(&format!("Filter.{filter}.Value.{}", at + 1), value.as_ref());
        }
        self
    }

    /// What is sent.
    pub(super) fn body(&self) -> &str {
        &self.body
    }

    fn put(&mut self, name: &str, value: &str) {
        self.body.push('&');
        self.body.push_str(name);
        self.body.push('=');
        self.body.extend(utf8_percent_encode(value, ESCAPED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_looks_as_the_reference_shows_it() {
        let form = Form::new("DescribeVpcs")
            .with("MaxResults", "5")
            .filter("vpc-id", ["vpc-1", "vpc-2"])
            .filter("tag:a b", ["*&=/ü"]);
        assert_eq!(
            form.body(),
            "Action=DescribeVpcs&Version=2016-11-15&MaxResults=5&Filter.1.Name=vpc-id&Filter.1.Value.1=vpc-1\
             &Filter.1.Value.2=vpc-2&Filter.2.Name=tag%3Aa%20b&Filter.2.Value.1=%2A%26%3D%2F%C3%BC"
        );
    }
}
