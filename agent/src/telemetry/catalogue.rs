//! Every metric: registered from here, and documented from here (docs/metrics.md).

use std::fmt::Write as _;

use prometheus_client::registry::{Metric as Encodes, Registry, Unit};

/// One metric.
pub(super) struct Metric {
    /// Name of the family without prefix, unit and `_total`.
    base: &'static str,
    /// Name of its samples (of a histogram's, without `_bucket`, `_sum` and `_count`).
    pub(super) sample: &'static str,
    /// OpenMetrics type.
    pub(super) kind: &'static str,
    /// Base unit.
    unit: Option<Unit>,
    /// Names of the labels, in order.
    pub(super) labels: &'static [&'static str],
    /// What it says, without a full stop.
    pub(super) help: &'static str,
}

/// Prefix of every name.
pub(super) const PREFIX: &str = "sekisho";

pub(super) const CONNECTIONS: Metric = Metric {
    base: "connections",
    sample: "sekisho_connections_total",
    kind: "counter",
    unit: None,
    labels: &["namespace", "workload", "direction", "peer_class", "outcome"],
    help: "TCP connections and UDP flows that ended, by how they ended; direction is outbound, inbound or unknown (a socket older than the agent)",
};
pub(super) const CONNECTION_BYTES: Metric = Metric {
    base: "connection",
    sample: "sekisho_connection_bytes_total",
    kind: "counter",
    unit: Some(Unit::Bytes),
    labels: &["namespace", "workload", "peer_class", "direction"],
    help: "Payload bytes of TCP connections and UDP flows, open ones included; direction is egress (sent by the workload) or ingress",
};
pub(super) const RETRANSMITS: Metric = Metric {
    base: "tcp_retransmits",
    sample: "sekisho_tcp_retransmits_total",
    kind: "counter",
    unit: None,
    labels: &["namespace", "workload", "peer_class"],
    help: "TCP segments that the workload's sockets sent again",
};
pub(super) const RTT: Metric = Metric {
    base: "tcp_rtt",
    sample: "sekisho_tcp_rtt_seconds",
    kind: "histogram",
    unit: Some(Unit::Seconds),
    labels: &["peer_class"],
    help: "Smoothed TCP round trip time; one observation for each connection that ended",
};
pub(super) const METADATA_REQUESTS: Metric = Metric {
    base: "metadata_requests",
    sample: "sekisho_metadata_requests_total",
    kind: "counter",
    unit: None,
    labels: &["namespace", "workload", "service", "version", "category", "outcome"],
    help: "Requests to EC2 instance metadata and to the EKS Pod Identity agent",
};
pub(super) const RECORDS: Metric = Metric {
    base: "records",
    sample: "sekisho_records_total",
    kind: "counter",
    unit: None,
    labels: &["kind", "fate"],
    help: "Records of the probes by what became of them; every record seen has one fate",
};
pub(super) const PROBE_ATTACHED: Metric = Metric {
    base: "probe_attached",
    sample: "sekisho_probe_attached",
    kind: "gauge",
    unit: None,
    labels: &["probe"],
    help: "Whether a probe is attached (1) or was refused by the kernel (0)",
};
pub(super) const UNTRACKED: Metric = Metric {
    base: "untracked",
    sample: "sekisho_untracked_total",
    kind: "counter",
    unit: None,
    labels: &["what"],
    help: "What the probes could not follow because a bound was reached",
};
pub(super) const SERIES_SUPPRESSED: Metric = Metric {
    base: "series_suppressed",
    sample: "sekisho_series_suppressed_total",
    kind: "counter",
    unit: None,
    labels: &["metric"],
    help: "Updates that went to the series of workload other because metrics.max_series was reached",
};
pub(super) const BUILD_INFO: Metric = Metric {
    base: "build",
    sample: "sekisho_build_info",
    kind: "info",
    unit: None,
    labels: &["version"],
    help: "The agent's version",
};

/// The metrics whose series carry a workload and stand under the budget.
pub(super) const WITH_WORKLOAD: [&Metric; 4] = [&CONNECTIONS, &CONNECTION_BYTES, &RETRANSMITS, &METADATA_REQUESTS];

/// All of them, in the order of the documentation.
pub(super) const ALL: [&Metric; 10] = [
    &CONNECTIONS,
    &CONNECTION_BYTES,
    &RETRANSMITS,
    &RTT,
    &METADATA_REQUESTS,
    &RECORDS,
    &PROBE_ATTACHED,
    &UNTRACKED,
    &SERIES_SUPPRESSED,
    &BUILD_INFO,
];

/// The table of `docs/metrics.md`.
pub(crate) fn markdown() -> String {
    let mut page = String::from("| metric | type | unit | labels | what it says |\n|---|---|---|---|---|\n");
    for metric in ALL {
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let Metric { sample, kind, help, .. } = metric;
        // Writing to a string does not fail.
        let _ = writeln!(page, "| `{sample}` | {kind} | {} | {labels} | {help} |", metric.unit());
    }
    page
}

impl Metric {
    /// Registers what stands behind it in a registry with [`PREFIX`].
    pub(super) fn register(&self, registry: &mut Registry, metric: impl Encodes) {
        match &self.unit {
            None => registry.register(self.base, self.help, metric),
            Some(unit) => registry.register_with_unit(self.base, self.help, unit.clone(), metric),
        }
    }

    /// The base unit's name; empty for none.
    pub(super) fn unit(&self) -> &str {
        self.unit.as_ref().map_or("", Unit::as_str)
    }
}
