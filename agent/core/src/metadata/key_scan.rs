//! Finds the access key id in the body of a credentials answer, without keeping the body.
//!
//! An automaton over the bytes rather than a JSON parser: the body comes in pieces, holds secrets, and only one of its
//! members is wanted. The services write the member with and without spaces around the colon.

use zeroize::Zeroize;

/// The member's name with its quotes. Its only border is the quote, which is what a mismatch falls back to.
const NAME: &[u8] = b"\"AccessKeyId\"";
/// Bodies of credentials are 1 to 4 KiB; what lies behind this many bytes is not searched.
const SCAN_BYTES: usize = 16 * 1024;
/// Prefixes of the ids of long-lived and of temporary keys.
const PREFIXES: [&[u8]; 2] = [b"AKIA", b"ASIA"];
/// Shortest and longest id: the prefix and 12 to 124 capital letters and digits.
const ID_BYTES: std::ops::RangeInclusive<usize> = 16..=128;

/// The search in one body.
pub(super) struct KeyScan {
    state: State,
    searched: usize,
    // Holds what stands between the quotes, which in a hostile answer may be anything.
    candidate: [u8; *ID_BYTES.end()],
}

enum State {
    /// This many bytes of the name matched.
    Name(usize),
    /// Behind the name: at the colon, or at spaces around it.
    Colon {
        seen: bool,
    },
    /// In the value, of which this many bytes were taken.
    Value(usize),
    Over(Option<String>),
}

// === impl KeyScan ===

impl KeyScan {
    pub(super) fn new() -> Self {
        Self { state: State::Name(0), searched: 0, candidate: [0; *ID_BYTES.end()] }
    }

    /// Searches the next bytes of the body.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if matches!(self.state, State::Over(_)) {
                return;
            }
            self.searched += 1;
            if self.searched > SCAN_BYTES {
                self.state = State::Over(None);
                return;
            }
            self.byte(byte);
        }
    }

    /// Bytes of the body were missed: a value across them would be a wrong one.
    pub(super) fn gap(&mut self) {
        if !matches!(self.state, State::Over(_)) {
            self.state = State::Name(0);
        }
    }

    /// Whether more bytes cannot change the answer.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    /// The id, if one was found.
    pub(super) fn found(&self) -> Option<&str> {
        match &self.state {
            State::Over(id) => id.as_deref(),
            _ => None,
        }
    }

    fn byte(&mut self, byte: u8) {
        let restart = State::Name(usize::from(byte == b'"'));
        self.state = match self.state {
            State::Name(matched) if NAME.get(matched) == Some(&byte) => {
                if matched + 1 == NAME.len() {
                    State::Colon { seen: false }
                } else {
                    State::Name(matched + 1)
                }
            }
            State::Colon { seen } => match byte {
                b' ' | b'\t' | b'\r' | b'\n' => State::Colon { seen },
                b':' if !seen => State::Colon { seen: true },
                b'"' if seen => State::Value(0),
                _ => restart,
            },
            State::Value(taken) if byte == b'"' => self.end_of_value(taken),
            State::Value(taken) => match self.candidate.get_mut(taken) {
                Some(slot) => {
                    *slot = byte;
                    State::Value(taken + 1)
                }
                None => State::Name(0),
            },
            State::Name(_) | State::Over(_) => restart,
        };
    }

    fn end_of_value(&self, taken: usize) -> State {
        let id = self.candidate.get(..taken).unwrap_or_default();
        let known = PREFIXES.iter().any(|prefix| id.starts_with(prefix)) && ID_BYTES.contains(&taken);
        if known && id.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
            // The letters were just checked to be ASCII.
            State::Over(Some(String::from_utf8_lossy(id).into_owned()))
        } else {
            State::Name(0)
        }
    }
}

impl Drop for KeyScan {
    fn drop(&mut self) {
        self.candidate.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(pieces: &[&[u8]]) -> Option<String> {
        let mut scan = KeyScan::new();
        for piece in pieces {
            scan.feed(piece);
        }
        scan.found().map(str::to_owned)
    }

    #[test]
    fn ids_with_and_without_spaces() {
        let id = "ASIAIOSFODNN7EXAMPLE";
        for body in [
            format!("{{\"AccessKeyId\":\"{id}\",\"SecretAccessKey\":\"s\"}}"),
            format!("{{\n  \"Code\" : \"Success\",\n  \"AccessKeyId\" : \"{id}\",\n"),
            format!("\"AccessKeyId\"\"AccessKeyId\"\t:\r\n\"{id}\""),
            format!("\"Access\"AccessKeyId\" : \"{id}\""),
            format!("\"AccessKeyId\": null, \"AccessKeyId\": \"short\", \"AccessKeyId\": \"{id}\""),
        ] {
            assert_eq!(scan(&[body.as_bytes()]).as_deref(), Some(id), "{body}");
            let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
            assert_eq!(scan(&bytes).as_deref(), Some(id), "{body} in single bytes");
        }
    }

    #[test]
    fn what_is_no_id() {
        let too_long = format!("\"AccessKeyId\":\"ASIA{}\"", "A".repeat(125));
        let longest = format!("\"AccessKeyId\":\"ASIA{}\"", "A".repeat(124));
        assert_eq!(scan(&[longest.as_bytes()]).map(|id| id.len()), Some(128));
        for body in [
            too_long.as_str(),
            "\"AccessKeyId\":\"ASIA7890123\"",
            "\"AccessKeyId\":\"ASIAiosfodnn7example\"",
            "\"AccessKeyId\":\"AROAIOSFODNN7EXAMPLE\"",
            "\"AccessKeyId\"::\"ASIAIOSFODNN7EXAMPLE\"",
            "\"SecretAccessKey\":\"ASIAIOSFODNN7EXAMPLE\"",
            "AccessKeyId:ASIAIOSFODNN7EXAMPLE",
            "\"AccessKeyId\":\"ASIAIOSFODNN7EXAMPLE",
        ] {
            assert_eq!(scan(&[body.as_bytes()]), None, "{body}");
        }
    }

    #[test]
    fn gap_in_value_finds_nothing() {
        let mut scan = KeyScan::new();
        scan.feed(b"\"AccessKeyId\":\"ASIAIOSF");
        scan.gap();
        scan.feed(b"ODNN7EXAMPLE\"");
        assert_eq!(scan.found(), None);
    }

    #[test]
    fn search_is_bounded() {
        let filler = vec![b' '; SCAN_BYTES];
        assert_eq!(scan(&[&filler, b"\"AccessKeyId\":\"ASIAIOSFODNN7EXAMPLE\""]), None);
    }
}
