//! Whatever the groups and the flow, both implementations say the same.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;

use super::slow::{Said, World};
use super::*;

/// Few groups, lists and numbers, so that they meet. `sg-4` is never defined, `pl-2` never known.
const GROUPS: [&str; 5] = ["sg-0", "sg-1", "sg-2", "sg-3", "sg-4"];
const LISTS: [&str; 3] = ["pl-0", "pl-1", "pl-2"];
const PORTS: [u16; 7] = [0, 1, 53, 80, 443, 65_534, 65_535];
const ADDRESSES: [&str; 16] = [
    "10.0.0.0",
    "10.0.0.2",
    "10.0.1.7",
    "10.255.255.255",
    "9.255.255.255",
    "11.0.0.0",
    "203.0.113.9",
    "169.254.169.254",
    "0.0.0.0",
    "255.255.255.255",
    "2001:db8::1",
    "2001:db8:0:1::1",
    "fd00:ec2::254",
    "::",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "::ffff:10.0.0.2",
];

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => select(&ADDRESSES[..]).prop_map(ip),
        1 => any::<[u8; 4]>().prop_map(IpAddr::from),
        1 => any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), 0..=128u8).prop_map(|(ip, length)| {
        let ip = ip.to_canonical();
        let most = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, length % (most + 1)).unwrap().trunc()
    })
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)]
}

fn version() -> impl Strategy<Value = IcmpVersion> {
    prop_oneof![Just(IcmpVersion::V4), Just(IcmpVersion::V6)]
}

fn service() -> impl Strategy<Value = Service> {
    let number = select(&[0u8, 1, 6, 17, 50, 58, 255][..]);
    prop_oneof![
        1 => Just(Service::All),
        4 => (transport(), select(&PORTS[..]), select(&PORTS[..])).prop_map(|(transport, one, other)| {
            Service::Ports { transport, first: one.min(other), last: one.max(other) }
        }),
        2 => (version(), proptest::option::of((0..3u8, proptest::option::of(0..3u8))))
            .prop_map(|(version, kind)| Service::Icmp { version, kind }),
        1 => number.prop_map(Service::Protocol),
    ]
}

fn traffic() -> impl Strategy<Value = Traffic> {
    prop_oneof![
        4 => (transport(), select(&PORTS[..])).prop_map(|(transport, port)| Traffic::Port(transport, port)),
        2 => (version(), 0..3u8, 0..3u8).prop_map(|(version, kind, code)| Traffic::Icmp { version, kind, code }),
        1 => select(&[0u8, 50, 255][..]).prop_map(Traffic::Protocol),
    ]
}

fn peer() -> impl Strategy<Value = Peer> {
    let stale = proptest::option::weighted(0.2, Just("deleted".into()));
    prop_oneof![
        3 => net().prop_map(Peer::Net),
        1 => select(&LISTS[..]).prop_map(|id| Peer::PrefixList(id.parse().unwrap())),
        2 => (select(&GROUPS[..]), stale).prop_map(|(id, stale)| Peer::Group { id: sg(id), account: None, stale }),
    ]
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let side = prop_oneof![Just(Side::Egress), Just(Side::Ingress)];
    proptest::collection::vec((side, service(), peer()), 0..6).prop_map(|rules| {
        let rule = |(at, (side, service, peer))| Rule { id: RuleId::given(&format!("{at}")), side, service, peer };
        rules.into_iter().enumerate().map(rule).collect()
    })
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    proptest::collection::vec(rules(), 4).prop_map(|rules| {
        let group = |(at, mut rules): (usize, Vec<Rule>)| {
            for rule in &mut rules {
                rule.id = RuleId::given(&format!("{at}.{}", rule.id));
            }
            Group { id: sg(GROUPS[at]), name: None, vpc: None, owner: None, rules }
        };
        rules.into_iter().enumerate().map(group).collect()
    })
}

fn lists() -> impl Strategy<Value = Vec<PrefixList>> {
    proptest::collection::vec(proptest::collection::vec(net(), 0..4), 2).prop_map(|lists| {
        let list = |(at, entries): (usize, _)| PrefixList {
            id: LISTS[at].parse().unwrap(),
            name: None,
            entries: Some(entries),
        };
        lists.into_iter().enumerate().map(list).collect()
    })
}

fn membership() -> impl Strategy<Value = Option<Vec<GroupId>>> {
    proptest::option::weighted(0.8, proptest::collection::vec(select(&GROUPS[..]).prop_map(sg), 0..4))
}

fn ends() -> impl Strategy<Value = Ends> {
    let end = || proptest::option::weighted(0.8, address());
    (end(), end(), any::<bool>()).prop_map(|(source, destination, v6)| {
        let unknown = Ends::unknown(if v6 { Family::V6 } else { Family::V4 });
        // Ends of two families are no flow: then one is not known.
        let ends = Ends::new(source, destination).or_else(|_| Ends::new(None, destination)).unwrap();
        ends.unwrap_or(unknown)
    })
}

fn vpc() -> impl Strategy<Value = Vec<IpNet>> {
    prop_oneof![
        Just(Vec::new()),
        Just(vec!["10.0.0.0/16".parse().unwrap(), "203.0.113.0/24".parse().unwrap()]),
        Just(vec!["fd00::/56".parse().unwrap()]),
    ]
}

/// What the first implementation says, in the words of the second.
fn first(verdict: &SideVerdict) -> Said {
    match verdict {
        SideVerdict::Allowed(rules) => {
            let mut ids: Vec<_> = rules.iter().map(|rule| rule.rule.id.as_str().to_owned()).collect();
            ids.sort();
            Said::Allowed(ids)
        }
        SideVerdict::Unfiltered(_) => Said::Unfiltered,
        SideVerdict::NoRule => Said::NoRule,
        SideVerdict::CannotTell(_) => Said::CannotTell,
        SideVerdict::NotJudged => Said::NotJudged,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn both_implementations_agree(
        groups in groups(), lists in lists(), vpc in vpc(),
        flows in proptest::collection::vec((traffic(), ends(), membership(), membership()), 8),
    ) {
        let compiled = Compiled::new(&groups, &lists).with_vpc(vpc.clone());
        let world = World { groups: &groups, lists: &lists, vpc: &vpc };
        for (traffic, ends, source, destination) in flows {
            let flow = Flow { traffic, ends };
            let (source, destination) = (source.as_deref(), destination.as_deref());
            let verdict = compiled.verdict(&flow, source, destination);
            let egress = world.judge(&flow, Side::Egress, source, destination);
            let ingress = world.judge(&flow, Side::Ingress, destination, source);
            prop_assert_eq!(first(&verdict.egress), egress, "egress of {:?}", flow);
            prop_assert_eq!(first(&verdict.ingress), ingress, "ingress of {:?}", flow);

            for (side, own, others) in [(Side::Egress, source, destination), (Side::Ingress, destination, source)] {
                if *verdict.side(side) != SideVerdict::NoRule {
                    continue;
                }
                let own = own.unwrap();
                let near = compiled.nearest(&flow, side, own, others);
                let rules = groups.iter().filter(|group| own.contains(&group.id)).flat_map(|group| &group.rules);
                let there = rules.filter(|rule| rule.side == side).count();
                prop_assert_eq!(near.len(), there.min(MAX_NEAREST));
                for near in &near {
                    prop_assert!(!near.lacks.is_empty() && near.rule.rule.side == side, "{:?}", near);
                    prop_assert!(!near.lacks_text(&flow).is_empty());
                }
                // What is missing is what helps: with it the flow passes, and by it alone.
                let Some(missing) = compiled.missing(&flow, side, own, others) else { continue };
                let Some(peer) = missing.peer.clone() else { continue };
                let mut groups = groups.clone();
                let group = groups.iter_mut().find(|group| group.id == missing.group).unwrap();
                group.rules.push(Rule { id: RuleId::given("new"), side, service: missing.service, peer });
                let cured = Compiled::new(&groups, &lists).with_vpc(vpc.clone()).judge(&flow, side, Some(own), others);
                prop_assert_eq!(first(&cured), Said::Allowed(vec!["new".to_owned()]));
            }
        }
    }
}
