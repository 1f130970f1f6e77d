//! What the core would like EC2 to tell: as much as judging the flows of this node's pods takes, and no more.
//!
//! Wishes are made anew whenever they are asked for. Whoever asks EC2 keeps track of what was told and when, and asks
//! again for what is too old.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Ec2, MAX_GROUPS, MAX_INTERFACES};
use crate::cluster::{Cluster, Found, HostSide};
use crate::facts::{Branch, Ec2Wishes, InterfaceFacts, LinkKind, Phase, PodFacts};
use crate::papers::Account;
use crate::papers::demand::demanded;
use crate::peer::{is_link_local, is_public};
use crate::sg::{GroupId, Peer};

/// Most peers wished for at once: a call of `DescribeNetworkInterfaces` takes 200 values of a filter.
pub const MAX_WISHED_PEERS: usize = 256;
/// Most hardware addresses: an instance has at most 64 interfaces.
const MAX_MACS: usize = 64;

/// What wishes are made of.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The node's interfaces.
    pub host: &'a HostSide,
    /// What EC2 told already.
    pub ec2: &'a Ec2,
}

/// What is wished for now. `peers`: addresses about which a verdict waits, the most urgent first. `instance_type`: one
/// that the table lacks.
pub fn wishes(known: Known<'_>, peers: impl IntoIterator<Item = IpAddr>, instance_type: Option<Arc<str>>) -> Ec2Wishes {
    let living: Vec<_> = living(known.cluster).collect();
    let fleet_nodes = known.cluster.fleet_nodes();
    let mut wishes = Ec2Wishes { instance_type, fleet_nodes, macs: macs(known.host), ..Ec2Wishes::default() };
    let branches = living.iter().flat_map(|pod| match &pod.branch {
        Branch::Interfaces(branches) => branches.as_slice(),
        Branch::Absent | Branch::Malformed(_) => &[],
    });
    wishes.interfaces = branches.map(|branch| Arc::clone(&branch.id)).take(MAX_INTERFACES).collect();
    for peer in peers.into_iter().filter(|peer| may_be_in_vpc(*peer, known.ec2)) {
        if wishes.peers.len() >= MAX_WISHED_PEERS {
            break;
        }
        wishes.peers.insert(peer);
    }
    wishes.groups = groups(known, &living, &wishes);
    wishes
}

/// Whether an interface of the VPC may have an address: what looks public has one where the VPC has such a range alone.
fn may_be_in_vpc(peer: IpAddr, ec2: &Ec2) -> bool {
    let is_in_range = || ec2.vpc_ranges().is_some_and(|ranges| ranges.iter().any(|range| range.contains(&peer)));
    let is_nobodys = peer.is_loopback() || peer.is_multicast() || is_link_local(peer);
    !is_nobodys && (!is_public(peer) || is_in_range())
}

/// Pods that hold what they were given.
fn living(cluster: &Cluster) -> impl Iterator<Item = &PodFacts> {
    let ended = |pod: &PodFacts| matches!(pod.phase, Some(Phase::Succeeded | Phase::Failed));
    cluster.pods().present().map(|pod| &*pod.facts).filter(move |pod| !ended(pod))
}

/// The node's own interfaces.
fn macs(host: &HostSide) -> BTreeSet<Arc<str>> {
    let links = host.links().map(|(_, links)| links).unwrap_or_default();
    let own = links.iter().filter(|link| link.kind == LinkKind::Ena && !link.mac.is_empty());
    own.map(|link| Arc::clone(&link.mac)).take(MAX_MACS).collect()
}

/// The groups whose rules count here, and then, as far as there is room, those that these rules name: for their names
/// and accounts.
fn groups(known: Known<'_>, living: &[&PodFacts], wishes: &Ec2Wishes) -> BTreeSet<GroupId> {
    let Known { cluster, ec2, .. } = known;
    let mut groups = BTreeSet::new();
    let mut put = |id: GroupId| {
        if groups.len() < MAX_GROUPS {
            groups.insert(id);
        }
    };
    let policies = cluster.policies();
    for pod in living {
        let account = match cluster.account(&pod.namespace, &pod.service_account) {
            Some(Found::Present(account)) => Account::Known(account),
            Some(Found::Absent) => Account::Gone,
            None => Account::Unknown,
        };
        let demand = demanded(pod, account, policies.as_deref());
        // What is written into a policy by hand may be anything; EC2 is asked for ids alone.
        demand.groups.iter().filter_map(|id| id.parse().ok()).for_each(&mut put);
    }
    let of_pods = wishes.interfaces.iter().filter_map(|id| ec2.interface(id)?.what.as_ref());
    let of_node = ec2.interfaces().filter(|interface| interface.has_mac(&wishes.macs));
    let of_peers = wishes.peers.iter().filter_map(|ip| ec2.peer(*ip)?.what.as_ref());
    for interface in of_pods.chain(of_node).chain(of_peers) {
        interface.groups.iter().cloned().for_each(&mut put);
    }
    let named: BTreeSet<GroupId> = groups.iter().flat_map(|id| named_by(ec2, id)).collect();
    let room = MAX_GROUPS.saturating_sub(groups.len());
    let more: Vec<_> = named.difference(&groups).take(room).cloned().collect();
    groups.extend(more);
    groups
}

/// Groups that the rules of a known group name.
fn named_by<'a>(ec2: &'a Ec2, id: &GroupId) -> impl Iterator<Item = GroupId> + 'a {
    let facts = ec2.group(id).and_then(|told| told.what.as_deref());
    facts.into_iter().flat_map(|facts| &facts.group.rules).filter_map(|rule| match &rule.peer {
        Peer::Group { id, .. } => Some(id.clone()),
        Peer::Net(_) | Peer::PrefixList(_) => None,
    })
}

impl InterfaceFacts {
    fn has_mac(&self, macs: &BTreeSet<Arc<str>>) -> bool {
        self.mac.as_ref().is_some_and(|mac| macs.contains(mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{
        BranchInterface, ClusterFact, Ec2Fact, GroupFacts, HostFact, LinkFacts, PeerInterface, PolicyFacts, Selector,
    };
    use crate::sg::{Group, Rule, RuleId, Service, Side};
    use crate::time::{BootNs, Moment, WallNs};

    fn pod(name: &str, phase: Phase) -> Arc<PodFacts> {
        let branch = BranchInterface {
            id: format!("eni-{name}").into(),
            mac: "02:00:00:00:00:01".into(),
            ipv4: None,
            ipv6: None,
            vlan_id: 1,
            subnet: None,
        };
        Arc::new(PodFacts {
            namespace: "shop".into(),
            name: name.into(),
            uid: Some(name.into()),
            phase: Some(phase),
            branch: Branch::Interfaces(vec![branch]),
            ..PodFacts::default()
        })
    }

    fn group(id: &str, names: &str) -> GroupFacts {
        let (id, peer): (GroupId, GroupId) = (id.parse().unwrap(), names.parse().unwrap());
        let peer = Peer::Group { id: peer, account: None, stale: None };
        let rule = Rule { id: RuleId::given("sgr-1"), side: Side::Egress, service: Service::All, peer };
        GroupFacts { group: Group { id, name: None, vpc: None, owner: None, rules: vec![rule] }, clusters: vec![] }
    }

    fn texts<T: ToString>(items: &BTreeSet<T>) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_wished_for_follows_pods_policies_interfaces_and_rules() {
        let (mut cluster, mut host, mut ec2) = (Cluster::default(), HostSide::default(), Ec2::default());
        let told = |ec2: &Ec2, cluster: &Cluster, host: &HostSide, peers: Vec<IpAddr>| {
            wishes(Known { cluster, host, ec2 }, peers, None)
        };
        assert_eq!(told(&ec2, &cluster, &host, vec![]), Ec2Wishes::default());

        let now = BootNs(1);
        let pods = vec![pod("cart", Phase::Running), pod("done", Phase::Succeeded)];
        cluster.learn(ClusterFact::PodsReplaced(pods), now);
        let policy = |name: &str, groups: &[&str], selects: bool| {
            let mut selector = Selector::default();
            if !selects {
                selector.match_labels.insert("app".to_owned(), "nobody".to_owned());
            }
            Arc::new(PolicyFacts {
                namespace: "shop".into(),
                name: name.into(),
                groups: groups.iter().map(|group| Arc::from(*group)).collect(),
                pod_selector: Some(selector),
                ..PolicyFacts::default()
            })
        };
        let policies = vec![policy("cart", &["sg-cart", "not an id"], true), policy("other", &["sg-other"], false)];
        cluster.learn(ClusterFact::PoliciesReplaced { policies, installed: true }, now);
        let link = |kind, mac: &str| LinkFacts { kind, mac: mac.into(), ..LinkFacts::default() };
        let links = vec![link(LinkKind::Ena, "0a:01"), link(LinkKind::Veth, "0a:02")];
        host.learn(&HostFact::Links(links), Moment { boot: now, wall: WallNs(1) });
        let first = told(&ec2, &cluster, &host, vec![]);
        assert_eq!(texts(&first.interfaces), ["eni-cart"], "an interface of a pod that ended is given back");
        assert_eq!((texts(&first.macs), texts(&first.groups)), (vec!["0a:01".to_owned()], vec!["sg-cart".to_owned()]));

        let at = WallNs(2);
        let interface = |id: &str, mac: &str, group: &str| InterfaceFacts {
            id: id.into(),
            mac: Some(mac.into()),
            groups: vec![group.parse().unwrap()],
            ..InterfaceFacts::default()
        };
        let interfaces = vec![interface("eni-cart", "02:01", "sg-real"), interface("eni-node", "0a:01", "sg-node")];
        ec2.learn(Ec2Fact::Interfaces { interfaces, missing: vec![], at });
        ec2.learn(Ec2Fact::Groups { groups: vec![group("sg-real", "sg-named")], missing: vec![], at });
        let peer: IpAddr = "10.0.0.9".parse().unwrap();
        let peers = vec![PeerInterface { ip: peer, interface: Some(interface("eni-db", "0b:01", "sg-db")) }];
        ec2.learn(Ec2Fact::Peers { peers, at });
        let then = told(&ec2, &cluster, &host, vec![peer]);
        assert_eq!(texts(&then.groups), ["sg-cart", "sg-db", "sg-named", "sg-node", "sg-real"]);
        assert_eq!(texts(&then.peers), ["10.0.0.9"], "known peers are wished for as long as they are of use");
    }

    #[test]
    fn wishes_say_how_many_share_the_calls() {
        let (mut cluster, host, ec2) = (Cluster::default(), HostSide::default(), Ec2::default());
        let told = |cluster: &Cluster| wishes(Known { cluster, host: &host, ec2: &ec2 }, [], None).fleet_nodes;
        assert_eq!(told(&cluster), None);
        cluster.learn(ClusterFact::FleetNodes(3_000), BootNs(1));
        assert_eq!(told(&cluster), Some(3_000));
    }

    #[test]
    fn nobody_of_the_internet_is_wished_for() {
        let (cluster, host, mut ec2) = (Cluster::default(), HostSide::default(), Ec2::default());
        let peers = ["93.184.216.34", "198.18.7.7", "2600:1f16::9", "10.0.5.5", "169.254.20.10"];
        let told = |ec2: &Ec2| {
            let peers = peers.map(|text| text.parse::<IpAddr>().unwrap());
            let wishes = wishes(Known { cluster: &cluster, host: &host, ec2 }, peers, None);
            wishes.peers.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(&ec2), ["10.0.5.5"]);
        // Ranges that look public, and are the VPC's.
        let ranges = ["10.0.0.0/16", "198.18.0.0/16", "2600:1f16::/56"].map(|net| net.parse().unwrap()).to_vec();
        ec2.learn(Ec2Fact::Vpc { id: "vpc-1".into(), ranges, at: WallNs(1) });
        assert_eq!(told(&ec2), ["10.0.5.5", "198.18.7.7", "2600:1f16::9"]);
    }

    #[test]
    fn wishes_are_bounded_and_the_most_urgent_peers_come_first() {
        let (cluster, host, ec2) = (Cluster::default(), HostSide::default(), Ec2::default());
        let ip = |n: u32| IpAddr::V4((0x0a00_0000 + n).into());
        let many = (0..1_000_u32).rev().map(ip);
        let wishes = wishes(Known { cluster: &cluster, host: &host, ec2: &ec2 }, many, None);
        assert_eq!(wishes.peers.len(), MAX_WISHED_PEERS);
        assert!(wishes.peers.contains(&ip(999)) && !wishes.peers.contains(&ip(0)));
    }
}
