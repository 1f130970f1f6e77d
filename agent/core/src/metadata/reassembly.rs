//! One direction of a connection: segments in any order, repeated and overlapping, become bytes in order and gaps.
//!
//! What a segment carries is delivered as soon as it is next. A hole is waited for, then told as a gap. The beginning
//! of the direction is not known (the handshake is not recorded): it is the first bytes that surely begin a message,
//! or, after the wait, whatever came first.

use zeroize::Zeroize;

use super::wiped::Wiped;
use super::{HELD_BYTES, REORDER_WAIT_NS, Stamp};
use crate::time::BootNs;

/// Most segments held of one direction. 256 in order need no holding at all; out of order they are 256 lost races.
const HELD_SEGMENTS: usize = 256;
/// A jump of sequence numbers beyond every window: another connection on the same socket. Windows reach 1 GiB in theory
/// and a few MiB in practice.
const JUMP_BYTES: u64 = 1 << 26;

/// Next in one direction.
pub(super) enum Piece {
    Bytes(Chunk),
    /// This many bytes were not seen, `None` when the number is unknown; the stamp is of the packet beside them.
    Gap(Option<u64>, Stamp),
    /// Bytes from before the beginning: the beginning was wrong.
    Early(Stamp),
}

/// Payload bytes in order.
pub(super) struct Chunk {
    data: Wiped,
    from: usize,
    pub(super) stamp: Stamp,
}

/// Segments of one direction.
pub(super) struct Reassembly {
    /// Sequence number of the next byte; `None` before the beginning.
    next: Option<u32>,
    /// Bytes delivered or skipped since the beginning.
    passed: u64,
    /// Sorted by sequence number.
    held: Vec<Held>,
    held_bytes: usize,
    /// Taken back by the reader, delivered first.
    returned: Option<Chunk>,
    /// Missing bytes right behind what was delivered last, the rest of the packet with this stamp.
    uncaptured: Option<(u64, Stamp)>,
    surely_begins: fn(&[u8]) -> bool,
}

struct Held {
    seq: u32,
    payload_len: u32,
    data: Wiped,
    stamp: Stamp,
}

// === impl Chunk ===

impl Chunk {
    pub(super) fn bytes(&self) -> &[u8] {
        self.data.as_slice().get(self.from..).unwrap_or_default()
    }

    /// Whether this is the beginning of a packet.
    pub(super) fn begins_packet(&self) -> bool {
        self.from == 0
    }

    pub(super) fn advance(&mut self, bytes: usize) {
        self.from += bytes;
    }
}

// === impl Reassembly ===

impl Reassembly {
    pub(super) fn new(surely_begins: fn(&[u8]) -> bool) -> Self {
        Self { next: None, passed: 0, held: Vec::new(), held_bytes: 0, returned: None, uncaptured: None, surely_begins }
    }

    /// Takes a segment, of which `payload` is what was captured.
    pub(super) fn push(&mut self, seq: u32, payload_len: u32, payload: &[u8], stamp: Stamp) {
        if payload_len == 0 {
            return;
        }
        let kept = payload.get(..HELD_BYTES).unwrap_or(payload);
        let reference = self.next.or(self.held.first().map(|held| held.seq)).unwrap_or(seq);
        let position = self.held.partition_point(|held| distance(reference, held.seq) <= distance(reference, seq));
        self.held_bytes += kept.len();
        self.held.insert(position, Held { seq, payload_len, data: Wiped::copy_of(kept), stamp });
    }

    /// Bytes of memory that hold payload.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes + self.returned.as_ref().map_or(0, |chunk| chunk.data.capacity())
    }

    /// Whether more is held than may be: no more waiting.
    pub(super) fn is_full(&self) -> bool {
        self.held_bytes() > HELD_BYTES || self.held.len() > HELD_SEGMENTS
    }

    /// Gives back a chunk whose time has not come.
    pub(super) fn give_back(&mut self, chunk: Chunk) {
        self.returned = Some(chunk);
    }

    /// What is next; `None` when that is not here yet. `hurry` ends all waiting.
    pub(super) fn pop(&mut self, now: BootNs, hurry: bool) -> Option<Piece> {
        if let Some(chunk) = self.returned.take() {
            return Some(Piece::Bytes(chunk));
        }
        if let Some((gap, stamp)) = self.uncaptured.take() {
            self.pass(gap);
            return Some(Piece::Gap(Some(gap), stamp));
        }
        let hurry = hurry || self.is_full();
        loop {
            let first = self.held.first()?;
            let (seq, stamp) = (first.seq, first.stamp);
            let is_due = hurry || now.since(stamp.time) >= REORDER_WAIT_NS;
            let Some(next) = self.next else {
                if !is_due && !self.begins_here() {
                    return None;
                }
                self.next = Some(seq);
                continue;
            };
            let ahead = distance(next, seq);
            if ahead.unsigned_abs() > JUMP_BYTES {
                self.next = Some(seq);
                self.passed = 0;
                return Some(Piece::Gap(None, stamp));
            }
            if ahead > 0 {
                if !is_due {
                    return None;
                }
                let gap = ahead.unsigned_abs();
                self.pass(gap);
                return Some(Piece::Gap(Some(gap), stamp));
            }
            let held = self.take_first();
            if let Some(piece) = self.deliver(held, ahead.unsigned_abs()) {
                return Some(piece);
            }
        }
    }

    /// Delivers a segment of which `behind` bytes lie before what is next.
    fn deliver(&mut self, held: Held, behind: u64) -> Option<Piece> {
        let end = u64::from(held.payload_len);
        if behind > self.passed {
            // The rest, if any, would be out of its context.
            return Some(Piece::Early(held.stamp));
        }
        if behind >= end {
            return None;
        }
        let from = usize::try_from(behind).ok()?;
        let captured = held.data.as_slice().len();
        let seen = captured.saturating_sub(from) as u64;
        let missing = end - behind - seen;
        if seen == 0 {
            self.pass(missing);
            return Some(Piece::Gap(Some(missing), held.stamp));
        }
        self.pass(seen);
        self.uncaptured = (missing > 0).then_some((missing, held.stamp));
        Some(Piece::Bytes(Chunk { data: held.data, from, stamp: held.stamp }))
    }

    fn take_first(&mut self) -> Held {
        let held = self.held.remove(0);
        self.held_bytes -= held.data.as_slice().len();
        held
    }

    fn pass(&mut self, bytes: u64) {
        self.passed = self.passed.saturating_add(bytes);
        // Sequence numbers wrap around; a single gap or segment is below 2^32.
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are modulo 2^32")]
        let step = bytes as u32;
        self.next = self.next.map(|next| next.wrapping_add(step));
    }

    /// Whether the held segments, as far as they hang together, surely begin a message.
    fn begins_here(&self) -> bool {
        let Some(first) = self.held.first() else { return false };
        let mut start = [0; START_BYTES];
        let mut filled = 0usize;
        for held in &self.held {
            // Segments may repeat what others hold.
            let Some(repeated) =
                usize::try_from(distance(first.seq, held.seq)).ok().and_then(|at| filled.checked_sub(at))
            else {
                break;
            };
            let news = held.data.as_slice().get(repeated..).unwrap_or_default();
            for (slot, byte) in start.iter_mut().skip(filled).zip(news) {
                *slot = *byte;
                filled += 1;
            }
        }
        let begins = (self.surely_begins)(start.get(..filled).unwrap_or_default());
        start.zeroize();
        begins
    }
}

/// Bytes needed to recognise the beginning of a message: the longest method that counts, and the first of the target.
const START_BYTES: usize = 10;

/// How far `to` lies ahead of `from`, negative when behind.
fn distance(from: u32, to: u32) -> i64 {
    #[expect(clippy::cast_possible_wrap, reason = "half of the sequence space lies behind")]
    let signed = to.wrapping_sub(from) as i32;
    i64::from(signed)
}

#[cfg(test)]
mod tests;
