//! `cargo xtask bench`: what the program costs, in the kernel and outside.
//!
//! Each round does the same [`work`] twice: with the agent running, and with [`empty`] programs on the same hooks, so that
//! the price of the probes is told apart from the price of being called (and of the clock that measures it). What a round
//! saw is a [`figures::Round`]; [`report`] shows medians over rounds beside aims and neighbours. Nothing here fails because
//! something is slow.

mod empty;
mod figures;
mod memory;
mod process;
mod programs;
mod report;
mod rounds;
mod work;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

/// What `cargo xtask bench` hands over.
#[derive(Parser)]
struct Arguments {
    /// HTTP connections a round.
    #[arg(long)]
    connections: u32,
    /// Rounds.
    #[arg(long)]
    rounds: u32,
    /// The object with the empty programs.
    #[arg(long)]
    empty: PathBuf,
    /// Where to write everything that was measured.
    #[arg(long)]
    json: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let object = std::fs::read(&arguments.empty).with_context(|| format!("read {}", arguments.empty.display()))?;
    // Counted by the kernel, so that it ends with this process, however that ends.
    let _statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime).context("switch program statistics on")?;
    let rounds = rounds::run(arguments.rounds, arguments.connections, &object)?;
    let report = report::Report::new(arguments.connections, rounds)?;
    report.write(&arguments.json)?;
    println!("{report}\neverything that was measured: {}", arguments.json.display());
    Ok(())
}
