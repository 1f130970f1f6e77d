//! Collects the head of a message from pieces.

use super::wiped::Wiped;
use super::{HELD_BYTES, Stamp};

/// The head of a message, as far as it came.
#[derive(Default)]
pub(super) struct HeadBuffer {
    begun: Option<(Wiped, Stamp)>,
    searched: usize,
}

/// What became of a piece of head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// All of it was taken, and more is needed.
    All,
    /// The head is complete; it ended after this many bytes of the piece.
    Complete(usize),
    /// This is no head.
    Implausible,
    /// Longer than [`HELD_BYTES`].
    TooLarge,
}

// === impl HeadBuffer ===

impl HeadBuffer {
    /// Whether no byte of the head came yet.
    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_none()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.begun.as_ref().map_or(0, |(bytes, _)| bytes.capacity())
    }

    /// Takes bytes from a packet with `stamp`.
    pub(super) fn take(&mut self, bytes: &[u8], stamp: Stamp, may_begin: fn(&[u8]) -> bool) -> Taken {
        // Line breaks before a head are to be ignored (RFC 9112 section 2.2).
        let breaks = if self.is_empty() { bytes.iter().take_while(|byte| is_break(**byte)).count() } else { 0 };
        let Some(rest) = bytes.get(breaks..).filter(|rest| !rest.is_empty()) else { return Taken::All };
        let (buffer, _) = self.begun.get_or_insert_with(|| (Wiped::with_limit(HELD_BYTES), stamp));
        let before = buffer.as_slice().len();
        let taken = buffer.append(rest);
        if !may_begin(buffer.as_slice()) {
            return Taken::Implausible;
        }
        if let Some(end) = end_of_head(buffer.as_slice(), self.searched) {
            buffer.truncate(end);
            return Taken::Complete(breaks + end.saturating_sub(before));
        }
        self.searched = buffer.as_slice().len();
        if taken < rest.len() { Taken::TooLarge } else { Taken::All }
    }

    /// Takes out what came, with the stamp of its first byte.
    pub(super) fn take_out(&mut self) -> Option<(Wiped, Stamp)> {
        self.searched = 0;
        self.begun.take()
    }
}

fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Where the empty line that ends a head ends, when everything before `searched` holds none. Both sorts of line breaks
/// count, as they do for the parser.
fn end_of_head(bytes: &[u8], searched: usize) -> Option<usize> {
    let start = searched.saturating_sub(2);
    let rest = bytes.get(start..)?;
    rest.iter().enumerate().filter(|(_, byte)| **byte == b'\n').find_map(|(at, _)| {
        let end = start + at + 1;
        let head = bytes.get(..end)?;
        (head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n")).then_some(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::BootNs;

    const STAMP: Stamp = Stamp { time: BootNs(1), ttl: 1 };

    fn any(_: &[u8]) -> bool {
        true
    }

    #[test]
    fn ends_at_the_empty_line_in_any_pieces() {
        for head in ["\r\n\nGET / HTTP/1.1\r\na: b\r\n\r\n", "G\n\n", "G\r\n\n", "G\n\r\n"] {
            let stream = format!("{head}rest");
            for size in 1..=stream.len() {
                let mut buffer = HeadBuffer::default();
                let mut end = 0;
                for piece in stream.as_bytes().chunks(size) {
                    match buffer.take(piece, STAMP, any) {
                        Taken::All => end += piece.len(),
                        Taken::Complete(used) => {
                            end += used;
                            break;
                        }
                        other => panic!("{other:?}"),
                    }
                }
                assert_eq!(end, head.len(), "{head:?} in pieces of {size}");
                let (bytes, _) = buffer.take_out().expect("a head");
                assert_eq!(bytes.as_slice(), head.trim_start().as_bytes());
            }
        }
    }

    #[test]
    fn too_large() {
        let mut buffer = HeadBuffer::default();
        assert_eq!(buffer.take(&vec![b'x'; HELD_BYTES], STAMP, any), Taken::All);
        assert_eq!(buffer.take(b"\n\n", STAMP, any), Taken::TooLarge);
        assert_eq!(buffer.held_bytes(), HELD_BYTES, "memory ends where the limit is");
    }
}
