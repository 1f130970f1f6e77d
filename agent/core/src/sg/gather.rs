//! Groups and prefix lists from several answers of the API, as one set.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::document::Document;
use super::model::{Group, GroupId, GroupRule, Peer, PrefixList, PrefixListId, Rule, Service, Side};
use crate::fast::FastMap;

/// Rules of all groups. An account may have 2,500 groups in a region and each 60 rules a side unless it asks for more
/// (<https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>): 300,000, some 300 bytes each with their place, 90 MB
/// at worst. Clusters have a few thousand.
pub const MAX_RULES: usize = 300_000;

/// Entries of all prefix lists. 100 lists a region of at most 1,000 entries, 20 bytes each: 2 MB. Lists beyond the
/// first hundred of AWS's own are smaller.
pub const MAX_NETS: usize = 100_000;

/// More than this can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} {what}: leave out the groups that the question is not about")]
pub struct TooMany {
    what: &'static str,
    limit: usize,
}

/// Several documents as one set.
///
/// The same group may come twice: with its rules as [`Document::groups`] shows them, and as [`Document::rules`] does.
/// Rules that say the same are one, and an id that EC2 gave is preferred to a derived one. What only one of them says
/// counts too, so answers of different times are not to be mixed.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    groups: BTreeMap<GroupId, Group>,
    lists: BTreeMap<PrefixListId, PrefixList>,
    /// Where in its group the rule stands that says this; at most [`MAX_RULES`].
    places: FastMap<(GroupId, Side, Service, Peer), usize>,
    nets: usize,
}

impl Gathered {
    /// Adds what a document says. [`Document::entries`] do not say whose they are; see [`Gathered::add_entries`].
    pub fn add(&mut self, document: Document) -> Result<(), TooMany> {
        let Document { groups, rules, lists, entries: _ } = document;
        for Group { id, name, vpc, owner, rules } in groups {
            let group = self.group(&id, owner);
            group.name = name.or(group.name.take());
            group.vpc = vpc.or(group.vpc.take());
            self.add_rules(&id, rules)?;
        }
        for (GroupRule { group: id, rule }, owner) in rules {
            self.group(&id, owner);
            self.add_rules(&id, vec![rule])?;
        }
        for PrefixList { id, name, entries } in lists {
            let list = self.lists.entry(id.clone()).or_insert(PrefixList { id: id.clone(), name: None, entries: None });
            list.name = name.or(list.name.take());
            if let Some(entries) = entries {
                self.add_entries(&id, entries)?;
            }
        }
        Ok(())
    }

    /// Adds entries of one prefix list.
    pub fn add_entries(&mut self, id: &PrefixListId, entries: Vec<IpNet>) -> Result<(), TooMany> {
        self.nets = self.nets.saturating_add(entries.len());
        if self.nets > MAX_NETS {
            return Err(TooMany { what: "entries of prefix lists", limit: MAX_NETS });
        }
        let list = self.lists.entry(id.clone()).or_insert(PrefixList { id: id.clone(), name: None, entries: None });
        list.entries.get_or_insert_default().extend(entries);
        Ok(())
    }

    /// What was gathered, in the order of ids.
    pub fn finish(self) -> (Vec<Group>, Vec<PrefixList>) {
        (self.groups.into_values().collect(), self.lists.into_values().collect())
    }

    fn group(&mut self, id: &GroupId, owner: Option<Arc<str>>) -> &mut Group {
        let group = self.groups.entry(id.clone()).or_insert_with(|| Group {
            id: id.clone(),
            name: None,
            vpc: None,
            owner: None,
            rules: Vec::new(),
        });
        group.owner = owner.or(group.owner.take());
        group
    }

    fn add_rules(&mut self, id: &GroupId, rules: Vec<Rule>) -> Result<(), TooMany> {
        let Some(group) = self.groups.get_mut(id) else { return Ok(()) };
        for rule in rules {
            let says = (id.clone(), rule.side, rule.service, plain(&rule.peer));
            match self.places.get(&says).and_then(|place| group.rules.get_mut(*place)) {
                Some(known) if rule.id.is_given() => *known = rule,
                Some(_) => {}
                None if self.places.len() == MAX_RULES => return Err(TooMany { what: "rules", limit: MAX_RULES }),
                None => {
                    self.places.insert(says, group.rules.len());
                    group.rules.push(rule);
                }
            }
        }
        Ok(())
    }
}

/// A peer without what is told beside its id, which may differ from source to source.
fn plain(peer: &Peer) -> Peer {
    match peer {
        Peer::Group { id, .. } => Peer::Group { id: id.clone(), account: None, stale: None },
        Peer::Net(_) | Peer::PrefixList(_) => peer.clone(),
    }
}
