//! Versions of the cluster's objects: what a fact changed of what is known, as rows.
//!
//! What is known before and after a fact is compared, and not the fact with what was told last: a fact that is left out (of
//! another node, beyond a bound, contradicting another) then makes no row, and no second table grows here.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha1::{Digest as _, Sha1};

use crate::attribution::workload_of;
use crate::cluster::{Cluster, Found};
use crate::facts::{ClusterFact, PodFacts};
use crate::output::{Change, ObjectFacts, ObjectKind, ObjectRow, Output};
use crate::time::WallNs;

/// What is known of the objects that a fact is about.
#[derive(Debug)]
pub(crate) struct Known {
    scope: Scope,
    objects: Objects,
}

/// Kind, namespace and name; pods have their uid as well, for a name may come back.
type Key = (ObjectKind, Arc<str>, Arc<str>, Option<Arc<str>>);
type Objects = BTreeMap<Key, ObjectFacts>;

/// Which objects a fact may change.
#[derive(Debug)]
enum Scope {
    Nothing,
    Pods,
    Pod(Arc<str>),
    Policies,
    Policy(Arc<str>, Arc<str>),
    NetworkPolicies,
    Account(Arc<str>, Arc<str>),
}

impl Known {
    /// Before a fact is learned.
    pub(crate) fn before(cluster: &Cluster, fact: &ClusterFact) -> Self {
        let name = |namespace: &Arc<str>, name: &Arc<str>| (Arc::clone(namespace), Arc::clone(name));
        let scope = match fact {
            // The node's own name tells which pods are of others.
            ClusterFact::PodsReplaced(_) | ClusterFact::Node(_) => Scope::Pods,
            ClusterFact::Pod(pod) => pod.uid.clone().map_or(Scope::Nothing, Scope::Pod),
            ClusterFact::PodGone { uid } => Scope::Pod(Arc::clone(uid)),
            ClusterFact::PoliciesReplaced { .. } => Scope::Policies,
            ClusterFact::Policy(policy) => {
                let (namespace, name) = name(&policy.namespace, &policy.name);
                Scope::Policy(namespace, name)
            }
            ClusterFact::PolicyGone { namespace, name: of } => {
                let (namespace, name) = name(namespace, of);
                Scope::Policy(namespace, name)
            }
            ClusterFact::NetworkPoliciesReplaced(_) => Scope::NetworkPolicies,
            ClusterFact::ServiceAccount(account) => {
                let (namespace, name) = name(&account.namespace, &account.name);
                Scope::Account(namespace, name)
            }
            ClusterFact::ServiceAccountGone { namespace, name: of } => {
                let (namespace, name) = name(namespace, of);
                Scope::Account(namespace, name)
            }
            ClusterFact::CniNode(_)
            | ClusterFact::CsiNode(_)
            | ClusterFact::GroupEvents { .. }
            | ClusterFact::RemotePod(_)
            | ClusterFact::ServicesReplaced(_)
            | ClusterFact::Service(_)
            | ClusterFact::ServiceGone { .. }
            | ClusterFact::ApiEndpoints(_)
            | ClusterFact::FleetNodes(_)
            | ClusterFact::Source { .. }
            | ClusterFact::Malformed { .. }
            | ClusterFact::NoRoom { .. } => Scope::Nothing,
        };
        let objects = scope.look(cluster);
        Self { scope, objects }
    }

    /// After it was learned: a row for each object that is not what it was.
    pub(crate) fn tell(self, cluster: &Cluster, time: WallNs, outputs: &mut Vec<Output>) {
        let Self { scope, objects: mut before } = self;
        for (key, facts) in scope.look(cluster) {
            let row = match before.remove(&key) {
                Some(known) if known == facts => continue,
                Some(known) => {
                    let digest = digest(&facts);
                    if self::digest(&known) == digest {
                        continue;
                    }
                    let changed = differences(&known, &facts);
                    ObjectRow { changed, ..row(time, Change::Changed, &facts, digest) }
                }
                None => row(time, Change::Seen, &facts, digest(&facts)),
            };
            outputs.push(Output::Object(Box::new(row)));
        }
        for facts in before.values() {
            let row = ObjectRow { facts: None, ..row(time, Change::Gone, facts, 0) };
            outputs.push(Output::Object(Box::new(row)));
        }
    }
}

impl Scope {
    fn look(&self, cluster: &Cluster) -> Objects {
        let mut objects = Objects::new();
        let mut add = |facts: ObjectFacts| {
            let (namespace, name) = facts.name();
            let key = (facts.object(), Arc::clone(namespace), Arc::clone(name), facts.uid().cloned());
            let key = if key.0 == ObjectKind::Pod { key } else { (key.0, key.1, key.2, None) };
            objects.insert(key, facts);
        };
        match self {
            Self::Nothing => {}
            Self::Pods => cluster.pods().present().for_each(|pod| add(ObjectFacts::Pod(Arc::clone(&pod.facts)))),
            Self::Pod(uid) => {
                if let Some(pod) = cluster.pods().by_uid(uid).filter(|pod| pod.is_present()) {
                    add(ObjectFacts::Pod(Arc::clone(&pod.facts)));
                }
            }
            Self::Policies => {
                cluster
                    .policies()
                    .into_iter()
                    .flatten()
                    .for_each(|policy| add(ObjectFacts::SecurityGroupPolicy(policy)));
            }
            Self::Policy(namespace, name) => {
                if let Some(policy) = cluster.policy(namespace, name) {
                    add(ObjectFacts::SecurityGroupPolicy(Arc::clone(policy)));
                }
            }
            Self::NetworkPolicies => {
                // Not what a controller makes of them: it follows the policies, and no version of it is anybody's doing.
                let policies = cluster.network_policies().into_iter().flatten();
                let policies = policies.filter(|policy| policy.made_of.is_none());
                policies.for_each(|policy| add(ObjectFacts::NetworkPolicy(Arc::clone(policy))));
            }
            Self::Account(namespace, name) => {
                if let Some(Found::Present(account)) = cluster.account(namespace, name) {
                    add(ObjectFacts::ServiceAccount(Arc::clone(account)));
                }
            }
        }
        objects
    }
}

fn row(time: WallNs, change: Change, facts: &ObjectFacts, digest: u64) -> ObjectRow {
    let (namespace, name) = facts.name();
    let workload = match facts {
        ObjectFacts::Pod(pod) => workload_of(pod).into(),
        _ => Arc::default(),
    };
    ObjectRow {
        time,
        object: facts.object(),
        change,
        namespace: Arc::clone(namespace),
        name: Arc::clone(name),
        uid: facts.uid().cloned(),
        workload,
        changed: Vec::new(),
        facts: Some(facts.clone()),
        digest,
    }
}

/// What lasts of the facts: without what changes with every probe of the kubelet, which makes no version.
fn lasting(facts: &ObjectFacts) -> ObjectFacts {
    let ObjectFacts::Pod(pod) = facts else { return facts.clone() };
    let mut pod = PodFacts::clone(pod);
    pod.ready = false;
    for container in &mut pod.containers {
        (container.running, container.started) = (false, false);
    }
    ObjectFacts::Pod(Arc::new(pod))
}

/// Half of a SHA-1 of what lasts: the same on every machine and in every run.
fn digest(facts: &ObjectFacts) -> u64 {
    // Facts have no maps with keys that are no strings, which is what JSON cannot hold.
    let json = serde_json::to_vec(&lasting(facts)).unwrap_or_default();
    let sum: [u8; 20] = Sha1::digest(&json).into();
    sum.first_chunk().copied().map_or(0, u64::from_be_bytes)
}

/// Names of the facts that differ.
fn differences(before: &ObjectFacts, after: &ObjectFacts) -> Vec<String> {
    let fields = |facts: &ObjectFacts| match serde_json::to_value(lasting(facts)) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (fields(before), fields(after));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

#[cfg(test)]
mod tests;
