//! Findings as gauges: one series for each code, severity and workload that has one, under the budget of all series that
//! carry a workload. A series shows 0 before it goes, so that whoever alerts on it sees its end.

use std::collections::HashMap;
use std::fmt::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_core::finding::{Code, Severity};
use agent_core::time::BootNs;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::labels::{Workload, put};
use super::series::{Budget, IDLE_NS};

/// Of `sekisho_findings_open` and `sekisho_findings_accepted`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FindingLabels {
    pub(super) code: Code,
    pub(super) severity: Severity,
    pub(super) workload: Workload,
}

/// Gauges of one metric. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct FindingGauges(Arc<Mutex<HashMap<FindingLabels, Series>>>);

#[derive(Debug)]
struct Series {
    count: i64,
    /// Since when it is 0.
    zero_since: Option<BootNs>,
    /// It takes from the budget; the series of what found no room do not.
    is_budgeted: bool,
}

impl FindingGauges {
    /// Sets all counts; what is not among them becomes 0. Returns how many found no room and went to the workload
    /// `other`.
    pub(super) fn set(&self, counts: HashMap<FindingLabels, i64>, now: BootNs, budget: &Budget) -> u64 {
        let mut all = self.lock();
        let mut wanted: HashMap<FindingLabels, (i64, bool)> = HashMap::new();
        let mut suppressed = 0;
        for (labels, count) in counts {
            let is_new = !all.contains_key(&labels);
            let is_budgeted = !is_new || budget.take();
            let labels = if is_budgeted { labels } else { FindingLabels { workload: Workload::other(), ..labels } };
            suppressed += u64::from(!is_budgeted);
            wanted.entry(labels).or_insert((0, is_budgeted)).0 += count;
        }
        for (labels, series) in &mut *all {
            if !wanted.contains_key(labels) {
                series.count = 0;
                series.zero_since.get_or_insert(now);
            }
        }
        for (labels, (count, is_budgeted)) in wanted {
            let series = all.entry(labels).or_insert(Series { count: 0, zero_since: None, is_budgeted });
            (series.count, series.zero_since) = (count, None);
        }
        let before = all.values().filter(|series| series.is_budgeted).count();
        all.retain(|_, series| series.zero_since.is_none_or(|since| now.since(since) < IDLE_NS));
        budget.give_back(before - all.values().filter(|series| series.is_budgeted).count());
        suppressed
    }

    #[cfg(test)]
    pub(super) fn value(&self, labels: &FindingLabels) -> Option<i64> {
        self.lock().get(labels).map(|series| series.count)
    }

    /// Nothing panics while it holds the lock, and a series is whole at every step: a poisoned lock is as good.
    fn lock(&self) -> MutexGuard<'_, HashMap<FindingLabels, Series>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodeMetric for FindingGauges {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        for (labels, series) in &*self.lock() {
            ConstGauge::new(series.count).encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

impl EncodeLabelSet for FindingLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { code, severity, workload } = self;
        put(encoder, "code", code.name())?;
        put(encoder, "severity", severity.name())?;
        workload.encode(encoder)
    }
}
