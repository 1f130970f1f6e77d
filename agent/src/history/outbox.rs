//! Rows of the history for whoever ships them, each at least once: in the order in which they were written, from a cursor on
//! that survives restarts. What the quota removed before its turn is counted.
//!
//! The cursor is a small file in the data directory, written beside itself and renamed. It moves when whoever ships says that a
//! batch arrived; a crash between the two ships that batch once more, with the same ids.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_core::output::Output;
use agent_core::time::WallNs;

use super::files::{self, Segment};
use super::read::open;
use crate::lines::LineKind;

mod cursor;
mod rows;
#[cfg(test)]
mod tests;

use self::cursor::{Cursor, Place};

/// Where the cursor stands; the history's directory is its own.
const CURSOR: &str = "shipped.json";

/// The rows that are still to be shipped.
pub(crate) struct Outbox {
    directory: PathBuf,
    kinds: Vec<LineKind>,
    cursor: Cursor,
}

/// What is to be shipped.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    /// A row, and what names it for good: the same row has the same name whenever it is shipped, and no other row on any node
    /// with this name of a node has it.
    Row {
        /// See above.
        id: String,
        /// The row.
        row: Arc<Output>,
    },
    /// Rows were removed before their turn.
    Missing {
        /// Names this loss.
        id: String,
        /// How many at least; `None` when that is not known.
        rows: Option<u64>,
        /// When this was found out.
        time: WallNs,
    },
}

/// Some parcels, and where the cursor stands once they arrived.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In order.
    pub(crate) parcels: Vec<Parcel>,
    /// Rows among them that cannot be read.
    pub(crate) unreadable: u64,
    after: Option<Cursor>,
}

/// How much may be in a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Rows.
    pub(crate) rows: usize,
    /// About how many bytes; one row more may be in it.
    pub(crate) bytes: usize,
}

/// Why nothing can be shipped now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboxError {
    /// The directory.
    #[error("could not read the directory {}", .0.display())]
    Directory(PathBuf, #[source] std::io::Error),
    /// A file of the history.
    #[error("could not read {}", .0.display())]
    File(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The cursor.
    #[error("could not write {}", .0.display())]
    Cursor(PathBuf, #[source] std::io::Error),
}

impl Outbox {
    /// Rows of these kinds (none: of all) in a directory that is written by this agent. Without a cursor it begins with what is
    /// written from now on, or with the oldest row that is there.
    pub(crate) fn open(directory: &Path, kinds: Vec<LineKind>, from_oldest: bool) -> Result<Self, OutboxError> {
        let unreadable = |error| OutboxError::Directory(directory.to_owned(), error);
        // SQLite is told to follow no link, and looks at each part of a path.
        let directory = directory.canonicalize().map_err(unreadable)?;
        let mut outbox = Self { cursor: Cursor::default(), kinds, directory };
        let path = outbox.directory.join(CURSOR);
        match cursor::load(&path) {
            Ok(Some(cursor)) => outbox.cursor = cursor,
            // What cannot be read may have stood anywhere: everything once more loses nothing.
            Err(why) => tracing::warn!(
                path = %path.display(), why, "where shipping stood is not known; all of the history is shipped again"
            ),
            Ok(None) if from_oldest => {}
            Ok(None) => {
                if let Some(last) = outbox.list()?.last() {
                    outbox.cursor.place = outbox.end_of(last)?;
                }
                outbox.save()?;
            }
        }
        outbox.settle()?;
        Ok(outbox)
    }

    /// The next batch; an empty one when everything is shipped.
    pub(crate) fn next(&mut self, most: Most, now: WallNs) -> Result<Batch, OutboxError> {
        self.look()?;
        self.find_removed()?;
        let mut cursor = self.cursor.clone();
        let mut batch = Batch::default();
        loop {
            let files = self.list()?;
            let last = files.last().map_or(0, |last| last.number);
            let Some(segment) = files.iter().find(|file| file.number >= cursor.place.file) else { break };
            cursor.go_to(segment.number);
            let read = match open::open(segment) {
                // Removed this moment: the next look tells.
                Err(open::Error::Gone) => break,
                Err(open::Error::Unreadable(why)) => Err(why.into()),
                Ok(file) => rows::read(&file.connection, segment, &mut cursor.place, &self.kinds, most, &mut batch),
            };
            match read {
                Ok(()) if batch.parcels.is_empty() && batch.unreadable == 0 && segment.number < last => {
                    cursor.leave(segment.number);
                }
                // It may be a moment's trouble of a file that is being written; of one that is whole it stays.
                Err(error) if segment.number < last && batch.parcels.is_empty() => {
                    tracing::warn!(
                        path = %segment.path.display(), %error, "a file of the history cannot be read; its rows are not shipped"
                    );
                    cursor.give_up(segment.number);
                }
                Err(error) if batch.parcels.is_empty() => return Err(OutboxError::File(segment.path.clone(), error)),
                Ok(()) | Err(_) => break,
            }
        }
        if cursor.is_missing() {
            let id = format!("missing-{}-{}", cursor.place.file, cursor.missing_total());
            batch.parcels.insert(0, Parcel::Missing { id, rows: cursor.take_missing(), time: now });
        }
        if cursor != self.cursor {
            batch.after = Some(cursor);
        }
        Ok(batch)
    }

    /// A batch arrived, or nobody will ever take it: goes on after it.
    pub(crate) fn arrived(&mut self, batch: &Batch) -> Result<(), OutboxError> {
        let Some(after) = &batch.after else { return Ok(()) };
        // What was counted since the batch was made.
        let mut behind = std::mem::take(&mut self.cursor.behind);
        behind.retain(|file, _| *file >= after.place.file);
        self.cursor = after.clone();
        self.cursor.behind = behind;
        self.save()
    }

    /// Counts the rows of files that are whole and wait for their turn, so that it is known what is lost when one is removed. To
    /// be done now and then while a batch is on its way.
    pub(crate) fn look(&mut self) -> Result<(), OutboxError> {
        let files = self.list()?;
        let known = self.cursor.behind.len();
        let whole = files.len().saturating_sub(1);
        for segment in files.iter().take(whole).filter(|file| file.number >= self.cursor.place.file) {
            if self.cursor.behind.contains_key(&segment.number) || self.cursor.behind.len() >= cursor::BEHIND_MAX {
                continue;
            }
            if let Ok(file) = open::open(segment)
                && let Ok(count) = rows::count(&file.connection, &self.kinds)
            {
                self.cursor.behind.insert(segment.number, count);
            }
        }
        if self.cursor.behind.len() == known { Ok(()) } else { self.save() }
    }

    /// Finds out which files were removed before their turn.
    fn find_removed(&mut self) -> Result<(), OutboxError> {
        let files = self.list()?;
        if files.last().is_some_and(|last| last.number < self.cursor.place.file) {
            // Somebody removed the history, and it began anew.
            self.cursor.begin_anew();
        }
        self.cursor.forget_removed(|number| files.iter().any(|file| file.number == number));
        Ok(())
    }

    /// Rows that were removed before their turn, since the cursor was made.
    pub(crate) fn missing(&self) -> u64 {
        self.cursor.missing_total()
    }

    /// When the oldest row was written that is not shipped, about; `None` when all are.
    pub(crate) fn waits_since(&self) -> Option<WallNs> {
        let files = self.list().ok()?;
        let mut waiting = files.iter().filter(|file| file.number >= self.cursor.place.file);
        waiting.find_map(|segment| {
            let file = open::open(segment).ok()?;
            let place = if segment.number == self.cursor.place.file { self.cursor.place } else { Place::default() };
            rows::oldest(&file.connection, place, &self.kinds).ok()?
        })
    }

    /// A crash of the machine may take back what was read before it was synced, and then the same ids mean other rows.
    fn settle(&mut self) -> Result<(), OutboxError> {
        // Counted by this configuration.
        let files = self.list()?;
        self.cursor.behind.retain(|number, _| !files.iter().any(|file| file.number == *number));
        let Some(segment) = files.iter().find(|file| file.number == self.cursor.place.file) else { return Ok(()) };
        let end = self.end_of(segment)?;
        let place = &mut self.cursor.place;
        if place.since != 0 && end.since != place.since {
            *place = Place { file: place.file, ..Place::default() };
        }
        (place.flow, place.journal) = (place.flow.min(end.flow), place.journal.min(end.journal));
        Ok(())
    }

    fn end_of(&self, segment: &Segment) -> Result<Place, OutboxError> {
        let file = match open::open(segment) {
            Ok(file) => file,
            Err(open::Error::Gone) => return Ok(Place { file: segment.number, ..Place::default() }),
            Err(open::Error::Unreadable(why)) => return Err(OutboxError::File(segment.path.clone(), why.into())),
        };
        let end = rows::end(&file.connection, segment.number, &self.kinds);
        end.map_err(|error| OutboxError::File(segment.path.clone(), error.into()))
    }

    fn list(&self) -> Result<Vec<Segment>, OutboxError> {
        let files = files::list(&self.directory);
        let mut files = files.map_err(|error| OutboxError::Directory(self.directory.clone(), error))?;
        files.retain(|file| !file.broken);
        Ok(files)
    }

    fn save(&self) -> Result<(), OutboxError> {
        let path = self.directory.join(CURSOR);
        cursor::save(&path, &self.cursor).map_err(|error| OutboxError::Cursor(path, error))
    }
}
