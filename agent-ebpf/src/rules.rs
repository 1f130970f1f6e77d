//! Kernel-side decisions as plain functions.
#![expect(clippy::inline_always, reason = "Linux before 6.4 verifies poorly across calls between BPF functions")]

use crate::wire::{Outcome, Service};

/// Verdict of every cgroup program.
pub const ALLOW: i32 = 1;

/// Port of both metadata services.
pub const METADATA_PORT: u16 = 80;

/// Port of name servers.
pub const DNS_PORT: u16 = 53;
/// Bytes of a DNS message's header: what is shorter is none.
pub const DNS_HEADER_BYTES: u32 = 12;

/// IMDS, IPv4.
pub const IMDS_V4: [u8; 4] = [169, 254, 169, 254];
/// EKS Pod Identity agent, IPv4.
pub const POD_IDENTITY_V4: [u8; 4] = [169, 254, 170, 23];
/// IMDS, IPv6: `fd00:ec2::254`.
pub const IMDS_V6: [u8; 16] = [0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54];
/// EKS Pod Identity agent, IPv6: `fd00:ec2::23`.
pub const POD_IDENTITY_V6: [u8; 16] = [0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x23];

/// The metadata service at an address (v4 as v4-mapped) and port.
#[inline(always)]
pub fn metadata_service(address: &[u8; 16], port: u16) -> Option<Service> {
    if port != METADATA_PORT {
        return None;
    }
    let [high, low] = halves(address);
    if high == 0 && low == mapped_low(IMDS_V4) || [high, low] == halves(&IMDS_V6) {
        Some(Service::Imds)
    } else if high == 0 && low == mapped_low(POD_IDENTITY_V4) || [high, low] == halves(&POD_IDENTITY_V6) {
        Some(Service::PodIdentity)
    } else {
        None
    }
}

/// An IPv4 address as v4-mapped IPv6.
#[inline(always)]
pub fn mapped(v4: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// Whether an address is a v4-mapped one.
#[inline(always)]
pub fn is_mapped(address: &[u8; 16]) -> bool {
    let [high, low] = halves(address);
    high == 0 && low >> 32 == 0xffff
}

#[inline(always)]
const fn halves(a: &[u8; 16]) -> [u64; 2] {
    [
        u64::from_be_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
        u64::from_be_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
    ]
}

#[inline(always)]
const fn mapped_low(v4: [u8; 4]) -> u64 {
    0xffff_0000_0000 | u32::from_be_bytes(v4) as u64
}

/// TCP states of the kernel's `include/net/tcp_states.h`.
pub mod tcp_state {
    /// `TCP_ESTABLISHED`.
    pub const ESTABLISHED: u8 = 1;
    /// `TCP_SYN_SENT`.
    pub const SYN_SENT: u8 = 2;
    /// `TCP_SYN_RECV`.
    pub const SYN_RECV: u8 = 3;
    /// `TCP_FIN_WAIT1`.
    pub const FIN_WAIT1: u8 = 4;
    /// `TCP_FIN_WAIT2`.
    pub const FIN_WAIT2: u8 = 5;
    /// `TCP_TIME_WAIT`.
    pub const TIME_WAIT: u8 = 6;
    /// `TCP_CLOSE`.
    pub const CLOSE: u8 = 7;
    /// `TCP_CLOSE_WAIT`.
    pub const CLOSE_WAIT: u8 = 8;
    /// `TCP_LAST_ACK`.
    pub const LAST_ACK: u8 = 9;
    /// `TCP_LISTEN`.
    pub const LISTEN: u8 = 10;
    /// `TCP_CLOSING`.
    pub const CLOSING: u8 = 11;
}

/// Errno values that `sk_err` takes at the end of a connection.
pub mod errno {
    /// `EPERM`.
    pub const EPERM: u32 = 1;
    /// `EACCES`.
    pub const EACCES: u32 = 13;
    /// `EPIPE`: RST in `CLOSE_WAIT`.
    pub const EPIPE: u32 = 32;
    /// `ENETUNREACH`.
    pub const ENETUNREACH: u32 = 101;
    /// `ECONNRESET`.
    pub const ECONNRESET: u32 = 104;
    /// `ETIMEDOUT`.
    pub const ETIMEDOUT: u32 = 110;
    /// `ECONNREFUSED`.
    pub const ECONNREFUSED: u32 = 111;
    /// `EHOSTUNREACH`.
    pub const EHOSTUNREACH: u32 = 113;
}

/// What is known of a TCP socket when it reaches CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpEnding {
    /// State before CLOSE, see [`tcp_state`].
    pub old_state: u8,
    /// `sk_err` of the socket.
    pub error: u32,
    /// `sk_err` as it was when this connection began: an error of an earlier connection on the same socket stays until it is read.
    pub stale_error: u32,
    /// The handshake completed.
    pub established: bool,
    /// Segments were retransmitted.
    pub retransmitted: bool,
}

/// How a TCP connection ended.
#[inline(always)]
pub fn tcp_outcome(end: TcpEnding) -> Outcome {
    if end.established {
        return established_outcome(end);
    }
    match end.error {
        // Refused long ago and never read, for this SYN was sent again.
        errno::ECONNREFUSED if end.stale_error == end.error && end.retransmitted => Outcome::TimedOut,
        errno::ECONNREFUSED => Outcome::Refused,
        errno::ENETUNREACH | errno::EHOSTUNREACH => Outcome::Unreachable,
        errno::EPERM | errno::EACCES => Outcome::Denied,
        errno::ETIMEDOUT => Outcome::TimedOut,
        _ if end.retransmitted => Outcome::TimedOut,
        _ => Outcome::Aborted,
    }
}

#[inline(always)]
fn established_outcome(end: TcpEnding) -> Outcome {
    // A FIN exchange reaches CLOSE by these; all other ways are an RST or a time-out.
    let orderly = matches!(
        end.old_state,
        tcp_state::FIN_WAIT1 | tcp_state::FIN_WAIT2 | tcp_state::CLOSING | tcp_state::LAST_ACK | tcp_state::TIME_WAIT
    );
    let fresh_error = end.error != 0 && end.error != end.stale_error;
    match (end.error, fresh_error) {
        (errno::ETIMEDOUT | errno::EHOSTUNREACH | errno::ENETUNREACH, true) => Outcome::TimedOut,
        (_, false) if orderly => Outcome::Established,
        // An RST came; or without an error, straight from ESTABLISHED or CLOSE_WAIT: this side aborted (unread data, or
        // linger 0) and sent it.
        _ => Outcome::Reset,
    }
}

/// Length of a budget window as a shift of nanoseconds: 2^27 ns are 134 ms, near the agent's drain interval.
pub const WINDOW_SHIFT: u32 = 27;

/// Account of a cgroup's bytes in one ring after `bytes` more at `now_ns`: the new window word (see
/// [`crate::shared::Account::window`]) and the bytes used in the current window, these included.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "halves of a word; windows are told apart by their low 32 bits")]
pub fn window_add(word: u64, now_ns: u64, bytes: u32) -> (u64, u32) {
    let window = (now_ns >> WINDOW_SHIFT) as u32;
    let used = if (word >> 32) as u32 == window { word as u32 } else { 0 };
    let used = used.saturating_add(bytes);
    ((u64::from(window) << 32) | u64::from(used), used)
}

/// Whether a cgroup may write to a ring: within its guaranteed share always, beyond it only while the ring is at most
/// half full, so that the other half stays for the shares of others.
#[inline(always)]
pub fn may_write(used_in_window: u32, guaranteed_bytes: u32, ring_pending: u64, ring_bytes: u64) -> bool {
    used_in_window <= guaranteed_bytes || ring_pending <= ring_bytes / 2
}

/// What a cgroup may always write of DNS messages, of the share that its flows have in the same ring: half, so that a
/// flood of queries never leaves the flows beside it without room.
#[inline(always)]
pub fn dns_share(guaranteed_bytes: u32) -> u32 {
    guaranteed_bytes / 2
}

/// Whether a flow is one of those that are merged to spare the agent's CPU: all but one in `2^shift`, by a random number.
/// Only flows that were never told and that came to be (a failure is news) are asked for.
#[inline(always)]
pub fn samples_out(shift: u32, random: u32) -> bool {
    random & ((1 << (shift & 31)) - 1) != 0
}

#[cfg(test)]
mod tests;
