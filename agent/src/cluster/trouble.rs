//! What may go wrong between here and the API server, sorted by what to do about it, told without anything secret.

use std::time::Duration;

use kube::client::AuthError;

/// Longest text of an error, bytes: servers and what stands before them answer with pages.
const TEXT_BYTES_MAX: usize = 256;

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
    /// What was known of versions is too old: list anew.
    Expired,
    /// Who asks is not known: read the token again.
    Unauthorized,
    /// Who asks may not: somebody must change a role.
    Forbidden,
    /// The kind or the object is not there.
    Absent,
    /// Nothing to ask: no configuration.
    Local,
}

// === impl Trouble ===

impl Trouble {
    pub(super) fn local(text: String) -> Self {
        Self { kind: Kind::Local, text }
    }

    pub(super) fn passing(text: impl Into<String>) -> Self {
        Self { kind: Kind::Passing, text: text.into() }
    }

    pub(super) fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status),
            kube::Error::Service(source) => Self::passing(chain(&**source)),
            kube::Error::SerdeError(source) => {
                // Its text may quote the answer.
                Self::passing(format!(
                    "the answer is not what the API has, at line {} column {}",
                    source.line(),
                    source.column()
                ))
            }
            kube::Error::FromUtf8(_) => Self::passing("the answer is not UTF-8"),
            kube::Error::Auth(_) => Self::passing(AUTH),
            other => Self::passing(chain(other)),
        }
    }

    /// What a server says, or a watch in between.
    pub(super) fn of_status(status: &kube::core::Status) -> Self {
        let kind = match status.code {
            401 => Kind::Unauthorized,
            403 => Kind::Forbidden,
            404 => Kind::Absent,
            410 => Kind::Expired,
            // "Too large resource version": another server, which is behind.
            504 if status
                .details
                .iter()
                .flat_map(|details| &details.causes)
                .any(|cause| cause.reason == "ResourceVersionTooLarge") =>
            {
                Kind::Expired
            }
            _ => Kind::Passing,
        };
        Self { kind, text: tidy(&format!("{} {}", status.code, status.message)) }
    }

    /// How long to wait at least before asking again, beside the growing pauses.
    pub(super) fn pause(&self) -> Duration {
        match self.kind {
            Kind::Passing | Kind::Expired => Duration::ZERO,
            // Made right in a moment by reading the token again.
            Kind::Unauthorized => Duration::from_secs(5),
            // Somebody has to do something; 900 nodes that ask every second help nobody.
            Kind::Forbidden | Kind::Local => Duration::from_secs(30),
            Kind::Absent => Duration::from_mins(3),
        }
    }
}

const AUTH: &str = "could not get a token to authenticate with";

/// An error and its causes. Errors of authentication may hold what a plug-in printed, so of them only the fact is told.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<AuthError>() {
            return AUTH.to_owned();
        }
        next = error.source();
    }
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    tidy(&text)
}

/// One line, cut.
fn tidy(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_BYTES_MAX).collect();
    line[..line.floor_char_boundary(TEXT_BYTES_MAX)].trim().to_owned()
}
