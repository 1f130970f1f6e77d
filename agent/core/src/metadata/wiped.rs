//! Bytes that may hold secrets: never shown, never copied by growth, overwritten when they go.

use zeroize::Zeroize;

/// A buffer of payload. Deliberately neither `Debug` nor `Clone`.
pub(super) struct Wiped {
    // Never grows by itself: that would leave a copy behind.
    bytes: Vec<u8>,
    limit: usize,
}

/// First capacity of a buffer that may grow: most heads fit.
const FIRST_BYTES: usize = 1024;

// === impl Wiped ===

impl Wiped {
    /// An empty buffer that takes at most `limit` bytes.
    pub(super) fn with_limit(limit: usize) -> Self {
        Self { bytes: Vec::with_capacity(limit.min(FIRST_BYTES)), limit }
    }

    pub(super) fn copy_of(bytes: &[u8]) -> Self {
        // Exactly as large as its content: `to_vec` allocates once.
        Self { bytes: bytes.to_vec(), limit: bytes.len() }
    }

    /// Takes as many bytes as the limit allows and says how many.
    pub(super) fn append(&mut self, bytes: &[u8]) -> usize {
        let room = self.limit.saturating_sub(self.bytes.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        let needed = self.bytes.len() + taken.len();
        if needed > self.bytes.capacity() {
            let mut grown = Vec::with_capacity(needed.next_power_of_two().min(self.limit));
            grown.extend_from_slice(&self.bytes);
            self.bytes.zeroize();
            self.bytes = grown;
        }
        self.bytes.extend_from_slice(taken);
        taken.len()
    }

    /// Shortens to `len`; what stood behind is overwritten with the rest of the buffer when that goes.
    pub(super) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        // Overwrites the whole capacity, not only what is in use.
        self.bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_up_to_its_limit() {
        let mut buffer = Wiped::with_limit(3000);
        let mut expected = Vec::new();
        while expected.len() < 3000 {
            let taken = buffer.append(b"0123456");
            expected.extend_from_slice(&b"0123456"[..taken]);
        }
        assert_eq!(buffer.as_slice(), expected);
        assert_eq!((buffer.append(b"x"), buffer.capacity()), (0, 3000));
        let mut copy = Wiped::copy_of(b"abc");
        assert_eq!((copy.append(b"x"), copy.as_slice()), (0, b"abc".as_slice()));
    }
}
