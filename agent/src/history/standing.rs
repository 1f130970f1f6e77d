//! What a run leaves about itself in the history, in the transactions of its rows, and what the run before it left.

use std::sync::Arc;

use agent_core::books::{LEDGERS, Ledger, Records};
use agent_core::continuity::{Before, KernelMark, Losses, Mark};
use agent_core::output::Output;
use agent_core::time::WallNs;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

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

// === impl Standing ===

impl Standing {
    /// A run after another, of which the kernel's side may go on.
    pub(super) fn new(before: Option<Before>, continues: bool) -> Self {
        // Whoever crashes before his first transaction leaves what the run before left.
        let written = before.as_ref().filter(|_| continues).and_then(|before| before.mark);
        Self { before, mark: None, written, settled: [0; LEDGERS] }
    }

    pub(super) fn before(&self) -> Option<&Before> {
        self.before.as_ref()
    }

    pub(super) fn in_file(&self) -> Option<&Mark> {
        self.written.as_ref()
    }

    pub(super) fn mark(&mut self, mark: Option<Mark>) {
        self.mark = mark.or(self.mark);
    }

    pub(super) fn settle(&mut self, records: impl IntoIterator<Item = (Ledger, u64)>) {
        for (ledger, records) in records {
            if let Some(settled) = self.settled.get_mut(ledger as usize) {
                *settled = settled.saturating_add(records);
            }
        }
    }

    /// The mark of a transaction with these rows, and what is then settled. The last of several transactions speaks for all
    /// of them.
    pub(super) fn with(&self, rows: &[Arc<Output>], is_last: bool) -> (Option<Mark>, Losses) {
        let mut settled = self.settled;
        for row in rows {
            for ((_, records), sum) in records(row).iter().zip(&mut settled) {
                *sum = sum.saturating_add(records);
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

/// Records that a row stands for.
pub(super) fn records(row: &Output) -> Records {
    let mut records = Records::default();
    match row {
        Output::Flow(row) => records = row.records,
        Output::Process(_) => records.add(Ledger::Process, 1),
        // Of two packets and an end at least; how many they were is not told.
        Output::Metadata(_) => records.add(Ledger::Metadata, 1),
        Output::Gap(_) | Output::Finding(_) | Output::Capacity(_) => {}
    }
    records
}
