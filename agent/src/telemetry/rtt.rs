//! Round trip times by class of peer. The Engine counts them per row, one observation for each connection that ended;
//! here they are summed. The classes are a closed set, so there is one histogram for each from the start.

use std::fmt::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_core::output::{PeerClass, RTT_BOUNDS_US, RttHistogram};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::labels::{PEER_CLASSES, RttLabels};

/// The bounded buckets and the one beyond.
const BUCKETS: usize = RTT_BOUNDS_US.len() + 1;

/// The histograms. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct RttHistograms(Arc<Mutex<Vec<ByClass>>>);

#[derive(Clone, Debug)]
struct ByClass {
    labels: RttLabels,
    counts: [u64; BUCKETS],
    sum_us: u64,
}

impl Default for RttHistograms {
    fn default() -> Self {
        let empty =
            |class: &PeerClass| ByClass { labels: RttLabels { peer_class: *class }, counts: [0; BUCKETS], sum_us: 0 };
        Self(Arc::new(Mutex::new(PEER_CLASSES.iter().map(empty).collect())))
    }
}

impl RttHistograms {
    /// Adds the observations of a row.
    pub(super) fn add(&self, class: PeerClass, row: &RttHistogram) {
        let mut all = self.lock();
        let Some(sum) = all.iter_mut().find(|by_class| by_class.labels.peer_class == class) else { return };
        for (count, more) in sum.counts.iter_mut().zip(row.counts()) {
            *count = count.saturating_add(u64::from(*more));
        }
        sum.sum_us = sum.sum_us.saturating_add(row.sum_us());
    }

    /// Nothing panics while it holds the lock, and the counts are whole at every step: a poisoned lock is as good.
    fn lock(&self) -> MutexGuard<'_, Vec<ByClass>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodeMetric for RttHistograms {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        let bounds = RTT_BOUNDS_US.iter().map(|bound| seconds(u64::from(*bound))).chain([f64::INFINITY]);
        for ByClass { labels, counts, sum_us } in &*self.lock() {
            let buckets: Vec<_> = bounds.clone().zip(counts.iter().copied()).collect();
            let count = counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
            encoder.encode_family(labels)?.encode_histogram::<NoLabelSet>(seconds(*sum_us), count, &buckets, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[expect(clippy::cast_precision_loss, reason = "53 bits of microseconds are 285 years")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
