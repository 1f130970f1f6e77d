//! `cargo xtask bench`: what the program costs, on this machine's kernel, beside what its neighbours cost and what it aims
//! at. The measuring itself is the bench `cost` of the system tests; here its parts are built and it is started as root.

use std::env::consts::ARCH;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::process::{self, Privilege};
use crate::setup::{self, Need};
use crate::{build, workspace};

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
    /// Where to write everything that was measured
    #[arg(long, value_name = "FILE", default_value_os_t = workspace::target().join("bench.json"))]
    json: PathBuf,
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(&[Need::Build])?;
    build::probes(ARCH, false)?;
    let empty = build::empty(ARCH)?;
    let sekisho = build::agent(build::Options { release: true, ..build::Options::default() })?;
    let programs = programs()?;
    let Some(mut command) = Privilege::detect().command(&programs.bench) else {
        bail!(
            "loading eBPF programs needs root, and `sudo -n` does not work for this user: run `cargo xtask bench` as \
             root, or give the user sudo without a password"
        );
    };
    command
        .args(["--connections", &arguments.connections.to_string(), "--rounds", &arguments.rounds.to_string()])
        .arg("--json")
        .arg(&arguments.json)
        .arg("--empty")
        .arg(empty)
        .env("SEKISHO_BIN", sekisho)
        .env("SEKISHO_ACTOR", programs.actor);
    process::run(&mut command)
}

struct Programs {
    bench: PathBuf,
    actor: PathBuf,
}

/// Builds the bench and the actor, optimised: a generator must not be what is measured.
fn programs() -> Result<Programs> {
    let mut command = process::cargo();
    // cargo builds a package's programs along with its benches; named, they would become benches themselves.
    command.args(["bench", "--no-run", "--package", "system-tests", "--bench", BENCH]);
    let built = process::cargo_build(&mut command).context("build the bench")?;
    let find = |name: &str| -> Result<PathBuf> {
        let found = built.iter().find(|executable| executable.name == name);
        found.map(|executable| executable.path.clone()).with_context(|| format!("cargo built no executable `{name}`"))
    };
    Ok(Programs { bench: find(BENCH)?, actor: find(ACTOR)? })
}
