//! Memory that the program does not need any more.
#![expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]

/// Gives freed memory back to the system.
///
/// The start takes some 20 MB in small pieces for a fraction of a second, most of it probably for the kernel's types. glibc
/// gives back only what lies at the end of its heap, and so would keep nearly all of it as long as the agent runs.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no condition; it may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
