//! The rules about a pod's AWS credentials, as its spec and its service account tell.

use super::identity::{self, eligible};
use super::{Account, list, pod_object, pod_says, violated, why};
use crate::facts::{ContainerFacts, Phase, PodFacts, ServiceAccountFacts};
use crate::finding::{Evidence, Severity, Verdict};

/// The service account names a role, and no container that could have it has it, or Pod Identity instead.
pub(super) fn irsa_not_injected(pod: &PodFacts, account: Account<'_>) -> Verdict {
    if matches!(pod.phase, Some(Phase::Succeeded | Phase::Failed)) || pod.skip_identity_webhook {
        return Verdict::Holds;
    }
    // Not admitted: the webhook will inject what the account then says.
    if pod.uid.is_none() || pod.pod_identity_label || pod.pod_identity_volume {
        return Verdict::Holds;
    }
    let mut unknown = false;
    for container in eligible(pod) {
        let env = &container.identity;
        let injected = env.role_arn.is_some() || env.web_identity_token_file.is_some() || container.irsa_mount;
        let pod_identity = env.container_credentials_uri.is_some() || container.pod_identity_mount;
        if injected || pod_identity || env.access_key_id {
            return Verdict::Holds;
        }
        unknown |= env.env_from;
    }
    let account = match account {
        Account::Known(account) => account,
        Account::Gone => return Verdict::CannotTell(why::ACCOUNT_GONE),
        Account::Unknown => return Verdict::CannotTell(why::ACCOUNT),
    };
    let Some(role) = account.role_arn.as_ref().filter(|role| !role.is_empty()) else { return Verdict::Holds };
    if eligible(pod).next().is_none() {
        return Verdict::Holds;
    }
    if unknown {
        return Verdict::CannotTell(why::ENVIRONMENT);
    }
    let (cause, because) = match (annotated(account), pod.created) {
        (Some(annotated), Some(created)) if annotated >= created => {
            ("annotated_later", "the account was annotated after the pod was made: restart the pod")
        }
        (Some(_), Some(_)) if account.role_changed.is_some() => {
            ("webhook_missed", "the identity webhook did not see the pod or the account in time: it fails open")
        }
        _ => ("unknown", "the account was annotated later, or the identity webhook missed the pod: restart the pod"),
    };
    let text = format!(
        "{} should have the role {role} of its service account and has no identity, so AWS clients in it fall back to \
         the node's role: {because}",
        pod_object(pod)
    );
    let mut evidence = vec![Evidence {
        object: format!("ServiceAccount {}/{}", account.namespace, account.name),
        field: "metadata.annotations[\"eks.amazonaws.com/role-arn\"]".to_owned(),
        generation: None,
        value: role.to_string(),
    }];
    let names = list(eligible(pod).map(|container| &container.name));
    evidence.push(pod_says(pod, "spec.containers[].env", format!("no AWS_ROLE_ARN in {names}")));
    evidence.extend(annotated(account).map(|at| Evidence {
        object: format!("ServiceAccount {}/{}", account.namespace, account.name),
        field: "metadata".to_owned(),
        generation: None,
        value: format!("written {at}"),
    }));
    evidence.extend(pod.created.map(|at| pod_says(pod, "metadata.creationTimestamp", at.to_string())));
    violated(Severity::Medium, cause, text, evidence)
}

/// Pod Identity was injected, and the user's own variables come earlier in the chain of the SDKs.
pub(super) fn conflict(pod: &PodFacts, container: &ContainerFacts) -> Verdict {
    let env = &container.identity;
    if !identity::has_pod_identity(container) || matches!(pod.phase, Some(Phase::Succeeded | Phase::Failed)) {
        return Verdict::Holds;
    }
    let (cause, variable) = if env.access_key_id {
        ("access_key", "AWS_ACCESS_KEY_ID")
    } else if env.role_arn.is_some() && env.web_identity_token_file.is_some() {
        ("web_identity", "AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE")
    } else if env.env_from {
        return Verdict::CannotTell(why::ENVIRONMENT);
    } else {
        return Verdict::Holds;
    };
    let text = format!(
        "container {} of {} has EKS Pod Identity, but its own {variable} comes first in the SDKs' search, so that is \
         used",
        container.name,
        pod_object(pod)
    );
    let field = format!("spec.containers[{}].env", container.name);
    let evidence = vec![
        pod_says(pod, &field, format!("{variable} is set")),
        pod_says(pod, &field, "AWS_CONTAINER_CREDENTIALS_FULL_URI is set"),
    ];
    violated(Severity::Medium, cause, text, evidence)
}

/// A long-term access key stands in the environment.
pub(super) fn static_keys(pod: &PodFacts, container: &ContainerFacts) -> Verdict {
    let env = &container.identity;
    if matches!(pod.phase, Some(Phase::Succeeded | Phase::Failed)) {
        return Verdict::Holds;
    }
    if env.static_keys.is_empty() {
        return if env.access_key_id_referenced { Verdict::CannotTell(why::KEY) } else { Verdict::Holds };
    }
    let text = format!(
        "container {} of {} has a long-term access key in {}: whoever can read the pod can use it, from anywhere",
        container.name,
        pod_object(pod),
        list(env.static_keys.iter().map(|(variable, _)| variable))
    );
    let evidence = env.static_keys.iter().map(|(variable, key)| {
        pod_says(pod, &format!("spec.containers[{}].env[{variable}]", container.name), key.clone())
    });
    violated(Severity::High, "access_key", text, evidence.collect())
}

/// When the account's role was last written; its creation at the least.
fn annotated(account: &ServiceAccountFacts) -> Option<crate::time::WallNs> {
    account.role_changed.max(account.created)
}

#[cfg(test)]
mod tests;
