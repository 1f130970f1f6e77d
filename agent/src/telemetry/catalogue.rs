//! Every metric: registered from here, and documented from here (docs/metrics.md).

use std::fmt::Write as _;

use prometheus_client::registry::{Metric as Encodes, Registry, Unit};

mod dns;

pub(super) use self::dns::{
    DNS_NAMES, DNS_NAMES_DROPPED, DNS_QUERIES, DNS_SEARCH_WASTE, DNS_UNMATCHED, DNS_UNREADABLE,
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
pub(super) const CAPACITY_USED: Metric = Metric {
    base: "node_capacity_used",
    sample: "sekisho_node_capacity_used",
    kind: "gauge",
    unit: None,
    labels: &["resource", "scope", "unit"],
    help: "How much of a resource is in use, in the unit that its label names",
};
pub(super) const CAPACITY_LIMIT: Metric = Metric {
    base: "node_capacity_limit",
    sample: "sekisho_node_capacity_limit",
    kind: "gauge",
    unit: None,
    labels: &["resource", "scope", "unit"],
    help: "The ceiling of a resource; absent when nobody tells it, or there is none",
};
pub(super) const PODS_FIT: Metric = Metric {
    base: "node_pods_fit",
    sample: "sekisho_node_pods_fit",
    kind: "gauge",
    unit: None,
    labels: &[],
    help: "How many more pods of the usual shape fit on the node; absent when it cannot be told",
};
pub(super) const PODS_WAITING: Metric = Metric {
    base: "node_pods_waiting",
    sample: "sekisho_node_pods_waiting",
    kind: "gauge",
    unit: None,
    labels: &[],
    help: "Pods that the kubelet has taken on and that have waited for their sandbox, so for an address, for more than a minute; absent when nobody tells of pods",
};
pub(super) const CAPACITY_LEFT_OUT: Metric = Metric {
    base: "capacity_left_out",
    sample: "sekisho_capacity_left_out_total",
    kind: "counter",
    unit: None,
    labels: &[],
    help: "Readings, pods and series of ceilings that found no room; more than 0: the figures of some pods are missing",
};
pub(super) const BINDING_RESOURCE: Metric = Metric {
    base: "node_binding_resource",
    sample: "sekisho_node_binding_resource",
    kind: "gauge",
    unit: None,
    labels: &["resource"],
    help: "1 for the resource that stops the next pod; absent when it cannot be told",
};
pub(super) const EXHAUSTION: Metric = Metric {
    base: "capacity_exhaustion",
    sample: "sekisho_capacity_exhaustion_seconds",
    kind: "gauge",
    unit: Some(Unit::Seconds),
    labels: &["resource", "scope"],
    help: "Time until a resource is used up at the usual pace of lately; infinite when it does not grow, absent when it cannot be told",
};
pub(super) const POD_THREADS: Metric = Metric {
    base: "pod_threads",
    sample: "sekisho_pod_threads",
    kind: "gauge",
    unit: None,
    labels: &["namespace", "pod"],
    help: "Threads of a pod, or of the container of it that is nearest to its limit",
};
pub(super) const POD_THREADS_LIMIT: Metric = Metric {
    base: "pod_threads_limit",
    sample: "sekisho_pod_threads_limit",
    kind: "gauge",
    unit: None,
    labels: &["namespace", "pod"],
    help: "The limit of these threads (pids.max); absent without one",
};
pub(super) const POD_OPEN_FILES: Metric = Metric {
    base: "pod_open_files_ratio",
    sample: "sekisho_pod_open_files_ratio",
    kind: "gauge",
    unit: None,
    labels: &["namespace", "pod"],
    help: "Open files of the process of a pod that is nearest to its own soft RLIMIT_NOFILE, as a part of it",
};
pub(super) const POD_BYTES: Metric = Metric {
    base: "pod_network",
    sample: "sekisho_pod_network_bytes_total",
    kind: "counter",
    unit: Some(Unit::Bytes),
    labels: &["namespace", "pod", "direction"],
    help: "Bytes through a pod's interface, counted on the node's side; direction is egress (sent by the pod) or ingress",
};
pub(super) const POD_PACKETS: Metric = Metric {
    base: "pod_network_packets",
    sample: "sekisho_pod_network_packets_total",
    kind: "counter",
    unit: None,
    labels: &["namespace", "pod", "direction"],
    help: "Packets through a pod's interface, counted on the node's side",
};
pub(super) const ENA_EXCEEDED: Metric = Metric {
    base: "ena_allowance_exceeded",
    sample: "sekisho_ena_allowance_exceeded_total",
    kind: "counter",
    unit: None,
    labels: &["interface", "allowance"],
    help: "Packets that were queued or dropped because an allowance of the instance was exceeded: bw_in, bw_out, pps, conntrack or linklocal",
};
pub(super) const CAPACITY_EVENTS: Metric = Metric {
    base: "capacity_events",
    sample: "sekisho_capacity_events_total",
    kind: "counter",
    unit: None,
    labels: &["event"],
    help: "How often the node refused something because a ceiling was reached, or something that hints at it happened",
};
pub(super) const COLLECTOR_SUCCESS: Metric = Metric {
    base: "collector_success",
    sample: "sekisho_collector_success",
    kind: "gauge",
    unit: None,
    labels: &["collector"],
    help: "Whether the last look at a source worked in all its parts; absent for what the node does not have",
};
pub(super) const COLLECTOR_DURATION: Metric = Metric {
    base: "collector_duration",
    sample: "sekisho_collector_duration_seconds",
    kind: "gauge",
    unit: Some(Unit::Seconds),
    labels: &["collector"],
    help: "How long the last look at a source took",
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
