//! What a run leaves about itself in the history, in the transactions of its rows, and what the run before it left.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use agent_core::books::{LEDGERS, Ledger, Records};
use agent_core::continuity::{Before, KernelMark, Key, Losses, Mark, Origin};
use agent_core::output::Output;
use agent_core::time::{BootNs, WallNs};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::codes::{count, int};
use super::files::Segment;
use super::schema::RUNS_SINCE;

/// Where a run stands.
pub(super) struct Standing {
    before: Option<Before>,
    /// Once all rows that were handed over are written.
    mark: Option<Mark>,
    /// In the file.
    written: Option<Mark>,
    /// Records of rows that are written, or lost and counted, by ledger; since the kernel's side began.
    settled: Losses,
}

/// Metadata exchanges that stand in the history, and whose records may be read again.
#[derive(Clone, Default)]
pub(crate) struct Told {
    /// Them.
    pub(crate) keys: HashSet<Key>,
    /// By socket cookie, up to where all of a connection was told, and when its last exchange began.
    pub(crate) until: HashMap<u64, (BootNs, u64)>,
}

// === impl Standing ===

impl Standing {
    /// A run after another, of which the kernel's side may go on.
    pub(super) fn new(before: Option<Before>, continues: Option<Losses>) -> Self {
        // Whoever crashes before his first transaction leaves what the run before left.
        let written = before.as_ref().filter(|_| continues.is_some()).and_then(|before| before.mark);
        Self { before, mark: None, written, settled: continues.unwrap_or([0; LEDGERS]) }
    }

    pub(super) fn before(&self) -> Option<&Before> {
        self.before.as_ref()
    }

    pub(super) fn in_file(&self) -> Option<&Mark> {
        self.written.as_ref()
    }

    /// Where the run stands, once what is written next is written. Until its rings said the first word, what the run before
    /// left of them holds: who is killed by then must not leave less than he found.
    pub(super) fn mark(&mut self, mark: Option<Mark>) {
        let says_less = |mark: &Mark| mark.kernel.is_none() && self.written.is_some_and(|left| left.kernel.is_some());
        self.mark = mark.filter(|mark| !says_less(mark)).or(self.mark);
    }

    pub(super) fn settle(&mut self, records: impl IntoIterator<Item = (Ledger, u64)>) {
        for (ledger, records) in records {
            if let Some(settled) = self.settled.get_mut(ledger as usize) {
                *settled = settled.wrapping_add(records);
            }
        }
    }

    /// The mark of a transaction with these rows, and what is then settled. The last of several transactions speaks for all
    /// of them.
    pub(super) fn with(&self, rows: &[Arc<Output>], is_last: bool) -> (Option<Mark>, Losses) {
        let mut settled = self.settled;
        for row in rows {
            for ((_, records), sum) in records(row).iter().zip(&mut settled) {
                *sum = sum.wrapping_add(records);
            }
        }
        let mark = if is_last { self.mark.or(self.written) } else { self.written };
        let kernel = mark.and_then(|mark| mark.kernel).map(|kernel| KernelMark { settled, ..kernel });
        (mark.map(|mark| Mark { kernel, ..mark }), settled)
    }

    /// A transaction stands in the file.
    pub(super) fn written(&mut self, mark: Option<Mark>, settled: Losses) {
        (self.written, self.settled) = (mark.or(self.written), settled);
    }
}

/// The last run that wrote into a file; `None` when the file does not tell. Files of schema version 1 tell when it was last
/// alive and nothing else.
pub(super) fn before(segment: &Segment) -> Option<Before> {
    // For writing: a log that a killed run left must be read, and may need its index made anew.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let result = Connection::open_with_flags(&segment.path, flags).and_then(|file| last(&file));
    result
        .inspect_err(|error| {
            tracing::debug!(%error, path = %segment.path.display(), "a file does not tell of the run before");
        })
        .ok()
        .flatten()
}

fn last(file: &Connection) -> rusqlite::Result<Option<Before>> {
    let version: u32 = file.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version < RUNS_SINCE {
        let alive =
            file.query_row("SELECT alive FROM run ORDER BY id DESC LIMIT 1", [], |row| row.get(0)).optional()?;
        return Ok(alive.map(|alive| Before { boot_id: None, alive: WallNs(alive), is_ended: false, mark: None }));
    }
    let sql = "SELECT boot_id, alive, ended IS NOT NULL, mark FROM run ORDER BY id DESC LIMIT 1";
    file.query_row(sql, [], |row| {
        let mark: Option<String> = row.get(3)?;
        // A mark of a version to come tells nothing here.
        let mark = mark.and_then(|mark| serde_json::from_str(&mark).ok());
        Ok(Before { boot_id: row.get(0)?, alive: WallNs(row.get(1)?), is_ended: row.get(2)?, mark })
    })
    .optional()
}

/// Exchanges are told within a minute of silence and five seconds of waiting for a name; twice that.
const RETOLD_NS: u64 = 130_000_000_000;
/// Keys that are read at a start: of 500 requests a second, 3 MiB.
const TOLD_MAX: u64 = 65_536;

/// Notes that an exchange stands in the history, in the transaction that puts it there.
pub(super) fn note_told(file: &Connection, origin: Origin) -> rusqlite::Result<()> {
    let Origin { place: _, key: Key { time, cookie, number }, until } = origin;
    let sql = "INSERT OR IGNORE INTO told (time, cookie, n, until) VALUES (?1, ?2, ?3, ?4)";
    file.prepare_cached(sql)?.execute(params![int(time.0), cookie.cast_signed(), number, until.map(int)]).map(drop)
}

/// Forgets exchanges that nothing can tell again.
pub(super) fn forget_told(file: &Connection, now: BootNs) -> rusqlite::Result<()> {
    let sql = "DELETE FROM told WHERE time < ?1";
    file.prepare_cached(sql)?.execute([int(now.0.saturating_sub(RETOLD_NS))]).map(drop)
}

/// Exchanges that stand in the last two files.
pub(super) fn told(files: &[Segment]) -> Told {
    let mut told = Told::default();
    for segment in files.iter().rev().filter(|segment| !segment.broken).take(2) {
        if let Err(error) = read_told(segment, &mut told) {
            tracing::warn!(%error, path = %segment.path.display(), "metadata requests of this file may be told again");
        }
    }
    told
}

fn read_told(segment: &Segment, told: &mut Told) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let file = Connection::open_with_flags(&segment.path, flags)?;
    let version: u32 = file.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version < RUNS_SINCE {
        return Ok(());
    }
    let mut statement = file.prepare("SELECT time, cookie, n, until FROM told ORDER BY time DESC LIMIT ?1")?;
    let rows = statement.query_map([int(TOLD_MAX.saturating_sub(told.keys.len() as u64))], |row| {
        let cookie: i64 = row.get(1)?;
        let key = Key { time: BootNs(count(row.get(0)?)), cookie: cookie.cast_unsigned(), number: row.get(2)? };
        Ok((key, row.get::<_, Option<i64>>(3)?.map(count)))
    })?;
    for row in rows {
        let (key, until) = row?;
        told.keys.insert(key);
        if let Some(until) = until {
            let last = told.until.entry(key.cookie).or_default();
            *last = (key.time, until).max(*last);
        }
    }
    Ok(())
}

/// Records that a row stands for.
pub(super) fn records(row: &Output) -> Records {
    let mut records = Records::default();
    match row {
        Output::Flow(row) => records = row.records,
        Output::Process(_) => records.add(Ledger::Process, 1),
        // Of two packets and an end at least; how many they were is not told.
        Output::Metadata(_) => records.add(Ledger::Metadata, 1),
        Output::Gap(_) | Output::Finding(_) | Output::Capacity(_) | Output::Object(_) => {}
    }
    records
}
