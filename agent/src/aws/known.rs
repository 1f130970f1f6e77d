//! What EC2 told, with its age: by this a question is made or not, and after a restart the facts are told from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::{Ec2Call, Ec2Fact, GroupFacts, InstanceTypeFacts, InterfaceFacts, PeerInterface, SubnetFacts};
use agent_core::sg::{GroupId, PrefixList, PrefixListId};
use agent_core::time::WallNs;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::plan::Targets;

/// What nobody wishes to know any more is kept for so long: wishes come and go with pods and connections.
const UNWANTED_FOR: Duration = Duration::from_hours(1);
/// Most of each kind. The core wishes for at most 512 interfaces and 1,024 groups and holds as many; a group has up to 120
/// rules of about 200 bytes, so the worst is 24 MB and the usual, ten groups of ten rules, 20 KB.
const INTERFACES_MAX: usize = 512;
const GROUPS_MAX: usize = 1_024;
const LISTS_MAX: usize = 256;
const SUBNETS_MAX: usize = 256;
const PEERS_MAX: usize = 2_048;
const OTHERS_MAX: usize = 64;

/// Something that EC2 told; `None`: that it does not exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Told<T> {
    pub(super) what: Option<T>,
    pub(super) at: WallNs,
}

/// Things of one kind.
pub(super) type Kept<K, V> = BTreeMap<K, Told<V>>;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Known {
    pub(super) interfaces: Kept<Arc<str>, InterfaceFacts>,
    /// The interface's id by its hardware address.
    pub(super) macs: Kept<Arc<str>, Arc<str>>,
    pub(super) groups: Kept<GroupId, GroupFacts>,
    pub(super) lists: Kept<PrefixListId, PrefixList>,
    pub(super) subnets: Kept<Arc<str>, SubnetFacts>,
    pub(super) vpcs: Kept<Arc<str>, Vec<IpNet>>,
    pub(super) peers: Kept<IpAddr, InterfaceFacts>,
    pub(super) types: Kept<Arc<str>, InstanceTypeFacts>,
    /// When each call worked last.
    pub(super) worked: BTreeMap<Ec2Call, WallNs>,
}

/// How long ago something was. A clock that was set back makes it as old as the step.
pub(super) fn age(at: WallNs, now: WallNs) -> Duration {
    Duration::from_nanos(now.0.abs_diff(at.0))
}

// === impl Known ===

impl Known {
    /// The node's own interfaces, those of the targets.
    pub(super) fn own<'a>(
        &'a self,
        macs: impl IntoIterator<Item = &'a Arc<str>>,
    ) -> impl Iterator<Item = &'a InterfaceFacts> {
        macs.into_iter().filter_map(|mac| {
            let id = self.macs.get(mac)?.what.as_ref()?;
            self.interfaces.get(id)?.what.as_ref()
        })
    }

    /// Takes in interfaces.
    pub(super) fn put_interfaces(&mut self, found: &[InterfaceFacts], at: WallNs) {
        for interface in found {
            self.interfaces.insert(Arc::clone(&interface.id), Told { what: Some(interface.clone()), at });
        }
    }

    /// Forgets what nobody wishes to know any more, and what there is no room for, the oldest first.
    pub(super) fn prune(&mut self, wanted: &Targets, now: WallNs) {
        let own: BTreeSet<Arc<str>> = wanted.macs.iter().filter_map(|mac| self.macs.get(mac)?.what.clone()).collect();
        prune(&mut self.interfaces, |id| wanted.interfaces.contains(id) || own.contains(id), INTERFACES_MAX, now);
        prune(&mut self.macs, |mac| wanted.macs.contains(mac), OTHERS_MAX, now);
        prune(&mut self.groups, |id| wanted.groups.contains(id), GROUPS_MAX, now);
        prune(&mut self.lists, |id| wanted.lists.contains(id), LISTS_MAX, now);
        prune(&mut self.subnets, |id| wanted.subnets.contains(id), SUBNETS_MAX, now);
        prune(&mut self.vpcs, |id| wanted.vpc.as_ref() == Some(id), OTHERS_MAX, now);
        prune(&mut self.peers, |ip| wanted.peers.contains(ip), PEERS_MAX, now);
        prune(&mut self.types, |name| wanted.instance_type.as_ref() == Some(name), OTHERS_MAX, now);
    }

    /// The subnets that are there, told as of the oldest of them.
    pub(super) fn subnets(&self) -> Option<Ec2Fact> {
        let at = self.subnets.values().map(|told| told.at).min()?;
        let subnets = self.subnets.values().filter_map(|told| told.what.clone()).collect();
        Some(Ec2Fact::Subnets { subnets, at })
    }

    /// All of it as facts, as if it were told now; each with its own age.
    pub(super) fn facts(&self) -> Vec<Ec2Fact> {
        let mut facts = Vec::new();
        for (at, (found, missing)) in by_age(&self.interfaces) {
            facts.push(Ec2Fact::Interfaces { interfaces: found, missing, at });
        }
        for (at, (found, missing)) in by_age(&self.groups) {
            facts.push(Ec2Fact::Groups { groups: found, missing, at });
        }
        for (at, (found, missing)) in by_age(&self.lists) {
            facts.push(Ec2Fact::PrefixLists { lists: found, missing, at });
        }
        facts.extend(self.subnets());
        for (id, told) in &self.vpcs {
            if let Some(ranges) = &told.what {
                facts.push(Ec2Fact::Vpc { id: Arc::clone(id), ranges: ranges.clone(), at: told.at });
            }
        }
        for (ip, told) in &self.peers {
            let peer = PeerInterface { ip: *ip, interface: told.what.clone() };
            facts.push(Ec2Fact::Peers { peers: vec![peer], at: told.at });
        }
        for (name, told) in &self.types {
            facts.push(Ec2Fact::InstanceType { figures: told.what.clone(), name: Arc::clone(name), at: told.at });
        }
        for (call, at) in &self.worked {
            facts.push(Ec2Fact::Source { call: *call, fresh_at: Some(*at), error: None, denied: false });
        }
        facts
    }
}

fn by_age<K: Clone, V: Clone>(kept: &Kept<K, V>) -> BTreeMap<WallNs, (Vec<V>, Vec<K>)> {
    let mut ages: BTreeMap<WallNs, (Vec<V>, Vec<K>)> = BTreeMap::new();
    for (key, Told { what, at }) in kept {
        let (found, missing) = ages.entry(*at).or_default();
        match what {
            Some(what) => found.push(what.clone()),
            None => missing.push(key.clone()),
        }
    }
    ages
}

fn prune<K: Ord + Clone, V>(kept: &mut Kept<K, V>, is_wanted: impl Fn(&K) -> bool, most: usize, now: WallNs) {
    kept.retain(|key, told| is_wanted(key) || age(told.at, now) < UNWANTED_FOR);
    if kept.len() > most {
        let mut ages: Vec<(bool, WallNs, K)> =
            kept.iter().map(|(key, told)| (is_wanted(key), told.at, key.clone())).collect();
        ages.sort();
        for (_, _, key) in ages.into_iter().take(kept.len() - most) {
            kept.remove(&key);
        }
    }
}
