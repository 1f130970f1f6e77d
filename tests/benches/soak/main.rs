//! `cargo xtask soak`: an agent on a node where pods, processes and flows come and go, for minutes or hours, and what it
//! holds meanwhile. It samples and judges nothing: that is `cargo xtask soak`, by the file that this leaves.

mod churn;
mod samples;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use serde::Serialize;
use serde_json::json;
use system_tests::machine::Machine;
use system_tests::memory::Charged;
use system_tests::{Agent, Node};

use churn::{Churn, Work};
use samples::{Sample, Sampler};

/// Between two samples, of which an hour so has 360.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// A generation of pods begins at most this often: what is looked for is a leak, and not how fast it all can go.
const STEP: Duration = Duration::from_secs(1);
/// After the last pod is gone: folds are told, and the two minutes pass for which series of the dead stay.
const AFTERMATH: Duration = Duration::from_secs(150);
/// The least that the configuration allows, so that a long run meets the quota.
const HISTORY_BYTES: u64 = 64 << 20;

/// What `cargo xtask soak` hands over.
#[derive(Parser)]
struct Arguments {
    /// How long pods come and go.
    #[arg(long)]
    minutes: u32,
    /// Where to write what was seen.
    #[arg(long)]
    json: PathBuf,
}

/// The file.
#[derive(Serialize)]
struct Soak {
    schema: &'static str,
    machine: Machine,
    minutes: u32,
    history_max_bytes: u64,
    work: Work,
    /// While pods came and went.
    samples: Vec<Sample>,
    /// When all was gone for a while.
    aftermath: Sample,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let node = Node::new()?;
    let configuration = json!({ "fold_seconds": 10, "history": { "max_bytes": HISTORY_BYTES } });
    let agent = node.silent_agent(configuration)?;
    // Declared after the agent would mean removed before it ends.
    let charged = Charged::of(agent.pid())?;
    let soak = soak(node, &agent, charged.as_ref(), arguments.minutes);
    agent.finish().context("end the agent")?;
    let text = serde_json::to_string_pretty(&soak?).context("encode what was seen")?;
    std::fs::write(&arguments.json, text + "\n").with_context(|| format!("write {}", arguments.json.display()))
}

fn soak(node: Node, agent: &Agent, charged: Option<&Charged>, minutes: u32) -> Result<Soak> {
    let machine = Machine::this()?;
    let mut sampler = Sampler::new(agent, charged);
    let mut churn = Churn::new(node)?;
    let started = Instant::now();
    let end = Duration::from_secs(u64::from(minutes) * 60);
    let mut samples = Vec::new();
    while started.elapsed() < end {
        let step = Instant::now();
        churn.step()?;
        if started.elapsed() >= SAMPLE_EVERY * u32::try_from(samples.len()).context("samples")? {
            let sample = sampler.take()?;
            if samples.len() % 6 == 0 {
                eprintln!("{sample}");
            }
            samples.push(sample);
        }
        std::thread::sleep(STEP.saturating_sub(step.elapsed()));
    }
    let work = churn.end()?;
    std::thread::sleep(AFTERMATH);
    let aftermath = sampler.take()?;
    eprintln!("{aftermath}");
    Ok(Soak { schema: "sekisho-soak/1", machine, minutes, history_max_bytes: HISTORY_BYTES, work, samples, aftermath })
}
