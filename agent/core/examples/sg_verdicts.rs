//! How many verdicts on security groups a core gives: `cargo run --release -p agent-core --example sg_verdicts`.
//!
//! 60 groups of 60 rules a side: ranges of IPv4 and IPv6, references, prefix lists of 100 entries; TCP, UDP, ICMP and
//! everything. 4,096 flows between interfaces of one to five groups, judged at both ends, over and over.
//! The rate is per second of CPU time.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use agent_core::sg::{
    Compiled, Ends, Flow, Group, GroupId, IcmpVersion, Overall, Peer, PrefixList, PrefixListId, Rule, RuleId, Service,
    Side, Traffic, Transport,
};
use ipnet::{Ipv4Net, Ipv6Net};

const GROUPS: u32 = 60;
const RULES_A_SIDE: u32 = 60;
const LISTS: u32 = 8;
const FLOWS: u32 = 4_096;
const ROUNDS: u32 = 200;

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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = Numbers(1);
    let ids: Vec<GroupId> = (0..GROUPS).map(|n| format!("sg-{n:017x}").parse()).collect::<Result<_, _>>()?;
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
            for _ in 0..RULES_A_SIDE {
                let (service, peer) = (service(&mut numbers), peer(&mut numbers, &ids, &lists)?);
                rules.push(Rule { id: RuleId::derived(id, side, service, &peer), side, service, peer });
            }
        }
        groups.push(Group { id: id.clone(), name: None, vpc: None, owner: None, rules });
    }
    let mut known = Vec::new();
    for id in &lists {
        let entries = (0..100)
            .map(|_| Ok(Ipv4Net::new(v4(&mut numbers), 24)?.into()))
            .collect::<Result<_, ipnet::PrefixLenError>>()?;
        known.push(PrefixList { id: id.clone(), name: None, entries: Some(entries) });
    }
    let start = Instant::now();
    let compiled = Compiled::new(&groups, &known);
    println!("{} rules compiled in {:.2} ms", GROUPS * RULES_A_SIDE * 2, start.elapsed().as_secs_f64() * 1e3);

    println!("{:<34} {:>14} {:>9} {:>9} {:>12}", "load", "verdicts/s", "allowed", "no rule", "cannot tell");
    let members = |numbers: &mut Numbers, most| -> Vec<GroupId> {
        let count = if most == 1 { 1 } else { 1 + numbers.below(most) };
        (0..count).filter_map(|_| ids.get(numbers.below(GROUPS) as usize).cloned()).collect()
    };
    for (name, most, known) in [
        ("one group an end", 1, true),
        ("one to five groups an end", 5, true),
        ("one to five, peer's not known", 5, false),
    ] {
        let mut flows = Vec::new();
        for _ in 0..FLOWS {
            let flow = flow(&mut numbers)?;
            flows.push((flow, members(&mut numbers, most), known.then(|| members(&mut numbers, most))));
        }
        let mut counts = [0u32; 3];
        for (flow, source, destination) in &flows {
            match compiled.verdict(flow, Some(source), destination.as_deref()).overall() {
                Overall::Allowed => counts[0] += 1,
                Overall::NoRule => counts[1] += 1,
                Overall::CannotTell => counts[2] += 1,
            }
        }
        // An interface keeps its groups: they are looked up once.
        let flows: Vec<_> = flows
            .iter()
            .map(|(flow, source, destination)| {
                (flow, compiled.interface(source), destination.as_deref().map(|groups| compiled.interface(groups)))
            })
            .collect();
        let start = on_cpu_ns()?;
        for _ in 0..ROUNDS {
            for (flow, source, destination) in &flows {
                black_box(compiled.between(black_box(flow), Some(source), destination.as_ref()));
            }
        }
        let rate = f64::from(FLOWS * ROUNDS) * 1e9 / (on_cpu_ns()? - start);
        println!("{name:<34} {rate:>14.0} {:>9} {:>9} {:>12}", counts[0], counts[1], counts[2]);
    }
    Ok(())
}

/// Time that this process ran on a CPU, so that a busy machine does not count.
fn on_cpu_ns() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(stat.split_whitespace().next().ok_or("schedstat is empty")?.parse()?)
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

fn flow(numbers: &mut Numbers) -> Result<Flow, Box<dyn std::error::Error>> {
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
