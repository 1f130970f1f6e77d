//! Connections that a pod's own network turns to a proxy beside the application, as the rules of Istio and Linkerd do: the
//! application asks for a service, and the kernel makes it the proxy's listening socket on loopback. The application's own
//! socket never learns of it: its row has the address that it asked for.
//!
//! Both ends are seen. The proxy's accepted socket has a loopback address, and as its peer an address that is none, which
//! only a translation makes; that address and port are those of the application's socket, in the same network namespace. A
//! connection has one who accepts it: the socket with these ends that was accepted within a moment of its beginning. When
//! two fit, nothing is told; nor when another socket of that address and port was there in that moment, which may have been
//! accepted instead: a program could have one of its own accepted so that another one seems to stay in the pod.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use agent_ebpf::wire::Direction;

use crate::fast::{FastMap, FastSet};
use crate::input::{Ends, TcpFact};
use crate::time::BootNs;

/// How long after its beginning a connection is accepted: on one machine that takes well below a millisecond, and longer only
/// where the proxy's backlog was full, for a second or more.
const ACCEPTED_NS: u64 = 100_000_000;
/// Folds that an end is remembered for: the two ends are told up to a fold apart.
const REMEMBER_FOLDS: u64 = 3;
/// Folds without any after which a network namespace is not looked at any more: ten minutes.
const WATCH_FOLDS: u64 = 60;
/// Most ends remembered, of each side, at about 100 bytes: 6 MiB for both. What is beyond is not told.
const MAX_ENDS: usize = 32_768;
/// Most connections of the rows of one fold, at about 60 bytes with the room of the tables: 1 MiB. Rows with more are not
/// told.
pub(super) const MAX_REDIRECTED: usize = 16_384;
/// Most network namespaces: one a pod on the largest nodes, and as many that are gone.
const MAX_NAMESPACES: usize = 1_024;

/// The calling end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Caller {
    netns: u32,
    at: SocketAddr,
    start: BootNs,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    /// By the address that a proxy accepted from, and when: where it listens.
    accepted: BTreeMap<Caller, Accepted>,
    /// Sockets that called.
    called: BTreeMap<Caller, Called>,
    /// Network namespaces in which proxies accept such connections, and the last fold in which one did.
    namespaces: FastMap<u32, u64>,
    fold: u64,
}

#[derive(Clone, Copy, Debug)]
struct Accepted {
    proxy: SocketAddr,
    fold: u64,
}

#[derive(Clone, Copy, Debug)]
struct Called {
    cookie: u64,
    /// `None`: not as far as was told.
    ended: Option<BootNs>,
    fold: u64,
}

/// The connections of a row, in a network namespace where some are redirected.
#[derive(Clone, Debug, Default)]
pub(super) struct Redirected {
    callers: FastSet<Caller>,
    /// Records that they stand for.
    records: u64,
}

// === impl Redirects ===

impl Redirects {
    /// Begins a fold: forgets what was not seen lately.
    pub(super) fn begin(&mut self) {
        self.fold += 1;
        let oldest = |folds: u64| self.fold.saturating_sub(folds);
        let (ends, namespaces) = (oldest(REMEMBER_FOLDS), oldest(WATCH_FOLDS));
        self.accepted.retain(|_, seen| seen.fold >= ends);
        self.called.retain(|_, seen| seen.fold >= ends);
        self.namespaces.retain(|_, fold| *fold >= namespaces);
    }

    /// Takes a record in; the caller of a connection that may have been redirected.
    pub(super) fn note(&mut self, fact: &TcpFact) -> Option<Caller> {
        let start = fact.start?;
        let Ends { netns, local, remote, local_port, remote_port, .. } = fact.ends;
        let (local, remote) = (SocketAddr::new(local, local_port), SocketAddr::new(remote, remote_port));
        let fold = self.fold;
        match fact.direction {
            Direction::Inbound if local.ip().is_loopback() && !remote.ip().is_loopback() => {
                if self.namespaces.len() < MAX_NAMESPACES || self.namespaces.contains_key(&netns) {
                    self.namespaces.insert(netns, fold);
                    put(&mut self.accepted, Caller { netns, at: remote, start }, || Accepted { proxy: local, fold })?
                        .fold = fold;
                }
                None
            }
            Direction::Outbound if !local.ip().is_loopback() && self.namespaces.contains_key(&netns) => {
                let caller = Caller { netns, at: local, start };
                let new = || Called { cookie: fact.cookie, ended: None, fold };
                let called = put(&mut self.called, caller, new)?;
                called.fold = fold;
                called.ended = called.ended.or((!fact.open).then_some(fact.time));
                (called.cookie == fact.cookie && !remote.ip().is_loopback()).then_some(caller)
            }
            _ => None,
        }
    }

    /// Who accepted all connections of a row of so many records, where that is one listening socket, and certain.
    pub(super) fn proxy_of(&self, row: &Redirected, records: u64) -> Option<SocketAddr> {
        if row.records != records {
            return None;
        }
        let mut all = None;
        for caller in &row.callers {
            let proxy = self.proxy(caller)?;
            if *all.get_or_insert(proxy) != proxy {
                return None;
            }
        }
        all
    }

    fn proxy(&self, caller: &Caller) -> Option<SocketAddr> {
        let until = Caller { start: BootNs(caller.start.0.saturating_add(ACCEPTED_NS)), ..*caller };
        let mut fitting = self.accepted.range(*caller..=until);
        let (at, accepted) = fitting.next().filter(|_| fitting.next().is_none())?;
        let all = self.called.range(Caller { start: BootNs(0), ..*at }..=*at);
        let there = all.filter(|(_, called)| called.ended.is_none_or(|ended| ended >= caller.start));
        (there.count() == 1).then_some(accepted.proxy)
    }
}

/// The entry of an end, a new one if there was none; `None`: there is no room.
fn put<T>(ends: &mut BTreeMap<Caller, T>, caller: Caller, new: impl FnOnce() -> T) -> Option<&mut T> {
    let has_room = ends.len() < MAX_ENDS;
    match ends.entry(caller) {
        Entry::Occupied(entry) => Some(entry.into_mut()),
        Entry::Vacant(entry) => has_room.then(|| entry.insert(new())),
    }
}

// === impl Redirected ===

impl Redirected {
    /// Notes the record of a connection; `room` is what may still be kept of all rows together.
    pub(super) fn note(&mut self, caller: Caller, room: &mut usize) {
        if !self.callers.contains(&caller) {
            if *room == 0 {
                return;
            }
            *room -= 1;
            self.callers.insert(caller);
        }
        self.records += 1;
    }

    /// Takes in those of another row.
    pub(super) fn absorb(&mut self, more: Self) {
        self.callers.extend(more.callers);
        self.records += more.records;
    }
}
