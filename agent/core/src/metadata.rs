//! Metadata traffic: from payload to facts that hold no secret.
//!
//! [`Tracker`] keeps one [`connection::Connection`] per socket cookie. A connection reassembles both directions
//! ([`reassembly`]), recognises heads ([`http`], on `httparse`) and the extent of bodies ([`body`]), pairs answers with
//! requests and tells one [`MetadataFact`](crate::input::MetadataFact) per exchange. Of the payload only a class of
//! path ([`path`]), a role's name, addresses and an access key id ([`key_scan`]) survive; every buffer that held
//! payload is overwritten when it goes ([`wiped`]).
//!
//! Everything is bounded: [`MAX_CONNECTIONS`], [`HELD_BYTES`] per direction, [`TOTAL_HELD_BYTES`], [`IN_FLIGHT`].

use std::collections::{BTreeMap, HashMap};

use agent_ebpf::wire::{Outcome, Service};

use self::connection::Connection;
use crate::continuity::{Place, Resume};
use crate::input::{Ends, Input, NamedProcess};
use crate::time::BootNs;

mod body;
mod connection;
mod exchange;
mod head;
mod http;
mod key_scan;
mod path;
mod reassembly;
mod wiped;

#[cfg(test)]
mod tests;

/// Most connections followed at once. A node of 110 pods has a handful; each costs about 1 KiB when idle.
const MAX_CONNECTIONS: usize = 1024;
/// Most payload held of one direction of a connection, out of order or as an incomplete head. Clients send heads of
/// less than 2 KiB; servers commonly refuse more than 8 KiB.
const HELD_BYTES: usize = 16 * 1024;
/// Most payload held in all. 1,024 connections with two full directions, each with a head of [`HELD_BYTES`] and as much
/// out of order, would be 64 MiB.
const TOTAL_HELD_BYTES: usize = 4 * 1024 * 1024;
/// Most requests of one connection that wait for their answers. Clients of these services do not pipeline.
const IN_FLIGHT: usize = 64;
/// How long a segment waits for what should stand before it: the two directions are written by different processors,
/// and records of one packet's time are at most a scheduling delay apart.
const REORDER_WAIT_NS: u64 = 1_000_000_000;
/// How long a request waits for its answer, and an answer for its body. The SDKs give up after 1 to 5 seconds.
const ANSWER_WAIT_NS: u64 = 60_000_000_000;

/// The client's side of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Who {
    /// Cgroup of the client's socket.
    pub cgroup_id: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// Who opened the connection.
    pub process: Option<NamedProcess>,
    /// Parent, its parent, and so on.
    pub ancestors: Vec<NamedProcess>,
    /// The process is the sender seen at the packet.
    pub sender_only: bool,
    /// Addresses and ports; the remote one is the service.
    pub ends: Ends,
    /// Which service.
    pub service: Service,
}

/// Direction of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    Request,
    /// To the client.
    Answer,
}

/// Circumstances of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When it was seen.
    pub time: BootNs,
    /// Its IP time to live or hop limit.
    pub ttl: u8,
}

/// Payload of one packet. Holds secrets: not `Debug`.
pub struct Segment<'a> {
    /// Whose.
    pub who: Who,
    /// Which direction.
    pub way: Way,
    /// TCP sequence number of the first payload byte.
    pub seq: u32,
    /// Payload bytes of the packet.
    pub payload_len: u32,
    /// The first of them.
    pub payload: &'a [u8],
    /// When, and with which time to live.
    pub stamp: Stamp,
}

/// A connection ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionEnd {
    /// Whose.
    pub who: Who,
    /// When.
    pub time: BootNs,
    /// When the SYN was sent; `None` for a connection that is older than the probes.
    pub start: Option<BootNs>,
    /// The handshake completed.
    pub established: bool,
    /// How it ended.
    pub outcome: Outcome,
}

/// All connections to metadata services.
#[derive(Default)]
pub struct Tracker {
    connections: BTreeMap<u64, Connection>,
    held_bytes: usize,
    evicted: u64,
    /// Of the record that is taken in.
    place: Option<Place>,
    /// What an earlier run told.
    resumed: Resume,
}

// === impl Tracker ===

impl Tracker {
    /// Takes the payload of one packet.
    pub fn segment(&mut self, segment: &Segment<'_>, inputs: &mut Vec<Input>) {
        let now = segment.stamp.time;
        self.change(segment.who.clone(), now, inputs, |connection, inputs| {
            connection.segment(segment, inputs);
            false
        });
    }

    /// Takes the end of a connection.
    pub fn end(&mut self, end: ConnectionEnd, inputs: &mut Vec<Input>) {
        let cookie = end.who.cookie;
        // A connection of before may have been told whole; that it carried nothing cannot be said.
        let is_older = end.start.is_some_and(|start| start < self.resumed.since);
        self.change(end.who.clone(), end.time, inputs, |connection, inputs| {
            if is_older && end.established {
                connection.goes_on();
            }
            connection.end(end, inputs)
        });
        // A later connection of the same socket is another one.
        self.resumed.told.remove(&cookie);
    }

    /// Goes on where an earlier run ended.
    pub fn resume(&mut self, from: Resume) {
        self.resumed = from;
    }

    /// Where the next record stands in its ring, for rings that outlive the agent.
    pub fn at(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// The places so far are of a ring that is no more.
    pub fn forget_places(&mut self) {
        self.place = None;
        self.resumed.told.clear();
        for connection in self.connections.values_mut() {
            connection.since = None;
        }
    }

    /// The first record of which not all is told yet; `None` when all is.
    pub fn untold(&self) -> Option<Place> {
        self.connections.values().filter_map(|connection| connection.since).min()
    }

    /// Ends what waited long enough.
    pub fn tick(&mut self, now: BootNs, inputs: &mut Vec<Input>) {
        self.connections.retain(|_, connection| {
            let first = inputs.len();
            let is_over = connection.tick(now, inputs);
            settle(connection, inputs.get_mut(first..));
            !is_over
        });
        self.held_bytes = self.connections.values().map(Connection::held_bytes).sum();
    }

    /// Puts out all that is held and forgets every connection.
    pub fn finish(&mut self, now: BootNs, inputs: &mut Vec<Input>) {
        for (_, mut connection) in std::mem::take(&mut self.connections) {
            let first = inputs.len();
            connection.stop(now, inputs);
            settle(&mut connection, inputs.get_mut(first..));
        }
        self.held_bytes = 0;
    }

    /// Connections given up because there were too many.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Changes the connection of `who`, which is made if need be and goes when `change` says so.
    fn change(
        &mut self,
        who: Who,
        now: BootNs,
        inputs: &mut Vec<Input>,
        change: impl FnOnce(&mut Connection, &mut Vec<Input>) -> bool,
    ) {
        let cookie = who.cookie;
        let told = self.resumed.told.get(&cookie).copied();
        if told.zip(self.place).is_some_and(|(told, place)| place.position <= told) {
            return;
        }
        if let Some(connection) = self.connections.get_mut(&cookie)
            && connection.is_another(&who, now)
        {
            let first = inputs.len();
            connection.close(now, inputs);
            connection.stamp(inputs.get_mut(first..).unwrap_or_default());
            self.remove(cookie);
        }
        if !self.connections.contains_key(&cookie) && self.connections.len() >= MAX_CONNECTIONS {
            self.evict(now, inputs);
        }
        let connection = self.connections.entry(cookie).or_insert_with(|| {
            let mut connection = Connection::new(who.clone(), now);
            if told.is_some() {
                connection.goes_on();
            }
            connection
        });
        connection.learn(who, now);
        connection.since = connection.since.or(self.place);
        connection.last_place = self.place;
        let before = connection.held_bytes();
        let first = inputs.len();
        let is_over = change(connection, inputs);
        settle(connection, inputs.get_mut(first..));
        self.held_bytes = self.held_bytes.saturating_sub(before).saturating_add(connection.held_bytes());
        if is_over {
            self.remove(cookie);
        }
        while self.held_bytes > TOTAL_HELD_BYTES && self.evict(now, inputs) {}
    }

    fn remove(&mut self, cookie: u64) -> Option<Connection> {
        let connection = self.connections.remove(&cookie)?;
        self.held_bytes = self.held_bytes.saturating_sub(connection.held_bytes());
        Some(connection)
    }

    /// Gives up the connection that was silent longest, among those of the cgroup that has most of them (or holds most
    /// bytes): a flood by one pod costs that pod's records first. Costs a walk of [`MAX_CONNECTIONS`], at the limit only.
    fn evict(&mut self, now: BootNs, inputs: &mut Vec<Input>) -> bool {
        let by_bytes = self.held_bytes > TOTAL_HELD_BYTES;
        let weight = |connection: &Connection| if by_bytes { connection.held_bytes() } else { 1 };
        let mut weights: HashMap<u64, usize> = HashMap::new();
        for connection in self.connections.values() {
            *weights.entry(connection.cgroup_id()).or_default() += weight(connection);
        }
        let victim = self
            .connections
            .iter()
            .filter(|(_, connection)| weight(connection) > 0)
            .max_by_key(|(_, connection)| {
                (weights.get(&connection.cgroup_id()).copied(), std::cmp::Reverse(connection.last()))
            })
            .map(|(&cookie, _)| cookie);
        let Some(mut connection) = victim.and_then(|cookie| self.remove(cookie)) else { return false };
        let first = inputs.len();
        connection.give_up(now, inputs);
        connection.stamp(inputs.get_mut(first..).unwrap_or_default());
        self.evicted += 1;
        true
    }
}

/// After a change: says of what was told where it began, and forgets the place once nothing is left to tell.
fn settle(connection: &mut Connection, told: Option<&mut [Input]>) {
    connection.stamp(told.unwrap_or_default());
    if connection.is_quiet() {
        connection.since = None;
    }
}
