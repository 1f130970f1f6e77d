//! Files that go for room or for age, and files that a crash left.

use agent_core::time::WallNs;

use super::{Error, PAGE_BYTES, Store, seal};
use crate::history::files::{DAY_NS, Segment, end_of_day};
use crate::history::quota;
use crate::history::schema::{self, Unusable};

impl Store {
    /// Removes files that are too old, then the oldest until the rest may stay.
    pub(super) fn make_room(&mut self, now: WallNs) -> Result<(), Error> {
        let mut earlier = self.list()?;
        // A clock that jumps ahead makes nothing old before a file was written by it: by then it may be right again.
        let last = earlier.iter().rfind(|segment| !segment.broken).and_then(end_of_day);
        let now = last.map_or(now, |last| WallNs(now.0.min(last.0.saturating_add(DAY_NS))));
        let age_ns = i64::from(self.options.age_days).saturating_mul(DAY_NS);
        let (old, kept) = earlier
            .drain(..)
            .partition(|segment| end_of_day(segment).is_some_and(|end| now.0.saturating_sub(end.0) > age_ns));
        let (old, kept): (Vec<_>, Vec<_>) = (old, kept);
        for segment in &old {
            self.remove(segment)?;
        }
        let sizes: Vec<u64> = kept.iter().map(Segment::bytes).collect();
        let mut used: u64 = sizes.iter().sum();
        self.bounds.look(used, quota::disk(&self.options.directory));
        let Some(allowed) = self.bounds.earlier_bytes() else {
            return Err(Error::NoRoom(self.options.directory.clone()));
        };
        for (segment, bytes) in kept.iter().zip(sizes) {
            if used <= allowed {
                break;
            }
            self.remove(segment)?;
            used = used.saturating_sub(bytes);
        }
        Ok(())
    }

    pub(super) fn remove(&self, segment: &Segment) -> Result<(), Error> {
        tracing::debug!(path = %segment.path.display(), "the history forgets its oldest file");
        segment.remove().map_err(|error| self.failed(error))
    }

    /// Ends a file that a killed run left open, so that it is whole by itself, also one that was only just made; puts it
    /// aside when it cannot be read.
    pub(super) fn recover(&mut self, segment: &Segment, now: WallNs) -> Result<(), Error> {
        let log = std::fs::metadata(segment.beside("-wal")).map_or(0, |log| log.len());
        if log == 0 && schema::is_begun(&segment.path) {
            return Ok(());
        }
        match schema::open(&segment.path, 2 * self.bounds.segment_bytes() / PAGE_BYTES) {
            Ok(file) => seal(file),
            Err(Unusable::Damaged(why)) => self.set_aside(segment, &why, now)?,
            Err(Unusable::Newer(_)) => {}
            // It is not written any more, and readers cope with its log.
            Err(Unusable::Database(error)) => {
                tracing::warn!(%error, path = %segment.path.display(), "could not end a file of the history");
            }
        }
        Ok(())
    }

    pub(super) fn set_aside(&mut self, segment: &Segment, why: &str, now: WallNs) -> Result<(), Error> {
        let to = segment.set_aside(now).map_err(|error| self.failed(error))?;
        tracing::warn!(
            path = %segment.path.display(), aside = %to.display(), why,
            "a file of the history is damaged and was set aside; the history goes on in a new one"
        );
        Ok(())
    }
}
