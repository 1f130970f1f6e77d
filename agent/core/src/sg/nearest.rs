//! Where no rule fits: the rules that come nearest, and what each lacks.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::compile::{Compiled, covers};
use super::flow::{Family, Flow, Traffic};
use super::model::{GroupId, GroupRule, Peer, Service, Side};

/// Enough to see what was meant; a list of all rules is `aws ec2 describe-security-group-rules`.
pub const MAX_NEAREST: usize = 3;

/// A rule that nearly fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// The rule.
    pub rule: Arc<GroupRule>,
    /// Why it does not fit; at least one reason, at most one of the service and one of the peer.
    pub lacks: Vec<Lack>,
}

/// Why a rule does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lack {
    /// It is for another protocol.
    Protocol,
    /// It is for other ports.
    Port,
    /// It is for other types or codes of ICMP.
    IcmpType,
    /// It is for addresses of the other family.
    Family,
    /// The other end's address is not in its range.
    Address,
    /// The other end's address is not in its prefix list.
    PrefixList,
    /// The other end does not have its group.
    Group,
    /// The peering that its reference goes through is gone.
    Stale,
}

/// What counts less comes nearer: how many lacks, which one, and how far.
type Distance = (u8, u8, u32);

impl Compiled {
    /// The rules of the groups `own` that nearly let a flow pass, the nearest first, at most [`MAX_NEAREST`]; none where
    /// they have no rule on this side. Rules that fit, and those that may fit for all that is known, lack nothing and
    /// are left out.
    pub fn nearest(&self, flow: &Flow, side: Side, own: &[GroupId], others: Option<&[GroupId]>) -> Vec<Near> {
        nearest(self, flow, side, own, others)
    }
}

fn nearest(compiled: &Compiled, flow: &Flow, side: Side, own: &[GroupId], others: Option<&[GroupId]>) -> Vec<Near> {
    let mut best: Vec<(Distance, u32)> = Vec::with_capacity(MAX_NEAREST + 1);
    for (at, id) in own.iter().enumerate() {
        if own.iter().take(at).any(|before| before == id) {
            continue;
        }
        let Some(sieves) = compiled.sieves(id) else { continue };
        for number in &sieves.side(side).rules {
            let Some(rule) = compiled.rule(*number) else { continue };
            let Some(distance) = distance(compiled, flow, side, rule, others) else { continue };
            let place = best.partition_point(|(other, _)| *other <= distance);
            if place < MAX_NEAREST {
                best.insert(place, (distance, *number));
                best.truncate(MAX_NEAREST);
            }
        }
    }
    let near = |(_, number): (Distance, u32)| {
        let rule = compiled.rule(number)?.clone();
        let service = service_lack(rule.rule.service, flow.traffic);
        let peer = peer_lack(compiled, flow, side, &rule.rule.peer, others);
        Some(Near { lacks: service.into_iter().chain(peer).collect(), rule })
    };
    best.into_iter().filter_map(near).collect()
}

/// `None`: it lacks nothing.
fn distance(
    compiled: &Compiled,
    flow: &Flow,
    side: Side,
    rule: &GroupRule,
    others: Option<&[GroupId]>,
) -> Option<Distance> {
    let service = service_lack(rule.rule.service, flow.traffic);
    let peer = peer_lack(compiled, flow, side, &rule.rule.peer, others);
    let lacks = u8::from(service.is_some()) + u8::from(peer.is_some());
    // The right service for others says more about what was meant than another service for this peer. Another protocol
    // and another family say the least.
    let kind = service.map_or(0, |lack| if lack == Lack::Protocol { 4 } else { 1 })
        + peer.map_or(0, |lack| if lack == Lack::Family { 2 } else { 0 });
    let far = service.map_or(0, |_| ports_apart(rule.rule.service, flow.traffic))
        + peer.map_or(0, |_| bits_apart(&rule.rule.peer, flow.peer(side)));
    (lacks > 0).then_some((lacks, kind, far))
}

fn service_lack(service: Service, traffic: Traffic) -> Option<Lack> {
    if covers(service, traffic) {
        return None;
    }
    Some(match (service, traffic) {
        (Service::Ports { transport, .. }, Traffic::Port(asked, _)) if transport == asked => Lack::Port,
        (Service::Icmp { version, .. }, Traffic::Icmp { version: asked, .. }) if version == asked => Lack::IcmpType,
        _ => Lack::Protocol,
    })
}

fn peer_lack(compiled: &Compiled, flow: &Flow, side: Side, peer: &Peer, others: Option<&[GroupId]>) -> Option<Lack> {
    let address = flow.peer(side);
    match peer {
        Peer::Net(net) if Family::of(net.addr()) != flow.family() => Some(Lack::Family),
        Peer::Net(net) => address.is_some_and(|ip| !net.contains(&ip)).then_some(Lack::Address),
        Peer::PrefixList(id) => {
            let ranges = compiled.ranges(id)?;
            let (any_of_family, _) = ranges.any_and_all(flow.family());
            match address {
                _ if !any_of_family => Some(Lack::Family),
                Some(ip) if !ranges.contains(ip) => Some(Lack::PrefixList),
                _ => None,
            }
        }
        Peer::Group { stale: Some(_), .. } => Some(Lack::Stale),
        Peer::Group { id, .. } => others.is_some_and(|others| !others.contains(id)).then_some(Lack::Group),
    }
}

fn ports_apart(service: Service, traffic: Traffic) -> u32 {
    match (service, traffic) {
        (Service::Ports { first, last, .. }, Traffic::Port(_, port)) => {
            u32::from(first.saturating_sub(port).max(port.saturating_sub(last)))
        }
        _ => u32::from(u16::MAX),
    }
}

/// How many bits of a range's prefix an address does not share.
fn bits_apart(peer: &Peer, address: Option<IpAddr>) -> u32 {
    let (length, shared) = match (peer, address) {
        (Peer::Net(IpNet::V4(net)), Some(IpAddr::V4(ip))) => {
            (net.prefix_len(), (net.network().to_bits() ^ ip.to_bits()).leading_zeros())
        }
        (Peer::Net(IpNet::V6(net)), Some(IpAddr::V6(ip))) => {
            (net.prefix_len(), (net.network().to_bits() ^ ip.to_bits()).leading_zeros())
        }
        _ => return 0,
    };
    u32::from(length).saturating_sub(shared)
}
