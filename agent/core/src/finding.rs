//! Findings: what contradicts the papers, what runs out, what cannot be trusted.
//!
//! A [`Judgement`] is what a rule says about one subject at one moment. The ledger makes findings of them: opened,
//! repeated, accepted by a waiver, resolved.

pub mod catalogue;
mod code;
mod evaluator;
pub mod ledger;
pub mod rules;
mod state;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::catalogue::Lasts;
pub use self::code::{Code, Severity};
pub use self::evaluator::{EVALUATION_NS, Evaluator, Settings, View};
pub use self::ledger::Ledger;
pub(crate) use self::rules::requests::is_mesh_container;
pub use self::rules::tokens::TokenRow;
pub use self::state::STATE_CODES;

/// What a rule says about one subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The rule.
    pub code: Code,
    /// About whom.
    pub subject: Subject,
    /// What.
    pub verdict: Verdict,
}

/// An answer. Cannot tell is one.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// All is as it should be.
    Holds,
    /// It is not.
    Violated(Box<Violation>),
    /// Not enough is known: what is missing, from the closed lists of the rules.
    CannotTell(&'static str),
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// How bad, for this subject.
    pub severity: Severity,
    /// Why, from the code's closed list of causes.
    pub cause: &'static str,
    /// What, in a sentence with the names of this case.
    pub text: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
}

/// Something that a verdict rests on: which object, which field, which generation, which value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Evidence {
    /// `SecurityGroupPolicy shop/cart`, `Pod shop/cart-0`, `request`, `interface vlan5ab3…`.
    pub object: String,
    /// The field, as `spec.podSelector`; empty when the object says it by being there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// Generation of the object, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// What it says.
    pub value: String,
}

/// About whom a finding is. Empty: does not apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// Namespace.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub namespace: Arc<str>,
    /// Owner of the pod, as people name it.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub workload: Arc<str>,
    /// Pod.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub pod: Arc<str>,
    /// The pod's uid.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub uid: Arc<str>,
    /// Container's name, where it matters.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub container: Arc<str>,
    /// Service account, where the finding is about one.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub service_account: Arc<str>,
    /// `SecurityGroupPolicy`, where the finding is about one.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub policy: Arc<str>,
    /// Peer and port `10.1.2.3:5432/tcp`, where the finding is about a flow.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub peer: Arc<str>,
    /// Resource of a capacity finding.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub resource: Arc<str>,
    /// Scope of that resource, as `node`, `pod shop/cart-0`, `interface eth0`.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub scope: Arc<str>,
}

#[cfg(test)]
mod tests;
