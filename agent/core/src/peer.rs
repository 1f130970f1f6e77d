//! What kind of peer an address is. A wrong class is worse than `unknown`.

mod around;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_ebpf::rules;
use agent_ebpf::wire::Service;

use crate::fast::FastSet;
use crate::output::PeerClass;

pub use self::around::{Around, published};

/// Most addresses of the node kept: 15 interfaces with 50 addresses each, and a link-local one for each of 250 pods, on
/// the largest instances.
pub const MAX_NODE_ADDRESSES: usize = 4_096;

/// Blocks inside which nothing is globally reachable (IANA special-purpose registries, RFC 6890 and its updates), and
/// class D and E.
const NOT_GLOBAL_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// The only block of global unicast addresses that is handed out.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// Blocks in it that are not: protocol assignments (Teredo among them), documentation, 6to4.
const NOT_GLOBAL_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// The largest IPv4 block of a VPC. A node with a public-looking address has neighbours with such addresses.
const VPC_BITS_V4: u32 = 16;
/// The largest IPv6 block of a VPC. In IPv6 clusters pods of other nodes have global addresses from it.
const VPC_BITS_V6: u32 = 44;

/// The node's own addresses.
#[derive(Clone, Debug, Default)]
pub struct NodeAddresses {
    all: FastSet<IpAddr>,
    /// Blocks around the global ones among them, which may be the VPC's: network addresses.
    neighbourhood: Vec<IpAddr>,
}

impl NodeAddresses {
    /// All of the node's addresses; those beyond [`MAX_NODE_ADDRESSES`] are left out (and classed as unknown).
    pub fn new(addresses: &[IpAddr]) -> Self {
        let mut all = FastSet::default();
        let mut neighbourhood = Vec::new();
        for address in addresses.iter().take(MAX_NODE_ADDRESSES).map(IpAddr::to_canonical) {
            let block = block(address);
            if is_global(address) && !neighbourhood.contains(&block) {
                neighbourhood.push(block);
            }
            all.insert(address);
        }
        Self { all, neighbourhood }
    }

    /// Whether an address is the node's own.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.all.contains(&ip)
    }

    fn may_be_vpc(&self, ip: IpAddr) -> bool {
        !self.neighbourhood.is_empty() && self.neighbourhood.contains(&block(ip))
    }
}

/// The class of a peer. `service_port` is the peer's port when the peer is the listening side.
///
/// Private addresses are `unknown`: without the VPC's and the services' ranges they may be pods, services or anything.
pub fn classify(ip: IpAddr, service_port: Option<u16>, node: &NodeAddresses) -> PeerClass {
    let ip = ip.to_canonical();
    let bytes = match ip {
        IpAddr::V4(v4) => rules::mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    };
    // Before the node's own: the Pod Identity agent's address stands on the node.
    match service_port.and_then(|port| rules::metadata_service(&bytes, port)) {
        Some(Service::Imds) => PeerClass::Imds,
        Some(Service::PodIdentity) => PeerClass::PodIdentity,
        None if ip.is_loopback() || node.all.contains(&ip) => PeerClass::NodeLocal,
        None if is_global(ip) && !node.may_be_vpc(ip) => PeerClass::Internet,
        None => PeerClass::Unknown,
    }
}

/// Whether an address looks like one of the internet. That of a VPC may, too: IPv6 always does.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            !(ip.is_private() || ip.is_link_local() || ip.is_loopback() || is_shared)
        }
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

/// Whether an address means something on one link alone.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

// === helpers ===

fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !NOT_GLOBAL_V4.iter().any(|&(net, bits)| in_v4(v4, net, bits)),
        IpAddr::V6(v6) => {
            in_v6(v6, GLOBAL_V6.0, GLOBAL_V6.1) && !NOT_GLOBAL_V6.iter().any(|&(net, bits)| in_v6(v6, net, bits))
        }
    }
}

fn in_v4(ip: Ipv4Addr, net: Ipv4Addr, bits: u32) -> bool {
    (ip.to_bits() ^ net.to_bits()) >> (u32::BITS - bits) == 0
}

fn in_v6(ip: Ipv6Addr, net: Ipv6Addr, bits: u32) -> bool {
    (ip.to_bits() ^ net.to_bits()) >> (u128::BITS - bits) == 0
}

fn block(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << (u32::BITS - VPC_BITS_V4)))),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (u128::BITS - VPC_BITS_V6)))),
    }
}

#[cfg(test)]
mod tests;
