//! DNS at the Engine: whose messages they are, the names of peers, and what is told of them with each fold.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use agent_ebpf::wire::Direction;
use ipnet::IpNet;

use super::Engine;
use crate::books::Ledger;
use crate::capacity::{Collector, Limit, Resource, Sample, Scope};
use crate::cgroup::ROOT_ID;
use crate::dns::{Asker, Connection, Counts, DnsFact, PACKETS_A_SECOND, Tally};
use crate::facts::{HostFact, InterfaceFacts};
use crate::input::{AttemptFact, Ends, TcpFact, UdpFact};
use crate::output::Identity;
use crate::time::BootNs;

/// What was counted by identity.
pub(super) type DnsTold = BTreeMap<Arc<Identity>, Tally>;

/// Most identities whose counts wait to be taken: as many as workloads have series.
const MAX_TOLD: usize = 4_096;

/// Where AWS's resolver is on every interface, besides the third address of the VPC.
const RESOLVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 253));
const RESOLVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253));
/// Where a sample comes from; what goes by TCP, and other services behind the same allowance, are not in it.
const SOURCE: &str = "DNS queries by UDP, busiest second";

impl Engine {
    /// What was counted of DNS by identity since the last call.
    pub fn take_dns(&mut self) -> impl Iterator<Item = (Arc<Identity>, Tally)> {
        std::mem::take(&mut self.dns_told).into_iter()
    }

    /// Counts of DNS of the whole node.
    pub fn dns_counts(&self) -> Counts {
        self.dns.counts()
    }

    /// Claims of names that are held.
    pub fn dns_names(&self) -> usize {
        self.dns.names().len()
    }

    pub(super) fn dns_message(&mut self, fact: &DnsFact) {
        self.books.aggregated(Ledger::Dns, 1);
        let is_query = fact.message.as_ref().is_some_and(|message| message.answer.is_none());
        if is_query && let Some(scope) = self.linklocal_scope(&fact.ends) {
            self.dns.linklocal_packet(&scope, fact.time);
        }
        let Self { dns, attribution, .. } = self;
        dns.message(fact, || asker(attribution, fact.cgroup_id));
    }

    pub(super) fn tcp_name(&mut self, fact: &TcpFact) -> Option<Arc<str>> {
        self.peer_name(fact.direction, fact.start, (fact.cgroup_id, fact.cookie), &fact.ends, fact.open)
    }

    pub(super) fn udp_name(&mut self, fact: &UdpFact) -> Option<Arc<str>> {
        self.peer_name(fact.direction, fact.start, (fact.cgroup_id, fact.cookie), &fact.ends, fact.open)
    }

    pub(super) fn attempt_name(&mut self, fact: &AttemptFact) -> Option<Arc<str>> {
        self.peer_name(Direction::Outbound, Some(fact.start), (fact.cgroup_id, fact.cookie), &fact.ends, false)
    }

    /// Whom a pod asked for says nothing of who comes to it, nor of when a connection began whose beginning was not seen.
    fn peer_name(
        &mut self,
        direction: Direction,
        start: Option<BootNs>,
        (cgroup_id, cookie): (u64, u64),
        ends: &Ends,
        open: bool,
    ) -> Option<Arc<str>> {
        let start = start.filter(|_| direction == Direction::Outbound)?;
        let connection = Connection { cgroup_id, cookie, remote: ends.remote, start, open };
        let Self { dns, attribution, .. } = self;
        dns.name_of(&connection, || asker(attribution, cgroup_id))
    }

    /// At the end of a fold, when names that come late are there.
    pub(super) fn dns_fold(&mut self) {
        for (cgroup_id, tally) in self.dns.take() {
            let identity = self.attribution.who(cgroup_id, None, self.cluster.pods());
            if self.dns_told.len() >= MAX_TOLD && !self.dns_told.contains_key(&identity) {
                continue;
            }
            self.dns_told.entry(identity).or_default().add(tally);
        }
        let peaks = self.dns.linklocal_peaks(self.now);
        if peaks.is_empty() {
            return;
        }
        let samples = peaks.into_iter().map(|(scope, packets)| Sample {
            resource: Resource::LinklocalPackets,
            scope,
            used: Some(packets),
            limit: Limit::Of(PACKETS_A_SECOND),
            source: Arc::from(SOURCE),
        });
        let fact = HostFact::Samples { collector: Collector::Dns, samples: samples.collect() };
        self.capacity.host(&fact, self.now);
    }

    /// On whose allowance a query is, if it goes to the resolver that AWS gives every interface. The one in the VPC, the third
    /// address of its first range, is known once EC2 told the ranges: what goes there leaves by the interface that the
    /// client's address is on. What goes to the resolver's other addresses may leave by the first interface with another
    /// address, and so counts for the node, as does what EC2 told no interface of: all together are no less than one.
    fn linklocal_scope(&self, ends: &Ends) -> Option<Scope> {
        if ends.remote == RESOLVER_V4 || ends.remote == RESOLVER_V6 {
            return Some(Scope::Node);
        }
        match (ends.remote, self.ec2.vpc_ranges().and_then(<[IpNet]>::first)) {
            (IpAddr::V4(ip), Some(IpNet::V4(range))) if ip.to_bits() == range.network().to_bits().wrapping_add(2) => {
                Some(self.interface_of(ends.local))
            }
            _ => None,
        }
    }

    fn interface_of(&self, ip: IpAddr) -> Scope {
        let holds = |interface: &&InterfaceFacts| {
            interface.addresses.contains(&ip) || interface.prefixes.iter().any(|prefix| prefix.contains(&ip))
        };
        self.ec2.interfaces().find(holds).map_or(Scope::Node, |interface| Scope::Interface(Arc::clone(&interface.id)))
    }
}

/// Whose names a cgroup's are. The root is nobody's: there containers of version 1 hierarchies are beside each other.
fn asker(attribution: &crate::attribution::Attribution, cgroup_id: u64) -> Option<Asker> {
    if cgroup_id == ROOT_ID {
        return None;
    }
    let pod = attribution.pod_cgroup(cgroup_id, None);
    Some(pod.map_or(Asker::Cgroup(cgroup_id), |pod| Asker::Pod(Arc::from(pod.uid))))
}
