//! A Kubernetes API server for tests: see [`system_tests::kube::control_plane`].
//!
//! `control-plane run PROGRAMS DIRECTORY` runs one until standard input ends, `control-plane stay PROGRAMS DIRECTORY` until
//! a signal comes; `control-plane become PARENT PROGRAM…` becomes a program that ends with its parent.

use std::process::ExitCode;

use anyhow::{Result, bail};
use system_tests::kube::control_plane::{Options, run};
use system_tests::kube::process::{BECOME, become_program};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [BECOME, parent, program, ref arguments @ ..] => {
            become_program(parent, program, arguments)?;
            Ok(ExitCode::SUCCESS)
        }
        [mode @ ("run" | "stay"), programs, directory] => {
            let options = Options { programs: programs.into(), directory: directory.into(), stay: mode == "stay" };
            // An error stands on standard output, where whoever started it reads.
            Ok(if run(&options).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        _ => bail!("usage: control-plane run|stay PROGRAMS DIRECTORY | become PARENT PROGRAM…"),
    }
}
