//! Bodies: how far they reach, without keeping them.

use super::http::Framing;

/// Longest size line or trailer of a chunked body; both are a few bytes in practice.
const CHUNK_OVERHEAD_BYTES: u32 = 4096;

/// A body being passed.
#[derive(Debug)]
pub(super) enum Body {
    /// This many bytes are still to come.
    Length(u64),
    /// Chunks, see RFC 9112 section 7.1.
    Chunked(Chunked),
    /// Up to the end of the connection.
    UntilClose,
}

/// Where in a chunked body.
#[derive(Debug)]
pub(super) enum Chunked {
    /// In a size line: its value and digits so far, whether an extension began, bytes of the line.
    Size { value: u64, digits: u32, extension: bool, line_bytes: u32 },
    /// In a chunk's data.
    Data(u64),
    /// In the line break after a chunk's data.
    DataEnd,
    /// In the trailer: bytes of the current line and of all.
    Trailer { line_bytes: u32, bytes: u32 },
}

/// What became of a piece of body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// All of it is body, and more is to come.
    Open,
    /// The body ended after this many bytes.
    Done(usize),
    /// Not a body as announced.
    Lost,
}

// === impl Body ===

impl Body {
    /// The body of a request.
    pub(super) fn of_request(framing: Framing) -> Option<Self> {
        match framing {
            Framing::Unstated => Some(Self::Length(0)),
            Framing::Length(length) => Some(Self::Length(length)),
            Framing::Chunked => Some(Self::Chunked(Chunked::START)),
            Framing::Broken => None,
        }
    }

    /// The body of an answer that has one.
    pub(super) fn of_answer(framing: Framing) -> Self {
        match framing {
            Framing::Unstated | Framing::Broken => Self::UntilClose,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunked::START),
        }
    }

    /// Passes bytes; content without its framing goes to `content`.
    pub(super) fn pass(&mut self, bytes: &[u8], content: &mut impl FnMut(&[u8])) -> Passed {
        match self {
            Self::UntilClose => {
                content(bytes);
                Passed::Open
            }
            Self::Length(left) => {
                let taken = take(bytes, left, content);
                if *left == 0 { Passed::Done(taken) } else { Passed::Open }
            }
            Self::Chunked(chunked) => chunked.pass(bytes, content),
        }
    }

    /// Passes bytes that were not seen and says how many of them lie behind the body; `None` when that cannot be told.
    pub(super) fn skip(&mut self, bytes: u64) -> Option<u64> {
        match self {
            Self::UntilClose => Some(0),
            Self::Length(left) => {
                let skipped = bytes.min(*left);
                *left -= skipped;
                Some(bytes - skipped)
            }
            Self::Chunked(Chunked::Data(left)) if bytes <= *left => {
                *left -= bytes;
                Some(0)
            }
            Self::Chunked(_) => None,
        }
    }

    /// Whether the body is over: only one of stated length can be, before a byte is passed.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0))
    }
}

/// Takes content up to `left` bytes and says how many.
fn take(bytes: &[u8], left: &mut u64, content: &mut impl FnMut(&[u8])) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    if let Some(part) = bytes.get(..taken) {
        content(part);
    }
    *left = left.saturating_sub(taken as u64);
    taken
}

// === impl Chunked ===

impl Chunked {
    const START: Self = Self::Size { value: 0, digits: 0, extension: false, line_bytes: 0 };

    fn pass(&mut self, bytes: &[u8], content: &mut impl FnMut(&[u8])) -> Passed {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..)
            && let Some(&byte) = rest.first()
        {
            if let Self::Data(left) = self {
                at += take(rest, left, content);
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                continue;
            }
            at += 1;
            match self.framing_byte(byte) {
                Some(false) => {}
                Some(true) => return Passed::Done(at),
                None => return Passed::Lost,
            }
        }
        Passed::Open
    }

    /// Takes a byte outside of the data. `Some(true)` = the body is over, `None` = not chunked coding.
    fn framing_byte(&mut self, byte: u8) -> Option<bool> {
        match self {
            Self::Data(_) => return None,
            Self::DataEnd => match byte {
                b'\r' => {}
                b'\n' => *self = Self::START,
                _ => return None,
            },
            Self::Size { value, digits, extension, line_bytes } => {
                *line_bytes += 1;
                match (byte, char::from(byte).to_digit(16)) {
                    (b'\n', _) if *digits > 0 => {
                        *self =
                            if *value == 0 { Self::Trailer { line_bytes: 0, bytes: 0 } } else { Self::Data(*value) };
                    }
                    (b'\n', _) => return None,
                    _ if *line_bytes > CHUNK_OVERHEAD_BYTES => return None,
                    (_, Some(digit)) if !*extension => {
                        *value = value.checked_mul(16)?.checked_add(u64::from(digit))?;
                        *digits += 1;
                    }
                    (b';' | b' ' | b'\t' | b'\r', _) if *digits > 0 => *extension = true,
                    _ if *extension => {}
                    _ => return None,
                }
            }
            Self::Trailer { line_bytes, bytes } => {
                *bytes += 1;
                match byte {
                    b'\n' if *line_bytes == 0 => return Some(true),
                    b'\n' => *line_bytes = 0,
                    b'\r' => {}
                    _ if *bytes > CHUNK_OVERHEAD_BYTES => return None,
                    _ => *line_bytes += 1,
                }
            }
        }
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(framing: Framing, pieces: &[&[u8]]) -> (Vec<u8>, Passed) {
        let mut body = Body::of_answer(framing);
        let mut content = Vec::new();
        let mut passed = Passed::Open;
        for piece in pieces {
            passed = body.pass(piece, &mut |part| content.extend_from_slice(part));
        }
        (content, passed)
    }

    #[test]
    fn stated_length() {
        assert_eq!(pass(Framing::Length(3), &[b"abcd"]), (b"abc".to_vec(), Passed::Done(3)));
        assert_eq!(pass(Framing::Length(3), &[b"ab"]), (b"ab".to_vec(), Passed::Open));
        assert_eq!(pass(Framing::Length(u64::MAX), &[b"ab"]), (b"ab".to_vec(), Passed::Open));
    }

    #[test]
    fn chunks_in_any_pieces() {
        let whole = b"4;x=y\r\nabcd\r\n0A \r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nHTTP/1.1 ";
        assert_eq!(pass(Framing::Chunked, &[whole]), (b"abcd0123456789".to_vec(), Passed::Done(whole.len() - 9)));
        let bytes: Vec<&[u8]> = whole[..whole.len() - 9].chunks(1).collect();
        assert_eq!(pass(Framing::Chunked, &bytes), (b"abcd0123456789".to_vec(), Passed::Done(1)));
    }

    #[test]
    fn broken_chunks() {
        for bytes in [b"\r\n".as_slice(), b"xyz\r\n", b"-1\r\n", b"11111111111111111\r\n", b"1\r\nab", b";\r\n"] {
            assert_eq!(pass(Framing::Chunked, &[bytes]).1, Passed::Lost, "{}", bytes.escape_ascii());
        }
        assert_eq!(pass(Framing::Chunked, &[b"1;", &[b'x'; 5000]]).1, Passed::Lost);
        assert_eq!(pass(Framing::Chunked, &[b"0\r\n", &[b'x'; 5000]]).1, Passed::Lost);
    }

    #[test]
    fn unseen_bytes() {
        let mut body = Body::Length(10);
        assert_eq!(body.skip(4), Some(0));
        assert_eq!(body.skip(8), Some(2));
        assert!(body.is_over());
        assert_eq!(Body::UntilClose.skip(u64::MAX), Some(0));
        assert_eq!(Body::Chunked(Chunked::START).skip(1), None);
        let mut data = Body::Chunked(Chunked::Data(10));
        assert_eq!(data.skip(10), Some(0));
        assert_eq!(data.skip(1), None);
    }
}
