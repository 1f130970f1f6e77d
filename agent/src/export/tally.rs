//! What became of rows that leave the node, shared between whoever sends them and whoever shows it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use agent_core::time::WallNs;

/// Totals since the agent's start. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Shared>);

#[derive(Default)]
struct Shared {
    shipped: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
    /// 0: nothing waits.
    waits_since: AtomicI64,
    failing: Mutex<Option<String>>,
}

impl Tally {
    /// Rows that arrived.
    pub(crate) fn shipped(&self) -> u64 {
        self.0.shipped.load(Ordering::Relaxed)
    }

    /// Rows that the other side will never take.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Rows that could not be sent, and never will be.
    pub(crate) fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// When the oldest row was said that waits; `None` when none does.
    pub(crate) fn waits_since(&self) -> Option<WallNs> {
        Some(self.0.waits_since.load(Ordering::Relaxed)).filter(|since| *since != 0).map(WallNs)
    }

    /// Why the last attempt failed; `None` while all is well.
    pub(crate) fn failing(&self) -> Option<String> {
        self.0.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Rows arrived.
    pub(crate) fn ship(&self, rows: u64) {
        self.0.shipped.fetch_add(rows, Ordering::Relaxed);
    }

    /// Rows were refused for good.
    pub(crate) fn refuse(&self, rows: u64) {
        self.0.refused.fetch_add(rows, Ordering::Relaxed);
    }

    /// Rows are lost.
    pub(crate) fn lose(&self, rows: u64) {
        self.0.lost.fetch_add(rows, Ordering::Relaxed);
    }

    /// Since when rows wait.
    pub(crate) fn wait_since(&self, since: Option<WallNs>) {
        self.0.waits_since.store(since.map_or(0, |since| since.0), Ordering::Relaxed);
    }

    /// How the last attempt went; whether that is another state than before.
    pub(crate) fn state(&self, failing: Option<String>) -> bool {
        let mut state = self.0.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = state.is_some() != failing.is_some();
        *state = failing;
        changed
    }
}
