//! What is known of the clients: their pods as objects told, and the node's own addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Name, Network, Own};
use crate::attribution::workload_of;
use crate::facts::{ContainerFacts, ContainerKind, PodFacts, ServiceAccountFacts};
use crate::finding::is_mesh_container;
use crate::output::{AttributionKind, Change, MetadataRow, ObjectFacts, ObjectRow, Window};
use crate::papers::Account;
use crate::papers::identity::{self, Kind};
use crate::time::WallNs;

/// Pods of the whole history, at about 3 KiB: 48 MiB. A node that replaces a pod a minute has 1,440 a day.
const MAX_PODS: usize = 16_384;
/// Accounts, at about 1 KiB.
const MAX_ACCOUNTS: usize = 4_096;
/// Addresses of the node: two families, an interface each.
const MAX_ADDRESSES: usize = 256;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By uid.
    pods: BTreeMap<Arc<str>, Pod>,
    /// Uids by the hash that a static pod's cgroup carries.
    hashes: BTreeMap<Arc<str>, Arc<str>>,
    accounts: BTreeMap<(Arc<str>, Arc<str>), Read>,
    node: BTreeSet<String>,
    /// Pods that found no room.
    pub(super) left_out: u64,
}

/// When it was read, and what it said.
type Read = (WallNs, Arc<ServiceAccountFacts>);

#[derive(Debug)]
struct Pod {
    /// As it was last.
    facts: Option<Arc<PodFacts>>,
    at: WallNs,
    gone: Option<WallNs>,
}

impl Known {
    pub(super) fn object(&mut self, row: &ObjectRow) {
        match &row.facts {
            Some(ObjectFacts::ServiceAccount(account)) => {
                let key = (Arc::clone(&row.namespace), Arc::clone(&row.name));
                if self.accounts.len() < MAX_ACCOUNTS || self.accounts.contains_key(&key) {
                    let known = self.accounts.entry(key).or_insert_with(|| (row.time, Arc::clone(account)));
                    if row.time >= known.0 {
                        *known = (row.time, Arc::clone(account));
                    }
                }
            }
            Some(ObjectFacts::Pod(facts)) => {
                if facts.host_network {
                    facts.ips.iter().for_each(|ip| self.node_address(Some(&ip.to_string())));
                }
                self.pod(row, Some(facts));
            }
            None if row.change == Change::Gone => self.pod(row, None),
            _ => {}
        }
    }

    fn pod(&mut self, row: &ObjectRow, facts: Option<&Arc<PodFacts>>) {
        let Some(uid) = &row.uid else { return };
        if self.pods.len() >= MAX_PODS && !self.pods.contains_key(uid) {
            self.left_out += 1;
            return;
        }
        if let Some(hash) = facts.and_then(|facts| facts.config_hash.as_ref()) {
            self.hashes.insert(Arc::clone(hash), Arc::clone(uid));
        }
        let pod = self.pods.entry(Arc::clone(uid)).or_insert(Pod { facts: None, at: row.time, gone: None });
        match facts {
            None => pod.gone = Some(row.time),
            Some(facts) => {
                if row.time >= pod.at || pod.facts.is_none() {
                    (pod.facts, pod.at) = (Some(Arc::clone(facts)), row.time);
                }
                // It was there again after a list had missed it.
                pod.gone = pod.gone.filter(|gone| *gone > row.time);
            }
        }
    }

    pub(super) fn node_address(&mut self, ip: Option<&str>) {
        if let Some(ip) = ip
            && self.node.len() < MAX_ADDRESSES
        {
            self.node.insert(ip.to_owned());
        }
    }

    /// The pod that made a request.
    fn facts(&self, row: &MetadataRow) -> Option<&Arc<PodFacts>> {
        let uid = row.who.identity.uid.as_str();
        let pod = self.pods.get(uid).or_else(|| self.pods.get(self.hashes.get(uid)?));
        pod.and_then(|pod| pod.facts.as_ref())
    }

    /// Who made a request. A row that was told before its pod had a name gets it here.
    pub(super) fn name(&self, row: &MetadataRow) -> Name {
        let identity = &row.who.identity;
        match self.facts(row).filter(|_| identity.pod.is_empty()) {
            Some(pod) => Name { namespace: pod.namespace.to_string(), workload: workload_of(pod).to_owned() },
            None => Name { namespace: identity.namespace.clone(), workload: identity.workload.clone() },
        }
    }

    pub(super) fn network(&self, row: &MetadataRow) -> Network {
        match (row.who.identity.attribution, self.facts(row)) {
            (AttributionKind::Host, _) => Network::Node,
            (AttributionKind::Unknown, _) => Network::Unknown,
            (_, Some(pod)) => {
                if pod.host_network {
                    Network::Node
                } else {
                    Network::Own
                }
            }
            // Whoever has the node's address is on its network; whoever has another one is not.
            (_, None) => match row.local.ip.as_ref().filter(|_| !self.node.is_empty()) {
                None => Network::Unknown,
                Some(ip) if self.node.contains(ip) => Network::Node,
                Some(_) => Network::Own,
            },
        }
    }

    /// Behind a mesh's proxy any container of the pod may have asked: all of them must have an identity then.
    pub(super) fn own(&self, row: &MetadataRow) -> Own {
        let who = &row.who.identity;
        if who.attribution == AttributionKind::Host {
            return Own::No;
        }
        let Some(pod) = self.facts(row) else { return Own::Unknown };
        let named = pod.containers.iter().find(|container| *container.name == *who.container);
        let asked = named.filter(|container| !is_mesh_container(&container.name));
        let may_have_asked: Vec<&ContainerFacts> = if let Some(container) = asked {
            vec![container]
        } else {
            let long_lived = pod.containers.iter().filter(|container| container.kind == ContainerKind::App);
            long_lived.filter(|container| !is_mesh_container(&container.name)).collect()
        };
        let key = (Arc::clone(&pod.namespace), Arc::clone(&pod.service_account));
        let account = self.accounts.get(&key).map_or(Account::Unknown, |(_, account)| Account::Known(account));
        // The one that is worst off: `Own` is in that order.
        may_have_asked.into_iter().map(|container| own(pod, container, account)).max().unwrap_or(Own::Unknown)
    }

    /// Workloads with a pod in a span, and names of their pods.
    pub(super) fn alive(&self, span: Window) -> BTreeMap<Name, BTreeSet<String>> {
        let mut alive: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
        for pod in self.pods.values().filter(|pod| pod.gone.is_none_or(|gone| gone >= span.start)) {
            let Some(facts) = pod.facts.as_ref().filter(|facts| facts.created.is_none_or(|at| at <= span.end)) else {
                continue;
            };
            let name = Name { namespace: facts.namespace.to_string(), workload: workload_of(facts).to_owned() };
            alive.entry(name).or_default().insert(facts.name.to_string());
        }
        alive
    }
}

fn own(pod: &PodFacts, container: &ContainerFacts, account: Account<'_>) -> Own {
    let identity = identity::of_container(pod, container, account);
    match identity.kind {
        Kind::Irsa => Own::Irsa,
        Kind::PodIdentity => Own::PodIdentity,
        Kind::Static => Own::Static,
        Kind::Unknown => Own::Unknown,
        Kind::NodeRole | Kind::None if identity.missed.is_some() => Own::Missed,
        Kind::NodeRole | Kind::None => Own::No,
    }
}
