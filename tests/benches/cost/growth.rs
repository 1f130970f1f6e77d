//! What the agent takes by how much there is to see: each kind of work at loads of ten times each other.
//!
//! Processor time is of the agent alone, from the work's begin until its rows are out, less what it takes in as many seconds
//! without work of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use system_tests::Agent;
use system_tests::memory::{Charged, Memory};
use system_tests::usage::cpu_by_thread;

use crate::figures::{Figure, number};
use crate::rounds::{FOLD_SECONDS, SETTLE};
use crate::work::{FLOWS, Site, TUPLES};

const CONNECTIONS: usize = 50_000;
const REQUESTS: usize = 5_000;
/// A load, and what is a tenth and a hundredth of it.
const STEPS: [usize; 3] = [100, 10, 1];
/// Idle seconds that are averaged.
const IDLE: Duration = Duration::from_secs(20);
/// The thread that writes the history.
const WRITER: &str = "history";

pub(crate) fn run() -> Result<Vec<Figure>> {
    eprintln!("growth: the agent by load");
    let mut agent = Agent::launch("none", json!({ "fold_seconds": FOLD_SECONDS }))?;
    // Declared after the agent would mean removed before it ends.
    let charged = Charged::of(agent.pid())?;
    let figures = measure(&mut agent, charged.as_ref());
    agent.finish()?;
    figures
}

fn measure(agent: &mut Agent, charged: Option<&Charged>) -> Result<Vec<Figure>> {
    agent.wait_until_ready()?;
    std::thread::sleep(SETTLE);
    let meter = Meter::new(agent.pid())?;
    let site = Site::new()?;
    let idle = Figure::once("growth/agent-cpu/idle", "agent CPU, idle, a second", "ms", meter.idle_ns_a_second / 1e6);
    let mut all = vec![idle];
    for step in STEPS.into_iter().rev() {
        let (http, flows, tuples, requests) =
            (CONNECTIONS * step / 100, FLOWS * step / 100, TUPLES * step / 100, REQUESTS * step / 100);
        let ((), spent) = meter.of(|| site.churn(http, |_| Ok(())))?;
        all.push(spent.figure("http", "HTTP connections, opened and closed", http, "connections"));

        let (held, spent) = meter.of(|| site.hold(flows))?;
        all.push(spent.figure("tcp-open", "TCP connections, opened and held", flows, "connections"));
        let resident = number(Memory::of(agent.pid(), charged)?.whole()) / 1e6;
        let resident = Figure::once("growth/resident", "resident with TCP connections open", "MB", resident);
        all.push(resident.under(flows as u64, "connections"));
        site.release(held)?;
        std::thread::sleep(SETTLE);

        let ((), spent) = meter.of(|| site.datagrams(tuples, |_| Ok(())))?;
        all.push(spent.figure("udp", "UDP 5-tuples, one exchange each", tuples, "5-tuples"));

        let before = rows(agent)?;
        let times = u32::try_from(requests).context("requests")?;
        let ((), spent) = meter.of(|| site.requests(times))?;
        all.push(spent.figure("metadata", "requests to the metadata service", requests, "requests"));
        let stored = rows(agent)? - before;
        if let Some(writer_ns) = spent.by_thread.get(WRITER).filter(|_| stored > 0.0) {
            let rate = stored * 1e9 / number(*writer_ns).max(1.0);
            let rate = Figure::once("growth/history-rows", "history rows written a second of CPU", "/s", rate);
            all.push(rate.under(requests as u64, "requests"));
        }
    }
    Ok(all)
}

/// Rows that the history stored so far.
fn rows(agent: &Agent) -> Result<f64> {
    Ok(agent.metrics()?.sum("sekisho_history_rows_total", &[("fate", "stored")]))
}

/// Measures processor time of a process.
struct Meter {
    pid: u32,
    /// In a second without work.
    idle_ns_a_second: f64,
}

/// Processor time of some work.
struct Spent {
    ns: f64,
    by_thread: BTreeMap<String, u64>,
}

impl Meter {
    fn new(pid: u32) -> Result<Self> {
        let (start, before) = (Instant::now(), cpu_by_thread(pid)?);
        std::thread::sleep(IDLE);
        let idle: u64 = grown(&before, &cpu_by_thread(pid)?).values().sum();
        Ok(Self { pid, idle_ns_a_second: number(idle) / start.elapsed().as_secs_f64() })
    }

    /// Has work done, and waits until all that follows from it is.
    fn of<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Spent)> {
        let (start, before) = (Instant::now(), cpu_by_thread(self.pid)?);
        let done = work()?;
        std::thread::sleep(SETTLE);
        let by_thread = grown(&before, &cpu_by_thread(self.pid)?);
        let all: u64 = by_thread.values().sum();
        // Below nothing when others on the machine were busier before: lost in the noise, and shown as that.
        let ns = number(all) - self.idle_ns_a_second * start.elapsed().as_secs_f64();
        Ok((done, Spent { ns, by_thread }))
    }
}

impl Spent {
    fn figure(&self, name: &str, what: &str, amount: usize, of: &'static str) -> Figure {
        let figure =
            Figure::once(&format!("growth/agent-cpu/{name}"), &format!("agent CPU: {what}"), "ms", self.ns / 1e6);
        figure.under(amount as u64, of)
    }
}

fn grown(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let since =
        |(name, ns): (&String, &u64)| (name.clone(), ns.saturating_sub(before.get(name).copied().unwrap_or_default()));
    after.iter().map(since).collect()
}
