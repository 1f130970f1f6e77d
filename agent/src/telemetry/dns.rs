//! How the DNS queries of workloads fare. Names never become labels.

use std::collections::HashSet;
use std::fmt::Error;
use std::sync::atomic::AtomicU64;

use agent_core::dns::{Counts, Outcome, Tally};
use agent_core::time::BootNs;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{WithWorkload, Workload, put};
use super::series::{Budget, WorkloadCounters};
use super::{catalogue, raise};

/// All metrics of DNS.
#[derive(Default)]
pub(super) struct Dns {
    queries: WorkloadCounters<QueryLabels>,
    search_waste: WorkloadCounters<WasteLabels>,
    unmatched: Counter,
    unreadable: Counter,
    names: Gauge<u64, AtomicU64>,
    names_dropped: Counter,
}

/// Of `sekisho_dns_queries_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct QueryLabels {
    workload: Workload,
    outcome: Outcome,
}

/// Of `sekisho_dns_search_waste_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct WasteLabels {
    workload: Workload,
}

// === impl Dns ===

impl Dns {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let dns = Self::default();
        catalogue::DNS_QUERIES.register(registry, dns.queries.clone());
        catalogue::DNS_SEARCH_WASTE.register(registry, dns.search_waste.clone());
        catalogue::DNS_UNMATCHED.register(registry, dns.unmatched.clone());
        catalogue::DNS_UNREADABLE.register(registry, dns.unreadable.clone());
        catalogue::DNS_NAMES.register(registry, dns.names.clone());
        catalogue::DNS_NAMES_DROPPED.register(registry, dns.names_dropped.clone());
        dns
    }

    /// Adds the counts of a workload; returns by metric how many of them went to `other` for want of room.
    pub(super) fn add(
        &self,
        workload: Workload,
        tally: &Tally,
        now: BootNs,
        budget: &Budget,
    ) -> [(&'static str, u64); 2] {
        let mut refused = [(catalogue::DNS_QUERIES.sample, 0), (catalogue::DNS_SEARCH_WASTE.sample, 0)];
        let [queries, waste] = &mut refused;
        for outcome in Outcome::ALL.iter().copied().filter(|outcome| tally.of(*outcome) > 0) {
            let labels = QueryLabels { workload: workload.clone(), outcome };
            queries.1 += u64::from(!self.queries.add(labels, tally.of(outcome), now, budget));
        }
        if tally.search_waste > 0 {
            waste.1 += u64::from(!self.search_waste.add(WasteLabels { workload }, tally.search_waste, now, budget));
        }
        refused
    }

    /// Takes over the counts of the node.
    pub(super) fn node(&self, counts: Counts, names: usize) {
        let Counts { unreadable, unmatched, names_let_go } = counts;
        raise(&self.unmatched, unmatched);
        raise(&self.unreadable, unreadable);
        raise(&self.names_dropped, names_let_go);
        self.names.set(names as u64);
    }

    pub(super) fn keep(&self, living: &HashSet<Workload>, now: BootNs) {
        self.queries.keep(living, now);
        self.search_waste.keep(living, now);
    }

    pub(super) fn expire(&self, now: BootNs, budget: &Budget) {
        self.queries.expire(now, budget);
        self.search_waste.expire(now, budget);
    }
}

// === label sets ===

impl WithWorkload for QueryLabels {
    fn workload(&self) -> &Workload {
        &self.workload
    }

    fn overflow(self) -> Self {
        Self { workload: Workload::other(), ..self }
    }
}

impl EncodeLabelSet for QueryLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { workload, outcome } = self;
        workload.encode(encoder)?;
        put(encoder, "outcome", outcome.name())
    }
}

impl WithWorkload for WasteLabels {
    fn workload(&self) -> &Workload {
        &self.workload
    }

    fn overflow(self) -> Self {
        Self { workload: Workload::other() }
    }
}

impl EncodeLabelSet for WasteLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { workload } = self;
        workload.encode(encoder)
    }
}
