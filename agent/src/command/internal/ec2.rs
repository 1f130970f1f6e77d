//! `sekisho internal ec2`: asks EC2 for what is named, as the running agent would, and prints the facts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use agent_core::facts::{Ec2Fact, Ec2Wishes};
use clap::Args;

use super::super::{Exit, load, print};
use crate::lines::json;
use crate::tasks;

/// Asks EC2 and prints what it tells, as JSON lines.
#[derive(Args)]
pub(super) struct Ec2 {
    /// Configuration file (YAML).
    #[arg(long, value_name = "FILE", env = "SEKISHO_CONFIG")]
    config: Option<PathBuf>,
    /// Interfaces by id.
    #[arg(long, value_delimiter = ',')]
    interfaces: Vec<String>,
    /// The node's own interfaces by hardware address.
    #[arg(long, value_delimiter = ',')]
    macs: Vec<String>,
    /// Security groups.
    #[arg(long, value_delimiter = ',')]
    groups: Vec<String>,
    /// Addresses of peers.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<IpAddr>,
    /// An instance type.
    #[arg(long)]
    instance_type: Option<String>,
    /// Ends when each of these was told: kinds of facts as they are printed, or calls that stand somehow.
    #[arg(long, value_delimiter = ',')]
    until: Vec<String>,
    /// Ends after so many seconds at the latest.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

impl Ec2 {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Self { config, interfaces, macs, groups, peers, instance_type, until, seconds } = self;
        let ids = |ids: Vec<String>| -> BTreeSet<Arc<str>> { ids.into_iter().map(Arc::from).collect() };
        let wishes = Ec2Wishes {
            interfaces: ids(interfaces),
            macs: ids(macs),
            groups: groups.iter().map(|id| id.parse()).collect::<Result<_, _>>()?,
            peers: peers.into_iter().collect(),
            instance_type: instance_type.map(Arc::from),
            fleet_nodes: None,
        };
        let config = load(config, Vec::new())?;
        let mut wanted: BTreeSet<String> = until.into_iter().collect();
        let is_bounded = !wanted.is_empty();
        tasks::ask_ec2(&config, wishes, seconds, |fact| -> anyhow::Result<bool> {
            let line = json(fact);
            wanted.remove(name(fact, &line));
            print(&(line + "\n"))?;
            Ok(is_bounded && wanted.is_empty())
        })?;
        Ok(Exit::Fine)
    }
}

/// A call's name, or the kind as `line` has it: `{"Groups":…`.
fn name<'a>(fact: &Ec2Fact, line: &'a str) -> &'a str {
    match fact {
        Ec2Fact::Source { call, .. } => call.name(),
        _ => line.split('"').nth(1).unwrap_or_default(),
    }
}
