//! `sekisho check`: reviews manifests without a cluster.

mod associations;
mod read;
mod sarif;
mod text;

use std::path::PathBuf;

use agent_core::check::{Options, check};
use agent_core::finding::{Settings, Severity};
use agent_core::papers::enforcement::Mode;
use agent_core::papers::identity::Associations;
use clap::{Args, ValueEnum};

use super::{Exit, print};
use crate::config::{Config, Findings, Sources};
use crate::lines::json;
use crate::node;

/// Says what the pods of manifests will run with, security groups and AWS identity, and what is wrong with them. Needs
/// no cluster and no AWS account.
///
/// Reads pods, everything with a pod template, service accounts, security group policies and namespaces, as YAML or
/// JSON; nodes and events too where they stand beside pods of a cluster. Other objects are skipped and counted. An
/// object without a uid is judged by what admission will make of it, one with a uid (taken from a cluster) as it is.
/// Findings that a waiver accepts are shown as such, and count for nothing else. Exits with 1 when there are others (see
/// --fail-on), 3 when something could not be read.
#[derive(Args)]
pub(super) struct Check {
    /// Files, directories (with everything below that ends in .yaml, .yml or .json), or - for standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// The agent's configuration: its `findings` hold here too, waivers above all. Options come before it, the environment
    /// is not looked at.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

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

    /// Most security groups of an interface: the account's quota, 5 when nothing else is said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(5..=16))]
    max_security_groups: Option<u8>,

    /// What the annotations of the IRSA webhook begin with, eks.amazonaws.com when nothing else is said.
    #[arg(long, value_name = "PREFIX")]
    irsa_annotation_prefix: Option<String>,

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
        let sources = Sources { file: self.config.clone(), environment: &|_| None, flags: Vec::new() };
        let findings = self.findings(Config::load(&sources)?.findings);
        let prefix = findings.irsa_annotation_prefix.clone();
        let Settings { papers: settings, waivers, .. } = findings.settings();
        let mode = self.enforcement_mode.map(|mode| match mode {
            EnforcementMode::Strict => Mode::Strict,
            EnforcementMode::Standard => Mode::Standard,
        });
        let manifests = read::manifests(&self.paths, &prefix);
        let now = node::clock().1;
        let report = check(manifests, &Options { settings, mode, associations, waivers, now });
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

impl Check {
    /// The configuration's, with what options say in its place.
    fn findings(&self, mut findings: Findings) -> Findings {
        if !self.cluster_security_group.is_empty() {
            findings.cluster_security_groups.clone_from(&self.cluster_security_group);
        }
        if let Some(most) = self.max_security_groups {
            findings.max_groups = most.into();
        }
        if let Some(prefix) = &self.irsa_annotation_prefix {
            findings.irsa_annotation_prefix.clone_from(prefix);
        }
        findings
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
