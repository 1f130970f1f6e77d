//! Taking turns: whoever asks for one thing after another, because of this node's pods, asks for the one that is due first,
//! at a pace, and slower after failures.

use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::Source;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::access::Access;
use super::pace::{self, Backoff};
use super::pods::Wanted;
use super::teller::Teller;
use super::trouble::{Kind, Trouble};

/// What to do next.
pub(super) enum Turn<K> {
    /// Ask for this one.
    Ask(K),
    /// Other things may be wanted now.
    Look,
    /// Nothing is wanted any more.
    End,
}

/// The turns of one source.
pub(super) struct Turns<'a> {
    access: &'a Access,
    teller: &'a Teller,
    source: Source,
    wants: Receiver<Arc<Wanted>>,
    backoff: Backoff,
    not_before: Instant,
}

// === impl Turns ===

impl<'a> Turns<'a> {
    /// Begins after a part of `jitter`, so that many nodes do not ask at a time.
    pub(super) async fn begin(
        access: &'a Access,
        teller: &'a Teller,
        source: Source,
        jitter: Duration,
        wants: Receiver<Arc<Wanted>>,
    ) -> Self {
        tokio::time::sleep(pace::up_to(jitter)).await;
        Self { access, teller, source, wants, backoff: Backoff::new(), not_before: Instant::now() }
    }

    /// What is wanted now.
    pub(super) fn wanted(&mut self) -> Arc<Wanted> {
        Arc::clone(&self.wants.borrow_and_update())
    }

    /// Waits until one of these is due, or other things are wanted.
    pub(super) async fn next<K>(&mut self, all: impl Iterator<Item = (K, Instant)>) -> Turn<K> {
        let Some((key, due)) = all.min_by_key(|(_, due)| *due) else {
            return if self.wants.changed().await.is_ok() { Turn::Look } else { Turn::End };
        };
        tokio::select! {
            () = tokio::time::sleep_until(due.max(self.not_before)) => Turn::Ask(key),
            Ok(()) = self.wants.changed() => Turn::Look,
        }
    }

    /// It was answered: the next question waits this long.
    pub(super) fn answered(&mut self, pace: Duration) {
        self.not_before = Instant::now() + pace;
    }

    /// It was not; when to ask again.
    pub(super) async fn failed(&mut self, trouble: Trouble) -> Instant {
        if trouble.kind == Kind::Unauthorized {
            self.access.refused();
        }
        self.not_before = self.backoff.next(trouble.pause());
        self.teller.trouble(self.source, trouble).await;
        self.not_before
    }
}
