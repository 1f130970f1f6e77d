//! What is known at one moment, indexed as questions about flows need it.

use std::cell::{OnceCell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Known;
use crate::cluster::Found;
use crate::facts::{Branch, BranchInterface, GroupEventKind, InterfaceFacts, Phase, PodFacts};
use crate::fast::{FastMap, FastSet};
use crate::output::{PeerClass, SgWhy};
use crate::papers::demand::demanded;
use crate::papers::enforcement::{Enforcement, Links, Mode, enforcement, mode};
use crate::papers::{Account, last_requested};
use crate::sg::{Compiled, GroupId, Peer};
use crate::time::WallNs;

/// Whose an address is counts for so long after EC2 said so: half an hour. A pod's successor has another one soon.
const PEER_VALID_NS: i64 = 1_800 * 1_000_000_000;
/// What EC2 told of an interface counts for so long: half a day, several times what a refresh takes in a large fleet. When
/// the role is taken away verdicts end, instead of going on from what was.
const INTERFACE_VALID_NS: i64 = 12 * 3_600 * 1_000_000_000;
/// What EC2 told of rules and prefix lists counts for as long, for the same reasons.
const RULES_VALID_NS: i64 = INTERFACE_VALID_NS;
/// `interfaceType` of interfaces whose owner answers by himself. All others hand on what comes to them, as a Network Load
/// Balancer to its targets: who drops it may be behind them
/// (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_NetworkInterface.html>).
const ANSWERING: [&str; 5] = ["interface", BRANCH, "trunk", "efa", "efa-only"];
/// `interfaceType` of a branch interface.
const BRANCH: &str = "branch";
/// Nodes with other mechanisms (`eks.amazonaws.com/compute-type`).
const OTHER_COMPUTE: [&str; 2] = ["auto", "fargate"];

/// See the module's text.
pub struct Scene<'a> {
    pub(super) known: Known<'a>,
    pub(super) compiled: &'a Compiled,
    veth_prefix: &'a str,
    links: OnceCell<Option<Links<'a>>>,
    pods: OnceCell<FastMap<IpAddr, &'a PodFacts>>,
    interfaces: OnceCell<Interfaces<'a>>,
    /// When EC2 told the rules of a group, once for many questions.
    rules_told: RefCell<FastMap<GroupId, Option<WallNs>>>,
}

/// An interface, and when EC2 told it.
type ToldInterface<'a> = (&'a InterfaceFacts, WallNs);

/// Interfaces by address.
struct Interfaces<'a> {
    by_address: FastMap<IpAddr, ToldInterface<'a>>,
    by_prefix: Vec<(IpNet, ToldInterface<'a>)>,
}

/// Groups on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Which.
    pub(crate) groups: Vec<GroupId>,
    /// When EC2 told them; `None`: the controller's event did, or nobody had to.
    pub(crate) told: Option<WallNs>,
    /// Whoever has it hands on what comes to it: others may judge that.
    pub(super) forwards: bool,
}

/// Whose groups judge what a pod sends and gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// Its own; the mode is not always known.
    Own(Option<Mode>),
    /// The node's.
    Node,
    /// Not enough is known.
    CannotTell(SgWhy),
}

/// Whether an address is on this node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Here<'a> {
    /// It is not, as far as is known.
    No,
    /// A pod's, which is on it.
    Pod(&'a PodFacts),
    /// The node's own.
    Node,
}

impl<'a> Scene<'a> {
    pub(super) fn new(known: Known<'a>, compiled: &'a Compiled, veth_prefix: &'a str) -> Self {
        let (links, pods, interfaces) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { known, compiled, veth_prefix, links, pods, interfaces, rules_told: RefCell::default() }
    }

    /// The rules.
    pub(crate) fn compiled(&self) -> &'a Compiled {
        self.compiled
    }

    /// The groups on a pod's branch interface by EC2 alone.
    pub(crate) fn told_groups(&self, pod: &PodFacts) -> Option<Held> {
        let told = |branch: &BranchInterface| {
            let told = self.known.ec2.interface(&branch.id).filter(|told| self.is_valid(told.at))?;
            Some(Held::of((told.what.as_ref()?, told.at)))
        };
        branches(pod).iter().find_map(told)
    }

    /// Whether no policy can be about any pod here.
    pub(super) fn is_idle(&self) -> bool {
        let cluster = self.known.cluster;
        let no_policies = cluster.policies().is_none_or(|policies| policies.is_empty());
        no_policies && !cluster.pods().present().any(|pod| pod.facts.branch != Branch::Absent)
    }

    /// A pod that policies or a branch interface are about, by the uid that its cgroups tell.
    pub fn pod(&self, cgroup_uid: &str) -> Option<&'a Arc<PodFacts>> {
        let pod = self.known.cluster.pods().of_cgroup(cgroup_uid).filter(|pod| pod.is_certain())?;
        self.is_about(&pod.facts).then_some(&pod.facts)
    }

    /// Whether policies or a branch interface are about a pod.
    pub(crate) fn is_about(&self, pod: &PodFacts) -> bool {
        let cluster = self.known.cluster;
        let policies = cluster.policies();
        let account = match cluster.account(&pod.namespace, &pod.service_account) {
            Some(Found::Present(account)) => Account::Known(account),
            Some(Found::Absent) => Account::Gone,
            None => Account::Unknown,
        };
        let selected = || demanded(pod, account, policies.as_deref()).selected() != Some(false);
        pod.branch != Branch::Absent || (policies.is_some() && selected())
    }

    /// How a pod's groups are applied.
    pub(super) fn placement(&self, pod: &PodFacts) -> Placement {
        let compute = self.known.cluster.node().and_then(|node| node.compute_type.as_deref());
        if pod.fargate || compute.is_some_and(|compute| OTHER_COMPUTE.contains(&compute)) {
            return Placement::CannotTell(SgWhy::OtherMechanism);
        }
        if pod.host_network {
            return Placement::Node;
        }
        match enforcement(pod, self.links()) {
            Enforcement::Enforced => Placement::Own(self.mode(pod)),
            Enforcement::Not(_) => Placement::Node,
            Enforcement::CannotTell(_) => Placement::CannotTell(SgWhy::EnforcementUnknown),
        }
    }

    /// The mode that a pod was made in.
    pub(crate) fn mode(&self, pod: &PodFacts) -> Option<Mode> {
        mode(pod, self.links(), self.veth_prefix).ok()
    }

    /// Whether a pod's own groups are in force; `None`: cannot tell.
    pub(crate) fn is_enforced(&self, pod: &PodFacts) -> Option<bool> {
        match self.placement(pod) {
            Placement::Own(_) => Some(true),
            Placement::Node => Some(false),
            Placement::CannotTell(_) => None,
        }
    }

    /// The groups really on a pod's branch interface, as EC2 or else the controller told.
    pub(crate) fn interface_groups(&self, pod: &PodFacts) -> Option<Held> {
        if let Some(told) = self.told_groups(pod) {
            return Some(told);
        }
        let events = self.known.cluster.events(pod.uid.as_deref()?)?;
        match &last_requested(events)?.kind {
            GroupEventKind::Groups(groups) => {
                let groups: Option<Vec<GroupId>> = groups.iter().map(|id| id.parse().ok()).collect();
                groups.map(|groups| Held { groups, told: None, forwards: false })
            }
            GroupEventKind::InstanceGroups => self.node_groups(),
            GroupEventKind::Allocated | GroupEventKind::Failed(_) => None,
        }
    }

    /// The groups of the node's first interface: the one that has the node's address.
    pub(crate) fn node_groups(&self) -> Option<Held> {
        let addresses = &self.known.cluster.node()?.addresses;
        addresses.iter().find_map(|ip| self.interface_of(*ip)).map(Held::of)
    }

    /// The groups of an interface of this node, or of a pod's on it, that has an address.
    pub(super) fn groups_here(&self, ip: IpAddr) -> Option<Held> {
        self.interface_of(ip).map(Held::of)
    }

    /// The groups at the other end, as far as they are known. What is outside the VPC has none.
    pub(super) fn peer_groups(&self, ip: IpAddr, is_public: bool) -> Option<Held> {
        let nobodys = || Held { groups: Vec::new(), told: None, forwards: false };
        self.groups_here(ip).or_else(|| self.peer(ip).map(Held::of)).or_else(|| is_public.then(nobodys))
    }

    /// Whose a peer's address is, if EC2 said so lately.
    pub(super) fn peer(&self, ip: IpAddr) -> Option<ToldInterface<'a>> {
        let told = self.known.ec2.peer(ip).filter(|told| self.age_ns(told.at) <= PEER_VALID_NS)?;
        // Addresses repeat from VPC to VPC, and service addresses are nobody's in this one.
        let here = self.known.ec2.vpc_id();
        let is_of_here = |of: &&InterfaceFacts| of.vpc.is_none() || here.is_none() || of.vpc.as_ref() == here;
        told.what.as_ref().filter(is_of_here).map(|of| (of, told.at))
    }

    /// When EC2 told the oldest of a group's rules and of the prefix lists that they name.
    pub(super) fn rules_told(&self, id: &GroupId) -> Option<WallNs> {
        if let Some(told) = self.rules_told.borrow().get(id) {
            return *told;
        }
        let group = self.known.ec2.group(id);
        let rules = group.and_then(|told| told.what.as_deref()).map(|facts| facts.group.rules.as_slice());
        let lists = rules.unwrap_or_default().iter().filter_map(|rule| match &rule.peer {
            Peer::PrefixList(id) => Some(self.known.ec2.list(id)?.at),
            Peer::Net(_) | Peer::Group { .. } => None,
        });
        let told = group.map(|told| lists.fold(told.at, WallNs::min));
        self.rules_told.borrow_mut().insert(id.clone(), told);
        told
    }

    fn is_valid(&self, at: WallNs) -> bool {
        self.age_ns(at) <= INTERFACE_VALID_NS
    }

    fn age_ns(&self, at: WallNs) -> i64 {
        self.known.now.wall.0.saturating_sub(at.0)
    }

    /// Whether an address is on this node.
    pub(super) fn here(&self, ip: IpAddr, class: PeerClass) -> Here<'a> {
        let pods = self.pods.get_or_init(|| {
            let present = self.holding().filter(|pod| !pod.host_network);
            present.flat_map(|pod| pod.ips.iter().map(move |ip| (ip.to_canonical(), pod))).collect()
        });
        let is_node = || self.known.cluster.node().is_some_and(|node| node.addresses.contains(&ip));
        match pods.get(&ip) {
            Some(pod) => Here::Pod(pod),
            None if class == PeerClass::NodeLocal || is_node() => Here::Node,
            None => Here::No,
        }
    }

    /// Whether an address is in the node's VPC; `None`: cannot tell. `own`: the pod whose flow it is.
    pub(super) fn in_vpc(&self, ip: IpAddr, own: &PodFacts, class: PeerClass) -> Option<bool> {
        let ranges = self.known.ec2.vpc_ranges().unwrap_or_default();
        if ranges.iter().any(|range| range.contains(&ip)) || self.interface_of(ip).is_some() || self.peer(ip).is_some()
        {
            return Some(true);
        }
        let in_subnet = |branch: &BranchInterface| {
            branch.subnet.as_deref().and_then(|net| net.parse::<IpNet>().ok()).is_some_and(|net| net.contains(&ip))
        };
        if branches(own).iter().any(in_subnet) {
            return Some(true);
        }
        let same_family = |range: &IpNet| range.addr().is_ipv4() == ip.is_ipv4();
        if ranges.iter().any(same_family) || class == PeerClass::Internet { Some(false) } else { None }
    }

    /// Pods that hold what they were given: one that ended gave its address back, and keeps it in its status.
    fn holding(&self) -> impl Iterator<Item = &'a PodFacts> {
        let present = self.known.cluster.pods().present().map(|pod| &*pod.facts);
        present.filter(|pod| !matches!(pod.phase, Some(Phase::Succeeded | Phase::Failed)))
    }

    fn links(&self) -> Option<&Links<'a>> {
        self.links.get_or_init(|| self.known.host.links().map(|(at, links)| Links::new(links, at.wall))).as_ref()
    }

    fn interface_of(&self, ip: IpAddr) -> Option<ToldInterface<'a>> {
        let interfaces = self.interfaces.get_or_init(|| {
            let branches: FastSet<&str> = self.holding().flat_map(branches).map(|branch| &*branch.id).collect();
            // The address of a pod that is gone may be anybody's by now.
            let is_gone = |of: &InterfaceFacts| of.kind.as_deref() == Some(BRANCH) && !branches.contains(&*of.id);
            let told = self.known.ec2.told_interfaces().filter(|(of, at)| self.is_valid(*at) && !is_gone(of));
            let told: Vec<_> = told.collect();
            let all = || told.iter().copied();
            Interfaces {
                by_address: all().flat_map(|of| of.0.addresses.iter().map(move |ip| (ip.to_canonical(), of))).collect(),
                by_prefix: all().flat_map(|of| of.0.prefixes.iter().map(move |net| (*net, of))).collect(),
            }
        });
        let by_prefix = || interfaces.by_prefix.iter().find(|(net, _)| net.contains(&ip)).map(|(_, of)| *of);
        interfaces.by_address.get(&ip).copied().or_else(by_prefix)
    }
}

/// Whether what EC2 told of rules and prefix lists counts no more.
pub(super) fn is_too_old(at: WallNs, now: WallNs) -> bool {
    now.0.saturating_sub(at.0) > RULES_VALID_NS
}

// === impl Held ===

impl Held {
    fn of((interface, at): ToldInterface<'_>) -> Self {
        let forwards = interface.kind.as_deref().is_some_and(|kind| !ANSWERING.contains(&kind));
        Self { groups: interface.groups.clone(), told: Some(at), forwards }
    }

    /// Whether two interfaces have the same groups, in whatever order.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let has = |one: &Self, other: &Self| one.groups.iter().all(|id| other.groups.contains(id));
        has(self, other) && has(other, self)
    }
}

pub(super) fn branches(pod: &PodFacts) -> &[BranchInterface] {
    match &pod.branch {
        Branch::Interfaces(branches) => branches,
        Branch::Absent | Branch::Malformed(_) => &[],
    }
}
