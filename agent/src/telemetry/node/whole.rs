//! Metrics of the whole node that have no labels, from the last capacity row.

use std::fmt::Error;

use agent_core::output::CapacityRow;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::Node;
use crate::telemetry::catalogue::{self, Metric};

/// All of them.
pub(super) const WHOLES: [(&Metric, Whole); 3] = [
    (&catalogue::PODS_FIT, Whole { kind: MetricType::Gauge, figure: |row| row.pods_fit }),
    (&catalogue::PODS_WAITING, Whole { kind: MetricType::Gauge, figure: |row| row.pods_waiting }),
    (&catalogue::CAPACITY_LEFT_OUT, Whole { kind: MetricType::Counter, figure: |row| Some(row.left_out) }),
];

/// A figure of the row; `None`: the metric is absent.
#[derive(Clone, Copy)]
pub(super) struct Whole {
    kind: MetricType,
    figure: fn(&CapacityRow) -> Option<u64>,
}

/// A figure of a node.
pub(super) struct OfNode {
    node: Node,
    whole: Whole,
}

// === impl Whole ===

impl Whole {
    pub(super) fn of(self, node: &Node) -> OfNode {
        OfNode { node: node.clone(), whole: self }
    }
}

// === impl OfNode ===

impl std::fmt::Debug for OfNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OfNode").finish_non_exhaustive()
    }
}

impl EncodeMetric for OfNode {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        let figure = self.node.lock().capacity.as_ref().and_then(self.whole.figure);
        match (figure, self.whole.kind) {
            (None, _) => Ok(()),
            (Some(figure), MetricType::Counter) => encoder.encode_counter::<NoLabelSet, _, u64>(&figure, None),
            (Some(figure), _) => encoder.encode_gauge(&figure),
        }
    }

    fn metric_type(&self) -> MetricType {
        self.whole.kind
    }
}
