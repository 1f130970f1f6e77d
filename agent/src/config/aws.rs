//! Keys of the EC2 API.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use hyper::Uri;
use serde::{Deserialize, Serialize};

/// A cluster has up to some ten thousand nodes; an account may have several. 0: as the cluster says.
pub(super) const FLEET_NODES: RangeInclusive<u32> = 0..=100_000;
/// Up to a day.
pub(super) const REFRESH_SECONDS: RangeInclusive<u32> = 1..=86_400;
/// Longest name of a region; the longest today has 14 characters.
const REGION_BYTES_MAX: usize = 32;

/// Whether and how the EC2 API is asked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Aws {
    /// Whether it is asked at all.
    pub(crate) mode: Mode,
    /// The region; empty: as the SDK finds it.
    pub(crate) region: String,
    /// Where EC2 is; empty: at its public name.
    pub(crate) endpoint: String,
    /// Nodes that share the account's calls; 0: as many as the cluster has.
    pub(crate) fleet_nodes: u32,
    /// Age at which answers are asked for again, at the soonest.
    pub(crate) refresh_seconds: u32,
}

/// Whether EC2 is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Mode {
    /// Never.
    Off,
    /// As soon as there is something to ask.
    Auto,
}

// === impl Aws ===

impl Default for Aws {
    fn default() -> Self {
        Self { mode: Mode::Auto, region: String::new(), endpoint: String::new(), fleet_nodes: 0, refresh_seconds: 900 }
    }
}

impl Aws {
    /// An origin: over TLS, for requests carry a session token; on loopback it may be without.
    pub(super) fn endpoint_is_good(&self) -> bool {
        if self.endpoint.is_empty() {
            return true;
        }
        let Ok(uri) = self.endpoint.parse::<Uri>() else { return false };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback = host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        let is_origin = matches!(uri.path(), "" | "/") && uri.query().is_none() && !self.endpoint.contains(['@', '#']);
        match uri.scheme_str() {
            Some("https") => is_origin && !host.is_empty(),
            Some("http") => is_origin && is_loopback,
            _ => false,
        }
    }
}

/// Part of a host's name.
pub(super) fn is_region(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= REGION_BYTES_MAX && text.bytes().all(plain)
}

// === impl Mode ===

impl std::str::FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            _ => Err("expected auto or off"),
        }
    }
}

impl TryFrom<String> for Mode {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => "off",
            Mode::Auto => "auto",
        }
        .to_owned()
    }
}
