//! Figures, and what a round saw. Written to the JSON file as they are.

use anyhow::Result;
use serde::Serialize;
use system_tests::Agent;

use crate::process::Start;
use crate::programs::Counts;
use crate::report::Spread;
use system_tests::memory::Memory;
use system_tests::usage::cpu_ns;

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

/// Scrapes that are averaged.
const SCRAPES: u64 = 50;

impl Scrape {
    /// Scrapes an agent many times.
    pub(crate) fn of(agent: &Agent) -> Result<Self> {
        let metrics = agent.metrics()?;
        let samples = metrics.text.lines().filter(|line| !line.starts_with('#')).count();
        let before = cpu_ns(agent.pid())?;
        for _ in 0..SCRAPES {
            agent.metrics()?;
        }
        let cpu_ns = (cpu_ns(agent.pid())? - before) / SCRAPES;
        Ok(Self { cpu_ns, bytes: metrics.text.len(), samples })
    }
}

/// Something that was measured, and what it should be at most.
#[derive(Clone, Serialize)]
pub(crate) struct Figure {
    /// What it is called in every result.
    pub(crate) name: String,
    /// What it is, for people.
    pub(crate) what: String,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// Under how much of which work, where it was measured under several loads.
    pub(crate) load: Option<Load>,
    /// The figure.
    pub(crate) measured: Spread,
    /// None where nothing is aimed at.
    pub(crate) at_most: Option<f64>,
    /// Whether the median is at most that.
    pub(crate) reached: Option<bool>,
    /// Shown where it stands in a table of its own.
    pub(crate) is_detail: bool,
}

/// How much work.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Load {
    /// How much.
    pub(crate) amount: u64,
    /// Of what: `connections`.
    pub(crate) of: &'static str,
}

impl Figure {
    /// One without load and aim.
    pub(crate) fn new(name: &str, what: &str, unit: &'static str, measured: Spread) -> Self {
        let (name, what) = (name.to_owned(), what.to_owned());
        Self { name, what, unit, load: None, measured, at_most: None, reached: None, is_detail: false }
    }

    /// One that was measured once.
    pub(crate) fn once(name: &str, what: &str, unit: &'static str, measured: f64) -> Self {
        Self::new(name, what, unit, Spread::of(std::iter::once(measured)))
    }

    pub(crate) fn under(self, amount: u64, of: &'static str) -> Self {
        Self { load: Some(Load { amount, of }), ..self }
    }

    pub(crate) fn at_most(self, most: Option<f64>) -> Self {
        Self { at_most: most, reached: most.map(|most| self.measured.median <= most), ..self }
    }

    pub(crate) fn detail(self) -> Self {
        Self { is_detail: true, ..self }
    }
}

/// Counts here are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}
