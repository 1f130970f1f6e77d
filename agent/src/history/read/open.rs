//! One file, opened for reading: as it is, or a private copy of it where it stands on a read-only file system with a log
//! that is not copied into it yet.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tempfile::TempDir;

use super::Segment;
use crate::history::schema::{APPLICATION_ID, VERSION};

/// An open file.
pub(in crate::history) struct File {
    pub(in crate::history) connection: Connection,
    /// Holds the copy.
    _copy: Option<TempDir>,
}

/// Why a file cannot be read.
pub(in crate::history) enum Error {
    /// It is not there any more.
    Gone,
    /// Anything else.
    Unreadable(String),
}

/// The page cache of a reader, KiB; what is sorted beyond it goes to temporary files.
const CACHE_KIB: i64 = 8_192;

/// Opens a file.
pub(in crate::history) fn open(segment: &Segment) -> Result<File, Error> {
    if !segment.path.exists() {
        return Err(Error::Gone);
    }
    let error = match connect(&segment.path) {
        Ok(connection) => return Ok(File { connection, _copy: None }),
        Err(error) => error,
    };
    // A log needs a file beside it that nobody can make here.
    let no_place = matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly));
    if no_place && segment.beside("-wal").exists() {
        return copied(segment).map_err(|why| Error::Unreadable(format!("{why}; it needs a copy, for {error}")));
    }
    Err(Error::Unreadable(error.to_string()))
}

fn copied(segment: &Segment) -> Result<File, String> {
    let copy = tempfile::Builder::new().prefix("sekisho-").tempdir().map_err(|error| error.to_string())?;
    let path = copy.path().join("history.db");
    let log = copy.path().join("history.db-wal");
    for (from, to) in [(&segment.path, &path), (&segment.beside("-wal"), &log)] {
        fs::copy(from, to)
            .map_err(|error| format!("could not copy {} to {}: {error}", from.display(), to.display()))?;
    }
    let connection = connect(&path).map_err(|error| error.to_string())?;
    Ok(File { connection, _copy: Some(copy) })
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let file = Connection::open_with_flags(path, flags)?;
    file.pragma_update(None, "cache_size", -CACHE_KIB)?;
    file.pragma_update(None, "trusted_schema", false)?;
    file.set_prepared_statement_cache_capacity(32);
    let id: i32 = file.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: u32 = file.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if id != APPLICATION_ID || version as usize > VERSION {
        let why = match version {
            0 => "it is no history yet: its writer ended as it was begun".to_owned(),
            _ => format!("schema version {version} of application {id:#x}; this program reads {VERSION}"),
        };
        return Err(rusqlite::Error::ToSqlConversionFailure(why.into()));
    }
    Ok(file)
}
