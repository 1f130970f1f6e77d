//! Rows of one file after a place in it.

use std::sync::Arc;

use agent_core::output::Output;
use agent_core::time::WallNs;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::cursor::Place;
use super::{Batch, Most, Parcel};
use crate::history::codes::count as counted;
use crate::history::files::Segment;
use crate::history::read::decode::{self, Decoder};
use crate::history::schema::{FOLD_BITS, has_journal};
use crate::lines::LineKind;
use crate::lossy::weigh;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Tables that the journal names, and the kinds of their rows.
const TABLES: [(&str, LineKind); 6] = [
    ("metadata", LineKind::Metadata),
    ("exec", LineKind::Process),
    ("finding", LineKind::Finding),
    ("gap", LineKind::Gap),
    ("capacity", LineKind::Capacity),
    ("object", LineKind::Object),
];

/// Adds rows to a batch, and moves the place behind them. What is few comes before the flows of its file.
pub(super) fn read(
    file: &Connection,
    segment: &Segment,
    place: &mut Place,
    kinds: &[LineKind],
    most: Most,
    batch: &mut Batch,
) -> Result<(), Failure> {
    let since = begun(file)?;
    if place.since != 0 && place.since != since {
        *place = Place { file: place.file, ..Place::default() };
    }
    place.since = since;
    let name = segment.path.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("{}-{since:x}", name.trim_start_matches("history-"));
    let mut room = Room { most, bytes: 0 };
    let mut decoder = Decoder::new(file);
    journal(file, &name, place, kinds, &mut room, &mut decoder, batch)?;
    if wants(kinds, LineKind::Flow) {
        flows(file, &name, place, &mut room, &mut decoder, batch)?;
    }
    Ok(())
}

/// What is left of a batch's bounds.
struct Room {
    most: Most,
    bytes: usize,
}

impl Room {
    fn is_left(&self, batch: &Batch) -> bool {
        batch.parcels.len() < self.most.rows && self.bytes < self.most.bytes
    }

    /// Puts a row into the batch; one that cannot be read is counted and holds up nothing.
    fn put(&mut self, id: String, row: rusqlite::Result<Output>, batch: &mut Batch) -> Result<(), Failure> {
        match row {
            Ok(row) => {
                self.bytes += weigh(&row);
                batch.parcels.push(Parcel::Row { id, row: Arc::new(row) });
            }
            // The file is not what it should be: all of it is in doubt.
            Err(error) if error.sqlite_error_code().is_some() => return Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, id, "a row of the history cannot be read");
                batch.unreadable += 1;
            }
        }
        Ok(())
    }
}

fn journal(
    file: &Connection,
    name: &str,
    place: &mut Place,
    kinds: &[LineKind],
    room: &mut Room,
    decoder: &mut Decoder<'_>,
    batch: &mut Batch,
) -> Result<(), Failure> {
    if !has_journal(file)? {
        return Ok(());
    }
    let mut statement = file.prepare_cached("SELECT seq, kind, time, n FROM journal WHERE seq > ?1 ORDER BY seq")?;
    let mut entries = statement.query([place.journal])?;
    while room.is_left(batch)
        && let Some(entry) = entries.next()?
    {
        let (seq, table, time, n): (i64, String, i64, i64) =
            (entry.get(0)?, entry.get(1)?, entry.get(2)?, entry.get(3)?);
        place.journal = seq;
        // A table that a later program added is nothing that this one could ship.
        let Some((table, kind)) = TABLES.iter().find(|(known, _)| *known == table) else { continue };
        if !wants(kinds, *kind) {
            continue;
        }
        place.sent = place.sent.saturating_add(1);
        let columns = match kind {
            LineKind::Metadata => decode::METADATA,
            LineKind::Process => decode::EXEC,
            LineKind::Gap => decode::GAP,
            LineKind::Object => decode::OBJECT,
            LineKind::Finding | LineKind::Capacity | LineKind::Flow => decode::JSON,
        };
        let sql = format!("SELECT {columns} FROM {table} WHERE time = ?1 AND n = ?2");
        let mut decode = |row: &Row<'_>| match kind {
            LineKind::Metadata => decoder.metadata(row),
            LineKind::Process => decoder.exec(row),
            LineKind::Finding => decode::finding(row),
            LineKind::Capacity | LineKind::Flow => decode::capacity(row),
            LineKind::Gap => decode::gap(row),
            LineKind::Object => decode::object(row),
        };
        let row = file.prepare_cached(&sql)?.query_row(params![time, n], &mut decode);
        room.put(format!("{name}/{table}/{time}.{n}"), row, batch)?;
    }
    Ok(())
}

fn flows(
    file: &Connection,
    name: &str,
    place: &mut Place,
    room: &mut Room,
    decoder: &mut Decoder<'_>,
    batch: &mut Batch,
) -> Result<(), Failure> {
    let columns = decode::flow_columns(file)?;
    let mut statement = file.prepare_cached(&format!("SELECT {columns} FROM flow f WHERE f.id > ?1 ORDER BY f.id"))?;
    let mut rows = statement.query([place.flow])?;
    while room.is_left(batch)
        && let Some(row) = rows.next()?
    {
        place.flow = row.get(0)?;
        place.sent = place.sent.saturating_add(1);
        room.put(format!("{name}/flow/{}", place.flow), decoder.flow(row), batch)?;
    }
    Ok(())
}

/// Behind the last row of a file.
pub(super) fn end(file: &Connection, number: u64, kinds: &[LineKind]) -> rusqlite::Result<Place> {
    let flow: Option<i64> = file.query_row("SELECT max(id) FROM flow", [], |row| row.get(0))?;
    let journal: Option<i64> =
        if has_journal(file)? { file.query_row("SELECT max(seq) FROM journal", [], |row| row.get(0))? } else { None };
    let since = begun(file)?;
    Ok(Place { file: number, since, flow: flow.unwrap_or(0), journal: journal.unwrap_or(0), sent: count(file, kinds)? })
}

/// Rows of a file that are to be shipped.
pub(super) fn count(file: &Connection, kinds: &[LineKind]) -> rusqlite::Result<u64> {
    let mut sum = 0_i64;
    if wants(kinds, LineKind::Flow) {
        sum += file.query_row("SELECT count(*) FROM flow", [], |row| row.get::<_, i64>(0))?;
    }
    if has_journal(file)? {
        for (table, _) in TABLES.iter().filter(|(_, kind)| wants(kinds, *kind)) {
            let sql = "SELECT count(*) FROM journal WHERE kind = ?1";
            sum += file.query_row(sql, [table], |row| row.get::<_, i64>(0))?;
        }
    }
    Ok(counted(sum))
}

/// When the first row after a place was said, of a file's flows and of its other rows the earlier; `None` for no row.
pub(super) fn oldest(file: &Connection, place: Place, kinds: &[LineKind]) -> rusqlite::Result<Option<WallNs>> {
    let mut times = Vec::new();
    if wants(kinds, LineKind::Flow) {
        let sql = "SELECT min(id) FROM flow WHERE id > ?1";
        let id: Option<i64> = file.query_row(sql, [place.flow], |row| row.get(0))?;
        if let Some(id) = id {
            let sql = "SELECT end FROM fold WHERE id = ?1";
            times.extend(file.query_row(sql, [id >> FOLD_BITS], |row| row.get::<_, i64>(0)).optional()?);
        }
    }
    if has_journal(file)? {
        let mut statement = file.prepare_cached("SELECT kind, time FROM journal WHERE seq > ?1 ORDER BY seq")?;
        let mut rows = statement.query([place.journal])?;
        while let Some(row) = rows.next()? {
            let table: String = row.get(0)?;
            if TABLES.iter().any(|(known, kind)| *known == table && wants(kinds, *kind)) {
                times.push(row.get(1)?);
                break;
            }
        }
    }
    Ok(times.into_iter().min().map(WallNs))
}

/// When the file was begun.
fn begun(file: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT since FROM run ORDER BY id LIMIT 1";
    Ok(file.query_row(sql, [], |row| row.get(0)).optional()?.unwrap_or(0))
}

fn wants(kinds: &[LineKind], kind: LineKind) -> bool {
    kinds.is_empty() || kinds.contains(&kind)
}
