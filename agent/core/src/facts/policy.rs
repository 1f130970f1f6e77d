//! A `SecurityGroupPolicy` and label selectors.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::WallNs;

/// What is kept of a `SecurityGroupPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFacts {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// `metadata.uid`; `None` in a manifest.
    pub uid: Option<Arc<str>>,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// `metadata.creationTimestamp`.
    pub created: Option<WallNs>,
    /// When the spec was last written, from `managedFields`; `None` when they do not tell.
    pub spec_changed: Option<WallNs>,
    /// `spec.podSelector`; `None`: absent or null. An empty one matches everything.
    pub pod_selector: Option<Selector>,
    /// `spec.serviceAccountSelector`; `None`: absent or null. On the *labels* of the account.
    pub service_account_selector: Option<Selector>,
    /// `spec.securityGroups.groupIds`, as the object lists them.
    pub groups: Vec<Arc<str>>,
}

/// What is kept of a `NetworkPolicy`, or of a `PolicyEndpoint` that AWS's controller made of a policy: enough to know that
/// it may be what drops a pod's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicyFacts {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// `spec.podSelector`; an empty one selects every pod of the namespace.
    pub pod_selector: Selector,
    /// `spec.policyTypes` names `Ingress` alone: what leaves the pod is none of its business.
    #[serde(default)]
    pub ingress_only: bool,
    /// It names `Egress` alone.
    #[serde(default)]
    pub egress_only: bool,
    /// Of a `PolicyEndpoint`: name of the policy that it was made of; `None`: this is a `NetworkPolicy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_of: Option<Arc<str>>,
}

/// A label selector, unchecked: an operator that does not exist makes it match nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// `matchLabels`.
    pub match_labels: BTreeMap<String, String>,
    /// `matchExpressions`.
    pub match_expressions: Vec<Expression>,
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expression {
    /// Label.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, or what else the object says.
    pub operator: String,
    /// Values.
    pub values: Vec<String>,
}
