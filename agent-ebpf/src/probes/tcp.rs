//! `sock_ops` at the cgroup2 root: every TCP connection's establishment, failure and close, exactly; and the tracepoint
//! that tells the end of connections older than the probes.
//!
//! The state callback is asked for per socket, at connect and at acceptance. The kernel calls it before the state
//! changes, so ports and addresses still stand in the socket when it reaches CLOSE.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock,
};
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::{btf_tracepoint, sock_ops};
use aya_ebpf::programs::{BtfTracePointContext, SockOpsContext};

use agent_ebpf::rules::{self, TcpEnding, tcp_state};
use agent_ebpf::wire::{self, Direction, Kind, Outcome, Owner, Tuple, flags};

use super::ALLOW;
use super::atomic;
use super::emit::{self, Refused, Reserved};
use super::kernel::{self, Kptr, offset, read};
use super::maps::{TCP_SOCKETS, TcpSocket, tcp_flags};
use super::metadata;

const SOCK_DONE_BIT: u64 = 1 << 1;

#[sock_ops]
pub fn tcp(ctx: SockOpsContext) -> u32 {
    try_tcp(&ctx);
    ALLOW as u32
}

#[inline(always)]
fn try_tcp(ctx: &SockOpsContext) -> Option<()> {
    trace!(ctx, "tcp op {} args {} {} cookie {}", ctx.op(), ctx.arg(0), ctx.arg(1), cookie(ctx));
    match ctx.op() {
        BPF_SOCK_OPS_STATE_CB => state_changes(ctx),
        BPF_SOCK_OPS_TCP_CONNECT_CB => connects(ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => established(ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(ctx),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listens(ctx),
        _ => None,
    }
}

/// The SYN is about to be sent: a connection begins, whatever this socket did before.
#[inline(always)]
fn connects(ctx: &SockOpsContext) -> Option<()> {
    let sk = socket(ctx)?;
    ask_for_states(ctx);
    let tcp = kernel::tcp_sock(sk)?;
    let entry = track(sk)?;
    if entry.flags & tcp_flags::ATTEMPT == 0 {
        // connect was not seen (its probe was refused, or the kernel itself connects): no owner.
        begin(entry, cookie(ctx), tcp, Owner::default());
    }
    entry.stale_error = read(tcp, offset!(sk_err));
    entry.flags = tcp_flags::TRACKED | tcp_flags::OUTBOUND;
    Some(())
}

#[inline(always)]
fn established(ctx: &SockOpsContext) -> Option<()> {
    // Again: a program of a cgroup below may have asked for something else instead of beside it.
    ask_for_states(ctx);
    let entry: &mut TcpSocket = kernel::storage(&TCP_SOCKETS, socket(ctx)?, false)?;
    entry.flags |= tcp_flags::ESTABLISHED;
    Some(())
}

/// A socket was made for an accepted connection. Its entry is the listener's, cloned, if that had one.
#[inline(always)]
fn accepted(ctx: &SockOpsContext) -> Option<()> {
    let sk = socket(ctx)?;
    ask_for_states(ctx);
    let tcp = kernel::tcp_sock(sk)?;
    let found: Option<&mut TcpSocket> = kernel::storage(&TCP_SOCKETS, sk, false);
    let entry = match found {
        // Both sides connected at once (or the socket connected to itself): it stays outbound.
        Some(entry) if entry.flags & tcp_flags::OUTBOUND != 0 => {
            entry.flags |= tcp_flags::ESTABLISHED;
            return Some(());
        }
        Some(entry) => {
            if !emit::admit_socket() {
                entry.flags = 0;
                return None;
            }
            entry
        }
        None => track(sk)?,
    };
    let listener = entry.opener;
    begin(entry, cookie(ctx), tcp, listener);
    entry.flags = tcp_flags::TRACKED | tcp_flags::INBOUND | tcp_flags::ESTABLISHED;
    Some(())
}

/// Starts an entry anew.
#[inline(always)]
fn begin(entry: &mut TcpSocket, cookie: u64, tcp: Kptr, opener: Owner) {
    *entry = TcpSocket {
        cookie,
        cgroup_id: kernel::sock_cgroup_id(tcp),
        start_ns: emit::now_ns(),
        opener,
        closer: Owner::default(),
        reported: [0; 3],
        flags: 0,
        stale_error: 0,
        shown: 0,
        netns: 0,
        remote: [0; 16],
        remote_port: 0,
        pad: [0; 6],
    };
}

#[inline(always)]
fn listens(ctx: &SockOpsContext) -> Option<()> {
    let sk = socket(ctx)?;
    let tcp = kernel::tcp_sock(sk)?;
    let entry = track(sk)?;
    entry.cookie = cookie(ctx);
    entry.cgroup_id = kernel::sock_cgroup_id(tcp);
    // listen() runs in the caller's context.
    entry.opener = kernel::owner_of(kernel::current());
    entry.flags = tcp_flags::TRACKED | tcp_flags::LISTENER;
    Some(())
}

#[inline(always)]
fn state_changes(ctx: &SockOpsContext) -> Option<()> {
    match ctx.arg(1) as u8 {
        tcp_state::CLOSE => closes(ctx),
        // Only close() and shutdown() lead here, in the caller's context.
        tcp_state::FIN_WAIT1 | tcp_state::LAST_ACK => {
            let entry: &mut TcpSocket = kernel::storage(&TCP_SOCKETS, socket(ctx)?, false)?;
            if entry.closer.tgid == 0 {
                entry.closer = kernel::owner_of(kernel::current());
            }
            Some(())
        }
        _ => None,
    }
}

#[inline(always)]
fn closes(ctx: &SockOpsContext) -> Option<()> {
    let sk = socket(ctx)?;
    let tcp = kernel::tcp_sock(sk)?;
    let old_state = ctx.arg(0) as u8;
    if old_state == tcp_state::CLOSE || old_state == tcp_state::LISTEN {
        return None;
    }
    let entry: Option<&mut TcpSocket> = kernel::storage(&TCP_SOCKETS, sk, false);
    let Some(entry) = entry else {
        untracked_closes(tcp, old_state);
        return None;
    };
    if entry.flags & tcp_flags::TRACKED == 0 {
        untracked_closes(tcp, old_state);
        return None;
    }
    // An attempt here has the callback of an earlier connection of its socket, and no SYN: its own probes tell it.
    if entry.flags & (tcp_flags::LISTENER | tcp_flags::PREEXISTING | tcp_flags::ATTEMPT) != 0 {
        return None;
    }
    let now = emit::now_ns();
    let tuple = kernel::tuple_of(tcp);
    let outcome = report(Kind::TcpEnd, tcp, entry, &tuple, old_state, now);
    if entry.flags & tcp_flags::OUTBOUND != 0 {
        metadata::connection_ends(sk, entry, &tuple, outcome, now);
    }
    // The entry goes with the socket, unless that connects again.
    entry.flags = 0;
    emit::release_socket();
    Some(())
}

/// The end of a connection that found no room to be tracked: its totals still count.
#[inline(always)]
fn untracked_closes(tcp: Kptr, old_state: u8) {
    let established = old_state != tcp_state::SYN_SENT;
    let outcome = rules::tcp_outcome(TcpEnding {
        old_state,
        error: read(tcp, offset!(sk_err)),
        stale_error: 0,
        established,
        retransmitted: read::<u32>(tcp, offset!(tcp_total_retrans)) > 0,
    });
    let (sent, received) = payload_bytes(tcp);
    let refused = Refused::untracked(Kind::TcpEnd, kernel::sock_cgroup_id(tcp));
    refused.merge(Some((Direction::Unknown, outcome)), sent, received);
}

/// Tells one connection's news since its last record; at the end, the outcome.
///
/// The order is the verifier's: what branches most comes last, or Linux 6.1 follows every combination.
#[inline(always)]
pub fn report(kind: Kind, tcp: Kptr, entry: &mut TcpSocket, tuple: &Tuple, old_state: u8, now: u64) -> Outcome {
    let direction = ((entry.flags >> OUTBOUND_SHIFT) & 1) as u8 | (((entry.flags >> INBOUND_SHIFT) & 1) as u8 * 2);
    let last = matches!(kind, Kind::TcpEnd);
    // A failure is news, and a connection that was shown is to end where it was shown.
    let is_spared = last && entry.shown == 0 && entry.flags & tcp_flags::ESTABLISHED != 0;
    let spared = if is_spared { Refused::sampled(kind, entry.cgroup_id) } else { None };
    let reserved = match spared {
        Some(refused) => Reserved::No(refused),
        None => emit::reserve::<wire::Tcp>(kind, entry.cgroup_id, now),
    };
    let (sent, received) = payload_bytes(tcp);
    let claim = if last { atomic::claim_last } else { atomic::claim };
    let bytes_sent = claim(&raw mut entry.reported[0], sent);
    let bytes_received = claim(&raw mut entry.reported[1], received);
    let slot = match reserved {
        Reserved::Slot(slot) => slot,
        Reserved::No(refused) => {
            let outcome = outcome_of(kind, tcp, entry, old_state);
            let ended = last.then_some((inbound(direction), outcome));
            refused.merge(ended, bytes_sent, bytes_received);
            return outcome;
        }
    };
    // SAFETY: a reserved place of this size, ours until submitted.
    let record = unsafe { &mut *slot.place() };
    let bits = (entry.flags & tcp_flags::RECORD) as u16 | (flags::FIRST * (entry.shown ^ 1) as u16);
    record.header = emit::header::<wire::Tcp>(kind, bits, 0, now, entry.cgroup_id);
    record.cookie = entry.cookie;
    record.start_ns = entry.start_ns;
    record.bytes_sent = bytes_sent;
    record.bytes_received = bytes_received;
    record.opener = entry.opener;
    record.closer = entry.closer;
    record.tuple = *tuple;
    let retransmits: u32 = read(tcp, offset!(tcp_total_retrans));
    // Walks and the end may meet here, and a segment count be told twice: bytes are exact, this is not worth an atomic.
    record.retransmits = retransmits.saturating_sub(entry.reported[2] as u32);
    entry.reported[2] = u64::from(retransmits);
    record.srtt_us = read::<u32>(tcp, offset!(tcp_srtt_us)) >> 3;
    // struct minmax: three samples of {time, value}; the value is all ones before the first measurement.
    record.min_rtt_us = read(tcp, offset!(tcp_rtt_min) + 4);
    record.direction = direction;
    record.old_state = old_state;
    record.pad = 0;
    let outcome = outcome_of(kind, tcp, entry, old_state);
    record.outcome = outcome as u8;
    slot.submit();
    outcome
}

const OUTBOUND_SHIFT: u32 = tcp_flags::OUTBOUND.trailing_zeros();
const INBOUND_SHIFT: u32 = tcp_flags::INBOUND.trailing_zeros();
// The wire's numbers of the directions are these two bits.
const _: () = assert!(Direction::Outbound as u8 == 1 && Direction::Inbound as u8 == 2);

#[inline(always)]
fn inbound(direction: u8) -> Direction {
    if direction == Direction::Inbound as u8 { Direction::Inbound } else { Direction::Outbound }
}

#[inline(always)]
fn outcome_of(kind: Kind, tcp: Kptr, entry: &TcpSocket, old_state: u8) -> Outcome {
    if matches!(kind, Kind::TcpOpen) {
        return Outcome::Established;
    }
    rules::tcp_outcome(TcpEnding {
        old_state,
        error: read(tcp, offset!(sk_err)),
        stale_error: entry.stale_error,
        established: entry.flags & tcp_flags::ESTABLISHED != 0,
        retransmitted: read::<u32>(tcp, offset!(tcp_total_retrans)) > 0,
    })
}

/// The end of connections older than the probes: their sockets have no state callback. The tracepoint runs after the
/// change, and may be skipped by the kernel; what is lost then is the end of an old connection, never of a new one.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn preexisting(ctx: BtfTracePointContext) -> i32 {
    try_preexisting(&ctx);
    0
}

#[inline(always)]
fn try_preexisting(ctx: &BtfTracePointContext) -> Option<()> {
    if ctx.arg::<i32>(2) != i32::from(tcp_state::CLOSE) {
        return None;
    }
    let sk: *mut bpf_sock = ctx.arg(0);
    let entry: &mut TcpSocket = kernel::storage(&TCP_SOCKETS, sk, false)?;
    let wanted = tcp_flags::PREEXISTING | tcp_flags::LISTENER;
    if entry.flags & wanted != tcp_flags::PREEXISTING {
        return None;
    }
    let tcp = kernel::tcp_sock(sk)?;
    let tuple = kernel::tuple_of(tcp);
    report(Kind::TcpEnd, tcp, entry, &tuple, ctx.arg::<i32>(1) as u8, emit::now_ns());
    entry.flags = 0;
    emit::release_socket();
    Some(())
}

/// A socket's entry, made if there is room for one.
#[inline(always)]
pub fn track(sk: *mut bpf_sock) -> Option<&'static mut TcpSocket> {
    if let Some(entry) = kernel::storage::<_, TcpSocket, _>(&TCP_SOCKETS, sk, false)
        && entry.flags & tcp_flags::TRACKED != 0
    {
        return Some(entry);
    }
    if !emit::admit_socket() {
        return None;
    }
    let entry = kernel::storage(&TCP_SOCKETS, sk, true);
    if entry.is_none() {
        emit::release_socket();
    }
    entry
}

/// Payload bytes sent (without retransmissions) and received (without the FIN, which the kernel counts as one).
#[inline(always)]
pub fn payload_bytes(tcp: Kptr) -> (u64, u64) {
    let sent: u64 = read(tcp, offset!(tcp_bytes_sent));
    let again: u64 = read(tcp, offset!(tcp_bytes_retrans));
    let received: u64 = read(tcp, offset!(tcp_bytes_received));
    let bits: u64 = read(tcp, offset!(sk_flags));
    let fin = u64::from(bits & SOCK_DONE_BIT != 0 && received > 0);
    (sent.saturating_sub(again), received - fin)
}

#[inline(always)]
fn socket(ctx: &SockOpsContext) -> Option<*mut bpf_sock> {
    // SAFETY: the context of this program.
    let fields = unsafe { &*ctx.ops };
    // SAFETY: the union has one member; null unless it is a full socket.
    let sk = unsafe { fields.__bindgen_anon_2.sk };
    if sk.is_null() { None } else { Some(sk) }
}

#[inline(always)]
fn cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the context of this program.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// Asks for the state callback, beside what other programs asked for.
#[inline(always)]
fn ask_for_states(ctx: &SockOpsContext) {
    let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
}
