//! What was said lately, and who listens. Nothing in here waits, and nothing grows beyond its bounds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_core::output::Output;
use tokio::sync::Notify;

use super::protocol::Filter;
use crate::lossy::{Entry, Lossy, weigh};

/// Outputs kept for clients that come later.
pub(super) const RECENT_MAX: usize = 4_096;
/// Bytes of them. A row weighs about 500 bytes: the two bounds meet.
pub(super) const RECENT_BYTES_MAX: usize = 2 << 20;
/// Outputs that wait for one client: what was said lately and a fold as large again.
pub(super) const QUEUE_MAX: usize = 2 * RECENT_MAX;
/// Bytes of them. With all clients stuck at different moments 8 x 4 MiB are held; while they keep up, outputs are
/// shared and nothing waits.
pub(super) const QUEUE_BYTES_MAX: usize = 2 * RECENT_BYTES_MAX;

/// See the module's text. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Feed(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    recent: VecDeque<(Arc<Output>, usize)>,
    recent_bytes: usize,
    listeners: Vec<Arc<Listener>>,
    closed: bool,
}

struct Listener {
    filter: Filter,
    queue: Mutex<Queue>,
    ready: Notify,
}

struct Queue {
    lossy: Lossy<Arc<Output>>,
    /// Nothing more comes.
    closed: bool,
}

/// One client's end of the feed.
pub(super) struct Reader {
    feed: Feed,
    listener: Arc<Listener>,
}

// === impl Feed ===

impl Feed {
    /// Keeps an output and hands it to everybody whose filter it passes.
    pub(crate) fn publish(&self, output: &Arc<Output>) {
        let weight = weigh(output);
        let mut state = lock(&self.0);
        state.keep(output, weight);
        for listener in &state.listeners {
            if listener.filter.passes(output) {
                lock(&listener.queue).lossy.push(Arc::clone(output), weight);
                listener.ready.notify_one();
            }
        }
    }

    /// Lets every reader end after what waits for it.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.0);
        state.closed = true;
        for listener in state.listeners.drain(..) {
            lock(&listener.queue).closed = true;
            listener.ready.notify_one();
        }
    }

    /// What was said lately.
    #[cfg(test)]
    pub(crate) fn recent(&self) -> Vec<Arc<Output>> {
        lock(&self.0).recent.iter().map(|(output, _)| Arc::clone(output)).collect()
    }

    /// A reader of what was said lately and, to `follow`, of all that comes: without a gap or a repetition between.
    pub(super) fn subscribe(&self, filter: Filter, follow: bool) -> Reader {
        let mut state = lock(&self.0);
        let mut lossy = Lossy::new(QUEUE_MAX, QUEUE_BYTES_MAX);
        for (output, weight) in state.recent.iter().filter(|(output, _)| filter.passes(output)) {
            lossy.push(Arc::clone(output), *weight);
        }
        let closed = !follow || state.closed;
        let queue = Mutex::new(Queue { lossy, closed });
        let listener = Arc::new(Listener { filter, queue, ready: Notify::new() });
        if !closed {
            state.listeners.push(Arc::clone(&listener));
        }
        Reader { feed: self.clone(), listener }
    }
}

// === impl State ===

impl State {
    fn keep(&mut self, output: &Arc<Output>, weight: usize) {
        self.recent.push_back((Arc::clone(output), weight));
        self.recent_bytes += weight;
        while self.recent.len() > RECENT_MAX || self.recent_bytes > RECENT_BYTES_MAX {
            let Some((_, weight)) = self.recent.pop_front() else { break };
            self.recent_bytes -= weight;
        }
    }
}

// === impl Reader ===

impl Reader {
    /// Waits for the next; `None` at the end.
    pub(super) async fn next(&self) -> Option<Entry<Arc<Output>>> {
        loop {
            match self.try_next() {
                Next::Entry(entry) => return Some(entry),
                Next::End => return None,
                Next::NotYet => self.listener.ready.notified().await,
            }
        }
    }

    /// The next, if it is there.
    pub(super) fn try_next(&self) -> Next {
        let mut queue = lock(&self.listener.queue);
        match queue.lossy.pop() {
            Some(entry) => Next::Entry(entry),
            None if queue.closed => Next::End,
            None => Next::NotYet,
        }
    }
}

/// What [`Reader::try_next`] found.
pub(super) enum Next {
    /// An output, or a note that some are missing.
    Entry(Entry<Arc<Output>>),
    /// Nothing yet.
    NotYet,
    /// Nothing any more.
    End,
}

impl Drop for Reader {
    fn drop(&mut self) {
        lock(&self.feed.0).listeners.retain(|listener| !Arc::ptr_eq(listener, &self.listener));
    }
}

/// Nothing here panics while it holds a lock, and the data stays whole at every step: a poisoned lock is as good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
