//! The second implementation: slow, obvious, and with nothing of the first but the types.
//!
//! It says the documentation in another way: an address is a string of bits and a range a beginning of one, all
//! services are lists of what they allow, and a rule is true, false or unknown.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::sg::*;

/// What one side says, and by which rules.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Allowed(Vec<String>),
    Unfiltered,
    NoRule,
    CannotTell,
    NotJudged,
}

pub(super) struct World<'a> {
    pub(super) groups: &'a [Group],
    pub(super) lists: &'a [PrefixList],
    pub(super) vpc: &'a [IpNet],
}

impl World<'_> {
    pub(super) fn judge(&self, flow: &Flow, side: Side, own: Option<&[GroupId]>, peers: Option<&[GroupId]>) -> Said {
        let Some(own) = own else { return Said::NotJudged };
        if own.is_empty() {
            return Said::NotJudged;
        }
        if self.is_service(flow) {
            return Said::Unfiltered;
        }
        let peer = if side == Side::Egress { flow.ends.destination() } else { flow.ends.source() };
        let (mut by, mut unsure) = (Vec::new(), false);
        for group in self.groups {
            if !own.contains(&group.id) {
                continue;
            }
            for rule in &group.rules {
                if rule.side != side || !allows(rule.service, flow.traffic) {
                    continue;
                }
                match self.means(&rule.peer, peer, flow.ends.family(), peers) {
                    Some(true) => by.push(rule.id.as_str().to_owned()),
                    Some(false) => {}
                    None => unsure = true,
                }
            }
        }
        unsure |= own.iter().any(|id| self.groups.iter().all(|group| group.id != *id));
        unsure |= self.vpc.is_empty() && is_dns(flow) && may_be_plus_two(flow.ends.destination());
        by.sort();
        match (by.is_empty(), unsure) {
            (false, _) => Said::Allowed(by),
            (true, true) => Said::CannotTell,
            (true, false) => Said::NoRule,
        }
    }

    /// True, false, or not to be known.
    fn means(&self, peer: &Peer, ip: Option<IpAddr>, family: Family, peers: Option<&[GroupId]>) -> Option<bool> {
        match peer {
            Peer::Net(net) => in_net(net, ip, family),
            Peer::PrefixList(id) => {
                let entries = self.lists.iter().find(|list| list.id == *id)?.entries.as_ref()?;
                let mut answers = entries.iter().map(|net| in_net(net, ip, family));
                if answers.clone().any(|answer| answer == Some(true)) {
                    return Some(true);
                }
                if answers.all(|answer| answer == Some(false)) { Some(false) } else { None }
            }
            Peer::Group { stale: Some(_), .. } => Some(false),
            Peer::Group { id, .. } => {
                if !peers?.contains(id) {
                    return Some(false);
                }
                let Some(ip) = ip else { return Some(true) };
                let own = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "::/0"];
                let mut ranges = own.iter().map(|net| net.parse().unwrap()).chain(self.vpc.iter().copied());
                ranges.any(|net: IpNet| in_net(&net, Some(ip), Family::of(ip)) == Some(true)).then_some(true)
            }
        }
    }

    fn is_service(&self, flow: &Flow) -> bool {
        let Some(ip) = flow.ends.destination() else { return false };
        let services = [
            "169.254.169.254",
            "fd00:ec2::254",
            "169.254.169.253",
            "fd00:ec2::253",
            "169.254.169.123",
            "fd00:ec2::123",
            "169.254.170.2",
            "169.254.169.250",
            "169.254.169.251",
            "169.254.170.23",
            "fd00:ec2::23",
        ];
        if services.contains(&ip.to_string().as_str()) {
            return true;
        }
        let first = self.vpc.iter().find(|net| net.addr().is_ipv4());
        let plus_two = first.and_then(|net| match net.network() {
            IpAddr::V4(base) => Some(u32::from(base) + 2),
            IpAddr::V6(_) => None,
        });
        is_dns(flow) && matches!(ip, IpAddr::V4(ip) if Some(u32::from(ip)) == plus_two)
    }
}

fn is_dns(flow: &Flow) -> bool {
    flow.traffic == Traffic::Port(Transport::Tcp, 53) || flow.traffic == Traffic::Port(Transport::Udp, 53)
}

/// Whether the last four bits are 0010, as two more than the base of any VPC.
fn may_be_plus_two(ip: Option<IpAddr>) -> bool {
    ip.is_some_and(|ip| ip.is_ipv4() && bits(ip).ends_with("0010"))
}

fn bits(ip: IpAddr) -> String {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    octets.iter().map(|octet| format!("{octet:08b}")).collect::<Vec<_>>().concat()
}

fn in_net(net: &IpNet, ip: Option<IpAddr>, family: Family) -> Option<bool> {
    if net.addr().is_ipv4() != (family == Family::V4) {
        return Some(false);
    }
    let prefix = &bits(net.addr())[..usize::from(net.prefix_len())];
    match ip {
        _ if prefix.is_empty() => Some(true),
        Some(ip) => Some(bits(ip).starts_with(prefix)),
        None => None,
    }
}

fn allows(service: Service, traffic: Traffic) -> bool {
    let number = match traffic {
        Traffic::Port(Transport::Tcp, _) => 6,
        Traffic::Port(Transport::Udp, _) => 17,
        Traffic::Icmp { version: IcmpVersion::V4, .. } => 1,
        Traffic::Icmp { version: IcmpVersion::V6, .. } => 58,
        Traffic::Protocol(number) => number,
    };
    match service {
        Service::All => true,
        Service::Protocol(wanted) => wanted == number,
        Service::Ports { transport: wanted, first, last } => match traffic {
            Traffic::Port(transport, port) => transport == wanted && (first..=last).contains(&port),
            _ => false,
        },
        Service::Icmp { version: wanted, kind: wanted_kind } => match traffic {
            Traffic::Icmp { version, kind, code } if version == wanted => match wanted_kind {
                None => true,
                Some((wanted, None)) => wanted == kind,
                Some((wanted, Some(wanted_code))) => wanted == kind && wanted_code == code,
            },
            _ => false,
        },
    }
}
