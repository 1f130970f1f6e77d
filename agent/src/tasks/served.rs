//! What the HTTP server shows: the pump's heartbeat, the probes, whether pods are known, the metrics.
//!
//! An agent of a cluster is ready when it knows the pods of its node, be it from the disk: before, it judges nothing and
//! names nobody. A roll-out whose agents may not list pods stops there, and `/healthz` keeps the agent from being killed for
//! what is not its fault. Once known, pods that cannot be read any more do not take readiness back: the agent goes on with
//! what it knows, and metrics tell its age.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_core::cluster::Cluster;
use agent_core::facts::Source as FactSource;
use agent_core::time::BootNs;

use crate::http::{Format, Source};
use crate::kernel;
use crate::node;
use crate::telemetry::{Exposition, OPEN_METRICS_TYPE, PROMETHEUS_TYPE};

/// The pump beats once a second; without a beat for this long it stands still.
pub(super) const HEARTBEAT_MAX_NS: u64 = 10 * 1_000_000_000;

/// When the pump's loop turned last. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Heartbeat(Arc<AtomicU64>);

/// Whether the pods of the node were told, or why not yet. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing(Arc<Mutex<Option<String>>>);

/// Answers for the HTTP server.
pub(super) struct Served {
    exposition: Exposition,
    heartbeat: Heartbeat,
    listing: Listing,
    missing: Vec<String>,
    now: fn() -> BootNs,
}

// === impl Heartbeat ===

impl Heartbeat {
    /// The loop turned.
    pub(super) fn beat(&self, now: BootNs) {
        self.0.store(now.0, Ordering::Relaxed);
    }

    fn age_ns(&self, now: BootNs) -> u64 {
        now.since(BootNs(self.0.load(Ordering::Relaxed)))
    }
}

// === impl Listing ===

impl Listing {
    /// Somebody is to tell pods, and has not yet.
    pub(super) fn awaited() -> Self {
        Self(Arc::new(Mutex::new(Some("pods are not listed yet".to_owned()))))
    }

    /// Looks whether they are known by now.
    pub(super) fn look(&self, cluster: &Cluster) {
        let mut missing = self.lock();
        if missing.is_none() {
            return;
        }
        if cluster.pods().is_told() {
            *missing = None;
            return;
        }
        let error = cluster.sources().find(|(source, _)| *source == FactSource::Pods);
        if let Some(error) = error.and_then(|(_, standing)| standing.error.as_deref()) {
            *missing = Some(format!("pods are not listed yet: {error}"));
        }
    }

    fn state(&self) -> Result<(), String> {
        self.lock().clone().map_or(Ok(()), Err)
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Served ===

impl Served {
    pub(super) fn new(
        exposition: Exposition,
        heartbeat: Heartbeat,
        listing: Listing,
        probes: &[kernel::ProbeStatus],
    ) -> Self {
        let missing = probes.iter().filter_map(|probe| match &probe.state {
            kernel::ProbeState::Refused(why) if probe.required => Some(format!("{}: {why}", probe.name)),
            _ => None,
        });
        Self { exposition, heartbeat, listing, missing: missing.collect(), now: || node::clock().0 }
    }

    #[cfg(test)]
    pub(super) fn at(mut self, now: fn() -> BootNs) -> Self {
        self.now = now;
        self
    }
}

impl Source for Served {
    fn healthy(&self) -> Result<(), String> {
        let age_ns = self.heartbeat.age_ns((self.now)());
        if age_ns <= HEARTBEAT_MAX_NS {
            return Ok(());
        }
        Err(format!("the loop stands still for {} s", age_ns / 1_000_000_000))
    }

    fn ready(&self) -> Result<(), String> {
        if self.missing.is_empty() {
            return self.listing.state();
        }
        Err(format!("required probes are missing: {}", self.missing.join("; ")))
    }

    fn metrics(&self, format: Format) -> Result<(&'static str, String), String> {
        let rendered = match format {
            Format::OpenMetrics => self.exposition.render().map(|text| (OPEN_METRICS_TYPE, text)),
            Format::Prometheus => self.exposition.render_prometheus().map(|text| (PROMETHEUS_TYPE, text)),
        };
        rendered.map_err(|error| format!("could not write the metrics: {error}"))
    }
}
