//! All rows of one file that a query wants, merged in the order of time. Each table is one statement that is stepped
//! through; nothing is collected.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use agent_core::output::{ObjectRow, Output};
use agent_core::time::WallNs;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, Rows, Statement, params_from_iter};

use super::decode::{self, Decoder};
use super::query::{Condition, Query};
use super::{Run, Visit};
use crate::bundle::Writer;
use crate::history::codes::ip_text;
use crate::history::schema::{ACTUAL_SINCE, FOLD_BITS, OBJECTS_SINCE, RUNS_SINCE, flow_id};

/// Which table a statement reads.
#[derive(Clone, Copy)]
enum Table {
    Flow,
    Metadata,
    Exec,
    Finding,
    Capacity,
    Gap,
    Object,
}

struct Select {
    table: Table,
    sql: String,
    values: Vec<Value>,
}

/// A table being stepped through, and its next row.
struct Stream<'s> {
    table: Table,
    rows: Rows<'s>,
    next: Option<Output>,
}

/// Shows all rows that a query wants.
pub(super) fn each(file: &Connection, query: &Query, visit: &mut Visit<'_>) -> rusqlite::Result<()> {
    prepare(file, query)?;
    let mut decoder = Decoder::new(file);
    let selects = selects(file, query)?;
    let mut statements =
        selects.iter().map(|select| file.prepare(&select.sql)).collect::<rusqlite::Result<Vec<Statement<'_>>>>()?;
    let mut streams = Vec::with_capacity(selects.len());
    for (select, statement) in selects.iter().zip(&mut statements) {
        let rows = statement.query(params_from_iter(&select.values))?;
        let mut stream = Stream { table: select.table, rows, next: None };
        stream.step(&mut decoder, query)?;
        streams.push(stream);
    }
    // Seven streams at the most: the smallest is found by looking at each.
    while let Some(stream) = streams
        .iter_mut()
        .filter(|stream| stream.next.is_some())
        .min_by_key(|stream| stream.next.as_ref().map(|output| (output.time(), stream.table as u8)))
    {
        if let Some(output) = stream.next.take()
            && visit(output) == ControlFlow::Break(())
        {
            return Ok(());
        }
        stream.step(&mut decoder, query)?;
    }
    Ok(())
}

/// Adds the addresses of peers that appear in flows before a moment, up to so many in all.
pub(super) fn peers_before(
    file: &Connection,
    query: &Query,
    before: WallNs,
    most: usize,
    peers: &mut BTreeSet<String>,
) -> rusqlite::Result<()> {
    prepare(file, query)?;
    let (_, last) = folds(file, &Query { since: None, until: Some(WallNs(before.0 - 1)), ..Query::default() })?;
    let mut wanted = Condition::default();
    if is_narrow(query) {
        wanted.and("k.id IN (SELECT id FROM temp.wanted_key)", []);
    }
    wanted.and("EXISTS (SELECT 1 FROM flow f WHERE f.key = k.id AND f.id <= ?)", [Value::Integer(last)]);
    let sql = format!("SELECT DISTINCT p.ip FROM flow_key k JOIN peer p ON p.id = k.peer{}", wanted.clause());
    let mut statement = file.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(&wanted.values))?;
    while let Some(row) = rows.next()? {
        if peers.len() >= most {
            return Ok(());
        }
        peers.extend(ip_text(row.get(0)?));
    }
    Ok(())
}

/// Who wrote, and when: the node's name and the span.
pub(super) fn runs(file: &Connection) -> rusqlite::Result<Vec<(String, Run)>> {
    let version: u32 = file.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let ends = if version < RUNS_SINCE { "NULL, 0" } else { "ended IS NOT NULL, continues" };
    let mut statement = file.prepare(&format!("SELECT node, started, since, alive, {ends} FROM run ORDER BY id"))?;
    let rows = statement.query_map([], |row| {
        let run = Run {
            started: WallNs(row.get(1)?),
            from: WallNs(row.get(2)?),
            to: WallNs(row.get(3)?),
            ended: row.get(4)?,
            continues: row.get(5)?,
        };
        Ok((row.get(0)?, run))
    })?;
    rows.collect()
}

/// Which versions of the agent wrote a file, and on which kernels.
pub(super) fn writers(file: &Connection) -> rusqlite::Result<Vec<Writer>> {
    let kernel = if decode::version(file)? < OBJECTS_SINCE { "NULL" } else { "kernel" };
    let mut statement =
        file.prepare(&format!("SELECT started, since, alive, version, {kernel} FROM run ORDER BY id"))?;
    let rows = statement.query_map([], |row| {
        Ok(Writer {
            started: WallNs(row.get(0)?),
            from: WallNs(row.get(1)?),
            to: WallNs(row.get(2)?),
            version: row.get(3)?,
            kernel: row.get(4)?,
        })
    })?;
    rows.collect()
}

/// Ends of the gaps between two runs that starts told.
pub(super) fn absences(file: &Connection) -> rusqlite::Result<Vec<WallNs>> {
    let mut statement = file.prepare("SELECT time FROM gap WHERE cause IN ('stopped', 'crashed')")?;
    let ends = statement.query_map([], |row| row.get(0).map(WallNs))?;
    ends.collect()
}

/// Shows all versions of objects up to a moment, those that stood when the file was begun too.
pub(super) fn objects(file: &Connection, until: WallNs, visit: &mut dyn FnMut(ObjectRow)) -> rusqlite::Result<()> {
    if decode::version(file)? < OBJECTS_SINCE {
        return Ok(());
    }
    let sql = format!("SELECT {} FROM object WHERE time <= ?1 ORDER BY time, n", decode::OBJECT);
    let mut statement = file.prepare(&sql)?;
    let mut rows = statement.query([until.0])?;
    while let Some(row) = rows.next()? {
        if let Output::Object(row) = decode::object(row)? {
            visit(*row);
        }
    }
    Ok(())
}

/// Looks up in the dictionaries what a query names, into temporary tables.
fn prepare(file: &Connection, query: &Query) -> rusqlite::Result<()> {
    file.execute_batch(
        "DROP TABLE IF EXISTS temp.wanted_who; DROP TABLE IF EXISTS temp.wanted_process; \
         DROP TABLE IF EXISTS temp.wanted_key; \
         CREATE TEMP TABLE wanted_who (id INTEGER PRIMARY KEY); \
         CREATE TEMP TABLE wanted_process (id INTEGER PRIMARY KEY); \
         CREATE TEMP TABLE wanted_key (id INTEGER PRIMARY KEY);",
    )?;
    let who = query.who();
    if !who.is_empty() {
        let sql = format!("INSERT INTO temp.wanted_who SELECT id FROM who{}", who.clause());
        file.execute(&sql, params_from_iter(&who.values))?;
    }
    let programs = query.programs();
    if !programs.is_empty() {
        let sql = format!(
            "INSERT INTO temp.wanted_process SELECT id FROM process WHERE program IN (SELECT id FROM program{})",
            programs.clause()
        );
        file.execute(&sql, params_from_iter(&programs.values))?;
    }
    if is_narrow(query) {
        let columns: &[&str] = if decode::version(file)? < ACTUAL_SINCE {
            &["p.ip", "k.local"]
        } else {
            &["p.ip", "k.local", "k.actual_ip"]
        };
        let mut keys = query.addresses(columns);
        let names = query.peer_names("p.name");
        keys.and(&names.sql, names.values);
        if !who.is_empty() {
            keys.and("k.who IN (SELECT id FROM temp.wanted_who)", []);
        }
        let sql = format!(
            "INSERT INTO temp.wanted_key SELECT k.id FROM flow_key k JOIN peer p ON p.id = k.peer{}",
            keys.clause()
        );
        file.execute(&sql, params_from_iter(&keys.values))?;
    }
    Ok(())
}

/// All statements of a query on tables of rows, with their values.
#[cfg(test)]
pub(in crate::history) fn statements(file: &Connection, query: &Query) -> rusqlite::Result<Vec<(String, Vec<Value>)>> {
    prepare(file, query)?;
    Ok(selects(file, query)?.into_iter().map(|select| (select.sql, select.values)).collect())
}

/// Whether flows are found by their fixed part, and not by reading all of them.
fn is_narrow(query: &Query) -> bool {
    !query.who().is_empty() || !query.addresses(&["ip"]).is_empty() || !query.names.is_empty()
}

/// The first and the last id of flows whose fold overlaps the span.
fn folds(file: &Connection, query: &Query) -> rusqlite::Result<(i64, i64)> {
    let (since, until) = query.span();
    let sql = "SELECT min(id), max(id) FROM fold WHERE end >= ?1 AND start <= ?2";
    let (first, last): (Option<i64>, Option<i64>) =
        file.query_row(sql, [since, until], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(match (first, last) {
        (Some(first), Some(last)) => (flow_id(first, 0), flow_id(last, (1 << FOLD_BITS) - 1)),
        _ => (0, -1),
    })
}

/// The statements that a query needs.
fn selects(file: &Connection, query: &Query) -> rusqlite::Result<Vec<Select>> {
    let (since, until) = query.span();
    let span = || [Value::Integer(since), Value::Integer(until)];
    let by_whom = |condition: &mut Condition| {
        if !query.who().is_empty() {
            condition.and("who IN (SELECT id FROM temp.wanted_who)", []);
        }
        if !query.programs().is_empty() {
            condition.and("process IN (SELECT id FROM temp.wanted_process)", []);
        }
    };
    let mut selects = Vec::new();
    let mut add = |table, columns: &str, from: &str, condition: Condition, order: &str| {
        let sql = format!("SELECT {columns} FROM {from}{} ORDER BY {order}", condition.clause());
        selects.push(Select { table, sql, values: condition.values });
    };
    if query.wants_flows() {
        let (first, last) = folds(file, query)?;
        let mut condition = Condition::default();
        condition.and("f.id BETWEEN ? AND ?", [Value::Integer(first), Value::Integer(last)]);
        if !query.programs().is_empty() {
            condition.and("f.process IN (SELECT id FROM temp.wanted_process)", []);
        }
        let from = if is_narrow(query) {
            "temp.wanted_key k CROSS JOIN flow f INDEXED BY flow_by_key ON f.key = k.id"
        } else {
            "flow f"
        };
        add(Table::Flow, &decode::flow_columns(file)?, from, condition, "f.id");
    }
    if query.wants_metadata() {
        let mut condition = query.requests();
        condition.and("time BETWEEN ? AND ?", span());
        by_whom(&mut condition);
        add(Table::Metadata, decode::METADATA, "metadata", condition, "time, n");
    }
    if query.wants_execs() {
        let mut condition = Condition::default();
        condition.and("time BETWEEN ? AND ?", span());
        by_whom(&mut condition);
        add(Table::Exec, decode::EXEC, "exec", condition, "time, n");
    }
    for (table, name, wanted) in
        [(Table::Finding, "finding", query.wants_findings()), (Table::Capacity, "capacity", query.wants_capacity())]
    {
        if wanted {
            let mut condition = Condition::default();
            condition.and("time BETWEEN ? AND ?", span());
            add(table, decode::JSON, name, condition, "time, n");
        }
    }
    if query.wants_gaps() {
        let mut condition = Condition::default();
        condition.and("time >= ? AND start <= ?", span());
        add(Table::Gap, decode::GAP, "gap", condition, "time, n");
    }
    if query.wants_objects() && decode::version(file)? >= OBJECTS_SINCE {
        let mut condition = Condition::default();
        condition.and("base = 0 AND time BETWEEN ? AND ?", span());
        add(Table::Object, decode::OBJECT, "object", condition, "time, n");
    }
    Ok(selects)
}

impl Stream<'_> {
    /// Goes on to the next row that passes what SQL did not ask.
    fn step(&mut self, decoder: &mut Decoder<'_>, query: &Query) -> rusqlite::Result<()> {
        self.next = None;
        while let Some(row) = self.rows.next()? {
            let output = self.table.decode(row, decoder)?;
            let passes = match &output {
                Output::Finding(row) => query.wants_finding(row),
                Output::Object(row) => query.wants_object(row),
                // Folds are asked for by number, and the clock may have jumped between two of them.
                Output::Flow(row) => {
                    let (since, until) = query.span();
                    row.window.end.0 >= since && row.window.start.0 <= until
                }
                _ => true,
            };
            if passes {
                self.next = Some(output);
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Table {
    fn decode(self, row: &Row<'_>, decoder: &mut Decoder<'_>) -> rusqlite::Result<Output> {
        match self {
            Self::Flow => decoder.flow(row),
            Self::Metadata => decoder.metadata(row),
            Self::Exec => decoder.exec(row),
            Self::Finding => decode::finding(row),
            Self::Capacity => decode::capacity(row),
            Self::Gap => decode::gap(row),
            Self::Object => decode::object(row),
        }
    }
}
