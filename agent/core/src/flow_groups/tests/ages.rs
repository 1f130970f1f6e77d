//! How long what EC2 told counts, and that verdicts say when that was.

use super::world::{World, groups_at};
use super::{ALLOWED, CANNOT_TELL, NO_RULE, POD, said};
use crate::facts::Ec2Fact;
use crate::output::SgWhy;
use crate::sg::PrefixList;
use crate::time::WallNs;

const HALF_A_DAY: i64 = 12 * 3_600;

#[test]
fn rules_that_ec2_told_half_a_day_ago_settle_nothing_until_it_tells_them_again() {
    let mut world = World::new(true);
    let too_old = said(CANNOT_TELL, POD, "", Some(SgWhy::RulesTooOld));
    // In the middle of the second fold from here they are too old.
    world.ec2(groups_at(world.second() - HALF_A_DAY + 15));
    assert_eq!(world.outbound(1, "10.0.5.5", 5432).map(|said| said.verdict), Some(ALLOWED));
    assert_eq!(world.outbound(1, "10.0.5.5", 5432), too_old);
    assert_eq!(world.row().sg.as_ref().unwrap().told, None);
    assert_eq!(world.outbound(1, "10.0.5.5", 5433), too_old, "and no rule is missing");
    let watched = |world: &World| {
        let audit = world.engine.audit();
        let group = audit.groups.iter().find(|group| &*group.group == "sg-pod").unwrap();
        assert!(group.told.is_some() && !group.rules.is_empty(), "what is known is shown with its age");
        (group.watched_since, group.rules[0].watched_since)
    };
    assert_eq!(watched(&world), (None, None));
    // The same rules, told again.
    let again = world.second();
    world.ec2(groups_at(again));
    assert_eq!(world.outbound(1, "10.0.5.5", 5432).map(|said| said.verdict), Some(ALLOWED));
    assert!(watched(&world).0.is_some_and(|since| since.0 >= again * 1_000_000_000), "the watch begins anew");
}

#[test]
fn a_prefix_list_that_was_told_half_a_day_ago_settles_nothing_either() {
    let mut world = World::new(true);
    let Ec2Fact::Groups { mut groups, missing, at } = groups_at(world.second()) else { panic!() };
    let list: crate::sg::PrefixListId = "pl-db".parse().unwrap();
    groups[0].group.rules[0].peer = crate::sg::Peer::PrefixList(list.clone());
    world.ec2(Ec2Fact::Groups { groups, missing, at });
    let entries = Some(vec!["10.0.5.0/24".parse().unwrap()]);
    let mut tell = |second: i64| {
        let lists = vec![PrefixList { id: list.clone(), name: None, entries: entries.clone() }];
        let at = WallNs(second * 1_000_000_000);
        world.ec2(Ec2Fact::PrefixLists { lists, missing: vec![], at });
        let said = world.outbound(1, "10.0.5.5", 5432);
        (said, world.row().sg.as_ref().and_then(|sg| sg.told), at)
    };
    let (fresh, told, at) = tell(super::world::EPOCH - 3_600);
    assert_eq!((fresh.map(|said| said.verdict), told), (Some(ALLOWED), Some(at)), "as old as the list is");
    let (old, told, _) = tell(super::world::EPOCH - HALF_A_DAY);
    assert_eq!((old, told), (said(CANNOT_TELL, POD, "", Some(SgWhy::RulesTooOld)), None));
}

#[test]
fn a_verdict_says_when_the_oldest_of_what_it_stands_on_was_told() {
    let mut world = World::new(true);
    world.wait(100);
    let told = |world: &World| world.row().sg.as_ref().unwrap().told.map(|at| at.0 / 1_000_000_000);
    let first = super::world::EPOCH + 1;
    let now = world.second();
    world.ec2(groups_at(now));
    assert_eq!(world.outbound(1, "10.0.5.5", 5433).map(|said| said.verdict), Some(NO_RULE));
    assert_eq!(told(&world), Some(first), "the interface");
    let interfaces = vec![super::world::interface("eni-1", &["sg-pod"], &["10.0.9.1"])];
    world.ec2(Ec2Fact::Interfaces { interfaces, missing: vec![], at: WallNs(now * 1_000_000_000) });
    world.outbound(1, "10.0.5.5", 5433);
    assert_eq!(told(&world), Some(now));
    world.outbound(1, "127.0.0.1", 80);
    assert_eq!(told(&world), None, "it stands on nothing that EC2 told");
}
