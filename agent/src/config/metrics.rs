//! Keys of the HTTP servers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The HTTP servers and what they serve.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metrics {
    /// Where `/metrics`, `/healthz` and `/readyz` listen.
    pub(crate) listen: Listen,
    /// Where they do by TLS, for whoever the cluster lets read metrics.
    pub(crate) secure_listen: Listen,
    /// Certificates (PEM) of that; empty: one that is made at the start.
    pub(crate) tls_cert_file: PathBuf,
    /// The key (PEM) of the first.
    pub(crate) tls_key_file: PathBuf,
    /// Most series that carry a workload.
    pub(crate) max_series: u32,
}

/// An address to listen on, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Listen {
    /// No HTTP server.
    Off,
    /// This address; port 0 takes any free one.
    At(SocketAddr),
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], 9847))),
            secure_listen: Listen::Off,
            tls_cert_file: PathBuf::new(),
            tls_key_file: PathBuf::new(),
            max_series: 3_000,
        }
    }
}

// === impl Listen ===

impl std::str::FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::At(address));
        }
        // Brackets around either family, for those who put an address together without looking at it.
        let (address, port) = text.strip_prefix('[').and_then(|rest| rest.split_once("]:")).unwrap_or_default();
        let address = address.parse::<Ipv4Addr>().ok().zip(port.parse().ok());
        let wrong = "expected an address and port like 127.0.0.1:9847, or off";
        address.map(|address| Self::At(SocketAddr::from(address))).ok_or(wrong)
    }
}

impl TryFrom<String> for Listen {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        match listen {
            Listen::Off => "off".to_owned(),
            Listen::At(address) => address.to_string(),
        }
    }
}
