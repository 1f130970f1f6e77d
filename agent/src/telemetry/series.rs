//! Counters whose label sets carry a workload: bounded by one budget for all metrics, forgotten when a workload is
//! gone.
//!
//! Arithmetic of the default budget of 3,000: a workload talks to about three classes of peers both ways with two
//! outcomes (12 series of connections), 6 of bytes and 3 of DNS: 21 series. One that sends segments again has up to 3 more, and
//! one that takes credentials 3: a third of all do. So 130 pods of as many workloads find room. A series takes about 200 bytes
//! here: 600 KB.

use std::collections::{HashMap, HashSet};
use std::fmt::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_core::time::BootNs;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::labels::{WithWorkload, Workload};

/// A series goes when its workload is gone and nothing was added to it for this long. Two minutes are four scrapes of the
/// usual 30 s: what a short-lived pod did last is scraped before it goes.
pub(super) const IDLE_NS: u64 = 120 * 1_000_000_000;

/// Room for series, shared by all counters.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
}

/// Counters of one metric. Clones share them.
#[derive(Debug)]
pub(super) struct WorkloadCounters<S>(Arc<Mutex<HashMap<S, Series>>>);

#[derive(Debug)]
struct Series {
    total: u64,
    /// When something was added last, or the workload was seen alive; `None` for the series of what found no room: they are few, and stay.
    last: Option<BootNs>,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max }
    }

    pub(super) fn take(&self) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < self.max).then_some(used + 1))
            .is_ok()
    }

    pub(super) fn give_back(&self, count: usize) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

// === impl WorkloadCounters ===

impl<S> Default for WorkloadCounters<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S> Clone for WorkloadCounters<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: WithWorkload> WorkloadCounters<S> {
    /// Adds to a series; false when it went to the workload `other` for want of room.
    pub(super) fn add(&self, labels: S, amount: u64, now: BootNs, budget: &Budget) -> bool {
        let mut all = self.lock();
        if let Some(series) = all.get_mut(&labels) {
            series.add(amount);
            series.last = series.last.max(Some(now));
            return true;
        }
        if budget.take() {
            all.insert(labels, Series { total: amount, last: Some(now) });
            return true;
        }
        all.entry(labels.overflow()).or_insert(Series { total: 0, last: None }).add(amount);
        false
    }

    /// Keeps the series of workloads that live, silent or not.
    pub(super) fn keep(&self, living: &HashSet<Workload>, now: BootNs) {
        for (labels, series) in &mut *self.lock() {
            if series.last.is_some() && living.contains(labels.workload()) {
                series.last = series.last.max(Some(now));
            }
        }
    }

    /// Forgets what was neither kept nor added to for [`IDLE_NS`].
    pub(super) fn expire(&self, now: BootNs, budget: &Budget) {
        let mut all = self.lock();
        let before = all.len();
        all.retain(|_, series| series.last.is_none_or(|last| now.since(last) < IDLE_NS));
        budget.give_back(before - all.len());
    }

    /// Nothing panics while it holds the lock, and a series is whole at every step: a poisoned lock is as good.
    fn lock(&self) -> MutexGuard<'_, HashMap<S, Series>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Series {
    fn add(&mut self, amount: u64) {
        self.total = self.total.saturating_add(amount);
    }
}

impl<S: WithWorkload> EncodeMetric for WorkloadCounters<S> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        for (labels, series) in &*self.lock() {
            ConstCounter::new(series.total).encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}
