//! Metrics of the node's ceilings. What is known now replaces what was known before, so a series is there as long as its
//! source tells it; all are made when they are scraped.
//!
//! Arithmetic: a pod has up to seven series (threads and their limit, open files, bytes and packets both ways). Pods share
//! seven eighths of `metrics.max_series`: 375 pods with the default of 3,000. The node itself has at most
//! [`MAX_ROWS`] rows of three series, and 15 for each network card.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_core::capacity::{Collector, Counter, CounterName, Limit, Resource, Sample, Scope};
use agent_core::facts::{HostFact, LinkFacts};
use agent_core::output::{CapacityRow, Exhaustion, Identity, ResourceRow};
use agent_core::time::BootNs;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::catalogue;
use super::labels::{CollectorLabels, EnaLabels, EventLabels, PodLabels, ResourceLabels, TrafficLabels};
use super::series::IDLE_NS;

mod whole;

use whole::WHOLES;

/// Series of one pod.
const SERIES_PER_POD: usize = 7;
/// Rows of the node that become series: 26 resources, of which three or four have several scopes.
const MAX_ROWS: usize = 256;
/// Counters of one collector that are kept: those of 64 network cards are 320.
const MAX_COUNTERS: usize = 1_024;
const NANOSECONDS: f64 = 1e9;

/// What was told last. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Node(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    max_pods: usize,
    capacity: Option<CapacityRow>,
    collectors: BTreeMap<Collector, Standing>,
    /// By collector: what only grows.
    counters: BTreeMap<Collector, Vec<Counter>>,
    pods: HashMap<Arc<str>, Pod>,
    /// Pods that found no room since the last scrape was made.
    refused: u64,
    /// Counts of the node's side of each interface, by its index.
    links: HashMap<u32, Traffic>,
}

#[derive(Clone, Copy, Debug)]
struct Standing {
    /// `None`: the node has no such thing.
    success: Option<bool>,
    duration_ns: u64,
}

/// What is known of a pod, by its uid.
#[derive(Clone, Debug, Default)]
struct Pod {
    /// Namespace and name, once somebody told them.
    name: Option<PodLabels>,
    threads: Option<(u64, Limit)>,
    files: Option<(u64, Limit)>,
    /// Index of the node's side of its interface.
    veth: Option<u32>,
    /// Counts of its interface, as they stood last: also when it is gone.
    traffic: Option<Traffic>,
    /// Was told of last.
    last: BootNs,
}

/// Counts of an interface as the pod sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Traffic {
    egress_bytes: u64,
    egress_packets: u64,
    ingress_bytes: u64,
    ingress_packets: u64,
}

/// The value of a series.
enum Value {
    Count(u64),
    Level(f64),
}

/// One metric of what is known.
struct View<L> {
    node: Node,
    kind: MetricType,
    series: fn(&State) -> Vec<(L, Value)>,
}

// === impl Node ===

impl Node {
    pub(super) fn register(registry: &mut Registry, max_series: usize) -> Self {
        let node = Self(Arc::new(Mutex::new(State {
            max_pods: max_series * 7 / 8 / SERIES_PER_POD,
            capacity: None,
            collectors: BTreeMap::new(),
            counters: BTreeMap::new(),
            pods: HashMap::new(),
            refused: 0,
            links: HashMap::new(),
        })));
        catalogue::CAPACITY_USED.register(registry, node.gauge(|state| state.rows(|row| row.used)));
        catalogue::CAPACITY_LIMIT.register(registry, node.gauge(|state| state.rows(|row| row.limit)));
        for (metric, whole) in WHOLES {
            metric.register(registry, whole.of(&node));
        }
        catalogue::BINDING_RESOURCE.register(registry, node.gauge(State::binding));
        catalogue::EXHAUSTION.register(registry, node.gauge(State::exhaustion));
        catalogue::POD_THREADS.register(registry, node.gauge(|state| state.threads(|(used, _)| Some(used))));
        catalogue::POD_THREADS_LIMIT.register(
            registry,
            node.gauge(|state| {
                state.threads(|(_, limit)| match limit {
                    Limit::Of(limit) => Some(limit),
                    Limit::Unlimited | Limit::Unknown => None,
                })
            }),
        );
        catalogue::POD_OPEN_FILES.register(registry, node.gauge(State::open_files));
        catalogue::POD_BYTES.register(registry, node.counter(|state| state.traffic(Traffic::bytes)));
        catalogue::POD_PACKETS.register(registry, node.counter(|state| state.traffic(Traffic::packets)));
        catalogue::ENA_EXCEEDED.register(registry, node.counter(State::ena));
        catalogue::CAPACITY_EVENTS.register(registry, node.counter(State::events));
        catalogue::COLLECTOR_SUCCESS.register(registry, node.gauge(State::successes));
        catalogue::COLLECTOR_DURATION.register(registry, node.gauge(State::durations));
        node
    }

    /// Takes over a capacity row.
    pub(super) fn capacity(&self, row: &CapacityRow) {
        self.lock().capacity = Some(row.clone());
    }

    /// Takes over what a look at the node told; how many pods found no room.
    pub(super) fn host(&self, fact: &HostFact, now: BootNs) -> u64 {
        let mut state = self.lock();
        match fact {
            HostFact::Links(links) => state.links(links),
            HostFact::Pods(pods) => {
                for pod in pods {
                    let traffic = pod.veth.and_then(|index| state.links.get(&index).copied());
                    state.with_pod(&pod.uid, now, |entry| {
                        entry.veth = pod.veth;
                        entry.traffic = traffic.or(entry.traffic);
                    });
                }
            }
            HostFact::Samples { collector: Collector::Threads, samples } => {
                state.gauges(samples, Resource::Threads, now, |pod| &mut pod.threads);
            }
            HostFact::Samples { collector: Collector::OpenFiles, samples } => {
                state.gauges(samples, Resource::OpenFiles, now, |pod| &mut pod.files);
            }
            HostFact::Counters { collector, counters } => {
                state.counters.insert(*collector, counters.iter().take(MAX_COUNTERS).cloned().collect());
            }
            HostFact::Collector { collector, error, absent, duration_ns } => {
                let success = (!absent).then_some(error.is_none());
                state.collectors.insert(*collector, Standing { success, duration_ns: *duration_ns });
            }
            HostFact::Samples { .. }
            | HostFact::Ipam(_)
            | HostFact::InstanceType { .. }
            | HostFact::Backends(_)
            | HostFact::TcpEarlyDemux(_) => {}
        }
        std::mem::take(&mut state.refused)
    }

    /// Takes over the names of pods that live.
    pub(super) fn names<'a>(&self, living: impl Iterator<Item = &'a Identity>) {
        let mut state = self.lock();
        for identity in living.filter(|identity| !identity.uid.is_empty()) {
            if let Some(pod) = state.pods.get_mut(identity.uid.as_str()) {
                let name = if identity.pod.is_empty() { &identity.workload } else { &identity.pod };
                pod.name = Some(PodLabels { namespace: identity.namespace.as_str().into(), pod: name.as_str().into() });
            }
        }
    }

    /// Lets pods go that were not told of for a while. Two minutes are four scrapes of the usual 30 s.
    pub(super) fn expire(&self, now: BootNs) {
        self.lock().pods.retain(|_, pod| now.since(pod.last) < IDLE_NS);
    }

    fn gauge<L>(&self, series: fn(&State) -> Vec<(L, Value)>) -> View<L> {
        View { node: self.clone(), kind: MetricType::Gauge, series }
    }

    fn counter<L>(&self, series: fn(&State) -> Vec<(L, Value)>) -> View<L> {
        View { node: self.clone(), kind: MetricType::Counter, series }
    }

    /// Nothing panics while it holds the lock, and the state is whole at every step: a poisoned lock is as good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State: what is told ===

impl State {
    fn with_pod(&mut self, uid: &Arc<str>, now: BootNs, change: impl FnOnce(&mut Pod)) {
        if !self.pods.contains_key(uid) && self.pods.len() >= self.max_pods {
            self.refused += 1;
            return;
        }
        let pod = self.pods.entry(Arc::clone(uid)).or_default();
        pod.last = pod.last.max(now);
        change(pod);
    }

    fn links(&mut self, links: &[LinkFacts]) {
        self.links = links.iter().map(|link| (link.index, link.into())).collect();
        for pod in self.pods.values_mut() {
            let traffic = pod.veth.and_then(|index| self.links.get(&index).copied());
            pod.traffic = traffic.or(pod.traffic);
        }
    }

    /// A look tells all pods: one that it does not tell has no figure any more.
    fn gauges(
        &mut self,
        samples: &[Sample],
        resource: Resource,
        now: BootNs,
        place: fn(&mut Pod) -> &mut Option<(u64, Limit)>,
    ) {
        for pod in self.pods.values_mut() {
            *place(pod) = None;
        }
        for sample in samples.iter().filter(|sample| sample.resource == resource) {
            if let (Scope::Pod(uid), Some(used)) = (&sample.scope, sample.used) {
                self.with_pod(uid, now, |pod| *place(pod) = Some((used, sample.limit)));
            }
        }
    }
}

// === impl State: what is shown ===

impl State {
    /// Rows that are not a pod's: those have metrics of their own.
    fn node_rows(&self) -> impl Iterator<Item = &ResourceRow> {
        let rows = self.capacity.iter().flat_map(|row| &row.resources);
        rows.filter(|row| !row.scope.starts_with("pod ")).take(MAX_ROWS)
    }

    fn rows(&self, figure: fn(&ResourceRow) -> Option<u64>) -> Vec<(ResourceLabels, Value)> {
        let series = |row: &ResourceRow| Some((ResourceLabels::of(row), Value::level(figure(row)?)));
        self.node_rows().filter_map(series).collect()
    }

    fn binding(&self) -> Vec<([(&'static str, &'static str); 1], Value)> {
        let binding = self.capacity.as_ref().and_then(|row| row.binding_resource);
        binding.map(|resource| ([("resource", resource.name())], Value::Level(1.0))).into_iter().collect()
    }

    fn exhaustion(&self) -> Vec<(ResourceLabels, Value)> {
        let series = |row: &ResourceRow| {
            let seconds = match row.exhaustion_s {
                Exhaustion::NotGrowing => Value::Level(f64::INFINITY),
                Exhaustion::Range { likely_s, .. } => Value::level(likely_s),
                Exhaustion::CannotTell => return None,
            };
            Some((ResourceLabels::of(row).without_unit(), seconds))
        };
        self.node_rows().filter_map(series).collect()
    }

    /// Pods that have a name, each name once: of a pod that came again under its name, the one that was told last.
    fn named(&self) -> impl Iterator<Item = (&PodLabels, &Pod)> {
        let mut by_name: BTreeMap<&PodLabels, &Pod> = BTreeMap::new();
        for pod in self.pods.values() {
            let Some(name) = &pod.name else { continue };
            let latest = by_name.entry(name).or_insert(pod);
            if pod.last > latest.last {
                *latest = pod;
            }
        }
        by_name.into_iter()
    }

    fn threads(&self, figure: fn((u64, Limit)) -> Option<u64>) -> Vec<(PodLabels, Value)> {
        let series = |(name, pod): (&PodLabels, &Pod)| Some((name.clone(), Value::level(figure(pod.threads?)?)));
        self.named().filter_map(series).collect()
    }

    fn open_files(&self) -> Vec<(PodLabels, Value)> {
        let ratio = |(name, pod): (&PodLabels, &Pod)| match pod.files? {
            (used, Limit::Of(limit)) if limit > 0 => Some((name.clone(), Value::Level(float(used) / float(limit)))),
            _ => None,
        };
        self.named().filter_map(ratio).collect()
    }

    fn traffic(&self, figure: fn(&Traffic) -> (u64, u64)) -> Vec<(TrafficLabels, Value)> {
        let both = |(name, pod): (&PodLabels, &Pod)| {
            let (egress, ingress) = figure(pod.traffic.as_ref()?);
            let series = |direction, count| (TrafficLabels { pod: name.clone(), direction }, Value::Count(count));
            Some([series("egress", egress), series("ingress", ingress)])
        };
        self.named().filter_map(both).flatten().collect()
    }

    fn ena(&self) -> Vec<(EnaLabels, Value)> {
        let counters = self.counters.get(&Collector::Ena).into_iter().flatten();
        let series = |counter: &Counter| {
            let Scope::Interface(interface) = &counter.scope else { return None };
            let labels = EnaLabels { interface: Arc::clone(interface), allowance: allowance(counter.name)? };
            Some((labels, Value::Count(counter.value)))
        };
        counters.filter_map(series).collect()
    }

    fn events(&self) -> Vec<(EventLabels, Value)> {
        let counters = self.counters.values().flatten().filter(|counter| counter.scope == Scope::Node);
        let series =
            |counter: &Counter| Some((EventLabels { event: event(counter.name)? }, Value::Count(counter.value)));
        counters.filter_map(series).collect()
    }

    fn successes(&self) -> Vec<(CollectorLabels, Value)> {
        let series = |(collector, standing): (&Collector, &Standing)| {
            let value = if standing.success? { 1.0 } else { 0.0 };
            Some((CollectorLabels { collector: collector.name() }, Value::Level(value)))
        };
        self.collectors.iter().filter_map(series).collect()
    }

    fn durations(&self) -> Vec<(CollectorLabels, Value)> {
        let series = |(collector, standing): (&Collector, &Standing)| {
            let labels = CollectorLabels { collector: collector.name() };
            (labels, Value::Level(float(standing.duration_ns) / NANOSECONDS))
        };
        self.collectors.iter().map(series).collect()
    }
}

// === impl Traffic ===

impl Traffic {
    fn bytes(&self) -> (u64, u64) {
        (self.egress_bytes, self.ingress_bytes)
    }

    fn packets(&self) -> (u64, u64) {
        (self.egress_packets, self.ingress_packets)
    }
}

impl From<&LinkFacts> for Traffic {
    /// What the node's side receives the pod sent.
    fn from(link: &LinkFacts) -> Self {
        Self {
            egress_bytes: link.received_bytes,
            egress_packets: link.received_packets,
            ingress_bytes: link.sent_bytes,
            ingress_packets: link.sent_packets,
        }
    }
}

// === impl View ===

impl<L> std::fmt::Debug for View<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl<L: EncodeLabelSet + 'static> EncodeMetric for View<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        let series = (self.series)(&self.node.lock());
        for (labels, value) in &series {
            let mut encoder = encoder.encode_family(labels)?;
            match value {
                Value::Count(count) => encoder.encode_counter::<NoLabelSet, _, u64>(count, None)?,
                Value::Level(level) => encoder.encode_gauge(level)?,
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        self.kind
    }
}

// === impl Value ===

impl Value {
    fn level(value: u64) -> Self {
        Self::Level(float(value))
    }
}

#[expect(clippy::cast_precision_loss, reason = "53 bits are 9 petabytes")]
fn float(value: u64) -> f64 {
    value as f64
}

/// The allowance that an ENA counter is about, as the driver calls it.
fn allowance(name: CounterName) -> Option<&'static str> {
    Some(match name {
        CounterName::BandwidthInExceeded => "bw_in",
        CounterName::BandwidthOutExceeded => "bw_out",
        CounterName::PacketsExceeded => "pps",
        CounterName::ConntrackExceeded => "conntrack",
        CounterName::LinklocalExceeded => "linklocal",
        _ => return None,
    })
}

/// What a counter of the node counts, where that is events.
fn event(name: CounterName) -> Option<&'static str> {
    Some(match name {
        CounterName::ConntrackDrop => "conntrack_drop",
        CounterName::ConntrackInsertFailed => "conntrack_insert_failed",
        CounterName::NeighbourTableFull => "neighbour_table_full",
        CounterName::ListenDrops => "listen_drop",
        CounterName::ListenOverflows => "listen_overflow",
        CounterName::IcmpTimeExceeded => "icmp_time_exceeded",
        CounterName::NoAvailableAddress => "no_available_address",
        CounterName::Ec2CallsFailed => "ec2_call_failed",
        CounterName::SubnetFull => "subnet_full",
        _ => return None,
    })
}
