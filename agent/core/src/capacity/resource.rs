//! The ceilings that are watched: a closed list.

use serde::{Deserialize, Serialize};

macro_rules! resources {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $unit:ident, $cliff:literal;)*) => {
        /// What can run out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Resource {
            $($(#[$doc])* $variant,)*
        }

        impl Resource {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name in rows and labels.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What one of it is.
            pub const fn unit(self) -> Unit {
                match self { $(Self::$variant => Unit::$unit,)* }
            }

            /// Running things break when it is used up. For the others a full node is healthy: the scheduler refuses, or the
            /// network shapes.
            pub const fn is_cliff(self) -> bool {
                match self { $(Self::$variant => $cliff,)* }
            }
        }
    };
}

resources! {
    /// Addresses for pods that the node's interfaces can hold.
    PodIps, "pod_ips", Count, true;
    /// IPv4 prefixes (/28) on the node's interfaces.
    IpPrefixes, "ip_prefixes", Count, false;
    /// Elastic network interfaces attached to the instance.
    Interfaces, "interfaces", Count, false;
    /// Branch interfaces of the trunk.
    BranchInterfaces, "branch_interfaces", Count, false;
    /// EBS volumes attached to the instance.
    EbsVolumes, "ebs_volumes", Count, false;
    /// Pods, against the kubelet's max-pods.
    Pods, "pods", Count, false;
    /// Threads (tasks), against `pid_max`, `threads-max` and `pids.max`.
    Threads, "threads", Count, true;
    /// Open files of a process, against its own `RLIMIT_NOFILE`.
    OpenFiles, "open_files", Count, true;
    /// Entries of the kernel's connection tracking table.
    ConntrackEntries, "conntrack_entries", Count, true;
    /// Connections that the instance's network card tracks for security groups.
    EnaConntrackAllowance, "ena_conntrack_allowance", Count, true;
    /// Local ports in use towards one remote address and port.
    EphemeralPorts, "ephemeral_ports", Count, true;
    /// inotify watches of a user.
    InotifyWatches, "inotify_watches", Count, false;
    /// inotify instances of a user.
    InotifyInstances, "inotify_instances", Count, false;
    /// Entries of the neighbour (ARP, NDP) table.
    NeighbourEntries, "neighbour_entries", Count, true;
    /// CPU requests of pods, thousandths of a core, against allocatable.
    CpuRequests, "cpu_requests", MilliCores, false;
    /// Memory requests of pods against allocatable.
    MemoryRequests, "memory_requests", Bytes, false;
    /// Memory in use.
    Memory, "memory", Bytes, true;
    /// Space of a file system.
    DiskBytes, "disk_bytes", Bytes, true;
    /// Inodes of a file system.
    DiskInodes, "disk_inodes", Count, true;
    /// Container images.
    ImageBytes, "image_bytes", Bytes, false;
    /// Containers, against a billing allotment.
    Containers, "containers", Count, false;
    /// Free addresses of the node's subnets.
    SubnetIps, "subnet_ips", Count, true;
    /// Network bandwidth, against the type's baseline.
    NetworkBandwidth, "network_bandwidth", BitsPerSecond, false;
    /// EBS bandwidth, against the type's baseline.
    EbsBandwidth, "ebs_bandwidth", BytesPerSecond, false;
    /// EBS operations, against the type's baseline.
    EbsIops, "ebs_iops", PerSecond, false;
    /// Packets to link-local services of AWS (DNS, metadata, time) of an interface, against 1,024 a second.
    LinklocalPackets, "linklocal_packets", PerSecond, false;
}

/// What one of a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Thousandths of a core.
    MilliCores,
    /// Bits a second.
    BitsPerSecond,
    /// Bytes a second.
    BytesPerSecond,
    /// Operations or packets a second.
    PerSecond,
}
