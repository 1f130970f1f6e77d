//! Bundles of evidence: a tar archive in zstd whose first file, `manifest.json`, names every other file with its size and its
//! SHA-256. Whoever changes, cuts or adds something is found out, unless the manifest is made anew with it: so its own sum is
//! printed when the bundle is made, to be kept elsewhere.

use std::fmt::Write as _;
use std::path::PathBuf;

use agent_core::time::WallNs;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

mod verify;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use self::verify::{Checked, verify};
pub(crate) use self::write::{Part, Target};

/// Name of the first file.
const MANIFEST: &str = "manifest.json";
/// Largest manifest that is read: one names a handful of files and some hundred runs.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Manifest {
    /// `sekisho/1`.
    pub(crate) schema: String,
    /// `evidence`.
    pub(crate) kind: String,
    /// When it was made.
    pub(crate) created: WallNs,
    /// The program that made it, with its version.
    pub(crate) tool: String,
    /// Release and machine of the kernel it was made on.
    pub(crate) kernel: String,
    /// The node whose history it is from.
    pub(crate) node: String,
    /// What was asked for.
    pub(crate) query: serde_json::Value,
    /// First moment asked for; `None`: from the history's first.
    pub(crate) since: Option<WallNs>,
    /// Last moment asked for; `None`: to the history's last.
    pub(crate) until: Option<WallNs>,
    /// Runs of the agent that wrote the history.
    pub(crate) runs: Vec<Writer>,
    /// Files of the history that could not be read, and why: what they held is missing.
    pub(crate) unreadable: Vec<String>,
    /// All other files of the bundle.
    pub(crate) files: Vec<Listed>,
}

/// A run of the agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(crate) struct Writer {
    /// When it started.
    pub(crate) started: WallNs,
    /// The first moment that its files still cover.
    pub(crate) from: WallNs,
    /// The last moment at which it certainly ran.
    pub(crate) to: WallNs,
    /// The agent's version.
    pub(crate) version: String,
    /// Release and machine of its kernel; `None`: its version did not tell.
    pub(crate) kernel: Option<String>,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Listed {
    /// Its name.
    pub(crate) name: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// Lines in it, one object each.
    pub(crate) lines: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub(crate) sha256: String,
}

/// Why a bundle could not be made, or not be read at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is a file of that name.
    #[error("{} exists: name another file, or give --force to replace it", .0.display())]
    Exists(PathBuf),
    /// It could not be written; nothing of it is left.
    #[error("could not write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    /// It could not be opened.
    #[error("could not open {}", .0.display())]
    Open(PathBuf, #[source] std::io::Error),
}

/// Hexadecimal digits of a sum.
fn digits(sum: Sha256) -> String {
    sum.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
