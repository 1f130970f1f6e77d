//! Pods that make more records than their share of the rings, by the kernel's accounts.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_ebpf::shared::Account;

use super::{violation, whom};
use crate::fast::FastMap;
use crate::finding::{Severity, Subject, Violation};

/// Readings in a row that must miss an account before it is taken for deleted: a walk may skip an entry beside deletions.
const ABSENT_READINGS: u8 = 3;
/// What may be over its budget.
const CLASSES: usize = CAUSES.len();
/// Causes and what they are of, in the order of their weight: what is lost weighs more than what is summed up.
const CAUSES: [(&str, &str); 4] = [
    ("metadata", "of requests to metadata services"),
    ("processes", "of processes"),
    ("dns", "of DNS messages"),
    ("flows", "of flows, whose bytes and connections are summed up and exact"),
];

/// Records over their budget, in the order of [`CAUSES`].
type Counts = [u64; CLASSES];

/// The accounts as of the last reading: as many as the kernel's map holds, times [`ABSENT_READINGS`], at 64 bytes.
#[derive(Debug, Default)]
pub(in crate::finding) struct Flood(FastMap<u64, (Counts, u8)>);

impl Flood {
    /// What was over its budget since the last reading, by pod. `of`: whose a cgroup is.
    pub(in crate::finding) fn read(
        &mut self,
        accounts: &[(u64, Account)],
        mut of: impl FnMut(u64) -> Option<Subject>,
    ) -> Vec<(Subject, Violation, u64)> {
        for (_, absent) in self.0.values_mut() {
            *absent = absent.saturating_add(1);
        }
        let mut grown: BTreeMap<Subject, Counts> = BTreeMap::new();
        for (cgroup_id, account) in accounts {
            let counts = counts(account);
            let before = self.0.insert(*cgroup_id, (counts, 0)).map(|(before, _)| before);
            // One that shrank was deleted and made anew.
            let shrank = |before: &Counts| before.iter().zip(counts).any(|(then, now)| now < *then);
            let before = before.filter(|before| !shrank(before)).unwrap_or_default();
            if counts == before {
                continue;
            }
            let Some(subject) = of(*cgroup_id) else { continue };
            let sums = grown.entry(subject).or_default();
            for ((sum, now), then) in sums.iter_mut().zip(counts).zip(before) {
                *sum = sum.saturating_add(now - then);
            }
        }
        self.0.retain(|_, (_, absent)| *absent < ABSENT_READINGS);
        grown.into_iter().map(|(subject, counts)| describe(subject, counts)).collect()
    }
}

fn counts(account: &Account) -> Counts {
    let [metadata, lifecycle, bulk] = account.over_budget;
    [metadata, lifecycle, account.dns_over_budget, bulk]
}

fn describe(subject: Subject, counts: Counts) -> (Subject, Violation, u64) {
    let found = || counts.into_iter().zip(CAUSES).filter(|(count, _)| *count > 0);
    let cause = found().map(|(_, (cause, _))| cause).next().unwrap_or("flows");
    let records = counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let parts: Vec<_> = found().map(|(count, (_, what))| format!("{count} {what}")).collect();
    let subject = Subject { container: Arc::from(""), ..subject };
    let text =
        format!("{} made more records than its share, and so many were not told: {}", whom(&subject), parts.join("; "));
    (subject, violation(Severity::Medium, cause, text), records)
}
