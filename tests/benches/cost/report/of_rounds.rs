//! Figures of rounds: what programs take in the kernel, and the agent beside them.

use system_tests::memory::Memory;

use super::{Spread, Table};
use crate::figures::{AgentRun, Figure, Round, number};
use crate::work::{FLOWS, PODS, TUPLES};

pub(super) fn figures(connections: u32, kernel: &[Table], rounds: &[Round]) -> Vec<Figure> {
    let agent = |name: &str, what: &str, unit, figure: fn(&AgentRun) -> f64| {
        Figure::new(name, what, unit, Spread::of(rounds.iter().map(|round| figure(&round.agent))))
    };
    let mut all = of_kernel(kernel);
    let at_most = 0.15 * f64::from(connections) / 50_000.0;
    let mut churn = agent("", "", "s", |run| number(run.cpu.churn_ns) / 1e9).at_most(Some(at_most));
    churn.what = format!("agent CPU, {connections} HTTP connections");
    "rounds/agent-cpu/http".clone_into(&mut churn.name);
    let share = Spread::of(rounds.iter().map(|round| round.agent.seen.connections / f64::from(connections) * 100.0));
    all.extend([
        churn,
        agent("rounds/agent-cpu/tcp-open", "agent CPU, 20,000 connections opened and held", "s", |run| {
            number(run.cpu.flows_ns) / 1e9
        }),
        agent("rounds/agent-cpu/udp", "agent CPU, 20,000 UDP 5-tuples", "s", |run| number(run.cpu.datagrams_ns) / 1e9),
        agent("rounds/agent-cpu/idle", "agent CPU, idle, a second", "ms", |run| number(run.cpu.idle_second_ns) / 1e6)
            .at_most(Some(2.0)),
        agent("rounds/walk", "kernel time of a walk, a socket looked at", "ns", |run| {
            number(run.walk.time_ns) / number(run.walk.sockets.max(1))
        }),
        agent("rounds/resident/idle", "resident, idle", "MB", |run| megabytes(run.idle.whole())),
    ]);
    all.extend(shares("rounds/resident/idle", "  idle", rounds, |run| &run.idle));
    all.push(agent("rounds/resident/live", &format!("resident, {FLOWS} connections open"), "MB", |run| {
        megabytes(run.live.whole())
    }));
    all.extend(shares("rounds/resident/live", "  live", rounds, |run| &run.live));
    all.extend([
        agent("rounds/resident/end", "resident, after all work", "MB", |run| megabytes(run.end.whole())),
        agent("rounds/maps", "maps, idle", "MB", |run| megabytes(run.idle.maps)).at_most(Some(8.0)),
        agent("rounds/start/first", "start to first program attached", "ms", |run| run.start.first_attached_ms)
            .at_most(Some(300.0)),
        agent("rounds/start/all", "start to all programs attached", "ms", |run| run.start.all_attached_ms),
        agent("rounds/scrape/cpu", &format!("a scrape, {PODS} pods without names, CPU"), "ms", |run| {
            number(run.scrape.cpu_ns) / 1e6
        }),
        agent("rounds/scrape/size", &format!("a scrape, {PODS} pods without names, size"), "kB", |run| {
            number(run.scrape.bytes as u64) / 1e3
        }),
        agent("rounds/scrape/samples", &format!("a scrape, {PODS} pods without names, samples"), "", |run| {
            number(run.scrape.samples as u64)
        }),
        Figure::new("rounds/seen/http", "HTTP connections counted, share", "%", share),
        agent("rounds/seen/udp", "UDP 5-tuples counted, share", "%", |run| {
            run.seen.tuples / number(TUPLES as u64) * 100.0
        }),
    ]);
    all
}

/// Kernel time of each kind of work, and of each program in it.
fn of_kernel(kernel: &[Table]) -> Vec<Figure> {
    let mut all = Vec::new();
    for (table, (unit, scale, gross, net)) in kernel.iter().zip([
        ("us", 1e3, Some(2.2), Some(1.2)),
        ("ns", 1.0, Some(3_000.0), Some(500.0)),
        ("ns", 1.0, None, None),
    ]) {
        let name = |kind: &str| format!("kernel/{}/{kind}", table.unit.to_ascii_lowercase());
        let what = |kind: &str| format!("kernel time a {}, {kind}", table.unit);
        let scaled = |spread: Spread| spread.scaled(1.0 / scale);
        all.push(Figure::new(&name("gross"), &what("gross"), unit, scaled(table.gross_ns)).at_most(gross));
        all.push(Figure::new(&name("net"), &what("net of empty programs"), unit, scaled(table.net_ns)).at_most(net));
        for row in table.programs.iter().filter(|row| !row.apart) {
            let (name, what) = (|kind: &str| name(&format!("{}/{kind}", row.program)), what(&row.program));
            all.push(Figure::new(&name("runs"), &format!("{what}, runs"), "", row.runs).detail());
            all.push(Figure::new(&name("net"), &format!("{what}, net"), "ns", row.net_ns).detail());
        }
    }
    all
}

/// A share of a process's memory.
type Share = (&'static str, fn(&Memory) -> u64);

/// The shares of a process's memory, one line each.
fn shares(name: &str, when: &str, rounds: &[Round], memory: fn(&AgentRun) -> &Memory) -> Vec<Figure> {
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
        .map(|(share, of)| {
            let measured = Spread::of(rounds.iter().map(|round| megabytes(of(memory(&round.agent)))));
            let slug = share.to_ascii_lowercase().replace(' ', "-");
            Figure::new(&format!("{name}/{slug}"), &format!("{when}: {share}"), "MB", measured)
        })
        .collect()
}

fn megabytes(bytes: u64) -> f64 {
    number(bytes) / 1e6
}
