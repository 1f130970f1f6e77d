//! The Engine, and the recording of everything that it is told. Nothing else changes it.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use agent_core::backends::Connection;
use agent_core::continuity::Losses;
use agent_core::dns::Tally;
use agent_core::engine::Engine;
use agent_core::finding::ledger::{RestoreError, Snapshot};
use agent_core::input::Input;
use agent_core::output::{Identity, Output};
use agent_core::recording::Entry;

use crate::recording::Recorder;

/// How long the disk may take while the agent stops.
const FINISH_WAIT: Duration = Duration::from_secs(2);

/// The one place through which the Engine is told anything.
pub(in crate::tasks) struct Recorded {
    /// Boxed: it would make every future that holds it large.
    engine: Box<Engine>,
    recorder: Option<Recorder>,
}

impl Recorded {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine: Box::new(engine), recorder: None }
    }

    /// From now on, which is before the Engine is told anything.
    pub(super) fn record(&mut self, recorder: Option<Recorder>) {
        self.recorder = recorder;
    }

    /// See [`Engine::handle`].
    pub(super) fn handle(&mut self, input: Input, outputs: &mut Vec<Output>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.push(&Entry::Input(Cow::Borrowed(&input)));
        }
        self.engine.handle(input, outputs);
    }

    /// See [`Engine::restore`].
    pub(in crate::tasks) fn restore(&mut self, ledger: Snapshot, same_boot: bool) -> Result<usize, RestoreError> {
        if let Some(recorder) = &mut self.recorder {
            recorder.push(&Entry::Restored { ledger: Cow::Borrowed(&ledger), same_boot });
        }
        self.engine.restore(ledger, same_boot)
    }

    /// See [`Engine::lost_store`].
    pub(super) fn lost_store(&mut self, losses: Losses) {
        if losses == Losses::default() {
            return;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.push(&Entry::LostStore(losses));
        }
        self.engine.lost_store(losses);
    }

    /// See [`Engine::asks_backends`]. It takes what is to be asked, which decides nothing.
    pub(super) fn asks_backends(&mut self) -> Option<Vec<Connection>> {
        self.engine.asks_backends()
    }

    /// See [`Engine::take_dns`]. It takes what is to be shown, which decides nothing.
    pub(super) fn take_dns(&mut self) -> impl Iterator<Item = (Arc<Identity>, Tally)> {
        self.engine.take_dns()
    }

    /// Lets what was recorded lately be written.
    pub(super) fn flush(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.flush();
        }
    }

    /// Ends the recording.
    pub(super) async fn finish(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            recorder.finish(FINISH_WAIT).await;
        }
    }
}

impl Deref for Recorded {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}
