//! What a pod will run with, as far as its manifest, its account and its policies tell.

use std::sync::Arc;

use super::report::Identity;
use crate::facts::{Phase, PodFacts};
use crate::finding::{Code, Judgement, Severity, Verdict, Violation};
use crate::papers::demand::Demand;
use crate::papers::enforcement::{Enforcement, Mode, enforcement};
use crate::papers::identity::{self, Associations, Kind};
use crate::papers::{Account, pod_object, pod_says, policy_says, subject, why};

/// The groups that a pod will have by policies, or has; empty: the node's. And why that is not certain.
///
/// Of a pod from a cluster the addresses tell whether it has its own interface at all. Which groups that has is not in
/// the cluster: they are taken to be those that the policies ask for.
pub(super) fn groups(pod: &PodFacts, demand: &Demand) -> (Vec<Arc<str>>, Option<&'static str>) {
    let (own, unsure) = match (&pod.uid, pod.phase) {
        _ if pod.host_network || pod.windows => return (Vec::new(), None),
        _ if pod.fargate => (true, None),
        // Its interface is made after it was admitted.
        (None, _) | (Some(_), Some(Phase::Pending)) => (pod.first_container_branch_limit, None),
        (Some(_), phase) => match enforcement(pod, None) {
            // Interfaces of the node are never in manifests.
            Enforcement::Enforced | Enforcement::CannotTell(why::LINKS) => (true, None),
            Enforcement::CannotTell(why) => (true, Some(why)),
            Enforcement::Not(_) => (false, matches!(phase, None | Some(Phase::Unknown)).then_some(why::STATUS)),
        },
    };
    let unsure = demand.cannot_tell.or(unsure.filter(|_| demand.selected() == Some(true)));
    (if own { demand.groups.clone() } else { Vec::new() }, unsure)
}

pub(super) fn policy_names(demand: &Demand) -> Vec<Arc<str>> {
    demand.policies.iter().map(|policy| policy.name.clone()).collect()
}

/// The AWS identity of a pod. What manifests cannot tell is said.
pub(super) fn identity(pod: &PodFacts, account: Account<'_>, associations: &Associations) -> Identity {
    let identity::Identity { kind, role, missed: _, why, evidence: _ } = identity::of_pod(pod, account);
    let association = match associations {
        Associations::Known(known) => known.get(&(pod.namespace.clone(), pod.service_account.clone())),
        Associations::Unknown => None,
    };
    let role = role.or_else(|| association.filter(|_| kind == Kind::PodIdentity).cloned().flatten());
    let injected_later = pod.uid.is_none() && !pod.skip_identity_webhook && identity::eligible(pod).next().is_some();
    if !injected_later || !matches!(kind, Kind::Irsa | Kind::None | Kind::NodeRole) {
        return Identity { kind, role, why };
    }
    let unknown_associations = *associations == Associations::Unknown;
    let unknown_account = !matches!(account, Account::Known(_)) && kind != Kind::Irsa;
    let mut why = why;
    if unknown_account {
        why = format!("{why}; service account {} is not among the manifests", pod.service_account);
    }
    if unknown_associations {
        why.push_str("; an EKS Pod Identity association would come first, and manifests do not tell");
    }
    let kind = if kind == Kind::None && (unknown_associations || unknown_account) { Kind::Unknown } else { kind };
    Identity { kind, role, why }
}

/// In strict mode the way to the Pod Identity agent, a link-local address of the node, leads into the VPC.
pub(super) fn pod_identity_in_strict_mode(pod: &PodFacts, mode: Option<Mode>, demand: &Demand) -> Option<Judgement> {
    let container = pod.containers.iter().find(|container| identity::has_pod_identity(container))?;
    if mode != Some(Mode::Strict) {
        return None;
    }
    let text = format!(
        "container {} of {} takes its credentials from the EKS Pod Identity agent, which pods with security groups in \
         strict mode cannot reach, and no group rule changes that: use standard mode and make the pod anew, or use IRSA",
        container.name,
        pod_object(pod)
    );
    let field = format!("spec.containers[{}].env", container.name);
    let mut evidence = vec![pod_says(pod, &field, "AWS_CONTAINER_CREDENTIALS_FULL_URI")];
    let names = demand.policies.iter().map(|policy| policy_says(policy, "spec.podSelector", "selects it"));
    evidence.extend(names);
    let violation = Violation { severity: Severity::Medium, cause: "strict_mode", text, evidence };
    Some(Judgement {
        code: Code::PodIdentityUnreachable,
        subject: subject(pod),
        verdict: Verdict::Violated(Box::new(violation)),
    })
}
