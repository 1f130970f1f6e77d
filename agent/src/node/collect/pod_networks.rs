//! Network namespaces of pods, seen from outside through one of their processes: packet sockets in them, and which
//! interface of the node leads into each.
//!
//! Entering them takes a privilege that this agent does not ask for. Which namespace a process is in shows, without any
//! privilege, in the inode of its `/proc/PID/net/dev`, of which each namespace has its own. Which veth leads there tells
//! the kernel when it is shown the namespace (that takes `CAP_SYS_PTRACE` for processes of others); else the node's
//! route to an address that stands in the namespace, as CNIs that give each pod a veth set one.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_core::facts::{HostFact, PodHostFacts};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

use super::netlink::{Netlink, other_end};
use super::pods::{Pod, Shared};
use super::{Error, Look, Roots, read};

/// Processes tried of a pod: one that ends meanwhile is no reason to know nothing.
const TRIES: usize = 4;
/// Packet sockets counted in a namespace. One is news, a thousand are not more.
const MAX_PACKET_SOCKETS: u32 = 1_000;

/// Looks at network namespaces.
pub(super) struct PodNetworks {
    proc: PathBuf,
    pods: Arc<Shared>,
}

/// How to find the veth of a namespace.
struct Veths {
    netlink: Netlink,
    /// The node's interfaces by the number of the namespace of their other end. Several lead to one namespace when a pod
    /// has several network cards; the first is its `eth0`'s.
    by_namespace: HashMap<i32, u32>,
    /// The node's interfaces by the one address that a route of theirs leads to; read when it is first wanted.
    by_address: Option<HashMap<IpAddr, u32>>,
    /// Why routes could not be read.
    failed: Option<Error>,
}

// === impl PodNetworks ===

impl PodNetworks {
    pub(super) fn new(roots: &Roots, pods: Arc<Shared>) -> Self {
        Self { proc: roots.proc.clone(), pods }
    }

    fn pod(&self, pod: &Pod, host: Option<u64>, veths: &mut Veths) -> Option<PodHostFacts> {
        pod.pids.iter().take(TRIES).find_map(|pid| {
            let process = self.proc.join(pid.to_string());
            let namespace = fs::metadata(process.join("net/dev")).ok()?.ino();
            let host_network = host? == namespace;
            let facts = PodHostFacts { uid: Arc::clone(&pod.uid), host_network, ..PodHostFacts::default() };
            if host_network {
                return Some(facts);
            }
            let packet_sockets = packet_sockets(&process.join("net/packet"));
            Some(PodHostFacts { packet_sockets, veth: veths.of(&process), ..facts })
        })
    }
}

impl Look for PodNetworks {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let index = self.pods.index()?;
        let own = self.proc.join("self/net/dev");
        let host = fs::metadata(&own).map(|metadata| metadata.ino());
        let mut veths = Veths::new()?;
        let own_inode = host.as_ref().ok().copied();
        facts.push(HostFact::Pods(index.pods.iter().filter_map(|pod| self.pod(pod, own_inode, &mut veths)).collect()));
        host.map_err(|source| Error::Read { path: own, source })?;
        veths.failed.map_or(Ok(()), Err)
    }
}

// === impl Veths ===

impl Veths {
    fn new() -> Result<Self, Error> {
        let mut netlink = Netlink::open()?;
        let mut by_namespace = HashMap::new();
        for link in netlink.links()? {
            if let (Some(_), Some(namespace)) = other_end(&link) {
                let first = by_namespace.entry(namespace).or_insert(link.header.index);
                *first = link.header.index.min(*first);
            }
        }
        Ok(Self { netlink, by_namespace, by_address: None, failed: None })
    }

    /// The veth that leads to the namespace of a process.
    fn of(&mut self, process: &Path) -> Option<u32> {
        if let Ok(namespace) = fs::File::open(process.join("ns/net")) {
            let id = self.netlink.namespace_id(namespace.as_fd()).ok().flatten();
            return id.and_then(|id| self.by_namespace.get(&id).copied());
        }
        let addresses = addresses(process);
        let routes = self.routes();
        addresses.iter().find_map(|address| routes.get(address).copied())
    }

    fn routes(&mut self) -> &HashMap<IpAddr, u32> {
        let Self { netlink, by_address, failed, .. } = self;
        by_address.get_or_insert_with(|| {
            let mut found = HashMap::new();
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                match netlink.routes(family) {
                    Ok(routes) => found.extend(routes.iter().filter_map(host_route)),
                    Err(error) => *failed = Some(error),
                }
            }
            found
        })
    }
}

/// Address and interface of a route that leads to one address.
fn host_route(route: &RouteMessage) -> Option<(IpAddr, u32)> {
    let (mut to, mut interface) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => to = Some(IpAddr::V6(*ip)),
            RouteAttribute::Oif(index) => interface = Some(*index),
            _ => {}
        }
    }
    let to = to.filter(|to| route.header.destination_prefix_length == if to.is_ipv4() { 32 } else { 128 })?;
    Some((to, interface?))
}

/// The addresses of a process's network namespace, without those that every namespace has.
fn addresses(process: &Path) -> Vec<IpAddr> {
    let v4 = read::text(&process.join("net/fib_trie")).unwrap_or_default();
    let v6 = read::text(&process.join("net/if_inet6")).unwrap_or_default();
    let mut addresses: Vec<IpAddr> = local_v4(&v4).map(IpAddr::V4).collect();
    addresses.extend(
        v6.lines()
            .filter_map(|line| {
                let hex = line.split_whitespace().next()?;
                u128::from_str_radix(hex, 16).ok().map(Ipv6Addr::from_bits)
            })
            .filter(|ip| !ip.is_loopback() && !ip.is_unicast_link_local())
            .map(IpAddr::V6),
    );
    addresses
}

/// Local addresses in a `fib_trie`: a line with the address, then one that says `/32 host LOCAL`.
fn local_v4(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut last = None;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
            return None;
        }
        last.filter(|ip| line == "/32 host LOCAL" && !ip.is_loopback())
    })
}

/// Packet sockets of a namespace: lines of a table, without its head.
fn packet_sockets(path: &Path) -> Option<u32> {
    let text = read::text(path).ok()?;
    let lines = text.lines().skip(1).take(MAX_PACKET_SOCKETS as usize).count();
    u32::try_from(lines).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_of_a_trie() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 4\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 169.254.1.1\n        \
                    /32 link UNICAST\nLocal:\n     |-- 10.0.1.7\n        /32 host LOCAL\n     |-- 127.0.0.1\n        \
                    /32 host LOCAL\n";
        assert_eq!(local_v4(text).collect::<Vec<_>>(), [Ipv4Addr::new(10, 0, 1, 7)]);
    }
}
