//! What is asked next, without anybody who answers.

use agent_core::facts::GroupFacts;
use agent_core::sg::{Group, Rule, RuleId, Service, Side};

use super::super::known::Told;
use super::*;

const OLD: Duration = Duration::from_secs(1_000);
const SECOND: i64 = 1_000_000_000;

fn at(seconds: i64) -> When {
    When { now: WallNs(seconds * SECOND), old: OLD }
}

fn told<T>(what: Option<T>, seconds: i64) -> Told<T> {
    Told { what, at: WallNs(seconds * SECOND) }
}

fn interface(id: &str, subnet: &str) -> InterfaceFacts {
    InterfaceFacts {
        id: id.into(),
        subnet: Some(subnet.into()),
        vpc: Some("vpc-1".into()),
        ..InterfaceFacts::default()
    }
}

fn wish(interfaces: &[&str]) -> Ec2Wishes {
    Ec2Wishes { interfaces: interfaces.iter().map(|&id| id.into()).collect(), ..Ec2Wishes::default() }
}

fn next(wishes: &Ec2Wishes, known: &Known, look: Look, when: When) -> Option<Ask> {
    Targets::new(wishes, known).next(known, look, when, |_| true).map(|(_, ask)| ask)
}

#[test]
fn nothing_is_asked_without_a_wish() {
    for look in [Look::News, Look::Old] {
        assert_eq!(next(&Ec2Wishes::default(), &Known::default(), look, at(0)), None);
    }
}

#[test]
fn what_is_unknown_is_asked_in_chunks_and_what_follows_from_answers_after_it() {
    let ids: Vec<String> = (0..250).map(|n| format!("eni-{n:03}")).collect();
    let wishes = wish(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let mut known = Known::default();
    let mut sizes = Vec::new();
    while let Some(Ask::Interfaces(ids)) = next(&wishes, &known, Look::News, at(0)) {
        sizes.push(ids.len());
        for id in ids {
            known.interfaces.insert(Arc::clone(&id), told(Some(interface(&id, "subnet-1")), 0));
        }
    }
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(next(&wishes, &known, Look::News, at(0)), Some(Ask::Vpc("vpc-1".into())));
    known.vpcs.insert("vpc-1".into(), told(Some(vec![]), 0));
    assert_eq!(next(&wishes, &known, Look::News, at(0)), Some(Ask::Subnets(vec!["subnet-1".into()])));
    known.subnets.insert("subnet-1".into(), told(None, 0));
    assert_eq!(next(&wishes, &known, Look::News, at(0)), None);
}

#[test]
fn what_is_old_is_asked_again_with_what_is_half_as_old() {
    let mut known = Known::default();
    for (id, seconds) in [("eni-1", 0), ("eni-2", 400), ("eni-3", 900)] {
        known
            .interfaces
            .insert(id.into(), Told { what: Some(InterfaceFacts::default()), at: WallNs(seconds * SECOND) });
    }
    let wishes = wish(&["eni-1", "eni-2", "eni-3"]);
    assert_eq!(next(&wishes, &known, Look::Old, at(1_000)), None);
    let two = Some(Ask::Interfaces(vec!["eni-1".into(), "eni-2".into()]));
    assert_eq!(next(&wishes, &known, Look::Old, at(1_001)), two);
    // With something new it comes along sooner.
    let more = wish(&["eni-1", "eni-2", "eni-3", "eni-9"]);
    let three = Some(Ask::Interfaces(vec!["eni-9".into(), "eni-1".into()]));
    assert_eq!(next(&more, &known, Look::News, at(600)), three);
}

#[test]
fn what_was_missing_is_asked_for_again_soon() {
    let mut known = Known::default();
    known.interfaces.insert("eni-1".into(), told(None, 0));
    assert_eq!(next(&wish(&["eni-1"]), &known, Look::Old, at(120)), None);
    assert_eq!(next(&wish(&["eni-1"]), &known, Look::Old, at(121)), Some(Ask::Interfaces(vec!["eni-1".into()])));
}

#[test]
fn an_address_that_nobody_has_is_not_asked_for_sooner_than_others() {
    let mut known = Known::default();
    let peer = IpAddr::from([172, 20, 0, 10]);
    known.peers.insert(peer, told(None, 0));
    let wishes = Ec2Wishes { peers: [peer].into(), ..Ec2Wishes::default() };
    assert_eq!(next(&wishes, &known, Look::Old, at(1_000)), None);
    assert_eq!(next(&wishes, &known, Look::Old, at(1_001)), Some(Ask::Peers(vec![peer])));
}

#[test]
fn of_what_is_old_the_oldest_goes_first_and_what_is_due_before_what_comes_along() {
    let mut known = Known::default();
    known.interfaces.insert("eni-0".into(), told(Some(interface("eni-0", "subnet-1")), 500));
    known.vpcs.insert("vpc-1".into(), told(Some(vec![]), 100));
    known.subnets.insert("subnet-1".into(), told(None, 0));
    let wishes = wish(&["eni-0"]);
    assert_eq!(next(&wishes, &known, Look::Old, at(2_000)), Some(Ask::Subnets(vec!["subnet-1".into()])));
    known.subnets.insert("subnet-1".into(), told(None, 2_000));
    assert_eq!(next(&wishes, &known, Look::Old, at(2_000)), Some(Ask::Vpc("vpc-1".into())));
    // 100 of half the age are not due; the one that was missing two minutes ago is.
    let mut known = Known::default();
    let ids: Vec<String> = (0..101).map(|n| format!("eni-{n:03}")).collect();
    for id in &ids {
        known.interfaces.insert(id.as_str().into(), told(Some(InterfaceFacts::default()), 0));
    }
    known.interfaces.insert("eni-100".into(), told(None, 600));
    let wishes = wish(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let Some(Ask::Interfaces(asked)) = next(&wishes, &known, Look::Old, at(800)) else { panic!() };
    assert_eq!((asked.len(), &*asked[0]), (100, "eni-100"));
}

#[test]
fn a_clock_that_was_set_back_makes_old_what_it_steps_over() {
    let mut known = Known::default();
    known.interfaces.insert("eni-1".into(), told(Some(InterfaceFacts::default()), 10_000));
    assert!(next(&wish(&["eni-1"]), &known, Look::Old, at(0)).is_some());
}

#[test]
fn a_call_that_may_not_be_made_does_not_hold_up_others() {
    let wishes = Ec2Wishes { groups: [sg("sg-1")].into(), ..wish(&["eni-1"]) };
    let known = Known::default();
    let targets = Targets::new(&wishes, &known);
    let ask = targets.next(&known, Look::News, at(0), |call| call != Ec2Call::NetworkInterfaces);
    assert_eq!(ask.map(|(_, ask)| ask), Some(Ask::Groups(vec![sg("sg-1")])));
}

#[test]
fn prefix_lists_come_from_the_rules_of_wished_groups_alone() {
    let mut known = Known::default();
    for (id, list) in [("sg-1", "pl-1"), ("sg-2", "pl-2")] {
        known.groups.insert(sg(id), told(Some(with_list(id, list)), 0));
    }
    let wishes = Ec2Wishes { groups: [sg("sg-1")].into(), ..Ec2Wishes::default() };
    assert_eq!(next(&wishes, &known, Look::News, at(0)), Some(Ask::Lists(vec!["pl-1".parse().unwrap()])));
}

#[test]
fn what_nobody_wishes_goes_after_a_while_and_the_node_s_own_stays() {
    let mac: Arc<str> = "0a:00:00:00:00:01".into();
    let mut known = Known::default();
    known.macs.insert(Arc::clone(&mac), told(Some("eni-own".into()), 0));
    for id in ["eni-own", "eni-wished", "eni-gone"] {
        known.interfaces.insert(id.into(), told(Some(interface(id, "subnet-1")), 0));
    }
    let wishes = Ec2Wishes { macs: [mac].into(), ..wish(&["eni-wished"]) };
    let targets = Targets::new(&wishes, &known);
    known.prune(&targets, WallNs(3_599 * SECOND));
    assert_eq!(known.interfaces.len(), 3);
    known.prune(&targets, WallNs(3_600 * SECOND));
    assert_eq!(known.interfaces.keys().map(|id| &**id).collect::<Vec<_>>(), ["eni-own", "eni-wished"]);
}

#[test]
fn there_is_a_bound_to_what_is_kept() {
    let mut known = Known::default();
    let mut peers = BTreeSet::new();
    for n in 0..3_000_u32 {
        let ip = IpAddr::from(n.to_be_bytes());
        known.peers.insert(ip, told(None, i64::from(n)));
        peers.insert(ip);
    }
    let wishes = Ec2Wishes { peers, ..Ec2Wishes::default() };
    let targets = Targets::new(&wishes, &known);
    known.prune(&targets, WallNs(3_000 * SECOND));
    assert_eq!(known.peers.len(), 2_048);
    assert!(known.peers.values().all(|told| told.at >= WallNs(952 * SECOND)), "the oldest went");
}

fn sg(id: &str) -> GroupId {
    id.parse().unwrap()
}

fn with_list(id: &str, list: &str) -> GroupFacts {
    let peer = Peer::PrefixList(list.parse().unwrap());
    let rule = Rule { id: RuleId::given("sgr-1"), side: Side::Ingress, service: Service::All, peer };
    GroupFacts { group: Group { id: sg(id), name: None, vpc: None, owner: None, rules: vec![rule] }, clusters: vec![] }
}
