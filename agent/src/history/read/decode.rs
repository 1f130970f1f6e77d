//! Columns back into rows. Dictionary entries read lately are remembered.

use std::sync::Arc;

use agent_core::books::Records;
use agent_core::output::{
    ActualPeer, Ancestor, CapacityRow, FindingRow, FlowRow, GapRow, Identity, Local, MetadataRow, ObjectFacts,
    ObjectRow, Output, Peer, ProcessRow, ProcessView, Protocol, RttHistogram, SgRow, Via, Who, Window,
};
use agent_core::time::WallNs;
use rusqlite::{Connection, Row};

use crate::history::codes::{by_name, count, fixed, from_json, ip_text, unmapped};
use crate::history::recent::Recent;
use crate::history::schema::{ACTUAL_SINCE, FOLD_BITS, SG_SINCE, SG_TOLD_SINCE};

/// Entries remembered of each dictionary, at about 300 bytes: below 12 MiB in all.
const REMEMBERED: usize = 8_192;

/// Columns of [`Decoder::flow`], in its order. Files of the first version know nothing of security groups.
pub(in crate::history) fn flow_columns(file: &Connection) -> rusqlite::Result<String> {
    let version = version(file)?;
    let sg = if version < SG_SINCE { "NULL" } else { "f.sg" };
    Ok(format!(
        "f.id, f.key, f.process, f.connections, f.open, f.processes, f.bytes_sent, f.bytes_received, f.retransmits, \
         f.rtt_us, {sg}"
    ))
}

pub(super) fn version(file: &Connection) -> rusqlite::Result<u32> {
    file.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Columns of [`Decoder::metadata`].
pub(in crate::history) const METADATA: &str = "time, who, process, local, service, version, method, category, role, access_key_id, \
                                   forwarded_for, status, response_ttl, response_bytes, outcome, latency_us";
/// Columns of [`Decoder::exec`].
pub(in crate::history) const EXEC: &str = "time, who, process, user";
/// Columns of [`finding`] and of [`capacity`].
pub(in crate::history) const JSON: &str = "time, row";
/// Columns of [`object`].
pub(in crate::history) const OBJECT: &str =
    "time, object, change, namespace, name, uid, workload, digest, changed, facts";
/// Columns of [`gap`].
pub(in crate::history) const GAP: &str = "time, start, cause, lost";

/// Turns rows of one file into outputs.
pub(in crate::history) struct Decoder<'f> {
    file: &'f Connection,
    who: Recent<i64, Arc<Identity>>,
    processes: Recent<i64, Arc<ProcessView>>,
    keys: Recent<i64, Arc<Key>>,
    sg: Recent<i64, SgRow>,
    fold: Option<(i64, Window)>,
}

/// The fixed part of a flow.
struct Key {
    identity: Arc<Identity>,
    peer: Peer,
    local: Option<String>,
    actual: Option<ActualPeer>,
    via: Option<Via>,
    direction: &'static str,
    protocol: Option<Protocol>,
    service_port: Option<u16>,
    outcome: Option<&'static str>,
    merged: bool,
    preexisting: bool,
}

impl<'f> Decoder<'f> {
    pub(in crate::history) fn new(file: &'f Connection) -> Self {
        let (who, processes, keys) = (Recent::new(REMEMBERED), Recent::new(REMEMBERED), Recent::new(REMEMBERED));
        Self { file, who, processes, keys, sg: Recent::new(REMEMBERED), fold: None }
    }

    pub(in crate::history) fn flow(&mut self, row: &Row<'_>) -> rusqlite::Result<Output> {
        let id: i64 = row.get(0)?;
        let key = self.key(row.get(1)?)?;
        let window = self.window(id >> FOLD_BITS)?;
        Ok(Output::Flow(Box::new(FlowRow {
            who: Who { identity: Arc::clone(&key.identity), process: self.process(row.get(2)?)? },
            window,
            direction: key.direction,
            protocol: key.protocol,
            local: Local { ip: key.local.clone() },
            peer: key.peer.clone(),
            actual_peer: key.actual,
            via: key.via,
            service_port: key.service_port,
            outcome: key.outcome,
            connections: count(row.get(3)?),
            open: count(row.get(4)?),
            processes: count(row.get(5)?),
            bytes_sent: count(row.get(6)?),
            bytes_received: count(row.get(7)?),
            retransmits: row.get::<_, Option<i64>>(8)?.map(count),
            rtt_us: row.get(9)?,
            merged: key.merged,
            preexisting: key.preexisting,
            sg: self.sg(row.get(10)?)?,
            // Neither is shown.
            rtt: RttHistogram::default(),
            records: Records::default(),
        })))
    }

    pub(in crate::history) fn metadata(&mut self, row: &Row<'_>) -> rusqlite::Result<Output> {
        let text = |column| row.get::<_, Option<String>>(column);
        Ok(Output::Metadata(Box::new(MetadataRow {
            time: WallNs(row.get(0)?),
            who: Who { identity: self.identity(row.get(1)?)?, process: self.process(row.get(2)?)? },
            local: Local { ip: ip_text(row.get(3)?) },
            service: fixed(row.get_ref(4)?.as_str()?),
            version: by_name(row.get_ref(5)?.as_str()?)?,
            method: text(6)?.as_deref().map(by_name).transpose()?,
            category: text(7)?.as_deref().map(by_name).transpose()?,
            role: text(8)?,
            access_key_id: text(9)?,
            forwarded_for: text(10)?,
            status: row.get(11)?,
            response_ttl: row.get(12)?,
            response_bytes: row.get::<_, Option<i64>>(13)?.map(count),
            outcome: by_name(row.get_ref(14)?.as_str()?)?,
            latency_us: row.get::<_, Option<i64>>(15)?.map(count),
            origin: None,
        })))
    }

    pub(in crate::history) fn exec(&mut self, row: &Row<'_>) -> rusqlite::Result<Output> {
        Ok(Output::Process(Box::new(ProcessRow {
            time: WallNs(row.get(0)?),
            who: Who { identity: self.identity(row.get(1)?)?, process: self.process(row.get(2)?)? },
            uid_number: row.get(3)?,
        })))
    }

    fn window(&mut self, fold: i64) -> rusqlite::Result<Window> {
        if let Some((known, window)) = self.fold
            && known == fold
        {
            return Ok(window);
        }
        let window = self
            .file
            .prepare_cached("SELECT start, end FROM fold WHERE id = ?1")?
            .query_row([fold], |row| Ok(Window { start: WallNs(row.get(0)?), end: WallNs(row.get(1)?) }))?;
        self.fold = Some((fold, window));
        Ok(window)
    }

    fn identity(&mut self, id: i64) -> rusqlite::Result<Arc<Identity>> {
        if let Some(identity) = self.who.get(&id) {
            return Ok(identity);
        }
        let sql = "SELECT attribution, why, namespace, pod, uid, container, workload FROM who WHERE id = ?1";
        let identity = self.file.prepare_cached(sql)?.query_row([id], |row| {
            Ok(Identity {
                attribution: by_name(row.get_ref(0)?.as_str()?)?,
                why: row.get_ref(1)?.as_str_or_null()?.map(fixed),
                namespace: row.get(2)?,
                pod: row.get(3)?,
                uid: row.get(4)?,
                container: row.get(5)?,
                workload: row.get(6)?,
            })
        })?;
        let identity = Arc::new(identity);
        self.who.insert(id, Arc::clone(&identity));
        Ok(identity)
    }

    fn sg(&mut self, id: Option<i64>) -> rusqlite::Result<Option<Box<SgRow>>> {
        let Some(id) = id else { return Ok(None) };
        if let Some(sg) = self.sg.get(&id) {
            return Ok(Some(Box::new(sg)));
        }
        let told = if version(self.file)? < SG_TOLD_SINCE { "NULL" } else { "told" };
        let sql = format!("SELECT verdict, by, why, rules, {told} FROM sg WHERE id = ?1");
        let sg = self.file.prepare_cached(&sql)?.query_row([id], |row| {
            Ok(SgRow {
                verdict: by_name(row.get_ref(0)?.as_str()?)?,
                by: row.get_ref(1)?.as_str_or_null()?.map(by_name).transpose()?,
                why: row.get_ref(2)?.as_str_or_null()?.map(by_name).transpose()?,
                rules: from_json(row.get_ref(3)?.as_str()?)?,
                told: row.get::<_, Option<i64>>(4)?.map(WallNs),
            })
        })?;
        self.sg.insert(id, sg.clone());
        Ok(Some(Box::new(sg)))
    }

    fn process(&mut self, id: Option<i64>) -> rusqlite::Result<Option<Arc<ProcessView>>> {
        let Some(id) = id else { return Ok(None) };
        if let Some(process) = self.processes.get(&id) {
            return Ok(Some(process));
        }
        let sql = "SELECT g.exe, g.exe_resolved, g.comm, g.args, g.ancestors, p.pid, p.by, p.ancestors \
                   FROM process p JOIN program g ON g.id = p.program WHERE p.id = ?1";
        let view = self.file.prepare_cached(sql)?.query_row([id], |row| {
            let json = |column| row.get::<_, Option<String>>(column);
            let args: Option<Vec<String>> = json(3)?.as_deref().map(from_json).transpose()?;
            let names: Option<Vec<(String, Option<String>)>> = json(4)?.as_deref().map(from_json).transpose()?;
            let pids: Option<Vec<u32>> = json(7)?.as_deref().map(from_json).transpose()?;
            let ancestors = names.unwrap_or_default().into_iter().zip(pids.unwrap_or_default());
            Ok(ProcessView {
                pid: row.get(5)?,
                exe: row.get(0)?,
                exe_resolved: row.get(1)?,
                comm: row.get(2)?,
                args: args.unwrap_or_default(),
                ancestors: ancestors.map(|((comm, exe), pid)| Ancestor { pid, comm, exe }).collect(),
                by: by_name(row.get_ref(6)?.as_str()?)?,
            })
        })?;
        let view = Arc::new(view);
        self.processes.insert(id, Arc::clone(&view));
        Ok(Some(view))
    }

    fn key(&mut self, id: i64) -> rusqlite::Result<Arc<Key>> {
        if let Some(key) = self.keys.get(&id) {
            return Ok(key);
        }
        let sql = "SELECT k.who, k.local, k.direction, k.protocol, k.service_port, k.outcome, k.merged, k.preexisting, \
                   p.ip, p.class, p.name, p.namespace, p.pod";
        let actual =
            if version(self.file)? < ACTUAL_SINCE { "NULL, NULL, NULL" } else { "k.actual_ip, k.actual_port, k.via" };
        let sql = format!("{sql}, {actual} FROM flow_key k JOIN peer p ON p.id = k.peer WHERE k.id = ?1");
        let (who, mut key) = self.file.prepare_cached(&sql)?.query_row([id], |row| {
            let key = Key {
                identity: Arc::default(),
                local: ip_text(row.get(1)?),
                direction: fixed(row.get_ref(2)?.as_str()?),
                protocol: row.get_ref(3)?.as_str_or_null()?.map(by_name).transpose()?,
                service_port: row.get(4)?,
                outcome: row.get_ref(5)?.as_str_or_null()?.map(fixed),
                merged: row.get(6)?,
                preexisting: row.get(7)?,
                peer: Peer {
                    ip: ip_text(row.get(8)?),
                    class: by_name(row.get_ref(9)?.as_str()?)?,
                    name: row.get(10)?,
                    namespace: row.get(11)?,
                    pod: row.get(12)?,
                },
                actual: row
                    .get::<_, Option<[u8; 16]>>(13)?
                    .zip(row.get(14)?)
                    .map(|(ip, port)| ActualPeer { ip: unmapped(ip), port }),
                via: row.get_ref(15)?.as_str_or_null()?.map(by_name).transpose()?,
            };
            Ok((row.get(0)?, key))
        })?;
        key.identity = self.identity(who)?;
        let key = Arc::new(key);
        self.keys.insert(id, Arc::clone(&key));
        Ok(key)
    }
}

pub(in crate::history) fn finding(row: &Row<'_>) -> rusqlite::Result<Output> {
    let mut finding: FindingRow = from_json(row.get_ref(1)?.as_str()?)?;
    finding.time = WallNs(row.get(0)?);
    Ok(Output::Finding(Box::new(finding)))
}

pub(in crate::history) fn capacity(row: &Row<'_>) -> rusqlite::Result<Output> {
    let mut capacity: CapacityRow = from_json(row.get_ref(1)?.as_str()?)?;
    capacity.time = WallNs(row.get(0)?);
    Ok(Output::Capacity(Box::new(capacity)))
}

pub(in crate::history) fn object(row: &Row<'_>) -> rusqlite::Result<Output> {
    let object = by_name(row.get_ref(1)?.as_str()?)?;
    let text = |column| row.get_ref(column)?.as_str().map(Arc::from).map_err(rusqlite::Error::from);
    let facts = row.get_ref(9)?.as_str_or_null()?;
    Ok(Output::Object(Box::new(ObjectRow {
        time: WallNs(row.get(0)?),
        object,
        change: by_name(row.get_ref(2)?.as_str()?)?,
        namespace: text(3)?,
        name: text(4)?,
        uid: row.get_ref(5)?.as_str_or_null()?.map(Arc::from),
        workload: text(6)?,
        digest: row.get::<_, i64>(7)?.cast_unsigned(),
        changed: from_json(row.get_ref(8)?.as_str()?)?,
        // Of a version to come, or before: that it changed is known all the same.
        facts: facts.and_then(|facts| ObjectFacts::from_json(object, facts).ok()),
    })))
}

pub(in crate::history) fn gap(row: &Row<'_>) -> rusqlite::Result<Output> {
    let lost: std::collections::BTreeMap<String, u64> = from_json(row.get_ref(3)?.as_str()?)?;
    Ok(Output::Gap(GapRow {
        start: WallNs(row.get(1)?),
        end: WallNs(row.get(0)?),
        cause: by_name(row.get_ref(2)?.as_str()?)?,
        records_lost: lost.iter().map(|(kind, records)| (fixed(kind), *records)).collect(),
    }))
}
