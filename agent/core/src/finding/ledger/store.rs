//! The ledger over a restart: what stands, and what was resolved lately, as a value that the edge writes down.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::{Finding, Key, Member, Whom};
use super::{Ledger, MAX_FINDINGS, MAX_MEMBERS};
use crate::finding::rules::tokens::Kept;
use crate::finding::{Code, Evidence, Severity, Subject};
use crate::output::State;
use crate::time::{BootNs, Moment, WallNs};

/// Raised when a field changes its meaning; others are refused.
const VERSION: u32 = 1;

/// The ledger at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    version: u32,
    findings: Vec<Stored>,
    /// What is known of tokens beside what was found; nothing in what an earlier agent wrote.
    #[serde(default)]
    pub(in crate::finding) tokens: Kept,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stored {
    code: Code,
    subject: Subject,
    state: State,
    severity: Severity,
    cause: String,
    text: String,
    evidence: Vec<Evidence>,
    first_seen: WallNs,
    last_seen: WallNs,
    changed_at: WallNs,
    ended: Option<Moment>,
    count: u64,
    watched_since: WallNs,
    pods: Vec<Arc<str>>,
    pods_count: u64,
    members: Vec<StoredMember>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct StoredMember {
    pod: Arc<str>,
    uid: Arc<str>,
    container: Arc<str>,
    severity: Severity,
    last: Moment,
    count: u64,
    watched_since: WallNs,
    accepted: Option<Arc<str>>,
}

/// Why a snapshot cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Written by another version.
    #[error("the stored findings have version {0}; this agent reads version {VERSION}")]
    Version(u32),
}

impl Ledger {
    /// What stands and what was resolved lately; what is only suspected is not kept.
    pub fn snapshot(&self) -> Snapshot {
        let findings = self.findings.iter().filter_map(|(key, finding)| Some(stored(key, finding, finding.state?)));
        Snapshot { version: VERSION, findings: findings.collect(), tokens: Kept::default() }
    }

    /// Takes a snapshot in. `same_boot`: boot times in it are this boot's; else ages go by wall time, and an age that
    /// reaches back before this boot begins with it, so that nothing ends too early.
    pub fn restore(&mut self, snapshot: Snapshot, same_boot: bool, now: Moment) -> Result<usize, RestoreError> {
        if snapshot.version != VERSION {
            return Err(RestoreError::Version(snapshot.version));
        }
        let mut findings = snapshot.findings;
        // What stands comes first: a file with more than there is room for costs the rest of it, and is said.
        findings.sort_by_key(|stored| stored.state == State::Resolved);
        let (mut count, mut room) = (0, MAX_MEMBERS);
        for mut stored in findings {
            if count >= MAX_FINDINGS {
                self.refused += 1;
                continue;
            }
            let over = stored.members.len().saturating_sub(room);
            stored.members.truncate(room);
            self.refused += over as u64;
            room -= stored.members.len();
            if over > 0 && stored.members.is_empty() {
                continue;
            }
            count += 1;
            let key = Key::of(stored.code, &stored.subject);
            let finding = restored(&key, stored, &|moment| at(moment, same_boot, now));
            self.findings.insert(key, finding);
        }
        Ok(count)
    }
}

fn stored(key: &Key, finding: &Finding, state: State) -> Stored {
    let members = finding.members.iter().filter(|(_, member)| member.open).map(|(whom, member)| StoredMember {
        pod: Arc::clone(&member.pod),
        uid: Arc::clone(&whom.uid),
        container: Arc::clone(&whom.container),
        severity: member.severity,
        last: member.last,
        count: member.count,
        watched_since: member.watched_since,
        accepted: member.accepted.clone(),
    });
    Stored {
        code: key.code,
        subject: key.subject_of(finding.only.as_ref()),
        state,
        severity: finding.severity.unwrap_or(Severity::Info),
        cause: finding.cause.clone(),
        text: finding.text.clone(),
        evidence: finding.evidence.clone(),
        first_seen: finding.first_seen,
        last_seen: finding.last_seen,
        changed_at: finding.changed_at,
        ended: finding.ended,
        count: finding.count,
        watched_since: finding.watched_since,
        pods: finding.pods.clone(),
        pods_count: finding.pods_count,
        members: members.collect(),
    }
}

fn restored(key: &Key, stored: Stored, at: &dyn Fn(Moment) -> Moment) -> Finding {
    let only = Whom::of(&stored.subject);
    let is_about_one = stored.pods_count <= 1 && stored.members.len() <= 1;
    let members = stored.members.into_iter().map(|member| {
        let whom = Whom { uid: member.uid, container: member.container };
        let member = Member {
            pod: member.pod,
            severity: member.severity,
            open: true,
            bad: 0,
            cause: "",
            good: 0,
            last: at(member.last),
            count: member.count,
            watched_since: member.watched_since,
            accepted: member.accepted,
        };
        (whom, member)
    });
    Finding {
        state: Some(stored.state),
        severity: Some(stored.severity),
        cause: stored.cause,
        text: stored.text,
        evidence: stored.evidence,
        last_seen: stored.last_seen,
        changed_at: stored.changed_at,
        ended: stored.ended.map(at),
        count: stored.count,
        watched_since: stored.watched_since,
        accepted: None,
        members: members.collect(),
        pods: stored.pods,
        pods_count: stored.pods_count,
        only: is_about_one.then_some((only, stored.subject.pod)),
        is_changed: false,
        ..Finding::new(key, stored.first_seen)
    }
}

fn at(moment: Moment, same_boot: bool, now: Moment) -> Moment {
    let boot = if same_boot {
        moment.boot.min(now.boot)
    } else {
        let age = u64::try_from(now.wall.0.saturating_sub(moment.wall.0)).unwrap_or(0);
        BootNs(now.boot.0.saturating_sub(age))
    };
    Moment { boot, wall: moment.wall }
}
