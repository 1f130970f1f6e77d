//! cgroup `sock_release`: the last descriptor of an IPv4 or IPv6 socket is closed, in the closer's context and before the
//! protocol hears of it. Exact, killed processes included.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;

use agent_ebpf::shared::UdpFlow;
use agent_ebpf::wire::Outcome;

use super::ALLOW;
use super::attempts;
use super::datagrams;
use super::emit;
use super::kernel;
use super::maps::{TCP_SOCKETS, TcpSocket, UDP_SOCKETS, tcp_flags};

const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

#[cgroup_sock(sock_release)]
pub fn release(ctx: SockContext) -> i32 {
    try_release(&ctx);
    ALLOW
}

#[inline(always)]
fn try_release(ctx: &SockContext) -> Option<()> {
    trace!(ctx, "release of a socket");
    // SAFETY: a field of the context.
    match unsafe { (*ctx.sock).protocol } {
        IPPROTO_TCP => tcp_closes(ctx),
        IPPROTO_UDP => udp_closes(ctx.sock),
        _ => None,
    }
}

#[inline(always)]
fn tcp_closes(ctx: &SockContext) -> Option<()> {
    let entry: &mut TcpSocket = kernel::storage(&TCP_SOCKETS, ctx.sock, false)?;
    if entry.flags & tcp_flags::ATTEMPT != 0 {
        attempts::fails(ctx.sock, entry, Outcome::Unreachable);
    } else if entry.flags & tcp_flags::LISTENER != 0 {
        // Listeners have no state callback; the entry goes with the socket.
        entry.flags = 0;
        emit::release_socket();
    } else if entry.closer.tgid == 0 {
        entry.closer = kernel::owner_of(kernel::current());
    }
    Some(())
}

#[inline(always)]
fn udp_closes(sk: *mut bpf_sock) -> Option<()> {
    let flow: &mut UdpFlow = kernel::storage(&UDP_SOCKETS, sk, false)?;
    datagrams::socket_closes(flow, kernel::owner_of(kernel::current()));
    emit::release_socket();
    Some(())
}
