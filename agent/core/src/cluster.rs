//! What is known of the cluster and of the node's own side of its pods: facts as they were told last, with their age.
//!
//! Memory follows the pods of this node, not the cluster. A fact that contradicts itself (one uid for two pods) names
//! nobody. Whatever is left out is counted.

mod host;
mod pods;
mod remote;
mod services;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::facts::{
    ClusterFact, CniNodeFacts, CsiNodeFacts, GroupEvent, NetworkPolicyFacts, NodeFacts, PolicyFacts,
    ServiceAccountFacts, Source,
};
use crate::fast::FastMap;
use crate::time::{BootNs, WallNs};

pub use self::host::HostSide;
pub use self::pods::{MAX_PODS, Pod, Pods, REMEMBER_GONE_NS};
pub use self::remote::{MAX_REMOTE, REMOTE_VALID_NS};
pub use self::services::{MAX_SERVICES, Services};

/// Most policies kept. Those of namespaces without a pod here are left out at the edge; a namespace has a handful. At
/// about 1 KiB each: 4 MiB.
pub const MAX_POLICIES: usize = 4_096;
/// Most service accounts kept: one for each pod, and as many again that are not used any more. At about 1 KiB: 2 MiB.
pub const MAX_ACCOUNTS: usize = 2_048;
/// Most events kept of one pod: the controller writes three at a creation, and one more for each failure.
const MAX_EVENTS: usize = 32;

/// How long names are given by a source that does not answer any more: five minutes.
const RECENT_NS: i64 = 300 * 1_000_000_000;

/// Namespace and name.
type ObjectName = (Arc<str>, Arc<str>);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Cluster {
    pods: Pods,
    policies: BTreeMap<ObjectName, Arc<PolicyFacts>>,
    policies_told: bool,
    policies_installed: bool,
    network_policies: Option<Vec<Arc<NetworkPolicyFacts>>>,
    accounts: FastMap<ObjectName, Found<Arc<ServiceAccountFacts>>>,
    node: Option<Arc<NodeFacts>>,
    fleet_nodes: Option<u32>,
    cni_node: Option<Found<CniNodeFacts>>,
    csi_node: Option<Found<CsiNodeFacts>>,
    events: FastMap<Arc<str>, Vec<GroupEvent>>,
    remote: remote::RemotePods,
    services: Services,
    sources: BTreeMap<Source, Standing>,
    counts: Counts,
}

/// What a look for an object found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// It is not there.
    Absent,
    /// As it was read last.
    Present(T),
}

impl<T> From<Option<T>> for Found<T> {
    fn from(object: Option<T>) -> Self {
        object.map_or(Self::Absent, Self::Present)
    }
}

/// How a source stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The last moment at which what it told was known to be current.
    pub fresh_at: Option<WallNs>,
    /// Why it does not answer; `None` while it does.
    pub error: Option<String>,
    /// Objects of it that could not be read.
    pub malformed: u64,
}

/// What was left out, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pods without a uid: not admitted, so nothing runs as them.
    pub without_uid: u64,
    /// Pods of other nodes.
    pub other_node: u64,
    /// Uids, or hashes of static pods, that several pods claimed.
    pub contradicted: u64,
    /// Facts beyond a bound.
    pub no_room: u64,
    /// Objects that could not be read.
    pub malformed: u64,
}

impl Counts {
    /// By names for rows and labels.
    pub fn by_reason(&self) -> [(&'static str, u64); 5] {
        let Self { without_uid, other_node, contradicted, no_room, malformed } = *self;
        [
            ("without_uid", without_uid),
            ("other_node", other_node),
            ("contradicted", contradicted),
            ("no_room", no_room),
            ("malformed", malformed),
        ]
    }
}

impl Cluster {
    /// Takes in what the cluster tells.
    pub fn learn(&mut self, fact: ClusterFact, now: BootNs) {
        match fact {
            ClusterFact::PodsReplaced(pods) => {
                self.pods.replace(pods, self.node_name().as_ref(), now, &mut self.counts);
                let pods = &self.pods;
                self.events.retain(|uid, _| pods.by_uid(uid).is_some());
            }
            ClusterFact::Pod(pod) => self.pods.put(pod, self.node_name().as_ref(), now, &mut self.counts),
            ClusterFact::PodGone { uid } => {
                self.pods.gone(&uid, now);
                self.events.remove(&uid);
            }
            ClusterFact::PoliciesReplaced { policies, installed } => {
                (self.policies_told, self.policies_installed) = (true, installed);
                self.policies.clear();
                for policy in policies {
                    self.put_policy(policy);
                }
            }
            ClusterFact::Policy(policy) => {
                self.policies_installed = true;
                self.put_policy(policy);
            }
            ClusterFact::PolicyGone { namespace, name } => {
                self.policies.remove(&(namespace, name));
            }
            ClusterFact::NetworkPoliciesReplaced(mut policies) => {
                self.counts.no_room += policies.len().saturating_sub(MAX_POLICIES) as u64;
                policies.truncate(MAX_POLICIES);
                self.network_policies = Some(policies);
            }
            ClusterFact::ServicesReplaced(services) => self.services.replace(services, &mut self.counts),
            ClusterFact::Service(service) => self.services.put(service, &mut self.counts),
            ClusterFact::ServiceGone { namespace, name } => self.services.gone(&(namespace, name)),
            ClusterFact::ApiEndpoints(endpoints) => self.services.api(endpoints, &mut self.counts),
            ClusterFact::ServiceAccount(account) => {
                let key = (Arc::clone(&account.namespace), Arc::clone(&account.name));
                self.put_account(key, Found::Present(account));
            }
            ClusterFact::ServiceAccountGone { namespace, name } => {
                self.put_account((namespace, name), Found::Absent);
            }
            ClusterFact::Node(node) => {
                let renamed = self.node.as_ref().is_none_or(|known| known.name != node.name);
                self.node = Some(node);
                if renamed {
                    self.pods.leave_out_other_nodes(self.node_name().as_ref(), now, &mut self.counts);
                }
            }
            ClusterFact::FleetNodes(nodes) => self.fleet_nodes = Some(nodes),
            ClusterFact::CniNode(node) => self.cni_node = Some(node.into()),
            ClusterFact::CsiNode(node) => self.csi_node = Some(node.into()),
            ClusterFact::GroupEvents { uid, mut events } => {
                // Of a pod that is not known nothing is kept: whoever asks for events asks for pods first.
                if self.pods.by_uid(&uid).is_some() {
                    self.counts.no_room += events.len().saturating_sub(MAX_EVENTS) as u64;
                    events.truncate(MAX_EVENTS);
                    self.events.insert(uid, events);
                }
            }
            ClusterFact::RemotePod(pod) => self.remote.put(&pod, now),
            ClusterFact::Source { source, fresh_at, error } => {
                let standing = self.sources.entry(source).or_default();
                (standing.fresh_at, standing.error) = (fresh_at, error);
            }
            ClusterFact::Malformed { source, object: _, why: _ } => {
                self.counts.malformed += 1;
                self.sources.entry(source).or_default().malformed += 1;
            }
            ClusterFact::NoRoom { source: _, objects } => {
                self.counts.no_room = self.counts.no_room.saturating_add(objects);
            }
        }
    }

    /// Forgets pods that are long gone, and what belonged to them.
    pub fn expire(&mut self, now: BootNs) {
        self.pods.expire(now);
        self.remote.expire(now);
    }

    /// The pods of this node.
    pub fn pods(&self) -> &Pods {
        &self.pods
    }

    /// How many nodes the cluster has; `None`: not told.
    pub fn fleet_nodes(&self) -> Option<u32> {
        self.fleet_nodes
    }

    /// Whether anybody tells pods: a first list came, or somebody tries to get one.
    pub fn is_watched(&self) -> bool {
        self.pods.is_told() || self.sources.contains_key(&Source::Pods)
    }

    /// Services by their addresses.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Whether what a source told may still be taken for so: it stands, or did until a moment ago.
    pub fn is_recent(&self, source: Source, now: WallNs) -> bool {
        self.sources.get(&source).is_some_and(|standing| {
            standing.error.is_none() || standing.fresh_at.is_some_and(|at| now.0.saturating_sub(at.0) <= RECENT_NS)
        })
    }

    /// All policies by namespace and name; `None`: nobody has told them yet.
    pub fn policies(&self) -> Option<Vec<Arc<PolicyFacts>>> {
        self.policies_told.then(|| self.policies.values().cloned().collect())
    }

    /// A policy by namespace and name; `None`: there is none, or nobody has told.
    pub fn policy(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<&Arc<PolicyFacts>> {
        self.policies.get(&(Arc::clone(namespace), Arc::clone(name)))
    }

    /// All network policies; `None`: nobody has told them yet.
    pub fn network_policies(&self) -> Option<&[Arc<NetworkPolicyFacts>]> {
        self.network_policies.as_deref()
    }

    /// Whether some network policies may be missing among those told: whoever reads them has trouble just now.
    pub fn network_policies_may_be_missing(&self) -> bool {
        self.sources.get(&Source::NetworkPolicies).is_some_and(|standing| standing.error.is_some())
    }

    /// Whether the CRD of policies is installed; `None`: nobody has told yet.
    pub fn policies_installed(&self) -> Option<bool> {
        self.policies_told.then_some(self.policies_installed)
    }

    /// A service account; `None`: not read yet.
    pub fn account(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<&Found<Arc<ServiceAccountFacts>>> {
        self.accounts.get(&(Arc::clone(namespace), Arc::clone(name)))
    }

    /// This node.
    pub fn node(&self) -> Option<&Arc<NodeFacts>> {
        self.node.as_ref()
    }

    /// This node's `CNINode`; `None`: not told yet.
    pub fn cni_node(&self) -> Option<&Found<CniNodeFacts>> {
        self.cni_node.as_ref()
    }

    /// This node's `CSINode`; `None`: not told yet.
    pub fn csi_node(&self) -> Option<&Found<CsiNodeFacts>> {
        self.csi_node.as_ref()
    }

    /// What the controller's events about a pod said; `None`: not asked yet.
    pub fn events(&self, uid: &str) -> Option<&[GroupEvent]> {
        self.events.get(uid).map(Vec::as_slice)
    }

    /// Who has a remote address, if that was looked up lately.
    pub fn remote(&self, ip: std::net::IpAddr, now: BootNs) -> Option<&crate::facts::RemotePodName> {
        self.remote.get(ip, now)
    }

    /// How each source stands that has told so.
    pub fn sources(&self) -> impl Iterator<Item = (Source, &Standing)> {
        self.sources.iter().map(|(source, standing)| (*source, standing))
    }

    /// What was left out.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn node_name(&self) -> Option<Arc<str>> {
        self.node.as_ref().map(|node| Arc::clone(&node.name))
    }

    fn put_policy(&mut self, policy: Arc<PolicyFacts>) {
        let key = (Arc::clone(&policy.namespace), Arc::clone(&policy.name));
        if self.policies.len() >= MAX_POLICIES && !self.policies.contains_key(&key) {
            self.counts.no_room += 1;
            return;
        }
        self.policies.insert(key, policy);
    }

    fn put_account(&mut self, key: ObjectName, account: Found<Arc<ServiceAccountFacts>>) {
        if self.accounts.len() >= MAX_ACCOUNTS && !self.accounts.contains_key(&key) {
            // Accounts of pods that are gone are what nobody misses.
            let pods = &self.pods;
            self.accounts.retain(|(namespace, name), _| pods.uses_account(namespace, name));
            if self.accounts.len() >= MAX_ACCOUNTS {
                self.counts.no_room += 1;
                return;
            }
        }
        self.accounts.insert(key, account);
    }
}

#[cfg(test)]
mod tests;
