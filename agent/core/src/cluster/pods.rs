//! Pods of this node by uid, by the hash of a static pod, and the gone ones for some minutes.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use super::Counts;
use crate::facts::{Phase, PodFacts};
use crate::fast::{FastMap, FastSet};
use crate::time::BootNs;

/// Most pods kept, those that are gone included. The largest instances take 737 pods; as many may have been replaced
/// within five minutes. At about 3 KiB with labels and containers: 6 MiB, and 700 KiB for 110 pods that come and go.
pub const MAX_PODS: usize = 2_048;
/// How long a pod that is gone keeps its name: as long as its cgroups are remembered.
pub const REMEMBER_GONE_NS: u64 = crate::cgroup::REMEMBER_GONE_NS;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Pods {
    by_uid: FastMap<Arc<str>, Pod>,
    /// Hash of a static pod's manifest to the uids that claim it: one, unless somebody lies.
    by_hash: FastMap<Arc<str>, Vec<Arc<str>>>,
    gone: VecDeque<(BootNs, Arc<str>)>,
    told: bool,
    revision: u64,
}

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// What is known of it.
    pub facts: Arc<PodFacts>,
    /// When it was heard of first.
    pub since: BootNs,
    /// When it was told as running first; `None`: not yet.
    pub running: Option<BootNs>,
    gone: Option<BootNs>,
    /// Another pod claims its uid.
    contradicted: bool,
}

impl Pod {
    /// Whether its object is there.
    pub fn is_present(&self) -> bool {
        self.gone.is_none()
    }

    /// Whether no other pod claims its uid.
    pub fn is_certain(&self) -> bool {
        !self.contradicted
    }
}

impl Pods {
    /// All pods, in place of those told before.
    pub(super) fn replace(
        &mut self,
        pods: Vec<Arc<PodFacts>>,
        node: Option<&Arc<str>>,
        now: BootNs,
        counts: &mut Counts,
    ) {
        let listed: FastSet<Arc<str>> = pods.iter().filter_map(|pod| pod.uid.clone()).collect();
        let missing: Vec<_> = self
            .by_uid
            .iter()
            .filter(|(uid, pod)| pod.is_present() && !listed.contains(*uid))
            .map(|(uid, _)| Arc::clone(uid))
            .collect();
        for uid in missing {
            self.gone(&uid, now);
        }
        // What was contradicted before may be whole in this list.
        for pod in self.by_uid.values_mut() {
            pod.contradicted = false;
        }
        let mut taken: FastMap<Arc<str>, Arc<PodFacts>> = FastMap::default();
        for pod in pods {
            let twin = pod.uid.as_ref().and_then(|uid| taken.get(uid)).filter(|twin| !same_object(twin, &pod));
            if let Some(uid) = twin.and_then(|twin| twin.uid.clone()) {
                self.contradict(&uid, counts);
                continue;
            }
            if let Some(uid) = &pod.uid {
                taken.insert(Arc::clone(uid), Arc::clone(&pod));
                // A list is the whole truth: what had this uid before it is no witness against it.
                if self.by_uid.get(uid).is_some_and(|before| !same_object(&before.facts, &pod)) {
                    self.remove(uid);
                }
            }
            self.put(pod, node, now, counts);
        }
        self.told = true;
        self.revision += 1;
    }

    /// A pod came or changed.
    pub(super) fn put(&mut self, pod: Arc<PodFacts>, node: Option<&Arc<str>>, now: BootNs, counts: &mut Counts) {
        let Some(uid) = pod.uid.clone() else {
            counts.without_uid += 1;
            return;
        };
        if is_elsewhere(&pod, node) {
            counts.other_node += 1;
            return;
        }
        self.revision += 1;
        if let Some(known) = self.by_uid.get_mut(&uid) {
            if same_object(&known.facts, &pod) {
                // The gone list's entry stays as a no-op when it came back.
                known.gone = None;
                known.running = known.running.or_else(|| runs(&pod).then_some(now));
                let (before, after) = (known.facts.config_hash.clone(), pod.config_hash.clone());
                known.facts = pod;
                self.rehash(&uid, before, after);
            } else {
                self.contradict(&uid, counts);
            }
            return;
        }
        if self.by_uid.len() >= MAX_PODS && !self.drop_longest_gone() {
            counts.no_room += 1;
            return;
        }
        self.rehash(&uid, None, pod.config_hash.clone());
        let running = runs(&pod).then_some(now);
        self.by_uid.insert(uid, Pod { facts: pod, since: now, running, gone: None, contradicted: false });
    }

    /// A pod's object is gone. It keeps its name for [`REMEMBER_GONE_NS`].
    pub(super) fn gone(&mut self, uid: &Arc<str>, now: BootNs) {
        let Some(pod) = self.by_uid.get_mut(uid) else { return };
        if pod.gone.is_none() {
            pod.gone = Some(now);
            self.gone.push_back((now, Arc::clone(uid)));
            self.revision += 1;
        }
        // Only pods that came back leave no-ops behind.
        if self.gone.len() > 2 * MAX_PODS {
            let pods = &self.by_uid;
            self.gone.retain(|(time, uid)| pods.get(uid).is_some_and(|pod| pod.gone == Some(*time)));
        }
    }

    /// The node's name became known: pods of others go.
    pub(super) fn leave_out_other_nodes(&mut self, node: Option<&Arc<str>>, now: BootNs, counts: &mut Counts) {
        let elsewhere: Vec<_> = self
            .by_uid
            .values()
            .filter(|pod| pod.is_present() && is_elsewhere(&pod.facts, node))
            .filter_map(|pod| pod.facts.uid.clone())
            .collect();
        for uid in elsewhere {
            counts.other_node += 1;
            self.gone(&uid, now);
        }
    }

    /// Forgets what has been gone for long.
    pub(super) fn expire(&mut self, now: BootNs) {
        while let Some((time, _)) = self.gone.front()
            && now.since(*time) > REMEMBER_GONE_NS
        {
            let Some((time, uid)) = self.gone.pop_front() else { return };
            self.forget(&uid, time);
        }
    }

    /// A pod by the uid that its cgroup tells: its own, or the hash of a static pod. `None` also when several claim it.
    pub fn of_cgroup(&self, uid: &str) -> Option<&Pod> {
        let pod = self.by_uid.get(uid).or_else(|| {
            let claims = self.by_hash.get(uid)?;
            let mut present = claims.iter().filter_map(|uid| self.by_uid.get(uid)).filter(|pod| pod.is_present());
            match (present.next(), present.next()) {
                (Some(pod), None) => Some(pod),
                (Some(_), Some(_)) => None,
                // All gone: the last of them.
                (None, _) => claims.last().and_then(|uid| self.by_uid.get(uid)),
            }
        });
        pod.filter(|pod| pod.is_certain())
    }

    /// A pod by its `metadata.uid`.
    pub fn by_uid(&self, uid: &str) -> Option<&Pod> {
        self.by_uid.get(uid)
    }

    /// The pods whose objects are there, in no order.
    pub fn present(&self) -> impl Iterator<Item = &Pod> {
        self.by_uid.values().filter(|pod| pod.is_present())
    }

    /// Addresses that belong to a pod here alone. One that is over keeps its address in its status, and another may have it
    /// by now; those of the host's network have the node's.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let is_over = |pod: &Pod| matches!(pod.facts.phase, Some(Phase::Succeeded | Phase::Failed));
        let pods = self.present().filter(move |pod| pod.is_certain() && !pod.facts.host_network && !is_over(pod));
        pods.flat_map(|pod| &pod.facts.ips).map(IpAddr::to_canonical)
    }

    /// Whether a list of them was told.
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// Grows with every change that may give a cgroup another name.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Pods kept, the remembered ones included.
    pub fn len(&self) -> usize {
        self.by_uid.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.by_uid.is_empty()
    }

    pub(super) fn uses_account(&self, namespace: &str, name: &str) -> bool {
        self.present().any(|pod| &*pod.facts.namespace == namespace && &*pod.facts.service_account == name)
    }

    fn contradict(&mut self, uid: &Arc<str>, counts: &mut Counts) {
        if let Some(pod) = self.by_uid.get_mut(uid) {
            pod.contradicted = true;
            counts.contradicted += 1;
            self.revision += 1;
        }
    }

    fn rehash(&mut self, uid: &Arc<str>, before: Option<Arc<str>>, after: Option<Arc<str>>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.unhash(&before, uid);
        }
        if let Some(after) = after {
            self.by_hash.entry(after).or_default().push(Arc::clone(uid));
        }
    }

    fn unhash(&mut self, hash: &Arc<str>, uid: &Arc<str>) {
        if let Some(claims) = self.by_hash.get_mut(hash) {
            claims.retain(|claim| claim != uid);
            if claims.is_empty() {
                self.by_hash.remove(hash);
            }
        }
    }

    fn forget(&mut self, uid: &Arc<str>, time: BootNs) -> bool {
        if self.by_uid.get(uid).is_none_or(|pod| pod.gone != Some(time)) {
            return false;
        }
        self.remove(uid);
        true
    }

    fn remove(&mut self, uid: &Arc<str>) {
        let hash = self.by_uid.remove(uid).and_then(|pod| pod.facts.config_hash.clone());
        if let Some(hash) = hash {
            self.unhash(&hash, uid);
        }
        self.revision += 1;
    }

    fn drop_longest_gone(&mut self) -> bool {
        while let Some((time, uid)) = self.gone.pop_front() {
            if self.forget(&uid, time) {
                return true;
            }
        }
        false
    }
}

fn runs(pod: &PodFacts) -> bool {
    pod.phase == Some(Phase::Running)
}

fn same_object(a: &PodFacts, b: &PodFacts) -> bool {
    a.namespace == b.namespace && a.name == b.name
}

fn is_elsewhere(pod: &PodFacts, node: Option<&Arc<str>>) -> bool {
    match (&pod.node, node) {
        (Some(pod), Some(node)) => pod != node,
        _ => false,
    }
}
