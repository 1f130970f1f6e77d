//! Peers named from their own side: when both ends of a connection are on this node, each end's row tells who the other
//! is.
//!
//! Two rows mirror each other when they have the same protocol and service port, and each has the other's addresses. A
//! name is given only if all rows that could be the other end have the same one.

use std::net::IpAddr;
use std::sync::Arc;

use agent_ebpf::wire::Direction;

use super::rows::Key;
use crate::fast::FastMap;
use crate::output::{AttributionKind, Identity, Protocol};

/// Most pairs remembered, at about 200 bytes: 3 MiB. Beyond it peers stay unnamed.
const MAX_MIRRORS: usize = 16_384;
/// Folds that a pair is remembered for after it was last seen: the two ends report a long connection at times of their
/// own, up to ten seconds apart.
const REMEMBER_FOLDS: u64 = 3;

/// Pairs of addresses seen lately, and who is at either end.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    pairs: FastMap<Pair, Ends>,
    fold: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pair {
    protocol: Protocol,
    client: IpAddr,
    server: IpAddr,
    service_port: u16,
    /// Loopback addresses mean something within one network namespace only.
    netns: u32,
}

#[derive(Debug, Default)]
struct Ends {
    client: End,
    server: End,
    fold: u64,
}

/// Who was at an end in the latest fold that saw it.
#[derive(Debug, Default)]
struct End {
    who: Whose,
    fold: u64,
}

#[derive(Debug, Default)]
enum Whose {
    #[default]
    NotSeen,
    Certain(Arc<Identity>),
    Ambiguous,
}

impl Mirrors {
    /// Begins a fold: forgets pairs not seen lately.
    pub(super) fn begin(&mut self) {
        self.fold += 1;
        let oldest = self.fold.saturating_sub(REMEMBER_FOLDS);
        self.pairs.retain(|_, ends| ends.fold >= oldest);
    }

    /// Notes who is at this end of a row.
    pub(super) fn note(&mut self, key: &Key, identity: &Arc<Identity>) {
        let Some(pair) = pair(key) else { return };
        if self.pairs.len() >= MAX_MIRRORS && !self.pairs.contains_key(&pair) {
            return;
        }
        let ends = self.pairs.entry(pair).or_default();
        ends.fold = self.fold;
        match key.direction {
            Direction::Outbound => ends.client.note(identity, self.fold),
            Direction::Inbound => ends.server.note(identity, self.fold),
            Direction::Unknown => {}
        }
    }

    /// Who is at the other end of a row, if that is certain.
    pub(super) fn other_end(&self, key: &Key) -> Option<&Arc<Identity>> {
        let ends = self.pairs.get(&pair(key)?)?;
        let end = match key.direction {
            Direction::Outbound => &ends.server,
            Direction::Inbound => &ends.client,
            Direction::Unknown => return None,
        };
        match &end.who {
            // An end that has fallen silent may be another's by now, however much this one talks.
            Whose::Certain(identity) if self.fold.saturating_sub(end.fold) <= REMEMBER_FOLDS => Some(identity),
            Whose::Certain(_) | Whose::NotSeen | Whose::Ambiguous => None,
        }
    }
}

impl End {
    fn note(&mut self, identity: &Arc<Identity>, fold: u64) {
        let certain = match &self.who {
            Whose::Certain(known) => Arc::ptr_eq(known, identity) || same_name(known, identity),
            Whose::NotSeen => true,
            // Names come late: what was ambiguous gets a chance in every fold.
            Whose::Ambiguous => self.fold != fold,
        };
        self.fold = fold;
        self.who = if certain && identity.attribution != AttributionKind::Unknown {
            Whose::Certain(Arc::clone(identity))
        } else {
            Whose::Ambiguous
        };
    }
}

/// Whether two identities give a peer the same name: containers of one pod do.
fn same_name(a: &Identity, b: &Identity) -> bool {
    a.attribution == b.attribution && a.uid == b.uid && a.workload == b.workload
}

fn pair(key: &Key) -> Option<Pair> {
    let (local, remote) = (key.local?, key.remote?);
    let (client, server) = match key.direction {
        Direction::Outbound => (local, remote),
        Direction::Inbound => (remote, local),
        Direction::Unknown => return None,
    };
    let netns = if client.is_loopback() || server.is_loopback() { key.netns } else { 0 };
    Some(Pair { protocol: key.protocol?, client, server, service_port: key.service_port?, netns })
}
