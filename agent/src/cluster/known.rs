//! What the cluster told last: what goes to disk, and what a change is compared with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use agent_core::facts::{
    ClusterFact, CniNodeFacts, CsiNodeFacts, GroupEvent, NetworkPolicyFacts, NodeFacts, PodFacts, PolicyFacts,
    ServiceAccountFacts, ServiceFacts, Source,
};
use agent_core::time::WallNs;
use serde::{Deserialize, Serialize};

/// Namespace and name.
pub(super) type Name = (Arc<str>, Arc<str>);

/// The facts. Pods are shared with whoever else holds them; all else is small, and belongs to this node's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) pods: Vec<Arc<PodFacts>>,
    pub(super) policies: Vec<Arc<PolicyFacts>>,
    /// The CRD of policies is there; `None`: not known.
    pub(super) policies_installed: Option<bool>,
    /// `None`: not known.
    #[serde(default)]
    pub(super) network_policies: Option<Vec<Arc<NetworkPolicyFacts>>>,
    pub(super) accounts: Vec<Arc<ServiceAccountFacts>>,
    #[serde(default)]
    pub(super) services: Vec<Arc<ServiceFacts>>,
    /// Where the API server listens.
    #[serde(default)]
    pub(super) api_endpoints: Vec<SocketAddr>,
    pub(super) node: Option<Arc<NodeFacts>>,
    #[serde(default)]
    pub(super) fleet_nodes: Option<u32>,
    pub(super) cni_node: Option<CniNodeFacts>,
    pub(super) csi_node: Option<CsiNodeFacts>,
    /// By the pod's uid.
    pub(super) events: BTreeMap<Arc<str>, Vec<GroupEvent>>,
    /// Each source's last moment.
    pub(super) fresh_at: BTreeMap<Source, WallNs>,
}

// === impl Known ===

impl Known {
    /// Takes a fact in; whether it says anything new.
    pub(super) fn take(&mut self, fact: &ClusterFact) -> bool {
        match fact {
            ClusterFact::PodsReplaced(pods) => {
                let new = self.pods != *pods;
                self.pods.clone_from(pods);
                let uids: std::collections::BTreeSet<_> = self.pods.iter().filter_map(|pod| pod.uid.clone()).collect();
                self.events.retain(|uid, _| uids.contains(uid));
                new
            }
            ClusterFact::Pod(pod) => put(&mut self.pods, pod, |pod| pod.uid.clone()),
            ClusterFact::PodGone { uid } => {
                self.events.remove(uid);
                remove(&mut self.pods, |pod| pod.uid.as_ref() == Some(uid))
            }
            ClusterFact::PoliciesReplaced { policies, installed } => {
                let new = self.policies != *policies || self.policies_installed != Some(*installed);
                self.policies.clone_from(policies);
                self.policies_installed = Some(*installed);
                new
            }
            ClusterFact::Policy(policy) => {
                put(&mut self.policies, policy, |policy| name(&policy.namespace, &policy.name))
            }
            ClusterFact::PolicyGone { namespace, name } => {
                remove(&mut self.policies, |policy| policy.namespace == *namespace && policy.name == *name)
            }
            ClusterFact::NetworkPoliciesReplaced(policies) => {
                let new = self.network_policies.as_ref() != Some(policies);
                self.network_policies = Some(policies.clone());
                new
            }
            ClusterFact::ServicesReplaced(services) => {
                let new = self.services != *services;
                self.services.clone_from(services);
                new
            }
            ClusterFact::Service(service) => {
                put(&mut self.services, service, |service| name(&service.namespace, &service.name))
            }
            ClusterFact::ServiceGone { namespace, name } => {
                remove(&mut self.services, |service| service.namespace == *namespace && service.name == *name)
            }
            ClusterFact::ApiEndpoints(endpoints) => {
                let new = self.api_endpoints != *endpoints;
                self.api_endpoints.clone_from(endpoints);
                new
            }
            ClusterFact::ServiceAccount(account) => {
                put(&mut self.accounts, account, |account| name(&account.namespace, &account.name))
            }
            ClusterFact::ServiceAccountGone { namespace, name } => {
                remove(&mut self.accounts, |account| account.namespace == *namespace && account.name == *name);
                // That it is not there is news also when it was not known.
                true
            }
            ClusterFact::Node(node) => self.node.replace(Arc::clone(node)).as_ref() != Some(node),
            ClusterFact::FleetNodes(nodes) => self.fleet_nodes.replace(*nodes) != Some(*nodes),
            ClusterFact::CniNode(node) => {
                // That there is none is news when nobody has said so yet.
                let new = self.cni_node != *node || !self.fresh_at.contains_key(&Source::CniNode);
                self.cni_node.clone_from(node);
                new
            }
            ClusterFact::CsiNode(node) => {
                let new = self.csi_node != *node || !self.fresh_at.contains_key(&Source::CsiNode);
                self.csi_node.clone_from(node);
                new
            }
            ClusterFact::GroupEvents { uid, events } => {
                self.events.insert(Arc::clone(uid), events.clone()).as_ref() != Some(events)
            }
            ClusterFact::Source { source, fresh_at: Some(at), .. } => {
                self.fresh_at.insert(*source, *at);
                false
            }
            ClusterFact::Source { .. }
            | ClusterFact::RemotePod(_)
            | ClusterFact::Malformed { .. }
            | ClusterFact::NoRoom { .. } => false,
        }
    }

    /// All of it as facts, for a start without the API.
    pub(super) fn facts(&self) -> Vec<ClusterFact> {
        let mut facts = vec![ClusterFact::PodsReplaced(self.pods.clone())];
        if let Some(installed) = self.policies_installed {
            facts.push(ClusterFact::PoliciesReplaced { policies: self.policies.clone(), installed });
        }
        facts.extend(self.network_policies.clone().map(ClusterFact::NetworkPoliciesReplaced));
        facts.extend(self.accounts.iter().map(|account| ClusterFact::ServiceAccount(Arc::clone(account))));
        if !self.services.is_empty() {
            facts.push(ClusterFact::ServicesReplaced(self.services.clone()));
            facts.push(ClusterFact::ApiEndpoints(self.api_endpoints.clone()));
        }
        facts.extend(self.node.iter().map(|node| ClusterFact::Node(Arc::clone(node))));
        facts.extend(self.fleet_nodes.map(ClusterFact::FleetNodes));
        // Of these an absent one is known only by a source that answered.
        if self.fresh_at.contains_key(&Source::CniNode) {
            facts.push(ClusterFact::CniNode(self.cni_node.clone()));
        }
        if self.fresh_at.contains_key(&Source::CsiNode) {
            facts.push(ClusterFact::CsiNode(self.csi_node.clone()));
        }
        let events = self.events.iter();
        facts.extend(
            events.map(|(uid, events)| ClusterFact::GroupEvents { uid: Arc::clone(uid), events: events.clone() }),
        );
        facts
    }
}

fn name(namespace: &Arc<str>, name: &Arc<str>) -> Name {
    (Arc::clone(namespace), Arc::clone(name))
}

/// Puts a thing in the place of the one with the same key; whether that is new.
fn put<T: PartialEq, K: PartialEq>(all: &mut Vec<Arc<T>>, thing: &Arc<T>, key: impl Fn(&T) -> K) -> bool {
    match all.iter_mut().find(|known| key(known) == key(thing)) {
        Some(known) if **known == **thing => false,
        Some(known) => {
            *known = Arc::clone(thing);
            true
        }
        None => {
            all.push(Arc::clone(thing));
            true
        }
    }
}

fn remove<T>(all: &mut Vec<Arc<T>>, is: impl Fn(&T) -> bool) -> bool {
    let before = all.len();
    all.retain(|thing| !is(thing));
    all.len() != before
}
