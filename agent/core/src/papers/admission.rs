//! What admission will make of an object that was not admitted yet: the two webhooks of EKS that decide about groups
//! and identities.
//!
//! Sources: `webhooks/core/pod_webhook.go` of aws/amazon-vpc-resource-controller-k8s, `pkg/handler/handler.go` of
//! aws/amazon-eks-pod-identity-webhook. Both fail open; a forecast assumes that they answer.

use super::Account;
use super::demand::Demand;
use super::identity::Associations;
use crate::facts::{ContainerFacts, ContainerKind, PodFacts, Value};

/// Address and token file that the webhook injects for Pod Identity.
const POD_IDENTITY_URI: &str = "http://169.254.170.23/v1/credentials";
const POD_IDENTITY_TOKEN: &str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";
/// Token file that the webhook injects for IRSA.
const IRSA_TOKEN: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token";

/// The pod as the webhooks will leave it.
pub fn admitted(pod: &PodFacts, account: Account<'_>, demand: &Demand, associations: &Associations) -> PodFacts {
    let mut pod = pod.clone();
    ask_for_branch(&mut pod, demand);
    if !pod.skip_identity_webhook {
        inject_identity(&mut pod, account, associations);
    }
    pod
}

/// Host network is passed over, then Fargate gets an annotation, Windows something else, Linux the limit on its first
/// container.
fn ask_for_branch(pod: &mut PodFacts, demand: &Demand) {
    if pod.host_network || pod.fargate || pod.windows || demand.policies.is_empty() {
        return;
    }
    if !pod.first_container_branch_limit {
        pod.branch_limit = pod.branch_limit.saturating_add(1);
        pod.first_container_branch_limit = true;
    }
}

/// Pod Identity comes before IRSA, never both. Variables that are there stay as they are.
fn inject_identity(pod: &mut PodFacts, account: Account<'_>, associations: &Associations) {
    let key = (pod.namespace.clone(), pod.service_account.clone());
    let associated = matches!(associations, Associations::Known(known) if known.contains_key(&key));
    let role = match account {
        Account::Known(account) => account.role_arn.clone().filter(|role| !role.is_empty()),
        Account::Gone | Account::Unknown => None,
    };
    if !associated && role.is_none() {
        return;
    }
    let skipped = pod.skip_containers.clone();
    let eligible = |container: &&mut ContainerFacts| {
        container.kind != ContainerKind::Ephemeral && !skipped.iter().any(|name| **name == *container.name)
    };
    for container in pod.containers.iter_mut().filter(eligible) {
        let env = &mut container.identity;
        if associated {
            container.pod_identity_mount = true;
            if env.container_credentials_uri.is_none() && env.container_token_file.is_none() {
                env.container_credentials_uri = Some(Value::Literal(POD_IDENTITY_URI.into()));
                env.container_token_file = Some(Value::Literal(POD_IDENTITY_TOKEN.into()));
            }
        } else if let Some(role) = &role {
            container.irsa_mount = true;
            if env.role_arn.is_none() && env.web_identity_token_file.is_none() {
                env.role_arn = Some(Value::Literal(role.clone()));
                env.web_identity_token_file = Some(Value::Literal(IRSA_TOKEN.into()));
            }
        }
    }
    if associated {
        pod.pod_identity_volume = true;
        pod.pod_identity_label = true;
    } else {
        pod.irsa_volume = true;
    }
}
