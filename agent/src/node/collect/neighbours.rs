//! The neighbour tables (ARP and NDP). All network namespaces of the node share them, so a node with many pods fills them
//! for all; `gc_thresh3` is the hard end, past which no new neighbour can be spoken to.
//!
//! The kernel leaves permanent entries out when it compares with the threshold, and tells no count without them: what is
//! told here is at most that many too high.

use std::path::{Path, PathBuf};

use agent_core::capacity::{Collector, Counter, CounterName, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;

use super::table::PerCpu;
use super::{Error, Look, Roots, read};

/// Name of the table and where its thresholds stand below `/proc/sys/net`.
const TABLES: [(&str, &str); 2] = [("arp_cache", "ipv4"), ("ndisc_cache", "ipv6")];

/// Looks at the neighbour tables.
pub(super) struct Neighbours {
    proc: PathBuf,
}

/// One table.
struct Table {
    used: u64,
    limit: u64,
    full: Option<u64>,
    name: &'static str,
}

// === impl Neighbours ===

impl Neighbours {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { proc: roots.proc.clone() }
    }
}

impl Look for Neighbours {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let mut result = Ok(());
        let mut tables = Vec::new();
        for (name, family) in TABLES {
            match table(&self.proc, name, family) {
                Ok(table) => tables.push(table),
                // A kernel without IPv6 has one table.
                Err(error) if read::is_gone(&error) && family == "ipv6" => {}
                Err(error) => read::keep_first(&mut result, error),
            }
        }
        let full: Vec<u64> = tables.iter().filter_map(|table| table.full).collect();
        if !full.is_empty() {
            let value = full.iter().fold(0_u64, |sum, full| sum.saturating_add(*full));
            let counter = Counter { name: CounterName::NeighbourTableFull, scope: Scope::Node, value };
            facts.push(HostFact::Counters { collector: Collector::Neighbours, counters: vec![counter] });
        }
        let binding = tables.into_iter().min_by_key(|table| table.limit.saturating_sub(table.used));
        let sample = binding.map(|Table { used, limit, name, .. }| Sample {
            resource: Resource::NeighbourEntries,
            scope: Scope::Node,
            used: Some(used),
            limit: Limit::Of(limit),
            source: format!("{name}, gc_thresh3").into(),
        });
        facts.push(HostFact::Samples { collector: Collector::Neighbours, samples: sample.into_iter().collect() });
        result
    }
}

fn table(proc: &Path, name: &'static str, family: &str) -> Result<Table, Error> {
    let path = proc.join("self/net/stat").join(name);
    let text = read::text(&path)?;
    let counters = PerCpu::new(&path, &text)?;
    let used = counters.first("entries")?.ok_or_else(|| read::malformed(&path, "no column of entries"))?;
    let full = counters.sum("table_fulls")?;
    let limit = read::number(&proc.join("sys/net").join(family).join("neigh/default/gc_thresh3"))?;
    Ok(Table { used, limit, full, name })
}
