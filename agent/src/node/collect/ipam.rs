//! The VPC CNI's address manager (ipamd): its checkpoint file, its metrics and its introspection. Each is a source that
//! fails alone; what ipamd holds is told as one fact, put together from those that answer now.

use std::sync::{Arc, Mutex, PoisonError};

use agent_core::capacity::{IpamAllocation, IpamFacts, IpamInterface, IpamSettings};
use agent_core::facts::HostFact;

use super::Error;

mod checkpoint;
mod introspection;
mod metrics;

pub(super) use checkpoint::Checkpoint;
pub(super) use introspection::Introspection;
pub(super) use metrics::Metrics;

/// What each source said last; nothing from one that does not answer.
#[derive(Clone, Debug, Default)]
struct Parts {
    allocations: Option<Vec<IpamAllocation>>,
    metrics: Option<Totals>,
    introspection: Option<Pool>,
}

/// What the metrics tell.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    total: Option<u32>,
    assigned: Option<u32>,
    prefixes: Option<u32>,
}

/// What introspection tells.
#[derive(Clone, Debug, Default)]
struct Pool {
    total: u32,
    assigned: u32,
    interfaces: Vec<IpamInterface>,
    settings: Option<IpamSettings>,
}

/// The parts, shared by the three sources. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Parts>>);

// === impl Shared ===

impl Shared {
    /// Puts a source's part in, or takes it out when it could not be read, and tells the whole.
    fn put<T>(
        &self,
        part: Result<T, Error>,
        place: impl FnOnce(&mut Parts) -> &mut Option<T>,
        facts: &mut Vec<HostFact>,
    ) -> Result<(), Error> {
        // Parts are put in whole: a poisoned lock is as good.
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (part, result) = match part {
            Ok(part) => (Some(part), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let was_known = parts.is_known();
        *place(&mut parts) = part;
        // Where there is no ipamd nothing is told; where there was one, that it tells nothing any more.
        if was_known || parts.is_known() {
            facts.push(HostFact::Ipam(Box::new(parts.facts())));
        }
        result
    }
}

// === impl Parts ===

impl Parts {
    fn is_known(&self) -> bool {
        let Self { allocations, metrics, introspection } = self;
        allocations.is_some() || metrics.is_some() || introspection.is_some()
    }

    /// Introspection counts what the metrics count, a moment earlier in the same process; the checkpoint knows of assigned
    /// addresses alone.
    fn facts(&self) -> IpamFacts {
        let totals = self.metrics.unwrap_or_default();
        let pool = self.introspection.as_ref();
        let prefixes = pool.map(|pool| pool.interfaces.iter().map(|interface| interface.prefixes).sum());
        let checkpointed = self.allocations.as_ref().and_then(|allocations| u32::try_from(allocations.len()).ok());
        IpamFacts {
            interfaces: pool.map(|pool| pool.interfaces.clone()).unwrap_or_default(),
            total: pool.map(|pool| pool.total).or(totals.total),
            assigned: pool.map(|pool| pool.assigned).or(totals.assigned).or(checkpointed),
            prefixes: prefixes.or(totals.prefixes),
            settings: pool.and_then(|pool| pool.settings.clone()),
            allocations: self.allocations.clone().unwrap_or_default(),
        }
    }
}
