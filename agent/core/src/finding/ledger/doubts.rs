//! What could not be told: by code and reason, with the subjects. An answer, not an alarm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::finding::{Code, Lasts, Subject};
use crate::time::BootNs;

/// Most subjects listed: ten rules on each of 200 pods. At about 250 bytes: 500 KiB. Beyond it they are counted alone.
pub const MAX_DOUBTS: usize = 2_048;
/// A question that came up once is listed for this long.
const LISTED_NS: u64 = 3_600 * 1_000_000_000;
/// Subjects named in a row.
const NAMED: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Doubts {
    open: BTreeMap<(Code, &'static str), BTreeMap<Subject, Doubt>>,
    len: usize,
    refused: u64,
}

#[derive(Debug)]
struct Doubt {
    at: BootNs,
    object: Option<Arc<str>>,
}

/// One rule that cannot tell, for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CannotTellRow {
    /// The rule.
    pub code: Code,
    /// What is missing.
    pub why: String,
    /// About how many subjects.
    pub count: u64,
    /// Some of them, at most 16.
    pub subjects: Vec<Subject>,
    /// Objects because of which it cannot, as `NetworkPolicy shop/deny-all`, at most 16; empty where none is to blame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<Arc<str>>,
}

impl Doubts {
    /// A new evaluation of these rules begins.
    pub(super) fn begin(&mut self, codes: &[Code]) {
        self.retain(|code, _| !codes.contains(&code));
    }

    pub(super) fn note(
        &mut self,
        code: Code,
        why: &'static str,
        object: Option<Arc<str>>,
        subject: &Subject,
        at: BootNs,
    ) {
        let listed = self.open.get(&(code, why)).is_some_and(|subjects| subjects.contains_key(subject));
        if !listed && self.len >= MAX_DOUBTS {
            self.refused += 1;
            return;
        }
        self.len += usize::from(!listed);
        self.open.entry((code, why)).or_default().insert(subject.clone(), Doubt { at, object });
    }

    /// Forgets what no evaluation takes back.
    pub(super) fn expire(&mut self, now: BootNs) {
        self.retain(|code, at| code.lasts() == Lasts::WhileSo || now.since(at) <= LISTED_NS);
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = CannotTellRow> {
        self.open.iter().map(|((code, why), subjects)| CannotTellRow {
            code: *code,
            why: (*why).to_owned(),
            count: subjects.len() as u64,
            subjects: subjects.keys().take(NAMED).cloned().collect(),
            objects: objects_of(subjects),
        })
    }

    fn retain(&mut self, keep: impl Fn(Code, BootNs) -> bool) {
        for ((code, _), subjects) in &mut self.open {
            subjects.retain(|_, doubt| keep(*code, doubt.at));
        }
        self.open.retain(|_, subjects| !subjects.is_empty());
        self.len = self.open.values().map(BTreeMap::len).sum();
    }
}

fn objects_of(subjects: &BTreeMap<Subject, Doubt>) -> Vec<Arc<str>> {
    let objects: BTreeSet<_> = subjects.values().filter_map(|doubt| doubt.object.clone()).collect();
    objects.into_iter().take(NAMED).collect()
}
