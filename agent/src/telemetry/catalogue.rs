//! Every metric: registered from here, and documented from here (docs/metrics.md).

use std::fmt::Write as _;

use prometheus_client::registry::{Metric as Encodes, Registry, Unit};

mod dns;
mod node;

pub(super) use self::dns::{
    DNS_NAMES, DNS_NAMES_DROPPED, DNS_QUERIES, DNS_SEARCH_WASTE, DNS_UNMATCHED, DNS_UNREADABLE,
};
pub(super) use self::node::{
    BINDING_RESOURCE, CAPACITY_EVENTS, CAPACITY_LEFT_OUT, CAPACITY_LIMIT, CAPACITY_USED, COLLECTOR_DURATION,
    COLLECTOR_SUCCESS, ENA_EXCEEDED, EXHAUSTION, POD_BYTES, POD_OPEN_FILES, POD_PACKETS, POD_THREADS,
    POD_THREADS_LIMIT, PODS_FIT, PODS_WAITING,
};

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
    help: "TCP segments that the workload's sockets sent again; absent until the first",
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
pub(super) const FINDINGS_OPEN: Metric = Metric {
    base: "findings_open",
    sample: "sekisho_findings_open",
    kind: "gauge",
    unit: None,
    labels: &["code", "severity", "namespace", "workload"],
    help: "Findings that stand, those accepted by a waiver left out; a workload's finding counts once however many pods it has; 0 for two minutes after the last",
};
pub(super) const FINDINGS_ACCEPTED: Metric = Metric {
    base: "findings_accepted",
    sample: "sekisho_findings_accepted",
    kind: "gauge",
    unit: None,
    labels: &["code", "severity", "namespace", "workload"],
    help: "Findings that stand and that a waiver accepts",
};
pub(super) const FINDINGS: Metric = Metric {
    base: "findings",
    sample: "sekisho_findings_total",
    kind: "counter",
    unit: None,
    labels: &["code", "severity", "namespace"],
    help: "Findings that opened, by their severity then; at most 1,024 series, beyond them namespace is other",
};
pub(super) const FINDINGS_REFUSED: Metric = Metric {
    base: "findings_refused",
    sample: "sekisho_findings_refused_total",
    kind: "counter",
    unit: None,
    labels: &[],
    help: "Findings, pods of findings and doubts that found no room",
};
pub(super) const VERDICTS: Metric = Metric {
    base: "verdicts",
    sample: "sekisho_verdicts_total",
    kind: "counter",
    unit: None,
    labels: &["code", "verdict"],
    help: "Verdicts of the rules: holds, violated, or cannot_tell, which sekisho findings lists with the reason",
};
pub(super) const CLUSTER_AGE: Metric = Metric {
    base: "cluster_age",
    sample: "sekisho_cluster_age_seconds",
    kind: "gauge",
    unit: Some(Unit::Seconds),
    labels: &["source"],
    help: "Time since what a source of the cluster tells was known to be current; absent for a source that never answered",
};
pub(super) const CLUSTER_LEFT_OUT: Metric = Metric {
    base: "cluster_left_out",
    sample: "sekisho_cluster_left_out_total",
    kind: "counter",
    unit: None,
    labels: &["reason"],
    help: "Objects of the cluster that were left out: without_uid, other_node, contradicted (a uid that two pods claim), no_room, malformed",
};
pub(super) const KUBERNETES_EVENTS: Metric = Metric {
    base: "kubernetes_events",
    sample: "sekisho_kubernetes_events_total",
    kind: "counter",
    unit: None,
    labels: &["outcome"],
    help: "Kubernetes events on pods by what became of them: written, repeated (said within ten minutes already), pod_gone, or dropped: queue_full, rate_limited, failed",
};
pub(super) const EC2_AGE: Metric = Metric {
    base: "ec2_age",
    sample: "sekisho_ec2_age_seconds",
    kind: "gauge",
    unit: Some(Unit::Seconds),
    labels: &["call"],
    help: "Time since a kind of call of the EC2 API last worked; absent for one that never did",
};
pub(super) const EC2_SUCCESS: Metric = Metric {
    base: "ec2_success",
    sample: "sekisho_ec2_success",
    kind: "gauge",
    unit: None,
    labels: &["call"],
    help: "Whether a kind of call of the EC2 API works (1), or fails or is refused (0); absent for one that was not made",
};
pub(super) const RECORDS: Metric = Metric {
    base: "records",
    sample: "sekisho_records_total",
    kind: "counter",
    unit: None,
    labels: &["kind", "fate"],
    help: "Records of the probes by what became of them; every record seen has one fate",
};
pub(super) const HISTORY_ROWS: Metric = Metric {
    base: "history_rows",
    sample: "sekisho_history_rows_total",
    kind: "counter",
    unit: None,
    labels: &["fate"],
    help: "Rows for the history on the node by what became of them: stored (they stand on disk, synced) or lost",
};
pub(super) const HISTORY_SIZE: Metric = Metric {
    base: "history_size",
    sample: "sekisho_history_size_bytes",
    kind: "gauge",
    unit: Some(Unit::Bytes),
    labels: &[],
    help: "Bytes that the history takes on disk",
};
pub(super) const HISTORY_WRITABLE: Metric = Metric {
    base: "history_writable",
    sample: "sekisho_history_writable",
    kind: "gauge",
    unit: None,
    labels: &[],
    help: "Whether the history is written (1), or its rows are lost or it is off (0)",
};
pub(super) const EXPORT_ROWS: Metric = Metric {
    base: "export_rows",
    sample: "sekisho_export_rows_total",
    kind: "counter",
    unit: None,
    labels: &["sink", "fate"],
    help: "Rows that leave the node, by what became of them: shipped, refused by the collector for good, or lost (no disk, or the history had no room for them until they were shipped); sink is file or otlp",
};
pub(super) const EXPORT_AGE: Metric = Metric {
    base: "export_oldest_age",
    sample: "sekisho_export_oldest_age_seconds",
    kind: "gauge",
    unit: Some(Unit::Seconds),
    labels: &["sink"],
    help: "Age of the oldest row that waits to be shipped, 0 when none does",
};
pub(super) const EXPORT_WORKING: Metric = Metric {
    base: "export_working",
    sample: "sekisho_export_working",
    kind: "gauge",
    unit: None,
    labels: &["sink"],
    help: "Whether the last rows could be shipped (1) or not (0)",
};
pub(super) const PROBE_ATTACHED: Metric = Metric {
    base: "probe_attached",
    sample: "sekisho_probe_attached",
    kind: "gauge",
    unit: None,
    labels: &["probe"],
    help: "Whether a probe is attached (1) or was refused by the kernel (0)",
};
pub(super) const LAST_GAP: Metric = Metric {
    base: "last_gap_end_timestamp",
    sample: "sekisho_last_gap_end_timestamp_seconds",
    kind: "gauge",
    unit: Some(Unit::Seconds),
    labels: &["cause"],
    help: "When the last gap of a cause in the picture ended, seconds since 1970; absent for a cause that there was not since the agent started",
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
pub(super) const WITH_WORKLOAD: [&Metric; 8] = [
    &CONNECTIONS,
    &CONNECTION_BYTES,
    &RETRANSMITS,
    &METADATA_REQUESTS,
    &DNS_QUERIES,
    &DNS_SEARCH_WASTE,
    &FINDINGS_OPEN,
    &FINDINGS_ACCEPTED,
];

/// All of them, in the order of the documentation.
pub(super) const ALL: [&Metric; 49] = [
    &CONNECTIONS,
    &CONNECTION_BYTES,
    &RETRANSMITS,
    &RTT,
    &METADATA_REQUESTS,
    &DNS_QUERIES,
    &DNS_SEARCH_WASTE,
    &DNS_UNMATCHED,
    &DNS_UNREADABLE,
    &DNS_NAMES,
    &DNS_NAMES_DROPPED,
    &FINDINGS_OPEN,
    &FINDINGS_ACCEPTED,
    &FINDINGS,
    &FINDINGS_REFUSED,
    &VERDICTS,
    &CLUSTER_AGE,
    &CLUSTER_LEFT_OUT,
    &KUBERNETES_EVENTS,
    &EC2_AGE,
    &EC2_SUCCESS,
    &RECORDS,
    &HISTORY_ROWS,
    &HISTORY_SIZE,
    &HISTORY_WRITABLE,
    &EXPORT_ROWS,
    &EXPORT_AGE,
    &EXPORT_WORKING,
    &PROBE_ATTACHED,
    &LAST_GAP,
    &UNTRACKED,
    &SERIES_SUPPRESSED,
    &CAPACITY_USED,
    &CAPACITY_LIMIT,
    &PODS_FIT,
    &PODS_WAITING,
    &CAPACITY_LEFT_OUT,
    &BINDING_RESOURCE,
    &EXHAUSTION,
    &POD_THREADS,
    &POD_THREADS_LIMIT,
    &POD_OPEN_FILES,
    &POD_BYTES,
    &POD_PACKETS,
    &ENA_EXCEEDED,
    &CAPACITY_EVENTS,
    &COLLECTOR_SUCCESS,
    &COLLECTOR_DURATION,
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
