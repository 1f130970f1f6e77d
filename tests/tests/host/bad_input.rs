//! What the agent says when it cannot run: one sentence that names what is missing and what to do, exit 3, and no
//! backtrace even where the environment asks for one.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use system_tests::{Agent, agent};

/// `nobody`.
const NOBODY: u32 = 65_534;
/// Could not run.
const COULD_NOT_RUN: i32 = 3;

/// The agent says one sentence with all of these words, and ends with exit code 3. What it logged before, as far as it
/// came, is no more than information.
fn refuses(output: &Output, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(COULD_NOT_RUN), "ended with {}: {said}", output.status);
    let (logged, sentences): (Vec<_>, Vec<_>) = said.lines().partition(|line| line.contains(" INFO "));
    ensure!(sentences.len() == 1, "more or less than one sentence beside {logged:?}: {sentences:?}");
    for word in words {
        ensure!(sentences[0].contains(word), "does not name {word}: {said}");
    }
    for trace in ["panicked", "backtrace", "stack", "src/"] {
        ensure!(!said.to_lowercase().contains(trace), "says {trace}: {said}");
    }
    ensure!(output.stdout.is_empty(), "prints {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// `sekisho run` with a configuration.
fn run(configuration: &Path) -> Result<Command> {
    let mut command = Command::new(agent::program()?);
    run_arguments(&mut command, configuration);
    Ok(command)
}

fn run_arguments(command: &mut Command, configuration: &Path) {
    // Ends by itself if it runs after all.
    command.args(["run", "--standalone", "-o", "json", "--duration", "5", "--config"]).arg(configuration);
    command.env("RUST_BACKTRACE", "1");
}

/// A configuration of the test's own, in a directory that everybody may read.
fn configuration(home: &Path, keys: serde_json::Value) -> Result<PathBuf> {
    fs::set_permissions(home, fs::Permissions::from_mode(0o755)).context("open a directory to everybody")?;
    agent::write_configuration(home, agent::free_port()?, keys)
}

/// A copy of the program that everybody may run.
fn public_program(home: &Path) -> Result<PathBuf> {
    let copy = home.join("sekisho");
    fs::copy(agent::program()?, &copy).context("copy the program")?;
    Ok(copy)
}

#[test]
fn not_root() -> Result<()> {
    let home = tempfile::tempdir()?;
    let configuration = configuration(home.path(), json!({}))?;
    let mut command = Command::new(public_program(home.path())?);
    run_arguments(&mut command, &configuration);
    let output = command.uid(NOBODY).gid(NOBODY).output().context("run the agent as nobody")?;
    refuses(&output, &["root"])
}

#[test]
fn a_missing_capability_is_named() -> Result<()> {
    let home = tempfile::tempdir()?;
    let configuration = configuration(home.path(), json!({}))?;
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-bpf,-sys_admin", "--"]).arg(agent::program()?);
    run_arguments(&mut command, &configuration);
    let output = command.output().context("run setpriv, of the package util-linux")?;
    refuses(&output, &["CAP_BPF"])
}

#[test]
fn a_port_in_use() -> Result<()> {
    let home = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let configuration = configuration(home.path(), json!({ "metrics": { "listen": address } }))?;
    refuses(&run(&configuration)?.output()?, &[&address.port().to_string(), "metrics.listen"])
}

#[test]
fn a_socket_in_use() -> Result<()> {
    let home = tempfile::tempdir()?;
    let running = Agent::start()?;
    let socket = running.socket();
    let configuration = configuration(home.path(), json!({ "socket": socket }))?;
    refuses(&run(&configuration)?.output()?, &[&socket.display().to_string()])?;
    // The one that runs keeps its socket.
    ensure!(running.command(&["doctor"])?.status.code() != Some(COULD_NOT_RUN), "the running agent lost its socket");
    running.finish()?;
    Ok(())
}

#[test]
fn a_stale_socket_is_no_hindrance() -> Result<()> {
    let home = tempfile::tempdir()?;
    let socket = home.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket)?);
    ensure!(socket.exists(), "the stale socket is gone");
    Agent::with(json!({ "socket": socket }))?.finish()?;
    Ok(())
}

#[test]
fn an_unreadable_configuration() -> Result<()> {
    let home = tempfile::tempdir()?;
    let path = home.path().join("none.yaml");
    refuses(&run(&path)?.output()?, &[&path.display().to_string()])
}

#[test]
fn a_configuration_that_is_no_yaml() -> Result<()> {
    let home = tempfile::tempdir()?;
    let path = home.path().join("broken.yaml");
    fs::write(&path, "socket: [unclosed\n")?;
    refuses(&run(&path)?.output()?, &[&path.display().to_string()])
}

#[test]
fn an_unknown_key() -> Result<()> {
    let home = tempfile::tempdir()?;
    let configuration = configuration(home.path(), json!({ "kernel": { "ring": 1 } }))?;
    refuses(&run(&configuration)?.output()?, &["kernel", "ring"])
}

#[test]
fn a_value_out_of_range() -> Result<()> {
    let home = tempfile::tempdir()?;
    let configuration = configuration(home.path(), json!({ "kernel": { "bulk_ring_bytes": 5000 } }))?;
    refuses(&run(&configuration)?.output()?, &["kernel.bulk_ring_bytes", "5000"])
}

#[test]
fn nobody_to_observe() -> Result<()> {
    let home = tempfile::tempdir()?;
    let socket = home.path().join("none.sock");
    let mut command = Command::new(agent::program()?);
    let output = command.args(["observe", "--socket"]).arg(&socket).env("RUST_BACKTRACE", "1").output()?;
    refuses(&output, &[&socket.display().to_string()])
}
