//! The core's hottest functions, each by itself: instructions, which do not depend on the machine, and processor time.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::result::{Figure, Load, Spread};
use crate::process;

/// The bench of the package `agent-core`.
const BENCH: &str = "hot";

/// One of them.
struct Function {
    name: &'static str,
    /// What is done, for people.
    what: &'static str,
    /// What a size counts.
    of: &'static str,
    sizes: [u32; 3],
    /// How often it is done under callgrind, which is some fifty times slower.
    counted: u32,
    /// How often it is done for its processor time, by size: some tenths of a second in all.
    timed: fn(u32) -> u32,
}

const FUNCTIONS: [Function; 4] = [
    Function {
        name: "decode",
        what: "a record to an input",
        of: "records at a time",
        sizes: [10, 100, 1_000],
        counted: 20,
        timed: |size| 4_000_000 / size,
    },
    Function {
        name: "fold",
        what: "a connection into rows, and the fold's end",
        of: "peers",
        sizes: [200, 2_000, 20_000],
        counted: 1,
        timed: |_| 20,
    },
    Function {
        name: "metadata",
        what: "packets of a metadata exchange to a fact",
        of: "connections",
        sizes: [10, 100, 1_000],
        counted: 10,
        timed: |size| 50_000 / size,
    },
    Function {
        name: "verdict",
        what: "a verdict of groups on a flow, both ends",
        of: "rules a side",
        sizes: [6, 60, 600],
        counted: 1,
        timed: |_| 40,
    },
];

/// Processor time is measured so often.
const ROUNDS: usize = 5;

/// What the bench prints.
#[derive(Deserialize)]
struct Printed {
    units: u64,
    cpu_ns: u64,
}

/// Measures all of them.
pub(super) fn measure() -> Result<Vec<Figure>> {
    let program = build()?;
    let mut all = Vec::new();
    for function in &FUNCTIONS {
        for size in function.sizes {
            eprintln!("functions: {}, {size} {}", function.name, function.of);
            all.extend(one(&program, function, size).with_context(|| format!("measure {}", function.name))?);
        }
    }
    Ok(all)
}

fn one(program: &Path, function: &Function, size: u32) -> Result<Vec<Figure>> {
    let Function { name, what, of, counted, timed, .. } = *function;
    // What precedes the function is the same in both, and goes with the difference.
    let once = instructions(program, name, size, counted)?;
    let twice = instructions(program, name, size, 2 * counted)?;
    ensure!(twice.0 > once.0 && twice.1 > once.1, "twice the work is not more of it");
    let instructions = float(twice.0 - once.0) / float(twice.1 - once.1);
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let printed =
            printed(process::capture(Command::new(program).args(arguments(name, size, timed(size))))?.trim())?;
        ensure!(printed.cpu_ns > 0, "it took no time: it is done too few times to be measured");
        times.push(float(printed.cpu_ns) / float(printed.units));
    }
    let ns = Spread::of(times)?;
    let load = || Some(Load { amount: size.into(), of: of.to_owned() });
    let figure = |kind: &str, what: String, unit: &str, measured| Figure {
        name: format!("functions/{name}/{kind}"),
        what,
        unit: unit.to_owned(),
        load: load(),
        measured,
        at_most: None,
        reached: None,
        is_detail: false,
    };
    let rate = Spread { median: 1e9 / ns.median, least: 1e9 / ns.greatest, greatest: 1e9 / ns.least };
    Ok(vec![
        figure("instructions", format!("{what}, instructions"), "", Spread::once(instructions)),
        figure("cpu", format!("{what}, CPU"), "ns", ns),
        figure("rate", format!("{what}, a second of CPU"), "/s", rate),
    ])
}

/// Instructions of a run, and units that it did.
fn instructions(program: &Path, name: &str, size: u32, times: u32) -> Result<(u64, u64)> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(arguments(name, size, times));
    let output = command.output().context("run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{}` ended with {}: {said}", process::line(&command), output.status);
    let units = printed(String::from_utf8_lossy(&output.stdout).trim())?.units;
    Ok((collected(&said).with_context(|| format!("callgrind did not say what it counted: {said}"))?, units))
}

/// `==123== Collected : 4567`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

fn printed(line: &str) -> Result<Printed> {
    let printed: Printed = serde_json::from_str(line).with_context(|| format!("read what it printed: {line}"))?;
    ensure!(printed.units > 0, "it did nothing");
    Ok(printed)
}

fn arguments(name: &str, size: u32, times: u32) -> [String; 3] {
    [name.to_owned(), size.to_string(), times.to_string()]
}

fn build() -> Result<PathBuf> {
    let mut command = process::cargo();
    command.args(["bench", "--no-run", "--package", "agent-core", "--bench", BENCH]);
    let built = process::cargo_build(&mut command).context("build the functions' bench")?;
    let found = built.into_iter().find(|executable| executable.name == BENCH);
    found.map(|executable| executable.path).with_context(|| format!("cargo built no executable `{BENCH}`"))
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrind_says_what_it_counted() {
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 5265960\n==7== \n"), Some(5_265_960));
        assert_eq!(collected("==7== Command: hot"), None);
    }

    #[test]
    fn nothing_done_is_no_measurement() {
        assert_eq!(printed(r#"{"units":2,"cpu_ns":5}"#).unwrap().cpu_ns, 5);
        assert!(printed(r#"{"units":0,"cpu_ns":5}"#).is_err());
        assert!(printed("").is_err());
    }
}
