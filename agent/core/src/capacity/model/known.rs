//! What the cluster told of this node and its pods.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::settings::Shape;
use super::told::Told;
use super::waiting::{Waiting, WaitingPod};
use crate::capacity::instances::{InstanceType, instance_type};
use crate::capacity::{CniEnvironment, Scope};
use crate::facts::{Branch, ClusterFact, CniNodeFacts, CsiNodeFacts, Ec2Fact, NodeFacts, Phase, PodFacts, Source};
use crate::finding::Subject;
use crate::time::{BootNs, Clock};

/// Most pods: four times what EKS recommends for the largest types. The facts are shared, so an entry is about 100 bytes.
const MAX_PODS: usize = 1_024;
/// Most branch interfaces that cool down: types carry up to 120, and a place is free again only after its turn.
const MAX_COOLING: usize = 512;
/// A branch interface of a pod that is gone is kept for 60 s unless configured otherwise, and a loop of 30 s deletes it.
const BRANCH_COOLDOWN_NS: u64 = 90_000_000_000;
/// What the cluster told counts for so long after it was last known to be current.
const FRESH_S: u64 = 900;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Known {
    pods: Option<BTreeMap<Arc<str>, Arc<PodFacts>>>,
    node: Option<Arc<NodeFacts>>,
    csi: Option<CsiNodeFacts>,
    cni: Option<CniNodeFacts>,
    cooling: VecDeque<BootNs>,
    waiting: Waiting,
    told: Told,
    /// When a source was last known to be current.
    fresh: BTreeMap<Source, Fresh>,
    refused: u64,
}

/// When something was current, as boot time, which nobody sets.
#[derive(Clone, Copy, Debug)]
struct Fresh {
    at: BootNs,
    /// The source said so itself.
    said: bool,
}

impl Known {
    pub(super) fn cluster(&mut self, fact: &ClusterFact, now: BootNs, clock: Clock) {
        match fact {
            ClusterFact::PodsReplaced(pods) => {
                let before = self.pods.replace(BTreeMap::new()).unwrap_or_default();
                for pod in pods {
                    self.put(Arc::clone(pod), now);
                }
                self.waiting.retain(|uid| self.pods.as_ref().is_some_and(|pods| pods.contains_key(uid)));
                for (key, pod) in before {
                    let after = self.pods.as_ref().and_then(|pods| pods.get(&key)).map(Arc::clone);
                    self.cool(&pod, after.as_deref(), now);
                }
                self.heard(Source::Pods, now);
            }
            ClusterFact::Pod(pod) => {
                let before = self.put(Arc::clone(pod), now);
                if let Some(before) = before {
                    self.cool(&before, Some(pod), now);
                }
                self.heard(Source::Pods, now);
            }
            ClusterFact::PodGone { uid } => {
                self.waiting.gone(uid);
                if let Some(gone) = self.pods.as_mut().and_then(|pods| pods.remove(uid)) {
                    self.cool(&gone, None, now);
                }
                self.heard(Source::Pods, now);
            }
            ClusterFact::Node(node) => {
                self.node = Some(Arc::clone(node));
                self.heard(Source::Node, now);
            }
            ClusterFact::CniNode(cni) => self.cni.clone_from(cni),
            ClusterFact::CsiNode(csi) => {
                self.csi.clone_from(csi);
                self.heard(Source::CsiNode, now);
            }
            ClusterFact::Source { source, fresh_at: Some(fresh_at), .. } => {
                let age_ns = u64::try_from(clock.wall(now).0.saturating_sub(fresh_at.0)).unwrap_or(0);
                let at = BootNs(now.0.saturating_sub(age_ns));
                self.fresh.insert(*source, Fresh { at, said: true });
            }
            _ => {}
        }
    }

    pub(super) fn ec2(&mut self, fact: &Ec2Fact) {
        self.told.learn(fact);
    }

    /// What EC2 told.
    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    pub(super) fn expire(&mut self, now: BootNs) {
        while self.cooling.front().is_some_and(|at| now.since(*at) > BRANCH_COOLDOWN_NS) {
            self.cooling.pop_front();
        }
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Seconds since what a source told was current; `None`: too long ago, or it never told anything.
    pub(super) fn age_s(&self, source: Source, now: BootNs) -> Option<u64> {
        let age_s = now.since(self.fresh.get(&source)?.at) / 1_000_000_000;
        (age_s <= FRESH_S).then_some(age_s)
    }

    /// Pods that take their places: those that have not ended. `None`: nobody told of pods.
    pub(super) fn pods(&self) -> Option<impl Iterator<Item = &PodFacts>> {
        let pods = self.pods.as_ref()?;
        Some(pods.values().map(|pod| &**pod).filter(|pod| takes_place(pod)))
    }

    /// Pods that have waited for their sandbox for too long; `None`: nobody told of pods.
    pub(super) fn waiting(&self, now: BootNs) -> Option<Vec<WaitingPod>> {
        self.pods.as_ref().map(|pods| self.waiting.long(pods, now))
    }

    pub(super) fn node(&self) -> Option<&NodeFacts> {
        self.node.as_deref()
    }

    /// Limit of volumes as the scheduler knows it.
    pub(super) fn csi_volumes(&self) -> Option<u32> {
        self.csi.as_ref().and_then(|csi| csi.ebs_volumes)
    }

    /// Branch interfaces that cool down.
    pub(super) fn cooling(&self, now: BootNs) -> u64 {
        self.cooling.iter().filter(|at| now.since(**at) <= BRANCH_COOLDOWN_NS).count() as u64
    }

    /// The node's label, if it names a type that is known here.
    pub(super) fn instance(&self) -> Option<InstanceType> {
        self.node().and_then(|node| node.instance_type.as_deref()).and_then(instance_type)
    }

    /// What the VPC CNI on this node was started with, from its youngest pod that has not ended.
    pub(super) fn cni_environment(&self) -> Option<&CniEnvironment> {
        let of_cni = self.pods()?.filter(|pod| pod.cni.is_some());
        of_cni.max_by_key(|pod| pod.created)?.cni.as_deref()
    }

    /// The type that the node's label names.
    pub(super) fn instance_name(&self) -> Option<&Arc<str>> {
        self.node().and_then(|node| node.instance_type.as_ref())
    }

    /// Security groups for pods are on for this node.
    pub(super) fn has_trunk(&self) -> bool {
        let label = self.node().and_then(|node| node.trunk_label.as_deref()) == Some("true");
        label || self.cni.as_ref().is_some_and(|cni| cni.security_groups_for_pods)
    }

    /// What the node's pods usually ask for: the median of each, without those that every node has (daemon sets, static
    /// pods) as long as there are others. `None`: no pods.
    pub(super) fn usual_shape(&self) -> Option<Shape> {
        let pods: Vec<&PodFacts> = self.pods()?.filter(|pod| !pod.host_network).collect();
        let own: Vec<&PodFacts> =
            pods.iter().copied().filter(|pod| !matches!(&*pod.workload.kind, "DaemonSet" | "Node")).collect();
        let usual = if own.is_empty() { pods } else { own };
        if usual.is_empty() {
            return None;
        }
        let branches = usual.iter().filter(|pod| has_branch(pod)).count();
        Some(Shape {
            cpu_milli: median(usual.iter().map(|pod| pod.requests.cpu_milli)),
            memory_bytes: median(usual.iter().map(|pod| pod.requests.memory_bytes)),
            volumes: u32::try_from(median(usual.iter().map(|pod| u64::from(pod.requests.claims)))).unwrap_or(u32::MAX),
            branch: branches * 2 > usual.len(),
        })
    }

    /// A scope as people name it.
    pub(super) fn name(&self, scope: &Scope) -> String {
        match scope {
            Scope::Node => "node".to_owned(),
            Scope::Slice(path) => format!("slice {path}"),
            Scope::Pod(uid) => match self.pod(uid) {
                Some(pod) => format!("pod {}/{}", pod.namespace, pod.name),
                None => format!("pod {uid}"),
            },
            Scope::Interface(name) => format!("interface {name}"),
            Scope::FileSystem(path) => format!("file system {path}"),
            Scope::Subnet(id) => format!("subnet {id}"),
            Scope::Snat(ip) => format!("SNAT {ip}"),
        }
    }

    /// A finding's subject.
    pub(super) fn subject(&self, resource: &str, scope: &Scope) -> Subject {
        let mut subject =
            Subject { resource: Arc::from(resource), scope: Arc::from(self.name(scope)), ..Subject::default() };
        if let Scope::Pod(uid) = scope {
            subject.uid = Arc::clone(uid);
            if let Some(pod) = self.pod(uid) {
                subject.namespace = Arc::clone(&pod.namespace);
                subject.pod = Arc::clone(&pod.name);
                subject.workload = Arc::clone(&pod.workload.name);
            }
        }
        subject
    }

    /// A pod by the uid that its cgroup tells: its own, or a static pod's hash.
    fn pod(&self, uid: &str) -> Option<&PodFacts> {
        let pods = self.pods.as_ref()?;
        let by_hash = || pods.values().find(|pod| pod.config_hash.as_deref() == Some(uid));
        pods.get(uid).or_else(by_hash).map(|pod| &**pod)
    }

    /// Puts a pod in; gives back what was known of it.
    fn put(&mut self, pod: Arc<PodFacts>, now: BootNs) -> Option<Arc<PodFacts>> {
        let key = match &pod.uid {
            Some(uid) => Arc::clone(uid),
            None => super::shared(format!("{}/{}", pod.namespace, pod.name)),
        };
        let pods = self.pods.get_or_insert_default();
        if pods.len() >= MAX_PODS && !pods.contains_key(&key) {
            self.refused += 1;
            return None;
        }
        self.waiting.see(&key, &pod, now);
        pods.insert(key, pod)
    }

    /// The branch interface of a pod that took its place and no longer does cools down.
    fn cool(&mut self, before: &PodFacts, after: Option<&PodFacts>, now: BootNs) {
        if takes_place(before) && has_branch(before) && !after.is_some_and(takes_place) {
            if self.cooling.len() >= MAX_COOLING {
                self.cooling.pop_front();
                self.refused += 1;
            }
            self.cooling.push_back(now);
        }
    }

    fn heard(&mut self, source: Source, now: BootNs) {
        // What a source says about itself is the better answer.
        if !self.fresh.get(&source).is_some_and(|fresh| fresh.said) {
            self.fresh.insert(source, Fresh { at: now, said: false });
        }
    }
}

/// It has a branch interface, or waits for one.
pub(super) fn has_branch(pod: &PodFacts) -> bool {
    pod.branch_limit > 0 || matches!(&pod.branch, Branch::Interfaces(interfaces) if !interfaces.is_empty())
}

fn takes_place(pod: &PodFacts) -> bool {
    !matches!(pod.phase, Some(Phase::Succeeded | Phase::Failed))
}

/// The middle one, the lower of two.
fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<_> = values.collect();
    let middle = values.len().saturating_sub(1) / 2;
    if values.is_empty() { 0 } else { *values.select_nth_unstable(middle).1 }
}
