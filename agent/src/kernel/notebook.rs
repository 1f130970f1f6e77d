//! A page of memory that outlives the agent with the pins: which programs and maps they are, and how many records were
//! taken out of the rings, by kind.
//!
//! Written by plain stores, so that it is right whenever the agent is killed. For each ring there are two notes, and each
//! names the position that it belongs to: the one that is not in force is written, and takes force when the ring's own
//! position is moved.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use agent_ebpf::shared::{KINDS, RINGS};
use agent_ebpf::wire::Ring;

use super::sys::{self, Mapping};

const BYTES: u32 = 4_096;
/// `sekisho` and the version of this page's layout.
const MAGIC: u64 = u64::from_be_bytes(*b"sekisho\x02");
/// Words: magic, build, born, whole. Notes begin behind them.
const WORD_MAGIC: usize = 0;
const WORD_BUILD: usize = 1;
const WORD_BORN: usize = 2;
const WORD_WHOLE: usize = 3;
const NOTES: usize = 8;
/// A position and a count for each kind.
const NOTE_WORDS: usize = 1 + KINDS;
const _: () = assert!((NOTES + RINGS * 2 * NOTE_WORDS) * 8 <= BYTES as usize);
/// No ring is ever there: positions are multiples of eight.
const NOWHERE: u64 = u64::MAX;

/// The page.
#[derive(Debug)]
pub(super) struct Notebook {
    page: Mapping,
    /// The note in force, by ring.
    current: [usize; RINGS],
}

// === impl Notebook ===

impl Notebook {
    /// Makes a page for pins that are about to be made, and pins it.
    pub(super) fn create(path: &Path, build: u64, born_ns: u64) -> io::Result<Self> {
        let map = sys::create_page("sekisho_pins", BYTES)?;
        sys::pin(map.as_fd(), path)?;
        let this = Self { page: Mapping::new(map.as_fd(), 0, BYTES as usize, true)?, current: [0; RINGS] };
        this.set(WORD_BUILD, build);
        this.set(WORD_BORN, born_ns);
        for ring in 0..RINGS {
            this.set(note(ring, 1), NOWHERE);
        }
        this.set(WORD_MAGIC, MAGIC);
        Ok(this)
    }

    /// Opens the page of pins that are there; `None` when they are of another layout, or were never finished.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let map = sys::get(path)?;
        let this = Self { page: Mapping::new(map.as_fd(), 0, BYTES as usize, true)?, current: [0; RINGS] };
        Ok((this.get(WORD_MAGIC) == MAGIC && this.get(WORD_WHOLE) == 1).then_some(this))
    }

    /// All pins are there.
    pub(super) fn finish(&self) {
        self.set(WORD_WHOLE, 1);
    }

    /// Which programs, with which settings.
    pub(super) fn build(&self) -> u64 {
        self.get(WORD_BUILD)
    }

    /// When the pins were made, boot time.
    pub(super) fn born_ns(&self) -> u64 {
        self.get(WORD_BORN)
    }

    /// Records taken out of a ring until it stood at a position; `None` when no note tells of it.
    pub(super) fn taken(&mut self, ring: Ring, position: u64) -> Option<[u64; KINDS]> {
        let ring = ring as usize;
        let which = (0..2).find(|which| self.get(note(ring, *which)) == position)?;
        *self.current.get_mut(ring)? = which;
        Some(std::array::from_fn(|kind| self.get(note(ring, which) + 1 + kind)))
    }

    /// Notes what will have been taken out of a ring once it stands at a position. It takes force when the ring is there.
    pub(super) fn note(&mut self, ring: Ring, position: u64, taken: &[u64; KINDS]) {
        let ring = ring as usize;
        let Some(current) = self.current.get_mut(ring) else { return };
        *current = 1 - *current;
        let at = note(ring, *current);
        self.set(at, NOWHERE);
        for (kind, records) in taken.iter().enumerate() {
            self.set(at + 1 + kind, *records);
        }
        self.set(at, position);
    }

    fn get(&self, word: usize) -> u64 {
        self.page.word(word * 8).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// In the order of the program: whoever is killed leaves what was stored before.
    fn set(&self, word: usize, value: u64) {
        if let Some(word) = self.page.word(word * 8) {
            word.store(value, Ordering::SeqCst);
        }
    }
}

fn note(ring: usize, which: usize) -> usize {
    NOTES + (ring * 2 + which) * NOTE_WORDS
}
