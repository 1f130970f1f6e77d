//! The rows of one fold while it lasts, bounded in every direction.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use agent_ebpf::wire::{Direction, Outcome, Owner};

use super::FlowMark;
use super::ports::{MAX_PORTS, Ports};
use super::redirects::{Caller, MAX_REDIRECTED, Redirected};
use crate::backends::Connection;
use crate::books::Records;
use crate::fast::{FastMap, FastSet};
use crate::output::{By, Protocol, RttHistogram};
use crate::time::BootNs;

/// Most rows of a fold. 110 pods with 100 peers each fit; a row takes about 500 bytes with its key: 8 MiB at most.
/// Beyond it rows merge per identity, direction, protocol and outcome.
pub const MAX_ROWS: usize = 16_384;
/// Most merged rows of a fold: 250 pods with three containers and five kinds of rows each. 2 MiB at most. Beyond it they
/// merge into rows of an unknown identity.
pub const MAX_MERGED_ROWS: usize = 4_096;
/// Most open connections told apart in a fold, at about 60 bytes: 4 MiB. Beyond it `open` counts reports, and a
/// connection reported twice, or reported and ended, counts as open once too often.
pub const MAX_OPEN: usize = 65_536;
/// Most processes told apart in a fold beside the first of each row, at about 32 bytes: 2 MiB. Beyond it `processes` is a
/// lower bound.
pub const MAX_PROCESSES: usize = 65_536;

/// What tells rows apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) subject: Subject,
    pub(super) exe: Option<Arc<str>>,
    pub(super) direction: Direction,
    pub(super) protocol: Option<Protocol>,
    /// Not shown, but loopback addresses of two namespaces must not be taken for one another.
    pub(super) netns: u32,
    pub(super) local: Option<IpAddr>,
    pub(super) remote: Option<IpAddr>,
    /// What the pod knew the peer by when the connections began, if that is certain.
    pub(super) name: Option<Arc<str>>,
    pub(super) service_port: Option<u16>,
    pub(super) outcome: Option<Outcome>,
    pub(super) merged: bool,
}

/// What will be asked who it is, when the fold closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Cgroup(u64),
    /// A process in the cgroup2 root.
    RootProcess(Owner),
}

impl Key {
    /// A row's connections by their local ports, with whatever comes with those.
    pub(super) fn connections<T>(
        &self,
        ports: impl Iterator<Item = (u16, T)>,
    ) -> impl Iterator<Item = (Connection, T)> {
        let ends = (|| Some((self.protocol?, self.local?, SocketAddr::new(self.remote?, self.service_port?))))();
        ports.filter_map(move |(port, with)| {
            let (protocol, local, remote) = ends?;
            Some((Connection { protocol, local: SocketAddr::new(local, port), remote }, with))
        })
    }

    pub(super) fn merged(
        subject: Subject,
        direction: Direction,
        protocol: Option<Protocol>,
        outcome: Option<Outcome>,
    ) -> Self {
        Self {
            subject,
            exe: None,
            direction,
            protocol,
            netns: 0,
            local: None,
            remote: None,
            name: None,
            service_port: None,
            outcome,
            merged: true,
        }
    }
}

/// What a row sums up.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) records: Records,
    pub(super) connections: u64,
    pub(super) open: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) retransmits: u64,
    pub(super) rtt_us: Option<u32>,
    pub(super) rtt: RttHistogram,
    pub(super) preexisting: bool,
    pub(super) processes: Processes,
    /// `None`: the peer is not translated, as far as is known.
    pub(super) ports: Option<Box<Ports>>,
    /// `None`: none of its connections may have been turned to a proxy in the pod.
    pub(super) redirected: Option<Box<Redirected>>,
}

impl Totals {
    /// Adds another's sums; the processes and ports apart.
    fn add(&mut self, more: &Self) {
        self.records.merge(more.records);
        self.connections += more.connections;
        self.open += more.open;
        self.bytes_sent = self.bytes_sent.saturating_add(more.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(more.bytes_received);
        self.retransmits += more.retransmits;
        self.rtt_us = self.rtt_us.max(more.rtt_us);
        self.preexisting |= more.preexisting;
        if more.rtt_us.is_some() {
            self.rtt.merge(&more.rtt);
        }
    }

    /// Adds another row, its processes included.
    pub(super) fn absorb(&mut self, more: Self) {
        self.add(&more);
        self.processes.absorb(more.processes);
        match (&mut self.ports, more.ports) {
            (Some(ports), Some(more)) => ports.absorb(*more),
            (None, None) => {}
            // Of some nothing is noted: they became known as translated in the middle of the fold.
            (ports, _) => *ports = None,
        }
        if let Some(more) = more.redirected {
            self.redirected.get_or_insert_default().absorb(*more);
        }
    }
}

/// The processes of a row: the first to be recorded, and how many.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    pub(super) first: Option<(BootNs, Owner, By)>,
    /// All of them, once there are two.
    all: Option<Box<FastSet<Owner>>>,
}

impl Processes {
    pub(super) fn count(&self) -> u64 {
        self.all.as_ref().map_or(u64::from(self.first.is_some()), |all| all.len() as u64)
    }

    /// Adds one; `room` is what may still be kept of all rows' processes together.
    fn add(&mut self, process: (BootNs, Owner, By), room: &mut usize) {
        let Some(first) = self.first else {
            self.first = Some(process);
            return;
        };
        // By time and not by arrival, so that the order of records of one fold does not matter.
        if rank(process) < rank(first) {
            self.first = Some(process);
        }
        if process.1 == first.1 && self.all.is_none() {
            return;
        }
        let all = self.all.get_or_insert_with(|| Box::new(FastSet::from_iter([first.1])));
        if *room > 0 && all.insert(process.1) {
            *room -= 1;
        }
    }

    fn absorb(&mut self, more: Self) {
        let Some(first) = more.first else { return };
        // Both were within the fold's bound, so is their union.
        self.add(first, &mut 1);
        if let Some(others) = more.all {
            let known = self.first.map(|(_, owner, _)| owner);
            self.all.get_or_insert_with(|| Box::new(FastSet::from_iter(known))).extend(*others);
        }
    }
}

fn rank((time, owner, by): (BootNs, Owner, By)) -> (BootNs, u64, u32, By) {
    (time, owner.start_ns, owner.tgid, by)
}

/// Rows in the order of their first record.
#[derive(Debug)]
pub(super) struct Rows {
    index: FastMap<Key, u32>,
    totals: Vec<Totals>,
    merged: usize,
    /// Connections reported open in this fold, and the row that counts them.
    open: FastMap<FlowMark, u32>,
    process_room: usize,
    port_room: usize,
    caller_room: usize,
}

impl Default for Rows {
    fn default() -> Self {
        Self {
            index: FastMap::default(),
            totals: Vec::new(),
            merged: 0,
            open: FastMap::default(),
            process_room: MAX_PROCESSES,
            port_room: MAX_PORTS,
            caller_room: MAX_REDIRECTED,
        }
    }
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.totals.len()
    }

    /// Adds to the row of `key`, or to a merged one when there are too many. Returns the row's number.
    pub(super) fn add(&mut self, key: Key, totals: Totals, process: Option<(BootNs, Owner, By)>) -> u32 {
        if let Some(&row) = self.index.get(&key) {
            self.add_to(row, &totals);
            self.note_process(row, process);
            return row;
        }
        if self.len() - self.merged >= MAX_ROWS {
            return self.add_merged(Key::merged(key.subject, key.direction, key.protocol, key.outcome), totals);
        }
        let row = self.push(key, totals);
        self.note_process(row, process);
        row
    }

    /// Adds to a row without peer and process.
    pub(super) fn add_merged(&mut self, key: Key, totals: Totals) -> u32 {
        if let Some(&row) = self.index.get(&key) {
            self.add_to(row, &totals);
            return row;
        }
        // The rows of nobody are few: directions by protocols by outcomes. They are let in beyond the bound.
        let nobody = Subject::Cgroup(agent_ebpf::shared::OVERFLOW_ACCOUNT);
        if self.merged >= MAX_MERGED_ROWS && key.subject != nobody {
            return self.add_merged(Key { subject: nobody, ..key }, totals);
        }
        self.merged += 1;
        self.push(key, totals)
    }

    /// Notes the local port of a connection to an address that the node translates, of a row that just took its record.
    pub(super) fn note_port(&mut self, row: u32, port: u16, cookie: u64) {
        if let Some(totals) = self.totals.get_mut(row as usize) {
            totals.ports.get_or_insert_default().note(port, cookie, &mut self.port_room);
        }
    }

    /// Notes the calling end of a connection that may have been turned to a proxy, of a row that just took its record.
    pub(super) fn note_caller(&mut self, row: u32, caller: Caller) {
        if let Some(totals) = self.totals.get_mut(row as usize) {
            totals.redirected.get_or_insert_default().note(caller, &mut self.caller_room);
        }
    }

    /// Rows whose peers are translated, with their connections.
    pub(super) fn translated(&self) -> impl Iterator<Item = (&Key, &Ports)> {
        self.index.iter().filter_map(|(key, row)| Some((key, self.totals.get(*row as usize)?.ports.as_deref()?)))
    }

    /// A connection is open, as a row that just took its record says.
    pub(super) fn open(&mut self, flow: FlowMark, row: u32) {
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&flow) {
            self.count_open(row, 1);
        } else if let Some(before) = self.open.insert(flow, row) {
            self.count_open(before, -1);
            self.count_open(row, 1);
        } else {
            self.count_open(row, 1);
        }
    }

    /// A connection ended: it is not open any more.
    pub(super) fn ended(&mut self, flow: &FlowMark) {
        if self.open.is_empty() {
            return;
        }
        if let Some(row) = self.open.remove(flow) {
            self.count_open(row, -1);
        }
    }

    /// All rows in the order of their first record.
    pub(super) fn into_rows(self) -> Vec<(Key, Totals)> {
        let mut keys: Vec<_> = self.index.into_iter().collect();
        keys.sort_unstable_by_key(|(_, row)| *row);
        keys.into_iter().map(|(key, _)| key).zip(self.totals).collect()
    }

    fn push(&mut self, key: Key, totals: Totals) -> u32 {
        // Both bounds together fit 32 bits.
        let row = u32::try_from(self.totals.len()).unwrap_or(u32::MAX);
        self.index.insert(key, row);
        self.totals.push(totals);
        row
    }

    fn add_to(&mut self, row: u32, totals: &Totals) {
        if let Some(sum) = self.totals.get_mut(row as usize) {
            sum.add(totals);
        }
    }

    fn note_process(&mut self, row: u32, process: Option<(BootNs, Owner, By)>) {
        if let (Some(sum), Some(process)) = (self.totals.get_mut(row as usize), process) {
            sum.processes.add(process, &mut self.process_room);
        }
    }

    fn count_open(&mut self, row: u32, by: i64) {
        if let Some(sum) = self.totals.get_mut(row as usize) {
            sum.open = sum.open.saturating_add_signed(by);
        }
    }
}
