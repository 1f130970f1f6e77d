//! Metrics: the only module that names prometheus-client. [`catalogue`] lists them all, [`labels`] holds the label sets,
//! [`series`] the budget and the expiry of series that carry a workload.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_core::cluster::{Cluster, Counts};
use agent_core::dns::{Counts as DnsCounts, Tally};
use agent_core::ec2::Ec2;
use agent_core::facts::HostFact;
use agent_core::finding::ledger::{Counted, VERDICTS};
use agent_core::finding::{Code, Ledger};
use agent_core::input::KernelTotals;
use agent_core::output::{FlowRow, GapRow, Identity, MetadataRow, Output, State};
use agent_core::time::{BootNs, WallNs};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

mod catalogue;
mod dns;
mod export;
mod findings;
mod labels;
mod node;
mod plain;
mod rtt;
mod series;
#[cfg(test)]
mod tests;

pub(crate) use catalogue::markdown;
use dns::Dns;
use export::Export;
use findings::{FindingGauges, FindingLabels};
use labels::{
    BuildLabels, BytesDirection, BytesLabels, CallLabels, CauseLabels, ConnectionLabels, HistoryLabels, MetadataLabels,
    OpenedLabels, OutcomeLabels, ProbeLabels, ReasonLabels, RecordLabels, RetransmitLabels, SourceLabels,
    SuppressedLabels, Untracked, UntrackedLabels, VerdictLabels, Workload,
};
use node::Node;
pub(crate) use plain::{OPEN_METRICS_TYPE, PROMETHEUS_TYPE};
use rtt::RttHistograms;
use series::{Budget, WorkloadCounters};

/// The counters that the tasks feed.
pub(crate) struct Telemetry {
    budget: Budget,
    connections: WorkloadCounters<ConnectionLabels>,
    bytes: WorkloadCounters<BytesLabels>,
    retransmits: WorkloadCounters<RetransmitLabels>,
    rtt: RttHistograms,
    metadata: WorkloadCounters<MetadataLabels>,
    dns: Dns,
    findings_open: FindingGauges,
    findings_accepted: FindingGauges,
    findings: Family<OpenedLabels, Counter>,
    findings_refused: Counter,
    verdicts: Family<VerdictLabels, Counter>,
    cluster_age: Family<SourceLabels, Gauge<f64, AtomicU64>>,
    cluster_left_out: Family<ReasonLabels, Counter>,
    kubernetes_events: Family<OutcomeLabels, Counter>,
    ec2_age: Family<CallLabels, Gauge<f64, AtomicU64>>,
    ec2_success: Family<CallLabels, Gauge>,
    records: Family<RecordLabels, Counter>,
    history_rows: Family<HistoryLabels, Counter>,
    history_size: Gauge,
    history_writable: Gauge,
    export: Export,
    probes: Family<ProbeLabels, Gauge>,
    last_gap: Family<CauseLabels, Gauge<f64, AtomicU64>>,
    untracked: Family<UntrackedLabels, Counter>,
    suppressed: Family<SuppressedLabels, Counter>,
    node: Node,
}

/// What a scrape reads.
#[derive(Clone)]
pub(crate) struct Exposition(Arc<Registry>);

/// A new set of metrics with room for so many series that carry a workload.
pub(crate) fn new(max_series: u32) -> (Telemetry, Exposition) {
    let mut registry = Registry::with_prefix(catalogue::PREFIX);
    let telemetry = Telemetry::register(&mut registry, max_series);
    (telemetry, Exposition(Arc::new(registry)))
}

// === impl Exposition ===

impl Exposition {
    /// OpenMetrics text.
    pub(crate) fn render(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.0)?;
        Ok(out)
    }

    /// The same as Prometheus text.
    pub(crate) fn render_prometheus(&self) -> Result<String, std::fmt::Error> {
        Ok(plain::prometheus(&self.render()?))
    }
}

// === impl Telemetry ===

impl Telemetry {
    fn register(registry: &mut Registry, max_series: u32) -> Self {
        let telemetry = Self {
            budget: Budget::new(max_series as usize),
            connections: WorkloadCounters::default(),
            bytes: WorkloadCounters::default(),
            retransmits: WorkloadCounters::default(),
            rtt: RttHistograms::default(),
            metadata: WorkloadCounters::default(),
            dns: Dns::register(registry),
            findings_open: FindingGauges::default(),
            findings_accepted: FindingGauges::default(),
            findings: Family::default(),
            findings_refused: Counter::default(),
            verdicts: Family::default(),
            cluster_age: Family::default(),
            cluster_left_out: Family::default(),
            kubernetes_events: Family::default(),
            ec2_age: Family::default(),
            ec2_success: Family::default(),
            records: Family::default(),
            history_rows: Family::default(),
            history_size: Gauge::default(),
            history_writable: Gauge::default(),
            export: Export::register(registry),
            probes: Family::default(),
            last_gap: Family::default(),
            untracked: Family::default(),
            suppressed: Family::default(),
            node: Node::register(registry, max_series as usize),
        };
        catalogue::CONNECTIONS.register(registry, telemetry.connections.clone());
        catalogue::CONNECTION_BYTES.register(registry, telemetry.bytes.clone());
        catalogue::RETRANSMITS.register(registry, telemetry.retransmits.clone());
        catalogue::RTT.register(registry, telemetry.rtt.clone());
        catalogue::METADATA_REQUESTS.register(registry, telemetry.metadata.clone());
        catalogue::FINDINGS_OPEN.register(registry, telemetry.findings_open.clone());
        catalogue::FINDINGS_ACCEPTED.register(registry, telemetry.findings_accepted.clone());
        catalogue::FINDINGS.register(registry, telemetry.findings.clone());
        catalogue::FINDINGS_REFUSED.register(registry, telemetry.findings_refused.clone());
        catalogue::VERDICTS.register(registry, telemetry.verdicts.clone());
        catalogue::CLUSTER_AGE.register(registry, telemetry.cluster_age.clone());
        catalogue::CLUSTER_LEFT_OUT.register(registry, telemetry.cluster_left_out.clone());
        catalogue::KUBERNETES_EVENTS.register(registry, telemetry.kubernetes_events.clone());
        catalogue::EC2_AGE.register(registry, telemetry.ec2_age.clone());
        catalogue::EC2_SUCCESS.register(registry, telemetry.ec2_success.clone());
        catalogue::RECORDS.register(registry, telemetry.records.clone());
        catalogue::HISTORY_ROWS.register(registry, telemetry.history_rows.clone());
        catalogue::HISTORY_SIZE.register(registry, telemetry.history_size.clone());
        catalogue::HISTORY_WRITABLE.register(registry, telemetry.history_writable.clone());
        catalogue::PROBE_ATTACHED.register(registry, telemetry.probes.clone());
        catalogue::LAST_GAP.register(registry, telemetry.last_gap.clone());
        catalogue::UNTRACKED.register(registry, telemetry.untracked.clone());
        catalogue::SERIES_SUPPRESSED.register(registry, telemetry.suppressed.clone());
        let version = BuildLabels { version: env!("CARGO_PKG_VERSION") };
        catalogue::BUILD_INFO.register(registry, Info::new(version));
        telemetry.start_at_zero();
        telemetry
    }

    /// Label sets without a workload are known beforehand: `increase()` must see their first event.
    fn start_at_zero(&self) {
        for what in Untracked::ALL {
            let _ = self.untracked.get_or_create(&UntrackedLabels { what: *what });
        }
        for code in Code::ALL {
            for verdict in VERDICTS {
                let _ = self.verdicts.get_or_create(&VerdictLabels { code: *code, verdict });
            }
        }
        for (reason, _) in Counts::default().by_reason() {
            let _ = self.cluster_left_out.get_or_create(&ReasonLabels { reason });
        }
        for metric in catalogue::WITH_WORKLOAD {
            let _ = self.suppressed.get_or_create(&SuppressedLabels { metric: metric.sample });
        }
    }

    /// Counts what an output says.
    pub(crate) fn observe(&self, output: &Output, now: BootNs) {
        match output {
            Output::Flow(row) => self.flow(row, now),
            Output::Metadata(row) => self.metadata(row, now),
            Output::Capacity(row) => self.node.capacity(row),
            Output::Gap(row) => self.gap(row),
            Output::Process(_) | Output::Finding(_) | Output::Object(_) => {}
        }
    }

    fn flow(&self, row: &FlowRow, now: BootNs) {
        // What a pod says to itself leaves it no more than what a process says to itself.
        if row.is_within_pod() {
            return;
        }
        let workload = Workload::of(&row.who.identity);
        let peer_class = row.peer.class;
        if let Some(outcome) = row.outcome.filter(|_| row.connections > 0) {
            let labels = ConnectionLabels { workload: workload.clone(), direction: row.direction, peer_class, outcome };
            self.count(&self.connections, &catalogue::CONNECTIONS, labels, row.connections, now);
        }
        for (direction, bytes) in
            [(BytesDirection::Egress, row.bytes_sent), (BytesDirection::Ingress, row.bytes_received)]
        {
            let labels = BytesLabels { workload: workload.clone(), peer_class, direction };
            self.count(&self.bytes, &catalogue::CONNECTION_BYTES, labels, bytes, now);
        }
        // Most workloads send nothing again: a series of zeros for each class of their peers would be a tenth of all.
        if let Some(segments @ 1..) = row.retransmits {
            let labels = RetransmitLabels { workload, peer_class };
            self.count(&self.retransmits, &catalogue::RETRANSMITS, labels, segments, now);
        }
        self.rtt.add(peer_class, &row.rtt);
    }

    fn metadata(&self, row: &MetadataRow, now: BootNs) {
        let labels = MetadataLabels {
            workload: Workload::of(&row.who.identity),
            service: row.service,
            version: row.version,
            category: row.category,
            outcome: row.outcome,
        };
        self.count(&self.metadata, &catalogue::METADATA_REQUESTS, labels, 1, now);
    }

    fn gap(&self, row: &GapRow) {
        let end = Duration::from_nanos(u64::try_from(row.end.0).unwrap_or(0)).as_secs_f64();
        let gauge = self.last_gap.get_or_create(&CauseLabels { cause: row.cause });
        // A gap of an earlier time may be told late.
        gauge.set(gauge.get().max(end));
    }

    /// Takes over what a fold told of a workload's DNS queries.
    pub(crate) fn dns(&self, who: &Identity, tally: &Tally, now: BootNs) {
        for (metric, refused) in self.dns.add(Workload::of(who), tally, now, &self.budget) {
            self.suppressed.get_or_create(&SuppressedLabels { metric }).inc_by(refused);
        }
    }

    /// Takes over the node's counts of DNS, and how many names are held.
    pub(crate) fn dns_counts(&self, counts: DnsCounts, names: usize) {
        self.dns.node(counts, names);
    }

    fn count<S: labels::WithWorkload>(
        &self,
        counters: &WorkloadCounters<S>,
        metric: &catalogue::Metric,
        labels: S,
        amount: u64,
        now: BootNs,
    ) {
        if !counters.add(labels, amount, now, &self.budget) {
            self.suppressed.get_or_create(&SuppressedLabels { metric: metric.sample }).inc();
        }
    }

    /// Takes over what a look at the node told.
    pub(crate) fn host(&self, fact: &HostFact, now: BootNs) {
        let refused = self.node.host(fact, now);
        if refused > 0 {
            let metric = catalogue::POD_THREADS.sample;
            self.suppressed.get_or_create(&SuppressedLabels { metric }).inc_by(refused);
        }
    }

    /// Takes over the kernel's counts of what it could not follow.
    pub(crate) fn kernel_totals(&self, totals: &KernelTotals) {
        for what in Untracked::ALL {
            let value = match what {
                Untracked::Sockets => totals.untracked_sockets,
                Untracked::Attempts => totals.untracked_attempts,
                Untracked::Peers => totals.untracked_peers,
                Untracked::Accounts => totals.overflow_accounts,
                Untracked::UnreadablePackets => totals.unreadable_packets,
            };
            raise(&self.untracked.get_or_create(&UntrackedLabels { what: *what }), value);
        }
    }

    /// Takes over what the ledger holds.
    pub(crate) fn findings(&self, ledger: &Ledger, now: BootNs) {
        let (mut open, mut accepted) = (HashMap::new(), HashMap::new());
        for finding in ledger.counted() {
            let counts = match finding.state {
                State::Open => &mut open,
                State::Accepted => &mut accepted,
                State::Resolved => continue,
            };
            let Counted { code, severity, namespace, workload, .. } = finding;
            let workload = Workload::named(namespace, workload);
            *counts.entry(FindingLabels { code, severity, workload }).or_default() += 1;
        }
        for (gauges, counts, metric) in [
            (&self.findings_open, open, &catalogue::FINDINGS_OPEN),
            (&self.findings_accepted, accepted, &catalogue::FINDINGS_ACCEPTED),
        ] {
            let suppressed = gauges.set(counts, now, &self.budget);
            if suppressed > 0 {
                self.suppressed.get_or_create(&SuppressedLabels { metric: metric.sample }).inc_by(suppressed);
            }
        }
        for (code, severity, namespace, count) in ledger.opened() {
            let labels = OpenedLabels { code, severity, namespace: Box::from(namespace) };
            raise(&self.findings.get_or_create(&labels), count);
        }
        for (code, counts) in ledger.verdicts() {
            for (verdict, count) in VERDICTS.into_iter().zip(counts) {
                raise(&self.verdicts.get_or_create(&VerdictLabels { code, verdict }), count);
            }
        }
        raise(&self.findings_refused, ledger.refused());
    }

    /// Takes over how the sources of the cluster stand.
    pub(crate) fn cluster(&self, cluster: &Cluster, now: WallNs) {
        for (source, standing) in cluster.sources() {
            if let Some(fresh_at) = standing.fresh_at {
                let age = Duration::from_nanos(u64::try_from(now.0.saturating_sub(fresh_at.0)).unwrap_or(0));
                self.cluster_age.get_or_create(&SourceLabels { source }).set(age.as_secs_f64());
            }
        }
        for (reason, count) in cluster.counts().by_reason() {
            raise(&self.cluster_left_out.get_or_create(&ReasonLabels { reason }), count);
        }
    }

    /// Takes over what became of Kubernetes events.
    pub(crate) fn kubernetes_events(&self, totals: impl IntoIterator<Item = (&'static str, u64)>) {
        for (outcome, total) in totals {
            raise(&self.kubernetes_events.get_or_create(&OutcomeLabels { outcome }), total);
        }
    }

    /// Takes over how the calls of the EC2 API stand.
    pub(crate) fn ec2(&self, ec2: &Ec2, now: WallNs) {
        for (call, standing) in ec2.calls() {
            if let Some(fresh_at) = standing.fresh_at {
                let age = Duration::from_nanos(u64::try_from(now.0.saturating_sub(fresh_at.0)).unwrap_or(0));
                self.ec2_age.get_or_create(&CallLabels { call }).set(age.as_secs_f64());
            }
            self.ec2_success.get_or_create(&CallLabels { call }).set(i64::from(standing.error.is_none()));
        }
    }

    /// Takes over a total of the books.
    pub(crate) fn records(&self, kind: &'static str, fate: &'static str, total: u64) {
        raise(&self.records.get_or_create(&RecordLabels { kind, fate }), total);
    }

    /// Takes over the totals of the history; `writable` when its last rows were stored.
    pub(crate) fn history(&self, stored: u64, lost: u64, bytes: u64, writable: bool) {
        for (fate, total) in [("stored", stored), ("lost", lost)] {
            raise(&self.history_rows.get_or_create(&HistoryLabels { fate }), total);
        }
        self.history_size.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.history_writable.set(i64::from(writable));
    }

    /// Takes over the totals of what takes rows that leave the node, by fate, and how old the oldest row is that waits.
    pub(crate) fn export(
        &self,
        sink: &'static str,
        totals: [(&'static str, u64); 3],
        oldest_age: Duration,
        works: bool,
    ) {
        self.export.set(sink, totals, oldest_age, works);
    }

    /// Says whether a probe is attached.
    pub(crate) fn probe(&self, probe: &'static str, attached: bool) {
        self.probes.get_or_create(&ProbeLabels { probe }).set(i64::from(attached));
    }

    /// Keeps the series of workloads that live on this node, silent or not.
    pub(crate) fn keep(&self, living: impl Iterator<Item = Identity>, now: BootNs) {
        let living: Vec<Identity> = living.collect();
        self.node.names(living.iter());
        let living = living.iter().map(Workload::of).collect();
        self.connections.keep(&living, now);
        self.bytes.keep(&living, now);
        self.retransmits.keep(&living, now);
        self.metadata.keep(&living, now);
        self.dns.keep(&living, now);
    }

    /// Lets the series go of workloads that were neither heard nor seen alive for [`series::IDLE_NS`].
    pub(crate) fn expire(&self, now: BootNs) {
        self.connections.expire(now, &self.budget);
        self.bytes.expire(now, &self.budget);
        self.retransmits.expire(now, &self.budget);
        self.metadata.expire(now, &self.budget);
        self.dns.expire(now, &self.budget);
        self.node.expire(now);
    }
}

/// Sets a counter to a total that only grows; a total read late never takes it back.
fn raise(counter: &Counter, total: u64) {
    let inner: &AtomicU64 = counter.inner();
    inner.fetch_max(total, Ordering::Relaxed);
}
