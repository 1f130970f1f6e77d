//! Which name a connection gets, and what that costs at most.

use super::*;
use crate::dns::names::{Connection, Names};

const ADDRESS: &str = "192.0.2.1";

fn pod(n: u32) -> Asker {
    Asker::Pod(format!("pod-{n}").into())
}

fn learn(names: &mut Names, asker: &Asker, name: &str, address: &str, second: u64, ttl_s: u32) {
    names.learn(asker, ip(address), &Arc::from(name), BootNs(second * SECOND), ttl_s);
}

/// The name of a connection that begins in a second and ends at once.
fn at(names: &mut Names, asker: &Asker, address: &str, second: u64) -> Option<Arc<str>> {
    let start = BootNs(second * SECOND);
    names.name_of(asker, &Connection { cgroup_id: 1, cookie: second, remote: ip(address), start, open: false })
}

#[test]
fn a_name_is_of_the_pod_that_asked_and_of_the_time_from_the_answer_on() {
    let mut names = Names::default();
    learn(&mut names, &pod(1), "db.example", ADDRESS, 100, 30);
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 100).as_deref(), Some("db.example"));
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 99), None, "before it was told");
    assert_eq!(at(&mut names, &pod(2), ADDRESS, 110), None, "another pod");
    assert_eq!(at(&mut names, &pod(1), "192.0.2.2", 110), None, "another address");
    let grace = GRACE_NS / SECOND;
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 130 + grace).as_deref(), Some("db.example"), "programs cache");
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 131 + grace), None);
    // Asked anew it goes on; after a pause it begins anew.
    learn(&mut names, &pod(1), "db.example", ADDRESS, 200, 30);
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 100).as_deref(), Some("db.example"));
    learn(&mut names, &pod(1), "db.example", ADDRESS, 5_000, 30);
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 4_999), None);
    assert_eq!(names.len(), 1);
}

#[test]
fn two_names_of_one_address_name_nothing_while_both_stand() {
    let mut names = Names::default();
    learn(&mut names, &pod(1), "a.example", ADDRESS, 100, 10);
    learn(&mut names, &pod(1), "b.example", ADDRESS, 200, 10);
    learn(&mut names, &pod(2), "c.example", ADDRESS, 100, 10);
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 150).as_deref(), Some("a.example"), "before the second");
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 200), None);
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 110 + GRACE_NS / SECOND), None);
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 111 + GRACE_NS / SECOND).as_deref(), Some("b.example"));
    assert_eq!(at(&mut names, &pod(2), ADDRESS, 200).as_deref(), Some("c.example"), "another pod's names are its own");
    for n in 0..10 {
        learn(&mut names, &pod(1), &format!("{n}.example"), ADDRESS, 300 + n, 10);
    }
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 310), None);
    assert_eq!(names.let_go(), 8, "of twelve names four are told apart");
}

#[test]
fn a_name_that_moves_does_not_change_the_past() {
    let mut names = Names::default();
    learn(&mut names, &pod(1), "db.example", "192.0.2.1", 100, 5);
    let old = Connection { cgroup_id: 1, cookie: 9, remote: ip("192.0.2.1"), start: BootNs(101 * SECOND), open: true };
    assert_eq!(names.name_of(&pod(1), &old).as_deref(), Some("db.example"));
    // The name moves, and another takes its old address.
    learn(&mut names, &pod(1), "db.example", "192.0.2.2", 102, 5);
    learn(&mut names, &pod(1), "cache.example", "192.0.2.1", 103, 5);
    assert_eq!(at(&mut names, &pod(1), "192.0.2.1", 101).as_deref(), Some("db.example"), "told late, begun before");
    assert_eq!(at(&mut names, &pod(1), "192.0.2.2", 103).as_deref(), Some("db.example"));
    // Days later, when everything that was learned is forgotten, the open connection still has its name.
    names.sweep(BootNs(90_000 * SECOND));
    assert_eq!(names.len(), 0);
    assert_eq!(names.name_of(&pod(1), &old).as_deref(), Some("db.example"));
    assert_eq!(names.name_of(&pod(1), &Connection { open: false, ..old }).as_deref(), Some("db.example"), "its end");
    assert_eq!(names.name_of(&pod(1), &old), None, "and then it is forgotten too");
    assert!(names.is_empty());
}

#[test]
fn what_was_not_certain_when_a_connection_began_stays_so() {
    let mut names = Names::default();
    learn(&mut names, &pod(1), "a.example", ADDRESS, 100, 1);
    learn(&mut names, &pod(1), "b.example", ADDRESS, 400, 1_000);
    let open = Connection { cgroup_id: 1, cookie: 9, remote: ip(ADDRESS), start: BootNs(400 * SECOND), open: true };
    assert_eq!(names.name_of(&pod(1), &open), None);
    names.sweep(BootNs(600 * SECOND));
    assert_eq!(names.len(), 1);
    assert_eq!(names.name_of(&pod(1), &open), None, "it does not get a name half way");
    // The next connection of the same socket is another.
    let next = Connection { start: BootNs(500 * SECOND), ..open };
    assert_eq!(names.name_of(&pod(1), &next).as_deref(), Some("b.example"));
}

#[test]
fn two_million_names_stay_within_the_bound_and_cost_others_nothing() {
    let mut names = Names::default();
    learn(&mut names, &pod(0), "db.example", ADDRESS, 1, 86_400);
    let mut most = (0, 0);
    for n in 0..2_000_000_u32 {
        let name: Arc<str> = format!("host-{n}.some.long.domain.of.a.tenant.example.com").into();
        let address = IpAddr::from((u128::from(n) << 32).to_be_bytes());
        names.learn(&pod(1), address, &name, BootNs(SECOND + u64::from(n)), 30);
        most.0 = most.0.max(names.len());
        if n % 50_000 == 0 {
            most.1 = most.1.max(names.name_bytes());
        }
    }
    assert!(most.0 <= MAX_CLAIMS_OF_ONE + 1, "{most:?}");
    assert!(most.1 <= (MAX_CLAIMS_OF_ONE + 1) * 64, "{most:?}");
    assert_eq!(names.let_go() + names.len() as u64, 2_000_001);
    assert_eq!(at(&mut names, &pod(0), ADDRESS, 2).as_deref(), Some("db.example"));
    // And when many pods do it.
    for n in 0..200_000_u32 {
        let address = IpAddr::from((u128::from(n) << 32).to_be_bytes());
        learn(&mut names, &pod(2 + n % 50), &format!("{n}.example"), &address.to_string(), 10, 30 + n % 7);
        assert!(names.len() <= MAX_CLAIMS);
    }
    assert_eq!(at(&mut names, &pod(0), ADDRESS, 12).as_deref(), Some("db.example"), "a pod with one name keeps it");
}

#[test]
fn open_connections_are_bounded_too() {
    let mut names = Names::default();
    learn(&mut names, &pod(1), "db.example", ADDRESS, 1, 86_400);
    let open = |cookie| Connection { cgroup_id: 1, cookie, remote: ip(ADDRESS), start: BootNs(2 * SECOND), open: true };
    for cookie in 0..200_000 {
        assert!(names.name_of(&pod(1), &open(cookie)).is_some());
    }
    assert!(names.decided_len() <= 2 * MAX_DECIDED);
}

#[test]
fn a_pod_that_learns_more_than_there_is_room_for_gets_no_name_that_another_may_have() {
    let mut names = Names::default();
    // An address by a name that does not live long, and then so many others that it is given up.
    learn(&mut names, &pod(1), "a.example", ADDRESS, 100, 30);
    for n in 0..u32::try_from(MAX_CLAIMS_OF_ONE).expect("fits") {
        let address = IpAddr::from((u128::from(n) << 32).to_be_bytes());
        learn(&mut names, &pod(1), &format!("{n}.example"), &address.to_string(), 101, 60);
    }
    assert!(names.let_go() > 0);
    // The same address by another name: as far as is known by that alone, which is not all that was.
    learn(&mut names, &pod(1), "b.example", ADDRESS, 110, 86_400);
    learn(&mut names, &pod(2), "b.example", ADDRESS, 110, 86_400);
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 120), None);
    assert_eq!(at(&mut names, &pod(2), ADDRESS, 120).as_deref(), Some("b.example"), "another pod's are whole");
    // What was given up has ended, its time and the grace; and room was made for others meanwhile.
    names.sweep(BootNs(500 * SECOND));
    assert_eq!(at(&mut names, &pod(1), ADDRESS, 162 + GRACE_NS / SECOND).as_deref(), Some("b.example"));
}
