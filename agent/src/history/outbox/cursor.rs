//! How far the history is shipped, in a file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Files of which the rows are counted: a sixteenth of the quota each, and one a day at most beside those.
pub(super) const BEHIND_MAX: usize = 4_096;
/// Longest file: 4,096 counts of 40 bytes, and some.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Everything that must be known after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Cursor {
    /// Up to here everything arrived.
    pub(super) place: Place,
    /// Rows of whole files from that one on.
    pub(super) behind: BTreeMap<u64, u64>,
    /// Rows removed before their turn, of which nobody was told yet.
    missing: u64,
    /// Something was removed or could not be read, and how many rows that were is not known.
    more_missing: bool,
    /// All of them.
    missing_total: u64,
}

/// A place in the order of writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Place {
    /// Number of the file; 0 before the first.
    pub(super) file: u64,
    /// When the file was begun: tells it from another one of that number.
    pub(super) since: i64,
    /// Id of the last flow that arrived.
    pub(super) flow: i64,
    /// Number of the last other row that arrived.
    pub(super) journal: i64,
    /// Rows of this file that arrived.
    pub(super) sent: u64,
}

impl Cursor {
    /// On to a file that is there. Files between may be gone, or may never have been.
    pub(super) fn go_to(&mut self, file: u64) {
        if self.place.file != file {
            self.place = Place { file, ..Place::default() };
        }
    }

    /// All of a file arrived.
    pub(super) fn leave(&mut self, file: u64) {
        self.go_to(file.saturating_add(1));
        self.behind.retain(|number, _| *number > file);
    }

    /// What is left of a file never arrives.
    pub(super) fn give_up(&mut self, file: u64) {
        self.lose(file);
        self.leave(file);
    }

    /// The history began anew, with the first number. What was not shipped of the one before is gone with it.
    pub(super) fn begin_anew(&mut self) {
        let files: Vec<u64> = self.behind.keys().copied().collect();
        for file in files {
            self.lose(file);
        }
        self.place = Place::default();
    }

    /// Counts what was removed before its turn.
    pub(super) fn forget_removed(&mut self, is_there: impl Fn(u64) -> bool) {
        let removed: Vec<u64> = self.behind.keys().copied().filter(|number| !is_there(*number)).collect();
        for file in removed {
            self.lose(file);
            if file == self.place.file {
                self.leave(file);
            }
        }
    }

    fn lose(&mut self, file: u64) {
        let sent = if file == self.place.file { self.place.sent } else { 0 };
        match self.behind.remove(&file) {
            Some(rows) => {
                self.missing = self.missing.saturating_add(rows.saturating_sub(sent));
                self.missing_total = self.missing_total.saturating_add(rows.saturating_sub(sent));
            }
            None => self.more_missing = true,
        }
    }

    /// Something is missing of which nobody was told.
    pub(super) fn is_missing(&self) -> bool {
        self.missing > 0 || self.more_missing
    }

    /// How many rows at least, when that is known; they are told now.
    pub(super) fn take_missing(&mut self) -> Option<u64> {
        self.more_missing = false;
        Some(std::mem::take(&mut self.missing)).filter(|rows| *rows > 0)
    }

    pub(super) fn missing_total(&self) -> u64 {
        self.missing_total
    }
}

/// Reads the file; `None` when there is none.
pub(super) fn load(path: &Path) -> Result<Option<Cursor>, String> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    serde_json::from_str(&text).map(Some).map_err(|error| error.to_string())
}

/// Writes the file: whole, or not at all.
pub(super) fn save(path: &Path, cursor: &Cursor) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(crate::lines::json(cursor).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}
