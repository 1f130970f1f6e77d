//! Label sets of the node's ceilings.

use std::fmt::Error;
use std::sync::Arc;

use agent_core::capacity::{Resource, Unit};
use agent_core::output::ResourceRow;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

use super::put;

/// Of `sekisho_node_capacity_*` and, without the unit, of `sekisho_capacity_exhaustion_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct ResourceLabels {
    resource: Resource,
    scope: Box<str>,
    unit: Option<Unit>,
}

/// Of what is told per pod. The budget of pods bounds them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in super::super) struct PodLabels {
    pub(in super::super) namespace: Arc<str>,
    pub(in super::super) pod: Arc<str>,
}

/// Of `sekisho_pod_network_*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct TrafficLabels {
    pub(in super::super) pod: PodLabels,
    pub(in super::super) direction: &'static str,
}

/// Of `sekisho_ena_allowance_exceeded_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct EnaLabels {
    pub(in super::super) interface: Arc<str>,
    pub(in super::super) allowance: &'static str,
}

/// Of `sekisho_capacity_events_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct EventLabels {
    pub(in super::super) event: &'static str,
}

/// Of `sekisho_collector_*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct CollectorLabels {
    pub(in super::super) collector: &'static str,
}

impl ResourceLabels {
    pub(in super::super) fn of(row: &ResourceRow) -> Self {
        Self { resource: row.resource, scope: row.scope.as_str().into(), unit: Some(row.unit) }
    }

    pub(in super::super) fn without_unit(self) -> Self {
        Self { unit: None, ..self }
    }
}

impl EncodeLabelSet for ResourceLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { resource, scope, unit: of } = self;
        put(encoder, "resource", resource.name())?;
        put(encoder, "scope", scope)?;
        of.map_or(Ok(()), |of| put(encoder, "unit", unit(of)))
    }
}

impl EncodeLabelSet for PodLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { namespace, pod } = self;
        put(encoder, "namespace", namespace)?;
        put(encoder, "pod", pod)
    }
}

impl EncodeLabelSet for TrafficLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { pod, direction } = self;
        pod.encode(encoder)?;
        put(encoder, "direction", direction)
    }
}

impl EncodeLabelSet for EnaLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { interface, allowance } = self;
        put(encoder, "interface", interface)?;
        put(encoder, "allowance", allowance)
    }
}

impl EncodeLabelSet for EventLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { event } = self;
        put(encoder, "event", event)
    }
}

impl EncodeLabelSet for CollectorLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { collector } = self;
        put(encoder, "collector", collector)
    }
}

/// Base units are Prometheus's: the others are counts of what the resource names.
pub(in super::super) fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Count => "count",
        Unit::Bytes => "bytes",
        Unit::MilliCores => "milli_cores",
        Unit::BitsPerSecond => "bits_per_second",
        Unit::BytesPerSecond => "bytes_per_second",
        Unit::PerSecond => "per_second",
    }
}
