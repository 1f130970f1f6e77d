//! `sekisho sg`: security groups, from files alone or from the running agent.

mod audit;
mod explain;
mod files;
mod question;
mod report;

use clap::{Args, Subcommand};

use super::Exit;

/// Security groups: which rule lets a flow pass, or which one is missing.
#[derive(Args)]
pub(super) struct Sg {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Explain(Box<explain::Explain>),
    Audit(audit::Audit),
}

impl Sg {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        match self.command {
            Command::Explain(explain) => explain.run(),
            Command::Audit(audit) => audit.run(),
        }
    }
}
