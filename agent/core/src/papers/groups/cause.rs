//! Why the groups of a pod are not in force.

use std::sync::Arc;

use super::super::demand::Demand;
use super::super::enforcement::{Gap, device_name};
use super::super::{PodContext, list, pod_says, policy_says};
use super::{COMPUTE_HYBRID, RESOURCE, branch_says, is_compute, node_says, written};
use crate::facts::{Branch, PodFacts, PolicyFacts};
use crate::finding::Evidence;
use crate::time::WallNs;

/// Why a pod is not enforced.
pub(super) struct Cause {
    pub(super) name: &'static str,
    pub(super) because: &'static str,
    pub(super) says: Vec<Evidence>,
}

pub(super) fn cause(context: &PodContext<'_>, demand: &Demand, gap: Gap) -> Cause {
    let pod = context.pod;
    let has_branch = gap != Gap::Interface;
    let no_trunk = context.node.filter(|node| node.branch_interfaces.unwrap_or(0) == 0);
    let hybrid = context.node.filter(|node| is_compute(node, COMPUTE_HYBRID));
    let limit = || pod_says(pod, "spec.containers[].resources.limits", format!("{RESOURCE}: {}", pod.branch_limit));
    if pod.windows {
        let says = vec![pod_says(pod, "spec.nodeSelector[\"kubernetes.io/os\"]", "windows")];
        return Cause { name: "unsupported_node", because: "Windows nodes have no branch interfaces", says };
    }
    if let Some(node) = hybrid {
        let says = vec![node_says(node, "metadata.labels[\"eks.amazonaws.com/compute-type\"]", COMPUTE_HYBRID)];
        return Cause { name: "unsupported_node", because: "hybrid nodes have no branch interfaces", says };
    }
    if has_branch {
        let mut says =
            vec![branch_says(pod), pod_says(pod, "status.podIPs", list(pod.ips.iter().map(ToString::to_string)))];
        let because = if gap == Gap::Device {
            let devices = match &pod.branch {
                Branch::Interfaces(branches) => list(branches.iter().map(device_name)),
                Branch::Absent | Branch::Malformed(_) => list([""; 0]),
            };
            let object = format!("interface {devices}");
            says.push(Evidence {
                object,
                field: String::new(),
                generation: None,
                value: "absent, or with another address".to_owned(),
            });
            "the node has no device for its branch interface"
        } else if pod.first_container_branch_limit {
            "the CNI gave it an address of the node instead of its branch interface's"
        } else {
            "the CNI looks at the limits of the first container only, which do not ask for a branch interface"
        };
        says.push(limit());
        return Cause { name: "cni_ignored", because, says };
    }
    if pod.branch_limit > 0 {
        if let Some(node) = no_trunk.filter(|_| pod.first_container_branch_limit) {
            let says = vec![limit(), node_says(node, &format!("status.allocatable[\"{RESOURCE}\"]"), "absent or 0")];
            let because = "its node has no branch interfaces to give: the instance type has none, or the CNI has \
                           ENABLE_POD_ENI off";
            return Cause { name: "unsupported_node", because, says };
        }
        let because = "the CNI started it without a branch interface, although it asks for one";
        return Cause { name: "cni_ignored", because, says: vec![limit()] };
    }
    never_asked(pod, demand)
}

/// Why a pod without the limit has none: it was never asked for when it was admitted.
fn never_asked(pod: &PodFacts, demand: &Demand) -> Cause {
    let ages: Vec<_> = demand.policies.iter().map(|policy| (policy, age(policy, pod.created))).collect();
    let relabelled = pod.created.zip(pod.labels_changed).filter(|(created, changed)| changed > created);
    let older =
        |(policy, age): &(&Arc<PolicyFacts>, Age)| *age == Age::Older && policy.service_account_selector.is_none();
    let mut says: Vec<_> = ages
        .iter()
        .filter_map(|(policy, _)| Some(policy_says(policy, "metadata", written(policy)?.to_string())))
        .collect();
    says.extend(pod.created.map(|created| pod_says(pod, "metadata.creationTimestamp", created.to_string())));
    let (name, because) = if ages.iter().all(|(_, age)| *age == Age::Newer) {
        ("policy_newer", "the pod is older than the policy, which is not applied to running pods")
    } else if let Some((_, changed)) = relabelled {
        says.push(pod_says(pod, "metadata.labels", format!("changed {changed}")));
        ("labels_changed", "its labels were changed after it was admitted, which changes nothing for a running pod")
    } else if ages.iter().any(older) {
        ("webhook_missed", "the admission webhook did not ask for a branch interface: it fails open")
    } else {
        (
            "unknown",
            "it never asked for a branch interface: the webhook missed it, or a policy or its service account changed \
             later",
        )
    };
    Cause { name, because, says }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Older,
    Newer,
    Unknown,
}

/// Whether a policy stood as it stands when the pod was made. Times have seconds, and the webhook reads from a cache:
/// in the same second a policy counts as newer.
fn age(policy: &PolicyFacts, pod: Option<WallNs>) -> Age {
    let (Some(pod), Some(created)) = (pod, policy.created) else { return Age::Unknown };
    match policy.spec_changed {
        _ if created >= pod => Age::Newer,
        Some(changed) if changed >= pod => Age::Newer,
        Some(_) => Age::Older,
        None if policy.generation == Some(1) => Age::Older,
        None => Age::Unknown,
    }
}
