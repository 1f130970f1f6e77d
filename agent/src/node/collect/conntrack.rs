//! The kernel's connection tracking table: how full it is, and what it refused.

use std::path::{Path, PathBuf};

use agent_core::capacity::{Collector, Counter, CounterName, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;

use super::table::PerCpu;
use super::{Error, Look, Roots, read};

/// Looks at `nf_conntrack`.
pub(super) struct Conntrack {
    proc: PathBuf,
}

// === impl Conntrack ===

impl Conntrack {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { proc: roots.proc.clone() }
    }
}

impl Look for Conntrack {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let sysctl = self.proc.join("sys/net/netfilter");
        let count = sysctl.join("nf_conntrack_count");
        let used = read::text_or_absent(&count, "the kernel tracks no connections here")?;
        let used = read::parse(&count, used.trim())?;
        // 0 is "no limit" to the kernel.
        let limit = match read::number(&sysctl.join("nf_conntrack_max"))? {
            0 => Limit::Unlimited,
            max => Limit::Of(max),
        };
        facts.push(HostFact::Samples {
            collector: Collector::Conntrack,
            samples: vec![Sample {
                resource: Resource::ConntrackEntries,
                scope: Scope::Node,
                used: Some(used),
                limit,
                source: "nf_conntrack_count, nf_conntrack_max".into(),
            }],
        });
        facts.push(HostFact::Counters {
            collector: Collector::Conntrack,
            counters: counters(&self.proc.join("self/net/stat/nf_conntrack"))?,
        });
        Ok(())
    }
}

fn counters(path: &Path) -> Result<Vec<Counter>, Error> {
    let text = read::text(path)?;
    let table = PerCpu::new(path, &text)?;
    // What was dropped, and what was thrown out early to make room. Not all that is dropped is for lack of room; the core
    // looks at both figures.
    let dropped = table.sum("drop")?.map(|drop| Ok(drop.saturating_add(table.sum("early_drop")?.unwrap_or(0))));
    let told = [
        (CounterName::ConntrackDrop, dropped.transpose()?),
        (CounterName::ConntrackInsertFailed, table.sum("insert_failed")?),
    ];
    let counters =
        told.into_iter().filter_map(|(name, value)| Some(Counter { name, scope: Scope::Node, value: value? }));
    Ok(counters.collect())
}
