//! Rows as JSON lines in a file that is rotated, for whoever collects files. A thread of its own writes; what it cannot take, and
//! what the disk does not, is counted, and a line says so where lines are missing. Lines are never split.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use agent_core::output::Output;
use agent_core::time::WallNs;
use tokio::sync::oneshot;

use super::{CHUNK_BYTES, Error, Item, QUEUE_BYTES_MAX, QUEUE_MAX, Shared, State, Tally};
use crate::lines::{self, Form, LineKind};
use crate::lossy::{Entry, Lossy, weigh};

mod rotating;
#[cfg(test)]
mod tests;

use rotating::Rotating;

/// Where rows go.
#[derive(Clone, Debug)]
pub(crate) struct FileOptions {
    /// The file that is written; earlier ones are `PATH.1` (the youngest) and so on.
    pub(crate) path: PathBuf,
    /// Most bytes of one file.
    pub(crate) bytes_max: u64,
    /// Earlier files that are kept, at least one.
    pub(crate) files: u32,
    /// Kinds of rows; none: all.
    pub(crate) kinds: Vec<LineKind>,
    /// The node's name.
    pub(crate) node: Arc<str>,
    /// The wall clock.
    pub(crate) now: fn() -> WallNs,
}

/// The tasks' end.
pub(crate) struct FileExporter {
    shared: Arc<Shared>,
    kinds: Vec<LineKind>,
    tally: Tally,
    done: oneshot::Receiver<()>,
}

impl FileExporter {
    /// Starts the writing thread. A file that cannot be written is no error: it is tried again with each batch.
    pub(crate) fn start(options: FileOptions) -> Result<Self, Error> {
        let state = State { queue: Lossy::new(QUEUE_MAX, QUEUE_BYTES_MAX), closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), ready: Condvar::new() });
        let tally = Tally::default();
        let kinds = options.kinds.clone();
        let (tell, done) = oneshot::channel();
        let (ours, counts) = (Arc::clone(&shared), tally.clone());
        std::thread::Builder::new()
            .name("export-file".to_owned())
            .spawn(move || {
                write_all(&ours, &options, &counts);
                // The tasks may have given up waiting: then nobody wants to know.
                let _ = tell.send(());
            })
            .map_err(Error::Thread)?;
        Ok(Self { shared, kinds, tally, done })
    }

    /// What became of rows.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Hands rows over. Never waits.
    pub(crate) fn push(&self, outputs: &[Arc<Output>]) {
        let wanted = outputs.iter().filter(|output| self.kinds.is_empty() || self.kinds.contains(&lines::kind(output)));
        let mut state = self.shared.lock();
        let mut any = false;
        for output in wanted {
            any = true;
            if !state.queue.push(Item::Output(Arc::clone(output)), weigh(output)) {
                self.tally.lose(1);
            }
        }
        if any {
            self.shared.ready.notify_one();
        }
    }

    /// Writes what waits; a disk that takes longer is left behind.
    pub(crate) async fn finish(mut self, wait: Duration) {
        self.shared.lock().closed = true;
        self.shared.ready.notify_one();
        if tokio::time::timeout(wait, &mut self.done).await.is_err() {
            tracing::warn!("the disk of export.file takes nothing; its last rows are lost");
        }
    }
}

/// What the thread does.
fn write_all(shared: &Shared, options: &FileOptions, tally: &Tally) {
    let mut file = Rotating::new(options.path.clone(), options.bytes_max, options.files);
    let (mut chunk, mut rows) = (String::new(), 0);
    // Not written, and not told yet.
    let mut missing = 0;
    while let Some(entry) = shared.next() {
        match entry {
            Entry::Item(Item::Output(output), _) => {
                lines::write(&output, Form::Json, &options.node, &mut chunk);
                rows += 1;
            }
            Entry::Item(Item::EndOfBatch, _) => {}
            // Counted where they were dropped.
            Entry::Dropped(count) => missing += count,
        }
        if chunk.len() < CHUNK_BYTES && !shared.is_empty() {
            continue;
        }
        let mut text = String::new();
        if missing > 0 {
            lines::write_dropped(missing, (options.now)(), Form::Json, &options.node, &mut text);
        }
        text.push_str(&chunk);
        match file.write(text.as_bytes()) {
            Ok(()) => {
                missing = 0;
                tally.ship(rows);
                if tally.state(None) {
                    tracing::info!(path = %options.path.display(), "rows are written to the file of export.file again");
                }
            }
            Err(error) => {
                missing += rows;
                tally.lose(rows);
                let why = error.to_string();
                if tally.state(Some(why.clone())) {
                    tracing::warn!(path = %options.path.display(), why, "rows are lost: the file of export.file cannot be written");
                }
            }
        }
        chunk.clear();
        chunk.shrink_to(CHUNK_BYTES);
        rows = 0;
    }
}
