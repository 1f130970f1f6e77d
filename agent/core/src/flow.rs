//! Connections folded into rows.
//!
//! Every fold (ten seconds) has one row per identity, executable, direction, local address, peer address, peer name,
//! service port, protocol and outcome. Nothing is kept per connection beyond a fold: records carry what happened since the last one.
//! Who a cgroup is gets decided when the fold closes, so that names which come late still help.

mod accounts;
mod emit;
mod mesh;
mod mirror;
mod ports;
mod redirects;
mod rows;

use std::net::IpAddr;
use std::sync::Arc;

use agent_ebpf::shared::Account;
use agent_ebpf::wire::{Direction, Outcome, Owner};

use self::accounts::Accounts;
pub use self::emit::Context;
use self::mirror::Mirrors;
use self::ports::MANY;
use self::redirects::{Caller, Redirects};
use self::rows::{Key, Rows, Subject, Totals};
pub use self::rows::{MAX_MERGED_ROWS, MAX_OPEN, MAX_PROCESSES, MAX_ROWS};
use crate::backends::{self, Connection};
use crate::books::Ledger;
use crate::cgroup::ROOT_ID;
use crate::fast::FastMap;
use crate::input::{AttemptFact, Ends, TcpFact, UdpFact};
use crate::output::{By, Protocol};
use crate::process::ProcessTable;
use crate::time::BootNs;

/// Half the time between two ticks.
const HALF_A_TICK_NS: u64 = 500_000_000;

/// Folds records into rows, and puts the rows out when their fold is over.
#[derive(Debug)]
pub struct Folder {
    fold_ns: u64,
    start: Option<BootNs>,
    rows: Rows,
    accounts: Accounts,
    mirrors: Mirrors,
    redirects: Redirects,
}

/// One record on its way into a row.
struct Entry<'a> {
    ledger: Ledger,
    time: BootNs,
    cgroup_id: u64,
    ends: &'a Ends,
    protocol: Protocol,
    direction: Direction,
    /// `None`: still open.
    outcome: Option<Outcome>,
    process: Option<(Owner, By)>,
    peer: PeerNotes,
    /// The connection's calling end, where it may have been turned to a proxy.
    caller: Option<Caller>,
    totals: Totals,
}

/// What is known of a peer when its record comes.
#[derive(Debug, Default)]
pub struct PeerNotes {
    /// The name that it was known by when the connection began.
    pub name: Option<Arc<str>>,
    /// The node puts another address in place of the peer's, as far as is known.
    pub is_translated: bool,
}

impl Folder {
    /// A folder whose folds last `fold_ns`.
    pub fn new(fold_ns: u64) -> Self {
        Self {
            fold_ns: fold_ns.max(1),
            start: None,
            rows: Rows::default(),
            accounts: Accounts::default(),
            mirrors: Mirrors::default(),
            redirects: Redirects::default(),
        }
    }

    /// Takes a TCP record in.
    pub fn tcp(&mut self, fact: &TcpFact, peer: PeerNotes, processes: &mut ProcessTable) {
        let ended = !fact.open;
        let mut totals = Totals {
            connections: u64::from(ended),
            bytes_sent: fact.bytes_sent,
            bytes_received: fact.bytes_received,
            retransmits: u64::from(fact.retransmits),
            rtt_us: fact.srtt_us,
            preexisting: fact.preexisting,
            ..Totals::default()
        };
        if let Some(rtt_us) = fact.srtt_us
            && ended
        {
            totals.rtt.observe(rtt_us);
        }
        let entry = Entry {
            ledger: Ledger::Tcp,
            time: fact.time,
            cgroup_id: fact.cgroup_id,
            ends: &fact.ends,
            protocol: Protocol::Tcp,
            direction: fact.direction,
            outcome: ended.then_some(fact.outcome),
            process: tcp_process(fact),
            peer,
            caller: self.redirects.note(fact),
            totals,
        };
        self.add(entry, fact.cookie, processes);
    }

    /// Takes a UDP record in.
    pub fn udp(&mut self, fact: &UdpFact, peer: PeerNotes, processes: &mut ProcessTable) {
        let ended = !fact.open;
        let entry = Entry {
            ledger: Ledger::Udp,
            time: fact.time,
            cgroup_id: fact.cgroup_id,
            ends: &fact.ends,
            protocol: Protocol::Udp,
            direction: fact.direction,
            outcome: ended.then_some(fact.outcome),
            process: udp_process(fact),
            peer,
            caller: None,
            totals: Totals {
                connections: u64::from(ended),
                bytes_sent: fact.bytes_sent,
                bytes_received: fact.bytes_received,
                preexisting: fact.preexisting,
                ..Totals::default()
            },
        };
        self.add(entry, fact.cookie, processes);
    }

    /// Takes an attempt in: a connection that ended with its outcome and never had a local address.
    pub fn attempt(&mut self, fact: &AttemptFact, name: Option<Arc<str>>, processes: &mut ProcessTable) {
        let entry = Entry {
            ledger: Ledger::Attempt,
            time: fact.time,
            cgroup_id: fact.cgroup_id,
            ends: &fact.ends,
            protocol: Protocol::Tcp,
            direction: Direction::Outbound,
            outcome: Some(fact.outcome),
            process: fact.connected.map(|owner| (owner, By::Connect)),
            // Nothing was sent, so nothing is translated.
            peer: PeerNotes { name, is_translated: false },
            caller: None,
            totals: Totals { connections: 1, ..Totals::default() },
        };
        self.add(entry, fact.cookie, processes);
    }

    /// Takes the kernel's accounts in: what they grew by since the last reading becomes merged rows.
    pub fn accounts(&mut self, accounts: &[(u64, Account)]) {
        let rows = &mut self.rows;
        self.accounts.read(accounts, |cgroup_id, direction, outcome, totals| {
            rows.add_merged(Key::merged(Subject::Cgroup(cgroup_id), direction, None, outcome), totals);
        });
    }

    /// Takes a reading of all accounts as the point to count from: what they hold was merged before.
    pub fn known_accounts(&mut self, accounts: &[(u64, Account)]) {
        self.accounts.read(accounts, |_, _, _, _| {});
    }

    /// Whether the fold is over. The first moment told begins the first fold.
    pub fn is_due(&mut self, now: BootNs) -> bool {
        // Ticks come once a second and never on the nanosecond: one that is a little early is not a second late.
        now.since(*self.start.get_or_insert(now)).saturating_add(HALF_A_TICK_NS) >= self.fold_ns
    }

    /// Connections of this fold whose peer's address the node translates, each with one socket; at most
    /// [`backends::MAX_ASKED`].
    pub fn translated(&self) -> Vec<Connection> {
        let mut sockets: FastMap<Connection, Option<u64>> = FastMap::default();
        for (key, ports) in self.rows.translated() {
            for (connection, cookie) in key.connections(ports.known()) {
                let has_room = sockets.len() < backends::MAX_ASKED;
                match sockets.get_mut(&connection) {
                    // Two sockets used it one after the other: what the first one met is not known any more.
                    Some(known) => *known = known.filter(|known| *known == cookie),
                    None if has_room => {
                        sockets.insert(connection, Some(cookie).filter(|cookie| *cookie != MANY));
                    }
                    None => {}
                }
            }
        }
        sockets.into_iter().filter_map(|(connection, cookie)| cookie.map(|_| connection)).collect()
    }

    /// Rows held in memory.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no row is held.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }

    fn add(&mut self, entry: Entry<'_>, cookie: u64, processes: &mut ProcessTable) {
        let Entry { ledger, time, cgroup_id, ends, protocol, direction, outcome, process, peer, caller, mut totals } =
            entry;
        let exe =
            process.and_then(|(owner, _)| processes.touch(owner, time)).and_then(|process| process.exe().cloned());
        // In the root the process decides who it is, not the cgroup.
        let subject = match process {
            Some((owner, _)) if cgroup_id == ROOT_ID => Subject::RootProcess(owner),
            _ => Subject::Cgroup(cgroup_id),
        };
        totals.records.add(ledger, 1);
        let key = Key {
            subject,
            exe,
            direction,
            protocol: Some(protocol),
            netns: ends.netns,
            local: (ledger != Ledger::Attempt).then_some(ends.local),
            remote: Some(ends.remote),
            name: peer.name,
            service_port: service_port(direction, ends),
            outcome,
            merged: false,
        };
        let process = process.map(|(owner, by)| (time, owner, by));
        let flow = (cookie, protocol, ends.remote, ends.remote_port);
        if outcome.is_some() {
            self.rows.ended(&flow);
        }
        let row = self.rows.add(key, totals, process);
        if peer.is_translated {
            self.rows.note_port(row, ends.local_port, cookie);
        }
        if let Some(caller) = caller {
            self.rows.note_caller(row, caller);
        }
        if outcome.is_none() {
            self.rows.open(flow, row);
        }
    }
}

/// Marks a connection among the open ones of a fold.
type FlowMark = (u64, Protocol, IpAddr, u16);

/// Who is behind a TCP connection. Outbound: who connected, else who closed. Inbound: who closed (in a prefork server
/// the worker), else who listened.
fn tcp_process(fact: &TcpFact) -> Option<(Owner, By)> {
    let connected = fact.connected.map(|owner| (owner, By::Connect));
    let listened = fact.listened.map(|owner| (owner, By::Listen));
    let closed = fact.closed.map(|owner| (owner, By::Close));
    match fact.direction {
        Direction::Outbound => connected.or(closed),
        Direction::Inbound => closed.or(listened),
        Direction::Unknown => closed.or(held(fact.connected.or(fact.listened))),
    }
}

/// Who is behind a UDP flow. Outbound: who sent first, else who closed. Inbound: who closed.
fn udp_process(fact: &UdpFact) -> Option<(Owner, By)> {
    let closed = fact.closed.map(|owner| (owner, By::Close));
    match fact.direction {
        Direction::Outbound => fact.sent.map(|owner| (owner, By::Send)).or(closed),
        Direction::Inbound | Direction::Unknown => closed.or(held(fact.sent)),
    }
}

/// The owner found on a socket whose beginning was not seen.
fn held(owner: Option<Owner>) -> Option<(Owner, By)> {
    owner.map(|owner| (owner, By::Hold))
}

/// The listening side's port. Sockets older than the agent have no known direction, and so no known service.
fn service_port(direction: Direction, ends: &Ends) -> Option<u16> {
    match direction {
        Direction::Outbound => Some(ends.remote_port),
        Direction::Inbound => Some(ends.local_port),
        Direction::Unknown => None,
    }
}

#[cfg(test)]
mod tests;
