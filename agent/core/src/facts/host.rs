//! The node itself: interfaces, and what of a pod is seen on the host's side.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backends::Backend;
use crate::capacity::{Collector, Counter, IpamFacts, Sample};

/// One thing that a look at the node tells. Each reading replaces the one before of the same collector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HostFact {
    /// All interfaces of the node's network namespace.
    Links(Vec<LinkFacts>),
    /// What was seen of pods, one entry a pod that could be looked at.
    Pods(Vec<PodHostFacts>),
    /// `net.ipv4.tcp_early_demux` of the node; `None`: could not be read.
    TcpEarlyDemux(Option<bool>),
    /// How full things are.
    Samples {
        /// Who looked.
        collector: Collector,
        /// What it saw.
        samples: Vec<Sample>,
    },
    /// What only grows.
    Counters {
        /// Who looked.
        collector: Collector,
        /// What it saw.
        counters: Vec<Counter>,
    },
    /// What ipamd holds.
    Ipam(Box<IpamFacts>),
    /// The instance's type where the node's label does not tell: from DMI or IMDS.
    InstanceType {
        /// As `m5.large`.
        name: Arc<str>,
        /// Who said so.
        source: Arc<str>,
    },
    /// What the node's connection tracking says of the connections that were asked for. Those that it does not know, or of
    /// which it says two things, are left out.
    Backends(Vec<Backend>),
    /// A collector could not look, or could again (`None`).
    Collector {
        /// Which.
        collector: Collector,
        /// Why not; names the file or the peer. What it told before the error still holds.
        error: Option<String>,
        /// The node has no such thing and had none since the agent's start: not a failure.
        absent: bool,
        /// How long it took, nanoseconds.
        duration_ns: u64,
    },
}

/// An interface of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkFacts {
    /// Name.
    pub name: Arc<str>,
    /// Index.
    pub index: u32,
    /// Hardware address, lower case with colons; empty when it has none.
    pub mac: Arc<str>,
    /// What it is.
    pub kind: LinkKind,
    /// 802.1q id of a VLAN device.
    pub vlan_id: Option<u16>,
    /// Index of the interface below a VLAN device, or of the other end of a veth (in another namespace).
    pub lower: Option<u32>,
    /// Is up.
    pub up: bool,
    /// Bytes received, by the host's side.
    pub received_bytes: u64,
    /// Packets received, by the host's side.
    pub received_packets: u64,
    /// Bytes sent, by the host's side.
    pub sent_bytes: u64,
    /// Packets sent, by the host's side.
    pub sent_packets: u64,
}

/// What an interface is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// The host's side of a veth pair.
    Veth,
    /// An 802.1q device.
    Vlan,
    /// An ENA device.
    Ena,
    /// The loopback device.
    Loopback,
    /// A dummy device.
    Dummy,
    /// Anything else.
    #[default]
    Other,
}

/// What is seen of a pod on the host's side, found by one of its processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodHostFacts {
    /// The pod's uid as its cgroup tells it.
    pub uid: Arc<str>,
    /// Packet sockets in its network namespace (`/proc/PID/net/packet`); `None`: could not be read, or it is the host's.
    pub packet_sockets: Option<u32>,
    /// Index of its veth on the host (its `eth0`'s other end), when it could be told.
    pub veth: Option<u32>,
    /// It uses the node's network namespace.
    pub host_network: bool,
}
