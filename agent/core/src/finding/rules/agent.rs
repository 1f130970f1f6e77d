//! Requests to the EKS Pod Identity agent that fail: not reached, or refused.

use super::{violation, whom};
use crate::fast::FastMap;
use crate::finding::{Code, Severity, Subject, Violation};
use crate::input::MetadataOutcome;
use crate::output::{MetadataRow, service_name};
use crate::time::BootNs;

/// Failures before it is a finding.
const FAILURES: u64 = 3;
/// Failed connections over at least this long: a roll-out of the agent is shorter.
const UNREACHABLE_NS: u64 = 60 * 1_000_000_000;
/// Failures farther apart than this are not one run: SDKs ask again within minutes.
const RUN_NS: u64 = 3_600 * 1_000_000_000;
/// Most pods and containers followed, at about 400 bytes: 400 KiB.
const MAX_RUNS: usize = 1_024;

/// See the module's text.
#[derive(Debug, Default)]
pub(in crate::finding) struct AgentRuns {
    runs: FastMap<Subject, Runs>,
    /// Failures that are not followed for want of room, to be counted.
    pub(in crate::finding) refused: u64,
}

#[derive(Debug, Default)]
struct Runs {
    failed: Run,
    refused: Run,
}

#[derive(Debug, Default)]
struct Run {
    count: u64,
    since: BootNs,
    last: BootNs,
}

/// What a request leads to.
pub(in crate::finding) enum Step {
    /// Nothing yet.
    Nothing,
    /// Something is wrong, so often since the last time.
    Violated(Code, Violation, u64),
    /// The agent was reached: that it was not is over.
    Reached,
    /// Credentials came: all is well.
    Works,
}

impl AgentRuns {
    /// Takes in a request of a pod. `strict`: the pod has groups in strict mode.
    pub(in crate::finding) fn request(
        &mut self,
        row: &MetadataRow,
        subject: &Subject,
        strict: bool,
        now: BootNs,
    ) -> Step {
        if row.service != service_name(agent_ebpf::wire::Service::PodIdentity) {
            return Step::Nothing;
        }
        match (row.outcome, row.status) {
            (MetadataOutcome::Failed | MetadataOutcome::Blocked, _) => {
                let Some(run) = self.run(subject, now, |runs| &mut runs.failed) else { return Step::Nothing };
                let first = run.count == FAILURES || (run.count > FAILURES && run.was_short(now));
                if run.count < FAILURES || now.since(run.since) < UNREACHABLE_NS {
                    return Step::Nothing;
                }
                let times = if first { run.count } else { 1 };
                let cause = match (strict, row.outcome) {
                    (true, _) => "strict_mode",
                    (false, MetadataOutcome::Failed) => "refused",
                    (false, _) => "unanswered",
                };
                let text = format!("{} cannot reach the Pod Identity agent: {}", whom(subject), because(cause));
                let violation = evident(violation(Severity::Medium, cause, text), row);
                run.last = now;
                Step::Violated(Code::PodIdentityUnreachable, violation, times)
            }
            (_, Some(status @ 400..)) => {
                let Some(run) = self.run(subject, now, |runs| &mut runs.refused) else { return Step::Reached };
                let count = run.count;
                run.last = now;
                if let Some(runs) = self.runs.get_mut(subject) {
                    runs.failed = Run::default();
                }
                if count < FAILURES {
                    return Step::Reached;
                }
                let (cause, meaning) = match status {
                    400..500 => ("denied", "EKS refuses: no association, or the role does not trust it"),
                    _ => ("failed", "the agent could not ask EKS"),
                };
                let text = format!(
                    "{} gets no credentials from the Pod Identity agent: status {status}: {meaning}",
                    whom(subject)
                );
                let times = if count == FAILURES { count } else { 1 };
                Step::Violated(Code::PodIdentityRefused, evident(violation(Severity::Medium, cause, text), row), times)
            }
            (MetadataOutcome::Ok, _) => {
                self.runs.remove(subject);
                Step::Works
            }
            _ => Step::Nothing,
        }
    }

    /// Forgets runs that nothing was added to for long.
    pub(in crate::finding) fn expire(&mut self, now: BootNs) {
        self.runs.retain(|_, runs| now.since(runs.failed.last.max(runs.refused.last)) <= RUN_NS);
    }

    /// The run that a failure belongs to, counted; `None` without room.
    fn run(&mut self, subject: &Subject, now: BootNs, of: fn(&mut Runs) -> &mut Run) -> Option<&mut Run> {
        if self.runs.len() >= MAX_RUNS && !self.runs.contains_key(subject) {
            self.refused += 1;
            return None;
        }
        let run = of(self.runs.entry(subject.clone()).or_default());
        if run.count == 0 || now.since(run.last) > RUN_NS {
            *run = Run { count: 0, since: now, last: now };
        }
        run.count += 1;
        Some(run)
    }
}

impl Run {
    /// Whether the run was too short to be a finding at the failure before this one.
    fn was_short(&self, now: BootNs) -> bool {
        self.last.since(self.since) < UNREACHABLE_NS && now.since(self.since) >= UNREACHABLE_NS
    }
}

fn because(cause: &str) -> &'static str {
    match cause {
        "strict_mode" => "its security groups are in strict mode, in which link-local traffic is lost",
        "refused" => "nobody listens on this node",
        _ => "its connections stay unanswered",
    }
}

fn evident(violation: Violation, row: &MetadataRow) -> Violation {
    Violation { evidence: super::requests::evidence(row), ..violation }
}
