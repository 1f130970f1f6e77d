//! Heads of DNS messages between a client on this machine and UDP port 53.
//!
//! Called from `datagrams`, behind its test of the protocol and behind one of the peer's port. Only the client's side is
//! looked at: of a server on this machine the peers have ports of their own.

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skb_cgroup_id, bpf_skb_load_bytes};

use agent_ebpf::rules;
use agent_ebpf::shared::counter;
use agent_ebpf::wire::{self, DNS_BYTES, Kind, Tuple, flags};

use super::emit::{self, Reserved};
use super::packets::Packet;

/// Payload bytes per record, by class: a query; an answer with some records, or with the authority that says no; and the
/// most that is kept of one message. Powers of two, for the verifier's sake.
const SMALL: usize = 128;
const MIDDLE: usize = 256;
const LARGE: usize = DNS_BYTES;

/// A datagram to or from a name server, whose payload begins `headers` bytes behind the IP header's start.
#[inline(always)]
pub fn message(packet: &Packet, headers: u32, local_port: u16) {
    let payload = packet.total_bytes.saturating_sub(headers);
    if payload < rules::DNS_HEADER_BYTES {
        return;
    }
    if payload <= SMALL as u32 {
        capture::<SMALL>(packet, headers, payload, local_port);
    } else if payload <= MIDDLE as u32 {
        capture::<MIDDLE>(packet, headers, payload, local_port);
    } else {
        capture::<LARGE>(packet, headers, payload, local_port);
    }
}

/// A record with room for payload.
#[repr(C)]
struct Room<const N: usize> {
    fixed: wire::Dns,
    data: [u8; N],
}

#[inline(always)]
fn capture<const N: usize>(packet: &Packet, offset: u32, payload: u32, local_port: u16) {
    // SAFETY: the context of this program.
    let cgroup_id = unsafe { bpf_skb_cgroup_id(packet.skb) };
    let now = emit::now_ns();
    let slot = match emit::reserve::<Room<N>>(Kind::Dns, cgroup_id, now) {
        Reserved::Slot(slot) => slot,
        Reserved::No(refused) => return refused.drop_record(),
    };
    // SAFETY: a reserved place of this size, ours until submitted.
    let room = unsafe { &mut *slot.place() };
    let mut captured = payload.min(N as u32);
    // The compiler drops bounds that it can prove and the verifier cannot: hide the value from it, then bound it.
    // SAFETY: a local.
    unsafe { core::ptr::write_volatile(&raw mut captured, captured) };
    // SAFETY: a local.
    let hidden = unsafe { core::ptr::read_volatile(&raw const captured) };
    let len = ((hidden - 1) & (N as u32 - 1)) + 1;
    // SAFETY: `data` has N bytes and `len` is at most N.
    let result = unsafe { bpf_skb_load_bytes(packet.skb.cast(), offset, room.data.as_mut_ptr().cast(), len) };
    let captured = if result == 0 {
        len
    } else {
        emit::count(counter::UNREADABLE_PACKETS);
        0
    };
    let bits = if packet.egress { 0 } else { flags::RESPONSE };
    room.fixed.header = emit::header::<wire::Dns>(Kind::Dns, bits, captured, now, cgroup_id);
    // SAFETY: the context of this program.
    room.fixed.cookie = unsafe { bpf_get_socket_cookie(packet.skb.cast()) };
    let remote_port = rules::DNS_PORT;
    room.fixed.tuple = Tuple { local: packet.local.0, remote: packet.remote.0, local_port, remote_port, netns: 0 };
    room.fixed.payload_len = payload;
    room.fixed.captured = captured;
    slot.submit();
}
