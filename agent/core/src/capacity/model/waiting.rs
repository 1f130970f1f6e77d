//! Pods that wait for their sandbox. The CNI gives a pod its address while the runtime makes its sandbox, before images are
//! pulled, so a pod that the kubelet has taken on and that has no address waits for that, or for its volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::facts::{Phase, PodFacts};
use crate::finding::Evidence;
use crate::time::BootNs;

/// A sandbox takes a second or two, an interface that has to be attached ten: a minute is too long.
const LONG_NS: u64 = 60_000_000_000;
/// Pods that a finding names.
const NAMED: usize = 5;

/// Since when pods wait, by the key of the table of pods, which bounds it.
#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<Arc<str>, BootNs>);

/// A pod that has waited for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WaitingPod {
    /// `namespace/name`.
    name: String,
    for_s: u64,
}

// === impl Waiting ===

impl Waiting {
    /// A pod came or changed.
    pub(super) fn see(&mut self, key: &Arc<str>, pod: &PodFacts, now: BootNs) {
        if waits(pod) {
            self.0.entry(Arc::clone(key)).or_insert(now);
        } else {
            self.0.remove(key);
        }
    }

    pub(super) fn gone(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub(super) fn retain(&mut self, is_here: impl Fn(&str) -> bool) {
        self.0.retain(|key, _| is_here(key));
    }

    /// Those that have waited for too long, the longest first.
    pub(super) fn long(&self, pods: &BTreeMap<Arc<str>, Arc<PodFacts>>, now: BootNs) -> Vec<WaitingPod> {
        let long = self.0.iter().filter(|(_, since)| now.since(**since) >= LONG_NS);
        let named = long.filter_map(|(key, since)| {
            let pod = pods.get(key)?;
            let for_s = now.since(*since) / 1_000_000_000;
            Some(WaitingPod { name: format!("{}/{}", pod.namespace, pod.name), for_s })
        });
        let mut named: Vec<_> = named.collect();
        named.sort_by(|a, b| b.for_s.cmp(&a.for_s).then_with(|| a.name.cmp(&b.name)));
        named
    }
}

/// Taken on by the kubelet, without an address, and with nothing else to wait for: volumes are mounted before the sandbox is
/// made, and a pod on the node's network needs no address.
fn waits(pod: &PodFacts) -> bool {
    pod.phase == Some(Phase::Pending)
        && pod.started.is_some()
        && pod.ips.is_empty()
        && !pod.deleting
        && !pod.host_network
        && pod.requests.claims == 0
}

/// What a finding says of them: nothing when there are none.
pub(super) fn text(waiting: &[WaitingPod]) -> String {
    match waiting {
        [] => String::new(),
        [one] => format!("; pod {} has waited for its sandbox for {} s", one.name, one.for_s),
        [first, ..] => {
            let count = waiting.len();
            format!("; {count} pods wait for their sandboxes, {} for {} s", first.name, first.for_s)
        }
    }
}

pub(super) fn evidence(waiting: &[WaitingPod]) -> impl Iterator<Item = Evidence> {
    waiting.iter().take(NAMED).map(|pod| Evidence {
        object: format!("pod {}", pod.name),
        field: "status.podIPs".to_owned(),
        generation: None,
        value: format!("none for {} s", pod.for_s),
    })
}
