//! A recorded run as a file: all that the Engine was told, for `sekisho replay`.
//!
//! # Format
//!
//! A zstd stream. In it one line of JSON, the [`agent_core::recording::Header`], so that `zstdcat FILE | head -1` says what it
//! is; then entries, each a length (4 bytes, little endian) and as many bytes of `MessagePack` with named fields. The last entry
//! says why the recording ends; one without it was cut off.
//!
//! # Decisions
//!
//! **`MessagePack`, not JSON**: JSON of the core is for people, with times to the microsecond, and a replay must be exact. Names
//! stay in it, so that a field may be added; compressed they cost little.
//!
//! **A recording has no holes.** What does not fit into the queue before the disk, or into the file's bound, ends it, with an
//! entry that says so. A replay of what is there is exact.
//!
//! **A file that is there is never written over**: a restarted agent would overwrite the run that somebody wants to look at.

use std::path::PathBuf;

use agent_core::recording::FORMAT;

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use self::read::Reader;
pub(crate) use self::write::Recorder;

/// Bytes of a recording unless said otherwise: 256 MiB. Compressed an entry takes 16 bytes where one program floods another, and
/// some 30 where traffic is mixed.
pub(crate) const BYTES_DEFAULT: u64 = 256 << 20;
/// The least: a header with 1,000 waivers, and some entries.
pub(crate) const BYTES_LEAST: u64 = 1 << 20;

/// Longest header, bytes: 1,000 waivers of 1 KiB, and some.
const HEADER_BYTES_MAX: usize = 4 << 20;
/// Longest entry, bytes: the kernel's totals of 16,384 cgroups at 400 bytes are 6 MiB, all pods of a node some 2 MiB.
const ENTRY_BYTES_MAX: usize = 32 << 20;

/// Why a recording cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be begun.
    #[error("could not begin the recording {}; name a new file in a directory that may be written", .0.display())]
    Create(PathBuf, #[source] std::io::Error),
    /// It could not be opened.
    #[error("could not open the recording {}", .0.display())]
    Open(PathBuf, #[source] std::io::Error),
    /// It does not begin like one.
    #[error("{} is no recording: it does not begin with a header that sekisho run --record writes", .0.display())]
    Foreign(PathBuf),
    /// Of another version.
    #[error("{}, line 1: recorded by sekisho {agent} in format {found}, and this one reads format {FORMAT}; replay it by that version", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Who wrote it.
        agent: String,
    },
    /// Something in it cannot be understood.
    #[error("{}, entry {entry}: {what}", .path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// Which entry, from 1.
        entry: u64,
        /// What is wrong.
        what: String,
    },
    /// It stops in the middle.
    #[error("{} was cut off after entry {entries}: the agent was killed or still runs, or the copy is not whole", .path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// Entries that are whole.
        entries: u64,
    },
}
