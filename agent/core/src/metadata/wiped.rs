//! Bytes that may hold secrets: never shown, never copied by growth, overwritten when they go.

use zeroize::Zeroize;

/// A buffer of payload. Deliberately neither `Debug` nor `Clone`.
pub(super) struct Wiped {
    // Never grows beyond the capacity it was made with: growth would leave a copy behind.
    bytes: Vec<u8>,
}

// === impl Wiped ===

impl Wiped {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    pub(super) fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::with_capacity(bytes.len());
        copy.append(bytes);
        copy
    }

    /// Takes as many bytes as there is room for and says how many.
    pub(super) fn append(&mut self, bytes: &[u8]) -> usize {
        let room = self.bytes.capacity() - self.bytes.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
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
