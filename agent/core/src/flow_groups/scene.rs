//! What is known at one moment, indexed as questions about flows need it.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Known;
use crate::cluster::Found;
use crate::facts::{Branch, BranchInterface, GroupEventKind, InterfaceFacts, PodFacts};
use crate::fast::{FastMap, FastSet};
use crate::output::{PeerClass, SgWhy};
use crate::papers::demand::demanded;
use crate::papers::enforcement::{Enforcement, Links, Mode, enforcement, mode};
use crate::papers::{Account, last_requested};
use crate::sg::{Compiled, GroupId};
use crate::time::WallNs;

/// Whose an address is counts for so long after EC2 said so: half an hour. A pod's successor has another one soon.
const PEER_VALID_NS: i64 = 1_800 * 1_000_000_000;
/// What EC2 told of an interface counts for so long: half a day, several times what a refresh takes in a large fleet. When
/// the role is taken away verdicts end, instead of going on from what was.
const INTERFACE_VALID_NS: i64 = 12 * 3_600 * 1_000_000_000;
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
}

/// Interfaces by address.
struct Interfaces<'a> {
    by_address: FastMap<IpAddr, &'a InterfaceFacts>,
    by_prefix: Vec<(IpNet, &'a InterfaceFacts)>,
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
        Self { known, compiled, veth_prefix, links, pods, interfaces }
    }

    /// The rules.
    pub(crate) fn compiled(&self) -> &'a Compiled {
        self.compiled
    }

    /// The groups on a pod's branch interface by EC2 alone.
    pub(crate) fn told_groups(&self, pod: &PodFacts) -> Option<Vec<GroupId>> {
        let told = |branch: &BranchInterface| {
            let told = self.known.ec2.interface(&branch.id).filter(|told| self.is_valid(told.at))?;
            told.what.as_ref()
        };
        Some(branches(pod).iter().find_map(told)?.groups.clone())
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
    pub(crate) fn interface_groups(&self, pod: &PodFacts) -> Option<Vec<GroupId>> {
        if let Some(told) = self.told_groups(pod) {
            return Some(told);
        }
        let events = self.known.cluster.events(pod.uid.as_deref()?)?;
        match &last_requested(events)?.kind {
            GroupEventKind::Groups(groups) => groups.iter().map(|id| id.parse().ok()).collect(),
            GroupEventKind::InstanceGroups => self.node_groups(),
            GroupEventKind::Allocated | GroupEventKind::Failed(_) => None,
        }
    }

    /// The groups of the node's first interface: the one that has the node's address.
    pub(crate) fn node_groups(&self) -> Option<Vec<GroupId>> {
        let addresses = &self.known.cluster.node()?.addresses;
        let interface = addresses.iter().find_map(|ip| self.interface_of(*ip))?;
        Some(interface.groups.clone())
    }

    /// The groups of an interface of this node, or of a pod's on it, that has an address.
    pub(super) fn groups_here(&self, ip: IpAddr) -> Option<Vec<GroupId>> {
        self.interface_of(ip).map(|interface| interface.groups.clone())
    }

    /// The groups at the other end, as far as they are known. What is outside the VPC has none.
    pub(super) fn peer_groups(&self, ip: IpAddr, is_public: bool) -> Option<Vec<GroupId>> {
        self.groups_here(ip)
            .or_else(|| self.peer(ip).map(|interface| interface.groups.clone()))
            .or_else(|| is_public.then(Vec::new))
    }

    /// Whose a peer's address is, if EC2 said so lately.
    pub(super) fn peer(&self, ip: IpAddr) -> Option<&'a InterfaceFacts> {
        let told = self.known.ec2.peer(ip).filter(|told| self.age_ns(told.at) <= PEER_VALID_NS)?;
        // Addresses repeat from VPC to VPC, and service addresses are nobody's in this one.
        let here = self.known.ec2.vpc_id();
        told.what.as_ref().filter(|of| of.vpc.is_none() || here.is_none() || of.vpc.as_ref() == here)
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
            let present = self.known.cluster.pods().present().map(|pod| &*pod.facts).filter(|pod| !pod.host_network);
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

    fn links(&self) -> Option<&Links<'a>> {
        self.links.get_or_init(|| self.known.host.links().map(|(at, links)| Links::new(links, at.wall))).as_ref()
    }

    fn interface_of(&self, ip: IpAddr) -> Option<&'a InterfaceFacts> {
        let interfaces = self.interfaces.get_or_init(|| {
            let pods = self.known.cluster.pods();
            let branches: FastSet<&str> =
                pods.present().flat_map(|pod| branches(&pod.facts)).map(|branch| &*branch.id).collect();
            // The address of a pod that is gone may be anybody's by now.
            let is_gone = |of: &InterfaceFacts| of.kind.as_deref() == Some(BRANCH) && !branches.contains(&*of.id);
            let told = self.known.ec2.told_interfaces().filter(|(of, at)| self.is_valid(*at) && !is_gone(of));
            let told: Vec<_> = told.map(|(of, _)| of).collect();
            let all = || told.iter().copied();
            Interfaces {
                by_address: all().flat_map(|of| of.addresses.iter().map(move |ip| (ip.to_canonical(), of))).collect(),
                by_prefix: all().flat_map(|of| of.prefixes.iter().map(move |net| (*net, of))).collect(),
            }
        });
        let by_prefix = || interfaces.by_prefix.iter().find(|(net, _)| net.contains(&ip)).map(|(_, of)| *of);
        interfaces.by_address.get(&ip).copied().or_else(by_prefix)
    }
}

pub(super) fn branches(pod: &PodFacts) -> &[BranchInterface] {
    match &pod.branch {
        Branch::Interfaces(branches) => branches,
        Branch::Absent | Branch::Malformed(_) => &[],
    }
}
