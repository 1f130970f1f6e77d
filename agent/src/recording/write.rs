//! Writing a recording: entries become bytes where they are made, and a thread compresses and writes them. It is waited for at
//! the end alone.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_core::recording::{End, Entry, Header, Why};
use tokio::sync::oneshot;

use super::{ENTRY_BYTES_MAX, Error};
use crate::lines::chain;

/// Bytes that are gathered before the thread is woken.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes that wait for the disk: some 90,000 inputs of 350 bytes.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Room that is kept for the end of the file.
const END_BYTES: u64 = 4 << 10;
/// zstd's own default: twenty times smaller, and hardly slower than the fastest level.
const LEVEL: i32 = 3;

/// What writes the recording of this run.
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    chunk: Vec<u8>,
    entries: u64,
    /// Inputs that came after the end.
    missing: u64,
    done: oneshot::Receiver<()>,
}

struct Shared {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// Nothing more comes, for this reason.
    end: Option<Why>,
    /// The thread takes nothing more.
    gone: bool,
}

/// Whole entries.
struct Chunk {
    bytes: Vec<u8>,
    /// All entries up to its last one.
    entries: u64,
}

/// Counts what it passes on.
struct Counted<W> {
    out: W,
    bytes: u64,
}

// === impl Recorder ===

impl Recorder {
    /// Begins a new file of at most so many bytes, for its owner alone.
    pub(crate) fn create(path: &Path, bytes_max: u64, header: &Header) -> Result<Self, Error> {
        let create = |error| Error::Create(path.to_owned(), error);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(create)?;
        Self::start(file, path.to_owned(), bytes_max, header).map_err(create)
    }

    pub(super) fn start<W: Write + Send + 'static>(
        out: W,
        path: PathBuf,
        bytes_max: u64,
        header: &Header,
    ) -> io::Result<Self> {
        let mut encoder = zstd::stream::write::Encoder::new(Counted { out, bytes: 0 }, LEVEL)?;
        encoder.write_all(crate::lines::json(header).as_bytes())?;
        encoder.write_all(b"\n")?;
        encoder.flush()?;
        let shared = Arc::new(Shared { state: Mutex::default(), ready: Condvar::new() });
        let (tell, done) = oneshot::channel();
        let ours = Arc::clone(&shared);
        std::thread::Builder::new().name("recording".to_owned()).spawn(move || {
            let file = path.display();
            match write_all(&ours, encoder, bytes_max) {
                Ok(End { why: Why::Stopped, entries }) => tracing::info!(%file, entries, "the recording is whole"),
                Ok(End { why: Why::Full, entries }) => {
                    tracing::warn!(%file, entries, "the recording ends early: it has the size that --record-bytes allows");
                }
                Ok(End { why: Why::TooSlow, entries }) => {
                    tracing::warn!(%file, entries, "the recording ends early: its disk is too slow for this node");
                }
                Err(error) => tracing::warn!(%file, error = chain(&error), "the recording is cut off: it cannot be written"),
            }
            let mut state = ours.lock();
            (state.gone, state.bytes) = (true, 0);
            state.chunks.clear();
            drop(state);
            // Who waits may have given up.
            let _ = tell.send(());
        })?;
        Ok(Self { shared, chunk: Vec::new(), entries: 0, missing: 0, done })
    }

    /// Takes one entry. Never waits.
    pub(crate) fn push(&mut self, entry: &Entry<'_>) {
        if self.missing > 0 {
            self.missing = self.missing.saturating_add(1);
            return;
        }
        let start = self.chunk.len();
        self.chunk.extend([0; 4]);
        let written = rmp_serde::encode::write_named(&mut self.chunk, entry);
        let length = self.chunk.len() - start - 4;
        match (written, u32::try_from(length)) {
            (Ok(()), Ok(fits)) if length <= ENTRY_BYTES_MAX => {
                if let Some(place) = self.chunk.get_mut(start..start + 4) {
                    place.copy_from_slice(&fits.to_le_bytes());
                }
                self.entries += 1;
                if self.chunk.len() >= CHUNK_BYTES {
                    self.flush();
                }
            }
            // A value that cannot be written, or that no reader would take: there is none, and a hole must not be left in silence.
            _ => {
                self.chunk.truncate(start);
                self.flush();
                self.end_early();
            }
        }
    }

    /// Hands over what was gathered. Never waits.
    pub(crate) fn flush(&mut self) {
        if self.chunk.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.chunk);
        let mut state = self.shared.lock();
        if state.gone {
            self.missing = self.missing.max(1);
        } else if state.bytes.saturating_add(bytes.len()) > QUEUE_BYTES_MAX {
            drop(state);
            self.end_early();
        } else {
            state.bytes += bytes.len();
            state.chunks.push_back(Chunk { bytes, entries: self.entries });
            self.shared.ready.notify_one();
        }
    }

    fn end_early(&mut self) {
        self.missing = self.missing.max(1);
        self.shared.lock().end.get_or_insert(Why::TooSlow);
        self.shared.ready.notify_one();
    }

    /// Writes what waits, and the end; a disk that takes longer is left behind.
    pub(crate) async fn finish(mut self, wait: Duration) {
        self.flush();
        self.shared.lock().end.get_or_insert(Why::Stopped);
        self.shared.ready.notify_one();
        if tokio::time::timeout(wait, &mut self.done).await.is_err() {
            tracing::warn!("the disk takes nothing; the recording is cut off");
        } else if self.missing > 0 {
            tracing::warn!("what came after the recording's end is missing in it");
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Nothing panics while it holds the lock, and the queue is whole at every step: a poisoned lock is as good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next chunk, or for the end.
    fn next(&self) -> Result<Chunk, Why> {
        let mut state = self.lock();
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                state.bytes = state.bytes.saturating_sub(chunk.bytes.len());
                return Ok(chunk);
            }
            if let Some(why) = state.end {
                return Err(why);
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

// === impl Counted ===

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What the thread does; how the recording ended.
fn write_all<W: Write>(
    shared: &Shared,
    mut encoder: zstd::stream::write::Encoder<'static, Counted<W>>,
    bytes_max: u64,
) -> io::Result<End> {
    let mut entries = 0;
    let why = loop {
        let chunk = match shared.next() {
            Ok(chunk) => chunk,
            Err(why) => break why,
        };
        let most = zstd::zstd_safe::compress_bound(chunk.bytes.len()) as u64;
        if encoder.get_ref().bytes.saturating_add(most).saturating_add(END_BYTES) > bytes_max {
            break Why::Full;
        }
        encoder.write_all(&chunk.bytes)?;
        // Whoever is killed leaves all but the last second.
        encoder.flush()?;
        entries = chunk.entries;
    };
    let end = End { why, entries };
    let bytes = rmp_serde::to_vec_named(&Entry::End(end)).map_err(io::Error::other)?;
    encoder.write_all(&u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes())?;
    encoder.write_all(&bytes)?;
    encoder.finish()?.flush()?;
    Ok(end)
}
