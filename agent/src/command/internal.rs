//! `sekisho internal`: what the project's own tools ask; not for users, and not listed.

use clap::{Args, ValueEnum};

use super::{Exit, print};
use crate::{config, telemetry};

/// The generated parts of the documentation.
#[derive(Args)]
pub(super) struct Internal {
    page: Page,
}

#[derive(Clone, Copy, ValueEnum)]
enum Page {
    /// The table of docs/metrics.md.
    MetricsCatalogue,
    /// The table of docs/configuration.md.
    ConfigurationKeys,
}

impl Internal {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        print(&match self.page {
            Page::MetricsCatalogue => telemetry::markdown(),
            Page::ConfigurationKeys => config::markdown(),
        })?;
        Ok(Exit::Fine)
    }
}
