//! The answer: what the groups at both ends say of a flow.

use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::compile::{Compiled, Entry, Whom};
use super::flow::{Family, Flow};
use super::model::{GroupId, GroupRule, Peer, PrefixListId, Side};
use super::unfiltered::Unfiltered;

/// What both ends say.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The source's groups on what leaves it.
    pub egress: SideVerdict,
    /// The destination's groups on what reaches it.
    pub ingress: SideVerdict,
}

/// What one end says.
#[derive(Clone, Debug, PartialEq)]
pub enum SideVerdict {
    /// These rules let it pass; at least one.
    Allowed(Vec<Arc<GroupRule>>),
    /// Groups do not filter this.
    Unfiltered(Unfiltered),
    /// No rule lets it pass: it is dropped. [`Compiled::nearest`] tells the rules that come nearest, and
    /// [`Compiled::missing`] the one that is missing: both take longer than the verdict, and few verdicts need them.
    NoRule,
    /// No rule that is known for sure lets it pass, and something is not known; at least one thing.
    CannotTell(Vec<Doubt>),
    /// Nothing was asked: the groups of this end are not known, or it has none.
    NotJudged,
}

/// What is not known.
#[derive(Clone, Debug, PartialEq)]
pub enum Doubt {
    /// The rules of this group.
    UnknownGroup(GroupId),
    /// The addresses of this prefix list, which this rule names.
    UnknownPrefixList(Arc<GroupRule>, PrefixListId),
    /// The groups of the other end, on which this rule depends.
    PeerGroups(Arc<GroupRule>),
    /// The address of the other end, on which this rule depends.
    PeerAddress(Arc<GroupRule>),
    /// This rule names a group of the other end, but holds for private addresses alone, and this one looks public.
    PublicAddress(Arc<GroupRule>, IpAddr),
    /// Whether this address is the VPC's resolver, which groups do not filter. The VPC's ranges would tell.
    MayBeResolver(IpAddr),
}

/// A verdict in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overall {
    /// Every end that was judged lets it pass.
    Allowed,
    /// An end drops it.
    NoRule,
    /// Neither is sure.
    CannotTell,
}

/// The groups of an interface, looked up once for many questions; see [`Compiled::interface`].
#[derive(Debug)]
pub struct Interface<'c> {
    members: Vec<Member>,
    /// Numbers mean something to the rules that gave them alone.
    of: PhantomData<&'c Compiled>,
}

/// A group of an interface.
#[derive(Debug)]
struct Member {
    id: GroupId,
    /// `None`: neither defined nor named by any rule.
    number: Option<u32>,
}

/// The other end of a flow, seen from one side.
struct Other<'a> {
    family: Family,
    address: Option<IpAddr>,
    /// Its groups; `None`: not known.
    groups: Option<&'a [Member]>,
    /// Its address, where it looks public.
    public: Option<IpAddr>,
}

enum Match {
    Yes,
    No,
    Perhaps(Why),
}

enum Why {
    List,
    Groups,
    Address,
    Public(IpAddr),
}

impl Compiled {
    /// What the groups at both ends say of a flow. `None`: the groups of that end are not known; empty: it has none,
    /// being no interface in a VPC. Either way that end is not judged, but only the second says that no rule which names
    /// a group means it.
    pub fn verdict(&self, flow: &Flow, source: Option<&[GroupId]>, destination: Option<&[GroupId]>) -> Verdict {
        let (source, destination) = (source.map(|ids| self.interface(ids)), destination.map(|ids| self.interface(ids)));
        self.between(flow, source.as_ref(), destination.as_ref())
    }

    /// As [`Compiled::verdict`], for whoever asks often about the same interfaces.
    pub fn between(&self, flow: &Flow, source: Option<&Interface<'_>>, destination: Option<&Interface<'_>>) -> Verdict {
        let source = source.map(|interface| &interface.members[..]);
        let destination = destination.map(|interface| &interface.members[..]);
        Verdict {
            egress: self.judge_members(flow, Side::Egress, source, destination),
            ingress: self.judge_members(flow, Side::Ingress, destination, source),
        }
    }

    /// What the groups at one end say; `own` is that end's, `others` the other's.
    pub fn judge(&self, flow: &Flow, side: Side, own: Option<&[GroupId]>, others: Option<&[GroupId]>) -> SideVerdict {
        let (own, others) = (own.map(|ids| self.interface(ids)), others.map(|ids| self.interface(ids)));
        let (own, others) = (own.as_ref(), others.as_ref());
        self.judge_members(flow, side, own.map(|of| &of.members[..]), others.map(|of| &of.members[..]))
    }

    /// The groups of an interface, each once.
    pub fn interface(&self, ids: &[GroupId]) -> Interface<'_> {
        let mut members: Vec<Member> = Vec::with_capacity(ids.len());
        for id in ids {
            if members.iter().all(|member| member.id != *id) {
                members.push(Member { id: id.clone(), number: self.numbers.get(id).copied() });
            }
        }
        Interface { members, of: PhantomData }
    }

    fn judge_members(&self, flow: &Flow, side: Side, own: Option<&[Member]>, others: Option<&[Member]>) -> SideVerdict {
        let Some(own) = own.filter(|own| !own.is_empty()) else { return SideVerdict::NotJudged };
        if let Some(service) = Unfiltered::of(flow, &self.vpc) {
            return SideVerdict::Unfiltered(service);
        }
        let other = self.other(flow, side, others);
        let (mut allowing, mut doubts) = (Vec::new(), Vec::new());
        for Member { id, number } in own {
            let Some(sieves) = number.and_then(|number| self.groups.get(number as usize)?.as_ref()) else {
                doubts.push(Doubt::UnknownGroup(id.clone()));
                continue;
            };
            sieves.side(side).covering(flow.traffic, |entry| match self.matches(entry, &other) {
                Match::Yes => allowing.extend(self.rule(entry.rule).cloned()),
                // Doubts count only as long as nothing allows.
                Match::Perhaps(why) if allowing.is_empty() => {
                    doubts.extend(self.rule(entry.rule).and_then(|rule| why.doubt(rule)));
                }
                Match::Perhaps(_) | Match::No => {}
            });
        }
        if !allowing.is_empty() {
            return SideVerdict::Allowed(allowing);
        }
        doubts.extend(Unfiltered::may_be_resolver(flow, &self.vpc).map(Doubt::MayBeResolver));
        if doubts.is_empty() { SideVerdict::NoRule } else { SideVerdict::CannotTell(doubts) }
    }

    fn other<'a>(&self, flow: &Flow, side: Side, groups: Option<&'a [Member]>) -> Other<'a> {
        let address = flow.peer(side);
        Other { family: flow.family(), address, groups, public: address.filter(|ip| self.looks_public(*ip)) }
    }

    /// Whether an address may be another than the private one of an interface. IPv6 addresses of interfaces are the
    /// public ones.
    pub(super) fn looks_public(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(v4) => !is_private(v4) && !self.vpc.iter().any(|net| net.contains(&ip)),
            IpAddr::V6(_) => false,
        }
    }

    fn matches(&self, entry: &Entry, other: &Other<'_>) -> Match {
        match entry.peer {
            Whom::V4 { network, mask } => match (other.family, other.address) {
                (Family::V4, Some(IpAddr::V4(ip))) => Match::when(ip.to_bits() & mask == network),
                (Family::V4, _) if mask == 0 => Match::Yes,
                (Family::V4, _) => Match::Perhaps(Why::Address),
                (Family::V6, _) => Match::No,
            },
            Whom::V6(number) => match (other.family, other.address, self.nets_v6.get(number as usize)) {
                (Family::V4, ..) | (Family::V6, _, None) => Match::No,
                (Family::V6, Some(IpAddr::V6(ip)), Some((network, mask))) => {
                    Match::when(ip.to_bits() & mask == *network)
                }
                (Family::V6, _, Some((_, 0))) => Match::Yes,
                (Family::V6, ..) => Match::Perhaps(Why::Address),
            },
            Whom::List(number) => match (self.lists.get(number as usize).and_then(Option::as_ref), other.address) {
                (None, _) => Match::Perhaps(Why::List),
                (Some(ranges), Some(ip)) => Match::when(ranges.contains(ip)),
                (Some(ranges), None) => match ranges.any_and_all(other.family) {
                    (_, true) => Match::Yes,
                    (true, _) => Match::Perhaps(Why::Address),
                    (false, _) => Match::No,
                },
            },
            Whom::Group(number) => match (other.groups, other.public) {
                (None, _) => Match::Perhaps(Why::Groups),
                (Some(groups), _) if groups.iter().all(|member| member.number != Some(number)) => Match::No,
                (Some(_), Some(ip)) => Match::Perhaps(Why::Public(ip)),
                (Some(_), None) => Match::Yes,
            },
            Whom::Nobody => Match::No,
        }
    }
}

/// Ranges for private use (RFC 1918), and the one that VPCs use besides (RFC 6598).
fn is_private(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    ip.is_private() || ip.is_link_local() || (first == 100 && second & 0xc0 == 64)
}

// === impl Match ===

impl Match {
    fn when(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

// === impl Why ===

impl Why {
    fn doubt(self, rule: &Arc<GroupRule>) -> Option<Doubt> {
        match (self, &rule.rule.peer) {
            (Self::List, Peer::PrefixList(id)) => Some(Doubt::UnknownPrefixList(rule.clone(), id.clone())),
            // A rule is compiled to a list only when it names one.
            (Self::List, _) => None,
            (Self::Groups, _) => Some(Doubt::PeerGroups(rule.clone())),
            (Self::Address, _) => Some(Doubt::PeerAddress(rule.clone())),
            (Self::Public(ip), _) => Some(Doubt::PublicAddress(rule.clone(), ip)),
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// One of the ends.
    pub fn side(&self, side: Side) -> &SideVerdict {
        match side {
            Side::Egress => &self.egress,
            Side::Ingress => &self.ingress,
        }
    }

    /// Over the ends that were judged. An end that drops a flow decides, whatever is not known of the other.
    pub fn overall(&self) -> Overall {
        match (self.egress.overall(), self.ingress.overall()) {
            (Some(Overall::NoRule), _) | (_, Some(Overall::NoRule)) => Overall::NoRule,
            (Some(Overall::CannotTell), _) | (_, Some(Overall::CannotTell)) | (None, None) => Overall::CannotTell,
            (Some(Overall::Allowed), _) | (_, Some(Overall::Allowed)) => Overall::Allowed,
        }
    }
}

impl SideVerdict {
    /// In one word; `None`: not judged.
    pub fn overall(&self) -> Option<Overall> {
        match self {
            Self::Allowed(_) | Self::Unfiltered(_) => Some(Overall::Allowed),
            Self::NoRule => Some(Overall::NoRule),
            Self::CannotTell(_) => Some(Overall::CannotTell),
            Self::NotJudged => None,
        }
    }
}

impl Overall {
    /// Name in rows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::NoRule => "no_rule",
            Self::CannotTell => "cannot_tell",
        }
    }
}
