//! What is shown of the rounds: medians, with the least and the greatest beside them.

mod neighbours;
mod spread;
mod tables;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::figures::{AgentRun, KernelRun, Part, Round, number};
use crate::memory::Memory;
use crate::programs::Runs;
use crate::report::spread::Spread;
use crate::work::{BULK_BYTES, FLOWS, PODS, TUPLES};

/// Programs that run because of processes and control groups, whoever makes them, and not because of the work.
const NOT_OF_THE_WORK: [&str; 5] = ["exec", "fork", "exit", "cgroup_mkdir", "cgroup_rmdir"];
/// Everything that was measured.
#[derive(Serialize)]
pub(crate) struct Report {
    schema: &'static str,
    connections: u32,
    tuples: usize,
    flows: usize,
    pods: usize,
    bulk_bytes: usize,
    kernel: Vec<Table>,
    aims: Vec<Aim>,
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

/// A figure, and what it should be at most.
#[derive(Serialize)]
struct Aim {
    what: String,
    unit: &'static str,
    measured: Spread,
    /// None where nothing is aimed at.
    at_most: Option<f64>,
    reached: Option<bool>,
}

/// How a kind of work is found in a run.
type Pick = fn(&KernelRun) -> &[Part];

impl Report {
    /// Makes the tables of some rounds.
    pub(crate) fn new(connections: u32, rounds: Vec<Round>) -> Result<Self> {
        ensure!(!rounds.is_empty(), "no rounds");
        let work: [(String, &'static str, Pick); 3] = [
            (format!("{connections} HTTP connections, 16 at a time"), "connection", |run| &run.churn),
            (format!("one TCP stream of {} GB", BULK_BYTES / 1_000_000_000), "MB", |run| &run.bulk),
            (format!("{TUPLES} UDP 5-tuples, one exchange each"), "datagram", |run| &run.datagrams),
        ];
        let kernel: Vec<Table> = work.into_iter().map(|(work, unit, pick)| table(work, unit, &rounds, pick)).collect();
        let aims = aims(connections, &kernel, &rounds);
        Ok(Self {
            schema: "sekisho-bench/1",
            connections,
            tuples: TUPLES,
            flows: FLOWS,
            pods: PODS,
            bulk_bytes: BULK_BYTES,
            kernel,
            aims,
            rounds,
        })
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

fn aims(connections: u32, kernel: &[Table], rounds: &[Round]) -> Vec<Aim> {
    let agent = |what: &str, unit, at_most, figure: fn(&AgentRun) -> f64| {
        Aim::new(what.to_owned(), unit, Spread::of(rounds.iter().map(|round| figure(&round.agent))), at_most)
    };
    let mut aims = Vec::new();
    for (table, (unit, scale, gross, net)) in kernel.iter().zip([
        ("us", 1e3, Some(2.2), Some(1.2)),
        ("ns", 1.0, Some(3_000.0), Some(500.0)),
        ("ns", 1.0, None, None),
    ]) {
        let what = |kind: &str| format!("kernel time a {}, {kind}", table.unit);
        aims.push(Aim::new(what("gross"), unit, table.gross_ns.scaled(1.0 / scale), gross));
        aims.push(Aim::new(what("net of empty programs"), unit, table.net_ns.scaled(1.0 / scale), net));
    }
    let at_most = 0.15 * f64::from(connections) / 50_000.0;
    let mut churn = agent("", "s", Some(at_most), |run| number(run.cpu.churn_ns) / 1e9);
    churn.what = format!("agent CPU, {connections} HTTP connections");
    aims.push(churn);
    aims.push(agent("agent CPU, 20,000 connections opened and held", "s", None, |run| number(run.cpu.flows_ns) / 1e9));
    aims.push(agent("agent CPU, 20,000 UDP 5-tuples", "s", None, |run| number(run.cpu.datagrams_ns) / 1e9));
    aims.push(agent("agent CPU, idle, a second", "ms", None, |run| number(run.cpu.idle_second_ns) / 1e6));
    aims.push(agent("kernel time of a walk, a socket looked at", "ns", None, |run| {
        number(run.walk.time_ns) / number(run.walk.sockets.max(1))
    }));
    aims.push(agent("resident, idle", "MB", None, |run| megabytes(run.idle.whole())));
    aims.extend(shares("  idle", rounds, |run| &run.idle));
    aims.push(agent("resident, 20,000 connections open", "MB", Some(32.0), |run| megabytes(run.live.whole())));
    aims.extend(shares("  live", rounds, |run| &run.live));
    aims.push(agent("resident, after all work", "MB", None, |run| megabytes(run.end.whole())));
    aims.push(agent("maps, idle", "MB", Some(8.0), |run| megabytes(run.idle.maps)));
    aims.push(agent("start to first program attached", "ms", Some(1_000.0), |run| run.start.first_attached_ms));
    aims.push(agent("start to all programs attached", "ms", None, |run| run.start.all_attached_ms));
    aims.push(agent("a scrape at 110 pods, CPU", "ms", Some(1.0), |run| number(run.scrape.cpu_ns) / 1e6));
    aims.push(agent("a scrape at 110 pods, size", "kB", None, |run| number(run.scrape.bytes as u64) / 1e3));
    aims.push(agent("a scrape at 110 pods, samples", "", None, |run| number(run.scrape.samples as u64)));
    aims.push(Aim::new(
        "HTTP connections counted, share".to_owned(),
        "%",
        Spread::of(rounds.iter().map(|round| round.agent.seen.connections / f64::from(connections) * 100.0)),
        None,
    ));
    aims.push(agent("UDP 5-tuples counted, share", "%", None, |run| run.seen.tuples / number(TUPLES as u64) * 100.0));
    aims
}

/// A share of a process's memory.
type Share = (&'static str, fn(&Memory) -> u64);

/// The shares of a process's memory, one line each.
fn shares(when: &str, rounds: &[Round], memory: fn(&AgentRun) -> &Memory) -> Vec<Aim> {
    let shares: [Share; 6] = [
        ("RssAnon", |memory| memory.anonymous),
        ("RssFile", |memory| memory.file),
        ("as much of RssFile as is mapped rings", |memory| memory.mapped_rings),
        ("RssShmem", |memory| memory.shared),
        ("maps as stated", |memory| memory.maps),
        ("kernel memory as charged", |memory| memory.kernel.unwrap_or(0)),
    ];
    shares
        .into_iter()
        .map(|(name, share)| {
            let measured = Spread::of(rounds.iter().map(|round| megabytes(share(memory(&round.agent)))));
            Aim::new(format!("{when}: {name}"), "MB", measured, None)
        })
        .collect()
}

fn megabytes(bytes: u64) -> f64 {
    number(bytes) / 1e6
}

impl Aim {
    fn new(what: String, unit: &'static str, measured: Spread, at_most: Option<f64>) -> Self {
        Self { what, unit, measured, at_most, reached: at_most.map(|most| measured.median <= most) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tables::write(self, f)
    }
}
