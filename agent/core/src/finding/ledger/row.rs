//! Findings as rows.

use super::entry::{Finding, Key};
use crate::finding::Severity;
use crate::output::{FindingRow, State};

/// A finding as it stands, or stood last.
pub(super) fn row(key: &Key, finding: &Finding) -> FindingRow {
    let mut text = finding.text.clone();
    if finding.pods_count > 1 {
        text = format!("{text} (one of {} pods)", finding.pods_count);
    }
    let state = finding.state.unwrap_or(State::Resolved);
    FindingRow {
        time: finding.changed_at,
        id: finding.id.clone(),
        code: key.code,
        severity: finding.severity.unwrap_or(Severity::Info),
        state,
        subject: key.subject_of(finding.only.as_ref()),
        pods: finding.pods.clone(),
        pods_count: finding.pods_count,
        cause: finding.cause.clone(),
        first_seen: finding.first_seen,
        last_seen: finding.last_seen,
        resolved_at: finding.ended.map(|ended| ended.wall),
        count: finding.count,
        watched_since: finding.watched_since,
        text,
        advice: key.code.advice(&finding.cause).to_owned(),
        evidence: finding.evidence.clone(),
        accepted_reason: finding.accepted.as_deref().map(ToOwned::to_owned),
    }
}
