//! Which AWS identity a container has, and by which way it comes.
//!
//! The SDKs look at access keys in the environment first, then at a web identity token (IRSA), then at container
//! credentials (EKS Pod Identity), then at the instance metadata service, which gives the node's role. Sources: the AWS
//! SDKs' "standardized credential providers"; `pkg/handler/handler.go` of aws/amazon-eks-pod-identity-webhook.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::{Account, pod_object, pod_says};
use crate::facts::{ContainerFacts, ContainerKind, PodFacts, Value};
use crate::finding::Evidence;

/// Addresses of the EKS Pod Identity agent, as they stand in the address of its credentials.
const POD_IDENTITY_HOSTS: [&str; 2] = ["//169.254.170.23/", "//[fd00:ec2::23]/"];

/// A way to an AWS identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A role by a web identity token: IAM roles for service accounts.
    Irsa,
    /// A role by the EKS Pod Identity agent.
    PodIdentity,
    /// Access keys in the environment.
    Static,
    /// The node's role, as node-level agents have it.
    NodeRole,
    /// Not known.
    Unknown,
    /// None of its own. Where the metadata service is within reach, clients find the node's role.
    None,
}

/// An AWS identity and how it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// By which way.
    pub kind: Kind,
    /// ARN of the role, where the way tells it.
    pub role: Option<Arc<str>>,
    /// A role that was meant for it and did not arrive.
    pub missed: Option<Arc<str>>,
    /// How that is known, in a sentence.
    pub why: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
}

/// Roles by namespace and service account; `None`: associated, and the role was not told.
pub type AssociationMap = BTreeMap<(Arc<str>, Arc<str>), Option<Arc<str>>>;

/// Pod Identity associations of a cluster, which no Kubernetes object tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Associations {
    /// Nobody told.
    #[default]
    Unknown,
    /// All of them.
    Known(AssociationMap),
}

/// The identity of one container as its spec stands, that is, after admission.
pub fn of_container(pod: &PodFacts, container: &ContainerFacts, account: Account<'_>) -> Identity {
    let env = &container.identity;
    let field = format!("spec.containers[{}].env", container.name);
    let found = |kind, role: Option<&Value>, why: &str, variable: &str| Identity {
        kind,
        role: role.and_then(literal).cloned(),
        missed: None,
        why: format!("container {}: {why}", container.name),
        evidence: vec![pod_says(pod, &field, variable)],
    };
    if env.access_key_id {
        return found(Kind::Static, None, "access key in its environment", "AWS_ACCESS_KEY_ID");
    }
    if let (Some(role), Some(_)) = (&env.role_arn, &env.web_identity_token_file) {
        return found(Kind::Irsa, Some(role), "role and web identity token in its environment", "AWS_ROLE_ARN");
    }
    let variable = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    if has_pod_identity(container) {
        return found(Kind::PodIdentity, None, "credentials from the EKS Pod Identity agent", variable);
    }
    if env.container_credentials_uri.is_some() {
        return found(
            Kind::Unknown,
            None,
            "credentials from an address that is not the EKS Pod Identity agent's",
            variable,
        );
    }
    if env.env_from {
        let why = "its environment comes from a ConfigMap or Secret as a whole, which may hold credentials";
        return found(Kind::Unknown, None, why, "envFrom");
    }
    let missed = match account {
        Account::Known(account) if eligible(pod).any(|eligible| eligible.name == container.name) => {
            account.role_arn.clone().filter(|role| !role.is_empty())
        }
        _ => None,
    };
    let (kind, why) = match (pod.host_network, &missed) {
        (_, Some(role)) => (Kind::None, format!("its service account names the role {role}, which does not reach it")),
        (true, None) => (Kind::NodeRole, "on the node's network, without an identity of its own".to_owned()),
        (false, None) => (Kind::None, "no identity of its own".to_owned()),
    };
    let why = if env.metadata_disabled { format!("{why}; AWS_EC2_METADATA_DISABLED is set") } else { why };
    Identity { why: format!("container {}: {why}", container.name), kind, role: None, missed, evidence: Vec::new() }
}

/// Whether a container has an identity of its own, or one was meant for it; `None`: not known. What was meant for it stands
/// in its account: without that, having none says nothing.
pub fn is_own(pod: &PodFacts, container: &ContainerFacts, account: Account<'_>) -> Option<bool> {
    let is_told =
        matches!(account, Account::Known(_)) || !eligible(pod).any(|eligible| eligible.name == container.name);
    of_container(pod, container, account).is_own().filter(|own| *own || is_told)
}

/// The identity of a pod: the strongest that an app or sidecar container has; with others beside it, `why` says so.
pub fn of_pod(pod: &PodFacts, account: Account<'_>) -> Identity {
    let long_lived =
        |container: &&ContainerFacts| matches!(container.kind, ContainerKind::App | ContainerKind::Sidecar);
    let mut identities: Vec<_> =
        pod.containers.iter().filter(long_lived).map(|container| of_container(pod, container, account)).collect();
    identities.sort_by_key(|identity| rank(identity.kind));
    let mut identities = identities.into_iter();
    let Some(mut strongest) = identities.next() else {
        let why = format!("{} has no containers", pod_object(pod));
        return Identity { kind: Kind::Unknown, role: None, missed: None, why, evidence: Vec::new() };
    };
    for other in identities {
        if (other.kind, &other.role) != (strongest.kind, &strongest.role) {
            strongest.why = format!("{}; {}", strongest.why, other.why);
        }
    }
    strongest
}

/// Containers that the identity webhook changes when the pod is admitted.
pub fn eligible(pod: &PodFacts) -> impl Iterator<Item = &ContainerFacts> {
    pod.containers.iter().filter(|container| {
        container.kind != ContainerKind::Ephemeral && !pod.skip_containers.iter().any(|name| **name == *container.name)
    })
}

/// Whether a container is led to the EKS Pod Identity agent.
pub fn has_pod_identity(container: &ContainerFacts) -> bool {
    let by_address = |uri: &Value| match uri {
        Value::Literal(uri) => POD_IDENTITY_HOSTS.iter().any(|host| uri.contains(host)),
        Value::Referenced => container.pod_identity_mount,
    };
    container.identity.container_credentials_uri.as_ref().is_some_and(by_address)
}

fn literal(value: &Value) -> Option<&Arc<str>> {
    match value {
        Value::Literal(text) => Some(text),
        Value::Referenced => None,
    }
}

/// Own identities first, then what is not known.
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Static => 0,
        Kind::Irsa => 1,
        Kind::PodIdentity => 2,
        Kind::Unknown => 3,
        Kind::NodeRole => 4,
        Kind::None => 5,
    }
}

// === impl Identity ===

impl Identity {
    /// Whether it is one of its own, or one was meant for it; `None`: not known.
    pub fn is_own(&self) -> Option<bool> {
        match self.kind {
            Kind::Irsa | Kind::PodIdentity | Kind::Static => Some(true),
            Kind::NodeRole | Kind::None => Some(self.missed.is_some()),
            Kind::Unknown => None,
        }
    }
}

// === impl Kind ===

impl Kind {
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Irsa => "irsa",
            Self::PodIdentity => "pod_identity",
            Self::Static => "static",
            Self::NodeRole => "node_role",
            Self::Unknown => "unknown",
            Self::None => "none",
        }
    }
}

#[cfg(test)]
mod tests;
