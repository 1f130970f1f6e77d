//! The files as one store that is written: begins files, ends them, removes old ones, and survives whatever disks do.
//! Time is an argument; nothing here waits but for the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_core::books::{Ledger, Records};
use agent_core::continuity::{Before, Losses, Mark, Place};
use agent_core::output::{FlowRow, Output};
use agent_core::time::WallNs;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, params};

pub(super) use super::error::Error;
use super::files::{self, Segment};
use super::insert::Inserter;
use super::quota::{self, Bounds};
use super::schema::{self, BUSY_WAIT, Unusable, is_damage};
use super::standing::{self, Standing, Told, records};

mod upkeep;

/// Bytes of a page.
const PAGE_BYTES: u64 = 4_096;

/// Where and how much.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Where the files are.
    pub(crate) directory: PathBuf,
    /// Most bytes of all files.
    pub(crate) quota_bytes: u64,
    /// Files go when their last day is so many days past.
    pub(crate) age_days: u32,
    /// Percent of the file system that are left free.
    pub(crate) free_percent: u8,
    /// The node's name.
    pub(crate) node: Arc<str>,
    /// Tells this boot of the machine from others; `None` when that is not known.
    pub(crate) boot_id: Option<String>,
    /// The kernel's side has watched since the run before; what was taken out of its rings by then, by ledger.
    pub(crate) continues: Option<Losses>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Rows that stand on disk, synced.
    pub(super) rows: u64,
    /// Rows that do not.
    pub(super) lost_rows: u64,
    /// Records that the lost rows stood for.
    pub(super) lost: Records,
    /// Why, for the last ones lost.
    pub(super) error: Option<Error>,
}

/// The store, open for writing.
pub(super) struct Store {
    options: Options,
    bounds: Bounds,
    inserter: Inserter,
    current: Option<Current>,
    /// Nobody else writes here while it is held.
    _lock: files::Lock,
    /// Number of the next file.
    next: u64,
    /// Files up to this number are not written on: they have no more room, cannot be written, or may lack rows.
    full: u64,
    /// When this run began.
    started: WallNs,
    /// Where this run stands, and the run before it.
    standing: Standing,
    /// Of the run before.
    told: Told,
}

struct Current {
    segment: Segment,
    file: Connection,
    run: i64,
    /// It took rows, now or before.
    holds_rows: bool,
}

impl Store {
    /// Makes the directory, puts the files in order that an earlier run left, and begins to write. A full disk is no error
    /// here: it may have room later.
    pub(super) fn open(mut options: Options, now: WallNs) -> Result<Self, Error> {
        let directory = options.directory.clone();
        files::make_directory(&directory).map_err(|error| Error::Directory(directory.clone(), error))?;
        // SQLite is told to follow no link, and looks at each part of a path.
        options.directory = directory.canonicalize().map_err(|error| Error::Directory(directory.clone(), error))?;
        let lock = files::lock(&directory).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Error::Taken(directory.clone()),
            _ => Error::Directory(directory.clone(), error),
        })?;
        let left = files::list(&directory).map_err(|error| Error::Directory(directory.clone(), error))?;
        let bounds = Bounds::new(options.quota_bytes, options.free_percent, quota::disk(&directory));
        let next = left.last().map_or(1, |last| last.number.saturating_add(1));
        let mut whole = left.iter().rev().filter(|segment| !segment.broken);
        let before = whole.find_map(|segment| Some((segment.number, standing::before(segment)?)));
        let continues = options.continues;
        let told = if continues.is_some() { standing::told(&left) } else { Told::default() };
        let full = before.as_ref().filter(|(_, before)| may_lack_rows(before, options.boot_id.as_deref()));
        let full = full.map_or(0, |(number, _)| *number);
        let before = before.map(|(_, before)| before);
        let mut store = Self {
            options,
            bounds,
            inserter: Inserter::new(),
            current: None,
            _lock: lock,
            next,
            full,
            started: now,
            standing: Standing::new(before, continues),
            told,
        };
        // The one that is written on is examined when it is opened for that.
        let last = left.iter().rfind(|segment| !segment.broken).filter(|last| store.goes_on(last, now));
        for segment in left.iter().filter(|segment| !segment.broken && Some(*segment) != last) {
            store.recover(segment, now)?;
        }
        match store.begin(now) {
            Err(Error::NoRoom(_)) | Ok(()) => Ok(store),
            Err(error) => Err(error),
        }
    }

    /// Writes rows and syncs them. Flows of one fold are written pod by pod: a question about one pod then reads a page a
    /// fold, and not one for each of its rows.
    pub(super) fn write(&mut self, rows: &[Arc<Output>], now: WallNs) -> Written {
        let mut written = Written::default();
        let mut rows = rows.to_vec();
        rows.sort_by(|one, other| match (&**one, &**other) {
            (Output::Flow(one), Output::Flow(other)) => {
                let whose = |row: &FlowRow| (row.window.end, row.window.start);
                whose(one).cmp(&whose(other)).then_with(|| one.who.identity.cmp(&other.who.identity))
            }
            (one, other) => matches!(one, Output::Flow(_)).cmp(&matches!(other, Output::Flow(_))),
        });
        let mut chunks = rows.chunks(self.bounds.transaction_rows()).peekable();
        while let Some(chunk) = chunks.next() {
            match self.write_chunk(chunk, chunks.peek().is_none(), now) {
                Ok(()) => written.rows += (chunk.len() as u64).saturating_sub(self.inserter.left_out()),
                Err(error) => {
                    written.lost_rows += chunk.len() as u64;
                    let mut lost = Records::default();
                    for row in chunk {
                        self.inserter.objects().lost(row);
                        lost.merge(records(row));
                    }
                    self.standing.settle(lost.iter());
                    written.lost.merge(lost);
                    written.error = Some(error);
                }
            }
        }
        written
    }

    /// Says that this run goes on, when there was nothing to write.
    pub(super) fn alive(&mut self, now: WallNs) -> Result<(), Error> {
        self.write_chunk(&[], true, now)
    }

    /// The run before this one; `None` when no file tells.
    pub(super) fn before(&self) -> Option<&Before> {
        self.standing.before()
    }

    /// Metadata exchanges that stand in the history and may be told again.
    pub(super) fn told(&mut self) -> Told {
        std::mem::take(&mut self.told)
    }

    /// How far the history has what the metadata ring told.
    pub(super) fn place(&self) -> Option<Place> {
        self.standing.in_file()?.kernel.map(|kernel| kernel.metadata)
    }

    /// Where this run stands, once what is written next is written.
    pub(super) fn mark(&mut self, mark: Option<Mark>) {
        self.standing.mark(mark);
    }

    /// Records that need no row any more: counted as lost, or of an earlier run.
    pub(super) fn settle(&mut self, records: impl IntoIterator<Item = (Ledger, u64)>) {
        self.standing.settle(records);
    }

    /// Says that this run ended by a stop and that all is written; then ends the file.
    pub(super) fn finish(&mut self, now: WallNs) -> Result<(), Error> {
        self.begin(now)?;
        self.mark_end(now).map_err(|error| Error::Write(self.options.directory.clone(), error.into()))?;
        self.close();
        Ok(())
    }

    fn mark_end(&mut self, now: WallNs) -> rusqlite::Result<()> {
        let Some(Current { file, run, .. }) = &self.current else { return Ok(()) };
        file.pragma_update(None, "synchronous", "full")?;
        let (mark, _) = self.standing.with(&[], true);
        let mark = mark.as_ref().map(crate::lines::json);
        let sql = "UPDATE run SET alive = ?1, ended = ?1, mark = ifnull(?2, mark) WHERE id = ?3";
        file.execute(sql, params![now.0, mark, *run]).map(drop)
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        files::list(&self.options.directory).map_or(0, |all| all.iter().map(Segment::bytes).sum())
    }

    /// Whom to ask when a lock is held by somebody else.
    #[cfg(test)]
    pub(super) fn on_busy(&mut self, ask: fn(i32) -> bool) {
        let file = self.current.as_mut().map(|current| &mut current.file);
        file.expect("is written").busy_handler(Some(ask)).expect("is set");
    }

    /// Ends the file that is written, as well as it can be done.
    pub(super) fn close(&mut self) {
        if let Some(current) = self.current.take() {
            self.inserter.forget();
            seal(current.file);
        }
    }

    fn write_chunk(&mut self, chunk: &[Arc<Output>], sync: bool, now: WallNs) -> Result<(), Error> {
        self.begin(now)?;
        let Err(error) = self.transact(chunk, sync, now) else {
            self.copy_log();
            return Ok(());
        };
        // What was remembered in the transaction stands in no file.
        self.inserter.forget();
        let Some(Current { segment, file, holds_rows, .. }) = self.current.take() else { return Ok(()) };
        if holds_rows && error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) {
            // A part of the disk that cannot be used. A file that took no row yet is no better place than the next one.
            self.full = segment.number;
        }
        let full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
        let again = if is_damage(&error) {
            drop(file);
            self.set_aside(&segment, &error.to_string(), now)?;
            true
        } else if full && segment.bytes() > self.bounds.segment_bytes() {
            self.full = segment.number;
            seal(file);
            true
        } else {
            false
        };
        let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Error::NoRoom(self.options.directory.clone()),
            _ => Error::Write(segment.path.clone(), error.into()),
        };
        if !again {
            return Err(failed(error));
        }
        self.begin(now)?;
        self.transact(chunk, sync, now).map_err(|error| {
            self.inserter.forget();
            self.current = None;
            let path = self.options.directory.clone();
            Error::Write(path, error.into())
        })
    }

    fn transact(&mut self, chunk: &[Arc<Output>], sync: bool, now: WallNs) -> rusqlite::Result<()> {
        let (mark, settled) = self.standing.with(chunk, sync);
        let Some(Current { file, run, .. }) = &mut self.current else { return Ok(()) };
        // A commit with full syncs the whole log, earlier commits included.
        file.pragma_update(None, "synchronous", if sync { "full" } else { "normal" })?;
        let transaction = file.transaction()?;
        // Rows that come have the room first; what stands is in no hurry.
        let room = self.bounds.transaction_rows().saturating_sub(chunk.len()).max(1);
        self.inserter.objects().repeat(&transaction, room)?;
        for row in chunk {
            self.inserter.insert(&transaction, row)?;
        }
        let sql = "UPDATE run SET alive = ?1, mark = ifnull(?2, mark) WHERE id = ?3";
        if let Some(mark) = mark.filter(|mark| mark.kernel.is_some()) {
            standing::forget_told(&transaction, mark.at.boot)?;
        }
        transaction.prepare_cached(sql)?.execute(params![now.0, mark.as_ref().map(crate::lines::json), *run])?;
        transaction.commit()?;
        self.standing.written(mark, settled);
        if let Some(current) = &mut self.current {
            current.holds_rows = true;
        }
        Ok(())
    }

    /// Copies the log into the file when it is long. A reader may hold that up: then the log grows, and the file is given
    /// up early.
    fn copy_log(&self) {
        let Some(Current { segment, file, .. }) = &self.current else { return };
        let log = std::fs::metadata(segment.beside("-wal")).map_or(0, |log| log.len());
        if log <= self.bounds.log_bytes() {
            return;
        }
        // A reader that stands still is not waited for: it would be after each transaction until the file is given up.
        let copied = file
            .busy_timeout(Duration::ZERO)
            .and_then(|()| file.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE));
        if let Err(error) = copied.and(file.busy_timeout(BUSY_WAIT)) {
            // The rows stand in the log. The next transaction finds out what is wrong.
            tracing::debug!(%error, path = %segment.path.display(), "could not copy the history's log into its file");
        }
    }

    /// Sees to it that a file is open that has room, and that all files together may grow by what it may.
    fn begin(&mut self, now: WallNs) -> Result<(), Error> {
        let day = now.to_string();
        if let Some(Current { segment, .. }) = &self.current {
            if segment.bytes() > self.bounds.segment_bytes() {
                self.full = segment.number;
            } else if files::day(segment) == day.get(..10) {
                return Ok(());
            }
            self.close();
        }
        self.make_room(now)?;
        if let Some(last) = self.list()?.iter().rfind(|segment| !segment.broken)
            && self.goes_on(last, now)
        {
            match self.open_file(last, now) {
                Err(Unusable::Damaged(why)) => self.set_aside(last, &why, now)?,
                Err(Unusable::Newer(_)) => {}
                // A reader that stands still, or a disk that does not give it back.
                Err(Unusable::Database(error)) if error.sqlite_error_code() != Some(ErrorCode::DiskFull) => {
                    tracing::warn!(
                        %error, path = %last.path.display(),
                        "a file of the history cannot be written on; the history goes on in a new one"
                    );
                    self.full = last.number;
                }
                result => return self.opened(last, result, true),
            }
        }
        let segment = files::create(&self.options.directory, self.next, now);
        let segment = segment.map_err(|error| self.failed(error))?;
        self.next += 1;
        let result = self.open_file(&segment, now);
        if result.is_err()
            && let Err(error) = segment.remove()
        {
            tracing::debug!(%error, path = %segment.path.display(), "could not remove a file that could not be begun");
        }
        self.opened(&segment, result, false)
    }

    /// Whether a file of an earlier run is written on.
    fn goes_on(&self, last: &Segment, now: WallNs) -> bool {
        files::day(last) == now.to_string().get(..10)
            && last.number > self.full
            && last.bytes() < self.bounds.segment_bytes()
    }

    fn open_file(&self, segment: &Segment, now: WallNs) -> Result<(Connection, i64), Unusable> {
        let file = schema::open(&segment.path, 2 * self.bounds.segment_bytes() / PAGE_BYTES)?;
        file.execute(
            "INSERT INTO run (node, version, started, since, alive, boot_id, continues, mark, kernel) \
             VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7, ?8)",
            params![
                &*self.options.node,
                env!("CARGO_PKG_VERSION"),
                self.started.0,
                now.0,
                self.options.boot_id,
                self.options.continues.is_some(),
                self.standing.in_file().map(crate::lines::json),
                kernel()
            ],
        )?;
        let run = file.last_insert_rowid();
        Ok((file, run))
    }

    fn opened(
        &mut self,
        segment: &Segment,
        result: Result<(Connection, i64), Unusable>,
        holds_rows: bool,
    ) -> Result<(), Error> {
        let (file, run) = result.map_err(|error| match &error {
            Unusable::Database(cause) if cause.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                Error::NoRoom(self.options.directory.clone())
            }
            _ => Error::Write(segment.path.clone(), error.into()),
        })?;
        self.inserter.forget();
        self.current = Some(Current { segment: segment.clone(), file, run, holds_rows });
        Ok(())
    }

    fn list(&self) -> Result<Vec<Segment>, Error> {
        files::list(&self.options.directory).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::StorageFull => Error::NoRoom(self.options.directory.clone()),
            _ => Error::Files(self.options.directory.clone(), error),
        }
    }
}

/// Whether the machine may have taken back rows that somebody saw before they were synced. Their ids must name no other rows.
fn may_lack_rows(before: &Before, boot_id: Option<&str>) -> bool {
    !before.is_ended && before.boot_id.is_some() && before.boot_id.as_deref() != boot_id
}

/// Release and machine of the running kernel.
pub(crate) fn kernel() -> String {
    let uname = rustix::system::uname();
    format!("{} {}", uname.release().to_string_lossy(), uname.machine().to_string_lossy())
}

/// Makes a file whole by itself, without a log beside it. Where a reader stands in the way, it stays with its log.
fn seal(file: Connection) {
    let path = file.path().map(Path::new).map(Path::to_owned);
    if let Err(error) = file.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(())) {
        tracing::debug!(%error, ?path, "a file of the history keeps its log beside it");
    }
    if let Err((_, error)) = file.close() {
        tracing::debug!(%error, ?path, "could not close a file of the history");
    }
}
