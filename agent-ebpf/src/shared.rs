//! Values of the maps that the probes write and the agent reads, besides the rings.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::{Kind, Outcome, Ring};

crate::wire::closed_enum! {
    /// What became of a record in the kernel. Every record seen gets exactly one of the others than `Seen`.
    Fate {
        /// The probe had something to report.
        Seen = 0,
        /// Written to its ring.
        Written = 1,
        /// Not written, but its totals are in its cgroup's [`Account`] (flows only).
        Merged = 2,
        /// Not written: the cgroup was over its budget (metadata, lifecycle and DNS).
        Suppressed = 3,
        /// Not written: the ring was full (metadata, lifecycle and DNS).
        LostRing = 4,
    }
}

/// Kinds of records, see [`Kind::index`].
pub const KINDS: usize = Kind::ALL.len();
/// Values of [`Fate`].
pub const FATES: usize = Fate::ALL.len();
/// Rings, see [`Ring`].
pub const RINGS: usize = Ring::ALL.len();

/// Per-CPU counters of the map `COUNTERS`, one array of `u64` per CPU.
#[expect(clippy::cast_possible_truncation, reason = "a few dozen counters")]
pub mod counter {
    use super::{FATES, Fate, KINDS};
    use crate::wire::Kind;

    /// Position of the count of records of `kind` with `fate`.
    pub const fn record(kind: Kind, fate: Fate) -> u32 {
        (kind.index() * FATES + fate as usize) as u32
    }

    /// Times that a socket found no room to be tracked (its totals are merged; a UDP socket asks with every datagram).
    pub const UNTRACKED_SOCKETS: u32 = (KINDS * FATES) as u32;
    /// Connect attempts not followed because their socket was not tracked.
    pub const UNTRACKED_ATTEMPTS: u32 = UNTRACKED_SOCKETS + 1;
    /// Datagrams of flows beside their socket's first that found the peers map full (their bytes are merged).
    pub const UNTRACKED_PEERS: u32 = UNTRACKED_SOCKETS + 2;
    /// Records accounted to the shared overflow account because the accounts map was full.
    pub const OVERFLOW_ACCOUNTS: u32 = UNTRACKED_SOCKETS + 3;
    /// Metadata packets whose payload could not be read.
    pub const UNREADABLE_PACKETS: u32 = UNTRACKED_SOCKETS + 4;
    /// Tracked sockets that walks have come by: the difference over one round of walks is how many there are.
    pub const WALKED_SOCKETS: u32 = UNTRACKED_SOCKETS + 5;
    /// Times that a walk put news off for want of room in the ring.
    pub const DEFERRED: u32 = UNTRACKED_SOCKETS + 6;
    /// Ended TCP connections merged to spare the agent's CPU, see [`crate::rules::samples_out`]; counted as merged, too.
    pub const SAMPLED_TCP: u32 = UNTRACKED_SOCKETS + 7;
    /// The same of UDP flows.
    pub const SAMPLED_UDP: u32 = UNTRACKED_SOCKETS + 8;
    /// Number of counters.
    pub const COUNT: u32 = UNTRACKED_SOCKETS + 9;
}

/// Totals of one cgroup, map `ACCOUNTS`; all fields but the windows only grow, by atomic adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Account {
    /// Budget window of each ring: the window's number in the high half, bytes used in the low half.
    pub window: [u64; RINGS],
    /// Records over the cgroup's budget, per ring; DNS messages left out.
    pub over_budget: [u64; RINGS],
    /// Records that found the ring full, per ring; DNS messages left out.
    pub ring_full: [u64; RINGS],
    /// Ended connections merged here instead of written, by direction (outbound and unknown, inbound) and outcome.
    pub merged_connections: [[u64; Outcome::COUNT]; 2],
    /// Payload bytes sent by merged flows.
    pub merged_bytes_sent: u64,
    /// Payload bytes received by merged flows.
    pub merged_bytes_received: u64,
    /// DNS messages over the cgroup's budget. They share a ring with flows, of which nothing is lost by that.
    #[cfg_attr(feature = "serde", serde(default))]
    pub dns_over_budget: u64,
    /// DNS messages that found the ring full.
    #[cfg_attr(feature = "serde", serde(default))]
    pub dns_ring_full: u64,
}

/// Key of the account that takes what finds the accounts map full. No cgroup has this id.
pub const OVERFLOW_ACCOUNT: u64 = 0;

/// Declares [`Offsets`] and where each of its fields is found in the kernel's BTF.
macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident = $strukt:literal . $path:literal,)+) => {
        /// Byte offsets of kernel struct fields, read from the running kernel's BTF by the agent and frozen into the
        /// probes' read-only data, where the verifier sees constants.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
        #[repr(C)]
        pub struct Offsets { $($(#[$doc])* pub $field: u32,)+ }

        impl Offsets {
            /// Struct name and dotted member path of each field, in the order of the fields.
            pub const SOURCES: &'static [(&'static str, &'static str)] = &[$(($strukt, $path),)+];

            /// Offsets in the order of [`Self::SOURCES`].
            pub fn from_values(values: [u32; Self::SOURCES.len()]) -> Self {
                let [$($field,)+] = values;
                Self { $($field,)+ }
            }
        }
    };
}

offsets! {
    /// Socket family.
    sk_family = "sock"."__sk_common.skc_family",
    /// IPv4 remote address.
    sk_daddr = "sock"."__sk_common.skc_daddr",
    /// IPv4 local address.
    sk_rcv_saddr = "sock"."__sk_common.skc_rcv_saddr",
    /// IPv6 remote address.
    sk_v6_daddr = "sock"."__sk_common.skc_v6_daddr",
    /// IPv6 local address.
    sk_v6_rcv_saddr = "sock"."__sk_common.skc_v6_rcv_saddr",
    /// Remote port, network order.
    sk_dport = "sock"."__sk_common.skc_dport",
    /// Network namespace.
    sk_net = "sock"."__sk_common.skc_net.net",
    /// Flags, `SOCK_DONE` among them.
    sk_flags = "sock"."__sk_common.skc_flags",
    /// TCP state.
    sk_state = "sock"."__sk_common.skc_state",
    /// Pending error.
    sk_err = "sock"."sk_err",
    /// `SOCK_STREAM`, `SOCK_DGRAM`, ….
    sk_type = "sock"."sk_type",
    /// `IPPROTO_TCP`, ….
    sk_protocol = "sock"."sk_protocol",
    /// cgroup2 of the socket.
    sk_cgroup = "sock"."sk_cgrp_data.cgroup",
    /// Bound port, network order; unlike `skc_num` still there at the end.
    inet_sport = "inet_sock"."inet_sport",
    /// Payload bytes sent, retransmissions included.
    tcp_bytes_sent = "tcp_sock"."bytes_sent",
    /// Payload bytes retransmitted.
    tcp_bytes_retrans = "tcp_sock"."bytes_retrans",
    /// Payload bytes received, a FIN counts one.
    tcp_bytes_received = "tcp_sock"."bytes_received",
    /// Segments retransmitted.
    tcp_total_retrans = "tcp_sock"."total_retrans",
    /// Smoothed round trip time, microseconds times eight.
    tcp_srtt_us = "tcp_sock"."srtt_us",
    /// Least round trip time, a windowed filter whose best sample is the first.
    tcp_rtt_min = "tcp_sock"."rtt_min",
    /// Inode of a network namespace.
    net_inum = "net"."ns.inum",
    /// kernfs node of a cgroup.
    cgroup_kn = "cgroup"."kn",
    /// Depth of a cgroup.
    cgroup_level = "cgroup"."level",
    /// Hierarchy of a cgroup.
    cgroup_root = "cgroup"."root",
    /// Number of a hierarchy; 0 is cgroup2.
    root_hierarchy = "cgroup_root"."hierarchy_id",
    /// Inode of a kernfs node.
    kernfs_id = "kernfs_node"."id",
    /// Thread id.
    task_pid = "task_struct"."pid",
    /// Process id.
    task_tgid = "task_struct"."tgid",
    /// First thread.
    task_leader = "task_struct"."group_leader",
    /// Start, boot time.
    task_start = "task_struct"."start_boottime",
    /// Parent.
    task_parent = "task_struct"."real_parent",
    /// Name.
    task_comm = "task_struct"."comm",
    /// Set of cgroups.
    task_cgroups = "task_struct"."cgroups",
    /// Memory.
    task_mm = "task_struct"."mm",
    /// State shared by the threads.
    task_signal = "task_struct"."signal",
    /// Credentials.
    task_cred = "task_struct"."cred",
    /// Live threads.
    signal_live = "signal_struct"."live",
    /// Real user id.
    cred_uid = "cred"."uid",
    /// cgroup2 of a set.
    css_dfl_cgroup = "css_set"."dfl_cgrp",
    /// Path given to execve.
    bprm_filename = "linux_binprm"."filename",
    /// Start of the arguments.
    mm_arg_start = "mm_struct"."arg_start",
    /// End of the arguments.
    mm_arg_end = "mm_struct"."arg_end",
    /// Socket of a struct socket.
    socket_sk = "socket"."sk",
}

/// Settings of one run, frozen into the probes' read-only data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Settings {
    /// Bytes of each ring, see [`Ring`].
    pub ring_bytes: [u64; RINGS],
    /// Bytes that a cgroup may always write to each ring per window.
    pub guaranteed_bytes: [u32; RINGS],
    /// Sockets tracked at once, TCP and UDP together.
    pub max_sockets: u32,
    /// 1: `exec` records carry arguments.
    pub keep_args: u32,
    /// Zero.
    pub pad: u32,
}

/// `u64` words of an [`Account`], for readers that take it as such.
pub const ACCOUNT_WORDS: usize = size_of::<Account>() / 8;

/// Kernel-side state of a flow that user space reads only through records.
///
/// `total` fields grow by atomic adds on every packet; `reported` fields are moved up to them by compare-and-exchange, so
/// that two reporters (a walk and a close) never report the same byte twice and never lose one.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct UdpFlow {
    /// Socket cookie.
    pub cookie: u64,
    /// Cgroup of the socket.
    pub cgroup_id: u64,
    /// First datagram.
    pub start_ns: u64,
    /// Who sent the first datagram.
    pub opener: crate::wire::Owner,
    /// Addresses and ports.
    pub tuple: crate::wire::Tuple,
    /// Bytes sent, bytes received, datagrams sent, datagrams received.
    pub total: [u64; 4],
    /// As much of `total` as records have told.
    pub reported: [u64; 4],
    /// Seen in this flow's life: bit 0 sent, bit 1 received, bit 2 further peers of its socket.
    pub seen: u32,
    /// Round of walks that found news last.
    pub news_round: u32,
    /// See [`udp_state`].
    pub state: u32,
    /// [`crate::wire::Direction`] in the low byte, [`crate::wire::flags`] in the high half.
    pub traits: u32,
}

/// States of [`UdpFlow::state`].
pub mod udp_state {
    /// No datagram yet (a socket older than the agent).
    pub const EMPTY: u32 = 0;
    /// One CPU is writing the flow's identity.
    pub const CLAIMED: u32 = 1;
    /// In use.
    pub const ACTIVE: u32 = 2;
    /// Silent for long, reported as ended; a further datagram makes it a new flow.
    pub const ENDED: u32 = 3;
    /// The socket is closed.
    pub const CLOSED: u32 = 4;
}

/// Key of the map of flows beside a UDP socket's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PeerKey {
    /// Socket cookie.
    pub cookie: u64,
    /// Remote address, v4 as v4-mapped.
    pub remote: [u8; 16],
    /// Remote port.
    pub port: u16,
    /// Zero.
    pub pad: [u8; 6],
}

/// Rounds of walks without news after which a UDP socket's first flow counts as ended: 6 of 10 s.
pub const QUIET_ROUNDS: u32 = 6;
/// The same for the flows beside it, whose room is for all: 2 of 10 s.
pub const QUIET_ROUNDS_OF_PEERS: u32 = 2;
