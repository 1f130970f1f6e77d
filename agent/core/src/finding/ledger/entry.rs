//! One finding and its members.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{AGREEING, Context, DAY_NS};
use crate::finding::{Code, Evidence, Severity, Subject, Violation};
use crate::output::{FindingRow, State};
use crate::time::{BootNs, Moment, WallNs};

/// Longest text kept, bytes.
const TEXT_BYTES: usize = 1_024;
/// Most pieces of evidence kept, and the longest name of an object or a field in one.
const EVIDENCE_MAX: usize = 8;
const EVIDENCE_BYTES: usize = 256;
/// Longest value of one. A Terraform block is of no use in part: with ids of 64 bytes, the longest there are, and an
/// account it has less than 700.
const VALUE_BYTES: usize = 768;

/// What tells findings apart: everything of a subject but the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) code: Code,
    pub(super) namespace: Arc<str>,
    pub(super) workload: Arc<str>,
    pub(super) service_account: Arc<str>,
    pub(super) policy: Arc<str>,
    pub(super) peer: Arc<str>,
    pub(super) resource: Arc<str>,
    pub(super) scope: Arc<str>,
}

/// What tells members apart. Empty for findings that are about no pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Whom {
    pub(super) uid: Arc<str>,
    pub(super) container: Arc<str>,
}

#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) id: String,
    /// `None`: it never stood yet.
    pub(super) state: Option<State>,
    pub(super) severity: Option<Severity>,
    pub(super) cause: String,
    pub(super) text: String,
    pub(super) evidence: Vec<Evidence>,
    pub(super) first_seen: WallNs,
    pub(super) last_seen: WallNs,
    pub(super) changed_at: WallNs,
    pub(super) ended: Option<Moment>,
    pub(super) count: u64,
    pub(super) watched_since: WallNs,
    pub(super) accepted: Option<Arc<str>>,
    pub(super) members: BTreeMap<Whom, Member>,
    /// As of when it stood last.
    pub(super) pods: Vec<Arc<str>>,
    pub(super) pods_count: u64,
    pub(super) only: Option<(Whom, Arc<str>)>,
    /// Differs from what was put out.
    pub(super) is_changed: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) pod: Arc<str>,
    pub(super) severity: Severity,
    pub(super) open: bool,
    /// Evaluations in a row that found it, with the same cause, while it is not open.
    pub(super) bad: u8,
    pub(super) cause: &'static str,
    /// Evaluations in a row that did not, while it is open.
    pub(super) good: u8,
    pub(super) last: Moment,
    pub(super) count: u64,
    pub(super) watched_since: WallNs,
    pub(super) accepted: Option<Arc<str>>,
}

// === impl Key ===

impl Key {
    pub(super) fn of(code: Code, subject: &Subject) -> Self {
        let Subject {
            namespace,
            workload,
            pod: _,
            uid: _,
            container: _,
            service_account,
            policy,
            peer,
            resource,
            scope,
        } = subject;
        Self {
            code,
            namespace: Arc::clone(namespace),
            workload: Arc::clone(workload),
            service_account: Arc::clone(service_account),
            policy: Arc::clone(policy),
            peer: Arc::clone(peer),
            resource: Arc::clone(resource),
            scope: Arc::clone(scope),
        }
    }

    /// The subject of the finding, or of a member of it.
    pub(super) fn subject(&self, member: Option<(&Whom, &Member)>) -> Subject {
        let only = member.map(|(whom, member)| (whom.clone(), Arc::clone(&member.pod)));
        self.subject_of(only.as_ref())
    }

    pub(super) fn subject_of(&self, only: Option<&(Whom, Arc<str>)>) -> Subject {
        let Self { code: _, namespace, workload, service_account, policy, peer, resource, scope } = self.clone();
        let (whom, pod) = only.cloned().unwrap_or_default();
        let Whom { uid, container } = whom;
        Subject { namespace, workload, pod, uid, container, service_account, policy, peer, resource, scope }
    }

    /// Hash of all fields: the same finding has the same id on every node and over every restart.
    fn id(&self) -> String {
        let Self { code, namespace, workload, service_account, policy, peer, resource, scope } = self;
        // FNV-1a, 64 bits twice with different offsets: for telling apart, not for secrecy.
        let fields = [code.name(), namespace, workload, service_account, policy, peer, resource, scope];
        let hash = |offset: u64| {
            let bytes = fields.iter().flat_map(|field| field.bytes().chain(std::iter::once(0)));
            bytes.fold(offset, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
        };
        format!("{:016x}", hash(FNV_OFFSET))
    }
}

/// Parameters of the 64-bit hash (<http://www.isthe.com/chongo/tech/comp/fnv/>).
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

// === impl Whom ===

impl Whom {
    pub(super) fn of(subject: &Subject) -> Self {
        Self { uid: Arc::clone(&subject.uid), container: Arc::clone(&subject.container) }
    }
}

// === impl Finding ===

impl Finding {
    pub(super) fn new(key: &Key, now: WallNs) -> Self {
        Self {
            id: key.id(),
            state: None,
            severity: None,
            cause: String::new(),
            text: String::new(),
            evidence: Vec::new(),
            first_seen: now,
            last_seen: now,
            changed_at: now,
            ended: None,
            count: 0,
            watched_since: now,
            accepted: None,
            members: BTreeMap::new(),
            pods: Vec::new(),
            pods_count: 0,
            only: None,
            is_changed: false,
        }
    }

    /// Takes over what a violation says of the finding as a whole.
    pub(super) fn tell(&mut self, violation: Violation) {
        let Violation { severity: _, cause, mut text, mut evidence } = violation;
        cut(&mut text, TEXT_BYTES);
        evidence.truncate(EVIDENCE_MAX);
        for Evidence { object, field, generation: _, value } in &mut evidence {
            cut(object, EVIDENCE_BYTES);
            cut(field, EVIDENCE_BYTES);
            cut(value, VALUE_BYTES);
        }
        if self.cause != cause {
            cause.clone_into(&mut self.cause);
            self.is_changed |= self.state.is_some();
        }
        (self.text, self.evidence) = (text, evidence);
    }

    /// What it says, for another finding to go on with.
    pub(super) fn violation(&self) -> Violation {
        Violation {
            severity: self.severity.unwrap_or(Severity::Info),
            cause: "",
            text: self.text.clone(),
            evidence: self.evidence.clone(),
        }
    }

    /// Its pod got a name.
    pub(super) fn continues_as(&mut self, id: &str) {
        self.text = format!("its pod is known by name now: goes on as finding {id}");
    }

    /// Brings the state in line with the members; whether it stands now and did not before.
    pub(super) fn settle(&mut self, context: &Context<'_>) -> bool {
        let standing: Vec<_> = self.members.iter().filter(|(_, member)| member.open).collect();
        let Some(severity) = standing.iter().map(|(_, member)| member.severity).max() else {
            self.resolve(context.now);
            return false;
        };
        let accepted = standing.iter().all(|(_, member)| member.accepted.is_some());
        let state = if accepted { State::Accepted } else { State::Open };
        let pods: BTreeMap<&Whom, &Arc<str>> = standing
            .iter()
            .filter(|(whom, _)| !whom.uid.is_empty())
            .map(|(whom, member)| (*whom, &member.pod))
            .collect();
        let mut uids: Vec<_> = pods.iter().map(|(whom, pod)| (&whom.uid, Arc::clone(pod))).collect();
        uids.dedup_by_key(|(uid, _)| Arc::clone(uid));
        let pods_count = uids.len() as u64;
        let mut names: Vec<_> = uids.into_iter().map(|(_, pod)| pod).filter(|pod| !pod.is_empty()).collect();
        names.sort_unstable();
        names.truncate(FindingRow::MAX_PODS);
        let only = match &*standing {
            [(whom, member)] => Some(((*whom).clone(), Arc::clone(&member.pod))),
            _ => None,
        };
        let reason = if accepted { standing.iter().find_map(|(_, member)| member.accepted.clone()) } else { None };
        let last_seen = standing.iter().map(|(_, member)| member.last.wall).max();
        let watched_since = standing.iter().map(|(_, member)| member.watched_since).min();
        let was_standing = matches!(self.state, Some(State::Open | State::Accepted));
        let now = (Some(state), Some(severity), pods_count, &names);
        if now != (self.state, self.severity, self.pods_count, &self.pods) {
            self.is_changed = true;
        }
        if self.is_changed {
            self.changed_at = context.now.wall;
        }
        (self.state, self.severity, self.ended, self.accepted) = (Some(state), Some(severity), None, reason);
        (self.pods, self.pods_count, self.only) = (names, pods_count, only);
        self.last_seen = last_seen.unwrap_or(self.last_seen);
        self.watched_since = watched_since.unwrap_or(self.watched_since);
        !was_standing
    }

    /// Whether it was resolved long enough ago.
    pub(super) fn is_forgotten(&self, now: BootNs) -> bool {
        self.members.is_empty() && self.ended.is_some_and(|ended| now.since(ended.boot) > DAY_NS)
    }

    fn resolve(&mut self, now: Moment) {
        if matches!(self.state, Some(State::Open | State::Accepted)) {
            (self.state, self.ended, self.changed_at) = (Some(State::Resolved), Some(now), now.wall);
            self.accepted = None;
            self.is_changed = true;
        }
    }
}

// === impl Member ===

impl Member {
    pub(super) fn new(subject: &Subject, context: &Context<'_>) -> Self {
        Self {
            pod: Arc::clone(&subject.pod),
            severity: Severity::Info,
            open: false,
            bad: 0,
            cause: "",
            good: 0,
            last: context.now,
            count: 0,
            watched_since: (context.watched_since)(subject),
            accepted: None,
        }
    }

    /// It happened again.
    pub(super) fn repeat(&mut self, severity: Severity, times: u64, context: &Context<'_>) {
        // What was worst stays so for as long as it stands.
        self.severity = self.severity.max(severity);
        self.count = self.count.saturating_add(times);
        self.last = context.now;
    }

    /// An evaluation found it; whether it stands by that.
    pub(super) fn see(&mut self, violation: &Violation, context: &Context<'_>) -> bool {
        self.good = 0;
        self.severity = violation.severity;
        self.last = context.now;
        if self.open {
            return false;
        }
        self.bad = if self.cause == violation.cause { self.bad.saturating_add(1) } else { 1 };
        self.cause = violation.cause;
        self.open = self.bad >= AGREEING;
        self.count += u64::from(self.open);
        self.open
    }

    /// An evaluation found it clean; whether it is over by that.
    pub(super) fn is_over_after_clean(&mut self) -> bool {
        self.bad = 0;
        self.good = self.good.saturating_add(1);
        !self.open || self.good >= AGREEING
    }
}

/// Cuts at a character's border.
fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let mut end = bytes;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}
