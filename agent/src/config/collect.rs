//! Keys of the looks at the node's ceilings.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How and where the node's ceilings are looked at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Collect {
    /// Time between two looks, in percent of each source's own.
    pub(crate) cadence_percent: u32,
    /// ipamd's metrics.
    pub(crate) ipamd_metrics: Endpoint,
    /// ipamd's introspection.
    pub(crate) ipamd_introspection: Endpoint,
    /// Metrics of the EBS CSI driver's node pod.
    pub(crate) ebs_metrics: Endpoint,
    /// Count inotify instances and watches.
    pub(crate) inotify: bool,
    /// Ask the metadata service for the instance's type when nothing else tells it.
    pub(crate) imds: bool,
    /// Containers a node that are billed for; 0: no allotment.
    pub(crate) container_allotment: u32,
}

/// A local HTTP server, or `off`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Endpoint {
    /// Nobody is asked.
    Off,
    /// At this address.
    Tcp(SocketAddr),
    /// At this Unix socket.
    Unix(PathBuf),
}

// === impl Collect ===

impl Default for Collect {
    fn default() -> Self {
        Self {
            cadence_percent: 100,
            // The ports that the VPC CNI binds unless told otherwise.
            ipamd_metrics: Endpoint::Tcp(SocketAddr::from(([127, 0, 0, 1], 61_678))),
            ipamd_introspection: Endpoint::Tcp(SocketAddr::from(([127, 0, 0, 1], 61_679))),
            ebs_metrics: Endpoint::Off,
            inotify: false,
            imds: true,
            container_allotment: 0,
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// It is on this machine: what it tells is taken for true.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Off => true,
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(path) => path.is_absolute(),
        }
    }
}

impl std::str::FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| "expected an address and port, unix:PATH, or off"),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Off => "off".to_owned(),
            Endpoint::Tcp(address) => address.to_string(),
            Endpoint::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}
