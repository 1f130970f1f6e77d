//! Standard output of `sekisho run`: a table for people, JSON lines for programs. A thread of its own writes, so that a
//! terminal that is paused or a pipe that nobody reads holds up nothing; what it misses is counted and told. [`file`] is the
//! same for a rotated file, [`otlp`] sends rows to a collector.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_core::output::Output;
use agent_core::time::WallNs;
use tokio::sync::oneshot;

use crate::lines::{self, Form};
use crate::lossy::{Entry, Lossy, weigh};

mod file;
pub(crate) mod otlp;
mod table;
mod tally;
#[cfg(test)]
mod tests;

pub(crate) use file::{FileExporter, FileOptions};
use table::Table;
pub(crate) use table::terminal_width;
pub(crate) use tally::Tally;

/// Outputs that wait to be written: three folds of 20,000 rows.
const QUEUE_MAX: usize = 65_536;
/// Bytes of them. A row weighs about 500 bytes: a fold and a half of 20,000 rows, given back when it is written.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Lines are gathered up to this many bytes before they are written.
const CHUNK_BYTES: usize = 64 << 10;

/// The tasks' end.
pub(crate) struct Exporter {
    shared: Arc<Shared>,
    done: oneshot::Receiver<std::io::Result<()>>,
}

/// What lines are made with.
pub(crate) struct Style {
    /// Text is the table.
    pub(crate) form: Form,
    /// The node's name.
    pub(crate) node: Arc<str>,
    /// Columns of the terminal, asked anew for each table.
    pub(crate) width: fn() -> usize,
    /// The wall clock.
    pub(crate) now: fn() -> WallNs,
}

/// Why lines do not reach standard output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No thread.
    #[error("could not start the thread that writes rows")]
    Thread(#[source] std::io::Error),
    /// A write failed; a reader that went away is no error.
    #[error("could not write to standard output")]
    Write(#[source] std::io::Error),
    /// The reader stands still.
    #[error("standard output takes no more lines; the last ones are lost")]
    Stuck,
}

struct Shared {
    state: Mutex<State>,
    ready: Condvar,
}

struct State {
    queue: Lossy<Item>,
    closed: bool,
}

enum Item {
    Output(Arc<Output>),
    /// All that one input brought about has been put out.
    EndOfBatch,
}

// === impl Exporter ===

impl Exporter {
    /// Starts the writing thread.
    pub(crate) fn start<W: Write + Send + 'static>(out: W, style: Style) -> Result<Self, Error> {
        let state = State { queue: Lossy::new(QUEUE_MAX, QUEUE_BYTES_MAX), closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), ready: Condvar::new() });
        let (tell, done) = oneshot::channel();
        let ours = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("stdout".to_owned())
            .spawn(move || {
                // The tasks may have given up waiting: then nobody wants to know.
                let _ = tell.send(write_all(&ours, out, &style));
            })
            .map_err(Error::Thread)?;
        Ok(Self { shared, done })
    }

    /// Hands over the outputs that one input brought about. Never waits.
    pub(crate) fn push(&self, outputs: &[Arc<Output>]) {
        if outputs.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        for output in outputs {
            state.queue.push(Item::Output(Arc::clone(output)), weigh(output));
        }
        state.queue.note(Item::EndOfBatch);
        self.shared.ready.notify_one();
    }

    /// Waits until standard output is gone: its reader went away (no error), or a write failed.
    pub(crate) async fn gone(&mut self) -> Result<(), Error> {
        flatten((&mut self.done).await)
    }

    /// Lets what waits be written, as long as the reader goes on taking: one that takes nothing for so long is left behind.
    pub(crate) async fn finish(mut self, silence: Duration) -> Result<(), Error> {
        self.shared.lock().closed = true;
        self.shared.ready.notify_one();
        loop {
            let before = self.shared.lock().queue.len();
            if let Ok(done) = tokio::time::timeout(silence, &mut self.done).await {
                return flatten(done);
            }
            if self.shared.lock().queue.len() >= before {
                return Err(Error::Stuck);
            }
        }
    }
}

fn flatten(done: Result<std::io::Result<()>, oneshot::error::RecvError>) -> Result<(), Error> {
    match done {
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Write(error)),
        _ => Ok(()),
    }
}

// === impl Shared ===

impl Shared {
    /// Nothing panics while it holds the lock, and the queue is whole at every step: a poisoned lock is as good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next; `None` at the end.
    fn next(&self) -> Option<Entry<Item>> {
        let mut state = self.lock();
        loop {
            if let Some(entry) = state.queue.pop() {
                return Some(entry);
            }
            if state.closed {
                return None;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }
}

/// What the thread does.
fn write_all<W: Write>(shared: &Shared, mut out: W, style: &Style) -> std::io::Result<()> {
    let mut table = Table::default();
    let mut chunk = String::new();
    while let Some(entry) = shared.next() {
        match (entry, style.form) {
            (Entry::Item(Item::Output(output), _), Form::Json) => {
                lines::write(&output, Form::Json, &style.node, &mut chunk);
            }
            (Entry::Item(Item::Output(output), _), Form::Text) => table.add(output, &mut chunk),
            (Entry::Item(Item::EndOfBatch, _), Form::Json) => {}
            (Entry::Item(Item::EndOfBatch, _), Form::Text) => table.end_of_batch((style.width)(), &mut chunk),
            (Entry::Dropped(count), form) => {
                table.end_of_batch((style.width)(), &mut chunk);
                lines::write_dropped(count, (style.now)(), form, &style.node, &mut chunk);
            }
        }
        if chunk.len() >= CHUNK_BYTES || shared.is_empty() {
            out.write_all(chunk.as_bytes())?;
            out.flush()?;
            chunk.clear();
            chunk.shrink_to(CHUNK_BYTES);
        }
    }
    table.end_of_batch((style.width)(), &mut chunk);
    out.write_all(chunk.as_bytes())?;
    out.flush()
}
