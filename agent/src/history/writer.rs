//! The thread that writes, and the queues before it. Whoever hands rows over never waits; what does not fit, and what the
//! disk does not take, is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agent_core::books::{LEDGERS, Ledger, Records};
use agent_core::continuity::{Before, Mark, Place};
use agent_core::output::{AttributionKind, Output};
use agent_core::time::WallNs;

use super::standing::{Told, records};
use super::store::{Error, Options, Store};
use crate::lines::chain;
use crate::lossy::{Entry, Lossy, weigh};

/// Requests, findings and gaps that wait: some 300 requests a second for 10 s of a disk that stands still.
const URGENT_MAX: usize = 4_096;
/// Bytes of them, at about 800 each.
const URGENT_BYTES_MAX: usize = 4 << 20;
/// Everything else that waits: a fold of 20,480 rows and half as many again.
const BULK_MAX: usize = 32_768;
/// Bytes of them. They are shared with whoever else waits for the same rows.
const BULK_BYTES_MAX: usize = 16 << 20;
/// Requests, findings and gaps are gathered for so long, so that many of them cost one sync; synced within a second.
const URGENT_WAIT: Duration = Duration::from_millis(250);
/// The rest is gathered for so long; well below the ten seconds that a crash of the machine may cost.
const BULK_WAIT: Duration = Duration::from_secs(2);
/// Rows taken out at a time: between two of these batches urgent rows get their turn.
const BATCH_ROWS: usize = 2_048;
/// Without rows, it is written this often that the agent still runs.
const ALIVE_EVERY: Duration = Duration::from_mins(1);

/// What the history has done. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    stored: AtomicU64,
    lost: AtomicU64,
    bytes: AtomicU64,
    failing: AtomicBool,
    /// Why it fails; kept when it is over.
    why: Mutex<Option<String>>,
    /// How far the metadata ring's records stand on disk.
    place: Mutex<Option<Place>>,
    /// Records of lost rows that the books do not know yet, by ledger.
    unsettled: [AtomicU64; LEDGERS],
    /// Records of rows that found no room, which the store does not know of yet, by ledger.
    dropped: [AtomicU64; LEDGERS],
}

/// The tasks' end.
pub(crate) struct History {
    queue: Arc<Queue>,
    counts: Counts,
    before: Option<Before>,
    told: Told,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

struct State {
    urgent: Lane,
    bulk: Lane,
    /// Where the run stands, once all rows here are written.
    mark: Option<Mark>,
    /// The run was stopped: all rows came.
    closed: bool,
    /// The thread is through with everything.
    done: bool,
}

struct Lane {
    rows: Lossy<Arc<Output>>,
    /// When the first of them came.
    since: Option<Instant>,
    wait: Duration,
    /// So many are not waited for.
    half: usize,
}

// === impl Counts ===

impl Counts {
    /// Rows that stand on disk.
    pub(crate) fn stored(&self) -> u64 {
        self.0.stored.load(Ordering::Relaxed)
    }

    /// Rows that were not stored: the disk did not take them, or not in time.
    pub(crate) fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Why the last rows could not be written; `None` while all is well.
    pub(crate) fn failing(&self) -> Option<String> {
        let failing = self.0.failing.load(Ordering::Relaxed);
        lock(&self.0.why).clone().filter(|_| failing)
    }

    /// How far the history has what the metadata ring told; `None` before it has anything.
    pub(crate) fn place(&self) -> Option<Place> {
        *lock(&self.0.place)
    }

    /// Records of lost rows since the last time this was asked.
    pub(crate) fn settle(&self) -> impl Iterator<Item = (Ledger, u64)> {
        Ledger::ALL.iter().zip(&self.0.unsettled).filter_map(|(ledger, records)| {
            let records = records.swap(0, Ordering::Relaxed);
            (records > 0).then_some((*ledger, records))
        })
    }

    fn lose(&self, rows: u64, lost: Records) {
        self.0.lost.fetch_add(rows, Ordering::Relaxed);
        for ((_, records), unsettled) in lost.iter().zip(&self.0.unsettled) {
            unsettled.fetch_add(records, Ordering::Relaxed);
        }
    }

    /// Records that never reach the store.
    fn drop_records(&self, lost: Records) {
        for ((_, records), dropped) in lost.iter().zip(&self.0.dropped) {
            dropped.fetch_add(records, Ordering::Relaxed);
        }
    }

    /// Those since the last time this was asked.
    fn dropped(&self) -> impl Iterator<Item = (Ledger, u64)> {
        Ledger::ALL.iter().copied().zip(self.0.dropped.iter().map(|records| records.swap(0, Ordering::Relaxed)))
    }

    /// The store works, or why it does not; logged when that changes.
    fn state(&self, error: Option<&Error>) {
        let failing = error.is_some();
        if let Some(error) = error {
            *lock(&self.0.why) = Some(chain(error));
        }
        match (self.0.failing.swap(failing, Ordering::Relaxed), error) {
            (false, Some(error)) => {
                tracing::error!(why = chain(error), "the history cannot be written; its rows are lost");
            }
            (true, None) => tracing::info!(lost = self.lost(), "the history is written again"),
            _ => {}
        }
    }
}

// === impl History ===

impl History {
    /// Opens the store and starts the thread that writes it.
    pub(crate) fn start(options: Options, now: fn() -> WallNs) -> Result<Self, Error> {
        let mut store = Store::open(options, now())?;
        let (before, told) = (store.before().cloned(), store.told());
        let counts = Counts::default();
        counts.0.bytes.store(store.bytes(), Ordering::Relaxed);
        let queue = Arc::new(Queue { state: Mutex::new(State::new()), ready: Condvar::new() });
        let (theirs, counted) = (Arc::clone(&queue), counts.clone());
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || write_all(&theirs, store, &counted, now))
            .map_err(Error::Thread)?;
        Ok(Self { queue, counts, before, told, thread: Some(thread) })
    }

    /// What it has done.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The run before this one, as its files tell.
    pub(crate) fn before(&self) -> Option<&Before> {
        self.before.as_ref()
    }

    /// Metadata exchanges of the run before that stand in the history, and may be told again.
    pub(crate) fn told(&mut self) -> Told {
        std::mem::take(&mut self.told)
    }

    /// Hands rows over, and says where the run stands once these and all before them are written. Never waits.
    pub(crate) fn push(&self, outputs: &[Arc<Output>], mark: Mark) {
        let (mut lost_rows, mut lost) = (0, Records::default());
        let mut state = lock(&self.queue.state);
        let now = Instant::now();
        let mut wake = false;
        for output in outputs {
            if !is_kept(output) {
                // Left out on purpose: nobody shall miss it after a crash.
                self.counts.drop_records(records(output));
                continue;
            }
            let lane = if is_urgent(output) { &mut state.urgent } else { &mut state.bulk };
            if lane.rows.push(Arc::clone(output), weigh(output)) {
                wake |= lane.since.is_none() || lane.rows.len() == lane.half;
                lane.since.get_or_insert(now);
            } else {
                lost_rows += 1;
                lost.merge(records(output));
            }
        }
        state.mark = Some(mark);
        drop(state);
        if wake {
            self.queue.ready.notify_one();
        }
        if lost_rows > 0 {
            self.counts.lose(lost_rows, lost);
            self.counts.drop_records(lost);
        }
    }

    /// Lets what waits be written, as long as that goes on: a disk that takes nothing for so long is left behind, and what
    /// still waits is lost.
    pub(crate) async fn finish(mut self, silence: Duration) -> Counts {
        lock(&self.queue.state).closed = true;
        self.queue.ready.notify_one();
        let (mut stored, mut since) = (self.counts.stored(), Instant::now());
        while !lock(&self.queue.state).done {
            tokio::time::sleep(FINISH_LOOK).await;
            let now = self.counts.stored();
            if now != stored {
                (stored, since) = (now, Instant::now());
            } else if since.elapsed() >= silence {
                self.abandon();
                return self.counts.clone();
            }
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the history ended by a defect of the agent");
        }
        self.counts.clone()
    }

    fn abandon(&self) {
        let mut state = lock(&self.queue.state);
        let State { urgent, bulk, .. } = &mut *state;
        for lane in [urgent, bulk] {
            for row in lane.take(usize::MAX) {
                self.counts.lose(1, records(&row));
            }
        }
        tracing::warn!("the disk of the history takes nothing; its last rows are lost");
    }
}

/// Between two looks at whether the thread is through.
const FINISH_LOOK: Duration = Duration::from_millis(5);

/// Started programs of the host itself are many and of little use in a story about pods; those that made a connection or a
/// request stand in its row.
fn is_kept(output: &Output) -> bool {
    match output {
        Output::Process(row) => row.who.identity.attribution != AttributionKind::Host,
        _ => true,
    }
}

fn is_urgent(output: &Output) -> bool {
    match output {
        Output::Metadata(_) | Output::Finding(_) | Output::Gap(_) => true,
        Output::Flow(_) | Output::Process(_) | Output::Capacity(_) | Output::Object(_) => false,
    }
}

// === impl State ===

impl State {
    fn new() -> Self {
        let lane = |rows, bytes, wait| Lane { rows: Lossy::new(rows, bytes), since: None, wait, half: rows / 2 };
        Self {
            urgent: lane(URGENT_MAX, URGENT_BYTES_MAX, URGENT_WAIT),
            bulk: lane(BULK_MAX, BULK_BYTES_MAX, BULK_WAIT),
            mark: None,
            closed: false,
            done: false,
        }
    }

    /// How long until something is to be written; `None` for nothing.
    fn due(&self, now: Instant) -> Option<Duration> {
        let wait = |lane: &Lane| {
            // Half full: the disk must not be what makes the next fold too many.
            let wait = if lane.rows.len() >= lane.half { Duration::ZERO } else { lane.wait };
            lane.since.map(|since| (since + wait).saturating_duration_since(now))
        };
        let due = [&self.urgent, &self.bulk].into_iter().filter_map(wait).min();
        if self.closed { due.map(|_| Duration::ZERO) } else { due }
    }
}

// === impl Lane ===

impl Lane {
    fn take(&mut self, rows_max: usize) -> Vec<Arc<Output>> {
        let mut rows = Vec::new();
        while rows.len() < rows_max
            && let Some(entry) = self.rows.pop()
        {
            // What was dropped was counted when it was.
            if let Entry::Item(row, _) = entry {
                rows.push(row);
            }
        }
        if self.rows.is_empty() {
            self.since = None;
        }
        rows
    }
}

/// What the thread does.
fn write_all(queue: &Queue, mut store: Store, counts: &Counts, now: fn() -> WallNs) {
    let mut alive = Instant::now();
    loop {
        let (rows, mark) = match queue.next(alive + ALIVE_EVERY) {
            Next::Rows(rows, mark) => (rows, mark),
            Next::Nothing(mark) => (Vec::new(), mark),
            Next::End(mark) => {
                store.mark(mark);
                break;
            }
        };
        store.mark(mark);
        store.settle(counts.dropped());
        alive = Instant::now();
        if rows.is_empty() {
            counts.state(store.alive(now()).err().as_ref());
        } else {
            let written = store.write(&rows, now());
            counts.0.stored.fetch_add(written.rows, Ordering::Relaxed);
            if written.lost_rows > 0 {
                counts.lose(written.lost_rows, written.lost);
            }
            counts.state(written.error.as_ref());
        }
        *lock(&counts.0.place) = store.place();
        counts.0.bytes.store(store.bytes(), Ordering::Relaxed);
    }
    store.settle(counts.dropped());
    if let Err(error) = store.finish(now()) {
        tracing::warn!(why = chain(&error), "the history cannot say that the agent was stopped");
    }
    store.close();
    lock(&queue.state).done = true;
}

enum Next {
    /// Write these; the mark when these are all.
    Rows(Vec<Arc<Output>>, Option<Mark>),
    /// Nothing came until the deadline.
    Nothing(Option<Mark>),
    /// Nothing more comes.
    End(Option<Mark>),
}

// === impl Queue ===

impl Queue {
    /// Waits until rows are to be written: the urgent ones first.
    fn next(&self, deadline: Instant) -> Next {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            let due = state.due(now);
            if due == Some(Duration::ZERO) {
                let mut rows = state.urgent.take(BATCH_ROWS);
                rows.extend(state.bulk.take(BATCH_ROWS - rows.len()));
                let is_all = state.urgent.rows.is_empty() && state.bulk.rows.is_empty();
                return Next::Rows(rows, if is_all { state.mark.take() } else { None });
            }
            if state.closed {
                return Next::End(state.mark.take());
            }
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Next::Nothing(state.mark.take());
            }
            let wait = due.map_or(left, |due| due.min(left));
            state = self.ready.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Nothing here panics while it holds a lock, and the data stays whole at every step: a poisoned lock is as good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
