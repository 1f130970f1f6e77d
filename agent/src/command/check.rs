//! `sekisho check`: reviews manifests without a cluster.

mod associations;
mod read;
mod sarif;
mod text;

use std::path::PathBuf;

use agent_core::check::{Options, check};
use agent_core::finding::Severity;
use agent_core::papers::Settings;
use agent_core::papers::enforcement::Mode;
use agent_core::papers::identity::Associations;
use clap::{Args, ValueEnum};

use super::{Exit, print};
use crate::lines::json;

/// Says what the pods of manifests will run with, security groups and AWS identity, and what is wrong with them. Needs
/// no cluster and no AWS account.
///
/// Reads pods, everything with a pod template, service accounts, security group policies and namespaces, as YAML or
/// JSON; nodes and events too where they stand beside pods of a cluster. Other objects are skipped and counted. An
/// object without a uid is judged by what admission will make of it, one with a uid (taken from a cluster) as it is.
/// Exits with 1 when there are findings (see --fail-on), 3 when something could not be read.
#[derive(Args)]
pub(super) struct Check {
    /// Files, directories (with everything below that ends in .yaml, .yml or .json), or - for standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Pod Identity associations of the cluster, which manifests do not tell: what `aws eks
    /// list-pod-identity-associations --cluster-name NAME` printed as JSON.
    #[arg(long, value_name = "FILE")]
    pod_identity_associations: Option<PathBuf>,

    /// Id of the cluster security group, to find policies that depend on it. Several: repeat it, or separate by commas.
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = group_id)]
    cluster_security_group: Vec<String>,

    /// What the VPC CNI's `POD_SECURITY_GROUP_ENFORCING_MODE` is set to.
    #[arg(long, value_enum, value_name = "MODE")]
    enforcement_mode: Option<EnforcementMode>,

    /// Most security groups of an interface: the account's quota.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(5..=16))]
    max_security_groups: u8,

    /// What the annotations of the IRSA webhook begin with.
    #[arg(long, value_name = "PREFIX", default_value = crate::cluster::convert::IRSA_PREFIX_DEFAULT)]
    irsa_annotation_prefix: String,

    /// Least severity that makes the exit code 1. Information alone does not, unless asked for: it is advice.
    #[arg(long, value_enum, value_name = "SEVERITY", default_value = "low")]
    fail_on: FailOn,

    /// How the answer looks; sarif is SARIF 2.1.0, for code scanning.
    #[arg(short, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum EnforcementMode {
    Strict,
    Standard,
}

#[derive(Clone, Copy, ValueEnum)]
enum FailOn {
    Info,
    Low,
    Warning,
    Medium,
    High,
    Critical,
    /// Findings do not change the exit code.
    Never,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One object.
    Json,
    /// SARIF 2.1.0.
    Sarif,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let associations = match &self.pod_identity_associations {
            Some(file) => Associations::Known(associations::read(file)?),
            None => Associations::Unknown,
        };
        let settings = Settings {
            cluster_groups: self.cluster_security_group.iter().map(|id| id.as_str().into()).collect(),
            max_groups: usize::from(self.max_security_groups),
            ..Settings::default()
        };
        let mode = self.enforcement_mode.map(|mode| match mode {
            EnforcementMode::Strict => Mode::Strict,
            EnforcementMode::Standard => Mode::Standard,
        });
        let manifests = read::manifests(&self.paths, &self.irsa_annotation_prefix);
        let report = check(manifests, &Options { settings, mode, associations });
        for problem in &report.errors {
            eprintln!("sekisho: {}", text::problem(problem));
        }
        print(&match self.output {
            Output::Text => text::report(&report),
            Output::Json => format!("{}\n", json(&report)),
            Output::Sarif => format!("{}\n", json(&sarif::log(&report))),
        })?;
        let found = self.fail_on.least().is_some_and(|least| report.at_least(least).next().is_some());
        Ok(match (report.errors.is_empty(), found) {
            // What was not read may hold anything, so this comes first.
            (false, _) => Exit::CannotRun,
            (true, true) => Exit::Found,
            (true, false) => Exit::Fine,
        })
    }
}

impl FailOn {
    fn least(self) -> Option<Severity> {
        match self {
            Self::Info => Some(Severity::Info),
            Self::Low => Some(Severity::Low),
            Self::Warning => Some(Severity::Warning),
            Self::Medium => Some(Severity::Medium),
            Self::High => Some(Severity::High),
            Self::Critical => Some(Severity::Critical),
            Self::Never => None,
        }
    }
}

fn group_id(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sg-").unwrap_or_default();
    let fits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("allowed: the id of a security group, as sg-0123456789abcdef0".to_owned())
    }
}
