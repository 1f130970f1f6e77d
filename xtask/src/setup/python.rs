//! The AWS SDK for Python and the AWS CLI, clients that the system tests watch, in an environment of their own.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result};

use super::Need;
use crate::{process, workspace};

/// Pinned, so that a test that fails fails for what changed here. Both belong to the same release of the SDK.
const REQUIREMENTS: [&str; 2] = ["boto3~=1.44.0", "awscli~=1.46.0"];

/// The environment's directory; the tests find `bin/python` and `bin/aws` in it.
pub(crate) fn directory() -> PathBuf {
    workspace::target().join("python")
}

/// Holds the requirements that the environment was made from.
fn stamp() -> PathBuf {
    directory().join("requirements")
}

pub(super) fn missing(needs: &[Need]) -> Option<String> {
    if !needs.contains(&Need::Test) {
        return None;
    }
    let present = fs::read_to_string(stamp()).is_ok_and(|text| text == REQUIREMENTS.join("\n"))
        && ["python", "aws"].into_iter().all(|program| directory().join("bin").join(program).is_file());
    (!present).then(|| format!("{} into {}", REQUIREMENTS.join(" and "), directory().display()))
}

pub(super) fn install(_: &[Need]) -> Result<()> {
    let python = process::find("python3").context("python3 is not installed")?;
    // An environment whose Python is gone, or of other requirements, is made anew.
    process::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(directory()))?;
    process::run(
        Command::new(directory().join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(REQUIREMENTS)
            // A user's own Python settings have no place in it.
            .env_remove("PYTHONPATH"),
    )
    .with_context(|| {
        let index = env::var_os("PIP_INDEX_URL").map_or("PyPI", |_| "the package index of PIP_INDEX_URL");
        format!("install from {index}; is it reachable?")
    })?;
    fs::write(stamp(), REQUIREMENTS.join("\n")).with_context(|| format!("write {}", stamp().display()))
}
