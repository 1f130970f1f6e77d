//! What the agent takes by how full its node is: pods with names, interfaces and processes of their own, each of which
//! connected, asked the metadata service, and shows in `/metrics`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::memory::{Charged, Memory};
use system_tests::metadata_server::Behaviour;
use system_tests::usage::cpu_ns;
use system_tests::{Actor, Agent, MetadataServer, Node, NodePod, Wiring, agent};

use crate::figures::{Figure, Scrape, number};
use crate::process::first_attached;
use crate::rounds::{FOLD_SECONDS, SETTLE};
use crate::work::{FLOWS, Held, PODS, ask_metadata};

/// Pods of a small, a usual and the fullest node.
const SIZES: [usize; 3] = [25, PODS, 250];
/// Idle processes of a pod.
const PROCESSES: usize = 20;
/// Looks at all ceilings; the first reads what later ones remember.
const LOOKS: &str = "4";
/// Seconds without traffic that are averaged: each ceiling is looked at in them.
const IDLE: Duration = Duration::from_secs(30);

/// Every ceiling is looked at within a minute.
const KNOWN_WITHIN: Duration = Duration::from_mins(3);

/// A process that ends with its guard.
struct Idle(Child);

impl Drop for Idle {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node and what is on it; what runs in a pod goes before the pod.
struct Full {
    idle: Vec<Idle>,
    server: Actor,
    address: SocketAddr,
    pods: Vec<NodePod>,
    server_pod: NodePod,
    _services: MetadataServer,
    node: Node,
    sleep: PathBuf,
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    let mut full = Full::new()?;
    let mut all = Vec::new();
    for size in SIZES {
        eprintln!("nodes: {size} pods");
        full.grow(size)?;
        all.extend(full.sweep()?);
        let launched = Instant::now();
        let mut agent = full.node.launch(json!({ "fold_seconds": FOLD_SECONDS }))?;
        // Declared after the agent would mean removed before it ends.
        let charged = Charged::of(agent.pid())?;
        let figures = full.measure(&mut agent, charged.as_ref(), launched);
        agent.finish()?;
        all.extend(figures?);
    }
    Ok(all)
}

impl Full {
    fn new() -> Result<Self> {
        let mut node = Node::new()?;
        let services = MetadataServer::start(&node.network, Behaviour::default())?;
        let server_pod = node.pod("load", "server", Wiring::Plain)?;
        let mut server = server_pod.actor()?;
        let address = server.serve_http(SocketAddr::from((server_pod.ip, 0)))?;
        let (idle, pods, sleep) = (Vec::new(), Vec::new(), which("sleep")?);
        Ok(Self { idle, server, address, pods, server_pod, _services: services, node, sleep })
    }

    /// Adds pods until there are so many, the serving one included.
    fn grow(&mut self, size: usize) -> Result<()> {
        for number in self.pods.len() + 1..size {
            let pod = self.node.pod("load", &format!("pod-{number}"), Wiring::Plain)?;
            for _ in 0..PROCESSES {
                let mut command = pod.container.command(&pod.network, &self.sleep)?;
                let quiet = command.arg("3600").stdin(Stdio::null()).stdout(Stdio::null());
                self.idle.push(Idle(quiet.spawn().context("start sleep")?));
            }
            self.pods.push(pod);
        }
        Ok(())
    }

    /// The processor time of looking at every ceiling of the node.
    fn sweep(&self) -> Result<Vec<Figure>> {
        let output = self.node.network.run(|| {
            let mut command = Command::new(agent::program()?);
            command.args(["internal", "looks", "--rounds", LOOKS]).output().context("run sekisho")
        })?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).context("looks are text")?;
        let lines: Vec<Value> =
            text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("looks are JSON")?;
        let veths = lines.iter().find_map(|line| line["Pods"].as_array()).context("no pods were told")?;
        let found = veths.iter().filter(|pod| !pod["veth"].is_null()).count();
        ensure!(found > self.pods.len(), "the interfaces of {found} pods were found");
        let rounds = lines.last().and_then(|line| line["rounds"].as_array()).context("no rounds")?;
        let ms = |round: &Value| round["cpu_us"].as_f64().map(|us| us / 1e3).context("a round without its cost");
        let (first, later) = rounds.split_first().context("no rounds")?;
        let later = later.iter().map(ms).collect::<Result<Vec<_>>>()?;
        let later = crate::report::Spread::of(later.into_iter());
        Ok(vec![
            self.figure("sweep/first", "a first look at all ceilings, CPU", "ms", ms(first)?),
            Figure::new("nodes/sweep/later", "a later look at all ceilings, CPU", "ms", later)
                .under(self.size(), "pods"),
        ])
    }

    fn measure(&self, agent: &mut Agent, charged: Option<&Charged>, launched: Instant) -> Result<Vec<Figure>> {
        let pid = agent.pid();
        let first_ms = first_attached(pid, launched)?;
        agent.wait_until_ready()?;
        for pod in &self.pods {
            let mut actor = pod.actor()?;
            actor.load_http(self.address, 1, 1)?;
            ask_metadata(&mut actor, 1)?;
            actor.end()?;
        }
        std::thread::sleep(SETTLE);
        self.wait_until_known(agent)?;
        let before = cpu_ns(pid)?;
        std::thread::sleep(IDLE);
        let idle_ms = number(cpu_ns(pid)? - before) / 1e6 / IDLE.as_secs_f64();
        let resident = || Ok::<_, anyhow::Error>(number(Memory::of(pid, charged)?.whole()) / 1e6);
        let mut all = vec![
            self.figure("start/first", "start to first program attached", "ms", first_ms).at_most(Some(300.0)),
            self.figure("agent-cpu/idle", "agent CPU, idle, a second", "ms", idle_ms).at_most(Some(2.0)),
            self.figure("resident/idle", "resident without traffic", "MB", resident()?),
        ];
        let Scrape { cpu_ns, bytes, samples } = Scrape::of(agent)?;
        // What is aimed at is aimed at for a usual node.
        let usual = |most: f64| (self.size() == PODS as u64).then_some(most);
        all.extend([
            self.figure("scrape/cpu", "a scrape, CPU", "ms", number(cpu_ns) / 1e6).at_most(usual(1.0)),
            self.figure("scrape/size", "a scrape, size", "kB", number(bytes as u64) / 1e3),
            self.figure("scrape/samples", "a scrape, samples", "", number(samples as u64)),
        ]);
        if let (Some(most), Some(client)) = (usual(32.0), self.pods.first()) {
            let actors = || Ok((client.actor()?, self.server_pod.actor()?));
            let held = Held::open(FLOWS, SocketAddr::from((self.server_pod.ip, 0)), actors)?;
            std::thread::sleep(SETTLE);
            let what = format!("resident with {FLOWS} connections open");
            all.push(self.figure("resident/live", &what, "MB", resident()?).at_most(Some(most)));
            held.close()?;
        }
        Ok(all)
    }

    /// Waits until each pod has the metrics of its interface, both ways.
    fn wait_until_known(&self, agent: &Agent) -> Result<()> {
        let deadline = Instant::now() + KNOWN_WITHIN;
        loop {
            let metrics = agent.metrics()?;
            let known = metrics.samples("sekisho_pod_network_bytes_total").count() / 2;
            if known > self.pods.len() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the agent has metrics of {known} pods after {KNOWN_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn figure(&self, name: &str, what: &str, unit: &'static str, measured: f64) -> Figure {
        Figure::once(&format!("nodes/{name}"), what, unit, measured).under(self.size(), "pods")
    }

    fn size(&self) -> u64 {
        self.pods.len() as u64 + 1
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        // The actor itself ends with its guard.
        if let Err(error) = self.server.stop_serving() {
            eprintln!("stop the server of the node: {error:#}");
        }
    }
}

fn which(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    let found = std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file());
    found.with_context(|| format!("no {program} in PATH"))
}
