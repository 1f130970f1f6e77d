//! Versions of the cluster's objects. A file holds each version once, and begins with what stands when it is begun: it is
//! whole by itself when the files before it are gone.

use std::collections::{BTreeMap, HashMap, VecDeque};

use agent_core::cluster::{MAX_ACCOUNTS, MAX_PODS, MAX_POLICIES};
use agent_core::output::{Change, ObjectKind, ObjectRow, Output};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::codes::{by_name, name};

/// Objects remembered: as many as the core keeps, network policies with the others. About 300 bytes each beside the facts,
/// which are the core's own: 3.6 MiB.
const OBJECTS_MAX: usize = MAX_PODS + 2 * MAX_POLICIES + MAX_ACCOUNTS;
/// Facts beyond this are left out of the file. A pod takes 2 KiB; labels without end may take it to the size of an object.
const FACTS_BYTES_MAX: usize = 32 << 10;

/// What is remembered of objects.
#[derive(Default)]
pub(super) struct Objects {
    /// As they stand, whichever file holds them.
    standing: BTreeMap<Key, ObjectRow>,
    /// What the file holds; `None`: not looked up yet.
    in_file: Option<HashMap<Key, u64>>,
    /// What it lacks.
    due: VecDeque<Key>,
}

/// Kind, namespace, name, uid.
type Key = (ObjectKind, String, String, Option<String>);

impl Objects {
    /// Forgets what stands in the file: another one comes, or a transaction did not.
    pub(super) fn forget(&mut self) {
        self.in_file = None;
        self.due.clear();
    }

    /// Writes what stands and is not in the file, so many rows at the most.
    pub(super) fn repeat(&mut self, file: &Connection, rows_max: usize) -> rusqlite::Result<()> {
        if self.in_file.is_none() {
            let in_file = look(file)?;
            let lacks = |(key, row): &(&Key, &ObjectRow)| in_file.get(*key) != Some(&row.digest);
            self.due = self.standing.iter().filter(lacks).map(|(key, _)| key.clone()).collect();
            self.in_file = Some(in_file);
        }
        for _ in 0..rows_max {
            let Some(key) = self.due.pop_front() else { return Ok(()) };
            let Some(row) = self.standing.get(&key) else { continue };
            let in_file = self.in_file.get_or_insert_default();
            if in_file.get(&key) != Some(&row.digest) {
                insert(file, row, row.change, true)?;
                in_file.insert(key, row.digest);
            }
        }
        Ok(())
    }

    /// A row was lost: what it told is written with the next transaction.
    pub(super) fn lost(&mut self, row: &Output) {
        if let Output::Object(row) = row {
            self.note(row);
        }
    }

    /// Takes a version for what stands, whatever becomes of its row; whether there was room.
    fn note(&mut self, row: &ObjectRow) -> (Key, bool) {
        let uid = row.uid.as_deref().filter(|_| row.object == ObjectKind::Pod);
        let key = (row.object, row.namespace.to_string(), row.name.to_string(), uid.map(str::to_owned));
        let room = self.standing.len() < OBJECTS_MAX || self.standing.contains_key(&key);
        if row.change == Change::Gone {
            self.standing.remove(&key);
        } else if room {
            self.standing.insert(key.clone(), row.clone());
        }
        (key, room)
    }

    /// Writes a version, within a transaction; whether it was new to the file.
    pub(super) fn insert(&mut self, file: &Connection, row: &ObjectRow) -> rusqlite::Result<bool> {
        let (key, room) = self.note(row);
        let mut in_file = match self.in_file.take() {
            Some(in_file) => in_file,
            None => look(file)?,
        };
        let known = if row.change == Change::Gone { in_file.remove(&key) } else { in_file.get(&key).copied() };
        let change = match (row.change, known) {
            // An agent that begins sees all anew.
            (Change::Seen, Some(digest)) if digest == row.digest => None,
            (Change::Seen, Some(_)) => Some(Change::Changed),
            (change, _) => Some(change),
        };
        if let Some(change) = change {
            insert(file, row, change, false)?;
            if change != Change::Gone && (room || known.is_some()) {
                in_file.insert(key, row.digest);
            }
        }
        self.in_file = Some(in_file);
        Ok(change.is_some())
    }
}

/// Digests of what a file says last of each object that is not gone.
fn look(file: &Connection) -> rusqlite::Result<HashMap<Key, u64>> {
    let sql = "SELECT object, namespace, name, uid, change, digest FROM object ORDER BY time, n";
    let mut statement = file.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut found = HashMap::new();
    while let Some(row) = rows.next()? {
        let object: ObjectKind = by_name(row.get_ref(0)?.as_str()?)?;
        let uid: Option<String> = row.get(3)?;
        let key = (object, row.get(1)?, row.get(2)?, uid.filter(|_| object == ObjectKind::Pod));
        if by_name::<Change>(row.get_ref(4)?.as_str()?)? == Change::Gone {
            found.remove(&key);
        } else if found.len() < OBJECTS_MAX || found.contains_key(&key) {
            found.insert(key, row.get::<_, i64>(5)?.cast_unsigned());
        }
    }
    Ok(found)
}

fn insert(file: &Connection, row: &ObjectRow, change: Change, base: bool) -> rusqlite::Result<()> {
    let ObjectRow { time, object, change: _, namespace, name: of, uid, workload, changed, facts, digest } = row;
    let last: Option<Option<i64>> = file
        .prepare_cached("SELECT max(n) FROM object WHERE time = ?1")?
        .query_row([time.0], |row| row.get(0))
        .optional()?;
    let n = last.flatten().map_or(0, |last| last + 1);
    let facts = facts.as_ref().map(crate::lines::json).filter(|facts| facts.len() <= FACTS_BYTES_MAX);
    file.prepare_cached("INSERT INTO object VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)")?
        .execute(params![
            time.0,
            n,
            base,
            name(object),
            name(&change),
            &**namespace,
            &**of,
            uid.as_deref(),
            &**workload,
            digest.cast_signed(),
            crate::lines::json(changed),
            facts
        ])
        .map(drop)
}
