//! The answer of a review, as it is serialized.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::Place;
use crate::finding::{Code, Evidence, Severity, Subject};
use crate::output::{SCHEMA, State};
use crate::papers::enforcement::Mode;
use crate::papers::identity::Kind;

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckReport {
    /// Version of the field names.
    pub schema: &'static str,
    /// `check`.
    pub kind: &'static str,
    /// Pods, by namespace, workload and name.
    pub pods: Vec<PodReport>,
    /// All findings: first those about policies, then those of the pods in their order.
    pub findings: Vec<Finding>,
    /// Objects that say nothing about groups and identities.
    pub skipped: u64,
    /// The same by kind.
    pub skipped_kinds: BTreeMap<String, u64>,
    /// What could not be read.
    pub errors: Vec<Problem>,
}

/// One pod, or the pods of one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PodReport {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name; of a workload's pods the workload's.
    pub name: Arc<str>,
    /// The object's kind, as `Deployment`.
    pub kind: Arc<str>,
    /// Owner's name.
    pub workload: Arc<str>,
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// It was taken from a cluster, and is judged as it is; else as it will be.
    pub admitted: bool,
    /// Security groups by policies; empty: the node's.
    pub security_groups: Vec<Arc<str>>,
    /// `policy` or `node`.
    pub security_groups_source: &'static str,
    /// Why these groups are not certain, or not all; `None`: they are.
    pub security_groups_cannot_tell: Option<&'static str>,
    /// Policies that select it, when its groups come from them.
    pub policies: Vec<Arc<str>>,
    /// Mode in which its groups are applied; `None`: not told, or it has none.
    pub enforcement_mode: Option<Mode>,
    /// Its AWS identity.
    pub identity: Identity,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
    /// What cannot be told about it.
    pub cannot_tell: Vec<CannotTell>,
}

/// An AWS identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// By which way.
    pub kind: Kind,
    /// ARN of the role, where it is known.
    pub role: Option<Arc<str>>,
    /// How that is known, and what is not.
    pub why: String,
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// `open`, or `accepted` by a waiver.
    pub state: State,
    /// What the waiver says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_reason: Option<Arc<str>>,
    /// In a sentence.
    pub text: String,
    /// Why, from the code's closed list.
    pub cause: &'static str,
    /// What to do.
    pub advice: &'static str,
    /// The object, as `Deployment shop/cart`.
    pub object: String,
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// About whom.
    pub subject: Subject,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
}

/// A rule that could not be decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CannotTell {
    /// The rule.
    pub code: Code,
    /// Container, where it is about one.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub container: Arc<str>,
    /// What is missing, from the closed list of [`crate::papers::why`].
    pub why: &'static str,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong.
    pub text: String,
}

// === impl CheckReport ===

impl CheckReport {
    pub(super) fn new(
        pods: Vec<PodReport>,
        findings: Vec<Finding>,
        skipped_kinds: BTreeMap<String, u64>,
        errors: Vec<Problem>,
    ) -> Self {
        let skipped = skipped_kinds.values().sum();
        Self { schema: SCHEMA, kind: "check", pods, findings, skipped, skipped_kinds, errors }
    }

    /// Findings of at least a severity that nobody accepted.
    pub fn at_least(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.state == State::Open && finding.severity >= severity)
    }
}
