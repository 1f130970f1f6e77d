//! What looking at a full node costs: 250 pods in network namespaces of their own, with 20 processes each.
//!
//!     cargo run -p system-tests --example looks
//!
//! Needs root, and two programs: `sekisho` beside it or in `SEKISHO_BIN` (for figures that mean something, an optimised
//! one), and `sleep`. Prints, for each round, the processor time of all looks together and the time of each; the first
//! round reads what later ones remember.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::agent;
use system_tests::node::{Node, Wiring};

const PODS: usize = 250;
const PROCESSES: usize = 20;
const ROUNDS: &str = "4";

/// A process that ends with its guard.
struct Idle(Child);

impl Drop for Idle {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<()> {
    let mut node = Node::new()?;
    let sleep = which("sleep")?;
    // Idle processes go before the control groups that they are in.
    let (mut pods, mut idle) = (Vec::new(), Vec::new());
    for number in 0..PODS {
        pods.push(node.pod("load", &format!("pod-{number}"), Wiring::Plain)?);
        let pod = pods.last().context("a pod")?;
        for _ in 0..PROCESSES {
            let mut command = pod.container.command(&pod.network, &sleep)?;
            let child =
                command.arg("3600").stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("start sleep")?;
            idle.push(Idle(child));
        }
    }
    let output = node.network.run(|| {
        let mut command = Command::new(agent::program()?);
        command.args(["internal", "looks", "--rounds", ROUNDS]).output().context("run sekisho")
    })?;
    drop(idle);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).context("looks are text")?;
    let lines: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("looks are JSON")?;
    for line in &lines {
        let standing = &line["Collector"];
        if !standing["error"].is_null() && standing["absent"] == false {
            println!("failed: {standing}");
        }
    }
    let veths = lines.iter().find_map(|line| line["Pods"].as_array());
    let found = veths.map_or(0, |pods| pods.iter().filter(|pod| !pod["veth"].is_null()).count());
    println!("{PODS} pods, {} processes; the veths of {found} pods were found", PODS * PROCESSES);
    for (number, round) in
        lines.last().context("nothing")?["rounds"].as_array().context("no rounds")?.iter().enumerate()
    {
        println!("round {number}: {round}");
    }
    drop(pods);
    Ok(())
}

fn which(program: &str) -> Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    let found = std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file());
    found.with_context(|| format!("no {program} in PATH"))
}
