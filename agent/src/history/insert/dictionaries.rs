//! Entries of the dictionaries: written when they are new, or were forgotten.

use std::sync::Arc;

use agent_core::output::{Identity, Peer, ProcessView, SgRow};
use rusqlite::{Connection, params};

use super::{FlowKey, Inserter, Process, Program, add, json, remember};
use crate::history::codes::{ip, mapped, name};

impl Inserter {
    pub(super) fn sg(&mut self, file: &Connection, sg: &SgRow) -> rusqlite::Result<i64> {
        if let Some(id) = self.sg.get(sg) {
            return Ok(id);
        }
        let SgRow { verdict, by, rules, why, told } = sg;
        add(
            file,
            "INSERT INTO sg (verdict, by, why, rules, told) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                name(verdict),
                by.as_ref().map(name),
                why.as_ref().map(name),
                serde_json::json!(rules).to_string(),
                told.map(|at| at.0)
            ],
        )?;
        Ok(remember(&mut self.sg, sg.clone(), file))
    }

    pub(super) fn who(&mut self, file: &Connection, identity: &Identity) -> rusqlite::Result<i64> {
        if let Some(id) = self.who.get(identity) {
            return Ok(id);
        }
        let Identity { attribution, why, namespace, pod, uid, container, workload } = identity;
        add(
            file,
            "INSERT INTO who (attribution, why, namespace, pod, uid, container, workload) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![name(attribution), why, namespace, pod, uid, container, workload],
        )?;
        Ok(remember(&mut self.who, identity.clone(), file))
    }

    pub(super) fn peer(&mut self, file: &Connection, peer: &Peer) -> rusqlite::Result<i64> {
        if let Some(id) = self.peers.get(peer) {
            return Ok(id);
        }
        let Peer { ip: address, class, name: dns_name, namespace, pod } = peer;
        add(
            file,
            "INSERT INTO peer (ip, class, name, namespace, pod) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![ip(address.as_deref()), name(class), dns_name, namespace, pod],
        )?;
        Ok(remember(&mut self.peers, peer.clone(), file))
    }

    pub(super) fn key(&mut self, file: &Connection, key: FlowKey) -> rusqlite::Result<i64> {
        if let Some(id) = self.keys.get(&key) {
            return Ok(id);
        }
        let FlowKey { who, peer, local, actual, via, direction, protocol, service_port, outcome, merged, preexisting } =
            &key;
        add(
            file,
            "INSERT INTO flow_key (who, peer, local, direction, protocol, service_port, outcome, merged, preexisting, \
             actual_ip, actual_port, via) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            params![
                who,
                peer,
                local,
                direction,
                protocol.as_ref().map(name),
                service_port,
                outcome,
                merged,
                preexisting,
                actual.map(|actual| mapped(actual.ip)),
                actual.map(|actual| actual.port),
                via.as_ref().map(name)
            ],
        )?;
        Ok(remember(&mut self.keys, key, file))
    }

    pub(super) fn process_of(
        &mut self,
        file: &Connection,
        view: Option<&Arc<ProcessView>>,
    ) -> rusqlite::Result<Option<i64>> {
        let Some(view) = view else { return Ok(None) };
        let ProcessView { pid, exe, exe_resolved, comm, args, ancestors, by } = &**view;
        let names: Vec<_> = ancestors.iter().map(|ancestor| (&ancestor.comm, &ancestor.exe)).collect();
        let pids: Vec<_> = ancestors.iter().map(|ancestor| ancestor.pid).collect();
        let program = Program {
            exe: exe.clone(),
            exe_resolved: exe_resolved.clone(),
            comm: comm.clone(),
            args: json(args),
            ancestors: json(&names),
        };
        let program = self.program(file, program)?;
        let process = Process { program, pid: *pid, by: *by, ancestors: json(&pids) };
        if let Some(id) = self.processes.get(&process) {
            return Ok(Some(id));
        }
        add(
            file,
            "INSERT INTO process (program, pid, by, ancestors) VALUES (?1, ?2, ?3, ?4)",
            params![process.program, process.pid, name(&process.by), process.ancestors],
        )?;
        Ok(Some(remember(&mut self.processes, process, file)))
    }

    pub(super) fn program(&mut self, file: &Connection, program: Program) -> rusqlite::Result<i64> {
        if let Some(id) = self.programs.get(&program) {
            return Ok(id);
        }
        let Program { exe, exe_resolved, comm, args, ancestors } = &program;
        add(
            file,
            "INSERT INTO program (exe, exe_resolved, comm, args, ancestors) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![exe, exe_resolved, comm, args, ancestors],
        )?;
        Ok(remember(&mut self.programs, program, file))
    }
}
