//! Whoever is wished for is asked for again within a bound, whatever else there is to ask.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use agent_core::facts::{GroupFacts, InterfaceFacts};
use agent_core::sg::{Group, GroupId, Peer, Rule, RuleId, Service, Side};
use agent_core::time::WallNs;
use proptest::prelude::*;

use super::*;
use crate::aws::known::{Known, Told, age};
use crate::aws::plan::{Look, Targets, When};
use crate::aws::{groups, interfaces, lists, networks};

const NS: i64 = 1_000_000_000;

/// What a node wishes to know, and how its world moves.
#[derive(Clone, Debug)]
struct World {
    nodes: u32,
    interfaces: usize,
    missing: usize,
    groups: usize,
    lists: usize,
    /// Another peer comes every so many seconds.
    new_peer_s: u64,
}

fn worlds() -> impl Strategy<Value = World> {
    (1_u32..5_000, 0_usize..210, 0_usize..20, 0_usize..40, 0_usize..15, 30_u64..5_000).prop_map(
        |(nodes, interfaces, missing, groups, lists, new_peer_s)| World {
            nodes,
            interfaces,
            missing,
            groups,
            lists,
            new_peer_s,
        },
    )
}

fn group(number: usize, lists: usize) -> GroupFacts {
    let list = format!("pl-{}", number % lists.max(1)).parse().unwrap();
    let rule =
        Rule { id: RuleId::given("sgr-1"), side: Side::Ingress, service: Service::All, peer: Peer::PrefixList(list) };
    let rules = if lists == 0 { vec![] } else { vec![rule] };
    let id = format!("sg-{number}").parse().unwrap();
    GroupFacts { group: Group { id, name: None, vpc: None, owner: None, rules }, clusters: vec![] }
}

/// Answers a question at a time: how many calls that took.
fn answer(ask: Ask, known: &mut Known, world: &World, at: WallNs) -> u32 {
    match ask {
        Ask::Macs(macs) => {
            for mac in macs {
                known.macs.insert(mac, Told { what: None, at });
            }
            1
        }
        Ask::Interfaces(ids) => {
            for id in ids {
                let is_there = id.starts_with("eni-");
                let facts = InterfaceFacts {
                    id: Arc::clone(&id),
                    subnet: Some("subnet-1".into()),
                    vpc: Some("vpc-1".into()),
                    ..InterfaceFacts::default()
                };
                known.interfaces.insert(id, Told { what: is_there.then_some(facts), at });
            }
            1
        }
        Ask::Peers(peers) => {
            for ip in peers {
                known.peers.insert(ip, Told { what: None, at });
            }
            1
        }
        Ask::Groups(ids) => {
            for id in ids {
                let number = id.as_str().trim_start_matches("sg-").parse().unwrap();
                known.groups.insert(id, Told { what: Some(group(number, world.lists)), at });
            }
            2
        }
        Ask::Lists(ids) => {
            let calls = 1 + u32::try_from(ids.len()).unwrap();
            for id in ids {
                known.lists.insert(id, Told { what: None, at });
            }
            calls
        }
        Ask::Subnets(ids) => {
            for id in ids {
                known.subnets.insert(id, Told { what: None, at });
            }
            1
        }
        Ask::Vpc(id) => {
            known.vpcs.insert(id, Told { what: Some(vec![]), at });
            1
        }
        Ask::InstanceType(name) => {
            known.types.insert(name, Told { what: None, at });
            1
        }
    }
}

/// The age of the oldest thing that is wished for and was told.
fn oldest(targets: &Targets, known: &Known, now: WallNs) -> Duration {
    let ages = targets.interfaces.iter().filter_map(|id| known.interfaces.get(id)).map(|told| told.at);
    let ages = ages.chain(targets.groups.iter().filter_map(|id| known.groups.get(id)).map(|told| told.at));
    let ages = ages.chain(targets.lists.iter().filter_map(|id| known.lists.get(id)).map(|told| told.at));
    let ages = ages.chain(targets.subnets.iter().filter_map(|id| known.subnets.get(id)).map(|told| told.at));
    let ages = ages.chain(targets.vpc.iter().filter_map(|id| known.vpcs.get(id)).map(|told| told.at));
    ages.map(|at| age(at, now)).max().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// A call in as many seconds as there are nodes is all there is: with a thousand of them five an hour.
    #[test]
    fn nothing_that_is_wished_for_stays_old_for_want_of_a_turn(world in worlds()) {
        let old = Duration::from_mins(15).max(Duration::from_secs(world.nodes.into()));
        // All that is wished for, by calls, and the pages that hold one kind.
        let pages = |things: usize, page: usize| u32::try_from(things.div_ceil(page)).unwrap();
        let round = pages(world.interfaces + world.missing, interfaces::CHUNK) + 2 * pages(world.groups, groups::CHUNK)
            + pages(world.lists, lists::CHUNK) + u32::try_from(world.lists).unwrap()
            + pages(1, networks::CHUNK) + 1 + 1;
        // Half of the calls are news', and a question may overdraw the bucket by what it takes.
        let bound = old * (OVERDUE + 1) + Duration::from_secs(u64::from(world.nodes)) * (3 * round + 40);
        let found = (0..world.interfaces).map(|n| format!("eni-{n}"));
        let wishes = agent_core::facts::Ec2Wishes {
            interfaces: found.chain((0..world.missing).map(|n| format!("gone-{n}"))).map(Arc::from).collect(),
            groups: (0..world.groups).map(|n| format!("sg-{n}").parse::<GroupId>().unwrap()).collect(),
            ..agent_core::facts::Ec2Wishes::default()
        };
        let (start, mut known, mut turns) = (Instant::now(), Known::default(), Turns::default());
        let mut bucket = Bucket::new(world.nodes, start);
        let step = u64::from(world.nodes).max(20);
        let end = bound.as_secs() * 2;
        let mut worst = Duration::ZERO;
        for second in (0..end).step_by(usize::try_from(step).unwrap()) {
            let (at, now) = (WallNs(i64::try_from(second).unwrap() * NS), start + Duration::from_secs(second));
            let number = u32::try_from(second / world.new_peer_s).unwrap();
            let peers: BTreeSet<IpAddr> = (number..number + 3).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n).into()).collect();
            let wishes = agent_core::facts::Ec2Wishes { peers, ..wishes.clone() };
            loop {
                let targets = Targets::new(&wishes, &known);
                let when = When { now: at, old };
                let news = targets.next(&known, Look::News, when, |_| true).map(|(_, ask)| ask);
                let due = targets.next(&known, Look::Old, when, |_| true);
                let Some(ask) = turns.next(news, due, old, &mut bucket, now) else { break };
                for _ in 0..answer(ask, &mut known, &world, at) {
                    bucket.spend(now);
                }
                known.prune(&targets, at);
            }
            worst = worst.max(oldest(&Targets::new(&wishes, &known), &known, at));
        }
        prop_assert!(worst <= bound, "{} s old, at most {} s", worst.as_secs(), bound.as_secs());
    }
}
