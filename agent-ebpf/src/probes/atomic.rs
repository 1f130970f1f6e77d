//! Atomic operations on map values. The target offers them as intrinsics only; `BPF_ATOMIC` needs Linux 5.12.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};

/// `*at += value`, whoever else adds.
#[inline(always)]
pub fn add(at: *mut u64, value: u64) -> u64 {
    // SAFETY: callers pass pointers into map values, valid and aligned for the whole program.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(at, value) }
}

/// Replaces `old` by `new` if it still stands there.
#[inline(always)]
pub fn replace(at: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: as in `add`.
    unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(at, old, new).1 }
}

/// Like [`replace`] for a `u32`.
#[inline(always)]
pub fn replace_u32(at: *mut u32, old: u32, new: u32) -> bool {
    // SAFETY: as in `add`.
    unsafe { atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(at, old, new).1 }
}

/// Puts `new` there and returns what stood there.
#[inline(always)]
pub fn swap_u32(at: *mut u32, new: u32) -> u32 {
    // SAFETY: as in `add`.
    unsafe { atomic_xchg::<u32, { AtomicOrdering::SeqCst }>(at, new) }
}

/// Moves `reported` up to `total` and returns the difference, for a reporter that comes again: 0 when another one was
/// faster or nothing is new.
///
/// Counters read from a socket without its lock may step back for a moment: that counts as nothing new.
#[inline(always)]
pub fn claim(reported: *mut u64, total: u64) -> u64 {
    // SAFETY: as in `add`.
    let before = unsafe { core::ptr::read_volatile(reported) };
    if total > before && replace(reported, before, total) { total - before } else { 0 }
}

/// Moves `reported` to `total` and returns the difference, for the last reporter: whatever a walk claims at the same
/// moment, each unit is told once.
#[inline(always)]
pub fn claim_last(reported: *mut u64, total: u64) -> u64 {
    // SAFETY: as in `add`.
    let before = unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(reported, total) };
    total.saturating_sub(before)
}
