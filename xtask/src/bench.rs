//! `cargo xtask bench`: what the program costs, on this machine's kernel, beside what its neighbours cost and what it aims
//! at. The measuring itself is the bench `cost` of the system tests and the bench `hot` of the core; here they are built and
//! started, and what they measured is kept, drawn and compared.

mod compare;
mod functions;
mod plots;
mod result;

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::process::{self, Privilege};
use crate::setup::{self, Need};
use crate::{build, workspace};
use result::{Figure, Outcome, short};

/// The bench of the package `system-tests`.
const BENCH: &str = "cost";
/// What its traffic is made by.
const ACTOR: &str = "actor";

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// HTTP connections a round
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    connections: u32,
    /// Rounds; each runs the same work with the probes and with empty programs
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only this; what the file of results has of the rest stays
    #[arg(long = "part", value_enum)]
    parts: Vec<Part>,
    /// This program instead of one that is built
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where everything that was measured is kept
    #[arg(long, value_name = "FILE", default_value_os_t = workspace::target().join("bench/result.json"))]
    json: PathBuf,
    /// Measure nothing: show, draw and compare what the file of results has
    #[arg(long, conflicts_with_all = ["parts", "program"])]
    stored: bool,
    /// Show ratios to an earlier file of results
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Where to draw
    #[arg(long, value_name = "DIRECTORY", default_value_os_t = workspace::target().join("bench"))]
    plots: PathBuf,
}

/// What can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Programs in the kernel, and the agent beside them
    Rounds,
    /// The agent by load
    Growth,
    /// The agent by pods on its node
    Nodes,
    /// Reading what was recorded and stored
    Replay,
    /// The core's hottest functions
    Functions,
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { json, stored, compare, plots, .. } = arguments;
    // Read before anything is measured: the two may be one file, and it may not be readable.
    let before = compare.as_deref().map(Outcome::read).transpose()?;
    if !stored {
        for directory in [json.parent(), Some(plots)].into_iter().flatten() {
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        measure(arguments)?;
    }
    let outcome = Outcome::read(json)?;
    for drawing in plots::draw(&outcome, plots)? {
        println!("drawn: {}", drawing.display());
    }
    println!("{}", summary(&outcome));
    if let Some(before) = before {
        println!("{}", compare::table(&before, &outcome));
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<()> {
    let Arguments { parts, program, json, .. } = arguments;
    let (of_functions, of_agent): (Vec<Part>, Vec<Part>) =
        chosen(parts).into_iter().partition(|part| *part == Part::Functions);
    setup::ensure(&[Need::Build, Need::Bench])?;
    if !of_agent.is_empty() {
        build::probes(ARCH, false)?;
        let empty = build::empty(ARCH)?;
        let sekisho = match program {
            Some(program) => program.clone(),
            None => build::agent(build::Options { release: true, ..build::Options::default() })?,
        };
        measure_agent(arguments, &of_agent, &empty, &sekisho)?;
    }
    if !of_functions.is_empty() {
        let mut outcome = Outcome::read(json).context("functions are kept beside what was measured of the agent")?;
        outcome.replace(functions::measure()?);
        outcome.write(json)?;
    }
    Ok(())
}

/// All parts, when none is named.
fn chosen(parts: &[Part]) -> Vec<Part> {
    if parts.is_empty() { Part::value_variants().to_vec() } else { parts.to_vec() }
}

fn measure_agent(arguments: &Arguments, parts: &[Part], empty: &Path, sekisho: &Path) -> Result<()> {
    let Arguments { connections, rounds, json, .. } = arguments;
    let programs = programs(BENCH)?;
    let mut command = Privilege::detect().command(&programs.bench).context(
        "loading eBPF programs needs root, and `sudo -n` does not work for this user: run `cargo xtask bench` as \
         root, or give the user sudo without a password",
    )?;
    let fresh = json.with_extension("new.json");
    command
        .args(["--connections", &connections.to_string(), "--rounds", &rounds.to_string()])
        .args(["--json".as_ref(), fresh.as_os_str(), "--empty".as_ref(), empty.as_os_str()])
        .env("SEKISHO_BIN", sekisho)
        .env("SEKISHO_ACTOR", programs.actor);
    for part in parts.iter().filter_map(ValueEnum::to_possible_value) {
        command.args(["--part", part.get_name()]);
    }
    process::run(&mut command)?;
    let mut measured = Outcome::read(&fresh)?;
    // Part by part, for whoever doubts a figure; a result without it is short enough to be kept.
    if let Some(rounds) =
        measured.rest.remove("rounds").filter(|rounds| rounds.as_array().is_some_and(|all| !all.is_empty()))
    {
        let path = json.with_extension("rounds.json");
        fs::write(&path, format!("{rounds}\n")).with_context(|| format!("write {}", path.display()))?;
    }
    let outcome = if json.exists() {
        let mut outcome = Outcome::read(json)?;
        outcome.merge(measured);
        outcome
    } else {
        measured
    };
    outcome.write(json)?;
    fs::remove_file(&fresh).with_context(|| format!("remove {}", fresh.display()))
}

/// What is aimed at, and the core's functions, which the other program does not show.
fn summary(outcome: &Outcome) -> String {
    let line = |figure: &Figure| {
        let load = figure.load.as_ref().map_or(String::new(), |load| format!(", {} {}", load.amount, load.of));
        let verdict = match (figure.at_most, figure.reached) {
            (Some(most), Some(true)) => format!("aim {most}"),
            (Some(most), _) => format!("aim {most} MISSED"),
            (None, _) => String::new(),
        };
        let what = format!("{}{load}", figure.what);
        let text = format!("{what:<72} {:>10} {:<3} {verdict}", short(figure.measured.median), figure.unit);
        text.trim_end().to_owned()
    };
    let shown = |figure: &&Figure| figure.at_most.is_some() || figure.name.starts_with("functions/");
    outcome.figures.iter().filter(shown).map(line).collect::<Vec<_>>().join("\n")
}

/// A bench and the actor.
pub(crate) struct Programs {
    pub(crate) bench: PathBuf,
    pub(crate) actor: PathBuf,
}

/// Builds a bench of the system tests and the actor, optimised: a generator must not be what is measured.
pub(crate) fn programs(bench: &str) -> Result<Programs> {
    let mut command = process::cargo();
    // cargo builds a package's programs along with its benches; named, they would become benches themselves.
    command.args(["bench", "--no-run", "--package", "system-tests", "--bench", bench]);
    let built = process::cargo_build(&mut command).context("build the bench")?;
    let find = |name: &str| -> Result<PathBuf> {
        let found = built.iter().find(|executable| executable.name == name);
        found.map(|executable| executable.path.clone()).with_context(|| format!("cargo built no executable `{name}`"))
    };
    Ok(Programs { bench: find(bench)?, actor: find(ACTOR)? })
}
