//! Readiness for a change of the instance metadata service: what a history tells of who would break, who has an identity of
//! its own to fall back to, and whom it does not concern; and what it does not tell.
//!
//! What the changes do (EC2 user guide, "Configure the instance metadata options"): the hop limit is the time to live of the
//! answer to a request for a token, and of no other answer. With tokens required, a request without one is answered 401. A
//! request for a token that carries X-Forwarded-For is refused with 403.

mod judge;
mod known;
mod report;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use agent_ebpf::wire::Service;
use serde::Serialize;

use self::known::Known;
pub use self::report::{Entry, HopLimit, NotCovered, Report, Tokens};
use crate::finding::Code;
use crate::input::{Category, ImdsVersion, MetadataOutcome};
use crate::output::{AttributionKind, FindingRow, GapRow, MetadataRow, ObjectRow, Output, Window, service_name};
use crate::time::WallNs;

/// Workloads told apart, at about 4 KiB: 16 MiB. A node has some hundreds in a month.
const MAX_WORKLOADS: usize = 4_096;
/// Ways of asking told apart in one workload: categories by answers, more than a client has.
const MAX_USES: usize = 256;
/// Names of pods, programs and roles that one entry shows.
const MAX_NAMES: usize = 8;
/// Gaps, floods and reasons listed.
const MAX_LISTED: usize = 1_024;

/// A change that somebody plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// `HttpPutResponseHopLimit` 1: the answer to a request for a token does not reach pods with a network of their own.
    #[serde(rename = "hop_limit_1")]
    HopLimit1,
    /// `HttpTokens` required: requests without a token are answered 401.
    TokensRequired,
    /// Pods with a network of their own do not reach the service: by a network policy, or hop limit 1 and tokens required.
    BlockedForPods,
    /// `HttpEndpoint` disabled: nobody on the node reaches the service.
    Disabled,
}

/// What is gathered, in this order: objects, then node's addresses, then rows.
#[derive(Debug, Default)]
pub struct Readiness {
    known: Known,
    workloads: BTreeMap<Name, Work>,
    left_out: u64,
    unknown: BTreeMap<&'static str, Seen>,
    unreadable: Seen,
    gaps: Vec<GapRow>,
    gaps_beyond: u64,
    floods: BTreeMap<(String, String), WallNs>,
    hop_limit: Option<SeenLimit>,
    hop_limits: BTreeSet<u8>,
    tokens_unanswered: u64,
    without_token: [Option<WallNs>; 2],
}

/// Namespace and workload; of what is no pod the unit or the container, without a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    namespace: String,
    workload: String,
}

/// What a workload asked.
#[derive(Debug, Default)]
struct Work {
    pods: BTreeSet<String>,
    uses: BTreeMap<Use, Seen>,
    /// Answers of the EKS Pod Identity agent with credentials.
    own_credentials: u64,
}

/// A way of asking: all that a verdict depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    category: Option<Category>,
    version: ImdsVersion,
    answer: Answer,
    network: Network,
    own: Own,
    forwarded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    /// It got what it asked for.
    Given,
    /// 401: it lacked a token, or a valid one.
    Unauthorized,
    /// Another status of 400 and above.
    Refused,
    /// None.
    Silent,
}

/// Whose network the client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Network {
    /// The node's.
    Node,
    /// One of its own, a hop farther.
    Own,
    Unknown,
}

/// Whether the client has an AWS identity beside the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Own {
    Irsa,
    PodIdentity,
    Static,
    /// Its account names a role that did not reach it.
    Missed,
    No,
    Unknown,
}

/// How often, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    requests: u64,
    first: Option<WallNs>,
    last: Option<WallNs>,
    programs: BTreeSet<String>,
    roles: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug)]
struct SeenLimit {
    hops: u8,
    at: WallNs,
    on_node: bool,
}

// === impl Readiness ===

impl Readiness {
    /// A version of an object. All of them come first, in any order.
    pub fn object(&mut self, row: &ObjectRow) {
        self.known.object(row);
    }

    /// Looks at a request for the node's own addresses, by which clients without facts are told to be on the node's network.
    /// All requests come by here before any comes by [`Readiness::row`].
    pub fn survey(&mut self, row: &MetadataRow) {
        if row.who.identity.attribution == AttributionKind::Host {
            self.known.node_address(row.local.ip.as_deref());
        }
    }

    /// A row of the window that is looked at.
    pub fn row(&mut self, output: &Output) {
        match output {
            Output::Metadata(row) if row.service == service_name(Service::Imds) => self.request(row),
            Output::Metadata(row) if row.access_key_id.is_some() => {
                let name = self.known.name(row);
                if let Some(work) = self.workloads.get_mut(&name) {
                    work.own_credentials += 1;
                } else if self.workloads.len() < MAX_WORKLOADS {
                    self.workloads.insert(name, Work { own_credentials: 1, ..Work::default() });
                }
            }
            Output::Gap(row) if self.gaps.len() < MAX_LISTED => self.gaps.push(row.clone()),
            Output::Gap(_) => self.gaps_beyond += 1,
            Output::Finding(row) => self.finding(row),
            _ => {}
        }
    }

    fn finding(&mut self, row: &FindingRow) {
        let key = (row.subject.namespace.to_string(), row.subject.workload.to_string());
        if row.code == Code::RecordFlood && (self.floods.len() < MAX_LISTED || self.floods.contains_key(&key)) {
            let last = self.floods.entry(key).or_insert(row.last_seen);
            *last = row.last_seen.max(*last);
        }
    }

    fn request(&mut self, row: &MetadataRow) {
        let answer = match row.outcome {
            MetadataOutcome::Ok => Answer::Given,
            MetadataOutcome::Unauthorized => Answer::Unauthorized,
            MetadataOutcome::Forbidden | MetadataOutcome::NotFound | MetadataOutcome::Error => Answer::Refused,
            MetadataOutcome::Unanswered | MetadataOutcome::Blocked | MetadataOutcome::Failed => Answer::Silent,
            // A connection without a request asks for nothing.
            MetadataOutcome::Idle => return,
            MetadataOutcome::Unparsed | MetadataOutcome::Truncated => return self.unreadable.add(row),
        };
        if row.who.identity.attribution == AttributionKind::Unknown {
            self.service(row, answer, Network::Unknown);
            let why = row.who.identity.why.unwrap_or("not told");
            if self.unknown.len() < MAX_LISTED || self.unknown.contains_key(why) {
                self.unknown.entry(why).or_default().add(row);
            }
            return;
        }
        let (network, own) = (self.known.network(row), self.known.own(row));
        self.service(row, answer, network);
        let name = self.known.name(row);
        if self.workloads.len() >= MAX_WORKLOADS && !self.workloads.contains_key(&name) {
            self.left_out += 1;
            return;
        }
        let work = self.workloads.entry(name).or_default();
        let forwarded = row.forwarded_for.is_some();
        let kind = Use { category: row.category, version: row.version, answer, network, own, forwarded };
        if work.uses.len() >= MAX_USES && !work.uses.contains_key(&kind) {
            self.left_out += 1;
            return;
        }
        work.uses.entry(kind).or_default().add(row);
        let pod = &row.who.identity.pod;
        if !pod.is_empty() && work.pods.len() < MAX_WORKLOADS {
            work.pods.insert(pod.clone());
        }
    }

    /// What an answer tells of the service's settings.
    fn service(&mut self, row: &MetadataRow, answer: Answer, network: Network) {
        let is_token = row.category == Some(Category::Token);
        match (answer, row.response_ttl) {
            (Answer::Given, Some(ttl)) if is_token && network != Network::Unknown => {
                let on_node = network == Network::Node;
                // A pod's packets were forwarded once on the node.
                let hops = if on_node { ttl } else { ttl.saturating_add(1) };
                if self.hop_limits.len() < MAX_NAMES {
                    self.hop_limits.insert(hops);
                }
                // What the node itself sees needs no inference, and is not replaced by what does.
                let is_better = |seen: SeenLimit| (on_node, row.time) >= (seen.on_node, seen.at);
                if self.hop_limit.is_none_or(is_better) {
                    self.hop_limit = Some(SeenLimit { hops, at: row.time, on_node });
                }
            }
            (Answer::Silent, _) if is_token => self.tokens_unanswered += 1,
            (Answer::Given | Answer::Unauthorized, _) if row.version == ImdsVersion::V1 => {
                let seen = &mut self.without_token[usize::from(answer == Answer::Unauthorized)];
                *seen = Some(seen.map_or(row.time, |last| last.max(row.time)));
            }
            _ => {}
        }
    }

    /// What all that comes to, for these plans. `asked`: the span that was looked at; `watched`: those in which the agent ran.
    pub fn report(mut self, asked: Window, watched: &[Window], plans: &[Plan]) -> Report {
        for (name, pods) in self.known.alive(asked) {
            let room = self.workloads.len() < MAX_WORKLOADS;
            match self.workloads.get_mut(&name) {
                Some(work) => work.pods.extend(pods),
                None if room => {
                    self.workloads.insert(name, Work { pods, ..Work::default() });
                }
                None => self.left_out += 1,
            }
        }
        Report::of(&self, asked, watched, plans)
    }
}

// === impl Seen ===

impl Seen {
    fn add(&mut self, row: &MetadataRow) {
        self.requests += 1;
        self.first = Some(self.first.map_or(row.time, |first| first.min(row.time)));
        self.last = Some(self.last.map_or(row.time, |last| last.max(row.time)));
        if let Some(process) = row.who.process.as_deref()
            && self.programs.len() < MAX_NAMES
        {
            let path = process.exe_resolved.as_ref().or(process.exe.as_ref()).unwrap_or(&process.comm);
            self.programs.insert(path.clone());
        }
        if let Some(role) = &row.role
            && self.roles.len() < MAX_NAMES
        {
            self.roles.insert(role.clone());
        }
    }

    fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
        self.programs.extend(other.programs.iter().cloned());
        self.roles.extend(other.roles.iter().cloned());
    }
}

// === impl Plan ===

impl Plan {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::HopLimit1, Self::TokensRequired, Self::BlockedForPods, Self::Disabled];

    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HopLimit1 => "hop_limit_1",
            Self::TokensRequired => "tokens_required",
            Self::BlockedForPods => "blocked_for_pods",
            Self::Disabled => "disabled",
        }
    }
}

#[cfg(test)]
mod tests;
