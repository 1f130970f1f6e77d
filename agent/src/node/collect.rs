//! Looks at the node's ceilings: one file per source, each able to fail alone. Nothing here keeps time or decides; a look
//! reads, and tells facts. Who calls it waits for disks and local servers, so that belongs on a thread of its own.
//!
//! What a source told before an error stays told: one pod's broken file does not hide the others.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_core::backends::{Backend, Connection};
use agent_core::capacity::Collector;
use agent_core::facts::HostFact;

use self::http::Peer;
use crate::config::{Collect, Endpoint};

mod conntrack;
mod disks;
mod ebs;
mod ebs_metrics;
mod ena;
mod ethtool;
mod exposition;
mod http;
mod inotify;
mod instance_type;
mod ipam;
mod kubelet;
mod links;
mod memory;
mod neighbours;
mod netlink;
mod open_files;
mod pace;
mod pod_networks;
mod pods;
mod ports;
mod read;
mod snat;
mod table;
mod threads;
mod translations;

#[cfg(test)]
mod tests;

/// Where the node's own trees are mounted.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    /// The host's `/proc`.
    pub(crate) proc: PathBuf,
    /// The host's `/sys`.
    pub(crate) sys: PathBuf,
    /// The host's cgroup2 tree.
    pub(crate) cgroup: PathBuf,
    /// The host's `/etc`.
    pub(crate) etc: PathBuf,
    /// The host's `/run`.
    pub(crate) run: PathBuf,
}

/// What may be looked at, and how.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where to look.
    pub(crate) roots: Roots,
    /// What of the looks can be set.
    pub(crate) collect: Collect,
}

/// Why a look failed, or failed in part. Names the file or the peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// This node has no such thing.
    #[error("{0}")]
    Absent(String),
    /// A file or directory.
    #[error("could not read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was read is not what it should be.
    #[error("{what}: {why}")]
    Malformed {
        /// The file or the peer.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The look itself fell over.
    #[error("the look fell over, which is a fault of the agent; its message stands in the log")]
    FellOver,
    /// The kernel refused a request.
    #[error("could not {what}")]
    Kernel {
        /// What was asked.
        what: String,
        /// Why.
        source: std::io::Error,
    },
}

/// One source.
pub(crate) trait Look: Send {
    /// Looks, and tells what it sees. On an error, what was told before it still holds.
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error>;
}

/// A source and how often it is looked at.
pub(crate) struct Source {
    /// Which.
    pub(crate) collector: Collector,
    /// How often: what changes fast or is cheap more often.
    pub(crate) every: Duration,
    /// What it looks with.
    pub(crate) look: Box<dyn Look>,
}

/// Sources share what they read alike for this long.
pub(crate) const SHARED_FOR: Duration = pods::FRESH;

/// The metadata service.
const IMDS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80));

/// All sources that the settings ask for. Those that start from the same list of pods are due together, so that the list
/// is read once.
pub(crate) fn sources(settings: &Settings) -> Vec<Source> {
    let Settings { roots, collect } = settings;
    let pods = Arc::new(pods::Shared::new(roots));
    let ipam = ipam::Shared::default();
    let imds = if collect.imds { Endpoint::Tcp(IMDS) } else { Endpoint::Off };
    let mut sources = Sources(Vec::new());
    sources.add(Collector::Links, 10, links::Links::new(roots));
    sources.add(Collector::PodNetworks, 10, pod_networks::PodNetworks::new(roots, Arc::clone(&pods)));
    sources.add(Collector::Threads, 10, threads::Threads::new(roots, Arc::clone(&pods), collect.container_allotment));
    sources.add(Collector::OpenFiles, 30, open_files::OpenFiles::new(roots, Arc::clone(&pods)));
    sources.add(Collector::Ports, 30, ports::Ports::new(roots, pods));
    sources.add(Collector::Snat, 60, snat::Snat::new(roots, translations::ask));
    sources.add(Collector::Conntrack, 10, conntrack::Conntrack::new(roots));
    sources.add(Collector::Memory, 10, memory::Memory::new(roots));
    sources.add(Collector::Ena, 30, ena::Ena::new(roots, ena::ask));
    sources.add(Collector::Neighbours, 30, neighbours::Neighbours::new(roots));
    sources.add(Collector::Disks, 60, disks::Disks::new(roots, disks::measure));
    sources.add(Collector::Ebs, 30, ebs::Ebs::new(roots));
    sources.add(Collector::Kubelet, 300, kubelet::Kubelet::new(roots));
    sources.add(Collector::InstanceType, 300, instance_type::InstanceType::new(roots, Peer::new(&imds, "IMDS")));
    sources.add(Collector::IpamCheckpoint, 10, ipam::Checkpoint::new(roots, ipam.clone()));
    let peer = Peer::new(&collect.ipamd_metrics, "ipamd's metrics");
    if !peer.is_off() {
        sources.add(Collector::IpamMetrics, 30, ipam::Metrics::new(peer, ipam.clone()));
    }
    let peer = Peer::new(&collect.ipamd_introspection, "ipamd's introspection");
    if !peer.is_off() {
        sources.add(Collector::IpamIntrospection, 30, ipam::Introspection::new(peer, ipam));
    }
    let peer = Peer::new(&collect.ebs_metrics, "the EBS CSI driver's metrics");
    if !peer.is_off() {
        sources.add(Collector::EbsMetrics, 60, ebs_metrics::EbsMetrics::new(peer));
    }
    if collect.inotify {
        sources.add(Collector::Inotify, 300, inotify::Inotify::new(roots));
    }
    sources.0
}

/// A driver's own counters of an interface, by the way that the look at ENA interfaces takes.
pub(crate) fn driver_counters(interface: &str) -> Result<Vec<(String, u64)>, Error> {
    let what = || format!("read the counters of {interface}");
    ena::ask(interface).map_err(|source| Error::Kernel { what: what(), source })
}

/// What stands behind the services' addresses that these connections ask for.
pub(crate) fn backends(connections: &[Connection]) -> Result<Vec<Backend>, Error> {
    translations::backends(connections)
}

struct Sources(Vec<Source>);

impl Sources {
    fn add(&mut self, collector: Collector, seconds: u64, look: impl Look + 'static) {
        self.0.push(Source { collector, every: Duration::from_secs(seconds), look: Box::new(look) });
    }
}

// === impl Roots ===

#[cfg(test)]
impl Roots {
    /// All in one directory.
    fn of_fixture(root: &std::path::Path) -> Self {
        let [proc, sys, cgroup, etc, run] = ["proc", "sys", "cgroup", "etc", "run"].map(|name| root.join(name));
        Self { proc, sys, cgroup, etc, run }
    }
}

// === impl Error ===

impl Error {
    /// The error with all its sources, as one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }

    /// The node has no such thing: no failure, unless it had it before.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }
}
