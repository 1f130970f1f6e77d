//! What the agents of many nodes cost an API server: requests and CPU time, at rest and while pods change.
//!
//! `cargo run --package system-tests --example watchers -- --nodes 200`
//!
//! One process runs the agent's part that follows the cluster once for each node, under the shipped role. The same pods
//! change at the same pace without it and with it, so that what the changes themselves cost is told apart. Needs what
//! `cargo xtask setup --for cluster` builds and a program from `cargo xtask build --release`. It judges nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Deserialize;
use system_tests::agent;
use system_tests::kube::{Server, manifests};
use system_tests::metrics::Metrics;

/// Namespaces that the pods are spread over.
const NAMESPACES: usize = 20;

/// Time within which the watchers begin with everything but pods, and for the last ones to be done.
const JITTER: Duration = Duration::from_mins(1);
const SETTLE: Duration = Duration::from_secs(10);

/// For all watchers to know their pods.
const READY: Duration = Duration::from_mins(5);

/// What is measured.
#[derive(Parser)]
struct Arguments {
    /// Nodes, each followed as by an agent of its own.
    #[arg(long, default_value_t = 200)]
    nodes: u32,
    /// Pods of the whole cluster.
    #[arg(long, default_value_t = 5_000)]
    pods: usize,
    /// Pods whose status changes, a second.
    #[arg(long, default_value_t = 20)]
    changes: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Everything that one measurement needs.
struct Bench {
    server: Server,
    arguments: Arguments,
    pods: Vec<String>,
    changed: usize,
}

/// What a stretch of time cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Requests that ended.
    requests: f64,
    /// CPU time of the API server.
    server: Duration,
    /// CPU time of the watchers.
    watchers: Duration,
    lasted: Duration,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = tempfile::tempdir().context("make a directory")?;
    let mut bench =
        Bench { server: Server::start(&home.path().join("plane"))?, pods: Vec::new(), changed: 0, arguments };
    bench.fill()?;
    let rest = bench.measure(None, false)?;
    let busy = bench.measure(None, true)?;

    let begun = bench.look(None)?;
    let started = Instant::now();
    let mut watchers = Watchers::start(&bench, home.path())?;
    watchers.wait_for(bench.arguments.pods)?;
    let took = started.elapsed();
    std::thread::sleep((JITTER + SETTLE).saturating_sub(took));
    let first = bench.look(Some(&watchers))?.since(&begun, started.elapsed());
    bench.show(&format!("start with {JITTER:?} of jitter, all pods known after {took:.1?}"), &first, None);
    let rest_watched = bench.measure(Some(&watchers), false)?;
    bench.show("at rest", &rest_watched, Some(&rest));
    let busy_watched = bench.measure(Some(&watchers), true)?;
    bench.show(&format!("{} pods change a second", bench.arguments.changes), &busy_watched, Some(&busy));
    let resident = resident_kib(watchers.child.id())?;
    println!(
        "watchers: {:.1} MiB resident in all, {:.1} KiB for each node",
        f64::from(resident) / 1024.0,
        f64::from(resident.saturating_sub(watchers.first_kib)) / f64::from(bench.arguments.nodes)
    );
    Ok(())
}

impl Bench {
    /// Nodes, namespaces with a policy each, and pods that run.
    fn fill(&mut self) -> Result<()> {
        let Arguments { nodes, pods, .. } = self.arguments;
        let nodes = usize::try_from(nodes).context("count nodes")?;
        self.server.define_aws_objects()?;
        self.server.install_role()?;
        let admin = &self.server.admin;
        admin.create_all((0..nodes).map(|n| manifests::node(&node(n))).collect())?;
        for n in 0..NAMESPACES {
            self.server.make_namespace(&namespace(n))?;
            admin.apply(&manifests::security_group_policy(&namespace(n), "policy", "none", &["sg-1"]))?;
        }
        let pod = |n| manifests::pod(&namespace(n % NAMESPACES), &format!("pod-{n}"), &node(n % nodes));
        admin.create_all((0..pods).map(pod).collect())?;
        self.pods =
            (0..pods).map(|n| format!("/api/v1/namespaces/{}/pods/pod-{n}", namespace(n % NAMESPACES))).collect();
        let status =
            |(n, path): (usize, &String)| (path.clone(), manifests::running(&address(n), &format!("{n:064x}")));
        admin.patch_status_of_all(self.pods.iter().enumerate().map(status).collect())
    }

    /// A stretch of time, with pods that change or without.
    fn measure(&mut self, watchers: Option<&Watchers>, changing: bool) -> Result<Cost> {
        let before = self.look(watchers)?;
        let started = Instant::now();
        let end = started + Duration::from_secs(self.arguments.seconds);
        while Instant::now() < end {
            let next = Instant::now() + Duration::from_secs(1);
            if changing {
                self.change()?;
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let lasted = started.elapsed();
        Ok(self.look(watchers)?.since(&before, lasted))
    }

    fn change(&mut self) -> Result<()> {
        let mut statuses = Vec::new();
        for _ in 0..self.arguments.changes {
            let index = self.changed % self.pods.len();
            let path = self.pods.get(index).context("a pod")?.clone();
            self.changed += 1;
            // Another container each time: what does not change is not told.
            statuses.push((path, manifests::running(&address(index), &format!("{:063x}c", self.changed))));
        }
        self.server.admin.patch_status_of_all(statuses)
    }

    fn look(&mut self, watchers: Option<&Watchers>) -> Result<Look> {
        let metrics = Metrics::parse(self.server.admin.try_get("/metrics")?.text)?;
        Ok(Look {
            requests: metrics.sum("apiserver_request_total", &[]),
            server: cpu_time(self.server.pid()?)?,
            watchers: watchers.map_or(Ok(Duration::ZERO), |watchers| cpu_time(watchers.child.id()))?,
        })
    }

    /// Beyond what the same stretch cost without watchers.
    fn show(&self, what: &str, cost: &Cost, without: Option<&Cost>) {
        let nodes = f64::from(self.arguments.nodes);
        let minutes = cost.lasted.as_secs_f64() / 60.0;
        let (requests, server) = without.map_or((0.0, 0.0), |cost| (cost.requests, cost.server.as_secs_f64()));
        println!(
            "{what}: {:.2} requests a minute and node; API server {:.2} % of a CPU in all ({:.2} % without), \
             {:.3} ms CPU a second and node; watchers {:.3} ms a second and node",
            (cost.requests - requests) / minutes / nodes,
            share(cost.server.as_secs_f64(), cost.lasted),
            share(server, cost.lasted),
            (cost.server.as_secs_f64() - server) * 1e3 / cost.lasted.as_secs_f64() / nodes,
            cost.watchers.as_secs_f64() * 1e3 / cost.lasted.as_secs_f64() / nodes,
        );
    }
}

/// Totals at one moment.
struct Look {
    requests: f64,
    server: Duration,
    watchers: Duration,
}

impl Look {
    fn since(&self, before: &Self, lasted: Duration) -> Cost {
        Cost {
            requests: self.requests - before.requests,
            server: self.server.saturating_sub(before.server),
            watchers: self.watchers.saturating_sub(before.watchers),
            lasted,
        }
    }
}

/// `sekisho internal watch`, ended with its guard.
struct Watchers {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// Resident before anything was known.
    first_kib: u32,
}

impl Watchers {
    fn start(bench: &Bench, home: &Path) -> Result<Self> {
        let account = bench.server.install_role()?;
        let (token, kubeconfig) = (home.join("token"), home.join("kubeconfig"));
        fs::write(&token, bench.server.token(&account)?).context("write a token")?;
        bench.server.write_kubeconfig(&kubeconfig, &token)?;
        let program = agent::program()?;
        let mut child = Command::new(&program)
            // What each of them says about itself is not what is measured.
            .env("SEKISHO_LOG", "warn")
            .args(["internal", "watch", "--nodes", &bench.arguments.nodes.to_string(), "--prefix", "node-"])
            .args(["--jitter-seconds", &JITTER.as_secs().to_string()])
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            // They end when nobody holds the other end any more.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let lines = BufReader::new(child.stdout.take().context("the watchers have no output")?);
        let mut watchers = Self { child, lines, first_kib: 0 };
        watchers.next()?;
        watchers.first_kib = resident_kib(watchers.child.id())?;
        Ok(watchers)
    }

    fn wait_for(&mut self, pods: usize) -> Result<()> {
        let end = Instant::now() + READY;
        loop {
            let known = self.next()?.pods;
            if known == pods {
                return Ok(());
            }
            ensure!(Instant::now() < end, "after {READY:?} {known} of {pods} pods are known");
        }
    }

    /// The next line; one comes every second.
    fn next(&mut self) -> Result<Line> {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line).context("read from the watchers")?;
        ensure!(length > 0, "the watchers ended");
        serde_json::from_str(&line).with_context(|| format!("decode {line:?}"))
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        // Both fail only when they have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the watchers say.
#[derive(Deserialize)]
struct Line {
    /// Pods known, of all nodes.
    pods: usize,
}

fn node(n: usize) -> String {
    format!("node-{n}")
}

fn namespace(n: usize) -> String {
    format!("team-{n}")
}

fn address(n: usize) -> String {
    format!("10.{}.{}.{}", n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff)
}

/// CPU time of a process, also of threads that ended.
fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let (_, fields) = text.rsplit_once(") ").with_context(|| format!("no name in {path}"))?;
    // utime and stime are the fields 14 and 15; the first of these is field 3.
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second()))
}

fn resident_kib(pid: u32) -> Result<u32> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("VmRSS:")).with_context(|| format!("no VmRSS in {path}"))?;
    line.trim().trim_end_matches(" kB").parse().with_context(|| format!("read {path}"))
}

fn share(seconds: f64, of: Duration) -> f64 {
    seconds / of.as_secs_f64() * 100.0
}
