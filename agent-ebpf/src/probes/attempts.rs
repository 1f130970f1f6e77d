//! cgroup connect4 and connect6: who tried to connect, and where to. Exact, in the caller's context.
//!
//! The attempt waits in `PENDING` until the SYN is sent (`tcp`) or, if it never is, until the socket is closed or tries
//! again (`release`, here): then the kernel had no way to send it.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_retval, bpf_get_socket_cookie};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use agent_ebpf::rules;
use agent_ebpf::shared::counter;
use agent_ebpf::wire::{self, Kind, Outcome, Tuple};

use super::ALLOW;
use super::emit::{self, Reserved};
use super::kernel;
use super::maps::{PENDING, Pending};
use super::metadata;

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
    // SAFETY: fields of the context.
    let (protocol, port, sk) = unsafe {
        let raw = &*ctx.sock_addr;
        (raw.protocol, raw.user_port, raw.__bindgen_anon_1.sk)
    };
    // getaddrinfo connects UDP sockets to sort addresses.
    if protocol != IPPROTO_TCP || sk.is_null() {
        return None;
    }
    let remote = if v6 { address6(ctx) } else { address4(ctx) };
    let remote_port = u16::from_be(port as u16);
    let tcp = kernel::tcp_sock::<bpf_sock>(sk)?;
    // SAFETY: the context of this program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let task = kernel::current();
    let pending = Pending {
        start_ns: emit::now_ns(),
        cgroup_id: kernel::sock_cgroup_id(tcp),
        opener: kernel::owner_of(task),
        tuple: Tuple {
            local: if v6 { [0; 16] } else { rules::mapped([0; 4]) },
            remote,
            local_port: 0,
            remote_port,
            netns: kernel::netns_of(tcp),
        },
    };
    if rules::metadata_service(&remote, remote_port).is_some() {
        metadata::connects(sk, task);
    }
    fails(cookie, Outcome::Unreachable);
    // SAFETY: no argument. Not zero after a program of a cgroup below refused this call.
    if unsafe { bpf_get_retval() } != 0 {
        tell(cookie, &pending, Outcome::Denied);
        return None;
    }
    if PENDING.insert(cookie, &pending, 0).is_err() {
        emit::count(counter::UNTRACKED_ATTEMPTS);
    }
    Some(())
}

/// Tells a waiting attempt of a socket, if there is one, that nothing will come of it.
#[inline(always)]
pub fn fails(cookie: u64, outcome: Outcome) {
    // SAFETY: copied at once.
    if let Some(pending) = unsafe { PENDING.get(cookie) } {
        tell(cookie, pending, outcome);
        let _ = PENDING.remove(cookie);
    }
}

#[inline(always)]
fn tell(cookie: u64, pending: &Pending, outcome: Outcome) {
    let now = emit::now_ns();
    match emit::reserve::<wire::Attempt>(Kind::Attempt, pending.cgroup_id, now) {
        Reserved::Slot(slot) => {
            let record = wire::Attempt {
                header: emit::header::<wire::Attempt>(Kind::Attempt, 0, 0, now, pending.cgroup_id),
                cookie,
                start_ns: pending.start_ns,
                opener: pending.opener,
                tuple: pending.tuple,
                outcome: outcome as u8,
                pad: [0; 7],
            };
            // SAFETY: a reserved place of this size.
            unsafe { slot.place().write(record) };
            slot.submit();
        }
        Reserved::No(refused) => refused.merge(Some((wire::Direction::Outbound, outcome)), 0, 0),
    }
}

#[inline(always)]
fn address4(ctx: &SockAddrContext) -> [u8; 16] {
    // SAFETY: a field of the context, network order.
    rules::mapped(unsafe { (*ctx.sock_addr).user_ip4 }.to_ne_bytes())
}

#[inline(always)]
fn address6(ctx: &SockAddrContext) -> [u8; 16] {
    // SAFETY: fields of the context, network order; read one by one, as the verifier wants them.
    let words: [u32; 4] = unsafe {
        let raw = ctx.sock_addr;
        [
            core::ptr::read_volatile(&raw const (*raw).user_ip6[0]),
            core::ptr::read_volatile(&raw const (*raw).user_ip6[1]),
            core::ptr::read_volatile(&raw const (*raw).user_ip6[2]),
            core::ptr::read_volatile(&raw const (*raw).user_ip6[3]),
        ]
    };
    // SAFETY: same size, no padding.
    unsafe { core::mem::transmute(words) }
}
