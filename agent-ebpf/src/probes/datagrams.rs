//! UDP flows: (socket cookie, peer). A socket's first peer is counted in the socket's storage, further ones in a bounded
//! map; what finds that full is merged into its cgroup's account.
//!
//! Counters grow by atomic adds, records tell the difference to what was told before: a walk and a close may meet.

use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skb_cgroup_id};

use agent_ebpf::rules;
use agent_ebpf::shared::{PeerKey, UdpFlow, counter, udp_state};
use agent_ebpf::wire::{self, Direction, Kind, Outcome, Owner, Tuple, flags};

use super::atomic;
use super::dns;
use super::emit::{self, Refused, Reserved};
use super::kernel;
use super::maps::{CLOSED_SOCKETS, UDP_PEERS, UDP_SOCKETS};
use super::packets::{Packet, load};

const IPPROTO_UDP: u32 = 17;
const SOCK_DGRAM: u32 = 2;
const UDP_HEADER_BYTES: u32 = 8;

/// Bits of [`UdpFlow::seen`]: set by whoever sees it first, never cleared.
const SENT: u32 = 1;
const RECEIVED: u32 = 2;
const MANY: u32 = 4;
// A record's flag is this bit, shifted.
const _: () = assert!(MANY << 1 == flags::MANY_PEERS as u32);
/// Looks at a flow whose identity another CPU is writing, before its datagram goes without.
const CLAIM_LOOKS: u32 = 8;

/// Traits word of a flow: direction in the low byte, flags in the high half.
const fn traits(direction: Direction, bits: u16) -> u32 {
    direction as u32 | (bits as u32) << 16
}

/// Counts one datagram (or one super-packet of several).
#[inline(always)]
pub fn datagram(packet: &Packet) -> Option<()> {
    // A raw socket in the namespace makes ingress run again: count only for the UDP socket itself.
    // SAFETY: a full socket.
    let socket = unsafe { &*packet.sk };
    if socket.protocol != IPPROTO_UDP || socket.type_ != SOCK_DGRAM {
        return None;
    }
    let ports: [u16; 2] = load(packet.skb, packet.ip_bytes)?;
    let source = u16::from_be(ports[0]);
    let destination = u16::from_be(ports[1]);
    let (local_port, remote_port) = if packet.egress { (source, destination) } else { (destination, source) };
    let headers = packet.ip_bytes + UDP_HEADER_BYTES;
    if remote_port == rules::DNS_PORT {
        dns::message(packet, headers, local_port);
    }
    let bytes = u64::from(packet.total_bytes.saturating_sub(headers));
    // SAFETY: a field of the context.
    let segments = unsafe { (*packet.skb).gso_segs };
    let count = Count { egress: packet.egress, bytes, packets: u64::from(if segments == 0 { 1 } else { segments }) };

    let found: Option<&mut UdpFlow> = kernel::storage(&UDP_SOCKETS, packet.sk, false);
    let flow = if let Some(flow) = found {
        flow
    } else {
        if !emit::admit_socket() {
            merge(packet, &count);
            return None;
        }
        let Some(flow) = kernel::storage(&UDP_SOCKETS, packet.sk, true) else {
            emit::release_socket();
            merge(packet, &count);
            return None;
        };
        flow
    };
    if state(flow) == udp_state::EMPTY && atomic::replace_u32(&raw mut flow.state, udp_state::EMPTY, udp_state::CLAIMED)
    {
        begin(flow, packet, local_port, remote_port);
        // Unless the socket was closed meanwhile.
        atomic::replace_u32(&raw mut flow.state, udp_state::CLAIMED, udp_state::ACTIVE);
    }
    let mut now = state(flow);
    for _ in 0..CLAIM_LOOKS {
        if now != udp_state::CLAIMED {
            break;
        }
        now = state(flow);
    }
    if now == udp_state::CLAIMED || now == udp_state::CLOSED {
        merge(packet, &count);
    } else if flow.tuple.remote_port != remote_port || !same(&flow.tuple.remote, &packet.remote.0) {
        other_peer(flow, packet, local_port, remote_port, &count);
    } else {
        add(flow, &count);
        if state(flow) == udp_state::CLOSED {
            late(flow);
        }
    }
    Some(())
}

/// The socket was closed while a datagram was counted: what its last record did not tell goes to the account.
#[inline(always)]
fn late(flow: &mut UdpFlow) {
    let sent = claim(flow, 0, false);
    let received = claim(flow, 1, false);
    Refused::untracked(Kind::UdpOpen, flow.cgroup_id).merge(None, sent, received);
}

struct Count {
    egress: bool,
    bytes: u64,
    packets: u64,
}

/// A datagram of a socket that already has a flow with another peer.
#[inline(always)]
fn other_peer(first: &mut UdpFlow, packet: &Packet, local_port: u16, remote_port: u16, count: &Count) {
    mark(first, MANY);
    // SAFETY: the context's socket.
    let cookie = unsafe { bpf_get_socket_cookie(packet.skb.cast()) };
    let key = PeerKey { cookie, remote: packet.remote.0, port: remote_port, pad: [0; 6] };
    if let Some(flow) = UDP_PEERS.get_ptr_mut(key) {
        // SAFETY: a map value; adds are atomic.
        return add(unsafe { &mut *flow }, count);
    }
    // SAFETY: all zero is a valid value.
    let mut fresh: UdpFlow = unsafe { core::mem::zeroed() };
    begin(&mut fresh, packet, local_port, remote_port);
    fresh.state = udp_state::ACTIVE;
    let fresh = &fresh;
    let _ = UDP_PEERS.insert(key, fresh, u64::from(aya_ebpf::bindings::BPF_NOEXIST));
    let Some(flow) = UDP_PEERS.get_ptr_mut(key) else {
        emit::count(counter::UNTRACKED_PEERS);
        return merge(packet, count);
    };
    // SAFETY: as above.
    add(unsafe { &mut *flow }, count);
}

/// Writes a new flow's identity.
#[inline(always)]
fn begin(flow: &mut UdpFlow, packet: &Packet, local_port: u16, remote_port: u16) {
    // SAFETY: the context of this program.
    flow.cookie = unsafe { bpf_get_socket_cookie(packet.skb.cast()) };
    // SAFETY: as above.
    flow.cgroup_id = unsafe { bpf_skb_cgroup_id(packet.skb) };
    flow.start_ns = emit::now_ns();
    flow.tuple = Tuple { local: packet.local.0, remote: packet.remote.0, local_port, remote_port, netns: 0 };
    let preexisting = (flow.traits >> 16) as u16 & flags::PREEXISTING;
    let direction = match (preexisting, packet.egress) {
        (0, true) => Direction::Outbound,
        (0, false) => Direction::Inbound,
        _ => Direction::Unknown,
    };
    if packet.egress && flow.opener.tgid == 0 {
        let task = kernel::current();
        // UDP leaves in the sender's context; anything else (tunnels, deferred work) is another cgroup's task.
        if kernel::task_cgroup_id(task) == flow.cgroup_id {
            flow.opener = kernel::owner_of(task);
        }
    }
    flow.traits = traits(direction, preexisting);
}

#[inline(always)]
fn add(flow: &mut UdpFlow, count: &Count) {
    let way = usize::from(!count.egress);
    atomic::add(&raw mut flow.total[way], count.bytes);
    atomic::add(&raw mut flow.total[way + 2], count.packets);
    mark(flow, if count.egress { SENT } else { RECEIVED });
}

/// Sets a bit of [`UdpFlow::seen`]; tries again when another CPU sets one at the same moment.
#[inline(always)]
fn mark(flow: &mut UdpFlow, bit: u32) {
    for _ in 0..4 {
        // SAFETY: a map value.
        let seen = unsafe { read_volatile(&raw const flow.seen) };
        if seen & bit != 0 || atomic::replace_u32(&raw mut flow.seen, seen, seen | bit) {
            break;
        }
    }
}

/// Bytes without a place of their own count for their cgroup.
#[inline(always)]
fn merge(packet: &Packet, count: &Count) {
    // SAFETY: the context of this program.
    let cgroup_id = unsafe { bpf_skb_cgroup_id(packet.skb) };
    let refused = Refused::untracked(Kind::UdpOpen, cgroup_id);
    let (sent, received) = if count.egress { (count.bytes, 0) } else { (0, count.bytes) };
    refused.merge(None, sent, received);
}

/// The socket is closed: its first flow ends; others are ended by the next walk.
#[inline(always)]
pub fn socket_closes(flow: &mut UdpFlow, closer: Owner) {
    // In one step: a walk that ends the flow at this moment comes before or after, and one of both tells it.
    let before = atomic::swap_u32(&raw mut flow.state, udp_state::CLOSED);
    if flow.seen & MANY != 0 {
        let _ = CLOSED_SOCKETS.insert(flow.cookie, closer, 0);
    }
    if before == udp_state::ACTIVE || before == udp_state::ENDED && fresh(flow) {
        report(Kind::UdpEnd, flow, closer, 0);
    }
}

/// Whether datagrams came since the last record.
#[inline(always)]
pub fn fresh(flow: &UdpFlow) -> bool {
    flow.total[2] != flow.reported[2] || flow.total[3] != flow.reported[3]
}

/// The flow's state.
#[inline(always)]
pub fn state(flow: &UdpFlow) -> u32 {
    // SAFETY: a map value; other CPUs may write it.
    unsafe { read_volatile(&raw const flow.state) }
}

/// Tells one flow's news since its last record.
#[inline(always)]
pub fn report(kind: Kind, flow: &mut UdpFlow, closer: Owner, more_flags: u16) {
    let now = emit::now_ns();
    let last = matches!(kind, Kind::UdpEnd);
    let is_answered = flow.seen & (SENT | RECEIVED) == SENT | RECEIVED;
    // As of connections: no failure, and nothing that was shown.
    let is_spared = last && is_answered && flow.reported[2] | flow.reported[3] == 0;
    let bytes_sent = claim(flow, 0, last);
    let bytes_received = claim(flow, 1, last);
    let packets_sent = claim(flow, 2, last);
    let packets_received = claim(flow, 3, last);
    let outcome = if is_answered { Outcome::Established } else { Outcome::OneWay };
    let spared = if is_spared { Refused::sampled(kind, flow.cgroup_id) } else { None };
    let reserved = match spared {
        Some(refused) => Reserved::No(refused),
        None => emit::reserve::<wire::Udp>(kind, flow.cgroup_id, now),
    };
    let slot = match reserved {
        Reserved::Slot(slot) => slot,
        Reserved::No(refused) => {
            let direction =
                if flow.traits as u8 == Direction::Inbound as u8 { Direction::Inbound } else { Direction::Outbound };
            refused.merge(matches!(kind, Kind::UdpEnd).then_some((direction, outcome)), bytes_sent, bytes_received);
            return;
        }
    };
    let bits = (flow.traits >> 16) as u16 | ((flow.seen & MANY) << 1) as u16 | more_flags;
    let record = wire::Udp {
        header: emit::header::<wire::Udp>(kind, bits, 0, now, flow.cgroup_id),
        cookie: flow.cookie,
        start_ns: flow.start_ns,
        bytes_sent,
        bytes_received,
        packets_sent,
        packets_received,
        opener: flow.opener,
        closer,
        tuple: flow.tuple,
        direction: flow.traits as u8,
        outcome: outcome as u8,
        pad: [0; 6],
    };
    // SAFETY: a reserved place of this size.
    unsafe { slot.place().write(record) };
    slot.submit();
}

#[inline(always)]
fn claim(flow: &mut UdpFlow, index: usize, last: bool) -> u64 {
    // SAFETY: a map value; other CPUs add to it.
    let total = unsafe { read_volatile(&raw const flow.total[index]) };
    let reported = &raw mut flow.reported[index];
    if last { atomic::claim_last(reported, total) } else { atomic::claim(reported, total) }
}

#[inline(always)]
fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    // As two words: the compiler compares arrays by a call.
    let words = |bytes: &[u8; 16]| {
        // SAFETY: sixteen bytes, read unaligned.
        unsafe { bytes.as_ptr().cast::<[u64; 2]>().read_unaligned() }
    };
    let (a, b) = (words(a), words(b));
    a[0] == b[0] && a[1] == b[1]
}
