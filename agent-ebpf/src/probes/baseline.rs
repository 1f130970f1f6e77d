//! `iter/task_file`, run once at start: every open TCP and UDP socket and listener, in all network namespaces, gets its
//! entry and owner. Sockets that nobody holds a descriptor of (not yet accepted, orphaned) stay unknown.

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_sock_from_file};

use agent_ebpf::rules::tcp_state;
use agent_ebpf::shared::UdpFlow;
use agent_ebpf::wire::flags;

use super::emit;
use super::kernel::{self, Kptr, offset, read};
use super::maps::{TCP_SOCKETS, TcpSocket, UDP_SOCKETS, tcp_flags};
use super::tcp;
use super::walks::field;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const SOCK_STREAM: u16 = 1;
const SOCK_DGRAM: u16 = 2;

/// `bpf_iter__task_file { meta, task, fd, file }`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn baseline(ctx: *mut core::ffi::c_void) -> i32 {
    try_baseline(ctx);
    0
}

#[inline(always)]
fn try_baseline(ctx: *mut core::ffi::c_void) -> Option<()> {
    let task: Kptr = field(ctx, 1)?;
    let file: Kptr = field(ctx, 3)?;
    // SAFETY: the verifier checks the type.
    let socket = unsafe { bpf_sock_from_file(file.cast_mut().cast()) }.cast::<u8>();
    if socket.is_null() {
        return None;
    }
    let sk: Kptr = read(socket, offset!(socket_sk));
    if sk.is_null() {
        return None;
    }
    let family: u16 = read(sk, offset!(sk_family));
    if family != AF_INET && family != AF_INET6 {
        return None;
    }
    // Raw sockets of these protocols are neither.
    match (read::<u16>(sk, offset!(sk_protocol)), read::<u16>(sk, offset!(sk_type))) {
        (IPPROTO_TCP, SOCK_STREAM) => tcp_socket(sk, task),
        (IPPROTO_UDP, SOCK_DGRAM) => udp_socket(sk, task),
        _ => None,
    }
}

#[inline(always)]
fn tcp_socket(sk: Kptr, task: Kptr) -> Option<()> {
    let state: u8 = read(sk, offset!(sk_state));
    if state == tcp_state::CLOSE {
        return None;
    }
    let found: Option<&mut TcpSocket> = kernel::storage(&TCP_SOCKETS, sk.cast_mut(), false);
    if found.is_some() || !emit::admit_socket() {
        return None;
    }
    let entry: Option<&mut TcpSocket> = kernel::storage(&TCP_SOCKETS, sk.cast_mut(), true);
    let Some(entry) = entry else {
        emit::release_socket();
        return None;
    };
    // SAFETY: a socket pointer.
    entry.cookie = unsafe { bpf_get_socket_cookie(sk.cast_mut().cast()) };
    entry.cgroup_id = kernel::sock_cgroup_id(sk);
    entry.opener = kernel::owner_of(task);
    if state == tcp_state::LISTEN {
        entry.flags = tcp_flags::TRACKED | tcp_flags::LISTENER;
        return Some(());
    }
    let tcp = kernel::tcp_sock(sk.cast_mut())?;
    let (sent, received) = tcp::payload_bytes(tcp);
    entry.reported = [sent, received, u64::from(read::<u32>(tcp, offset!(tcp_total_retrans)))];
    entry.flags = tcp_flags::TRACKED
        | tcp_flags::PREEXISTING
        | if state == tcp_state::SYN_SENT { tcp_flags::OUTBOUND } else { tcp_flags::ESTABLISHED };
    Some(())
}

#[inline(always)]
fn udp_socket(sk: Kptr, task: Kptr) -> Option<()> {
    let found: Option<&mut UdpFlow> = kernel::storage(&UDP_SOCKETS, sk.cast_mut(), false);
    if found.is_some() || !emit::admit_socket() {
        return None;
    }
    let entry: Option<&mut UdpFlow> = kernel::storage(&UDP_SOCKETS, sk.cast_mut(), true);
    let Some(entry) = entry else {
        emit::release_socket();
        return None;
    };
    // A datagram may come between the creation and these writes: it would claim the flow and find itself outbound or
    // inbound, which is what it is as far as anybody can tell.
    entry.opener = kernel::owner_of(task);
    entry.traits = u32::from(flags::PREEXISTING) << 16;
    Some(())
}
