//! What the HTTP server shows: the pump's heartbeat, the probes, the metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use agent_core::time::BootNs;

use crate::http::Source;
use crate::kernel;
use crate::node;
use crate::telemetry::{CONTENT_TYPE, Exposition};

/// The pump beats once a second; without a beat for this long it stands still.
pub(super) const HEARTBEAT_MAX_NS: u64 = 10 * 1_000_000_000;

/// When the pump's loop turned last. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Heartbeat(Arc<AtomicU64>);

/// Answers for the HTTP server.
pub(super) struct Served {
    exposition: Exposition,
    heartbeat: Heartbeat,
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

// === impl Served ===

impl Served {
    pub(super) fn new(exposition: Exposition, heartbeat: Heartbeat, probes: &[kernel::ProbeStatus]) -> Self {
        let missing = probes.iter().filter_map(|probe| match &probe.state {
            kernel::ProbeState::Refused(why) if probe.required => Some(format!("{}: {why}", probe.name)),
            _ => None,
        });
        Self { exposition, heartbeat, missing: missing.collect(), now: || node::clock().0 }
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
            return Ok(());
        }
        Err(format!("required probes are missing: {}", self.missing.join("; ")))
    }

    fn metrics_type(&self) -> &'static str {
        CONTENT_TYPE
    }

    fn metrics(&self) -> Result<String, String> {
        self.exposition.render().map_err(|error| format!("could not write the metrics: {error}"))
    }
}
