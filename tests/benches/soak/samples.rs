//! What the agent holds at a moment.

use std::fmt;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use system_tests::Agent;
use system_tests::memory::{Charged, Memory};
use system_tests::usage;

/// A look at the agent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// Seconds since the first.
    pub(crate) at_s: f64,
    /// Memory. What the kernel holds is what was charged since the agent was ready: what hangs on sockets, above all.
    pub(crate) memory: Memory,
    /// All of that together: the process, maps as stated, and what was charged.
    pub(crate) whole_bytes: u64,
    /// Open descriptors.
    pub(crate) descriptors: u64,
    /// Threads.
    pub(crate) threads: u64,
    /// The history on disk, and what else the agent keeps there.
    pub(crate) history_bytes: u64,
    /// Samples in a scrape.
    pub(crate) series: u64,
    /// Processor time so far, nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Records of all kinds, so far.
    pub(crate) seen: u64,
    /// Of them, on their way.
    pub(crate) pending: u64,
    /// Of them, lost.
    pub(crate) lost: u64,
    /// Whether the agent's books balance.
    pub(crate) balanced: bool,
}

/// Looks again and again.
pub(crate) struct Sampler<'a> {
    agent: &'a Agent,
    charged: Option<&'a Charged>,
    started: Option<Instant>,
}

impl<'a> Sampler<'a> {
    pub(crate) fn new(agent: &'a Agent, charged: Option<&'a Charged>) -> Self {
        Self { agent, charged, started: None }
    }

    pub(crate) fn take(&mut self) -> Result<Sample> {
        let Self { agent, charged, .. } = *self;
        let started = *self.started.get_or_insert_with(Instant::now);
        let pid = agent.pid();
        let memory = Memory::of(pid, charged).context("the agent is gone")?;
        let books = agent.books()?;
        let (mut seen, mut pending, mut lost) = (0, 0, 0);
        for book in books.all() {
            (seen, pending, lost) = (seen + book.seen, pending + book.pending, lost + book.lost());
        }
        let metrics = agent.metrics()?;
        Ok(Sample {
            at_s: started.elapsed().as_secs_f64(),
            whole_bytes: Memory { kernel: None, ..memory }.whole() + memory.kernel.unwrap_or(0),
            memory,
            descriptors: usage::descriptors(pid)?,
            threads: usage::threads(pid)?,
            history_bytes: usage::bytes_below(&agent.data_directory())?,
            series: metrics.text.lines().filter(|line| !line.starts_with('#')).count() as u64,
            cpu_ns: usage::cpu_ns(pid)?,
            seen,
            pending,
            lost,
            balanced: books.balanced,
        })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_s, whole_bytes, memory, descriptors, threads, history_bytes, series, cpu_ns, .. } = self;
        let megabytes = |bytes: u64| bytes / 1_000_000;
        write!(
            f,
            "{at_s:>6.0} s: {} MB ({} MB anonymous), {descriptors} descriptors, {threads} threads, history {} MB, {series} \
             series, {} ms of CPU, {} records seen, {} lost, {}",
            megabytes(*whole_bytes),
            megabytes(memory.anonymous),
            megabytes(*history_bytes),
            cpu_ns / 1_000_000,
            self.seen,
            self.lost,
            if self.balanced { "balanced" } else { "NOT balanced" },
        )
    }
}
