//! Groups in a form that answers many questions fast.
//!
//! Ids become small numbers, and the rules of a group stand apart by side and protocol. So a question looks at few
//! rules, and of each at a range of numbers and one peer.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::flow::{Family, Flow, Traffic};
use super::model::{Group, GroupId, GroupRule, IcmpVersion, Peer, PrefixList, PrefixListId, Service, Side, Transport};
use crate::fast::FastMap;

/// Groups and prefix lists, ready for questions.
///
/// As large as what it is made of; who reads groups bounds them ([`super::MAX_RULES`], [`super::MAX_NETS`]).
pub struct Compiled {
    /// Every group that is defined, or named by a rule.
    pub(super) numbers: FastMap<GroupId, u32>,
    /// By number; `None`: only named.
    pub(super) groups: Vec<Option<Sieves>>,
    /// Every prefix list that a rule names.
    list_numbers: FastMap<PrefixListId, u32>,
    /// By number; `None`: not known.
    pub(super) lists: Vec<Option<Ranges>>,
    /// By number.
    pub(super) rules: Vec<Arc<GroupRule>>,
    /// IPv6 ranges that rules name, by number: network and mask. Apart, so that all other rules are small.
    pub(super) nets_v6: Vec<(u128, u128)>,
    /// The VPC's ranges, the first one first; empty: not known.
    pub(super) vpc: Vec<IpNet>,
}

/// The rules of one group.
pub(super) struct Sieves {
    pub(super) owner: Option<Arc<str>>,
    pub(super) egress: Sieve,
    pub(super) ingress: Sieve,
}

/// The rules of one side of a group.
#[derive(Default)]
pub(super) struct Sieve {
    /// By [`Class`].
    shelves: [Shelf; Class::COUNT],
    /// Numbers of all its rules.
    pub(super) rules: Vec<u32>,
}

#[derive(Clone, Copy)]
enum Class {
    All,
    Tcp,
    Udp,
    Icmp,
    Icmpv6,
    Other,
}

/// The rules of one class. Most name a single number, so that a search finds those that matter. Numbers stand apart from
/// what they stand for: a search touches few lines of the cache.
#[derive(Default)]
struct Shelf {
    /// Numbers of rules for one number, as [`key`] makes them. In order, once all are there.
    points: Vec<u16>,
    /// For each of `points`.
    at_points: Vec<Entry>,
    /// Rules for several numbers: first and last.
    spans: Vec<(u16, u16)>,
    /// For each of `spans`.
    at_spans: Vec<Entry>,
}

/// One rule and whom it means.
pub(super) struct Entry {
    pub(super) rule: u32,
    pub(super) peer: Whom,
}

/// The peer of a rule.
pub(super) enum Whom {
    V4 {
        network: u32,
        mask: u32,
    },
    /// Number of the range.
    V6(u32),
    List(u32),
    Group(u32),
    /// A reference through a peering that is gone.
    Nobody,
}

/// Addresses of a prefix list: ranges in order that do not overlap, per family.
pub(super) struct Ranges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (groups, rules) = (self.groups.len(), self.rules.len());
        f.debug_struct("Compiled").field("groups", &groups).field("rules", &rules).finish_non_exhaustive()
    }
}

impl Compiled {
    /// Takes what is known. Of two groups or lists with one id the later counts; see [`super::Gathered`] for merging.
    pub fn new(groups: &[Group], lists: &[PrefixList]) -> Self {
        let mut compiled = Self {
            numbers: FastMap::default(),
            groups: Vec::new(),
            list_numbers: FastMap::default(),
            lists: Vec::new(),
            rules: Vec::new(),
            nets_v6: Vec::new(),
            vpc: Vec::new(),
        };
        let known: FastMap<_, _> = lists.iter().filter_map(|list| Some((&list.id, list.entries.as_ref()?))).collect();
        for group in groups {
            let mut sieves = Sieves { owner: group.owner.clone(), egress: Sieve::default(), ingress: Sieve::default() };
            for rule in &group.rules {
                let peer = match &rule.peer {
                    Peer::Net(IpNet::V4(net)) => {
                        Whom::V4 { network: net.network().to_bits(), mask: net.netmask().to_bits() }
                    }
                    Peer::Net(IpNet::V6(net)) => {
                        compiled.nets_v6.push((net.network().to_bits(), net.netmask().to_bits()));
                        Whom::V6(index(compiled.nets_v6.len() - 1))
                    }
                    Peer::PrefixList(id) => Whom::List(compiled.list(id, &known)),
                    Peer::Group { stale: Some(_), .. } => Whom::Nobody,
                    Peer::Group { id, .. } => Whom::Group(compiled.number(id)),
                };
                let number = index(compiled.rules.len());
                compiled.rules.push(Arc::new(GroupRule { group: group.id.clone(), rule: rule.clone() }));
                let sieve = match rule.side {
                    Side::Egress => &mut sieves.egress,
                    Side::Ingress => &mut sieves.ingress,
                };
                sieve.add(rule.service, number, peer);
            }
            sieves.egress.sort();
            sieves.ingress.sort();
            let number = compiled.number(&group.id);
            if let Some(place) = compiled.groups.get_mut(number as usize) {
                *place = Some(sieves);
            }
        }
        compiled
    }

    /// With the ranges of the VPC, its first one first. They tell the VPC's resolver, and which addresses are private
    /// although they look public.
    #[must_use]
    pub fn with_vpc(mut self, ranges: Vec<IpNet>) -> Self {
        self.vpc = ranges;
        self
    }

    /// Whether the rules of a group are known.
    pub fn defines(&self, id: &GroupId) -> bool {
        self.sieves(id).is_some()
    }

    pub(super) fn sieves(&self, id: &GroupId) -> Option<&Sieves> {
        self.groups.get(*self.numbers.get(id)? as usize)?.as_ref()
    }

    pub(super) fn rule(&self, number: u32) -> Option<&Arc<GroupRule>> {
        self.rules.get(number as usize)
    }

    fn number(&mut self, id: &GroupId) -> u32 {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = index(self.groups.len());
        self.numbers.insert(id.clone(), number);
        self.groups.push(None);
        number
    }

    fn list(&mut self, id: &PrefixListId, known: &FastMap<&PrefixListId, &Vec<IpNet>>) -> u32 {
        if let Some(number) = self.list_numbers.get(id) {
            return *number;
        }
        let number = index(self.lists.len());
        self.lists.push(known.get(id).map(|nets| Ranges::new(nets)));
        self.list_numbers.insert(id.clone(), number);
        number
    }

    /// The addresses of a prefix list; `None`: not known.
    pub(super) fn ranges(&self, id: &PrefixListId) -> Option<&Ranges> {
        self.lists.get(*self.list_numbers.get(id)? as usize)?.as_ref()
    }
}

/// Tables here have far fewer than 2^32 entries; were it not so, the last number would stand for all that follow.
fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

// === impl Sieves ===

impl Sieves {
    pub(super) fn side(&self, side: Side) -> &Sieve {
        match side {
            Side::Egress => &self.egress,
            Side::Ingress => &self.ingress,
        }
    }
}

// === impl Sieve ===

impl Sieve {
    fn add(&mut self, service: Service, rule: u32, peer: Whom) {
        let (class, first, last) = span(service);
        self.rules.push(rule);
        let Some(shelf) = self.shelves.get_mut(class as usize) else { return };
        let entry = Entry { rule, peer };
        if first == last {
            shelf.points.push(first);
            shelf.at_points.push(entry);
        } else {
            shelf.spans.push((first, last));
            shelf.at_spans.push(entry);
        }
    }

    /// To be called when all rules are there. Rules of one number stay in the order of the source.
    fn sort(&mut self) {
        for shelf in &mut self.shelves {
            let mut points: Vec<_> = shelf.points.drain(..).zip(shelf.at_points.drain(..)).collect();
            points.sort_by_key(|(point, _)| *point);
            (shelf.points, shelf.at_points) = points.into_iter().unzip();
        }
    }

    /// Shows each rule that covers this traffic, whoever the peer is.
    pub(super) fn covering<'a>(&'a self, traffic: Traffic, mut visit: impl FnMut(&'a Entry)) {
        let (class, key) = key(traffic);
        if let Some(shelf) = self.shelves.get(class as usize) {
            let from = shelf.points.partition_point(|point| *point < key);
            let points = shelf.points.iter().zip(&shelf.at_points).skip(from);
            points.take_while(|(point, _)| **point == key).for_each(|(_, entry)| visit(entry));
            let spans = shelf.spans.iter().zip(&shelf.at_spans);
            spans.filter(|((first, last), _)| *first <= key && key <= *last).for_each(|(_, entry)| visit(entry));
        }
        if let Some(shelf) = self.shelves.get(Class::All as usize) {
            shelf.at_spans.iter().for_each(visit);
        }
    }
}

// === impl Class ===

impl Class {
    const COUNT: usize = 6;
}

/// What a rule covers: numbers of [`key`], both ends included.
fn span(service: Service) -> (Class, u16, u16) {
    match service {
        Service::All => (Class::All, 0, u16::MAX),
        Service::Ports { transport, first, last } => (ported(transport), first, last),
        Service::Icmp { version, kind: None } => (icmp(version), 0, u16::MAX),
        Service::Icmp { version, kind: Some((kind, None)) } => {
            (icmp(version), u16::from_be_bytes([kind, 0]), u16::from_be_bytes([kind, u8::MAX]))
        }
        Service::Icmp { version, kind: Some((kind, Some(code))) } => {
            let key = u16::from_be_bytes([kind, code]);
            (icmp(version), key, key)
        }
        // A rule by number that has a name covers all that the name does.
        Service::Protocol(6) => (Class::Tcp, 0, u16::MAX),
        Service::Protocol(17) => (Class::Udp, 0, u16::MAX),
        Service::Protocol(1) => (Class::Icmp, 0, u16::MAX),
        Service::Protocol(58) => (Class::Icmpv6, 0, u16::MAX),
        Service::Protocol(number) => (Class::Other, number.into(), number.into()),
    }
}

/// Traffic as a number within its class: the port, type and code, or the protocol.
fn key(traffic: Traffic) -> (Class, u16) {
    match traffic {
        Traffic::Port(transport, port) => (ported(transport), port),
        Traffic::Icmp { version, kind, code } => (icmp(version), u16::from_be_bytes([kind, code])),
        Traffic::Protocol(number) => (Class::Other, number.into()),
    }
}

fn ported(transport: Transport) -> Class {
    match transport {
        Transport::Tcp => Class::Tcp,
        Transport::Udp => Class::Udp,
    }
}

fn icmp(version: IcmpVersion) -> Class {
    match version {
        IcmpVersion::V4 => Class::Icmp,
        IcmpVersion::V6 => Class::Icmpv6,
    }
}

/// Whether a rule's service covers this traffic.
pub(super) fn covers(service: Service, traffic: Traffic) -> bool {
    let ((class, first, last), (asked, key)) = (span(service), key(traffic));
    matches!(class, Class::All) || (class as usize == asked as usize && first <= key && key <= last)
}

// === impl Ranges ===

impl Ranges {
    fn new(nets: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match net {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self { v4: disjoint(v4), v6: disjoint(v6) }
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => within(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => within(&self.v6, ip.to_bits()),
        }
    }

    /// Whether it holds any address, and all addresses, of a family.
    pub(super) fn any_and_all(&self, family: Family) -> (bool, bool) {
        match family {
            Family::V4 => (!self.v4.is_empty(), self.v4 == [(0, u32::MAX)]),
            Family::V6 => (!self.v6.is_empty(), self.v6 == [(0, u128::MAX)]),
        }
    }
}

/// Sorts ranges and merges what overlaps or touches.
fn disjoint<T: Ord + Copy + Step>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if end.next().is_none_or(|next| first <= next) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// The number after; `None` after the last.
trait Step: Sized {
    fn next(&self) -> Option<Self>;
}

impl Step for u32 {
    fn next(&self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Step for u128 {
    fn next(&self) -> Option<Self> {
        self.checked_add(1)
    }
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], value: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= value);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| value <= *last)
}

// === impl Flow ===

impl Flow {
    /// A flow's family, which ranges of the other never hold.
    pub(super) fn family(&self) -> Family {
        self.ends.family()
    }
}
