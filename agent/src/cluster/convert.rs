//! One object of Kubernetes, as JSON, to facts: the edge where foreign shapes end.
//!
//! Only fields that a decision needs are read, so an odd shape elsewhere in an object does no harm and a newer API adds
//! nothing to break on. In those fields the shape must be right: what cannot be read makes the object [`Malformed`],
//! with the path of the field and never with its value, which may be a secret. A missing field and a null one are the
//! same, as they are to the API server; both have the API's default.

mod account;
mod annotation;
mod cni;
mod container;
mod event;
mod managed;
mod node;
mod pod;
mod policy;
mod probes;
mod quantity;
mod requests;
pub(super) mod service;
mod shapes;
mod template;
#[cfg(test)]
mod tests;
mod workload;

use std::sync::Arc;

use agent_core::facts::{
    CniNodeFacts, CsiNodeFacts, GroupEvent, NetworkPolicyFacts, NodeFacts, PodFacts, PolicyFacts, ServiceAccountFacts,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::shapes::Head;

/// Longest reason or name that is kept of a malformed object, bytes.
const TEXT_BYTES_MAX: usize = 256;
/// What the IRSA webhook's annotations begin with unless it was told otherwise.
pub(crate) const IRSA_PREFIX_DEFAULT: &str = "eks.amazonaws.com";

/// What an object is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Converted {
    /// A pod, admitted or not.
    Pod(Box<PodFacts>),
    /// The pod that a workload (`Deployment`, `Job`, …) would make.
    Template {
        /// Kind of the object, as `Deployment`.
        kind: &'static str,
        /// The pod.
        pod: Box<PodFacts>,
    },
    /// A service account.
    ServiceAccount(Box<ServiceAccountFacts>),
    /// A `SecurityGroupPolicy`.
    Policy(Box<PolicyFacts>),
    /// A `NetworkPolicy`, or a `PolicyEndpoint`.
    NetworkPolicy(Box<NetworkPolicyFacts>),
    /// A namespace: its name.
    Namespace(Arc<str>),
    /// A node.
    Node(Box<NodeFacts>),
    /// A `CNINode`.
    CniNode {
        /// Its name, which is the node's.
        name: Arc<str>,
        /// What it says.
        facts: CniNodeFacts,
    },
    /// A `CSINode`.
    CsiNode {
        /// Its name, which is the node's.
        name: Arc<str>,
        /// What it says.
        facts: CsiNodeFacts,
    },
    /// An event of the VPC resource controller about a pod.
    GroupEvent {
        /// The pod's `metadata.uid`.
        uid: Arc<str>,
        /// What it says.
        event: GroupEvent,
    },
    /// An object that says nothing here: `kind` of `apiVersion`, for counting.
    Skipped {
        /// Kind, as far as the object tells.
        kind: String,
    },
    /// An object that should say something and cannot be read.
    Malformed(Malformed),
}

/// Why an object cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Kind, as far as the object tells.
    pub(crate) kind: String,
    /// `namespace/name`, as far as the object tells.
    pub(crate) object: String,
    /// The field and what was expected there.
    pub(crate) why: String,
}

/// What objects are read by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conversion {
    /// What the annotations of the IRSA webhook begin with (`<prefix>/role-arn`).
    pub(crate) irsa_prefix: String,
}

// === impl Conversion ===

impl Default for Conversion {
    fn default() -> Self {
        Self { irsa_prefix: IRSA_PREFIX_DEFAULT.to_owned() }
    }
}

impl Conversion {
    /// One object; lists are taken apart before.
    pub(crate) fn object(&self, mut object: Value) -> Converted {
        drop_nulls(&mut object, false);
        let head = Head::of(&object);
        let result = match (head.group.as_str(), head.kind.as_str()) {
            ("", "Pod") => read(object).and_then(|pod| pod::admitted_or_not(pod, self)).map(boxed(Converted::Pod)),
            ("", "ServiceAccount") => {
                read(object).and_then(|object| account::facts(object, self)).map(boxed(Converted::ServiceAccount))
            }
            ("", "Namespace") => read(object).and_then(|object| node::namespace(&object)).map(Converted::Namespace),
            ("", "Node") => read(object).and_then(node::node).map(boxed(Converted::Node)),
            ("" | "events.k8s.io", "Event") => read(object).and_then(event::converted),
            ("vpcresources.k8s.aws", "SecurityGroupPolicy") => {
                read(object).and_then(policy::facts).map(boxed(Converted::Policy))
            }
            ("networking.k8s.io", "NetworkPolicy") => {
                read(object).and_then(policy::network).map(boxed(Converted::NetworkPolicy))
            }
            ("networking.k8s.aws", "PolicyEndpoint") => {
                read(object).and_then(policy::endpoint).map(boxed(Converted::NetworkPolicy))
            }
            ("vpcresources.k8s.aws", "CNINode") => read(object).and_then(|object| {
                let (name, facts) = node::cni_node(&object)?;
                Ok(Converted::CniNode { name, facts })
            }),
            ("storage.k8s.io", "CSINode") => read(object).and_then(|object| {
                let (name, facts) = node::csi_node(&object)?;
                Ok(Converted::CsiNode { name, facts })
            }),
            (group, kind) => match template::Kind::of(group, kind) {
                Some(kind) => template::pod(kind, object, self)
                    .map(|pod| Converted::Template { kind: kind.name(), pod: Box::new(pod) }),
                None => return head.skipped(),
            },
        };
        result.unwrap_or_else(|why| Converted::Malformed(head.malformed(why)))
    }
}

/// Puts facts behind a pointer, so that the small answers do not take the room of the large ones.
fn boxed<T>(make: impl FnOnce(Box<T>) -> Converted) -> impl FnOnce(T) -> Converted {
    move |facts| make(Box::new(facts))
}

// === impl Malformed ===

impl Malformed {
    /// With texts of foreign origin cut.
    pub(super) fn new(kind: &str, object: &str, why: &str) -> Self {
        Self { kind: cut(kind), object: cut(object), why: cut(why) }
    }
}

/// At most [`TEXT_BYTES_MAX`] bytes, whole characters.
pub(super) fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

/// Reads the fields of one shape. The error has the path of the field and what was expected there, and nothing of what
/// stands there.
fn read<T: DeserializeOwned>(object: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(object).map_err(|error| {
        let text = error.inner().to_string();
        let path = error.path();
        // Of serde's own texts the end says what was expected; all others may quote what they found.
        let expected = text.strip_prefix("invalid ").and_then(|text| text.rsplit_once(", expected "));
        match expected {
            Some((_, expected)) => format!("{path}: expected {expected}"),
            None => format!("{path}: cannot be read"),
        }
    })
}

/// Removes what is null. In a map of texts (labels, annotations) null is the empty text, as it is to the API server.
fn drop_nulls(value: &mut Value, texts: bool) {
    // As deep as the reader of JSON or YAML lets a document be, which is 128.
    match value {
        Value::Object(members) => {
            if texts {
                for member in members.values_mut().filter(|member| member.is_null()) {
                    *member = Value::String(String::new());
                }
                return;
            }
            members.retain(|_, member| !member.is_null());
            for (key, member) in members {
                let texts = matches!(key.as_str(), "labels" | "annotations" | "matchLabels" | "nodeSelector");
                drop_nulls(member, texts);
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| drop_nulls(element, false)),
        _ => {}
    }
}
