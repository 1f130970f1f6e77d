//! `cgroup_skb` at the cgroup2 root, both ways: one early test lets TCP pass unless it is metadata traffic; UDP is counted.
//!
//! The packet starts at its IP header. `skb.sk` is the local socket; the program runs once per local socket that a
//! packet leaves or reaches, never for what is forwarded.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_sk_fullsock, bpf_skb_load_bytes};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

use agent_ebpf::shared::counter;

use super::ALLOW;
use super::datagrams;
use super::emit;
use super::metadata;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

#[cgroup_skb(egress)]
#[inline(always)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    try_packet(&ctx, true);
    ALLOW
}

#[cgroup_skb(ingress)]
#[inline(always)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    try_packet(&ctx, false);
    ALLOW
}

/// An address, v4 as v4-mapped; aligned so that it moves as words.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Address(pub [u8; 16]);

/// What the programs need to know of a packet.
pub struct Packet {
    pub skb: *mut __sk_buff,
    /// The local end; a full socket.
    pub sk: *mut bpf_sock,
    /// Leaves this machine's socket.
    pub egress: bool,
    /// This socket's address as the packet has it.
    pub local: Address,
    pub remote: Address,
    /// Bytes of the IP header, extension headers included.
    pub ip_bytes: u32,
    /// Bytes from the IP header's start to the packet's end.
    pub total_bytes: u32,
    pub ttl: u8,
}

#[repr(C)]
struct Ipv4 {
    version_and_words: u8,
    service: u8,
    total_bytes: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C)]
struct Ipv6 {
    flow: u32,
    payload_bytes: u16,
    next: u8,
    hop_limit: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

#[inline(always)]
fn try_packet(ctx: &SkBuffContext, egress: bool) -> Option<()> {
    let skb = ctx.skb.skb;
    // SAFETY: a field of the context.
    match u16::from_be(unsafe { (*skb).protocol } as u16) {
        ETH_P_IP => {
            let head = header::<Ipv4>(skb)?;
            let remote = if egress { head.destination } else { head.source };
            if head.protocol == IPPROTO_TCP {
                if !metadata::may_be_v4(remote) {
                    return None;
                }
            } else if head.protocol != IPPROTO_UDP {
                return None;
            }
            let local = if egress { head.source } else { head.destination };
            let packet = Packet {
                skb,
                sk: full_socket(skb)?,
                egress,
                local: mapped(local),
                remote: mapped(remote),
                ip_bytes: u32::from(head.version_and_words & 0x0f) * 4,
                // SAFETY: a field of the context.
                total_bytes: unsafe { (*skb).len },
                ttl: head.ttl,
            };
            dispatch(&packet, head.protocol)
        }
        ETH_P_IPV6 => {
            let head = header::<Ipv6>(skb)?;
            let remote = words(if egress { head.destination } else { head.source });
            if head.next == IPPROTO_TCP && !metadata::may_be_v6(&remote.0) {
                return None;
            }
            let local = words(if egress { head.source } else { head.destination });
            let ttl = head.hop_limit;
            let (next, ip_bytes) = skip_extensions(skb, head.next)?;
            let packet = Packet {
                skb,
                sk: full_socket(skb)?,
                egress,
                local,
                remote,
                ip_bytes,
                // SAFETY: a field of the context.
                total_bytes: unsafe { (*skb).len },
                ttl,
            };
            dispatch(&packet, next)
        }
        _ => None,
    }
}

#[inline(always)]
fn dispatch(packet: &Packet, protocol: u8) -> Option<()> {
    match protocol {
        // Behind extension headers the early test has not been made.
        IPPROTO_TCP if metadata::may_be(&packet.remote.0) => metadata::segment(packet),
        IPPROTO_UDP => datagrams::datagram(packet),
        _ => None,
    }
}

/// The IP header, in place: the stack has made it linear before this hook.
#[inline(always)]
fn header<T>(skb: *mut __sk_buff) -> Option<&'static T> {
    // SAFETY: a field of the context; the verifier knows it as the packet's start.
    let start = unsafe { (*skb).data } as usize;
    // SAFETY: a field of the context; the verifier knows it as the packet's end.
    let end = unsafe { (*skb).data_end } as usize;
    if start + size_of::<T>() > end {
        emit::count(counter::UNREADABLE_PACKETS);
        return None;
    }
    // SAFETY: bounds checked above; the stack aligns IP headers to four bytes, and both architectures load any address.
    Some(unsafe { &*(start as *const T) })
}

#[inline(always)]
fn full_socket(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: the context of this program.
    let fields = unsafe { &*skb };
    // SAFETY: the union has one member.
    let sk = unsafe { fields.__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // SAFETY: a socket pointer that is not null.
    let full = unsafe { bpf_sk_fullsock(sk) };
    if full.is_null() { None } else { Some(full) }
}

/// Upper protocol and where it starts; hop-by-hop, routing and destination options are skipped, at most two of them.
#[inline(always)]
fn skip_extensions(skb: *mut __sk_buff, first: u8) -> Option<(u8, u32)> {
    let mut next = first;
    let mut at = 40u32;
    for _ in 0..2 {
        match next {
            0 | 43 | 60 => {
                let head: [u8; 2] = load(skb, at)?;
                next = head[0];
                at += (u32::from(head[1]) + 1) * 8;
            }
            _ => return Some((next, at)),
        }
    }
    Some((next, at))
}

#[inline(always)]
fn mapped(v4: u32) -> Address {
    words([0, 0, 0xffffu32.to_be(), v4])
}

#[inline(always)]
fn words(words: [u32; 4]) -> Address {
    // SAFETY: same size, no padding.
    Address(unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) })
}

/// Reads a header at an offset from the IP header's start.
#[inline(always)]
pub fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut place = MaybeUninit::<T>::uninit();
    // SAFETY: the buffer has this size.
    let result = unsafe { bpf_skb_load_bytes(skb.cast(), offset, place.as_mut_ptr().cast(), size_of::<T>() as u32) };
    if result != 0 {
        return None;
    }
    // SAFETY: filled by the helper; callers use types of plain integers.
    Some(unsafe { place.assume_init() })
}
