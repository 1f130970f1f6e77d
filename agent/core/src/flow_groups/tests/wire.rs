//! What was really on the wire: the backend behind a service's address, the node's address, an interface of its own.

use std::net::IpAddr;

use agent_ebpf::wire::{Direction, Outcome};

use super::world::{World, group, groups, interface, ip, rule};
use super::{ALLOWED, CANNOT_TELL, NO_RULE, NODE, NOT_JUDGED, POD, no, said};
use crate::facts::{Ec2Fact, InterfaceFacts, PeerInterface};
use crate::input::Input;
use crate::output::{ActualPeer, FlowRow, PeerClass, SgVerdict, SgWhy};
use crate::sg::{Rule, Side};
use crate::time::WallNs;

/// An address of a service inside the VPC's range: only its class tells.
const SERVICE: &str = "10.0.200.1";

fn backend(address: &str, port: u16) -> impl FnOnce(&mut FlowRow) {
    let actual = ActualPeer { ip: ip(address), port };
    move |row| (row.peer.class, row.actual_peer) = (PeerClass::Service, Some(actual))
}

fn unresolved(row: &mut FlowRow) {
    row.peer.class = PeerClass::Service;
}

#[test]
fn the_backend_behind_a_service_is_judged_and_without_it_nothing_is() {
    let mut world = World::new(true);
    world.outbound(1, SERVICE, 80);
    assert_eq!(world.again(unresolved), said(CANNOT_TELL, POD, "", Some(SgWhy::ServiceAddress)));
    assert_eq!(
        world.again(backend("10.0.5.5", 5432)),
        said(ALLOWED, POD, "sgr-db", Some(SgWhy::PeerSideUnknown)),
        "its address and its port"
    );
    assert_eq!(world.again(backend("10.0.5.5", 5433)), said(NO_RULE, POD, "", None));
    // Its groups.
    assert_eq!(world.again(backend("10.0.5.5", 6379)), said(CANNOT_TELL, POD, "", Some(SgWhy::PeerUnknown)));
    assert!(
        world.engine.wishes().peers.contains(&ip("10.0.5.5")) && !world.engine.wishes().peers.contains(&ip(SERVICE))
    );
    world.peer("10.0.5.5", &["sg-cache"]);
    assert_eq!(world.again(backend("10.0.5.5", 6379)), said(ALLOWED, POD, "sgr-cache,sgr-cache-in", None));
    // In standard mode one on this node meets nobody.
    let mut world = World::new(false);
    world.outbound(1, SERVICE, 80);
    assert_eq!(world.again(backend("10.0.1.20", 80)), no(NOT_JUDGED, SgWhy::SameNode));
    assert_eq!(world.again(unresolved), no(CANNOT_TELL, SgWhy::ServiceAddress));
    assert_eq!(world.again(backend("10.0.5.5", 5432)).map(|said| said.verdict), Some(ALLOWED));
}

#[test]
fn without_the_vpcs_ranges_an_address_that_looks_public_may_be_the_vpcs() {
    let mut world = World::without_ec2(false);
    // The VPC has a range that looks public: the node itself is in it.
    world.feed(Input::NodeAddresses(vec![ip("10.0.0.10"), ip("44.1.0.10")]));
    let interfaces = vec![
        interface("eni-1", &["sg-pod"], &["10.0.9.1"]),
        interface("eni-node", &["sg-node"], &["10.0.0.10", "10.0.1.20", "44.1.0.10"]),
    ];
    world.ec2(Ec2Fact::Interfaces { interfaces, missing: vec![], at: WallNs(super::world::EPOCH * 1_000_000_000) });
    world.ec2(groups());
    world.snat(Some(false));
    assert_eq!(world.outbound(1, "44.1.5.5", 443), no(CANNOT_TELL, SgWhy::VpcUnknown));
    assert_eq!(world.outbound(1, "93.184.216.34", 443).map(|said| said.by), Some(NODE), "far from the node's own");
    let ranges: Vec<ipnet::IpNet> = vec!["10.0.0.0/16".parse().unwrap(), "44.1.0.0/16".parse().unwrap()];
    world.ec2(Ec2Fact::Vpc { id: "vpc-1".into(), ranges, at: WallNs(0) });
    assert_eq!(world.outbound(1, "44.1.5.5", 443).map(|said| said.by), Some(POD));
}

#[test]
fn a_pod_on_an_interface_with_groups_of_its_own_leaves_by_the_one_or_the_other() {
    let mut world = World::new(true);
    let at = WallNs((super::world::EPOCH + 1) * 1_000_000_000);
    let second = |group: &str| {
        let interfaces = vec![
            interface("eni-node", &["sg-node"], &["10.0.0.10"]),
            interface("eni-second", &[group], &["10.0.1.20"]),
        ];
        Ec2Fact::Interfaces { interfaces, missing: vec![], at }
    };
    world.ec2(second("sg-cache"));
    assert_eq!(world.outbound(2, "93.184.216.34", 80), no(CANNOT_TELL, SgWhy::SnatUnknown));
    assert_eq!(world.outbound(2, "172.20.0.50", 80), no(CANNOT_TELL, SgWhy::ServiceAddress));
    assert_eq!(world.outbound(2, "10.0.5.5", 80), said(NO_RULE, NODE, "", None), "within the VPC by its own interface");
    world.snat(Some(false));
    assert_eq!(world.outbound(2, "93.184.216.34", 80), said(ALLOWED, NODE, "sgr-node-out", None));
    world.snat(Some(true));
    assert_eq!(world.outbound(2, "93.184.216.34", 80), said(NO_RULE, NODE, "", None));
    // With the same groups on both it does not matter.
    world.snat(None);
    world.ec2(second("sg-node"));
    assert_eq!(world.outbound(2, "93.184.216.34", 80), said(ALLOWED, NODE, "sgr-node-out", None));
}

#[test]
fn what_hands_on_what_it_gets_leaves_open_who_drops_it() {
    let mut world = World::new(true);
    let mut tell = |kind: &str| {
        let peer = InterfaceFacts { kind: Some(kind.into()), ..interface("eni-lb", &["sg-cache"], &["10.0.5.7"]) };
        let peers = vec![PeerInterface { ip: ip("10.0.5.7"), interface: Some(peer) }];
        let at = WallNs(world.second() * 1_000_000_000);
        world.ec2(Ec2Fact::Peers { peers, at });
        world.outbound(1, "10.0.5.7", 6379)
    };
    assert_eq!(tell("interface"), said(ALLOWED, POD, "sgr-cache,sgr-cache-in", None));
    let open = said(ALLOWED, POD, "sgr-cache,sgr-cache-in", Some(SgWhy::PeerForwards));
    assert_eq!(tell("network_load_balancer"), open);
}

fn of(audit: &crate::flow_groups::audit::Audit, rule: &str) -> (Option<u64>, Option<u64>) {
    let rules = audit.groups.iter().flat_map(|group| &group.rules);
    let rule = rules.into_iter().find(|one| &*one.rule == rule).unwrap();
    (rule.connections, rule.perhaps)
}

#[test]
fn flows_that_cannot_be_told_may_have_used_the_rules_they_fit() {
    let mut world = World::new(true);
    // A service: any TCP rule out of the pod.
    world.outbound(1, SERVICE, 80);
    world.again(unresolved);
    let audit = world.engine.audit();
    // Within the VPC as far as the fold knew, where no rule let it out; the second look knew better.
    assert_eq!((of(&audit, "sgr-db"), of(&audit, "sgr-web")), ((None, Some(1)), (None, Some(1))));
    assert_eq!((of(&audit, "sgr-probe"), of(&audit, "sgr-never")), ((None, None), (None, None)), "they let in");
    // A rule that depends on whose groups the peer has: that one alone.
    let mut world = World::new(true);
    world.outbound(1, "10.0.5.5", 6379);
    let audit = world.engine.audit();
    assert_eq!((of(&audit, "sgr-cache"), of(&audit, "sgr-db")), ((None, Some(1)), (None, None)));
    // Nobody knows whose groups they met.
    let mut world = World::new(false);
    world.outbound(1, "93.184.216.34", 443);
    assert_eq!(of(&world.engine.audit(), "sgr-web"), (None, Some(1)));
}

#[test]
fn flows_that_were_summed_up_may_have_used_any_rule_of_their_side() {
    let mut world = World::new(true);
    world.outbound(1, "10.0.5.5", 5432);
    let merged = |direction: &'static str| {
        move |row: &mut FlowRow| {
            (row.merged, row.direction, row.connections) = (true, direction, 3);
            (row.protocol, row.service_port, row.peer.ip) = (None, None, None);
        }
    };
    let said = world.again(merged("outbound"));
    assert_eq!(said.map(|said| said.why), Some(Some(SgWhy::RowIncomplete)));
    let audit = world.engine.audit();
    assert_eq!((of(&audit, "sgr-db"), of(&audit, "sgr-web")), ((Some(1), Some(3)), (None, Some(3))));
    assert_eq!(of(&audit, "sgr-probe"), (None, None), "it lets in");
    // Walked sockets of which not even the direction is known.
    world.again(merged("unknown"));
    let audit = world.engine.audit();
    assert_eq!((of(&audit, "sgr-web"), of(&audit, "sgr-probe")), ((None, Some(6)), (None, Some(3))));
}

#[test]
fn a_rule_that_lets_out_what_the_other_end_drops_was_used() {
    let mut world = World::new(true);
    world.peer("10.0.5.5", &["sg-cache"]);
    assert_eq!(world.outbound(1, "10.0.5.5", 5432).map(|said| said.verdict), Some(NO_RULE));
    assert_eq!(of(&world.engine.audit(), "sgr-db"), (Some(1), None));
    // What does not get out never gets to whoever would let it in.
    let mut world = World::new(true);
    world.peer("10.0.5.5", &["sg-pod"]);
    let Ec2Fact::Groups { mut groups, missing, at } = groups() else { panic!() };
    groups[0].group.rules.push(rule("in", Side::Ingress, Some(5433), "10.0.0.0/8"));
    world.ec2(Ec2Fact::Groups { groups, missing, at });
    assert_eq!(world.outbound(1, "10.0.5.5", 5433), said(NO_RULE, POD, "", None));
    assert_eq!(of(&world.engine.audit(), "sgr-in"), (None, None));
}

#[test]
fn every_rule_that_let_a_flow_pass_was_used_however_many() {
    let mut world = World::new(true);
    let many: Vec<Rule> = (0..12).map(|n| rule(&format!("db-{n}"), Side::Egress, Some(5432), "10.0.0.0/16")).collect();
    let at = WallNs(world.second() * 1_000_000_000);
    world.ec2(Ec2Fact::Groups { groups: vec![group("sg-pod", many)], missing: vec![], at });
    let told = world.outbound(1, "10.0.5.5", 5432).unwrap();
    assert_eq!((told.verdict, told.rules.split(',').count()), (SgVerdict::Allowed, 8), "a row names some");
    let audit = world.engine.audit();
    for n in 0..12 {
        assert_eq!(of(&audit, &format!("sgr-db-{n}")), (Some(1), None), "{n}");
    }
}

#[test]
fn each_rule_is_watched_since_it_is_known() {
    let mut world = World::new(true);
    world.wait(100);
    let since = |world: &World| {
        let audit = world.engine.audit();
        let group = audit.groups.iter().find(|group| &*group.group == "sg-pod").unwrap();
        let rules = group.rules.iter().map(|rule| rule.watched_since.map(|at| at.0 / 1_000_000_000));
        (group.watched_since.map(|at| at.0 / 1_000_000_000), rules.collect::<Vec<_>>())
    };
    let (group_since, rules) = since(&world);
    assert!(group_since.is_some() && rules.iter().all(|since| *since == group_since), "{rules:?}");
    // One is new, one is gone.
    let Ec2Fact::Groups { mut groups, missing, at } = groups() else { panic!() };
    groups[0].group.rules.remove(1);
    groups[0].group.rules.push(rule("new", Side::Egress, Some(25), "0.0.0.0/0"));
    world.ec2(Ec2Fact::Groups { groups, missing, at });
    world.wait(1);
    let (still, rules) = since(&world);
    let [others @ .., new] = &rules[..] else { panic!() };
    assert_eq!(still, group_since);
    assert!(others.iter().all(|since| *since == group_since) && *new == Some(world.second()), "{rules:?}");
    // It comes back: what happened meanwhile nobody saw.
    world.ec2(super::world::groups());
    world.wait(1);
    assert_eq!(since(&world).1[1], Some(world.second()));
}

#[test]
fn a_flow_of_another_family_than_the_pods_leaves_by_the_node() {
    use crate::facts::ClusterFact;
    use crate::testing::{cluster, enforced};
    let mut world = World::new(true);
    let mut pod = enforced(1);
    let six: IpAddr = ip("2600:1f16::9");
    pod.ips = vec![six];
    let crate::facts::Branch::Interfaces(branches) = &mut pod.branch else { panic!() };
    (branches[0].ipv4, branches[0].ipv6) = (None, Some(six));
    world.feed(cluster(ClusterFact::Pod(std::sync::Arc::new(pod))));
    // The row does not tell the address that the plugin gave.
    world.flow(1, Direction::Outbound, "93.184.216.34", 80, Outcome::TimedOut);
    let said_ = world.again(|row| row.local.ip = None);
    assert_eq!(said_, said(ALLOWED, NODE, "sgr-node-out", None));
    // And the peer sees the node's.
    let Ec2Fact::Groups { mut groups, missing, at } = groups() else { panic!() };
    groups[2].group.rules.push(rule("from-node", Side::Ingress, Some(80), "10.0.0.10/32"));
    world.ec2(Ec2Fact::Groups { groups, missing, at });
    world.peer("10.0.5.5", &["sg-cache"]);
    world.flow(1, Direction::Outbound, "10.0.5.5", 80, Outcome::TimedOut);
    assert_eq!(world.again(|row| row.local.ip = None), said(ALLOWED, NODE, "sgr-node-out,sgr-from-node", None));
}
