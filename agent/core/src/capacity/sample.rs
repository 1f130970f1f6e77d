//! One look at one ceiling.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Resource;

/// How much of a resource is used, in one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What.
    pub resource: Resource,
    /// Where the limit holds.
    pub scope: Scope,
    /// In use, in the resource's unit; `None`: not known.
    pub used: Option<u64>,
    /// The ceiling.
    pub limit: Limit,
    /// The file, the interface or the object that said so, as people find it.
    pub source: Arc<str>,
}

/// What a limit is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// The whole node.
    Node,
    /// A cgroup above the pods, as `kubepods.slice`.
    Slice(Arc<str>),
    /// A pod, by its uid as its cgroup tells it.
    Pod(Arc<str>),
    /// A network interface.
    Interface(Arc<str>),
    /// A file system, by its mount point.
    FileSystem(Arc<str>),
    /// A subnet, by its id.
    Subnet(Arc<str>),
    /// Connections that leave with this address of the node in place of their own.
    Snat(Arc<str>),
}

/// A ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Limit {
    /// Nobody says.
    Unknown,
    /// There is none.
    Unlimited,
    /// This much.
    Of(u64),
}

/// What only grows: told as it stands, since its own beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// What it counts.
    pub name: CounterName,
    /// Of whom.
    pub scope: Scope,
    /// How often.
    pub value: u64,
}

/// What counters count: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CounterName {
    /// ENA `bw_in_allowance_exceeded`.
    BandwidthInExceeded,
    /// ENA `bw_out_allowance_exceeded`.
    BandwidthOutExceeded,
    /// ENA `pps_allowance_exceeded`.
    PacketsExceeded,
    /// ENA `conntrack_allowance_exceeded`.
    ConntrackExceeded,
    /// ENA `linklocal_allowance_exceeded`.
    LinklocalExceeded,
    /// Connection tracking: packets dropped and entries thrown out early, because the table was full; packets also when two
    /// raced for one entry, or a protocol's tracker refused one.
    ConntrackDrop,
    /// Connection tracking: inserts that failed.
    ConntrackInsertFailed,
    /// Neighbour table: allocations refused because it was full.
    NeighbourTableFull,
    /// Connections dropped because a listener's queue was full.
    ListenDrops,
    /// Listener's queue overflowed.
    ListenOverflows,
    /// `pids.events` max: forks refused by a cgroup's limit.
    ForksRefused,
    /// ICMP time exceeded messages sent (`Icmp: OutTimeExcds`).
    IcmpTimeExceeded,
    /// CNI: a pod asked for an address and there was none.
    NoAvailableAddress,
    /// CNI: its calls to EC2 failed.
    Ec2CallsFailed,
    /// CNI: EC2 refused it addresses because the subnet has none left, or no 16 in a row for a prefix.
    SubnetFull,
    /// EBS volume or instance limits exceeded, microseconds.
    EbsExceededMicros,
    /// Time in which some task waited for memory, microseconds (`/proc/pressure/memory`, `some`).
    MemoryStallMicros,
    /// Time in which all tasks waited for memory, microseconds (`/proc/pressure/memory`, `full`).
    MemoryFullStallMicros,
}

macro_rules! collectors {
    ($($(#[$doc:meta])* $variant:ident, $name:literal;)*) => {
        /// Whoever looks at the node: a closed list, one source each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Collector {
            $($(#[$doc])* $variant,)*
        }

        impl Collector {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name in rows and labels.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

collectors! {
    /// ipamd's checkpoint file.
    IpamCheckpoint, "ipam_checkpoint";
    /// ipamd's metrics.
    IpamMetrics, "ipam_metrics";
    /// ipamd's introspection.
    IpamIntrospection, "ipam_introspection";
    /// Interfaces, by rtnetlink.
    Links, "links";
    /// ENA counters, by ethtool.
    Ena, "ena";
    /// Threads and processes.
    Threads, "threads";
    /// Open files.
    OpenFiles, "open_files";
    /// Connection tracking.
    Conntrack, "conntrack";
    /// Ephemeral ports and listen drops.
    Ports, "ports";
    /// Ports that connections get with an address of the node (SNAT).
    Snat, "snat";
    /// Backends behind service addresses, by connection tracking.
    Backends, "backends";
    /// inotify (slow, off unless asked for).
    Inotify, "inotify";
    /// Neighbour tables.
    Neighbours, "neighbours";
    /// File systems.
    Disks, "disks";
    /// Memory and pressure.
    Memory, "memory";
    /// EBS volumes.
    Ebs, "ebs";
    /// EBS counters of the CSI node's metrics (off unless asked for).
    EbsMetrics, "ebs_metrics";
    /// The kubelet's configuration.
    Kubelet, "kubelet";
    /// Network namespaces of pods: packet sockets, veths.
    PodNetworks, "pod_networks";
    /// The instance's type.
    InstanceType, "instance_type";
    /// Packets to link-local services, as the DNS messages of this node's clients show them.
    Dns, "dns";
    /// Pods that wait for an address (from the API), requests against allocatable.
    Cluster, "cluster";
}
