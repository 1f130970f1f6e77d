//! Traffic of the metadata services: payload heads of both directions, with the process that connected.
//!
//! Called from `packets` (segments), `attempts` (connects) and `tcp` (ends). Only the client's side is looked at: a server
//! on this machine has the service's address as its own, not as its peer's.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skb_cgroup_id, bpf_skb_load_bytes};

use agent_ebpf::rules;
use agent_ebpf::shared::counter;
use agent_ebpf::wire::{self, ANCESTORS, Kind, Named, Outcome, Service, Tuple, flags};

use super::emit::{self, Reserved};
use super::kernel::{self, Kptr};
use super::maps::{METADATA_SOCKETS, MetadataSocket, TcpSocket, tcp_flags};
use super::packets::{Packet, load};

/// Payload bytes per record, by class: a request's head, an answer with its body's start, and the most that is kept of
/// one packet. Powers of two, for the verifier's sake.
const SMALL: usize = 256;
const MIDDLE: usize = 1024;
const LARGE: usize = 4096;

/// The early test: whether an IPv4 peer may be a metadata service.
#[inline(always)]
pub fn may_be_v4(remote: u32) -> bool {
    remote == u32::from_ne_bytes(rules::IMDS_V4) || remote == u32::from_ne_bytes(rules::POD_IDENTITY_V4)
}

/// The early test: whether an IPv6 peer may be a metadata service. All of them are below `fd00:ec2::`.
#[inline(always)]
pub fn may_be_v6(remote: &[u8; 16]) -> bool {
    remote[0] == 0xfd && may_be(remote)
}

/// Whether a peer is a metadata service on its port.
#[inline(always)]
pub fn may_be(remote: &[u8; 16]) -> bool {
    rules::metadata_service(remote, rules::METADATA_PORT).is_some()
}

/// Someone connects to a metadata service: keep who, with the ancestors, for the records to come.
#[inline(always)]
pub fn connects(sk: *mut bpf_sock, task: Kptr) {
    let entry: Option<&mut MetadataSocket> = kernel::storage(&METADATA_SOCKETS, sk, true);
    if let Some(entry) = entry {
        entry.process = kernel::named_of(task);
        kernel::ancestors_of(task, &mut entry.ancestors);
    }
}

/// A TCP packet to or from an address that may be a metadata service.
#[inline(always)]
pub fn segment(packet: &Packet) -> Option<()> {
    let head: TcpHead = load(packet.skb, packet.ip_bytes)?;
    let source = u16::from_be(head.source);
    let destination = u16::from_be(head.destination);
    let (local_port, remote_port) = if packet.egress { (source, destination) } else { (destination, source) };
    let service = rules::metadata_service(&packet.remote.0, remote_port)?;
    let offset = packet.ip_bytes + u32::from(head.words_and_flags >> 4) * 4;
    if packet.total_bytes <= offset {
        return None;
    }
    let segment = Segment {
        offset,
        payload: packet.total_bytes - offset,
        seq: u32::from_be(head.seq),
        tuple: Tuple { local: packet.local.0, remote: packet.remote.0, local_port, remote_port, netns: 0 },
        service,
    };
    if segment.payload <= SMALL as u32 {
        capture::<SMALL>(packet, &segment)
    } else if segment.payload <= MIDDLE as u32 {
        capture::<MIDDLE>(packet, &segment)
    } else {
        capture::<LARGE>(packet, &segment)
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct TcpHead {
    source: u16,
    destination: u16,
    seq: u32,
    ack: u32,
    words_and_flags: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

struct Segment {
    /// Where the payload starts, from the IP header.
    offset: u32,
    payload: u32,
    seq: u32,
    tuple: Tuple,
    service: Service,
}

/// A record with room for payload.
#[repr(C)]
struct Room<const N: usize> {
    fixed: wire::MetadataSegment,
    data: [u8; N],
}

#[inline(always)]
fn capture<const N: usize>(packet: &Packet, segment: &Segment) -> Option<()> {
    // SAFETY: the context of this program.
    let cookie = unsafe { bpf_get_socket_cookie(packet.skb.cast()) };
    // SAFETY: as above.
    let cgroup_id = unsafe { bpf_skb_cgroup_id(packet.skb) };
    let now = emit::now_ns();
    let slot = match emit::reserve::<Room<N>>(Kind::MetadataSegment, cgroup_id, now) {
        Reserved::Slot(slot) => slot,
        Reserved::No(refused) => {
            refused.drop_record();
            return None;
        }
    };
    // SAFETY: a reserved place of this size, ours until submitted.
    let room = unsafe { &mut *slot.place() };
    let mut captured = segment.payload.min(N as u32);
    // The compiler drops bounds that it can prove and the verifier cannot: hide the value from it, then bound it.
    // SAFETY: a local.
    unsafe { core::ptr::write_volatile(&raw mut captured, captured) };
    // SAFETY: a local.
    let hidden = unsafe { core::ptr::read_volatile(&raw const captured) };
    let len = ((hidden - 1) & (N as u32 - 1)) + 1;
    // SAFETY: `data` has N bytes and `len` is at most N.
    let result = unsafe { bpf_skb_load_bytes(packet.skb.cast(), segment.offset, room.data.as_mut_ptr().cast(), len) };
    let captured = if result == 0 {
        len
    } else {
        emit::count(counter::UNREADABLE_PACKETS);
        0
    };
    let mut bits = if packet.egress { 0 } else { flags::RESPONSE };
    let entry: Option<&mut MetadataSocket> = kernel::storage(&METADATA_SOCKETS, packet.sk, false);
    if let Some(entry) = entry {
        room.fixed.process = entry.process;
        room.fixed.ancestors = entry.ancestors;
    } else {
        room.fixed.process = Named::default();
        room.fixed.ancestors = [Named::default(); ANCESTORS];
        let task = kernel::current();
        // No connect was seen (an old socket, a raw socket): the sender, if this is its context.
        if packet.egress && kernel::task_cgroup_id(task) == cgroup_id {
            bits |= flags::OWNER_SENT;
            room.fixed.process = kernel::named_of(task);
            kernel::ancestors_of(task, &mut room.fixed.ancestors);
        }
    }
    room.fixed.header = emit::header::<wire::MetadataSegment>(Kind::MetadataSegment, bits, captured, now, cgroup_id);
    room.fixed.cookie = cookie;
    room.fixed.tuple = segment.tuple;
    room.fixed.seq = segment.seq;
    room.fixed.payload_len = segment.payload;
    room.fixed.captured = captured;
    room.fixed.service = segment.service as u8;
    room.fixed.ttl = packet.ttl;
    room.fixed.pad = [0; 2];
    slot.submit();
    Some(())
}

/// A TCP connection ended: if it went to a metadata service, say so in the metadata ring too, behind its payload.
#[inline(always)]
pub fn connection_ends(sk: *mut bpf_sock, connection: &TcpSocket, tuple: &Tuple, outcome: Outcome, now: u64) {
    let Some(service) = rules::metadata_service(&tuple.remote, tuple.remote_port) else { return };
    let slot = match emit::reserve::<wire::MetadataEnd>(Kind::MetadataEnd, connection.cgroup_id, now) {
        Reserved::Slot(slot) => slot,
        Reserved::No(refused) => return refused.drop_record(),
    };
    let bits = if connection.flags & tcp_flags::ESTABLISHED != 0 { flags::ESTABLISHED } else { 0 };
    // SAFETY: a reserved place of this size, ours until submitted.
    let record = unsafe { &mut *slot.place() };
    record.header = emit::header::<wire::MetadataEnd>(Kind::MetadataEnd, bits, 0, now, connection.cgroup_id);
    record.cookie = connection.cookie;
    record.start_ns = connection.start_ns;
    let entry: Option<&mut MetadataSocket> = kernel::storage(&METADATA_SOCKETS, sk, false);
    if let Some(entry) = entry {
        record.process = entry.process;
        record.ancestors = entry.ancestors;
    } else {
        record.process = Named { owner: connection.opener, ..Named::default() };
        record.ancestors = [Named::default(); ANCESTORS];
    }
    record.tuple = *tuple;
    record.service = service as u8;
    record.outcome = outcome as u8;
    record.pad = [0; 6];
    slot.submit();
}
