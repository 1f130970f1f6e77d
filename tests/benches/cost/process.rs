//! What a process used and holds, from `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use system_tests::bpf::Objects;
use system_tests::scale;

/// CPU time of all threads of a process, nanoseconds. Threads that ended are not in it; the agent's stay.
pub(crate) fn cpu_ns(pid: u32) -> Result<u64> {
    let directory = format!("/proc/{pid}/task");
    let mut total = 0;
    for thread in fs::read_dir(&directory).with_context(|| format!("list {directory}"))? {
        let path = thread.context("list threads")?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let on_cpu = text.split_whitespace().next().context("an empty schedstat")?;
        total += on_cpu.parse::<u64>().with_context(|| format!("read {}", path.display()))?;
    }
    Ok(total)
}

/// How long an agent took to start, milliseconds since it was told to.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Start {
    /// Until the first program was attached.
    pub(crate) first_attached_ms: f64,
    /// Until all were.
    pub(crate) all_attached_ms: f64,
}

/// Watches an agent's links come. `expected`: names of programs that have one in the end.
pub(crate) fn watch_start(pid: u32, started: Instant, expected: usize) -> Result<Start> {
    let deadline = started + scale::deadline();
    let mut first = None;
    loop {
        let links = links(pid)?.len();
        let elapsed_ms = started.elapsed().as_secs_f64() * 1e3;
        if links > 0 && first.is_none() {
            first = Some(elapsed_ms);
        }
        if let Some(first_attached_ms) = first
            && links >= expected
        {
            return Ok(Start { first_attached_ms, all_attached_ms: elapsed_ms });
        }
        ensure!(Instant::now() < deadline, "the agent attached {links} of {expected} programs");
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn links(pid: u32) -> Result<BTreeSet<u32>> {
    Ok(Objects::held_by(pid).context("the agent ended at its start")?.links)
}
