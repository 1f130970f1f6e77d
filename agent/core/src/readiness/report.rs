//! The report as programs read it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::judge::{List, judge};
use super::{MAX_NAMES, Name, Plan, Readiness, Seen, Work};
use crate::input::Category;
use crate::output::{GapRow, Window};
use crate::time::WallNs;

/// What a history tells of plans.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// First moment that was looked at.
    pub since: WallNs,
    /// Last one.
    pub until: WallNs,
    /// Spans of it in which the agent ran.
    pub watched: Vec<Window>,
    /// Seconds of these.
    pub watched_s: u64,
    /// The hop limit in force.
    pub hop_limit: HopLimit,
    /// Whether tokens are required already.
    pub tokens: Tokens,
    /// By plan.
    pub plans: Vec<PlanReport>,
    /// What the lists do not rest on.
    pub not_covered: NotCovered,
}

/// The hop limit, as answers to requests for tokens tell it by their time to live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HopLimit {
    /// As the last such answer tells; `None`: cannot tell.
    pub value: Option<u8>,
    /// When that answer came.
    pub seen_at: Option<WallNs>,
    /// `node`: read on the node's network; `pod`: read in a pod, one hop added.
    pub by: Option<&'static str>,
    /// Answers of the span told several limits.
    pub changed: bool,
    /// Requests for tokens that were never answered.
    pub unanswered: u64,
}

/// Whether requests without a token are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// As the last request without a token tells; `None`: nobody made one.
    pub required: Option<bool>,
    /// When it was made.
    pub seen_at: Option<WallNs>,
}

/// Three lists, and a fourth for what cannot be told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanReport {
    /// Which.
    pub plan: Plan,
    /// Those that lose what they have no other source for.
    pub breaks: Vec<Entry>,
    /// Those that lose the node's role and have an identity of their own.
    pub falls_back: Vec<Entry>,
    /// Those that lose nothing.
    pub does_not_care: Vec<Entry>,
    /// Those that lose something, where a fact is missing.
    pub cannot_tell: Vec<Entry>,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Namespace; empty for what is no pod.
    pub namespace: String,
    /// Owner of the pods, container or unit.
    pub workload: String,
    /// Names of some pods.
    pub pods: Vec<String>,
    /// How many there were.
    pub pods_count: u64,
    /// Why it stands in this list.
    pub why: String,
    /// What to do; empty for nothing.
    pub advice: &'static str,
    /// Requests that this rests on.
    pub requests: u64,
    /// The first of them; `None`: there are none.
    pub first_seen: Option<WallNs>,
    /// The last of them.
    pub last_seen: Option<WallNs>,
    /// Classes of what was asked for.
    pub asked: BTreeSet<Category>,
    /// Programs that asked, some of them.
    pub programs: BTreeSet<String>,
    /// Roles of the node that it asked for.
    pub roles: BTreeSet<String>,
}

/// What was not seen, or not understood.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NotCovered {
    /// Spans without a full picture.
    pub gaps: Vec<GapRow>,
    /// Of these, beyond those listed.
    pub gaps_beyond: u64,
    /// Workloads that made more records than their share, so that some are missing.
    pub suppressed: Vec<Suppressed>,
    /// Requests of nobody knows whom.
    pub unknown: Vec<UnknownRequests>,
    /// Requests that could not be read, or in part only.
    pub unreadable_requests: u64,
    /// Workloads, pods and ways of asking that found no room here.
    pub left_out: u64,
}

/// See [`NotCovered::suppressed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suppressed {
    /// Namespace.
    pub namespace: String,
    /// Workload.
    pub workload: String,
    /// When that was last so.
    pub last_seen: WallNs,
}

/// See [`NotCovered::unknown`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnknownRequests {
    /// Why the sender is not known.
    pub why: &'static str,
    /// How many.
    pub requests: u64,
    /// When the last one was made.
    pub last_seen: Option<WallNs>,
}

// === impl Report ===

impl Report {
    pub(super) fn of(readiness: &Readiness, asked: Window, watched: &[Window], plans: &[Plan]) -> Self {
        let within = |span: &Window| {
            let (start, end) = (span.start.max(asked.start), span.end.min(asked.end));
            (start < end).then_some(Window { start, end })
        };
        let watched: Vec<Window> = watched.iter().filter_map(within).collect();
        let watched_ns: i64 = watched.iter().map(|span| span.end.0.saturating_sub(span.start.0)).sum();
        let hop_limit = readiness.hop_limit;
        let plan = |plan: &Plan| PlanReport::of(*plan, readiness);
        Self {
            since: asked.start,
            until: asked.end,
            watched,
            watched_s: u64::try_from(watched_ns / 1_000_000_000).unwrap_or(0),
            hop_limit: HopLimit {
                value: hop_limit.map(|seen| seen.hops),
                seen_at: hop_limit.map(|seen| seen.at),
                by: hop_limit.map(|seen| if seen.on_node { "node" } else { "pod" }),
                changed: readiness.hop_limits.len() > 1,
                unanswered: readiness.tokens_unanswered,
            },
            tokens: Tokens {
                required: match readiness.without_token {
                    [None, None] => None,
                    [given, refused] => Some(refused > given),
                },
                seen_at: readiness.without_token.into_iter().max().flatten(),
            },
            plans: plans.iter().map(plan).collect(),
            not_covered: NotCovered::of(readiness),
        }
    }

    /// Whether somebody would break, or may.
    pub fn is_clear(&self) -> bool {
        self.plans.iter().all(|plan| plan.breaks.is_empty() && plan.cannot_tell.is_empty())
    }
}

impl PlanReport {
    fn of(plan: Plan, readiness: &Readiness) -> Self {
        let mut report = Self {
            plan,
            breaks: Vec::new(),
            falls_back: Vec::new(),
            does_not_care: Vec::new(),
            cannot_tell: Vec::new(),
        };
        for (name, work) in &readiness.workloads {
            let judged = judge(plan, work, readiness.hop_limit.map(|seen| seen.hops));
            let list = match judged.list {
                List::Breaks => &mut report.breaks,
                List::CannotTell => &mut report.cannot_tell,
                List::FallsBack => &mut report.falls_back,
                List::DoesNotCare => &mut report.does_not_care,
            };
            list.push(Entry::new(name, work, judged.why, judged.advice, judged.seen, judged.asked));
        }
        report
    }
}

impl Entry {
    fn new(name: &Name, work: &Work, why: String, advice: &'static str, seen: Seen, asked: BTreeSet<Category>) -> Self {
        let Seen { requests, first, last, programs, roles } = seen;
        Self {
            namespace: name.namespace.clone(),
            workload: name.workload.clone(),
            pods: work.pods.iter().take(MAX_NAMES).cloned().collect(),
            pods_count: work.pods.len() as u64,
            why,
            advice,
            requests,
            first_seen: first,
            last_seen: last,
            asked,
            programs: programs.into_iter().take(MAX_NAMES).collect(),
            roles: roles.into_iter().take(MAX_NAMES).collect(),
        }
    }
}

impl NotCovered {
    fn of(readiness: &Readiness) -> Self {
        let suppressed = readiness.floods.iter().map(|((namespace, workload), last_seen)| Suppressed {
            namespace: namespace.clone(),
            workload: workload.clone(),
            last_seen: *last_seen,
        });
        let unknown = readiness.unknown.iter().map(|(why, seen)| UnknownRequests {
            why,
            requests: seen.requests,
            last_seen: seen.last,
        });
        Self {
            gaps: readiness.gaps.clone(),
            gaps_beyond: readiness.gaps_beyond,
            suppressed: suppressed.collect(),
            unknown: unknown.collect(),
            unreadable_requests: readiness.unreadable.requests,
            left_out: readiness.left_out + readiness.known.left_out,
        }
    }
}
