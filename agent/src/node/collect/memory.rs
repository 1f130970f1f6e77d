//! Memory of the node, and how long tasks waited for it (pressure stall information).

use std::path::{Path, PathBuf};

use agent_core::capacity::{Collector, Counter, CounterName, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;
use procfs::{FromBufRead, Meminfo, MemoryPressure};

use super::{Error, Look, Roots, read};

/// Looks at memory.
pub(super) struct Memory {
    proc: PathBuf,
}

// === impl Memory ===

impl Memory {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { proc: roots.proc.clone() }
    }
}

impl Look for Memory {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let mut result = Ok(());
        match sample(&self.proc.join("meminfo")) {
            Ok(sample) => facts.push(HostFact::Samples { collector: Collector::Memory, samples: vec![sample] }),
            Err(error) => read::keep_first(&mut result, error),
        }
        match pressure(&self.proc.join("pressure/memory")) {
            Ok(counters) => facts.push(HostFact::Counters { collector: Collector::Memory, counters }),
            // A kernel without the accounting, or with it switched off.
            Err(error) if read::is_gone(&error) || is_off(&error) => {}
            Err(error) => read::keep_first(&mut result, error),
        }
        result
    }
}

/// What cannot be had without swapping is used: `MemTotal` less `MemAvailable`.
fn sample(path: &Path) -> Result<Sample, Error> {
    let info = Meminfo::from_buf_read(read::text(path)?.as_bytes())
        .map_err(|error| read::malformed(path, error.to_string()))?;
    let available = info.mem_available.ok_or_else(|| read::malformed(path, "no line of available memory"))?;
    Ok(Sample {
        resource: Resource::Memory,
        scope: Scope::Node,
        used: Some(info.mem_total.saturating_sub(available)),
        limit: Limit::Of(info.mem_total),
        source: "/proc/meminfo".into(),
    })
}

fn pressure(path: &Path) -> Result<Vec<Counter>, Error> {
    let pressure = MemoryPressure::from_buf_read(read::text(path)?.as_bytes())
        .map_err(|error| read::malformed(path, error.to_string()))?;
    let told = [
        (CounterName::MemoryStallMicros, pressure.some.total),
        (CounterName::MemoryFullStallMicros, pressure.full.total),
    ];
    Ok(told.map(|(name, value)| Counter { name, scope: Scope::Node, value }).into())
}

/// With `psi=0` the file is there and cannot be read.
fn is_off(error: &Error) -> bool {
    matches!(error, Error::Read { source, .. } if source.raw_os_error() == Some(libc::EOPNOTSUPP))
}
