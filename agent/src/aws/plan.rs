//! What to ask next: what is wished for and unknown first, then what is known too long. Pure; time is an argument.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::{Ec2Call, Ec2Wishes, InterfaceFacts};
use agent_core::sg::{GroupId, Peer, PrefixListId};
use agent_core::time::WallNs;

use super::ask::Ask;
use super::known::{Kept, Known, age};
use super::{groups, interfaces, lists, networks};

/// An interface that EC2 did not know may be one that it does not know yet: answers lag behind what was made a moment ago
/// (<https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html>).
const MISSING_AGAIN: Duration = Duration::from_mins(2);
/// Most groups, prefix lists and subnets that are followed.
const GROUPS_MAX: usize = 1_024;
const LISTS_MAX: usize = 256;
const SUBNETS_MAX: usize = 256;

/// What should be known: the wishes, and what follows from what is known already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    pub(super) interfaces: BTreeSet<Arc<str>>,
    pub(super) macs: BTreeSet<Arc<str>>,
    pub(super) groups: BTreeSet<GroupId>,
    pub(super) lists: BTreeSet<PrefixListId>,
    pub(super) subnets: BTreeSet<Arc<str>>,
    pub(super) vpc: Option<Arc<str>>,
    pub(super) peers: BTreeSet<IpAddr>,
    pub(super) instance_type: Option<Arc<str>>,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// What is not known; with it comes what is old.
    News,
    /// What is old.
    Old,
}

/// When something is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    /// The time.
    pub(super) now: WallNs,
    /// What was told longer ago than this is old.
    pub(super) old: Duration,
}

// === impl Targets ===

impl Targets {
    pub(super) fn new(wishes: &Ec2Wishes, known: &Known) -> Self {
        let Ec2Wishes { interfaces, macs, groups, peers, instance_type } = wishes.clone();
        let branches = interfaces.iter().filter_map(|id| known.interfaces.get(id)?.what.as_ref());
        let here: Vec<&InterfaceFacts> = known.own(&macs).chain(branches).collect();
        let subnets = here.iter().filter_map(|one| one.subnet.clone()).take(SUBNETS_MAX).collect();
        let vpc = here.iter().find_map(|one| one.vpc.clone());
        let groups: BTreeSet<GroupId> = groups.into_iter().take(GROUPS_MAX).collect();
        let rules = groups.iter().filter_map(|id| known.groups.get(id)?.what.as_ref()).flat_map(|one| &one.group.rules);
        let lists = rules.filter_map(|rule| match &rule.peer {
            Peer::PrefixList(id) => Some(id.clone()),
            Peer::Net(_) | Peer::Group { .. } => None,
        });
        let mut lists: BTreeSet<PrefixListId> = lists.collect();
        while lists.len() > LISTS_MAX {
            lists.pop_last();
        }
        Self { interfaces, macs, groups, lists, subnets, vpc, peers, instance_type }
    }

    /// The next question, of calls that may be made.
    pub(super) fn next(&self, known: &Known, look: Look, when: When, may: impl Fn(Ec2Call) -> bool) -> Option<Ask> {
        let pick = Pick { look, when };
        let asks: [&dyn Fn() -> Option<Ask>; 8] = [
            &|| pick.of(&self.macs, &known.macs, interfaces::CHUNK).map(Ask::Macs),
            &|| pick.of(&self.interfaces, &known.interfaces, interfaces::CHUNK).map(Ask::Interfaces),
            &|| pick.of(&self.groups, &known.groups, groups::CHUNK).map(Ask::Groups),
            &|| pick.of(&self.vpc, &known.vpcs, 1).and_then(|mut ids| ids.pop()).map(Ask::Vpc),
            &|| pick.of(&self.peers, &known.peers, interfaces::CHUNK).map(Ask::Peers),
            &|| pick.of(&self.lists, &known.lists, lists::CHUNK).map(Ask::Lists),
            &|| pick.of(&self.subnets, &known.subnets, networks::CHUNK).map(Ask::Subnets),
            &|| pick.of(&self.instance_type, &known.types, 1).and_then(|mut names| names.pop()).map(Ask::InstanceType),
        ];
        asks.iter().filter_map(|ask| ask()).find(|ask| may(ask.call()))
    }
}

#[derive(Clone, Copy)]
struct Pick {
    look: Look,
    when: When,
}

impl Pick {
    /// Some of what is wanted; `None`: nothing. What is half as old as it may be comes along: few calls for many, and
    /// something that stays unknown does not keep the others waiting.
    fn of<'a, K: Ord + Clone + 'a, V>(
        &self,
        wanted: impl IntoIterator<Item = &'a K>,
        kept: &Kept<K, V>,
        most: usize,
    ) -> Option<Vec<K>> {
        let (mut news, mut old, mut is_due) = (Vec::new(), Vec::new(), false);
        for key in wanted {
            let Some(told) = kept.get(key) else {
                news.push(key);
                continue;
            };
            let limit = if told.what.is_some() { self.when.old } else { self.when.old.min(MISSING_AGAIN) };
            let age = age(told.at, self.when.now);
            is_due |= age > limit;
            if age > limit / 2 {
                old.push((age, key));
            }
        }
        let is_due = match self.look {
            Look::News => !news.is_empty(),
            Look::Old => is_due,
        };
        old.sort_by(|(one, _), (other, _)| other.cmp(one));
        let found = news.into_iter().chain(old.into_iter().map(|(_, key)| key)).take(most).cloned();
        is_due.then(|| found.collect())
    }
}
