//! From a cgroup to who it is. Never guesses: a pod, a container, the host, or unknown with the reason.

use std::sync::Arc;

use crate::cgroup::{CgroupIdentity, CgroupIndex, MAX_CGROUPS, PodCgroup, ROOT_ID, parse};
use crate::cluster::Pods;
use crate::facts::PodFacts;
use crate::fast::FastMap;
use crate::output::{AttributionKind, Identity};
use crate::time::BootNs;

/// Hex digits of a container id as people write it.
const SHORT_ID_DIGITS: usize = 12;
/// Workload of host work that no unit stands for.
const HOST: &str = "host";

/// Why an identity is unknown: a closed set.
pub mod why {
    /// The cgroup was never announced, or is long gone.
    pub const CGROUP: &str = "cgroup not known";
    /// The path lies where pods lie and holds no uid.
    pub const POD_UID: &str = "cgroup path holds no pod uid";
    /// Containers here live in version 1 cgroups, and the process's path was not read in time.
    pub const VERSION_1: &str = "version 1 cgroup of the process not known";
    /// Totals of more cgroups than there is room for.
    pub const NO_ROOM: &str = "more cgroups than there is room for";
}

/// Who a cgroup is. `pod` names a pod once Kubernetes told; until then it shows its uid, as `pod-UID` in the workload.
///
/// The workload of a container outside Kubernetes is its short id (12 digits, as `docker ps` shows it), of a host
/// service its unit, of anything else on the host `host`. `container` shows a container's name once its pod's status
/// tells it, else its full id: a pod's sandbox, and containers too old or too young for the status, have no name.
pub fn identify(cgroup: &CgroupIdentity, pod: Option<&PodFacts>) -> Identity {
    match cgroup {
        CgroupIdentity::Pod(cgroup) => {
            let uid = cgroup.uid.clone();
            let id = cgroup.container.as_ref().map(|container| container.id.as_str()).unwrap_or_default();
            let container = pod.and_then(|pod| container_name(pod, id)).unwrap_or(id).to_owned();
            let (namespace, name, workload) = match pod {
                Some(pod) => (pod.namespace.to_string(), pod.name.to_string(), workload_of(pod).to_owned()),
                None => (String::new(), String::new(), format!("pod-{uid}")),
            };
            Identity { attribution: AttributionKind::Pod, why: None, namespace, pod: name, uid, container, workload }
        }
        CgroupIdentity::Container(container) => Identity {
            attribution: AttributionKind::Container,
            container: container.id.clone(),
            workload: container.id.get(..SHORT_ID_DIGITS).unwrap_or(&container.id).to_owned(),
            ..Identity::default()
        },
        CgroupIdentity::Unit(unit) => host(unit),
        CgroupIdentity::Root | CgroupIdentity::Other => host(HOST),
        CgroupIdentity::PodWithoutUid => unknown(why::POD_UID),
    }
}

/// Answers who a cgroup is, by id.
#[derive(Debug, Default)]
pub struct Attribution {
    index: CgroupIndex,
    /// At most [`MAX_CGROUPS`] identities made before; emptied when something changes that they may rest on.
    made: FastMap<u64, Arc<Identity>>,
    /// Revision of the pods that the identities were made with.
    made_with: u64,
    /// A process in the cgroup2 root was seen to be in a container: here the root proves nothing.
    containers_in_root: bool,
}

impl Attribution {
    /// A cgroup appeared, or was there already.
    pub fn present(&mut self, id: u64, path: &str) {
        if self.index.present(id, path) {
            self.made.remove(&id);
        }
    }

    /// A cgroup vanished.
    pub fn gone(&mut self, id: u64, time: BootNs) {
        self.index.gone(id, time);
    }

    /// Forgets what is long gone.
    pub fn expire(&mut self, now: BootNs) {
        if self.index.expire(now) {
            self.made.clear();
        }
    }

    /// A version 1 path of a process in the cgroup2 root.
    pub fn path_v1(&mut self, path: &str) -> Arc<CgroupIdentity> {
        let cgroup = parse(path);
        self.containers_in_root |=
            matches!(cgroup, CgroupIdentity::Pod(_) | CgroupIdentity::PodWithoutUid | CgroupIdentity::Container(_));
        Arc::new(cgroup)
    }

    /// Who a record's cgroup is; `v1` is the version 1 cgroup of the process behind it, where known.
    pub fn who(&mut self, cgroup_id: u64, v1: Option<&CgroupIdentity>, pods: &Pods) -> Arc<Identity> {
        match (cgroup_id, v1) {
            (ROOT_ID, Some(cgroup)) => Arc::new(identify(cgroup, facts_of(cgroup, pods))),
            (ROOT_ID, None) if self.containers_in_root => Arc::new(unknown(why::VERSION_1)),
            _ => self.cgroup(cgroup_id, pods),
        }
    }

    /// The pod's uid as a cgroup tells it, with the container's id: who a record is about, before anybody is asked for
    /// names.
    pub fn pod_cgroup(&self, cgroup_id: u64, v1: Option<&CgroupIdentity>) -> Option<PodCgroup> {
        match (cgroup_id, v1) {
            (ROOT_ID, Some(CgroupIdentity::Pod(cgroup))) => Some(cgroup.clone()),
            (ROOT_ID, _) => None,
            (id, _) => match &*self.index.get(id)? {
                CgroupIdentity::Pod(cgroup) => Some(cgroup.clone()),
                _ => None,
            },
        }
    }

    /// Who lives on this node now, silent ones included; an identity comes once for each of its cgroups. Containers in
    /// version 1 cgroups are not among them.
    pub fn living<'a>(&'a self, pods: &'a Pods) -> impl Iterator<Item = Identity> + 'a {
        self.index.living().map(|cgroup| identify(cgroup, facts_of(cgroup, pods)))
    }

    /// The uids of pods that have a cgroup.
    pub fn living_pods(&self) -> impl Iterator<Item = &str> {
        self.index.living().filter_map(|cgroup| match cgroup {
            CgroupIdentity::Pod(cgroup) => Some(cgroup.uid.as_str()),
            _ => None,
        })
    }

    /// The index of cgroups.
    pub fn index(&self) -> &CgroupIndex {
        &self.index
    }

    fn cgroup(&mut self, id: u64, pods: &Pods) -> Arc<Identity> {
        if self.made_with != pods.revision() {
            self.made.clear();
            self.made_with = pods.revision();
        }
        if let Some(identity) = self.made.get(&id) {
            return Arc::clone(identity);
        }
        let identity = match (self.index.get(id), id) {
            (Some(cgroup), _) => Arc::new(identify(&cgroup, facts_of(&cgroup, pods))),
            (None, agent_ebpf::shared::OVERFLOW_ACCOUNT) => return Arc::new(unknown(why::NO_ROOM)),
            // Not kept: it may be told later.
            (None, _) => return Arc::new(unknown(why::CGROUP)),
        };
        if self.made.len() >= MAX_CGROUPS {
            self.made.clear();
        }
        self.made.insert(id, Arc::clone(&identity));
        identity
    }
}

fn facts_of<'a>(cgroup: &CgroupIdentity, pods: &'a Pods) -> Option<&'a PodFacts> {
    match cgroup {
        CgroupIdentity::Pod(cgroup) => pods.of_cgroup(&cgroup.uid).map(|pod| &*pod.facts),
        _ => None,
    }
}

/// A container by its id, if the pod's status names it.
pub fn container_name<'a>(pod: &'a PodFacts, id: &str) -> Option<&'a str> {
    let named = pod.containers.iter().find(|container| container.ids.iter().any(|known| **known == *id));
    named.map(|container| &*container.name)
}

/// A pod's workload as rows and labels show it: its owner; itself when it has none; of a static pod its name without
/// the node's, which the kubelet appends.
pub fn workload_of(pod: &PodFacts) -> &str {
    let owner = &*pod.workload.name;
    match &*pod.workload.kind {
        "Node" => {
            let node = pod.node.as_deref().unwrap_or(owner);
            pod.name.strip_suffix(node).and_then(|name| name.strip_suffix('-')).unwrap_or(&pod.name)
        }
        _ if owner.is_empty() => &pod.name,
        _ => owner,
    }
}

fn host(workload: &str) -> Identity {
    Identity { attribution: AttributionKind::Host, workload: workload.to_owned(), ..Identity::default() }
}

fn unknown(why: &'static str) -> Identity {
    Identity { why: Some(why), ..Identity::default() }
}

#[cfg(test)]
mod tests;
