//! What to ask next: what is wished for and unknown first, then what is known too long. Pure; time is an argument.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
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

/// An interface or a group that EC2 did not know may be one that it does not know yet: answers lag behind what was made a
/// moment ago (<https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html>). An address without an
/// interface is no such thing: most that nobody has are a service's, or another VPC's.
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
    /// Those of them that are not asked for just now.
    pub(super) paused: BTreeSet<GroupId>,
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
        let Ec2Wishes { interfaces, macs, groups, peers, instance_type, fleet_nodes: _ } = wishes.clone();
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
        let paused = BTreeSet::new();
        Self { interfaces, macs, groups, paused, lists, subnets, vpc, peers, instance_type }
    }

    /// The next question, of calls that may be made, with the age of the oldest thing that it is due for. News go in the
    /// order of what they are good for; of what is old the oldest goes first, so that each has its turn also where there are
    /// fewer calls than questions.
    pub(super) fn next(
        &self,
        known: &Known,
        look: Look,
        when: When,
        may: impl Fn(Ec2Call) -> bool,
    ) -> Option<(Duration, Ask)> {
        let soon = Pick { look, when, again: when.old.min(MISSING_AGAIN) };
        let late = Pick { again: when.old, ..soon };
        let one = |mut ids: Vec<Arc<str>>| ids.pop();
        let groups = self.groups.iter().filter(|id| !self.paused.contains(*id));
        let asks = [
            soon.of(&self.macs, &known.macs, interfaces::CHUNK).map(|(age, macs)| (age, Ask::Macs(macs))),
            soon.of(&self.interfaces, &known.interfaces, interfaces::CHUNK)
                .map(|(age, ids)| (age, Ask::Interfaces(ids))),
            soon.of(groups, &known.groups, groups::CHUNK).map(|(age, ids)| (age, Ask::Groups(ids))),
            late.of(&self.vpc, &known.vpcs, 1).and_then(|(age, ids)| Some((age, Ask::Vpc(one(ids)?)))),
            late.of(&self.peers, &known.peers, interfaces::CHUNK).map(|(age, peers)| (age, Ask::Peers(peers))),
            late.of(&self.lists, &known.lists, lists::CHUNK).map(|(age, ids)| (age, Ask::Lists(ids))),
            late.of(&self.subnets, &known.subnets, networks::CHUNK).map(|(age, ids)| (age, Ask::Subnets(ids))),
            late.of(&self.instance_type, &known.types, 1)
                .and_then(|(age, names)| Some((age, Ask::InstanceType(one(names)?)))),
        ];
        let mut asks = asks.into_iter().flatten().filter(|(_, ask)| may(ask.call()));
        match look {
            Look::News => asks.next(),
            Look::Old => asks.reduce(|oldest, ask| if ask.0 > oldest.0 { ask } else { oldest }),
        }
    }
}

#[derive(Clone, Copy)]
struct Pick {
    look: Look,
    when: When,
    /// What was not there is looked for again when that was told longer ago than this.
    again: Duration,
}

impl Pick {
    /// Some of what is wanted, with the age of the oldest that is due; `None`: nothing is. What is half as old as it may be comes along: few calls for many, and
    /// something that stays unknown does not keep the others waiting.
    fn of<'a, K: Ord + Clone + 'a, V>(
        &self,
        wanted: impl IntoIterator<Item = &'a K>,
        kept: &Kept<K, V>,
        most: usize,
    ) -> Option<(Duration, Vec<K>)> {
        let (mut news, mut old, mut due) = (Vec::new(), Vec::new(), None);
        for key in wanted {
            let Some(told) = kept.get(key) else {
                news.push(key);
                continue;
            };
            let limit = if told.what.is_some() { self.when.old } else { self.again };
            let age = age(told.at, self.when.now);
            if age > limit {
                due = due.max(Some(age));
            }
            if age > limit / 2 {
                // What is due goes before what only comes along.
                old.push((age > limit, age, key));
            }
        }
        let due = match self.look {
            Look::News => (!news.is_empty()).then_some(Duration::ZERO),
            Look::Old => due,
        }?;
        old.sort_by_key(|(is_due, age, _)| Reverse((*is_due, *age)));
        let found = news.into_iter().chain(old.into_iter().map(|(_, _, key)| key)).take(most).cloned();
        Some((due, found.collect()))
    }
}
