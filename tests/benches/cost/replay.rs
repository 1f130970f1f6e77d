//! How fast what was recorded is replayed, and what was stored is read: processor time of whole runs of the program, of which
//! the start takes some milliseconds.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use system_tests::usage::children_cpu_ns;
use system_tests::{Agent, agent};

use crate::figures::{Figure, number};
use crate::rounds::{FOLD_SECONDS, SETTLE};
use crate::work::Site;

/// HTTP connections of a recording, and requests to the metadata service: these are the history's rows.
const LOADS: [(usize, u32); 2] = [(5_000, 500), (50_000, 5_000)];

pub(crate) fn run() -> Result<Vec<Figure>> {
    let mut all = Vec::new();
    for (connections, requests) in LOADS {
        eprintln!("replay: {connections} connections, {requests} requests");
        let directory = tempfile::tempdir().context("make a directory")?;
        let recording = directory.path().join("recording");
        let path = recording.to_str().context("the temporary directory is not UTF-8")?;
        let configuration = json!({ "fold_seconds": FOLD_SECONDS });
        let agent = Agent::with_arguments_in(None, configuration, &["--record", path])?;
        let site = Site::new()?;
        site.churn(connections, |_| Ok(()))?;
        site.requests(requests)?;
        std::thread::sleep(SETTLE);
        let finished = agent.finish()?;

        let (entries, _) = run_program("replay", &[path, "--inputs"])?;
        let (_, spent_ns) = run_program("replay", &[path, "-o", "json"])?;
        let rate = number(entries) * 1e9 / number(spent_ns.max(1));
        all.push(
            Figure::once("replay/entries", "entries replayed a second of CPU", "/s", rate).under(entries, "entries"),
        );

        let data = finished.home.path().join("data");
        let data = data.to_str().context("the temporary directory is not UTF-8")?;
        let (rows, spent_ns) = run_program("timeline", &["--data-dir", data, "-o", "json"])?;
        ensure!(rows >= u64::from(requests), "{rows} rows were stored of {requests} requests");
        let rate = number(rows) * 1e9 / number(spent_ns.max(1));
        all.push(Figure::once("replay/history", "history rows read a second of CPU", "/s", rate).under(rows, "rows"));
    }
    Ok(all)
}

/// Runs a command of the program; lines that it printed, and its processor time.
fn run_program(command: &str, arguments: &[&str]) -> Result<(u64, u64)> {
    let program = agent::program()?;
    let before = children_cpu_ns()?;
    let output = tempfile::NamedTempFile::new().context("make a file")?;
    let out = output.reopen().context("open a file")?;
    let status = Command::new(&program).arg(command).args(arguments).stdin(Stdio::null()).stdout(out).status();
    let status = status.with_context(|| format!("run {} {command}", program.display()))?;
    ensure!(status.success(), "sekisho {command} ended with {status}");
    let spent_ns = children_cpu_ns()? - before;
    Ok((lines(output.path())?, spent_ns))
}

fn lines(path: &Path) -> Result<u64> {
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut lines = 0;
    for line in BufReader::new(file).split(b'\n') {
        line.with_context(|| format!("read {}", path.display()))?;
        lines += 1;
    }
    Ok(lines)
}
