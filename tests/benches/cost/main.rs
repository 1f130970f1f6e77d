//! `cargo xtask bench`: what the program costs, in the kernel and outside.
//!
//! Each round does the same [`work`] twice: with the agent running, and with [`empty`] programs on the same hooks, so that
//! the price of the probes is told apart from the price of being called (and of the clock that measures it). What a round
//! saw is a [`figures::Round`]. [`growth`] and [`nodes`] do each kind of work at loads of ten times each other; [`replay`]
//! reads back what was written. [`report`] shows medians beside aims and neighbours. Nothing here fails because something
//! is slow.

mod empty;
mod figures;
mod growth;
mod nodes;
mod process;
mod programs;
mod replay;
mod report;
mod rounds;
mod work;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

/// What `cargo xtask bench` hands over.
#[derive(Parser)]
struct Arguments {
    /// HTTP connections a round.
    #[arg(long)]
    connections: u32,
    /// Rounds.
    #[arg(long)]
    rounds: u32,
    /// Only these parts.
    #[arg(long = "part", value_enum)]
    parts: Vec<Part>,
    /// The object with the empty programs.
    #[arg(long)]
    empty: PathBuf,
    /// Where to write everything that was measured.
    #[arg(long)]
    json: PathBuf,
}

/// What can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Programs in the kernel, and the agent beside them.
    Rounds,
    /// The agent by load.
    Growth,
    /// The agent by pods on its node.
    Nodes,
    /// Reading what was recorded and stored.
    Replay,
}

fn main() -> Result<()> {
    let Arguments { connections, rounds, parts, empty, json } = Arguments::parse();
    let has = |part| parts.is_empty() || parts.contains(&part);
    let mut report = report::Report::new(connections)?;
    // Without the kernel's clock around each program, which costs the one who sends.
    if has(Part::Growth) {
        report.add(growth::run().context("measure growth")?);
    }
    if has(Part::Nodes) {
        report.add(nodes::run().context("measure nodes of several sizes")?);
    }
    if has(Part::Replay) {
        report.add(replay::run().context("measure replays")?);
    }
    if has(Part::Rounds) {
        let object = std::fs::read(&empty).with_context(|| format!("read {}", empty.display()))?;
        // Counted by the kernel, so that it ends with this process, however that ends.
        let _statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime).context("switch program statistics on")?;
        report.add_rounds(rounds::run(rounds, connections, &object)?)?;
    }
    report.write(&json)?;
    println!("{report}\neverything that was measured: {}", json.display());
    Ok(())
}
