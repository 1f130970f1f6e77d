//! What is shown of the rounds: medians, with the least and the greatest beside them.

mod neighbours;
mod of_rounds;
mod spread;
mod tables;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use system_tests::machine::Machine;

use crate::figures::{Figure, KernelRun, Part, Round, number};
use crate::programs::Runs;
use crate::work::{BULK_BYTES, TUPLES};

pub(crate) use spread::Spread;

/// Programs that run because of processes and control groups, whoever makes them, and not because of the work.
const NOT_OF_THE_WORK: [&str; 5] = ["exec", "fork", "exit", "cgroup_mkdir", "cgroup_rmdir"];

/// Everything that was measured. `docs/performance/README.md` describes it.
#[derive(Serialize)]
pub(crate) struct Report {
    schema: &'static str,
    machine: Machine,
    connections: u32,
    figures: Vec<Figure>,
    kernel: Vec<Table>,
    rounds: Vec<Round>,
}

/// Programs during one kind of work.
#[derive(Serialize)]
struct Table {
    /// What the work was.
    work: String,
    /// What figures are for one of.
    unit: &'static str,
    programs: Vec<Row>,
    /// All of them but those that are not of the work.
    gross_ns: Spread,
    net_ns: Spread,
}

/// One program during one kind of work.
#[derive(Serialize)]
struct Row {
    program: String,
    /// Its runs are not of the work.
    apart: bool,
    runs: Spread,
    /// One run.
    run_ns: Spread,
    gross_ns: Spread,
    /// Less what the empty program took in the same round.
    net_ns: Spread,
}

/// How a kind of work is found in a run.
type Pick = fn(&KernelRun) -> &[Part];

impl Report {
    /// An empty one.
    pub(crate) fn new(connections: u32) -> Result<Self> {
        let (figures, kernel, rounds) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { schema: "sekisho-bench/2", machine: Machine::this()?, connections, figures, kernel, rounds })
    }

    /// Adds what was measured.
    pub(crate) fn add(&mut self, figures: Vec<Figure>) {
        self.figures.extend(figures);
    }

    /// Makes the tables of some rounds.
    pub(crate) fn add_rounds(&mut self, rounds: Vec<Round>) -> Result<()> {
        ensure!(!rounds.is_empty(), "no rounds");
        let work: [(String, &'static str, Pick); 3] = [
            (format!("{} HTTP connections, 16 at a time", self.connections), "connection", |run| &run.churn),
            (format!("one TCP stream of {} GB", BULK_BYTES / 1_000_000_000), "MB", |run| &run.bulk),
            (format!("{TUPLES} UDP 5-tuples, one exchange each"), "datagram", |run| &run.datagrams),
        ];
        self.kernel = work.into_iter().map(|(work, unit, pick)| table(work, unit, &rounds, pick)).collect();
        self.add(of_rounds::figures(self.connections, &self.kernel, &rounds));
        self.rounds = rounds;
        Ok(())
    }

    /// Writes it as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("encode the report")?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }
}

fn table(work: String, unit: &'static str, rounds: &[Round], pick: Pick) -> Table {
    let pairs: Vec<(&[Part], &[Part])> =
        rounds.iter().map(|round| (pick(&round.agent.kernel), pick(&round.empty))).collect();
    let mut names: Vec<&str> = pairs
        .iter()
        .flat_map(|(agent, _)| agent.iter().flat_map(|part| part.programs.keys().map(String::as_str)))
        .collect();
    names.sort_by_key(|name| (is_apart(name), *name));
    names.dedup();
    let programs = names
        .iter()
        .map(|name| {
            let of = |part: &Part| part.programs.get(*name).copied().unwrap_or_default();
            let gross = |part: &Part| number(of(part).time_ns) / part.units;
            Row {
                program: (*name).to_owned(),
                apart: is_apart(name),
                runs: Spread::of(
                    pairs.iter().map(|(agent, _)| median(agent.iter().map(|part| number(of(part).count) / part.units))),
                ),
                run_ns: Spread::of(pairs.iter().map(|(agent, _)| {
                    let ran = agent.iter().map(of).filter(|runs| runs.count > 0);
                    median(ran.map(|Runs { count, time_ns }| number(time_ns) / number(count)))
                })),
                gross_ns: Spread::of(pairs.iter().map(|(agent, _)| median(agent.iter().map(gross)))),
                net_ns: Spread::of(
                    pairs
                        .iter()
                        .map(|(agent, empty)| median(agent.iter().map(gross)) - median(empty.iter().map(gross))),
                ),
            }
        })
        .collect();
    let all = |part: &Part| -> f64 {
        let of_the_work = part.programs.iter().filter(|(name, _)| !is_apart(name));
        of_the_work.map(|(_, runs)| number(runs.time_ns)).sum::<f64>() / part.units
    };
    Table {
        work,
        unit,
        programs,
        gross_ns: Spread::of(pairs.iter().map(|(agent, _)| median(agent.iter().map(all)))),
        net_ns: Spread::of(
            pairs.iter().map(|(agent, empty)| median(agent.iter().map(all)) - median(empty.iter().map(all))),
        ),
    }
}

/// Whether a program runs because of processes and control groups.
fn is_apart(program: &str) -> bool {
    NOT_OF_THE_WORK.contains(&program)
}

/// Median of some parts' figures; 0 of none.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures = figures.peekable();
    if figures.peek().is_none() { 0.0 } else { Spread::of(figures).median }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tables::write(self, f)
    }
}
