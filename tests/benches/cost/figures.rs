//! What a round saw. Written to the JSON file as it is.

use serde::Serialize;

use crate::memory::Memory;
use crate::process::Start;
use crate::programs::Counts;

/// The same work with the agent and with empty programs.
#[derive(Serialize)]
pub(crate) struct Round {
    /// With the agent.
    pub(crate) agent: AgentRun,
    /// With empty programs.
    pub(crate) empty: KernelRun,
}

/// What programs did during each kind of work, part by part.
#[derive(Serialize)]
pub(crate) struct KernelRun {
    /// HTTP connections.
    pub(crate) churn: Vec<Part>,
    /// One stream; the unit is a megabyte of 1,000,000 bytes.
    pub(crate) bulk: Vec<Part>,
    /// UDP datagrams, each counted once although it has two ends.
    pub(crate) datagrams: Vec<Part>,
}

/// Programs during a part of some work.
#[derive(Serialize)]
pub(crate) struct Part {
    /// How much of it it was, in its unit.
    pub(crate) units: f64,
    /// Programs that ran.
    pub(crate) programs: Counts,
}

/// What the agent did and took.
#[derive(Serialize)]
pub(crate) struct AgentRun {
    /// Its programs.
    pub(crate) kernel: KernelRun,
    /// Its start.
    pub(crate) start: Start,
    /// Its memory before the work.
    pub(crate) idle: Memory,
    /// Its memory with all connections open.
    pub(crate) live: Memory,
    /// Its memory after all work, with what the work leaves for a minute (UDP peers) or for ever.
    pub(crate) end: Memory,
    /// Its CPU time.
    pub(crate) cpu: Cpu,
    /// A walk over all open flows, every ten seconds.
    pub(crate) walk: Walk,
    /// Its `/metrics`.
    pub(crate) scrape: Scrape,
    /// What it counted of the work.
    pub(crate) seen: Seen,
}

/// CPU nanoseconds of the agent, from the work's begin until its rows are out.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "units stand last in names, in the JSON too")]
pub(crate) struct Cpu {
    /// A second without work of its own (others' processes on this machine are seen all the same).
    pub(crate) idle_second_ns: u64,
    /// HTTP connections.
    pub(crate) churn_ns: u64,
    /// Connections opened and held.
    pub(crate) flows_ns: u64,
    /// UDP 5-tuples.
    pub(crate) datagrams_ns: u64,
}

/// Kernel time of looking at open sockets.
#[derive(Serialize)]
pub(crate) struct Walk {
    /// Sockets looked at.
    pub(crate) sockets: u64,
    /// In the programs, nanoseconds.
    pub(crate) time_ns: u64,
}

/// Scrapes of `/metrics`.
#[derive(Serialize)]
pub(crate) struct Scrape {
    /// CPU of one, nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Size of one.
    pub(crate) bytes: usize,
    /// Samples in one.
    pub(crate) samples: usize,
}

/// What the agent counted at the client's end.
#[derive(Serialize)]
pub(crate) struct Seen {
    /// HTTP connections, of as many as were made.
    pub(crate) connections: f64,
    /// UDP 5-tuples, of as many as there were.
    pub(crate) tuples: f64,
}

/// Counts here are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}
