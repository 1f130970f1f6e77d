//! What is known from the EC2 API: interfaces, groups, prefix lists, subnets, as they were told last, with their age.
//!
//! Memory follows what this node wishes to know: its pods' interfaces, the groups of those and of the policies, and the
//! peers of flows that stay without an answer.

mod wishes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::facts::{Ec2Call, Ec2Fact, GroupFacts, InstanceTypeFacts, InterfaceFacts, SubnetFacts};
use crate::sg::{GroupId, PrefixList, PrefixListId};
use crate::time::WallNs;

pub use self::wishes::{Known, MAX_WISHED_PEERS, wishes};

/// Most interfaces kept: 120 branch interfaces on the largest type, some for pods that are gone, the node's own 15. At
/// about 600 bytes: 300 KiB.
pub const MAX_INTERFACES: usize = 512;
/// Most groups kept. An interface has at most 16, policies repeat them; 60 rules of about 200 bytes each: 12 MiB.
pub const MAX_GROUPS: usize = 1_024;
/// Most prefix lists kept.
pub const MAX_LISTS: usize = 256;
/// Most peers kept; the one told longest ago goes first. At about 600 bytes: 1.2 MiB.
pub const MAX_PEERS: usize = 2_048;

/// Something that EC2 told, `None`: that it does not exist; and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<T> {
    /// What.
    pub what: Option<T>,
    /// When.
    pub at: WallNs,
}

/// How a call stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// When it last worked.
    pub fresh_at: Option<WallNs>,
    /// Why it does not; `None` while it does.
    pub error: Option<String>,
    /// It is not allowed.
    pub denied: bool,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Ec2 {
    interfaces: BTreeMap<Arc<str>, Told<InterfaceFacts>>,
    groups: BTreeMap<GroupId, Told<Arc<GroupFacts>>>,
    lists: BTreeMap<PrefixListId, Told<PrefixList>>,
    subnets: Vec<SubnetFacts>,
    vpc: Option<(Arc<str>, Vec<IpNet>)>,
    peers: BTreeMap<IpAddr, Told<InterfaceFacts>>,
    instance_type: Option<(Arc<str>, Option<InstanceTypeFacts>)>,
    calls: BTreeMap<Ec2Call, Standing>,
    no_room: u64,
    /// Changes when a rule, a list or a range of the VPC does.
    revision: u64,
}

impl Ec2 {
    /// Takes in what EC2 tells.
    pub fn learn(&mut self, fact: Ec2Fact) {
        match fact {
            Ec2Fact::Interfaces { interfaces, missing, at } => {
                let found = interfaces.into_iter().map(|interface| (Arc::clone(&interface.id), Some(interface)));
                let absent = missing.into_iter().map(|id| (id, None));
                for (id, what) in found.chain(absent) {
                    self.no_room += put(&mut self.interfaces, id, Told { what, at }, MAX_INTERFACES);
                }
            }
            Ec2Fact::Groups { groups, missing, at } => {
                let found = groups.into_iter().map(|facts| (facts.group.id.clone(), Some(Arc::new(facts))));
                let absent = missing.into_iter().map(|id| (id, None));
                for (id, what) in found.chain(absent) {
                    self.revision += u64::from(self.groups.get(&id).is_none_or(|told| told.what != what));
                    self.no_room += put(&mut self.groups, id, Told { what, at }, MAX_GROUPS);
                }
            }
            Ec2Fact::PrefixLists { lists, missing, at } => {
                let found = lists.into_iter().map(|list| (list.id.clone(), Some(list)));
                let absent = missing.into_iter().map(|id| (id, None));
                for (id, what) in found.chain(absent) {
                    self.revision += u64::from(self.lists.get(&id).is_none_or(|told| told.what != what));
                    self.no_room += put(&mut self.lists, id, Told { what, at }, MAX_LISTS);
                }
            }
            Ec2Fact::Subnets { subnets, at: _ } => self.subnets = subnets,
            Ec2Fact::Vpc { id, ranges, at: _ } => {
                let vpc = Some((id, ranges));
                self.revision += u64::from(self.vpc != vpc);
                self.vpc = vpc;
            }
            Ec2Fact::Peers { peers, at } => {
                for peer in peers {
                    self.no_room += put(&mut self.peers, peer.ip, Told { what: peer.interface, at }, MAX_PEERS);
                }
            }
            Ec2Fact::InstanceType { figures, name, at: _ } => self.instance_type = Some((name, figures)),
            Ec2Fact::Source { call, fresh_at, error, denied } => {
                self.calls.insert(call, Standing { fresh_at, error, denied });
            }
        }
    }

    /// An interface, as EC2 told it last.
    pub fn interface(&self, id: &str) -> Option<&Told<InterfaceFacts>> {
        self.interfaces.get(id)
    }

    /// All interfaces that exist, as EC2 told them last.
    pub fn interfaces(&self) -> impl Iterator<Item = &InterfaceFacts> {
        self.interfaces.values().filter_map(|told| told.what.as_ref())
    }

    /// The same, with when EC2 told them.
    pub fn told_interfaces(&self) -> impl Iterator<Item = (&InterfaceFacts, WallNs)> {
        self.interfaces.values().filter_map(|told| Some((told.what.as_ref()?, told.at)))
    }

    /// All groups that exist, with when EC2 told them.
    pub fn told_groups(&self) -> impl Iterator<Item = (&GroupFacts, WallNs)> {
        self.groups.values().filter_map(|told| Some((told.what.as_deref()?, told.at)))
    }

    /// All prefix lists that exist, with when EC2 told them.
    pub fn told_lists(&self) -> impl Iterator<Item = (&PrefixList, WallNs)> {
        self.lists.values().filter_map(|told| Some((told.what.as_ref()?, told.at)))
    }

    /// A group, as EC2 told it last.
    pub fn group(&self, id: &GroupId) -> Option<&Told<Arc<GroupFacts>>> {
        self.groups.get(id)
    }

    /// All groups that exist, as EC2 told them last.
    pub fn groups(&self) -> impl Iterator<Item = &GroupFacts> {
        self.groups.values().filter_map(|told| told.what.as_deref())
    }

    /// All prefix lists that exist.
    pub fn lists(&self) -> impl Iterator<Item = &PrefixList> {
        self.lists.values().filter_map(|told| told.what.as_ref())
    }

    /// Another number than before once a rule, a list or a range of the VPC is another.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A prefix list, as EC2 told it last.
    pub fn list(&self, id: &PrefixListId) -> Option<&Told<PrefixList>> {
        self.lists.get(id)
    }

    /// The subnets of the node's interfaces.
    pub fn subnets(&self) -> &[SubnetFacts] {
        &self.subnets
    }

    /// The address ranges of the node's VPC, the primary one first; `None`: not told.
    pub fn vpc_ranges(&self) -> Option<&[IpNet]> {
        self.vpc.as_ref().map(|(_, ranges)| ranges.as_slice())
    }

    /// The node's VPC, as it was told, or as an interface of this node says.
    pub fn vpc_id(&self) -> Option<&Arc<str>> {
        let by_interface = || self.interfaces.values().find_map(|told| told.what.as_ref()?.vpc.as_ref());
        self.vpc.as_ref().map(|(id, _)| id).or_else(by_interface)
    }

    /// Whose an address is.
    pub fn peer(&self, ip: IpAddr) -> Option<&Told<InterfaceFacts>> {
        self.peers.get(&ip)
    }

    /// What EC2 tells of a type that is not in the table.
    pub fn instance_type(&self, name: &str) -> Option<&InstanceTypeFacts> {
        self.instance_type.as_ref().filter(|(known, _)| **known == *name)?.1.as_ref()
    }

    /// How each call stands.
    pub fn calls(&self) -> impl Iterator<Item = (Ec2Call, &Standing)> {
        self.calls.iter().map(|(call, standing)| (*call, standing))
    }

    /// Facts beyond a bound.
    pub fn no_room(&self) -> u64 {
        self.no_room
    }
}

/// Puts one in, and the one told longest ago out when there is no room: returns how many went.
fn put<K: Ord + Clone, T>(map: &mut BTreeMap<K, Told<T>>, key: K, told: Told<T>, most: usize) -> u64 {
    let mut gone = 0;
    if map.len() >= most && !map.contains_key(&key) {
        let oldest = map.iter().min_by_key(|(_, told)| told.at).map(|(key, _)| key.clone());
        gone = u64::from(oldest.is_some_and(|oldest| map.remove(&oldest).is_some()));
    }
    map.insert(key, told);
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(id: &str) -> InterfaceFacts {
        InterfaceFacts { id: id.into(), ..InterfaceFacts::default() }
    }

    #[test]
    fn what_is_told_later_counts_and_absent_is_not_unknown() {
        let mut ec2 = Ec2::default();
        let told = |interfaces, missing, at| Ec2Fact::Interfaces { interfaces, missing, at: WallNs(at) };
        ec2.learn(told(vec![interface("eni-1")], vec!["eni-2".into()], 1));
        assert_eq!(ec2.interface("eni-1").map(|told| told.what.is_some()), Some(true));
        assert_eq!(ec2.interface("eni-2").map(|told| told.what.is_some()), Some(false));
        assert_eq!(ec2.interface("eni-3"), None);
        ec2.learn(told(vec![], vec!["eni-1".into()], 2));
        assert_eq!(ec2.interface("eni-1"), Some(&Told { what: None, at: WallNs(2) }));
    }

    #[test]
    fn the_one_told_longest_ago_goes_first_and_is_counted() {
        let mut ec2 = Ec2::default();
        let over = i64::try_from(MAX_INTERFACES).unwrap() + 2;
        for n in 0..over {
            let interfaces = vec![interface(&format!("eni-{n}"))];
            ec2.learn(Ec2Fact::Interfaces { interfaces, missing: vec![], at: WallNs(n) });
        }
        assert_eq!((ec2.interface("eni-0"), ec2.no_room()), (None, 2));
        assert_eq!(ec2.interface("eni-1"), None);
        assert!(ec2.interface("eni-2").is_some());
    }
}
