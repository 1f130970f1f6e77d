//! What a file holds: the tables, their version, and how a file is opened for writing.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// `SEKI`: tells the file from other databases.
pub(super) const APPLICATION_ID: i32 = 0x5345_4b49;
/// One step for each version; the schema of version N is the first N steps. A step that was released never changes.
const STEPS: [&str; 6] = [
    include_str!("schema.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
    include_str!("schema-5.sql"),
    include_str!("schema-6.sql"),
];
/// The version from which on flows tell what security groups say.
pub(super) const SG_SINCE: u32 = 2;
/// The version from which on runs tell how they began and ended.
pub(super) const RUNS_SINCE: u32 = 3;
/// The version from which on flows tell what stands behind the peer.
pub(super) const ACTUAL_SINCE: u32 = 4;
/// The version from which on objects of the cluster are kept, and runs tell their kernel.
pub(super) const OBJECTS_SINCE: u32 = 5;
/// The version from which on verdicts tell how old what they stand on is.
pub(super) const SG_TOLD_SINCE: u32 = 6;
/// What this program writes.
pub(super) const VERSION: usize = STEPS.len();
/// Rows of one fold in [`flow_id`]: 20,480 are possible (`MAX_ROWS` and `MAX_MERGED_ROWS` of the core); more of them
/// begin another one with the same window.
pub(super) const FOLD_BITS: u32 = 15;
/// The page cache of the writer, KiB.
const CACHE_KIB: i64 = 4_096;
/// A reader holds a lock that the writer needs for moments only; one that stands still is not waited for.
pub(super) const BUSY_WAIT: Duration = Duration::from_millis(250);

/// Where a file's header says `user_version`, <https://www.sqlite.org/fileformat2.html#the_database_header>.
const USER_VERSION_AT: u64 = 60;

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// A newer version of the program wrote it.
    #[error("it has schema version {0}, this program writes {VERSION}")]
    Newer(usize),
    /// The database says so.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Anything else: no room, no right, a broken disk.
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
}

/// Id of the row `number` of a fold.
pub(super) fn flow_id(fold: i64, number: i64) -> i64 {
    fold << FOLD_BITS | number
}

/// Opens a file for writing: makes its tables or brings them up to date. One that is there is examined first, which takes
/// some 3 ms a MiB.
pub(super) fn open(path: &Path, pages_max: u64) -> Result<Connection, Unusable> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut file = Connection::open_with_flags(path, flags)?;
    file.busy_timeout(BUSY_WAIT)?;
    let version: u32 = damaged(file.pragma_query_value(None, "user_version", |row| row.get(0)))?;
    let version = version as usize;
    if version > VERSION {
        return Err(Unusable::Newer(version));
    }
    if version > 0 {
        let found: String = damaged(file.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if found != "ok" {
            return Err(Unusable::Damaged(found));
        }
    }
    // WAL: readers and the writer do not wait for each other, and a commit is one write and one fsync at the log's end.
    damaged(file.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())))?;
    file.pragma_update(None, "application_id", APPLICATION_ID)?;
    // The store copies the log itself, after each of its transactions.
    file.pragma_update(None, "wal_autocheckpoint", 0)?;
    file.pragma_update(None, "max_page_count", i64::try_from(pages_max).unwrap_or(i64::MAX))?;
    file.pragma_update(None, "cache_size", -CACHE_KIB)?;
    file.pragma_update(None, "temp_store", "memory")?;
    file.pragma_update(None, "trusted_schema", false)?;
    file.set_prepared_statement_cache_capacity(32);
    if version < VERSION {
        let step = file.transaction()?;
        for sql in STEPS.iter().skip(version) {
            step.execute_batch(sql)?;
        }
        step.pragma_update(None, "user_version", i64::try_from(VERSION).unwrap_or(i64::MAX))?;
        step.commit()?;
    }
    keep_journal(&mut file)?;
    Ok(file)
}

/// Whether a file without a log has its tables: its header says their version. A crash of the machine may leave one without.
/// One that cannot be read at all is no empty one.
pub(super) fn is_begun(path: &Path) -> bool {
    let mut version = [0; 4];
    let read = std::fs::File::open(path).and_then(|file| file.read_exact_at(&mut version, USER_VERSION_AT));
    match read {
        Ok(()) => version != [0; 4],
        Err(error) => error.kind() != std::io::ErrorKind::UnexpectedEof,
    }
}

/// Whether rows of a file tell in which order they were written.
pub(super) fn has_journal(file: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'journal'";
    file.query_row(sql, [], |row| row.get(0))
}

fn keep_journal(file: &mut Connection) -> rusqlite::Result<()> {
    if has_journal(file)? {
        return Ok(());
    }
    let step = file.transaction()?;
    step.execute_batch(include_str!("journal.sql"))?;
    step.commit()
}

/// Tells damage from everything else.
fn damaged<T>(result: rusqlite::Result<T>) -> Result<T, Unusable> {
    result.map_err(|error| if is_damage(&error) { Unusable::Damaged(error.to_string()) } else { error.into() })
}

/// Whether an error says that the file's content is not what it should be.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, SchemaChanged};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase | SchemaChanged))
        || matches!(error, rusqlite::Error::InvalidColumnType(..))
}
