//! Rounds: the agent and the empty programs take turns, and who begins changes from round to round, for other users of the
//! machine come and go.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use system_tests::memory::{Charged, Memory};
use system_tests::usage::cpu_ns;
use system_tests::{Agent, Pod};

use crate::empty::{self, Empty};
use crate::figures::{AgentRun, Cpu, KernelRun, Part, Round, Scrape, Seen, Walk};
use crate::process::watch_start;
use crate::programs::{counts, since};
use crate::work::{FLOWS, Site, TUPLES};

/// The agent's default.
pub(crate) const FOLD_SECONDS: u64 = 10;
/// A fold, a walk and a reading of the counters fall into this time, whenever it begins.
pub(crate) const SETTLE: Duration = Duration::from_secs(FOLD_SECONDS + 2);
/// Idle seconds that are averaged.
const IDLE: Duration = Duration::from_secs(10);
/// Programs that the agent itself has the kernel run, on no hook.
const WALKS: [&str; 4] = ["baseline", "walk_tcp", "walk_udp", "walk_peers"];

/// Makes all rounds.
pub(crate) fn run(rounds: u32, connections: u32, object: &[u8]) -> Result<Vec<Round>> {
    let hooked = empty::programs(object)?;
    let with_agent = |round| {
        eprintln!("round {round}/{rounds}: with the agent");
        agent(connections, &hooked).with_context(|| format!("round {round} with the agent"))
    };
    let with_empty = |round| {
        eprintln!("round {round}/{rounds}: with empty programs");
        let _programs = Empty::attach(object)?;
        kernel(&Site::new()?, std::process::id(), connections, |_| Ok(()))
            .with_context(|| format!("round {round} with empty programs"))
    };
    (1..=rounds)
        .map(|round| {
            Ok(if round % 2 == 1 {
                let agent = with_agent(round)?;
                Round { agent, empty: with_empty(round)? }
            } else {
                let empty = with_empty(round)?;
                Round { agent: with_agent(round)?, empty }
            })
        })
        .collect()
}

/// What follows a kind of work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Nothing,
    Churn,
    Bulk,
    Datagrams,
}

/// Does each kind of work and counts what a process's programs did; `then` is called before the first and after each.
fn kernel(site: &Site, pid: u32, connections: u32, mut then: impl FnMut(Done) -> Result<()>) -> Result<KernelRun> {
    then(Done::Nothing)?;
    let churn = counted(pid, |part| site.churn(connections as usize, part))?;
    then(Done::Churn)?;
    let bulk = counted(pid, |part| site.bulk(part))?;
    then(Done::Bulk)?;
    let datagrams = counted(pid, |part| site.datagrams(TUPLES, part))?;
    then(Done::Datagrams)?;
    Ok(KernelRun { churn, bulk, datagrams })
}

/// Counts what a process's programs do in each part of some work.
fn counted(pid: u32, work: impl FnOnce(&mut dyn FnMut(f64) -> Result<()>) -> Result<()>) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut before = counts(pid)?;
    work(&mut |units| {
        let now = counts(pid)?;
        parts.push(Part { units, programs: since(&before, &now) });
        before = now;
        Ok(())
    })?;
    Ok(parts)
}

fn agent(connections: u32, hooked: &BTreeSet<String>) -> Result<AgentRun> {
    let started = Instant::now();
    let mut agent = Agent::launch("none", json!({ "fold_seconds": FOLD_SECONDS }))?;
    let pid = agent.pid();
    // Declared after the agent would mean removed before it ends.
    let charged = Charged::of(pid)?;
    let run = measure(&mut agent, charged.as_ref(), started, hooked, connections);
    agent.finish()?;
    run.with_context(|| format!("measure agent {pid}"))
}

fn measure(
    agent: &mut Agent,
    charged: Option<&Charged>,
    started: Instant,
    hooked: &BTreeSet<String>,
    connections: u32,
) -> Result<AgentRun> {
    let pid = agent.pid();
    let start = watch_start(pid, started, hooked.len())?;
    agent.wait_until_ready()?;
    for name in counts(pid)?.keys() {
        let compared = hooked.contains(name) || WALKS.contains(&name.as_str());
        ensure!(compared, "agent-ebpf has no empty program {name}: net figures would be wrong");
    }
    std::thread::sleep(SETTLE);
    let idle = Memory::of(pid, charged)?;
    let before = cpu_ns(pid)?;
    std::thread::sleep(IDLE);
    let idle_second_ns = (cpu_ns(pid)? - before) / IDLE.as_secs();

    let site = Site::new()?;
    let before = (cpu_ns(pid)?, counts(pid)?);
    let held = site.hold(FLOWS)?;
    std::thread::sleep(SETTLE);
    let flows_ns = cpu_ns(pid)? - before.0;
    let live = Memory::of(pid, charged)?;
    let walks = since(&before.1, &counts(pid)?).get("walk_tcp").copied().unwrap_or_default();
    site.release(held)?;
    // The end of the flows is not of the next work.
    std::thread::sleep(SETTLE);

    let workload = site.client_workload();
    let mut cpu = Cpu { idle_second_ns, churn_ns: 0, flows_ns, datagrams_ns: 0 };
    let mut seen = Seen { connections: 0.0, tuples: 0.0 };
    let (mut last_ns, mut last_seen) = (0, 0.0);
    let kernel = kernel(&site, pid, connections, |done| {
        if done != Done::Nothing {
            std::thread::sleep(SETTLE);
        }
        let now_ns = cpu_ns(pid)?;
        let now_seen = outbound(agent, &workload)?;
        match done {
            Done::Nothing | Done::Bulk => {}
            Done::Churn => (cpu.churn_ns, seen.connections) = (now_ns - last_ns, now_seen - last_seen),
            Done::Datagrams => (cpu.datagrams_ns, seen.tuples) = (now_ns - last_ns, now_seen - last_seen),
        }
        // Without what asking costs.
        (last_ns, last_seen) = (cpu_ns(pid)?, now_seen);
        Ok(())
    })?;

    let pods = site.pods()?;
    std::thread::sleep(SETTLE);
    let scrape = scrape(agent, &pods)?;
    let end = Memory::of(pid, charged)?;
    Ok(AgentRun {
        kernel,
        start,
        idle,
        live,
        end,
        cpu,
        walk: Walk { sockets: walks.count, time_ns: walks.time_ns },
        scrape,
        seen,
    })
}

/// Connections and UDP flows that ended well, as the agent counts them for a client.
fn outbound(agent: &Agent, workload: &str) -> Result<f64> {
    let labels = [("workload", workload), ("direction", "outbound"), ("outcome", "established")];
    Ok(agent.metrics()?.sum("sekisho_connections_total", &labels))
}

/// Scrapes an agent that knows some pods.
fn scrape(agent: &Agent, pods: &[Pod]) -> Result<Scrape> {
    let metrics = agent.metrics()?;
    for pod in pods {
        let workload = format!("pod-{}", pod.uid);
        let known = metrics.sum("sekisho_connections_total", &[("workload", &workload)]);
        ensure!(known > 0.0, "the agent has no metric of {workload}");
    }
    Scrape::of(agent)
}
