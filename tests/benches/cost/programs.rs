//! What the kernel counts of programs: runs and the time they took.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use system_tests::bpf::Objects;

/// Runs of a program.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Runs {
    /// How often it ran.
    pub(crate) count: u64,
    /// How long in all, nanoseconds, the clock's own 20 to 40 a run included.
    pub(crate) time_ns: u64,
}

/// Runs by program.
pub(crate) type Counts = BTreeMap<String, Runs>;

/// Runs of all programs of a process since they were loaded.
pub(crate) fn counts(pid: u32) -> Result<Counts> {
    let held = Objects::held_by(pid)?.programs;
    let mut counts = Counts::new();
    for info in aya::programs::loaded_programs() {
        // A program of somebody else may be gone between the listing and the look.
        let Ok(info) = info else { continue };
        if !held.contains(&info.id()) {
            continue;
        }
        let name = info.name_as_str().context("a program without a name")?.to_owned();
        let time_ns = u64::try_from(info.run_time().as_nanos()).context("a run time beyond 500 years")?;
        let runs = Runs { count: info.run_count(), time_ns };
        ensure!(counts.insert(name.clone(), runs).is_none(), "process {pid} has two programs {name}");
    }
    ensure!(!counts.is_empty(), "process {pid} holds no BPF program");
    Ok(counts)
}

/// What was added since an earlier look; programs that did not run are left out.
pub(crate) fn since(earlier: &Counts, later: &Counts) -> Counts {
    let mut grown = Counts::new();
    for (name, runs) in later {
        let before = earlier.get(name).copied().unwrap_or_default();
        let runs = Runs { count: runs.count - before.count, time_ns: runs.time_ns - before.time_ns };
        if runs.count > 0 {
            grown.insert(name.clone(), runs);
        }
    }
    grown
}
