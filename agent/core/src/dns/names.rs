//! Which name an address was learned by, for each pod.
//!
//! A claim says: this pod asked for this name, and was told this address at this moment, for so long. A connection has the
//! name whose claim stood when it began, so that a name which moves to another address changes nothing of the past. It has
//! none when two names claim the address at that moment: behind a load balancer or a CDN many names share one address, and
//! the latest asked would often be right and sometimes be the name of another thread's connection. Whoever reads the rows
//! after an incident cannot tell the two, so none is told; the queries themselves show neither.
//!
//! Programs keep addresses for longer than they may (a JVM, a pool of connections), so a claim stands for a while beyond its
//! time to live. It then still has the right of every other claim: a name is given only if nothing speaks for another. Where
//! claims of a pod were given up for want of room, one of them might: the pod's connections have no names until those would
//! have ended.

use std::net::IpAddr;
use std::sync::Arc;

use super::Asker;
use crate::fast::FastMap;
use crate::time::BootNs;

/// Most claims, at about 130 bytes with their share of the tables and a name of 40 bytes: 2 MiB; 6 MiB if every name is as
/// long as a name may be.
pub const MAX_CLAIMS: usize = 16_384;
/// Most claims of one pod: a quarter of all. A pod that wants more loses its own.
pub const MAX_CLAIMS_OF_ONE: usize = MAX_CLAIMS / 4;
/// Most names that are told apart for one address of a pod. From two on none is given, so that more would tell nothing.
const MAX_NAMES_OF_ADDRESS: usize = 4;
/// How long a claim stands beyond its time to live: five minutes, as long as programs commonly keep what they resolved.
pub const GRACE_NS: u64 = 300_000_000_000;
/// How long it is kept beyond that: connections are told with their first fold at the latest, so 10 s would do.
const LINGER_NS: u64 = 60_000_000_000;
/// The longest time to live that is believed: a day.
const MAX_TTL_S: u32 = 86_400;
/// Open connections whose name is decided, in each of two generations: 32,768 of about 70 bytes are 2.3 MiB. A connection
/// that is heard of keeps its name as long as no more than this many others are heard of in between.
pub const MAX_DECIDED: usize = 32_768;

/// A connection, as a record tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Cgroup of the socket.
    pub cgroup_id: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// The peer.
    pub remote: IpAddr,
    /// When it began.
    pub start: BootNs,
    /// It goes on.
    pub open: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Names {
    askers: FastMap<Asker, Learned>,
    claims: usize,
    let_go: u64,
    decided: [FastMap<(u64, IpAddr), Decided>; 2],
}

/// What a pod learned.
#[derive(Debug, Default)]
struct Learned {
    by_address: FastMap<IpAddr, Claims>,
    claims: usize,
    /// Until then some claim would stand that was given up for want of room, of whatever address.
    given_up_until: BootNs,
}

/// The names of an address: nearly always one.
#[derive(Debug)]
struct Claims {
    first: Claim,
    more: Vec<Claim>,
}

#[derive(Debug)]
struct Claim {
    name: Arc<str>,
    from: BootNs,
    /// The last moment of its time to live.
    until: BootNs,
}

/// What was said of an open connection, and is said until its end.
#[derive(Clone, Debug)]
struct Decided {
    start: BootNs,
    name: Option<Arc<str>>,
}

// === impl Names ===

impl Names {
    /// `asker` was told that `name` has the address `ip` for `ttl_s` seconds.
    pub fn learn(&mut self, asker: &Asker, ip: IpAddr, name: &Arc<str>, now: BootNs, ttl_s: u32) {
        let until = BootNs(now.0.saturating_add(u64::from(ttl_s.min(MAX_TTL_S)) * 1_000_000_000));
        if let Some(claims) = self.askers.get_mut(asker).and_then(|learned| learned.by_address.get_mut(&ip)) {
            if let Some(known) = claims.iter_mut().find(|claim| claim.name == *name) {
                if !known.stands_at(now) {
                    known.from = now;
                }
                known.until = known.until.max(until);
                return;
            }
            if claims.more.len() + 1 >= MAX_NAMES_OF_ADDRESS {
                if let Some(oldest) = claims.iter_mut().min_by_key(|claim| claim.until) {
                    *oldest = Claim { name: Arc::clone(name), from: now, until };
                }
                self.let_go += 1;
                return;
            }
        }
        self.make_room(asker);
        let learned = self.askers.entry(asker.clone()).or_default();
        let claim = Claim { name: Arc::clone(name), from: now, until };
        match learned.by_address.entry(ip) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut().more.push(claim),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Claims { first: claim, more: Vec::new() });
            }
        }
        learned.claims += 1;
        self.claims += 1;
    }

    /// The one name that the peer of a connection was known by when it began.
    pub fn name_of(&mut self, asker: &Asker, connection: &Connection) -> Option<Arc<str>> {
        let Connection { cookie, remote, start, open, .. } = *connection;
        let mark = (cookie, remote);
        let [young, old] = &mut self.decided;
        let before = young.remove(&mark).or_else(|| old.remove(&mark)).filter(|decided| decided.start == start);
        let decided = match before {
            Some(decided) => decided,
            None => self.decide(asker, remote, start)?,
        };
        let name = decided.name.clone();
        if open {
            let [young, old] = &mut self.decided;
            if young.len() >= MAX_DECIDED {
                *old = std::mem::take(young);
            }
            young.insert(mark, decided);
        }
        name
    }

    /// Claims that are held.
    pub fn len(&self) -> usize {
        self.claims
    }

    /// Nothing was learned, and nothing decided.
    pub fn is_empty(&self) -> bool {
        self.claims == 0 && self.decided.iter().all(FastMap::is_empty)
    }

    /// Claims given up for want of room since the start.
    pub fn let_go(&self) -> u64 {
        self.let_go
    }

    /// Bytes of all names that are held, each claim counted with its own.
    pub fn name_bytes(&self) -> usize {
        let claims = self.askers.values().flat_map(|learned| learned.by_address.values()).flat_map(Claims::iter);
        claims.map(|claim| claim.name.len()).sum()
    }

    /// Open connections whose name is decided.
    pub fn decided_len(&self) -> usize {
        self.decided.iter().map(FastMap::len).sum()
    }

    /// Forgets what is over.
    pub fn sweep(&mut self, now: BootNs) {
        let oldest = BootNs(now.0.saturating_sub(LINGER_NS));
        self.retain(|_, claim| claim.stands_at(oldest) || claim.from > oldest);
        self.askers.retain(|_, learned| learned.claims > 0 || stands(learned.given_up_until, oldest));
    }

    /// What stood when a connection began; `None` when nothing did. Of more than one name none is told.
    fn decide(&self, asker: &Asker, ip: IpAddr, start: BootNs) -> Option<Decided> {
        let learned = self.askers.get(asker)?;
        if stands(learned.given_up_until, start) {
            return Some(Decided { start, name: None });
        }
        let claims = learned.by_address.get(&ip)?;
        let mut standing = claims.iter().filter(|claim| claim.stands_at(start));
        let name = &standing.next()?.name;
        Some(Decided { start, name: standing.next().is_none().then(|| Arc::clone(name)) })
    }

    /// Before a new claim: a pod with its full share gives up the half of it that ends first; when all room is taken, whoever
    /// has most does.
    fn make_room(&mut self, asker: &Asker) {
        let own = self.askers.get(asker).map_or(0, |learned| learned.claims);
        if own >= MAX_CLAIMS_OF_ONE {
            return self.halve(&asker.clone());
        }
        if self.claims >= MAX_CLAIMS
            && let Some(most) =
                self.askers.iter().max_by_key(|(_, learned)| learned.claims).map(|(asker, _)| asker.clone())
        {
            self.halve(&most);
        }
    }

    fn halve(&mut self, asker: &Asker) {
        let Some(learned) = self.askers.get(asker) else { return };
        let mut ends: Vec<_> = learned.by_address.values().flat_map(Claims::iter).map(Claim::rank).collect();
        let middle = ends.len() / 2;
        let (_, middle, _) = ends.select_nth_unstable(middle);
        let middle = *middle;
        if let Some(learned) = self.askers.get_mut(asker) {
            // They go in the order of their ends.
            learned.given_up_until = learned.given_up_until.max(middle.0);
        }
        let before = self.claims;
        self.retain(|whose, claim| whose != asker || claim.rank() > middle);
        self.let_go += (before - self.claims) as u64;
    }

    fn retain(&mut self, keep: impl Fn(&Asker, &Claim) -> bool) {
        let mut all = 0;
        self.askers.retain(|asker, learned| {
            learned.claims = 0;
            learned.by_address.retain(|_, claims| {
                claims.more.retain(|claim| keep(asker, claim));
                if !keep(asker, &claims.first) {
                    match claims.more.pop() {
                        Some(claim) => claims.first = claim,
                        None => return false,
                    }
                }
                learned.claims += 1 + claims.more.len();
                true
            });
            all += learned.claims;
            // A pod that asked for much once does not keep the room for it.
            if learned.by_address.capacity() > 4 * learned.by_address.len() {
                learned.by_address.shrink_to_fit();
            }
            learned.claims > 0 || learned.given_up_until > BootNs(0)
        });
        self.claims = all;
    }
}

// === impl Claims ===

impl Claims {
    fn iter(&self) -> impl Iterator<Item = &Claim> {
        std::iter::once(&self.first).chain(&self.more)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Claim> {
        std::iter::once(&mut self.first).chain(&mut self.more)
    }
}

// === impl Claim ===

impl Claim {
    fn stands_at(&self, moment: BootNs) -> bool {
        self.from <= moment && stands(self.until, moment)
    }

    /// Those that end first go first; of equals those that were learned first.
    fn rank(&self) -> (BootNs, BootNs) {
        (self.until, self.from)
    }
}

/// Whether what lives until then still stands.
fn stands(until: BootNs, moment: BootNs) -> bool {
    until > BootNs(0) && moment.0 <= until.0.saturating_add(GRACE_NS)
}
