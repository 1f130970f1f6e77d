//! The programs of this workspace that a machine runs: `sekisho`, the test program `kernel`, and the tests' helpers.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Arch;
use crate::{build, process};

/// The test program that is made for any kernel.
const TESTS: &str = "kernel";

/// What these tests start. cargo builds all programs of a package along with its tests.
const HELPERS: [&str; 1] = ["actor"];

/// Executables for one architecture.
pub(super) struct Programs {
    /// The agent, optimised.
    pub(super) sekisho: PathBuf,
    /// The tests.
    pub(super) tests: PathBuf,
    /// What the tests start, by name.
    pub(super) helpers: Vec<(String, PathBuf)>,
}

/// Builds them.
pub(super) fn build(arch: Arch, host: Arch) -> Result<Programs> {
    build::probes(arch.rust(), false)?;
    let cross = (arch != host).then_some(build::ARM64);
    let sekisho = build::agent(build::Options { release: true, probe_log: false, cross })?;

    let mut command = process::cargo();
    command.args(["test", "--no-run", "--package", "system-tests", "--test", TESTS]);
    if let Some(cross) = cross {
        cross.apply(&mut command);
    }
    let mut tests = None;
    let mut helpers = Vec::new();
    for executable in process::cargo_build(&mut command).context("build the system tests")? {
        match executable.kind.as_str() {
            "test" if executable.name == TESTS => tests = Some(executable.path),
            "bin" if HELPERS.contains(&executable.name.as_str()) => helpers.push((executable.name, executable.path)),
            _ => {}
        }
    }
    Ok(Programs { sekisho, tests: tests.with_context(|| format!("cargo built no test program `{TESTS}`"))?, helpers })
}
