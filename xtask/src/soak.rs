//! `cargo xtask soak`: an agent on a node where pods, processes and flows come and go. The bench `soak` of the system tests
//! does that and takes samples; here they are judged and drawn. It fails when the agent grows, or its books do not balance.

mod samples;
mod verdict;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::plot::{self, Curve, Panel, Scale};
use crate::process::{self, Privilege};
use crate::setup::{self, Need};
use crate::{bench, build, workspace};
use samples::{Sample, Soak};

const BENCH: &str = "soak";

/// What `cargo xtask soak` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long; growth is judged from ten minutes on
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_080))]
    minutes: u32,
    /// This program instead of one that is built
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where the samples are kept
    #[arg(long, value_name = "FILE", default_value_os_t = workspace::target().join("bench/soak.json"))]
    json: PathBuf,
    /// Where they are drawn
    #[arg(long, value_name = "FILE", default_value_os_t = workspace::target().join("bench/soak.svg"))]
    plot: PathBuf,
    /// Run nothing: judge and draw the samples of the file
    #[arg(long, conflicts_with = "program")]
    stored: bool,
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { json, plot, stored, .. } = arguments;
    if !stored {
        for directory in [json.parent(), plot.parent()].into_iter().flatten() {
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        soak(arguments)?;
    }
    let soak = Soak::read(json)?;
    plot::write(plot, &panels(&soak))?;
    let verdicts = verdict::judge(&soak);
    for verdict in &verdicts {
        println!("{verdict}");
    }
    println!("samples: {}\ndrawn: {}", json.display(), plot.display());
    let broken = verdicts.iter().filter(|verdict| verdict.held == Some(false)).count();
    if broken > 0 {
        bail!("{broken} bounds were not held");
    }
    Ok(())
}

fn soak(arguments: &Arguments) -> Result<()> {
    setup::ensure(&[Need::Build, Need::Test])?;
    build::probes(std::env::consts::ARCH, false)?;
    let sekisho = match &arguments.program {
        Some(program) => program.clone(),
        None => build::agent(build::Options { release: true, ..build::Options::default() })?,
    };
    let programs = bench::programs(BENCH)?;
    let mut command = Privilege::detect().command(&programs.bench).context(
        "loading eBPF programs needs root, and `sudo -n` does not work for this user: run `cargo xtask soak` as root, or \
         give the user sudo without a password",
    )?;
    command
        .args(["--minutes", &arguments.minutes.to_string(), "--json"])
        .arg(&arguments.json)
        .env("SEKISHO_BIN", sekisho)
        .env("SEKISHO_ACTOR", programs.actor);
    process::run(&mut command)
}

fn panels(soak: &Soak) -> Vec<Panel> {
    let curve = |name: &str, of: fn(&Sample) -> f64| Curve {
        name: name.to_owned(),
        points: soak.samples.iter().chain([&soak.aftermath]).map(|sample| (sample.at_s / 60.0, of(sample))).collect(),
    };
    let panel = |title: &str, y: &str, curves| Panel {
        title: title.to_owned(),
        x: "minutes; the last point is after all pods are gone".to_owned(),
        y: y.to_owned(),
        scale: Scale::Linear,
        curves,
    };
    vec![
        panel(
            "Memory",
            "MB",
            vec![
                curve("all, kernel memory included", |sample| samples::megabytes(sample.whole_bytes)),
                curve("heap and stacks", |sample| samples::megabytes(sample.memory.anonymous)),
                curve("history on disk", |sample| samples::megabytes(sample.history_bytes)),
            ],
        ),
        panel(
            "Descriptors and threads",
            "",
            vec![
                curve("descriptors", |sample| samples::float(sample.descriptors)),
                curve("threads", |sample| samples::float(sample.threads)),
            ],
        ),
        panel("Samples in a scrape", "", vec![curve("samples", |sample| samples::float(sample.series))]),
    ]
}
