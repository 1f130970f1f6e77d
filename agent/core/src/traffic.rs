//! Who sent and received how much, for whoever looks now: sums since the agent's start and of the last fold, one for a pod,
//! a container outside Kubernetes, or a unit. What was when is told by rows and kept by the history, not here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fast::FastMap;
use crate::input::ImdsVersion;
use crate::output::{AttributionKind, FlowRow, Identity, MetadataRow, Output, Window};
use crate::time::{BootNs, WallNs};

/// Most that are kept, at some 600 bytes with their names: 600 KiB. A node runs 110 pods and fifty units, 737 pods at most.
/// Beyond it the longest silent quarter goes, and is counted.
pub const MAX_KEPT: usize = 1_024;
/// What has ended is shown for so long after its last sign of life: two minutes, as its metrics are. A node on which jobs
/// come and go shows what is there, and the history what was.
const SHOWN_NS: u64 = 120 * 1_000_000_000;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Traffic {
    kept: FastMap<Key, Kept>,
    /// Since when sums are made.
    since: Option<WallNs>,
    /// The last fold that is over.
    window: Option<Window>,
    folds: u64,
    left_out: u64,
}

/// What one is told apart by: a pod by its uid, anything else by its workload's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    attribution: AttributionKind,
    name: String,
}

#[derive(Debug)]
struct Kept {
    /// As it was called last: names come later than bytes.
    identity: Arc<Identity>,
    sums: Sums,
    /// Of fold number [`Kept::fold`].
    last: Amounts,
    fold: u64,
    active: BootNs,
}

/// One pod, container or unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficRow {
    /// What it is.
    pub attribution: AttributionKind,
    /// Why it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Namespace; empty when not known.
    pub namespace: String,
    /// Pod name; empty when not known or no pod.
    pub pod: String,
    /// Pod uid; empty when no pod.
    pub uid: String,
    /// Owner of the pod; in standalone mode the unit or the container.
    pub workload: String,
    /// It has a control group. Containers in version 1 hierarchies and what is unknown show false.
    pub alive: bool,
    /// Since the agent's start.
    pub total: Sums,
    /// In the last fold; `None` before one is over.
    pub last_fold: Option<Amounts>,
}

/// What was counted since the agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Bytes and connections.
    #[serde(flatten)]
    pub amounts: Amounts,
    /// Connections among them that never came about: refused, timed out, unreachable, denied, aborted.
    pub failed: u64,
    /// Requests to metadata services, attempts at them included.
    pub metadata_requests: u64,
    /// Those of them without a session token, `IMDSv1`.
    pub metadata_v1: u64,
}

/// Bytes and connections. What a pod says to itself is none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
    /// Connections that ended, however.
    pub connections: u64,
}

/// What the rows rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficBasis {
    /// Since when sums are made; `None` before the Engine knows the time.
    pub since: Option<WallNs>,
    /// The last fold that is over; `None` before the first is.
    pub window: Option<Window>,
    /// How many lost their place, and with it their sums, to others.
    pub left_out: u64,
}

// === impl Traffic ===

impl Traffic {
    /// Sums are made from then on; the first moment counts.
    pub(crate) fn begin(&mut self, now: WallNs) {
        self.since.get_or_insert(now);
    }

    /// Takes the rows of a fold that is over.
    pub(crate) fn fold(&mut self, rows: &[Output], window: Window, now: BootNs) {
        self.window = Some(window);
        self.folds += 1;
        // Many rows are of one identity: names are copied once for each.
        let mut fold: FastMap<&Arc<Identity>, (Amounts, u64)> = FastMap::default();
        for output in rows {
            if let Output::Flow(row) = output
                && !row.is_within_pod()
            {
                let (amounts, failed) = fold.entry(&row.who.identity).or_default();
                amounts.add(row.bytes_sent, row.bytes_received, row.connections);
                *failed = failed.saturating_add(if has_failed(row) { row.connections } else { 0 });
            }
        }
        let folds = self.folds;
        for (identity, (amounts, failed)) in fold {
            let kept = self.kept(identity, now);
            kept.sums.amounts.add(amounts.bytes_sent, amounts.bytes_received, amounts.connections);
            kept.sums.failed = kept.sums.failed.saturating_add(failed);
            // The containers of a pod are identities of their own.
            if kept.fold != folds {
                (kept.fold, kept.last) = (folds, Amounts::default());
            }
            kept.last.add(amounts.bytes_sent, amounts.bytes_received, amounts.connections);
        }
    }

    /// Takes a request to a metadata service.
    pub(crate) fn request(&mut self, row: &MetadataRow, now: BootNs) {
        let sums = &mut self.kept(&row.who.identity, now).sums;
        sums.metadata_requests = sums.metadata_requests.saturating_add(1);
        sums.metadata_v1 = sums.metadata_v1.saturating_add(u64::from(row.version == ImdsVersion::V1));
    }

    /// Who lives, silent pods included, and who was heard of lately; in no order.
    pub(crate) fn rows(&self, living: impl Iterator<Item = Identity>, now: BootNs) -> Vec<TrafficRow> {
        let mut alive: FastMap<Key, Identity> = FastMap::default();
        for identity in living {
            alive.entry(Key::of(&identity)).or_insert(identity);
        }
        let fold = |kept: &Kept| if kept.fold == self.folds { kept.last } else { Amounts::default() };
        let mut rows = Vec::with_capacity(self.kept.len());
        for (key, kept) in &self.kept {
            let living = alive.remove(key);
            if living.is_none() && now.since(kept.active) > SHOWN_NS {
                continue;
            }
            let is_alive = living.is_some();
            // Who lives is asked now, and may have got its name since.
            let identity = living.as_ref().filter(|now| !now.pod.is_empty()).unwrap_or(&kept.identity);
            let row = TrafficRow { total: kept.sums, ..TrafficRow::of(identity, is_alive) };
            rows.push(TrafficRow { last_fold: self.window.map(|_| fold(kept)), ..row });
        }
        let silent = alive.into_values().filter(|identity| identity.attribution == AttributionKind::Pod);
        rows.extend(silent.take(MAX_KEPT).map(|identity| TrafficRow {
            last_fold: self.window.map(|_| Amounts::default()),
            ..TrafficRow::of(&identity, true)
        }));
        rows
    }

    /// What the rows rest on.
    pub(crate) fn basis(&self) -> TrafficBasis {
        TrafficBasis { since: self.since, window: self.window, left_out: self.left_out }
    }

    fn kept(&mut self, identity: &Arc<Identity>, now: BootNs) -> &mut Kept {
        let key = Key::of(identity);
        if self.kept.len() >= MAX_KEPT && !self.kept.contains_key(&key) {
            self.make_room();
        }
        let kept = self.kept.entry(key).or_insert_with(|| Kept {
            identity: Arc::clone(identity),
            sums: Sums::default(),
            last: Amounts::default(),
            fold: 0,
            active: now,
        });
        kept.active = now;
        if !identity.pod.is_empty() || kept.identity.pod.is_empty() {
            kept.identity = Arc::clone(identity);
        }
        kept
    }

    /// Lets the longest silent quarter go.
    fn make_room(&mut self) {
        let mut by_age: Vec<_> = self.kept.iter().map(|(key, kept)| (kept.active, key.clone())).collect();
        by_age.sort_unstable_by_key(|(active, _)| *active);
        for (_, key) in by_age.into_iter().take(MAX_KEPT / 4) {
            self.kept.remove(&key);
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

fn has_failed(row: &FlowRow) -> bool {
    matches!(row.outcome, Some("refused" | "timed_out" | "unreachable" | "denied" | "aborted"))
}

// === impl Key ===

impl Key {
    fn of(identity: &Identity) -> Self {
        let name = match identity.attribution {
            AttributionKind::Pod if !identity.uid.is_empty() => &identity.uid,
            AttributionKind::Unknown => identity.why.unwrap_or_default(),
            _ => &identity.workload,
        };
        Self { attribution: identity.attribution, name: name.to_owned() }
    }
}

// === impl Amounts ===

impl Amounts {
    fn add(&mut self, sent: u64, received: u64, connections: u64) {
        self.bytes_sent = self.bytes_sent.saturating_add(sent);
        self.bytes_received = self.bytes_received.saturating_add(received);
        self.connections = self.connections.saturating_add(connections);
    }
}

// === impl TrafficRow ===

impl TrafficRow {
    fn of(identity: &Identity, alive: bool) -> Self {
        Self {
            attribution: identity.attribution,
            why: identity.why.map(str::to_owned),
            namespace: identity.namespace.clone(),
            pod: identity.pod.clone(),
            uid: identity.uid.clone(),
            workload: identity.workload.clone(),
            alive,
            total: Sums::default(),
            last_fold: None,
        }
    }
}

#[cfg(test)]
mod tests;
