//! Metrics of rows that leave the node.

use std::fmt::Error;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::put;
use super::{catalogue, raise};

/// Nine series at the most.
#[derive(Default)]
pub(super) struct Export {
    rows: Family<RowLabels, Counter>,
    oldest_age: Family<SinkLabels, Gauge<f64, AtomicU64>>,
    working: Family<SinkLabels, Gauge>,
}

/// Of `sekisho_export_rows_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RowLabels {
    sink: &'static str,
    fate: &'static str,
}

/// Of the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SinkLabels {
    sink: &'static str,
}

impl EncodeLabelSet for RowLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { sink, fate } = self;
        put(encoder, "sink", sink)?;
        put(encoder, "fate", fate)
    }
}

impl EncodeLabelSet for SinkLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { sink } = self;
        put(encoder, "sink", sink)
    }
}

impl Export {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let export = Self::default();
        catalogue::EXPORT_ROWS.register(registry, export.rows.clone());
        catalogue::EXPORT_AGE.register(registry, export.oldest_age.clone());
        catalogue::EXPORT_WORKING.register(registry, export.working.clone());
        export
    }

    /// Takes over the totals of a sink.
    pub(super) fn set(
        &self,
        sink: &'static str,
        totals: [(&'static str, u64); 3],
        oldest_age: Duration,
        is_working: bool,
    ) {
        for (fate, total) in totals {
            raise(&self.rows.get_or_create(&RowLabels { sink, fate }), total);
        }
        self.oldest_age.get_or_create(&SinkLabels { sink }).set(oldest_age.as_secs_f64());
        self.working.get_or_create(&SinkLabels { sink }).set(i64::from(is_working));
    }
}
