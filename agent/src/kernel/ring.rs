//! A ring buffer whose records are given back when the reader says so, not when it has read them: what is not given back
//! is there for whoever reads next, also when that is another process.
//!
//! Layout, from `kernel/bpf/ringbuf.c`: a page with the consumer's position, which the reader writes; a page with the
//! producer's position; the data, mapped twice in a row so that no record is cut. A record begins with eight bytes: its
//! length with two flags, and an offset for the kernel's own use.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use aya::maps::{Map, MapData};

use super::sys::Mapping;
use super::{Error, accounts};

const HEADER_BYTES: usize = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Ring {
    map: MapData,
    consumer: Mapping,
    producer: Mapping,
    page: usize,
    bytes: u64,
    /// Where the next record to be read stands.
    read: u64,
    /// What stands before this was given back.
    released: u64,
}

// === impl Ring ===

impl Ring {
    /// Opens a ring of the object, to be read from where the last reader left off.
    pub(super) fn take(ebpf: &mut aya::Ebpf, name: &'static str) -> Result<Self, Error> {
        let Some(Map::RingBuf(map)) = ebpf.take_map(name) else { return Err(accounts::missing(name)) };
        Self::open(name, map)
    }

    /// Opens a ring, likewise.
    pub(super) fn open(name: &'static str, map: MapData) -> Result<Self, Error> {
        let fail = |source| Error::Ring { map: name, source };
        let page = rustix::param::page_size();
        let bytes = u64::from(map.info().map_err(|error| fail(std::io::Error::other(error)))?.max_entries());
        let data = usize::try_from(bytes).map_err(|error| fail(std::io::Error::other(error)))?;
        let consumer = Mapping::new(map.fd().as_fd(), 0, page, true).map_err(fail)?;
        let producer = Mapping::new(map.fd().as_fd(), page, page + 2 * data, false).map_err(fail)?;
        let released = consumer.word(0).map_or(0, |word| word.load(Ordering::Acquire));
        Ok(Self { map, consumer, producer, page, bytes, read: released, released })
    }

    /// The next record, and where it stands; `None` while there is none.
    pub(super) fn next(&mut self) -> Option<(u64, &[u8])> {
        loop {
            // Pairs with the kernel's release when it reserves a record.
            let produced = self.producer.word(0)?.load(Ordering::Acquire);
            if self.read == produced {
                return None;
            }
            let position = self.read;
            let at = self.page + usize::try_from(position & (self.bytes - 1)).ok()?;
            // Pairs with the kernel's exchange when it commits a record.
            let header = self.producer.half_word(at)?.load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            let len = u64::from(header & !DISCARDED).min(self.bytes - HEADER_BYTES as u64);
            self.read = position.wrapping_add((HEADER_BYTES as u64 + len).next_multiple_of(8));
            if header & DISCARDED == 0 {
                let record = self.producer.bytes(at + HEADER_BYTES, usize::try_from(len).ok()?)?;
                return Some((position, record));
            }
        }
    }

    /// Where the next record to be read stands.
    pub(super) fn position(&self) -> u64 {
        self.read
    }

    /// Up to where records were given back.
    pub(super) fn released(&self) -> u64 {
        self.released
    }

    /// Most bytes that it holds.
    pub(super) fn capacity(&self) -> u64 {
        self.bytes
    }

    /// Begins to read at a place that is known to be the beginning of a record; whether it is in the ring at all.
    pub(super) fn seek(&mut self, position: u64) -> bool {
        let produced = self.producer.word(0).map_or(0, |word| word.load(Ordering::Acquire));
        let fits = position.wrapping_sub(self.released) <= produced.wrapping_sub(self.released);
        if fits {
            self.read = position;
        }
        fits
    }

    /// Gives back what stands before a place that was read.
    pub(super) fn release(&mut self, position: u64) {
        let is_read = position.wrapping_sub(self.released) <= self.read.wrapping_sub(self.released);
        if is_read && let Some(word) = self.consumer.word(0) {
            self.released = position;
            // Pairs with the kernel's load before it writes there again.
            word.store(position, Ordering::Release);
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

/// Up to where the reader of a ring gave records back.
pub(super) fn consumed_until(map: &MapData) -> std::io::Result<u64> {
    let consumer = Mapping::new(map.fd().as_fd(), 0, rustix::param::page_size(), true)?;
    Ok(consumer.word(0).map_or(0, |word| word.load(Ordering::Acquire)))
}
