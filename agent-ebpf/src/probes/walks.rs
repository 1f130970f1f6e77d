//! Walks over what is open, started by the agent every ten seconds and at its end: news of long-lived connections and
//! flows go to the ring; silent UDP flows end.
//!
//! The iterators write nothing to their seq files, so that one read covers everything without restarts. The agent does not
//! drain while it walks: when the ring is a quarter full, the rest of the news is put off, and the agent drains and walks
//! again.

use agent_ebpf::shared::{PeerKey, QUIET_ROUNDS, QUIET_ROUNDS_OF_PEERS, UdpFlow, counter, udp_state};
use agent_ebpf::wire::{Kind, Owner, flags};

use super::atomic;
use super::datagrams;
use super::emit;
use super::kernel::{self, Kptr, offset, read};
use super::maps::{CLOSED_SOCKETS, ROUND, TcpSocket, UDP_PEERS, tcp_flags};
use super::tcp;

/// Field `index` (of eight bytes each) of an iterator's context; `None` when null, as at the iteration's end.
#[inline(always)]
pub fn field(ctx: *mut core::ffi::c_void, index: usize) -> Option<Kptr> {
    // SAFETY: the context has at least four such fields.
    let field = unsafe { ctx.cast::<Kptr>().add(index) };
    // SAFETY: as above; the verifier checks the index.
    let pointer = unsafe { *field };
    if pointer.is_null() { None } else { Some(pointer) }
}

/// `bpf_iter__bpf_sk_storage_map { meta, map, sk, value }` over `TCP_SOCKETS`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub extern "C" fn walk_tcp(ctx: *mut core::ffi::c_void) -> i32 {
    try_walk_tcp(ctx);
    0
}

#[inline(always)]
fn try_walk_tcp(ctx: *mut core::ffi::c_void) -> Option<()> {
    let sk = field(ctx, 2)?;
    let value = field(ctx, 3)?.cast_mut().cast::<TcpSocket>();
    // SAFETY: a value of the map; racing writers own their fields or use atomics.
    let entry = unsafe { &mut *value };
    if entry.flags & tcp_flags::TRACKED != 0 {
        emit::count(counter::WALKED_SOCKETS);
    }
    let wanted = tcp_flags::TRACKED | tcp_flags::ESTABLISHED;
    if entry.flags & (wanted | tcp_flags::LISTENER) != wanted {
        return None;
    }
    let tcp = kernel::tcp_sock(sk.cast_mut())?;
    let (sent, received) = tcp::payload_bytes(tcp);
    if entry.shown != 0 && sent <= entry.reported[0] && received <= entry.reported[1] {
        return None;
    }
    if emit::defers() {
        return None;
    }
    let tuple = kernel::tuple_of(tcp);
    tcp::report(Kind::TcpOpen, tcp, entry, &tuple, read(tcp, offset!(sk_state)), emit::now_ns());
    entry.shown = 1;
    Some(())
}

/// `bpf_iter__bpf_sk_storage_map { meta, map, sk, value }` over `UDP_SOCKETS`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub extern "C" fn walk_udp(ctx: *mut core::ffi::c_void) -> i32 {
    try_walk_udp(ctx);
    0
}

#[inline(always)]
fn try_walk_udp(ctx: *mut core::ffi::c_void) -> Option<()> {
    field(ctx, 2)?;
    let value = field(ctx, 3)?.cast_mut().cast::<UdpFlow>();
    // SAFETY: a value of the map; racing writers use atomics.
    let flow = unsafe { &mut *value };
    if datagrams::state(flow) != udp_state::CLOSED {
        emit::count(counter::WALKED_SOCKETS);
    }
    visit(flow, QUIET_ROUNDS);
    Some(())
}

/// `bpf_iter__bpf_map_elem { meta, map, key, value }` over `UDP_PEERS`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub extern "C" fn walk_peers(ctx: *mut core::ffi::c_void) -> i32 {
    try_walk_peers(ctx);
    0
}

#[inline(always)]
fn try_walk_peers(ctx: *mut core::ffi::c_void) -> Option<()> {
    let key = field(ctx, 2)?.cast::<PeerKey>();
    let value = field(ctx, 3)?.cast_mut().cast::<UdpFlow>();
    // SAFETY: the key of a map element.
    let key = unsafe { *key };
    // SAFETY: the value of a map element; racing writers use atomics.
    let flow = unsafe { &mut *value };
    // SAFETY: copied at once.
    if let Some(closer) = unsafe { CLOSED_SOCKETS.get(key.cookie) } {
        if datagrams::state(flow) == udp_state::ACTIVE || datagrams::fresh(flow) {
            datagrams::report(Kind::UdpEnd, flow, *closer, 0);
        }
        let _ = UDP_PEERS.remove(key);
        return Some(());
    }
    if visit(flow, QUIET_ROUNDS_OF_PEERS) {
        // A datagram between this look and the removal, after long silence, would be lost.
        let _ = UDP_PEERS.remove(key);
    }
    Some(())
}

/// Tells a flow's news, or ends it after so many silent rounds; whether it ended.
#[inline(always)]
fn visit(flow: &mut UdpFlow, quiet_rounds: u32) -> bool {
    let state = datagrams::state(flow);
    if state != udp_state::ACTIVE && state != udp_state::ENDED {
        return false;
    }
    let round = round();
    if datagrams::fresh(flow) {
        if emit::defers() {
            return false;
        }
        flow.news_round = round;
        if state == udp_state::ENDED {
            // Silent for long, and back: a new flow.
            flow.start_ns = emit::now_ns();
            atomic::replace_u32(&raw mut flow.state, udp_state::ENDED, udp_state::ACTIVE);
        }
        datagrams::report(Kind::UdpOpen, flow, Owner::default(), 0);
        return false;
    }
    if state != udp_state::ACTIVE || round.wrapping_sub(flow.news_round) < quiet_rounds || emit::defers() {
        return false;
    }
    if !atomic::replace_u32(&raw mut flow.state, udp_state::ACTIVE, udp_state::ENDED) {
        return false;
    }
    datagrams::report(Kind::UdpEnd, flow, Owner::default(), flags::IDLE);
    true
}

/// Number of the agent's present round of walks.
#[inline(always)]
fn round() -> u32 {
    // SAFETY: a map value that only the agent writes.
    ROUND.get_ptr_mut(0).map_or(0, |round| unsafe { core::ptr::read_volatile(round) })
}
