//! cgroup connect4 and connect6: who tried to connect, and where to. Exact, in the caller's context.
//!
//! The attempt waits in the socket's entry until the SYN is sent (`tcp`) or, if it never is, until the socket is closed
//! or tries again (`release`, here): then the kernel had no way to send it.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_retval, bpf_get_socket_cookie};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use agent_ebpf::rules;
use agent_ebpf::shared::counter;
use agent_ebpf::wire::{self, Direction, Kind, Outcome, Owner, Tuple};

use super::ALLOW;
use super::emit::{self, Reserved};
use super::kernel;
use super::maps::{TcpSocket, tcp_flags};
use super::metadata;
use super::tcp;

const IPPROTO_TCP: u32 = 6;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    try_connect(&ctx, false);
    ALLOW
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    try_connect(&ctx, true);
    ALLOW
}

#[inline(always)]
fn try_connect(ctx: &SockAddrContext, v6: bool) -> Option<()> {
    // SAFETY: the context of this program.
    let fields = unsafe { &*ctx.sock_addr };
    let (protocol, port) = (fields.protocol, fields.user_port);
    // SAFETY: the union has one member.
    let sk = unsafe { fields.__bindgen_anon_1.sk };
    // getaddrinfo connects UDP sockets to sort addresses.
    if protocol != IPPROTO_TCP || sk.is_null() {
        return None;
    }
    let remote = if v6 { address6(ctx) } else { address4(ctx) };
    let remote_port = u16::from_be(port as u16);
    let socket = kernel::tcp_sock::<bpf_sock>(sk)?;
    let task = kernel::current();
    if rules::metadata_service(&remote, remote_port).is_some() {
        metadata::connects(sk, task);
    }
    trace!(ctx, "connect to port {}", remote_port);
    let Some(entry) = tcp::track(sk) else {
        emit::count(counter::UNTRACKED_ATTEMPTS);
        return None;
    };
    if entry.flags & tcp_flags::ATTEMPT != 0 {
        tell(sk, entry, Outcome::Unreachable);
    } else if entry.flags != 0 {
        // Connected already, or listening: the call will fail, and nothing begins.
        return None;
    }
    *entry = TcpSocket {
        // SAFETY: the context of this program.
        cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
        cgroup_id: kernel::sock_cgroup_id(socket),
        start_ns: emit::now_ns(),
        opener: kernel::owner_of(task),
        closer: Owner::default(),
        reported: [0; 3],
        flags: tcp_flags::TRACKED | tcp_flags::ATTEMPT,
        stale_error: 0,
        shown: 0,
        netns: kernel::netns_of(socket),
        remote,
        remote_port,
        pad: [0; 6],
    };
    // SAFETY: no argument. Not zero after a program of a cgroup below refused this call.
    if unsafe { bpf_get_retval() } != 0 {
        fails(sk, entry, Outcome::Denied);
    }
    Some(())
}

/// Nothing came of a waiting attempt, and nothing will.
#[inline(always)]
pub fn fails(sk: *mut bpf_sock, entry: &mut TcpSocket, outcome: Outcome) {
    tell(sk, entry, outcome);
    entry.flags = 0;
    emit::release_socket();
}

#[inline(always)]
fn tell(sk: *mut bpf_sock, entry: &TcpSocket, outcome: Outcome) {
    let now = emit::now_ns();
    let tuple = Tuple {
        local: if rules::is_mapped(&entry.remote) { rules::mapped([0; 4]) } else { [0; 16] },
        remote: entry.remote,
        local_port: 0,
        remote_port: entry.remote_port,
        netns: entry.netns,
    };
    match emit::reserve::<wire::Attempt>(Kind::Attempt, entry.cgroup_id, now) {
        Reserved::Slot(slot) => {
            let record = wire::Attempt {
                header: emit::header::<wire::Attempt>(Kind::Attempt, 0, 0, now, entry.cgroup_id),
                cookie: entry.cookie,
                start_ns: entry.start_ns,
                opener: entry.opener,
                tuple,
                outcome: outcome as u8,
                pad: [0; 7],
            };
            // SAFETY: a reserved place of this size.
            unsafe { slot.place().write(record) };
            slot.submit();
        }
        Reserved::No(refused) => refused.merge(Some((Direction::Outbound, outcome)), 0, 0),
    }
    metadata::connection_ends(sk, entry, &tuple, outcome, now);
}

#[inline(always)]
fn address4(ctx: &SockAddrContext) -> [u8; 16] {
    // SAFETY: a field of the context, network order.
    rules::mapped(unsafe { (*ctx.sock_addr).user_ip4 }.to_ne_bytes())
}

#[inline(always)]
fn address6(ctx: &SockAddrContext) -> [u8; 16] {
    // SAFETY: the context of this program.
    let fields = unsafe { &(*ctx.sock_addr).user_ip6 };
    let word = |index: usize| {
        // SAFETY: a field of the context, network order; read alone, as the verifier wants it.
        unsafe { core::ptr::read_volatile(&raw const fields[index]) }
    };
    let words: [u32; 4] = [word(0), word(1), word(2), word(3)];
    // SAFETY: same size, no padding.
    unsafe { core::mem::transmute(words) }
}
