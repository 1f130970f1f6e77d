//! Pods that make more records than their share of the rings, by the kernel's accounts.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_ebpf::shared::{Account, RINGS};
use agent_ebpf::wire::Ring;

use super::{violation, whom};
use crate::fast::FastMap;
use crate::finding::{Severity, Subject, Violation};

/// Readings in a row that must miss an account before it is taken for deleted: a walk may skip an entry beside deletions.
const ABSENT_READINGS: u8 = 3;

/// The accounts as of the last reading: as many as the kernel's map holds, times [`ABSENT_READINGS`], at 64 bytes.
#[derive(Debug, Default)]
pub(in crate::finding) struct Flood(FastMap<u64, ([u64; RINGS], u8)>);

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
        let mut grown: BTreeMap<Subject, [u64; RINGS]> = BTreeMap::new();
        for (cgroup_id, account) in accounts {
            let before = self.0.insert(*cgroup_id, (account.over_budget, 0)).map(|(before, _)| before);
            // One that shrank was deleted and made anew.
            let shrank = |before: &[u64; RINGS]| before.iter().zip(account.over_budget).any(|(then, now)| now < *then);
            let before = before.filter(|before| !shrank(before)).unwrap_or_default();
            if account.over_budget == before {
                continue;
            }
            let Some(subject) = of(*cgroup_id) else { continue };
            let sums = grown.entry(subject).or_default();
            for ((sum, now), then) in sums.iter_mut().zip(account.over_budget).zip(before) {
                *sum = sum.saturating_add(now - then);
            }
        }
        self.0.retain(|_, (_, absent)| *absent < ABSENT_READINGS);
        grown.into_iter().map(|(subject, rings)| describe(subject, rings)).collect()
    }
}

fn describe(subject: Subject, rings: [u64; RINGS]) -> (Subject, Violation, u64) {
    let of = |ring: Ring| rings.get(ring as usize).copied().unwrap_or(0);
    let kinds = [
        (of(Ring::Metadata), "metadata", "requests to metadata services"),
        (of(Ring::Lifecycle), "processes", "processes and cgroups"),
        (of(Ring::Bulk), "flows", "flows (bytes and connections are summed up and exact)"),
    ];
    let records = rings.iter().fold(0_u64, |sum, ring| sum.saturating_add(*ring));
    // What is lost weighs more than what is summed up.
    let (cause, what) =
        kinds.iter().find(|(count, ..)| *count > 0).map_or(("flows", ""), |(_, cause, what)| (*cause, *what));
    let subject = Subject { container: Arc::from(""), ..subject };
    let text = format!("{} made more records than its share: {records} of {what} were suppressed", whom(&subject));
    (subject, violation(Severity::Medium, cause, text), records)
}
