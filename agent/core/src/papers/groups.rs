//! The rules about a pod's security groups: in force, up to date, still wanted, not too many.

mod cause;

use super::demand::Demand;
use super::enforcement::{Enforcement, Gap, enforcement};
use super::{PodContext, Settings, list, pod_object, pod_says, policy_object, policy_says, violated, why};
use crate::facts::{Branch, GroupEvent, GroupEventKind, NodeFacts, Phase, PodFacts, PolicyFacts};
use crate::finding::{Evidence, Severity, Verdict};
use crate::time::WallNs;
use cause::{Cause, cause};

const COMPUTE_AUTO: &str = "auto";
const COMPUTE_FARGATE: &str = "fargate";
const COMPUTE_HYBRID: &str = "hybrid";
const RESOURCE: &str = "vpc.amazonaws.com/pod-eni";
const ANNOTATION: &str = "metadata.annotations[\"vpc.amazonaws.com/pod-eni\"]";

/// A policy selects the pod, and its groups are not in force.
pub(super) fn not_enforced(context: &PodContext<'_>, demand: &Demand) -> Verdict {
    let pod = context.pod;
    // One that was not admitted will be asked for a branch interface, whoever selects it.
    let will_be = pod.uid.is_none() && !pod.host_network && !pod.windows && !pod.fargate;
    if ended(pod) || will_be {
        return Verdict::Holds;
    }
    match demand.selected() {
        Some(true) => {}
        Some(false) => return Verdict::Holds,
        None => return Verdict::CannotTell(demand.cannot_tell.unwrap_or(why::POLICIES)),
    }
    if let Some(elsewhere) = elsewhere(context) {
        return Verdict::CannotTell(elsewhere);
    }
    if pod.host_network {
        let text = format!(
            "{} uses the node's network, so it has the node's security groups, although {} selects it",
            pod_object(pod),
            policies(demand)
        );
        let evidence = evidence(demand, [pod_says(pod, "spec.hostNetwork", "true")]);
        return violated(Severity::Info, "host_network", text, evidence);
    }
    if let (Some(_), Some(unsettled)) = (&pod.uid, unsettled(pod)) {
        return Verdict::CannotTell(unsettled);
    }
    let gap = match (pod.windows, enforcement(pod, context.links)) {
        (false, Enforcement::Enforced) => return Verdict::Holds,
        (false, Enforcement::CannotTell(why)) => return Verdict::CannotTell(why),
        (false, Enforcement::Not(gap)) => gap,
        (true, _) => Gap::Interface,
    };
    let Cause { name: cause, because, says } = cause(context, demand, gap);
    let text = format!(
        "{} has the node's security groups: {} asks for {}, and {because}",
        pod_object(pod),
        policies(demand),
        list(&demand.groups)
    );
    let severity = if context.judged_flows { Severity::Critical } else { Severity::High };
    violated(severity, cause, text, evidence(demand, says))
}

/// The groups on the interface are not those that the policies ask for now.
pub(super) fn stale(context: &PodContext<'_>, demand: &Demand) -> Verdict {
    let pod = context.pod;
    let Branch::Interfaces(branches) = &pod.branch else { return Verdict::Holds };
    // A Windows pod's groups are never in force, whatever its annotation says: that is the other finding.
    if pod.host_network || pod.windows || branches.is_empty() || ended(pod) {
        return Verdict::Holds;
    }
    if let Some(unsure) = elsewhere(context).or_else(|| unsettled(pod)) {
        return Verdict::CannotTell(unsure);
    }
    match demand.selected() {
        Some(true) => {}
        // Orphaned, which is another finding.
        Some(false) => return Verdict::Holds,
        None => return Verdict::CannotTell(demand.cannot_tell.unwrap_or(why::POLICIES)),
    }
    if let Some(unsure) = demand.cannot_tell {
        return Verdict::CannotTell(unsure);
    }
    if matches!(enforcement(pod, context.links), Enforcement::Not(_)) {
        // Not in force at all, which is another finding.
        return Verdict::Holds;
    }
    let (groups, says, since) = match (context.interface_groups, context.events) {
        (Some(groups), _) => {
            let object = format!("network interface {}", list(branches.iter().map(|branch| &branch.id)));
            let says = |field: &str, value| Evidence {
                object: object.clone(),
                field: field.to_owned(),
                generation: None,
                value,
            };
            let told = context.interface_told.map(|at| says("told by EC2", at.to_string()));
            (groups, [says("Groups", list(groups))].into_iter().chain(told).collect(), None)
        }
        (None, None) => return Verdict::CannotTell(why::EVENT_PENDING),
        (None, Some(events)) => match last_requested(events) {
            None => return Verdict::CannotTell(why::EVENT),
            Some(event) => match (&event.kind, context.instance_groups) {
                (GroupEventKind::Groups(groups), _) => (&groups[..], vec![event_says(pod, list(groups))], event.time),
                (_, None) => return Verdict::CannotTell(why::INSTANCE_GROUPS),
                (_, Some(groups)) => (groups, vec![event_says(pod, "the instance's groups".to_owned())], event.time),
            },
        },
    };
    if demand.is(groups) {
        return Verdict::Holds;
    }
    let since = since.or(pod.created);
    let changed = |policy: &PolicyFacts| since.is_some_and(|since| written(policy).is_some_and(|at| at >= since));
    let relabelled = since.zip(pod.labels_changed).is_some_and(|(since, at)| at > since);
    let (cause, because) = if demand.policies.iter().any(|policy| changed(policy)) {
        ("policy_changed", "a policy changed after the interface was made")
    } else if relabelled {
        ("labels_changed", "the pod's labels changed after the interface was made")
    } else {
        ("unknown", "a policy, the pod's labels or its service account's changed after the interface was made")
    };
    let text = format!(
        "{} has the security groups {} and should have {}: {because}; groups of a running pod are never changed",
        pod_object(pod),
        list(groups),
        list(&demand.groups)
    );
    violated(Severity::High, cause, text, evidence(demand, says))
}

/// The pod has a branch interface, or will get one, and no policy selects it.
pub(super) fn orphaned(context: &PodContext<'_>, demand: &Demand) -> Verdict {
    let pod = context.pod;
    let has = matches!(&pod.branch, Branch::Interfaces(branches) if !branches.is_empty());
    let will_have = pod.uid.is_none() && pod.branch_limit > 0;
    if !(has || will_have) || pod.host_network || ended(pod) {
        return Verdict::Holds;
    }
    if let Some(elsewhere) = elsewhere(context) {
        return Verdict::CannotTell(elsewhere);
    }
    match demand.selected() {
        Some(true) => return Verdict::Holds,
        Some(false) => {}
        None => return Verdict::CannotTell(demand.cannot_tell.unwrap_or(why::POLICIES)),
    }
    let limit = pod_says(pod, "spec.containers[].resources.limits", format!("{RESOURCE}: {}", pod.branch_limit));
    if will_have {
        let text = format!(
            "{} asks for a branch interface by hand and no policy selects it: it will get one with the node's security \
             groups",
            pod_object(pod)
        );
        return violated(Severity::Low, "limit_by_hand", text, vec![limit]);
    }
    let requested = context.events.and_then(last_requested).map(|event| &event.kind);
    let (cause, because) = match requested {
        Some(GroupEventKind::Groups(_)) => {
            ("policy_gone", "the policy that selected it is gone or changed, or its labels did")
        }
        Some(GroupEventKind::InstanceGroups) => {
            ("limit_by_hand", "none did when it was made, so its limit was set by hand or the policy went in between")
        }
        _ => {
            ("unknown", "the policy that selected it is gone or changed, its labels did, or its limit was set by hand")
        }
    };
    let text = format!("{} has a branch interface and no policy selects it: {because}", pod_object(pod));
    violated(Severity::Low, cause, text, vec![branch_says(pod), limit])
}

/// More groups than an interface may have.
pub(super) fn too_many(context: &PodContext<'_>, demand: &Demand, settings: &Settings) -> Verdict {
    let pod = context.pod;
    if pod.host_network || ended(pod) {
        return Verdict::Holds;
    }
    if demand.groups.len() <= settings.max_groups {
        return match (demand.cannot_tell, elsewhere(context)) {
            (Some(why), _) | (None, Some(why)) if demand.selected() != Some(false) => Verdict::CannotTell(why),
            _ => Verdict::Holds,
        };
    }
    if let Some(elsewhere) = elsewhere(context) {
        return Verdict::CannotTell(elsewhere);
    }
    let text = format!(
        "{} is selected by {}, {} security groups in all; an interface takes {}, so no branch interface can be made",
        pod_object(pod),
        policies(demand),
        demand.groups.len(),
        settings.max_groups
    );
    violated(Severity::Medium, "too_many_groups", text, evidence(demand, []))
}

/// When a policy was last written, as far as it tells.
fn written(policy: &PolicyFacts) -> Option<WallNs> {
    policy.spec_changed.max(policy.created)
}

/// The last thing that the controller said about a pod's groups.
pub(crate) fn last_requested(events: &[GroupEvent]) -> Option<&GroupEvent> {
    let asked = |event: &&GroupEvent| matches!(event.kind, GroupEventKind::Groups(_) | GroupEventKind::InstanceGroups);
    events.iter().filter(asked).max_by_key(|event| event.time)
}

/// Where this mechanism is not in use, or may not be. A pod that was not admitted has no node yet.
fn elsewhere(context: &PodContext<'_>) -> Option<&'static str> {
    elsewhere_of(context.node, context.pod.fargate).filter(|why| *why != why::NODE || context.pod.uid.is_some())
}

/// Where this mechanism is not in use, or may not be, of a node.
pub(super) fn elsewhere_of(node: Option<&NodeFacts>, fargate: bool) -> Option<&'static str> {
    let on = |compute| node.is_some_and(|node| is_compute(node, compute));
    if on(COMPUTE_AUTO) {
        Some(why::AUTO_MODE)
    } else if fargate || on(COMPUTE_FARGATE) {
        Some(why::FARGATE)
    } else if node.is_none() {
        Some(why::NODE)
    } else {
        None
    }
}

fn is_compute(node: &NodeFacts, compute: &str) -> bool {
    node.compute_type.as_deref() == Some(compute)
}

/// The pod is over. It keeps its annotation, and its interface is given back.
fn ended(pod: &PodFacts) -> bool {
    matches!(pod.phase, Some(Phase::Succeeded | Phase::Failed))
}

/// Why a pod's state says nothing yet.
fn unsettled(pod: &PodFacts) -> Option<&'static str> {
    match pod.phase {
        Some(Phase::Running) => None,
        Some(Phase::Pending) => Some(why::PENDING),
        _ => Some(why::STATUS),
    }
}

fn policies(demand: &Demand) -> String {
    list(demand.policies.iter().map(|policy| policy_object(policy)))
}

fn evidence(demand: &Demand, more: impl IntoIterator<Item = Evidence>) -> Vec<Evidence> {
    let groups = |policy: &PolicyFacts| policy_says(policy, "spec.securityGroups.groupIds", list(&policy.groups));
    demand.policies.iter().map(|policy| groups(policy)).chain(more).collect()
}

fn branch_says(pod: &PodFacts) -> Evidence {
    let value = match &pod.branch {
        Branch::Absent => "absent".to_owned(),
        Branch::Malformed(why) => why.clone(),
        Branch::Interfaces(branches) => list(branches.iter().map(|branch| {
            let ips = [branch.ipv4, branch.ipv6].into_iter().flatten().map(|ip| ip.to_string());
            format!("{} ({}, vlan {})", branch.id, list(ips), branch.vlan_id)
        })),
    };
    pod_says(pod, ANNOTATION, value)
}

fn event_says(pod: &PodFacts, value: String) -> Evidence {
    let object = format!("Event SecurityGroupRequested of {}", pod_object(pod));
    Evidence { object, field: "message".to_owned(), generation: None, value }
}

fn node_says(node: &NodeFacts, field: &str, value: &str) -> Evidence {
    Evidence {
        object: format!("Node {}", node.name),
        field: field.to_owned(),
        generation: None,
        value: value.to_owned(),
    }
}

#[cfg(test)]
mod tests;
