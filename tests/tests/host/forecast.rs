//! Limits that are foreseen before they are reached, and what stands still and is not. The usage goes up only after the agent
//! has seen the step before, so that a slow machine makes a slow test and not another result.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::{Value, json};
use system_tests::actor::Actor;
use system_tests::looks::PidsLimit;
use system_tests::node::{Node, NodePod, Wiring};
use system_tests::protocol::Op;
use system_tests::{Agent, scale};

/// Steps that fit under each limit: three times as many as a forecast needs readings.
const STEPS: u64 = 36;
/// A forecast may be off by this factor from the pace that the test itself saw: readings and steps do not fall together.
const FACTOR: f64 = 10.0;

/// A shell that starts one more process for each line, ended with its guard.
struct Forker {
    child: Child,
    lines: ChildStdin,
}

impl Forker {
    fn start(pod: &NodePod, limit: &PidsLimit) -> Result<Self> {
        let mut command = pod.container.command(&pod.network, Path::new("/bin/sh"))?;
        command.args(["-c", "while read line; do sleep 3600 & done"]);
        let null = || File::options().write(true).open("/dev/null").context("open /dev/null");
        let mut child =
            command.stdin(Stdio::piped()).stdout(null()?).stderr(null()?).spawn().context("start a shell")?;
        let lines = child.stdin.take().context("its input")?;
        let forker = Self { child, lines };
        limit.enter(forker.child.id())?;
        Ok(forker)
    }

    fn fork(&mut self) -> Result<()> {
        self.lines.write_all(b"one\n").context("tell the shell to start one more")
    }
}

impl Drop for Forker {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pod's row of a resource, as `sekisho capacity` shows it now.
fn row(agent: &Agent, resource: &str, pod: &str) -> Result<Option<Value>> {
    let output = agent.command(&["capacity", "-o", "json"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).context("capacity is JSON")?;
    let rows = answer["resources"].as_array().context("resources")?;
    let scope = format!("pod shop/{pod}");
    Ok(rows.iter().find(|row| row["resource"] == resource && row["scope"] == scope.as_str()).cloned())
}

/// Waits until as much is told to be used.
fn seen(agent: &Agent, resource: &str, pod: &str, used: u64) -> Result<Value> {
    let deadline = Instant::now() + scale::deadline();
    loop {
        let row = row(agent, resource, pod)?;
        if let Some(row) = row.as_ref().filter(|row| row["used"].as_u64() >= Some(used)) {
            return Ok(row.clone());
        }
        ensure!(Instant::now() < deadline, "{resource} of {pod} does not reach {used}: {row:?}");
        std::thread::sleep(scale::LOOK);
    }
}

fn limit_files(actor: &Actor, files: u64) -> Result<()> {
    let pid = Pid::from_raw(actor.pid().cast_signed()).context("a pid")?;
    rustix::process::prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(files), maximum: Some(files) })
        .context("limit its files")?;
    Ok(())
}

/// One resource that grows.
struct Growing {
    resource: &'static str,
    pod: &'static str,
    /// How much of it there was at first, and when.
    first: Option<(u64, Instant)>,
    foreseen: bool,
}

impl Growing {
    fn new(resource: &'static str, pod: &'static str) -> Self {
        Self { resource, pod, first: None, foreseen: false }
    }

    /// Looks at what the agent says after one more step.
    fn look(&mut self, agent: &Agent, least: u64) -> Result<()> {
        let row = seen(agent, self.resource, self.pod, least)?;
        let figure = |name: &str| row[name].as_u64().with_context(|| format!("{name}: {row}"));
        let (used, headroom) = (figure("used")?, figure("headroom")?);
        let (base, since) = *self.first.get_or_insert((used, Instant::now()));
        let Some(likely_s) = row["exhaustion_s"]["likely_s"].as_u64() else { return Ok(()) };
        if self.foreseen || used == base {
            return Ok(());
        }
        ensure!(headroom > 0, "{} of {} is used up and was not foreseen: {row}", self.resource, self.pod);
        let earliest_s = row["exhaustion_s"]["earliest_s"].as_u64().context("a range has two ends")?;
        ensure!(earliest_s <= likely_s, "{row}");
        let float = |figure: u64| u32::try_from(figure).map(f64::from).context("a small figure");
        let pace = float(used - base)? / since.elapsed().max(Duration::from_millis(1)).as_secs_f64();
        let expected = float(headroom)? / pace;
        // Whole seconds are told: one more or less is no fault.
        let told = float(likely_s)?;
        ensure!(
            told <= expected * FACTOR + 1.0 && told >= expected / FACTOR - 1.0,
            "{} of {}: {likely_s} s, and at the pace of this test it would be {expected:.1} s: {row}",
            self.resource,
            self.pod
        );
        println!("{} of {}: foreseen at {used}, {headroom} left: {likely_s} s", self.resource, self.pod);
        self.foreseen = true;
        Ok(())
    }
}

#[test]
fn what_grows_is_foreseen_before_its_end_and_what_stands_still_is_not() -> Result<()> {
    let mut node = Node::new()?;
    let database = node.pod("shop", "db-0", Wiring::Plain)?;
    let (forking, opening, calling, idle) = (
        node.pod("shop", "forks-0", Wiring::Plain)?,
        node.pod("shop", "opens-0", Wiring::Plain)?,
        node.pod("shop", "calls-0", Wiring::Plain)?,
        node.pod("shop", "idles-0", Wiring::Plain)?,
    );
    let threads = PidsLimit::new(&forking.container, u32::try_from(STEPS)? + 4)?;
    let mut forker = Forker::start(&forking, &threads)?;
    let (mut opener, mut caller, mut idler, mut server) =
        (opening.actor()?, calling.actor()?, idle.actor()?, database.actor()?);
    for actor in [&opener, &idler] {
        limit_files(actor, STEPS + 12)?;
    }
    // More than half full, so that it is among the rows that are shown, and it stays so.
    for number in 0..STEPS / 2 {
        idler.ask::<Value>(&Op::UdpBind { socket: format!("s{number}"), address: (idle.ip, 0).into() })?;
    }
    calling.network.sysctl("net/ipv4/ip_local_port_range", &format!("40000 {}", 40_000 + STEPS))?;
    let address = server.listen("listener", (database.ip, 5_432).into())?;
    // The fastest that is allowed: threads every half second, files and ports every one and a half.
    let agent = node.agent(json!({ "collect": { "cadence_percent": 5 } }))?;
    let files = seen(&agent, "open_files", "opens-0", 1)?["used"].as_u64().context("files")?;
    let tasks = seen(&agent, "threads", "forks-0", 1)?["used"].as_u64().context("threads")?;
    let mut growing = [
        Growing::new("threads", "forks-0"),
        Growing::new("open_files", "opens-0"),
        Growing::new("ephemeral_ports", "calls-0"),
    ];
    for step in 1..=STEPS {
        forker.fork()?;
        opener.ask::<Value>(&Op::UdpBind { socket: format!("s{step}"), address: (opening.ip, 0).into() })?;
        caller.connect(&format!("c{step}"), address)?;
        for (resource, least) in growing.iter_mut().zip([tasks + step, files + step, step]) {
            resource.look(&agent, least)?;
        }
        if growing.iter().all(|resource| resource.foreseen) {
            break;
        }
    }
    for Growing { resource, pod, foreseen, .. } in &growing {
        ensure!(
            foreseen,
            "{resource} of {pod} came near its end and nobody foresaw it: {:?}",
            row(&agent, resource, pod)?
        );
    }
    // What stood still all the while is as well watched by now, and its end is not told.
    let still = row(&agent, "open_files", "idles-0")?.context("a row of the idle pod")?;
    assert_eq!(still["exhaustion_s"], "not_growing", "{still}");
    drop(forker);
    // Its processes go with the pod, and the limit's groups after them.
    drop(forking);
    drop(threads);
    for actor in [opener, caller, idler, server] {
        actor.end()?;
    }
    Ok(())
}
