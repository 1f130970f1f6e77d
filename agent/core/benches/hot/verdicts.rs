//! Verdicts of security groups on flows: 60 groups with ranges of IPv4 and IPv6, references and prefix lists of 100 entries;
//! TCP, UDP, ICMP and everything; interfaces of one to five groups, judged at both ends. The size is the rules of a group on
//! each side; the unit is a verdict.

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_core::sg::{
    Compiled, Ends, Flow, Group, GroupId, IcmpVersion, Overall, Peer, PrefixList, PrefixListId, Rule, RuleId, Service,
    Side, Traffic, Transport,
};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::Once;

const GROUPS: u32 = 60;
const LISTS: u32 = 8;
const FLOWS: u32 = 4_096;
/// Groups of an interface at most.
const MEMBERS: u32 = 5;

/// A sequence without pattern that is the same in every run: the generator called splitmix64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) % u64::from(limit)).unwrap_or_default()
    }
}

pub(crate) fn verdicts(size: u32) -> Result<Once, Box<dyn Error>> {
    let mut numbers = Numbers(1);
    let compiled = compiled(&mut numbers, size)?;
    let ids: Vec<GroupId> = (0..GROUPS).map(group_id).collect::<Result<_, _>>()?;
    let members = |numbers: &mut Numbers| -> Vec<GroupId> {
        let count = 1 + numbers.below(MEMBERS);
        (0..count).filter_map(|_| ids.get(numbers.below(GROUPS) as usize).cloned()).collect()
    };
    let mut flows = Vec::new();
    for _ in 0..FLOWS {
        flows.push((flow(&mut numbers)?, members(&mut numbers), members(&mut numbers)));
    }
    Ok(Box::new(move || {
        let mut allowed = 0;
        for (flow, source, destination) in &flows {
            // Looked up with each verdict, as for the rows of a fold.
            let (source, destination) = (compiled.interface(source), compiled.interface(destination));
            let verdict = black_box(compiled.between(black_box(flow), Some(&source), Some(&destination)));
            allowed += u32::from(verdict.overall() == Overall::Allowed);
        }
        if allowed == 0 || allowed == FLOWS {
            return Err(format!("{allowed} of {FLOWS} flows are allowed: the groups say nothing").into());
        }
        Ok(u64::from(FLOWS))
    }))
}

fn group_id(n: u32) -> Result<GroupId, agent_core::sg::InvalidId> {
    format!("sg-{n:017x}").parse()
}

fn compiled(numbers: &mut Numbers, rules_a_side: u32) -> Result<Compiled, Box<dyn Error>> {
    let ids: Vec<GroupId> = (0..GROUPS).map(group_id).collect::<Result<_, _>>()?;
    let lists: Vec<PrefixListId> = (0..LISTS).map(|n| format!("pl-{n:017x}").parse()).collect::<Result<_, _>>()?;
    let mut groups = Vec::new();
    for (at, id) in ids.iter().enumerate() {
        let mut rules = Vec::new();
        // Every other group lets everything out, as new ones do.
        if at % 2 == 0 {
            let (side, service, peer) = (Side::Egress, Service::All, Peer::Net("0.0.0.0/0".parse()?));
            rules.push(Rule { id: RuleId::derived(id, side, service, &peer), side, service, peer });
        }
        for side in [Side::Egress, Side::Ingress] {
            for _ in 0..rules_a_side {
                let (service, peer) = (service(numbers), peer(numbers, &ids, &lists)?);
                rules.push(Rule { id: RuleId::derived(id, side, service, &peer), side, service, peer });
            }
        }
        groups.push(Group { id: id.clone(), name: None, vpc: None, owner: None, rules });
    }
    let mut known = Vec::new();
    for id in &lists {
        let entries = (0..100)
            .map(|_| Ok(Ipv4Net::new(v4(numbers), 24)?.into()))
            .collect::<Result<_, ipnet::PrefixLenError>>()?;
        known.push(PrefixList { id: id.clone(), name: None, entries: Some(entries) });
    }
    Ok(Compiled::new(&groups, &known))
}

fn v4(numbers: &mut Numbers) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + numbers.below(0x0010_0000))
}

fn v6(numbers: &mut Numbers) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::try_from(numbers.below(0x1_0000)).unwrap_or_default())
}

fn port(numbers: &mut Numbers) -> u16 {
    const PORTS: [u16; 24] = [
        22, 53, 80, 123, 389, 443, 1433, 2049, 2379, 3000, 3306, 4317, 5432, 5671, 6379, 7946, 8080, 8443, 9090, 9092,
        9200, 10_250, 27_017, 50_051,
    ];
    PORTS.get(numbers.below(24) as usize).copied().unwrap_or_default()
}

fn service(numbers: &mut Numbers) -> Service {
    match numbers.below(20) {
        0 => Service::All,
        1 => Service::Icmp { version: IcmpVersion::V4, kind: None },
        n @ 2..=6 => {
            let first = port(numbers);
            Service::Ports {
                transport: Transport::Udp,
                first,
                last: first.saturating_add(u16::try_from(n).unwrap_or(0)),
            }
        }
        _ => {
            let first = port(numbers);
            Service::Ports { transport: Transport::Tcp, first, last: first }
        }
    }
}

fn peer(numbers: &mut Numbers, ids: &[GroupId], lists: &[PrefixListId]) -> Result<Peer, ipnet::PrefixLenError> {
    Ok(match numbers.below(10) {
        0 => Peer::PrefixList(lists[numbers.below(LISTS) as usize].clone()),
        1..=3 => Peer::Group { id: ids[numbers.below(GROUPS) as usize].clone(), account: None, stale: None },
        4 => Peer::Net(Ipv6Net::new(v6(numbers), 120)?.trunc().into()),
        n => Peer::Net(Ipv4Net::new(v4(numbers), 16 + u8::try_from(n).unwrap_or(0))?.trunc().into()),
    })
}

fn flow(numbers: &mut Numbers) -> Result<Flow, Box<dyn Error>> {
    let (source, destination): (IpAddr, IpAddr) = match numbers.below(8) {
        0 => (v6(numbers).into(), v6(numbers).into()),
        _ => (v4(numbers).into(), v4(numbers).into()),
    };
    let traffic = match numbers.below(16) {
        0 => Traffic::Icmp { version: IcmpVersion::V4, kind: 8, code: 0 },
        1..=3 => Traffic::Port(Transport::Udp, port(numbers)),
        _ => Traffic::Port(Transport::Tcp, port(numbers)),
    };
    Ok(Flow { traffic, ends: Ends::new(Some(source), Some(destination))?.ok_or("ends have addresses")? })
}
