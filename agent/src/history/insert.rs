//! Rows into tables. What repeats (who, programs, processes, peers, the fixed part of a flow) stands once in a dictionary,
//! whose entries written lately are remembered here.

mod dictionaries;

use agent_core::output::{
    ActualPeer, CapacityRow, FindingRow, FlowRow, GapRow, Identity, Local, MetadataRow, Output, Peer, ProcessRow,
    SgRow, Via, Who, Window,
};
use agent_core::time::WallNs;
use rusqlite::{Connection, OptionalExtension as _, Params, params};

use super::codes::{int, ip, name};
use super::objects::Objects;
use super::recent::Recent;
use super::schema::{FOLD_BITS, flow_id};
use super::standing::note_told;
use super::thin::Thin;

/// Containers, units and gone pods of a node: 1,024 of some 300 bytes.
const WHO_MAX: usize = 1_024;
/// Peers at about 120 bytes: 2.5 MiB. A fold holds 20,480 rows at the most.
const PEERS_MAX: usize = 20_480;
/// Fixed parts of flows at about 80 bytes: twice what a fold holds, 3.3 MiB.
const KEYS_MAX: usize = 40_960;
/// Verdicts of security groups at about 200 bytes: 0.4 MiB.
const SG_MAX: usize = 2_048;
/// Programs at about 500 bytes: 1 MiB.
const PROGRAMS_MAX: usize = 2_048;
/// Processes at about 60 bytes: 0.5 MiB.
const PROCESSES_MAX: usize = 8_192;

/// What is remembered between rows of one file.
pub(super) struct Inserter {
    who: Recent<Identity>,
    peers: Recent<Peer>,
    keys: Recent<FlowKey>,
    sg: Recent<SgRow>,
    programs: Recent<Program>,
    processes: Recent<Process>,
    fold: Fold,
    thin: Thin,
    objects: Objects,
    left_out: u64,
}

#[derive(PartialEq, Eq, Hash)]
struct FlowKey {
    who: i64,
    peer: i64,
    local: Option<[u8; 16]>,
    actual: Option<ActualPeer>,
    via: Option<Via>,
    direction: &'static str,
    protocol: Option<agent_core::output::Protocol>,
    service_port: Option<u16>,
    outcome: Option<&'static str>,
    merged: bool,
    preexisting: bool,
}

#[derive(PartialEq, Eq, Hash)]
struct Program {
    exe: Option<String>,
    exe_resolved: Option<String>,
    comm: String,
    args: Option<String>,
    ancestors: Option<String>,
}

#[derive(PartialEq, Eq, Hash)]
struct Process {
    program: i64,
    pid: u32,
    by: agent_core::output::By,
    ancestors: Option<String>,
}

/// The fold that rows go to.
#[derive(Default)]
struct Fold {
    window: Option<Window>,
    id: i64,
    rows: i64,
}

impl Inserter {
    pub(super) fn new() -> Self {
        Self {
            who: Recent::new(WHO_MAX),
            peers: Recent::new(PEERS_MAX),
            keys: Recent::new(KEYS_MAX),
            sg: Recent::new(SG_MAX),
            programs: Recent::new(PROGRAMS_MAX),
            processes: Recent::new(PROCESSES_MAX),
            fold: Fold::default(),
            thin: Thin::default(),
            objects: Objects::default(),
            left_out: 0,
        }
    }

    /// Forgets what stands in the file: another one comes, or a transaction did not.
    pub(super) fn forget(&mut self) {
        self.who.clear();
        self.peers.clear();
        self.keys.clear();
        self.sg.clear();
        self.programs.clear();
        self.processes.clear();
        self.fold = Fold::default();
        self.thin.clear();
        self.objects.forget();
        self.left_out = 0;
    }

    /// Rows that were not to be kept, since the last time this was asked.
    pub(super) fn left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    /// What stands of the cluster's objects.
    pub(super) fn objects(&mut self) -> &mut Objects {
        &mut self.objects
    }

    /// Writes one row, within a transaction, unless it is one that is not kept.
    pub(super) fn insert(&mut self, file: &Connection, output: &Output) -> rusqlite::Result<()> {
        match output {
            Output::Flow(row) => self.flow(file, row)?,
            Output::Metadata(row) => self.metadata(file, row)?,
            Output::Process(row) => self.exec(file, row)?,
            Output::Finding(row) => finding(file, row)?,
            Output::Gap(row) => gap(file, row)?,
            Output::Capacity(row) => match self.thin.due(row) {
                None => self.left_out += 1,
                Some(row) => capacity(file, &row)?,
            },
            Output::Object(row) => {
                if !self.objects.insert(file, row)? {
                    self.left_out += 1;
                }
            }
        }
        Ok(())
    }

    fn flow(&mut self, file: &Connection, row: &FlowRow) -> rusqlite::Result<()> {
        let FlowRow {
            who: Who { identity, process },
            window,
            direction,
            protocol,
            local: Local { ip: local },
            peer,
            actual_peer,
            via,
            service_port,
            outcome,
            connections,
            open,
            processes,
            bytes_sent,
            bytes_received,
            retransmits,
            rtt_us,
            merged,
            preexisting,
            sg,
            // For telemetry and for the books.
            rtt: _,
            records: _,
        } = row;
        let key = FlowKey {
            who: self.who(file, identity)?,
            peer: self.peer(file, peer)?,
            local: ip(local.as_deref()),
            actual: *actual_peer,
            via: *via,
            direction,
            protocol: *protocol,
            service_port: *service_port,
            outcome: *outcome,
            merged: *merged,
            preexisting: *preexisting,
        };
        let key = self.key(file, key)?;
        let process = self.process_of(file, process.as_ref())?;
        let sg = sg.as_deref().map(|sg| self.sg(file, sg)).transpose()?;
        let id = self.fold_row(file, *window)?;
        add(
            file,
            "INSERT INTO flow VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                id,
                key,
                process,
                int(*connections),
                int(*open),
                int(*processes),
                int(*bytes_sent),
                int(*bytes_received),
                retransmits.map(int),
                rtt_us,
                sg
            ],
        )
    }

    /// Id of the next row of a fold.
    fn fold_row(&mut self, file: &Connection, window: Window) -> rusqlite::Result<i64> {
        if self.fold.window != Some(window) || self.fold.rows >> FOLD_BITS > 0 {
            add(file, "INSERT INTO fold (start, end) VALUES (?1, ?2)", params![window.start.0, window.end.0])?;
            self.fold = Fold { window: Some(window), id: file.last_insert_rowid(), rows: 0 };
        }
        let id = flow_id(self.fold.id, self.fold.rows);
        self.fold.rows += 1;
        Ok(id)
    }

    fn metadata(&mut self, file: &Connection, row: &MetadataRow) -> rusqlite::Result<()> {
        let MetadataRow {
            time,
            who: Who { identity, process },
            service,
            version,
            method,
            category,
            role,
            access_key_id,
            forwarded_for,
            status,
            response_ttl,
            response_bytes,
            outcome,
            latency_us,
            local: Local { ip: local },
            origin,
        } = row;
        let who = self.who(file, identity)?;
        let process = self.process_of(file, process.as_ref())?;
        let n = number(file, "metadata", *time)?;
        add(
            file,
            "INSERT INTO metadata VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            params![
                time.0,
                n,
                who,
                process,
                ip(local.as_deref()),
                service,
                name(version),
                method.as_ref().map(name),
                category.as_ref().map(name),
                role,
                access_key_id,
                forwarded_for,
                status,
                response_ttl,
                response_bytes.map(int),
                name(outcome),
                latency_us.map(int)
            ],
        )?;
        origin.map_or(Ok(()), |origin| note_told(file, origin))
    }

    fn exec(&mut self, file: &Connection, row: &ProcessRow) -> rusqlite::Result<()> {
        let ProcessRow { time, who: Who { identity, process }, uid_number } = row;
        let who = self.who(file, identity)?;
        let process = self.process_of(file, process.as_ref())?;
        let n = number(file, "exec", *time)?;
        add(file, "INSERT INTO exec VALUES (?1, ?2, ?3, ?4, ?5)", params![time.0, n, who, process, uid_number])
    }
}

fn finding(file: &Connection, row: &FindingRow) -> rusqlite::Result<()> {
    let n = number(file, "finding", row.time)?;
    let subject = &row.subject;
    add(
        file,
        "INSERT INTO finding VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            row.time.0,
            n,
            row.id,
            row.code.name(),
            &*subject.namespace,
            &*subject.pod,
            &*subject.uid,
            &*subject.workload,
            crate::lines::json(row)
        ],
    )
}

fn gap(file: &Connection, row: &GapRow) -> rusqlite::Result<()> {
    let GapRow { start, end, cause, records_lost } = row;
    let n = number(file, "gap", *end)?;
    let lost = crate::lines::json(records_lost);
    add(file, "INSERT INTO gap VALUES (?1, ?2, ?3, ?4, ?5)", params![end.0, n, start.0, name(cause), lost])
}

fn capacity(file: &Connection, row: &CapacityRow) -> rusqlite::Result<()> {
    let n = number(file, "capacity", row.time)?;
    add(file, "INSERT INTO capacity VALUES (?1, ?2, ?3)", params![row.time.0, n, crate::lines::json(row)])
}

/// The first free number at a time: 0 but for what happened in the same nanosecond, or after a jump of the clock.
fn number(file: &Connection, table: &'static str, time: WallNs) -> rusqlite::Result<i64> {
    let sql = match table {
        "metadata" => "SELECT max(n) FROM metadata WHERE time = ?1",
        "exec" => "SELECT max(n) FROM exec WHERE time = ?1",
        "finding" => "SELECT max(n) FROM finding WHERE time = ?1",
        "gap" => "SELECT max(n) FROM gap WHERE time = ?1",
        _ => "SELECT max(n) FROM capacity WHERE time = ?1",
    };
    let last: Option<Option<i64>> = file.prepare_cached(sql)?.query_row([time.0], |row| row.get(0)).optional()?;
    Ok(last.flatten().map_or(0, |last| last + 1))
}

fn add(file: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<()> {
    file.prepare_cached(sql)?.execute(values).map(drop)
}

fn remember<K: Eq + std::hash::Hash>(recent: &mut Recent<K>, key: K, file: &Connection) -> i64 {
    let id = file.last_insert_rowid();
    recent.insert(key, id);
    id
}

/// A list as JSON; nothing for an empty one.
fn json<T: serde::Serialize>(list: &Vec<T>) -> Option<String> {
    (!list.is_empty()).then(|| crate::lines::json(list))
}
