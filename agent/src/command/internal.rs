//! `sekisho internal`: what the project's own tools ask; not for users, and not listed.

mod ec2;
mod watch;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Exit, print};
use crate::lines::json;
use crate::{config, tasks, telemetry};

/// What the project's own tools ask.
#[derive(Args)]
pub(super) struct Internal {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// The table of docs/metrics.md.
    MetricsCatalogue,
    /// The table of docs/configuration.md.
    ConfigurationKeys,
    /// What the sources of the node's ceilings tell, as JSON lines, and last what looking cost, in microseconds.
    Looks {
        /// Configuration file (YAML).
        #[arg(long, value_name = "FILE", env = "SEKISHO_CONFIG")]
        config: Option<PathBuf>,
        /// How often to look at all of them.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        rounds: u32,
    },
    /// A driver's own counters of an interface, as they are read of ENA interfaces: an array of names and values.
    Counters {
        /// The interface.
        interface: String,
    },
    Ec2(ec2::Ec2),
    Watch(watch::Watch),
}

#[derive(Serialize)]
struct Costs {
    rounds: Vec<tasks::Round>,
}

impl Internal {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        match self.question {
            Question::MetricsCatalogue => print(&telemetry::markdown())?,
            Question::ConfigurationKeys => print(&config::markdown())?,
            Question::Looks { config, rounds } => {
                let (facts, rounds) = tasks::look(&super::load(config, Vec::new())?, rounds)?;
                let lines = facts.iter().map(json).chain([json(&Costs { rounds })]);
                print(&lines.map(|line| line + "\n").collect::<String>())?;
            }
            Question::Counters { interface } => print(&(json(&tasks::driver_counters(&interface)?) + "\n"))?,
            Question::Ec2(ec2) => return ec2.run(),
            Question::Watch(watch) => return watch.run(),
        }
        Ok(Exit::Fine)
    }
}
