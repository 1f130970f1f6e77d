//! The rules about a policy itself: whether it can work, and whether it names the cluster security group.

use std::sync::Arc;

use super::demand::{self, Fault, Selects};
use super::{Account, Settings, list, policy_object, policy_says, violated, why};
use crate::facts::{PodFacts, PolicyFacts};
use crate::finding::{Code, Judgement, Severity, Subject, Verdict};

/// Whom a policy concerns. A node speaks of policies that select a pod of its own: a thousand nodes need not say the
/// same.
#[derive(Clone, Copy, Debug)]
pub enum Selected<'a> {
    /// The policy is judged for its own sake, as in a review of manifests.
    Always,
    /// These pods, with their accounts; and why their node says nothing of this mechanism, if so.
    Pods(&'a [(&'a PodFacts, Account<'a>)], Option<&'static str>),
}

/// Whose cluster security group a group is, as its tags and its name tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belongs {
    /// Of this cluster.
    Cluster(Arc<str>),
    /// Of a cluster that is not known to be this one.
    SomeCluster(Arc<str>),
    /// Of another cluster.
    OtherCluster(Arc<str>),
    /// It is no cluster security group.
    NoCluster,
    /// EC2 did not tell.
    Unknown,
}

/// Judges a policy. `belongs`: whose cluster security group a group is.
pub fn judge_policy(
    policy: &PolicyFacts,
    selected: Selected<'_>,
    settings: &Settings,
    belongs: &dyn Fn(&str) -> Belongs,
) -> Vec<Judgement> {
    let subject = Subject { namespace: policy.namespace.clone(), policy: policy.name.clone(), ..Subject::default() };
    let about = |code, verdict| Judgement { code, subject: subject.clone(), verdict };
    vec![
        about(Code::SgpInvalid, invalid(policy, selected)),
        about(Code::SgpClusterGroup, cluster_group(policy, selected, settings, belongs)),
    ]
}

/// A policy that can select nothing. Whether it was meant for a pod here cannot be asked of such a policy: it counts
/// when its selectors, as far as they are ones, select a pod of its namespace.
fn invalid(policy: &PolicyFacts, selected: Selected<'_>) -> Verdict {
    let Some(fault) = demand::fault(policy) else { return Verdict::Holds };
    let would = |pod: &PodFacts, account: Account<'_>| match &fault {
        Fault::NoSelector => Selects::Yes,
        Fault::NoGroups => {
            let with_groups = PolicyFacts { groups: vec!["sg-".into()], ..policy.clone() };
            demand::selects(&with_groups, pod, account)
        }
        Fault::Selector(field, _) => {
            let mut sound = PolicyFacts { groups: vec!["sg-".into()], ..policy.clone() };
            match *field {
                "spec.podSelector" => sound.pod_selector = Some(crate::facts::Selector::default()),
                _ => sound.service_account_selector = Some(crate::facts::Selector::default()),
            }
            // The other selector may be none either, and then nothing narrows it.
            match demand::selects(&sound, pod, account) {
                Selects::Invalid(_) => Selects::Yes,
                other => other,
            }
        }
    };
    match concerns(policy, selected, would) {
        Ok(true) => {}
        Ok(false) => return Verdict::Holds,
        Err(why) => return Verdict::CannotTell(why),
    }
    let object = policy_object(policy);
    let (cause, text, evidence) = match &fault {
        Fault::NoSelector => (
            "no_selector",
            format!(
                "{object} has neither a podSelector nor a serviceAccountSelector, so it selects no pod; an empty one, \
                 {{}}, would select all"
            ),
            policy_says(policy, "spec", "no selector"),
        ),
        Fault::NoGroups => (
            "no_groups",
            format!("{object} names no security groups, so it is passed over"),
            policy_says(policy, "spec.securityGroups.groupIds", "none"),
        ),
        Fault::Selector(field, error) => (
            "selector_invalid",
            format!("{object} cannot be read by the controller, so it selects no pod: {field}: {error}"),
            policy_says(policy, field, error.to_string()),
        ),
    };
    violated(Severity::Medium, cause, text, vec![evidence])
}

/// A policy that names a cluster security group, which is made anew with every cluster.
fn cluster_group(
    policy: &PolicyFacts,
    selected: Selected<'_>,
    settings: &Settings,
    belongs: &dyn Fn(&str) -> Belongs,
) -> Verdict {
    let told: Vec<_> = policy.groups.iter().map(|group| (group, belongs(group))).collect();
    let others = told.iter().filter_map(|(group, belongs)| match belongs {
        Belongs::OtherCluster(cluster) => Some(format!("{group} of {cluster}")),
        _ => None,
    });
    let others: Vec<_> = others.collect();
    let is_named = |group: &Arc<str>, belongs: &Belongs| {
        settings.cluster_groups.contains(group) || matches!(belongs, Belongs::Cluster(_) | Belongs::SomeCluster(_))
    };
    let named: Vec<_> =
        told.iter().filter(|(group, belongs)| is_named(group, belongs)).map(|(group, _)| *group).collect();
    let is_unknown = told.iter().any(|(_, belongs)| *belongs == Belongs::Unknown);
    if named.is_empty() && others.is_empty() && is_unknown && settings.cluster_groups.is_empty() {
        return Verdict::CannotTell(why::CLUSTER_GROUP);
    }
    let selects = |pod: &PodFacts, account: Account<'_>| demand::selects(policy, pod, account);
    if named.is_empty() && others.is_empty() {
        return Verdict::Holds;
    }
    match concerns(policy, selected, selects) {
        Ok(true) => {}
        Ok(false) => return Verdict::Holds,
        Err(why) => return Verdict::CannotTell(why),
    }
    let object = policy_object(policy);
    let (cause, text) = if others.is_empty() {
        let text = format!(
            "{object} names the cluster security group {}: a new cluster gets a new one, and the policy must follow",
            list(named)
        );
        ("cluster_group", text)
    } else {
        let text = format!(
            "{object} names the cluster security group of another cluster, {}: it goes when that cluster does",
            list(others)
        );
        ("other_cluster", text)
    };
    let evidence = policy_says(policy, "spec.securityGroups.groupIds", list(&policy.groups));
    violated(Severity::Info, cause, text, vec![evidence])
}

/// Whether a policy concerns a pod of the node; an error where nobody can tell.
fn concerns(
    policy: &PolicyFacts,
    selected: Selected<'_>,
    would: impl Fn(&PodFacts, Account<'_>) -> Selects,
) -> Result<bool, &'static str> {
    let Selected::Pods(pods, elsewhere) = selected else { return Ok(true) };
    let mut unsure = None;
    for (pod, account) in pods.iter().filter(|(pod, _)| pod.namespace == policy.namespace) {
        match would(pod, *account) {
            Selects::Yes => return elsewhere.map_or(Ok(true), Err),
            Selects::CannotTell(why) => unsure = Some(why),
            Selects::No | Selects::Invalid(_) => {}
        }
    }
    unsure.map_or(Ok(false), Err)
}

#[cfg(test)]
mod tests;
