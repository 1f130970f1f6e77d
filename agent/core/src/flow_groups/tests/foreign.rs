//! What EC2 told and does not count: interfaces of other VPCs, of pods that are gone, and from long ago.

use super::world::{World, groups, ip};
use super::{ALLOWED, CANNOT_TELL, POD, no, said};
use crate::facts::{Ec2Fact, InterfaceFacts, PeerInterface};
use crate::output::{SgVerdict, SgWhy};
use crate::time::WallNs;

fn interface(id: &str, address: &str) -> InterfaceFacts {
    let groups = vec!["sg-cache".parse().unwrap()];
    InterfaceFacts { id: id.into(), groups, addresses: vec![ip(address)], ..InterfaceFacts::default() }
}

#[test]
fn an_interface_of_another_vpc_is_not_the_peer() {
    let mut world = World::new(true);
    let mut tell = |vpc: &str| {
        let interface = InterfaceFacts { vpc: Some(vpc.into()), ..interface("eni-peer", "172.20.0.50") };
        let peers = vec![PeerInterface { ip: ip("172.20.0.50"), interface: Some(interface) }];
        world.ec2(Ec2Fact::Peers { peers, at: WallNs(i64::MAX) });
        world.outbound(1, "172.20.0.50", 6379)
    };
    assert_eq!(tell("vpc-2"), said(CANNOT_TELL, POD, "", Some(SgWhy::ServiceAddress)), "a service's address");
    assert_ne!(tell("vpc-1").and_then(|said| said.why), Some(SgWhy::ServiceAddress));
}

#[test]
fn the_interface_of_a_pod_that_is_gone_owns_its_address_no_more() {
    let mut world = World::new(true);
    let mut tell = |kind: &str| {
        let interfaces = vec![InterfaceFacts { kind: Some(kind.into()), ..interface("eni-gone", "10.0.5.9") }];
        world.ec2(Ec2Fact::Interfaces { interfaces, missing: vec![], at: WallNs(i64::MAX) });
        world.outbound(1, "10.0.5.9", 6379)
    };
    assert_eq!(tell("branch"), said(CANNOT_TELL, POD, "", Some(SgWhy::PeerUnknown)));
    assert_eq!(tell("interface").map(|said| said.verdict), Some(ALLOWED));
}

#[test]
fn what_was_told_long_ago_settles_nothing() {
    let mut world = World::new(true);
    let own = |at| {
        let groups = vec!["sg-pod".parse().unwrap()];
        let interfaces = vec![InterfaceFacts { groups, ..interface("eni-1", "10.0.9.1") }];
        Ec2Fact::Interfaces { interfaces, missing: vec![], at }
    };
    world.ec2(groups());
    world.ec2(own(WallNs(i64::MAX)));
    assert_eq!(world.outbound(1, "10.0.5.5", 5432).map(|said| said.verdict), Some(SgVerdict::Allowed));
    world.ec2(own(WallNs(0)));
    assert_eq!(world.outbound(1, "10.0.5.5", 5432), no(CANNOT_TELL, SgWhy::InterfaceGroupsUnknown));
}

#[test]
fn a_pod_that_ended_has_its_address_no_more() {
    use crate::facts::{ClusterFact, Phase, PodFacts};
    use crate::testing::{cluster, enforced};
    let mut world = World::new(false);
    let groups = vec!["sg-pod".parse().unwrap()];
    let branch = InterfaceFacts { kind: Some("branch".into()), groups, ..interface("eni-3", "10.0.9.3") };
    world.ec2(Ec2Fact::Interfaces { interfaces: vec![branch], missing: vec![], at: WallNs(i64::MAX) });
    assert_eq!(world.outbound(1, "10.0.9.3", 5432), no(SgVerdict::NotJudged, SgWhy::SameNode));
    let ended = PodFacts { phase: Some(Phase::Succeeded), ..enforced(3) };
    world.feed(cluster(ClusterFact::Pod(std::sync::Arc::new(ended))));
    // It may be another's by now, on another node, with other groups.
    assert_eq!(world.outbound(1, "10.0.9.3", 5432), said(ALLOWED, POD, "sgr-db", Some(SgWhy::PeerSideUnknown)));
}
