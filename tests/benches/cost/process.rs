//! How long a start takes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use system_tests::bpf::Objects;
use system_tests::scale;

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

/// Milliseconds until an agent's first program was attached.
pub(crate) fn first_attached(pid: u32, started: Instant) -> Result<f64> {
    watch_start(pid, started, 1).map(|start| start.first_attached_ms)
}

fn links(pid: u32) -> Result<BTreeSet<u32>> {
    Ok(Objects::held_by(pid).context("the agent ended at its start")?.links)
}
