//! Objects of the cluster as rows: each as it stands from a moment on.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::facts::{NetworkPolicyFacts, PodFacts, PolicyFacts, ServiceAccountFacts};
use crate::time::WallNs;

/// An object of the cluster came, changed or went, as far as the agent keeps facts of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectRow {
    /// When the agent learned of it.
    #[serde(skip)]
    pub time: WallNs,
    /// What it is.
    pub object: ObjectKind,
    /// What became of it.
    pub change: Change,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// `metadata.uid`; `None` where facts do not keep it.
    pub uid: Option<Arc<str>>,
    /// Owner of a pod, as other rows name it; empty for all else.
    pub workload: Arc<str>,
    /// Names of the facts that differ from those before; empty unless it changed, and when those before are not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// What is kept of it; `None`: it is gone, or another version of the program wrote it in a form that this one cannot
    /// read.
    pub facts: Option<ObjectFacts>,
    /// Tells contents apart, over a restart too: those that differ in nothing but readiness have the same.
    #[serde(skip)]
    pub digest: u64,
}

/// Kinds of objects whose versions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A pod of this node.
    Pod,
    /// A `SecurityGroupPolicy`.
    SecurityGroupPolicy,
    /// A `NetworkPolicy`.
    NetworkPolicy,
    /// A service account of a pod of this node.
    ServiceAccount,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was not known before: it is new, or the agent is.
    Seen,
    /// It is not what it was.
    Changed,
    /// It is not there any more.
    Gone,
}

/// What is kept of an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ObjectFacts {
    /// Of a pod.
    Pod(Arc<PodFacts>),
    /// Of a `SecurityGroupPolicy`.
    SecurityGroupPolicy(Arc<PolicyFacts>),
    /// Of a `NetworkPolicy`.
    NetworkPolicy(Arc<NetworkPolicyFacts>),
    /// Of a service account.
    ServiceAccount(Arc<ServiceAccountFacts>),
}

impl ObjectFacts {
    /// Reads what [`ObjectFacts`] wrote as JSON.
    pub fn from_json(object: ObjectKind, json: &str) -> Result<Self, serde_json::Error> {
        Ok(match object {
            ObjectKind::Pod => Self::Pod(serde_json::from_str(json)?),
            ObjectKind::SecurityGroupPolicy => Self::SecurityGroupPolicy(serde_json::from_str(json)?),
            ObjectKind::NetworkPolicy => Self::NetworkPolicy(serde_json::from_str(json)?),
            ObjectKind::ServiceAccount => Self::ServiceAccount(serde_json::from_str(json)?),
        })
    }

    /// What it is.
    pub fn object(&self) -> ObjectKind {
        match self {
            Self::Pod(_) => ObjectKind::Pod,
            Self::SecurityGroupPolicy(_) => ObjectKind::SecurityGroupPolicy,
            Self::NetworkPolicy(_) => ObjectKind::NetworkPolicy,
            Self::ServiceAccount(_) => ObjectKind::ServiceAccount,
        }
    }

    /// Namespace and name.
    pub fn name(&self) -> (&Arc<str>, &Arc<str>) {
        match self {
            Self::Pod(facts) => (&facts.namespace, &facts.name),
            Self::SecurityGroupPolicy(facts) => (&facts.namespace, &facts.name),
            Self::NetworkPolicy(facts) => (&facts.namespace, &facts.name),
            Self::ServiceAccount(facts) => (&facts.namespace, &facts.name),
        }
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> Option<&Arc<str>> {
        match self {
            Self::Pod(facts) => facts.uid.as_ref(),
            Self::SecurityGroupPolicy(facts) => facts.uid.as_ref(),
            Self::NetworkPolicy(_) => None,
            Self::ServiceAccount(facts) => facts.uid.as_ref(),
        }
    }
}

impl ObjectKind {
    /// Name in rows and for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::SecurityGroupPolicy => "security_group_policy",
            Self::NetworkPolicy => "network_policy",
            Self::ServiceAccount => "service_account",
        }
    }
}
