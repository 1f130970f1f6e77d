//! Values of the maps that the probes write and the agent reads, besides the rings.

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
        /// Not written: the cgroup was over its budget (metadata and lifecycle).
        Suppressed = 3,
        /// Not written: the ring was full (metadata and lifecycle).
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
pub mod counter {
    use super::{FATES, Fate, KINDS};
    use crate::wire::Kind;

    /// Position of the count of records of `kind` with `fate`.
    pub const fn record(kind: Kind, fate: Fate) -> u32 {
        (kind.index() * FATES + fate as usize) as u32
    }

    /// Sockets not tracked because the storage cap was reached or an allocation failed (their totals are merged at close).
    pub const UNTRACKED_SOCKETS: u32 = (KINDS * FATES) as u32;
    /// Connect attempts not followed because the pending map was full.
    pub const UNTRACKED_ATTEMPTS: u32 = UNTRACKED_SOCKETS + 1;
    /// UDP flows beside their socket's first that found the peers map full (their bytes are merged).
    pub const UNTRACKED_PEERS: u32 = UNTRACKED_SOCKETS + 2;
    /// Records accounted to the shared overflow account because the accounts map was full.
    pub const OVERFLOW_ACCOUNTS: u32 = UNTRACKED_SOCKETS + 3;
    /// Metadata packets whose payload could not be read.
    pub const UNREADABLE_PACKETS: u32 = UNTRACKED_SOCKETS + 4;
    /// Number of counters.
    pub const COUNT: u32 = UNTRACKED_SOCKETS + 5;
}

/// Totals of one cgroup, map `ACCOUNTS`; all fields only grow, by atomic adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Account {
    /// Budget window of each ring: the window's number in the high half, bytes used in the low half.
    pub window: [u64; RINGS],
    /// Records over the cgroup's budget, per ring.
    pub over_budget: [u64; RINGS],
    /// Records that found the ring full, per ring.
    pub ring_full: [u64; RINGS],
    /// Ended connections merged here instead of written, by direction (outbound and unknown, inbound) and outcome.
    pub merged_connections: [[u64; Outcome::COUNT]; 2],
    /// Payload bytes sent by merged flows.
    pub merged_bytes_sent: u64,
    /// Payload bytes received by merged flows.
    pub merged_bytes_received: u64,
}

/// Key of the account that takes what finds the accounts map full. No cgroup has this id.
pub const OVERFLOW_ACCOUNT: u64 = 0;
