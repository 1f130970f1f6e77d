//! `cargo xtask kube up|down`: a real Kubernetes API server on this machine's loopback, for tests by hand. The cluster tests
//! start their own.
//!
//! The program `control-plane` of the package system-tests runs it, from what [`build`] made.

pub(crate) mod build;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::setup::{self, Need};
use crate::{process, workspace};

/// The program that runs a control plane.
const PROGRAM: &str = "control-plane";

/// Files in a control plane's directory; they belong to [`PROGRAM`].
const LOCK: &str = "lock";
const PID: &str = "pid";
const KUBECONFIG: &str = "kubeconfig";

/// For a control plane to end: its programs have ten seconds each.
const STOP: Duration = Duration::from_mins(1);

/// Between two looks at something that must come.
const LOOK: Duration = Duration::from_millis(50);

/// What `cargo xtask kube` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Start an API server and print the path of its kubeconfig; builds Kubernetes the first time
    Up(Place),
    /// End it and remove its files
    Down(Place),
}

#[derive(clap::Args)]
struct Place {
    /// Where its files lie; target/kube by default
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.action {
        Action::Up(place) => up(&place.directory()?),
        Action::Down(place) => down(&place.directory()?),
    }
}

impl Place {
    fn directory(&self) -> Result<PathBuf> {
        match &self.dir {
            Some(directory) => std::path::absolute(directory).with_context(|| format!("find {}", directory.display())),
            None => Ok(workspace::target().join("kube")),
        }
    }
}

fn up(directory: &Path) -> Result<()> {
    if is_running(directory)? {
        eprintln!("an API server runs in {} already", directory.display());
    } else {
        setup::ensure(&[Need::Build, Need::Cluster])?;
        start(&program()?, directory)?;
        eprintln!("end it with `cargo xtask kube down`");
    }
    println!("{}", directory.join(KUBECONFIG).display());
    Ok(())
}

fn program() -> Result<PathBuf> {
    let mut command = process::cargo();
    command.args(["build", "--package", "system-tests", "--bin", PROGRAM]);
    let built = process::cargo_build(&mut command)?;
    let program = built.into_iter().find(|executable| executable.name == PROGRAM);
    Ok(program.with_context(|| format!("cargo built no program `{PROGRAM}`"))?.path)
}

/// Starts a control plane that outlives this process, and waits until it is ready.
fn start(program: &Path, directory: &Path) -> Result<()> {
    /// First line of [`PROGRAM`]'s output.
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Line {
        Ok(serde::de::IgnoredAny),
        Error(String),
    }
    let mut command = Command::new(program);
    command.arg("stay").arg(build::programs()?).arg(directory).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
    let mut line = String::new();
    let output = child.stdout.take().context("a program without output")?;
    BufReader::new(output).read_line(&mut line).with_context(|| format!("read from {}", program.display()))?;
    match serde_json::from_str(&line) {
        Ok(Line::Ok(_)) => Ok(()),
        Ok(Line::Error(error)) => bail!("{error}"),
        Err(_) => bail!("`{}` ended without a word: {}", process::line(&command), child.wait()?),
    }
}

fn down(directory: &Path) -> Result<()> {
    if !is_running(directory)? {
        eprintln!("no API server runs in {}", directory.display());
        return Ok(());
    }
    let path = directory.join(PID);
    let pid = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    // The lock is held, so this is the process that holds it and not a later one with the same number.
    process::capture(Command::new("sh").args(["-c", "kill -TERM \"$1\"", "kill", pid.trim()]))?;
    let end = Instant::now() + STOP;
    while is_running(directory)? {
        ensure!(
            Instant::now() < end,
            "process {pid} did not end in {STOP:?}: look at the logs in {}",
            directory.display()
        );
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether a control plane holds its lock.
fn is_running(directory: &Path) -> Result<bool> {
    let path = directory.join(LOCK);
    match File::open(&path) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("look at {}", path.display())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("open {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_runs_while_its_lock_is_held() {
        let directory = workspace::target().join("tmp").join(format!("lock-{}", std::process::id()));
        assert!(!is_running(&directory).unwrap(), "there is no directory");
        fs::create_dir_all(&directory).unwrap();
        let lock = File::create(directory.join(LOCK)).unwrap();
        assert!(!is_running(&directory).unwrap(), "nobody holds it");
        lock.lock().unwrap();
        assert!(is_running(&directory).unwrap());
        drop(lock);
        assert!(!is_running(&directory).unwrap(), "whoever held it has ended");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_does_not_run_is_not_ended() {
        down(&workspace::target().join("tmp/no-such-directory")).unwrap();
    }
}
