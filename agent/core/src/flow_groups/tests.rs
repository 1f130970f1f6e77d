//! Who judged a flow, and what rules say of it, as rows tell it.

mod ages;
mod audit;
mod foreign;
mod wire;
mod world;

use agent_ebpf::wire::{Direction, Outcome};

use self::world::{Said, World};
use crate::facts::{ClusterFact, Ec2Fact, NodeFacts};
use crate::output::{JudgedBy, SgVerdict, SgWhy};
use crate::testing::cluster;
use crate::time::WallNs;

const ALLOWED: SgVerdict = SgVerdict::Allowed;
const NO_RULE: SgVerdict = SgVerdict::NoRule;
const CANNOT_TELL: SgVerdict = SgVerdict::CannotTell;
const NOT_JUDGED: SgVerdict = SgVerdict::NotJudged;
const POD: Option<JudgedBy> = Some(JudgedBy::Pod);
const NODE: Option<JudgedBy> = Some(JudgedBy::Node);

#[expect(clippy::unnecessary_wraps, reason = "compared with what a row says, which may be nothing")]
fn said(verdict: SgVerdict, by: Option<JudgedBy>, rules: &str, why: Option<SgWhy>) -> Option<Said> {
    Some(Said { verdict, by, rules: rules.to_owned(), why })
}

fn no(verdict: SgVerdict, why: SgWhy) -> Option<Said> {
    said(verdict, None, "", Some(why))
}

#[test]
fn strict_mode_sends_everything_past_the_pods_groups() {
    let mut world = World::new(true);
    for (peer, port, expected) in [
        // Within the VPC, by its address range.
        ("10.0.5.5", 5432, said(ALLOWED, POD, "sgr-db", Some(SgWhy::PeerSideUnknown))),
        ("10.0.5.5", 5433, said(NO_RULE, POD, "", None)),
        // A rule that names a group waits for the peer's.
        ("10.0.5.5", 6379, said(CANNOT_TELL, POD, "", Some(SgWhy::PeerUnknown))),
        // The internet, where nobody has groups.
        ("93.184.216.34", 443, said(ALLOWED, POD, "sgr-web", None)),
        ("93.184.216.34", 80, said(NO_RULE, POD, "", None)),
        // A service's address: the backend and its port are not known.
        ("172.20.0.50", 5432, said(CANNOT_TELL, POD, "", Some(SgWhy::ServiceAddress))),
        // But DNS servers listen on 53.
        ("172.20.0.10", 53, said(NO_RULE, POD, "", None)),
        // On this node: by way of the VPC all the same.
        ("10.0.1.20", 5432, said(NO_RULE, POD, "", None)),
        ("10.0.0.10", 10_250, said(NO_RULE, POD, "", None)),
        ("10.0.9.1", 80, no(NOT_JUDGED, SgWhy::SamePod)),
        ("127.0.0.1", 80, no(NOT_JUDGED, SgWhy::SamePod)),
        ("169.254.169.254", 80, no(NOT_JUDGED, SgWhy::UnfilteredService)),
        ("169.254.170.23", 80, no(NOT_JUDGED, SgWhy::UnfilteredService)),
        ("169.254.20.10", 53, no(NOT_JUDGED, SgWhy::LinkLocal)),
        // The VPC's resolver.
        ("10.0.0.2", 53, no(NOT_JUDGED, SgWhy::UnfilteredService)),
    ] {
        assert_eq!(world.outbound(1, peer, port), expected, "{peer}:{port}");
    }
    // From the node, and from anywhere.
    assert_eq!(world.inbound(1, "10.0.0.10", 8080), said(ALLOWED, POD, "sgr-probe,sgr-node-out", None));
    let unexplained = said(NO_RULE, POD, "", Some(SgWhy::TrackedOrOtherGroups));
    assert_eq!(world.inbound(1, "10.0.5.5", 8082), unexplained);
}

#[test]
fn standard_mode_leaves_alone_what_stays_and_what_the_node_translates() {
    let mut world = World::new(false);
    for (peer, port, expected) in [
        ("10.0.5.5", 5432, said(ALLOWED, POD, "sgr-db", Some(SgWhy::PeerSideUnknown))),
        ("10.0.1.20", 5432, no(NOT_JUDGED, SgWhy::SameNode)),
        ("10.0.0.10", 10_250, no(NOT_JUDGED, SgWhy::SameNode)),
        ("169.254.20.10", 53, no(NOT_JUDGED, SgWhy::SameNode)),
        // The resolver may be on this node, and then nobody judges.
        ("172.20.0.10", 53, no(CANNOT_TELL, SgWhy::ServiceAddress)),
        ("93.184.216.34", 443, no(CANNOT_TELL, SgWhy::SnatUnknown)),
    ] {
        assert_eq!(world.outbound(1, peer, port), expected, "{peer}:{port}");
    }
    assert_eq!(world.inbound(1, "10.0.1.20", 8080), no(NOT_JUDGED, SgWhy::SameNode));
    assert_eq!(world.inbound(1, "10.0.5.5", 8080).map(|said| said.by), Some(POD));
    world.snat(Some(false));
    assert_eq!(world.outbound(1, "93.184.216.34", 443), said(ALLOWED, NODE, "sgr-node-out", None));
    world.snat(Some(true));
    assert_eq!(world.outbound(1, "93.184.216.34", 443), said(ALLOWED, POD, "sgr-web", None));
    assert_eq!(world.outbound(1, "93.184.216.34", 80), said(NO_RULE, POD, "", None));
    // Between two modes on one node nobody can tell.
    world.modes(&[(1, false), (3, true)]);
    assert_eq!(world.outbound(1, "10.0.9.3", 5432), no(CANNOT_TELL, SgWhy::ModesDiffer));
    assert_eq!(
        world.outbound(3, "10.0.9.1", 5432).map(|said| said.verdict),
        Some(NO_RULE),
        "strict mode leaves the node"
    );
}

#[test]
fn pods_without_groups_of_their_own_meet_the_nodes() {
    let mut world = World::new(true);
    // Selected by the policy, and made before it: an address of the node's interface.
    assert_eq!(world.outbound(2, "10.0.5.5", 80), said(ALLOWED, NODE, "sgr-node-out", Some(SgWhy::PeerSideUnknown)));
    assert_eq!(world.outbound(2, "10.0.0.10", 80), no(NOT_JUDGED, SgWhy::SameNode));
    // A pod in strict mode is reached by way of the VPC.
    assert_eq!(world.outbound(2, "10.0.9.1", 8080), said(ALLOWED, NODE, "sgr-node-out,sgr-probe", None));
    assert_eq!(world.outbound(2, "10.0.9.1", 8081), said(NO_RULE, NODE, "", None));
    // The node's network.
    assert_eq!(world.outbound(4, "10.0.5.5", 80), said(ALLOWED, NODE, "sgr-node-out", Some(SgWhy::PeerSideUnknown)));
}

#[test]
fn the_peers_side_counts_once_its_interface_is_known() {
    let mut world = World::new(true);
    assert_eq!(world.outbound(1, "10.0.5.5", 6379), said(CANNOT_TELL, POD, "", Some(SgWhy::PeerUnknown)));
    assert!(
        world.engine.wishes().peers.contains(&"10.0.5.5".parse().unwrap()),
        "asked for, since a rule depends on it"
    );
    world.peer("10.0.5.5", &["sg-cache"]);
    assert_eq!(world.outbound(1, "10.0.5.5", 6379), said(ALLOWED, POD, "sgr-cache,sgr-cache-in", None));
    // The own end lets it out, and the peer's has no rule.
    assert_eq!(world.outbound(1, "10.0.5.5", 5432), said(NO_RULE, POD, "", None));
    // An address is another's soon.
    world.wait(1_900);
    assert_eq!(world.outbound(1, "10.0.5.5", 6379), said(CANNOT_TELL, POD, "", Some(SgWhy::PeerUnknown)));
}

#[test]
fn groups_that_are_not_known_are_a_doubt_and_rules_that_change_count_at_once() {
    let mut world = World::new(true);
    world.ec2(Ec2Fact::Groups { groups: vec![], missing: vec!["sg-pod".parse().unwrap()], at: WallNs(1) });
    assert_eq!(world.outbound(1, "10.0.5.5", 5432), said(CANNOT_TELL, POD, "", Some(SgWhy::RulesUnknown)));
    world.ec2(world::groups());
    assert_eq!(world.outbound(1, "10.0.5.5", 5432).map(|said| said.verdict), Some(ALLOWED));
    // The interface is gone, and nobody told of the controller's event.
    world.ec2(Ec2Fact::Interfaces { interfaces: vec![], missing: vec!["eni-1".into()], at: WallNs(1) });
    assert_eq!(world.outbound(1, "10.0.5.5", 5432), no(CANNOT_TELL, SgWhy::InterfaceGroupsUnknown));
}

#[test]
fn without_ec2_every_verdict_that_needs_it_cannot_be_told() {
    let mut world = World::without_ec2(true);
    for (peer, expected) in [
        ("10.0.5.5", no(CANNOT_TELL, SgWhy::InterfaceGroupsUnknown)),
        ("172.20.0.10", no(CANNOT_TELL, SgWhy::InterfaceGroupsUnknown)),
        ("93.184.216.34", no(CANNOT_TELL, SgWhy::InterfaceGroupsUnknown)),
        // These need no rules.
        ("127.0.0.1", no(NOT_JUDGED, SgWhy::SamePod)),
    ] {
        assert_eq!(world.outbound(1, peer, 443), expected, "{peer}");
    }
    assert_eq!(world.outbound(2, "10.0.5.5", 443), no(CANNOT_TELL, SgWhy::NodeGroupsUnknown));
}

#[test]
fn rows_that_tell_too_little_say_so_and_those_of_others_say_nothing() {
    let mut world = World::new(true);
    let unknown = world.flow(1, Direction::Unknown, "10.0.5.5", 5432, Outcome::Established);
    assert_eq!(unknown, no(CANNOT_TELL, SgWhy::RowIncomplete));
    let refused = world.flow(1, Direction::Outbound, "10.0.5.5", 5432, Outcome::Denied);
    assert_eq!(refused, no(NOT_JUDGED, SgWhy::NotSent));
    // Nothing came back, so nothing is to be explained.
    let silent = world.flow(1, Direction::Outbound, "10.0.5.5", 5433, Outcome::TimedOut);
    assert_eq!(silent, said(NO_RULE, POD, "", None));
    // No policy selects it.
    assert_eq!(world.outbound(5, "10.0.5.5", 5432), None);
    // Auto Mode has a mechanism of its own.
    let node = NodeFacts { compute_type: Some("auto".into()), ..world::node() };
    world.feed(cluster(ClusterFact::Node(std::sync::Arc::new(node))));
    assert_eq!(world.outbound(1, "10.0.5.5", 5432), no(CANNOT_TELL, SgWhy::OtherMechanism));
}

#[test]
fn where_no_policy_and_no_branch_interface_is_rows_carry_nothing() {
    let mut world = World::bare();
    assert_eq!(world.outbound(2, "10.0.5.5", 5432), None);
}
