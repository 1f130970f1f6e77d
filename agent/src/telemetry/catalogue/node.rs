//! Metrics of the node's ceilings and of who looks at them.

use prometheus_client::registry::Unit;

use super::Metric;

pub(in crate::telemetry) const CAPACITY_USED: Metric = Metric {
    base: "node_capacity_used",
    sample: "sekisho_node_capacity_used",
    kind: "gauge",
    unit: None,
    labels: &["resource", "scope", "unit"],
    help: "How much of a resource is in use, in the unit that its label names",
};
pub(in crate::telemetry) const CAPACITY_LIMIT: Metric = Metric {
    base: "node_capacity_limit",
    sample: "sekisho_node_capacity_limit",
    kind: "gauge",
    unit: None,
    labels: &["resource", "scope", "unit"],
    help: "The ceiling of a resource; absent when nobody tells it, or there is none",
};
pub(in crate::telemetry) const PODS_FIT: Metric = Metric {
    base: "node_pods_fit",
    sample: "sekisho_node_pods_fit",
    kind: "gauge",
    unit: None,
    labels: &[],
    help: "How many more pods of the usual shape fit on the node; absent when it cannot be told",
};
pub(in crate::telemetry) const PODS_WAITING: Metric = Metric {
    base: "node_pods_waiting",
    sample: "sekisho_node_pods_waiting",
    kind: "gauge",
    unit: None,
    labels: &[],
    help: "Pods that the kubelet has taken on and that have waited for their sandbox, so for an address, for more than a minute; absent when nobody tells of pods",
};
pub(in crate::telemetry) const CAPACITY_LEFT_OUT: Metric = Metric {
    base: "capacity_left_out",
    sample: "sekisho_capacity_left_out_total",
    kind: "counter",
    unit: None,
    labels: &[],
    help: "Readings, pods and series of ceilings that found no room; more than 0: the figures of some pods are missing",
};
pub(in crate::telemetry) const BINDING_RESOURCE: Metric = Metric {
    base: "node_binding_resource",
    sample: "sekisho_node_binding_resource",
    kind: "gauge",
    unit: None,
    labels: &["resource"],
    help: "1 for the resource that stops the next pod; absent when it cannot be told",
};
pub(in crate::telemetry) const EXHAUSTION: Metric = Metric {
    base: "capacity_exhaustion",
    sample: "sekisho_capacity_exhaustion_seconds",
    kind: "gauge",
    unit: Some(Unit::Seconds),
    labels: &["resource", "scope"],
    help: "Time until a resource is used up at the usual pace of lately; infinite when it does not grow, absent when it cannot be told",
};
pub(in crate::telemetry) const POD_THREADS: Metric = Metric {
    base: "pod_threads",
    sample: "sekisho_pod_threads",
    kind: "gauge",
    unit: None,
    labels: &["namespace", "pod"],
    help: "Threads of a pod, or of the container of it that is nearest to its limit",
};
pub(in crate::telemetry) const POD_THREADS_LIMIT: Metric = Metric {
    base: "pod_threads_limit",
    sample: "sekisho_pod_threads_limit",
    kind: "gauge",
    unit: None,
    labels: &["namespace", "pod"],
    help: "The limit of these threads (pids.max); absent without one",
};
pub(in crate::telemetry) const POD_OPEN_FILES: Metric = Metric {
    base: "pod_open_files_ratio",
    sample: "sekisho_pod_open_files_ratio",
    kind: "gauge",
    unit: None,
    labels: &["namespace", "pod"],
    help: "Open files of the process of a pod that is nearest to its own soft RLIMIT_NOFILE, as a part of it",
};
pub(in crate::telemetry) const POD_BYTES: Metric = Metric {
    base: "pod_network",
    sample: "sekisho_pod_network_bytes_total",
    kind: "counter",
    unit: Some(Unit::Bytes),
    labels: &["namespace", "pod", "direction"],
    help: "Bytes through a pod's interface, counted on the node's side; direction is egress (sent by the pod) or ingress",
};
pub(in crate::telemetry) const POD_PACKETS: Metric = Metric {
    base: "pod_network_packets",
    sample: "sekisho_pod_network_packets_total",
    kind: "counter",
    unit: None,
    labels: &["namespace", "pod", "direction"],
    help: "Packets through a pod's interface, counted on the node's side",
};
pub(in crate::telemetry) const ENA_EXCEEDED: Metric = Metric {
    base: "ena_allowance_exceeded",
    sample: "sekisho_ena_allowance_exceeded_total",
    kind: "counter",
    unit: None,
    labels: &["interface", "allowance"],
    help: "Packets that were queued or dropped because an allowance of the instance was exceeded: bw_in, bw_out, pps, conntrack or linklocal",
};
pub(in crate::telemetry) const CAPACITY_EVENTS: Metric = Metric {
    base: "capacity_events",
    sample: "sekisho_capacity_events_total",
    kind: "counter",
    unit: None,
    labels: &["event"],
    help: "How often the node refused something because a ceiling was reached, or something that hints at it happened",
};
pub(in crate::telemetry) const COLLECTOR_SUCCESS: Metric = Metric {
    base: "collector_success",
    sample: "sekisho_collector_success",
    kind: "gauge",
    unit: None,
    labels: &["collector"],
    help: "Whether the last look at a source worked in all its parts; absent for what the node does not have",
};
pub(in crate::telemetry) const COLLECTOR_DURATION: Metric = Metric {
    base: "collector_duration",
    sample: "sekisho_collector_duration_seconds",
    kind: "gauge",
    unit: Some(Unit::Seconds),
    labels: &["collector"],
    help: "How long the last look at a source took",
};
