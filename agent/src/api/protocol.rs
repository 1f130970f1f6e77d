//! What travels over the socket.

use std::collections::BTreeMap;

use agent_core::output::{FindingRow, Identity, ObjectKind, ObjectRow, Output};
use serde::{Deserialize, Serialize};

use crate::lines::{self, Form, LineKind, SCHEMA};

/// Longest request: a few hundred filters.
pub(super) const REQUEST_BYTES_MAX: u64 = 16 << 10;
/// Longest line of an answer that a client keeps whole; a status with all kinds, fates and probes takes about 8 KiB.
pub(super) const ANSWER_BYTES_MAX: u64 = 256 << 10;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// [`SCHEMA`].
    pub(crate) schema: String,
    /// What is asked.
    #[serde(rename = "request")]
    pub(crate) verb: Verb,
    /// How lines look.
    #[serde(default)]
    pub(crate) form: Form,
    /// Go on after what was said lately.
    #[serde(default)]
    pub(crate) follow: bool,
    /// Which lines.
    #[serde(default)]
    pub(crate) filter: Filter,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verb {
    /// Outputs.
    Observe,
    /// A [`Status`].
    Status,
    /// Findings that stand, and those that were resolved lately.
    Findings,
    /// The node's ceilings.
    Capacity,
    /// Policies of security groups, their rules, and what pods used of them.
    SgAudit,
    /// Tokens for the Kubernetes API, and what pods did with them.
    TokenAudit,
    /// Who sent and received how much, now and since the agent's start.
    Traffic,
}

/// A question to the task that owns the Engine.
pub(crate) struct Question {
    /// What is asked: anything but [`Verb::Observe`].
    pub(crate) verb: Verb,
    /// Where the answer goes: lines of JSON without their ends.
    pub(crate) answer: tokio::sync::oneshot::Sender<Vec<String>>,
}

/// Which outputs; an empty list lets all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Filter {
    /// Any of these kinds.
    pub(crate) kinds: Vec<LineKind>,
    /// Any of these pods. Lines about no pod do not pass; gaps do, for they concern everybody.
    pub(crate) pods: Vec<PodName>,
    /// Any of these workloads; gaps as above.
    pub(crate) workloads: Vec<String>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PodName {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

/// First line of every answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Answer {
    /// [`SCHEMA`].
    pub(crate) schema: String,
    /// The agent's version.
    pub(crate) version: String,
    /// Why nothing follows; `None` when something does.
    pub(crate) error: Option<String>,
}

/// How the agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Status {
    /// The node's name.
    pub(crate) node: String,
    /// The agent's process.
    pub(crate) pid: u32,
    /// Every probe, attached or not.
    pub(crate) probes: Vec<Probe>,
    /// Every record's fate.
    pub(crate) books: Vec<Book>,
    /// How often the kernel's counters were read so far: what the probes refused since the last time is in no book yet.
    #[serde(default)]
    pub(crate) readings: u64,
    /// Every source of the node's ceilings that was looked at.
    #[serde(default)]
    pub(crate) collectors: Vec<Collector>,
    /// The EC2 API; `None` for an agent of an earlier version.
    #[serde(default)]
    pub(crate) ec2: Option<Ec2Status>,
    /// The history on the node; `None` for an agent of an earlier version.
    #[serde(default)]
    pub(crate) history: Option<HistoryStatus>,
    /// What takes rows that leave the node.
    #[serde(default)]
    pub(crate) exports: Vec<ExportStatus>,
    /// What the agent may still do now that its probes are attached; `None` for an agent of an earlier version.
    #[serde(default)]
    pub(crate) privileges: Option<PrivilegeStatus>,
    /// The server beyond loopback, if there is one.
    #[serde(default)]
    pub(crate) secure: Option<SecureStatus>,
}

/// The server that shows metrics beyond loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct SecureStatus {
    /// Where it listens.
    pub(crate) address: String,
    /// Which certificate it shows.
    pub(crate) tls: String,
    /// Why it shows an earlier one than the files hold; `None` when it does not.
    pub(crate) failing: Option<String>,
    /// Connections and requests since the start, by what became of them.
    pub(crate) requests: BTreeMap<String, u64>,
}

/// What the agent's threads may still do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct PrivilegeStatus {
    /// Capabilities that any thread has, by name.
    pub(crate) held: Vec<String>,
    /// Why not all was given up that could be.
    pub(crate) failed: Option<String>,
}

/// What takes rows that leave the node. Counts are since the agent's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct ExportStatus {
    /// `file` or `otlp`.
    pub(crate) sink: String,
    /// Where they go.
    pub(crate) to: String,
    /// Why they do not; `None` when they do.
    pub(crate) failing: Option<String>,
    /// Rows that arrived.
    pub(crate) shipped: u64,
    /// Rows that were refused for good.
    pub(crate) refused: u64,
    /// Rows that were lost on the way.
    pub(crate) lost: u64,
    /// Age of the oldest row that waits, seconds; 0 for none.
    pub(crate) oldest_age_s: u64,
}

/// How the EC2 API stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Ec2Status {
    /// Switched off by the configuration, or asked when there is something to ask.
    pub(crate) enabled: bool,
    /// Region and endpoint, when known.
    pub(crate) place: Option<String>,
    /// Why nothing can be asked; `None` when it can, or nobody tried.
    pub(crate) unreachable: Option<String>,
    /// Every call that was tried.
    pub(crate) calls: Vec<Ec2Standing>,
}

/// How one call of the EC2 API stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Ec2Standing {
    /// Its name.
    pub(crate) name: String,
    /// What is missing without it.
    pub(crate) gives: String,
    /// How long ago it last worked, seconds; `None`: never.
    pub(crate) age_seconds: Option<u64>,
    /// Why it does not; `None` while it does.
    pub(crate) error: Option<String>,
    /// Actions that the role's policy must allow; empty when permission is not what lacks.
    pub(crate) missing_actions: Vec<String>,
}

/// How the history is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct HistoryStatus {
    /// Where it is.
    pub(crate) directory: String,
    /// Switched off by the configuration, or written.
    pub(crate) enabled: bool,
    /// Why it cannot be written; `None` when it can.
    pub(crate) failing: Option<String>,
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// Rows stored since the agent's start.
    pub(crate) stored_rows: u64,
    /// Rows lost since the agent's start.
    pub(crate) lost_rows: u64,
}

/// A probe.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Probe {
    /// Its name.
    pub(crate) name: String,
    /// What is missing without it.
    pub(crate) gives: String,
    /// Nothing works without it.
    pub(crate) required: bool,
    /// Why it is not attached; `None` when it is.
    pub(crate) refused: Option<String>,
}

/// A source of the node's ceilings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Collector {
    /// Its name.
    pub(crate) name: String,
    /// What it said last.
    pub(crate) state: CollectorState,
    /// Why not; empty when it works.
    pub(crate) why: String,
    /// How long the last look took, microseconds.
    pub(crate) duration_us: u64,
}

/// How a source stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CollectorState {
    /// It works.
    Ok,
    /// The node has no such thing.
    Absent,
    /// It does not, or in part only.
    Failed,
}

/// What became of the records of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Book {
    /// The kind.
    pub(crate) kind: String,
    /// Records that the probes had to report.
    pub(crate) seen: u64,
    /// Records on their way: in a ring, in a queue, in an open fold.
    pub(crate) pending: u64,
    /// All others, by fate.
    pub(crate) fates: BTreeMap<String, u64>,
}

// === impl Request ===

impl Request {
    /// A request for what the agent knows now.
    pub(crate) fn state(verb: Verb) -> Self {
        Self { schema: SCHEMA.to_owned(), verb, form: Form::Json, follow: false, filter: Filter::default() }
    }

    /// A request for outputs.
    pub(crate) fn observe(form: Form, follow: bool, filter: Filter) -> Self {
        Self { schema: SCHEMA.to_owned(), verb: Verb::Observe, form, follow, filter }
    }
}

// === impl Filter ===

impl Filter {
    /// Whether an output passes.
    pub(crate) fn passes(&self, output: &Output) -> bool {
        let Self { kinds, pods, workloads } = self;
        if !kinds.is_empty() && !kinds.contains(&lines::kind(output)) {
            return false;
        }
        let about = |is_pod: &dyn Fn(&PodName) -> bool, workload: &str| {
            (pods.is_empty() || pods.iter().any(is_pod))
                && (workloads.is_empty() || workloads.iter().any(|wanted| wanted == workload))
        };
        let identity = |identity: &Identity| about(&|pod| pod.is(identity), &identity.workload);
        match output {
            Output::Flow(row) => identity(&row.who.identity),
            Output::Metadata(row) => identity(&row.who.identity),
            Output::Process(row) => identity(&row.who.identity),
            Output::Finding(row) => about(&|pod| pod.is_among(row), &row.subject.workload),
            Output::Capacity(_) => about(&|_| false, ""),
            // What is no pod may be about any pod of its namespace.
            Output::Object(row) => about(&|pod| pod.may_be_about(row), &row.workload),
            Output::Gap(_) => true,
        }
    }
}

// === impl PodName ===

impl PodName {
    fn is(&self, identity: &Identity) -> bool {
        !identity.pod.is_empty() && self.name == identity.pod && self.namespace == identity.namespace
    }

    fn may_be_about(&self, row: &ObjectRow) -> bool {
        let is_pod = row.object == ObjectKind::Pod;
        *self.namespace == *row.namespace && (!is_pod || *self.name == *row.name)
    }

    fn is_among(&self, row: &FindingRow) -> bool {
        *self.namespace == *row.subject.namespace
            && (row.pods.iter().any(|pod| **pod == *self.name) || *row.subject.pod == *self.name)
    }
}

impl std::str::FromStr for PodName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("expected NAMESPACE/NAME"),
        }
    }
}

// === impl Answer ===

impl Answer {
    /// Lines follow.
    pub(super) fn ok() -> Self {
        Self { schema: SCHEMA.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), error: None }
    }

    /// Nothing follows.
    pub(super) fn refused(why: String) -> Self {
        Self { error: Some(why), ..Self::ok() }
    }
}

// === impl Book ===

impl Book {
    /// Every record that was seen has exactly one fate, or is on its way.
    pub(crate) fn balances(&self) -> bool {
        let settled = self.fates.values().fold(self.pending, |sum, count| sum.saturating_add(*count));
        self.seen == settled
    }
}
