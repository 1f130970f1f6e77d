//! DNS as the pods of this node use it: which name a pod means by an address, how its queries fare, and how near an
//! interface is to the packets that AWS answers a second.
//!
//! Seen are messages between a client on this node and UDP port 53. What goes over TCP, TLS or HTTPS is not seen, so a
//! name that was learned there is not known, and an answer over UDP that says it was cut gives no address.

mod linklocal;
mod message;
mod names;
mod queries;

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::linklocal::{Linklocal, MAX_SCOPES, PACKETS_A_SECOND};
pub use self::message::{MAX_RECORDS, parse};
pub use self::names::{Connection, GRACE_NS, MAX_CLAIMS, MAX_CLAIMS_OF_ONE, MAX_DECIDED, Names};
pub use self::queries::{ANSWER_NS, Counts, MAX_WAITING, MAX_WAITING_OF_ONE, Outcome, Queries, Tally};
use crate::fast::FastMap;
use crate::input::{Ends, KernelTotals};
use crate::time::BootNs;

/// A DNS message that a client on this node sent to a server, or got from one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DnsFact {
    /// When.
    pub time: BootNs,
    /// Cgroup of the client's socket.
    pub cgroup_id: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// Addresses and ports; the remote one is the server.
    pub ends: Ends,
    /// Bytes of the message.
    pub bytes: u32,
    /// What it says; `None`: it is no query with one question and no answer to one, or cannot be read.
    pub message: Option<DnsMessage>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsMessage {
    /// By which an answer is known as that of a query.
    pub id: u16,
    /// The name that is asked for: lower case, without the last dot, bytes that are no text as `\DDD`.
    pub name: Arc<str>,
    /// Type of the records that are asked for, by IANA's number.
    pub record_type: u16,
    /// `None`: this is a query.
    pub answer: Option<DnsAnswer>,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// How it went.
    pub code: DnsCode,
    /// The server left something out for want of room: the client asks again by TCP.
    pub truncated: bool,
    /// Records of the answer, as far as the message says.
    pub records: u16,
    /// The addresses of the name, found by its aliases too, with the seconds that they hold; at most
    /// [`MAX_RECORDS`].
    pub addresses: Vec<(IpAddr, u32)>,
}

/// Response codes that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsCode {
    /// NOERROR, with or without records.
    NoError,
    /// NXDOMAIN: there is no such name.
    NxDomain,
    /// SERVFAIL: the server could not find out.
    ServFail,
    /// Any other.
    Other,
}

/// Whose names they are: the containers of a pod share what they learn, for the one may ask (a resolver beside the
/// program) and the other connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Asker {
    /// A pod, by its uid.
    Pod(Arc<str>),
    /// Anything else with a cgroup of its own.
    Cgroup(u64),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Dns {
    names: Names,
    queries: Queries,
    linklocal: Linklocal,
    /// By cgroup, so that a record costs one look-up; emptied now and then.
    askers: FastMap<u64, Asker>,
    swept: BootNs,
    unreadable: u64,
}

/// Types of records by which clients ask for addresses: A, AAAA, and all there are.
const ADDRESS_TYPES: [u16; 3] = [1, 28, 255];
/// Names are gone through this often for those that are over.
const SWEEP_NS: u64 = 60_000_000_000;
/// Most cgroups whose asker is kept, at about 80 bytes: 320 KiB. Beyond it all are found anew.
const MAX_ASKERS: usize = 4_096;

impl Dns {
    /// Takes a message in. `asker` says whose cgroup it is, and is called at most once.
    pub fn message(&mut self, fact: &DnsFact, asker: impl FnOnce() -> Option<Asker>) {
        let Some(message) = &fact.message else {
            self.unreadable += 1;
            return;
        };
        let Some(answer) = &message.answer else {
            return self.queries.asked(fact, message);
        };
        let is_waited_for = self.queries.answered(fact, message, answer);
        // What no client would take for the addresses of the name names nothing.
        let is_of_addresses = ADDRESS_TYPES.contains(&message.record_type) && answer.code == DnsCode::NoError;
        if !is_waited_for || !is_of_addresses || answer.truncated || answer.addresses.is_empty() {
            return;
        }
        // Processes outside any cgroup of their own are many at once: no name can be told for one of them.
        let Some(asker) = self.asker(fact.cgroup_id, asker) else { return };
        for (ip, ttl_s) in &answer.addresses {
            self.names.learn(&asker, *ip, &message.name, fact.time, *ttl_s);
        }
    }

    /// Counts a packet to one of AWS's link-local services that leaves by the interface of `scope`.
    pub fn linklocal_packet(&mut self, scope: &crate::capacity::Scope, time: BootNs) {
        self.linklocal.packet(scope, time);
    }

    /// The most packets in one second since the last call, by interface.
    pub fn linklocal_peaks(&mut self, now: BootNs) -> Vec<(crate::capacity::Scope, u64)> {
        self.linklocal.peaks(now)
    }

    /// The name that a connection was made to, if that is certain; see [`Names`].
    pub fn name_of(&mut self, connection: &Connection, asker: impl FnOnce() -> Option<Asker>) -> Option<Arc<str>> {
        if self.names.is_empty() {
            return None;
        }
        let asker = self.asker(connection.cgroup_id, asker)?;
        self.names.name_of(&asker, connection)
    }

    /// The kernel's counters were read: decides on queries without an answer, which need to know whether one was lost.
    pub fn totals(&mut self, totals: &KernelTotals, now: BootNs) {
        self.queries.totals(totals, now);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: BootNs) {
        if now.since(self.swept) >= SWEEP_NS {
            self.swept = now;
            self.names.sweep(now);
            self.askers = FastMap::default();
        }
    }

    /// What was counted since the last call, by cgroup.
    pub fn take(&mut self) -> Vec<(u64, Tally)> {
        self.queries.take()
    }

    /// Counts of the whole node since the start.
    pub fn counts(&self) -> Counts {
        Counts { unreadable: self.unreadable, names_let_go: self.names.let_go(), ..self.queries.counts() }
    }

    /// What is known by name.
    pub fn names(&self) -> &Names {
        &self.names
    }

    fn asker(&mut self, cgroup_id: u64, asker: impl FnOnce() -> Option<Asker>) -> Option<Asker> {
        if let Some(known) = self.askers.get(&cgroup_id) {
            return Some(known.clone());
        }
        let asker = asker()?;
        if self.askers.len() >= MAX_ASKERS {
            self.askers = FastMap::default();
        }
        self.askers.insert(cgroup_id, asker.clone());
        Some(asker)
    }
}

#[cfg(test)]
mod tests;
