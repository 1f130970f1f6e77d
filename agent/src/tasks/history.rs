//! The history on the node, as the pump sees it: started if it can be, fed, counted and ended. Without it the agent goes on.

use std::sync::Arc;
use std::time::Duration;

use agent_core::continuity::{Before, Losses, Mark, Place};
use agent_core::output::Output;

use crate::api::protocol::HistoryStatus;
use crate::config::Config;
use crate::history::{Counts, History, Options, Told};
use crate::node;
use crate::telemetry::Telemetry;

/// How long the disk may take nothing while the agent stops.
const SILENCE: Duration = Duration::from_secs(2);

/// The history, or why there is none.
pub(super) struct Keeper {
    history: Option<History>,
    counts: Counts,
    directory: String,
    enabled: bool,
    /// Why it could not be started.
    refused: Option<String>,
}

// === impl Keeper ===

impl Keeper {
    /// Opens the store, unless it is switched off. A directory that cannot be used is said once.
    pub(super) fn start(config: &Config, node: &Arc<str>, continues: Option<Losses>) -> Self {
        let directory = config.data_dir.display().to_string();
        let enabled = config.history.enabled;
        let mut keeper = Self { directory, enabled, ..Self::off() };
        if !enabled {
            return keeper;
        }
        let options = Options {
            directory: config.data_dir.clone(),
            quota_bytes: config.history.max_bytes,
            age_days: config.history.max_days,
            free_percent: config.history.free_percent,
            node: Arc::clone(node),
            boot_id: node::boot_id(&config.roots.proc),
            continues,
        };
        match History::start(options, || node::clock().1) {
            Ok(history) => {
                tracing::info!(directory = keeper.directory, "the history is kept");
                keeper.counts = history.counts().clone();
                keeper.history = Some(history);
            }
            Err(error) => {
                let why = crate::lines::chain(&error);
                tracing::warn!(
                    why,
                    "no history is kept: name another directory by data_dir, or set history.enabled to false"
                );
                keeper.refused = Some(why);
            }
        }
        keeper
    }

    /// No history, on purpose.
    pub(super) fn off() -> Self {
        Self { history: None, counts: Counts::default(), directory: String::new(), enabled: false, refused: None }
    }

    /// Rows are written.
    pub(super) fn is_kept(&self) -> bool {
        self.history.is_some()
    }

    /// The run before this one, as the history tells.
    pub(super) fn before(&self) -> Option<&Before> {
        self.history.as_ref()?.before()
    }

    /// Metadata exchanges of the run before that may be told again.
    pub(super) fn told(&mut self) -> Told {
        self.history.as_mut().map(History::told).unwrap_or_default()
    }

    /// How far the metadata ring's records are where they shall be: on disk, or without a history where `told` says.
    pub(super) fn place(&self, told: Option<Place>) -> Option<Place> {
        if self.history.is_some() { self.counts.place() } else { told }
    }

    /// Hands rows over, and says where the run stands once these and all before them are written. Never waits.
    pub(super) fn push(&self, outputs: &[Arc<Output>], mark: Mark) {
        if let Some(history) = &self.history {
            history.push(outputs, mark);
        }
    }

    /// Shows the totals; what was lost since the last time and is to be written off.
    pub(super) fn count(&self, telemetry: &Telemetry) -> Losses {
        let mut lost = Losses::default();
        for (ledger, records) in self.counts.settle() {
            if let Some(sum) = lost.get_mut(ledger as usize) {
                *sum += records;
            }
        }
        let writable = self.history.is_some() && self.counts.failing().is_none();
        telemetry.history(self.counts.stored(), self.counts.lost(), self.counts.bytes(), writable);
        lost
    }

    /// For `sekisho doctor`.
    pub(super) fn status(&self) -> HistoryStatus {
        HistoryStatus {
            directory: self.directory.clone(),
            enabled: self.enabled,
            failing: self.refused.clone().or_else(|| self.counts.failing()),
            bytes: self.counts.bytes(),
            stored_rows: self.counts.stored(),
            lost_rows: self.counts.lost(),
        }
    }

    /// Writes what waits.
    pub(super) async fn finish(&mut self) {
        if let Some(history) = self.history.take() {
            history.finish(SILENCE).await;
        }
    }
}
