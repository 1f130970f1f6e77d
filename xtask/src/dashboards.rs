//! `cargo xtask dashboards`: makes the dashboards of `deploy/grafana` by the program that stands beside them.

use std::process::Command;

use anyhow::Result;

use crate::setup::{self, Need, python};
use crate::{process, workspace};

/// The command.
pub(crate) fn run() -> Result<()> {
    setup::ensure(&[Need::Monitoring])?;
    let directory = workspace::root().join("deploy/grafana");
    let python = python::grafana_directory()?.join("bin/python");
    process::run(Command::new(python).arg(directory.join("dashboards.py")).arg(&directory))
}
