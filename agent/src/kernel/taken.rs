//! What was taken out of the rings, and when their records are given back.
//!
//! Rings that end with the agent give records back as they are read. Rings that outlive it do so a little later. Flows
//! and processes: every [`NOTE_EVERY`] records, with a note of how many of each kind were taken, so that the next agent
//! knows what this one may have lost. Metadata: when the history has what they told, so that the next agent reads again
//! what this one did not store; but never more than a quarter of the ring waits for a disk, which is what the ring gives
//! to everybody without a budget.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use agent_core::continuity::Place;
use agent_ebpf::shared::KINDS;
use agent_ebpf::wire::{Kind, Ring as RingName};

use super::notebook::Notebook;
use super::pins::Pins;
use super::ring::Ring;

/// Records of flows and processes between two notes: some 40 KiB of a ring of 2 MiB.
const NOTE_EVERY: u32 = 256;
/// Places kept to give back from, of which each is at least this share of the ring after the one before.
const PLACES: u64 = 64;
/// The share of the metadata ring that may wait for the history.
const WAITING_SHARE: u64 = 4;

/// How far the history has what the metadata ring told. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored(Arc<Mutex<Option<Place>>>);

/// See the module's documentation.
pub(super) struct Taken {
    /// `None` for rings that end with the agent.
    notebook: Option<Notebook>,
    stored: Stored,
    by_kind: [u64; KINDS],
    since_note: u32,
    /// Records of the metadata ring that were read.
    metadata_records: u64,
    /// Places in the metadata ring that were read and not given back, oldest first.
    places: VecDeque<Place>,
    /// Holds the directory against other agents.
    _pins: Option<Pins>,
}

// === impl Stored ===

impl Stored {
    /// What stands before a place stands in the history.
    pub(crate) fn until(&self, place: Place) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }

    fn get(&self) -> Option<Place> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Taken ===

impl Taken {
    /// For rings that end with the agent.
    pub(super) fn nowhere() -> Self {
        Self {
            notebook: None,
            stored: Stored::default(),
            by_kind: [0; KINDS],
            since_note: 0,
            metadata_records: 0,
            places: VecDeque::new(),
            _pins: None,
        }
    }

    /// For rings that outlive the agent; `by_kind` was taken out of them before.
    pub(super) fn new(notebook: Notebook, by_kind: [u64; KINDS], stored: Stored, pins: Pins) -> Self {
        let of = |kind: Kind| by_kind.get(kind.index()).copied().unwrap_or(0);
        let metadata_records = of(Kind::MetadataSegment) + of(Kind::MetadataEnd);
        Self {
            notebook: Some(notebook),
            stored,
            by_kind,
            since_note: 0,
            metadata_records,
            places: VecDeque::new(),
            _pins: Some(pins),
        }
    }

    /// Whether the rings outlive the agent.
    pub(super) fn is_kept(&self) -> bool {
        self.notebook.is_some()
    }

    /// The place where the metadata ring is read next.
    pub(super) fn metadata(&self, ring: &Ring) -> Place {
        Place { position: ring.position(), records: self.metadata_records }
    }

    /// The metadata ring is read from this place on.
    pub(super) fn metadata_from(&mut self, place: Place) {
        self.metadata_records = place.records;
    }

    /// A record of the metadata ring was read; what is told of it is not stored yet.
    pub(super) fn read_metadata(&mut self, ring: &mut Ring) {
        self.metadata_records += 1;
        if !self.is_kept() {
            return ring.release(ring.position());
        }
        let place = self.metadata(ring);
        let last = self.places.back().map_or(ring.released(), |last| last.position);
        if place.position.wrapping_sub(last) >= ring.capacity() / PLACES {
            self.places.push_back(place);
        }
    }

    /// A record of another ring was read.
    pub(super) fn read(&mut self, name: RingName, kind: Option<Kind>, ring: &mut Ring) {
        if !self.is_kept() {
            return ring.release(ring.position());
        }
        if let Some(taken) = kind.and_then(|kind| self.by_kind.get_mut(kind.index())) {
            *taken += 1;
        }
        self.since_note += 1;
        if self.since_note >= NOTE_EVERY {
            self.give_back(name, ring);
        }
    }

    /// Gives back all that was read of a ring of flows or processes.
    pub(super) fn give_back(&mut self, name: RingName, ring: &mut Ring) {
        self.since_note = 0;
        let position = ring.position();
        if position == ring.released() {
            return;
        }
        if let Some(notebook) = &mut self.notebook {
            notebook.note(name, position, &self.by_kind);
        }
        ring.release(position);
    }

    /// Gives back what the history has of the metadata ring, and what cannot wait for it.
    pub(super) fn give_back_metadata(&mut self, ring: &mut Ring) {
        let Some(notebook) = &mut self.notebook else { return };
        let from = ring.released();
        let beyond = |place: &Place| place.position.wrapping_sub(from);
        let read = ring.position().wrapping_sub(from);
        let stored = self.stored.get().filter(|place| beyond(place) <= read);
        // What was read so far that a quarter of the ring has been read since.
        let waits = ring.capacity() / WAITING_SHARE;
        let forced = self.places.iter().rev().find(|place| beyond(place).saturating_add(waits) <= read).copied();
        let Some(place) = stored.into_iter().chain(forced).max_by_key(beyond) else { return };
        if place.position == from {
            return;
        }
        let mut taken = [0; KINDS];
        // Which of the two kinds they were makes no difference to anybody.
        if let Some(taken) = taken.get_mut(Kind::MetadataSegment.index()) {
            *taken = place.records;
        }
        notebook.note(RingName::Metadata, place.position, &taken);
        ring.release(place.position);
        while self.places.front().is_some_and(|kept| beyond(kept) <= beyond(&place)) {
            self.places.pop_front();
        }
    }
}
