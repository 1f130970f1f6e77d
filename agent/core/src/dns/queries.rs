//! How queries fare: each is paired with its answer by socket and id, as the client does it, and counted once.
//!
//! A query that is sent again on the same socket under the same id and name (to the next server, or because no answer came)
//! is the same query. One without an answer within [`ANSWER_NS`] is unanswered; but only if no record of its cgroup was lost
//! meanwhile, for then the answer may have come unseen, and nobody can tell.

use std::collections::VecDeque;
use std::sync::Arc;

use agent_ebpf::shared::OVERFLOW_ACCOUNT;

use super::{DnsAnswer, DnsCode, DnsFact, DnsMessage};
use crate::fast::FastMap;
use crate::input::KernelTotals;
use crate::time::BootNs;

/// How long an answer is waited for: resolvers of programs wait five seconds before they ask again.
pub const ANSWER_NS: u64 = 5_000_000_000;
/// Most queries that wait, at about 150 bytes with a name of 40: 2.4 MiB. They wait for up to ten seconds: five, and until
/// the next reading of the kernel's counters. Of what comes beyond it is not known how it went.
pub const MAX_WAITING: usize = 16_384;
/// Most of them of one cgroup, so that one that asks a server which is silent leaves room for the others.
pub const MAX_WAITING_OF_ONE: u32 = 4_096;
/// Most cgroups with counts that nobody took yet, or with names that were not found lately: 4,096 of 64 bytes, and of up to
/// 16 names each.
const MAX_CGROUPS: usize = 4_096;
/// Names not found lately that are kept of a cgroup: a search list of six, for two types, and some to spare.
const MAX_NOT_FOUND: usize = 16;
/// A name was tried in vain for the sake of a search list when the name itself is found within this time.
const SEARCH_NS: u64 = 5_000_000_000;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident, $name:literal;)*) => {
        /// What came of a query: a closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Outcome { $($(#[$doc])* $variant,)* }

        impl Outcome {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Value of the label `outcome`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

outcomes! {
    /// NOERROR, with records or with none of the type.
    Answered, "answered";
    /// There is no such name.
    NxDomain, "nxdomain";
    /// The server could not find out.
    ServFail, "servfail";
    /// Another error, as REFUSED.
    Error, "error";
    /// Cut to fit a datagram; the client asks again by TCP, which is not seen.
    Truncated, "truncated";
    /// No answer within five seconds.
    Unanswered, "unanswered";
    /// Cannot tell: records were lost, or too many queries waited.
    Unknown, "unknown";
}

/// What was counted of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Queries by [`Outcome`].
    pub queries: [u64; Outcome::ALL.len()],
    /// Queries for a name with a domain of the search list behind it, which does not exist, before the name itself was
    /// found: what `ndots` costs.
    pub search_waste: u64,
}

/// Counts of the node since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that are no query with one question and no answer to one.
    pub unreadable: u64,
    /// Answers that no query waited for: late, a second server's, or forged. They name nothing.
    pub unmatched: u64,
    /// Claims of names given up for want of room.
    pub names_let_go: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Queries {
    waiting: FastMap<Mark, Waiting>,
    waiting_of: FastMap<u64, u32>,
    tallies: FastMap<u64, Tally>,
    not_found: FastMap<u64, VecDeque<(BootNs, Arc<str>)>>,
    /// By cgroup, records that were not written as of the last totals, and when they were seen to grow.
    losses: FastMap<u64, (u64, Option<BootNs>)>,
    /// When the latest query was sent: the caller's clock moves by ticks, and may stand before it.
    latest: BootNs,
    unmatched: u64,
}

/// Socket and id.
type Mark = (u64, u16);

#[derive(Debug)]
struct Waiting {
    asked: BootNs,
    cgroup_id: u64,
    name: Arc<str>,
    record_type: u16,
}

// === impl Queries ===

impl Queries {
    /// A query was sent.
    pub fn asked(&mut self, fact: &DnsFact, message: &DnsMessage) {
        self.latest = self.latest.max(fact.time);
        let mark = (fact.cookie, message.id);
        if let Some(before) = self.waiting.get(&mark) {
            if before.name == message.name && before.record_type == message.record_type {
                return;
            }
            // The client has given the id away: it waits no longer, and nobody knows why.
            self.end(mark, Outcome::Unknown);
        }
        let of_one = self.waiting_of.get(&fact.cgroup_id).copied().unwrap_or(0);
        if self.waiting.len() >= MAX_WAITING || of_one >= MAX_WAITING_OF_ONE {
            return self.count(fact.cgroup_id, Outcome::Unknown);
        }
        let waiting = Waiting {
            asked: fact.time,
            cgroup_id: fact.cgroup_id,
            name: Arc::clone(&message.name),
            record_type: message.record_type,
        };
        self.waiting.insert(mark, waiting);
        *self.waiting_of.entry(fact.cgroup_id).or_default() += 1;
    }

    /// An answer came; whether a query waited for it.
    pub fn answered(&mut self, fact: &DnsFact, message: &DnsMessage, answer: &DnsAnswer) -> bool {
        let mark = (fact.cookie, message.id);
        let waiting = self
            .waiting
            .get(&mark)
            .filter(|waiting| waiting.name == message.name && waiting.record_type == message.record_type);
        let Some(waiting) = waiting else {
            self.unmatched += 1;
            return false;
        };
        let outcome = match answer.code {
            _ if fact.time.since(waiting.asked) > ANSWER_NS => Outcome::Unanswered,
            _ if answer.truncated => Outcome::Truncated,
            DnsCode::NoError => Outcome::Answered,
            DnsCode::NxDomain => Outcome::NxDomain,
            DnsCode::ServFail => Outcome::ServFail,
            DnsCode::Other => Outcome::Error,
        };
        let cgroup_id = waiting.cgroup_id;
        self.end(mark, outcome);
        match outcome {
            Outcome::NxDomain => self.note_not_found(cgroup_id, fact.time, &message.name),
            Outcome::Answered if answer.records > 0 => self.count_search_waste(cgroup_id, fact.time, &message.name),
            _ => {}
        }
        true
    }

    /// The kernel's counters as of `now`. All records written before it were taken in.
    pub fn totals(&mut self, totals: &KernelTotals, now: BootNs) {
        let now = now.max(self.latest);
        for (cgroup_id, account) in &totals.accounts {
            let lost = account.dns_over_budget.saturating_add(account.dns_ring_full);
            if let Some((before, at)) = self.losses.get_mut(cgroup_id) {
                if lost != *before {
                    (*before, *at) = (lost, Some(now));
                }
            } else if lost > 0 {
                self.losses.insert(*cgroup_id, (lost, Some(now)));
            }
        }
        // As many as the kernel has accounts, and those of cgroups that are gone for as long as they may matter.
        let told: crate::fast::FastSet<u64> = totals.accounts.iter().map(|(cgroup_id, _)| *cgroup_id).collect();
        self.losses.retain(|cgroup_id, (_, at)| {
            told.contains(cgroup_id) || at.is_some_and(|at| now.since(at) <= 4 * ANSWER_NS)
        });
        let over: Vec<Mark> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| now.since(waiting.asked) >= ANSWER_NS)
            .map(|(mark, _)| *mark)
            .collect();
        for mark in over {
            let Some(waiting) = self.waiting.get(&mark) else { continue };
            let is_doubtful = [waiting.cgroup_id, OVERFLOW_ACCOUNT]
                .iter()
                .any(|cgroup| self.losses.get(cgroup).is_some_and(|(_, at)| at.is_some_and(|at| at >= waiting.asked)));
            self.end(mark, if is_doubtful { Outcome::Unknown } else { Outcome::Unanswered });
        }
        self.not_found.retain(|_, names| names.back().is_some_and(|(at, _)| now.since(*at) <= SEARCH_NS));
    }

    /// What was counted since the last call, by cgroup.
    pub fn take(&mut self) -> Vec<(u64, Tally)> {
        std::mem::take(&mut self.tallies).into_iter().collect()
    }

    /// Counts of the node; those that others keep are zero.
    pub fn counts(&self) -> Counts {
        Counts { unmatched: self.unmatched, ..Counts::default() }
    }

    /// Queries that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn end(&mut self, mark: Mark, outcome: Outcome) {
        let Some(waiting) = self.waiting.remove(&mark) else { return };
        if let Some(of_one) = self.waiting_of.get_mut(&waiting.cgroup_id) {
            *of_one = of_one.saturating_sub(1);
            if *of_one == 0 {
                self.waiting_of.remove(&waiting.cgroup_id);
            }
        }
        self.count(waiting.cgroup_id, outcome);
    }

    fn count(&mut self, cgroup_id: u64, outcome: Outcome) {
        if let Some(count) = self.tally(cgroup_id).queries.get_mut(outcome as usize) {
            *count += 1;
        }
    }

    /// The counts of a cgroup; those of nobody's when there are too many.
    fn tally(&mut self, cgroup_id: u64) -> &mut Tally {
        let has_room = self.tallies.len() < MAX_CGROUPS || self.tallies.contains_key(&cgroup_id);
        self.tallies.entry(if has_room { cgroup_id } else { OVERFLOW_ACCOUNT }).or_default()
    }

    fn note_not_found(&mut self, cgroup_id: u64, now: BootNs, name: &Arc<str>) {
        if self.not_found.len() >= MAX_CGROUPS && !self.not_found.contains_key(&cgroup_id) {
            return;
        }
        let names = self.not_found.entry(cgroup_id).or_default();
        if names.len() >= MAX_NOT_FOUND {
            names.pop_front();
        }
        names.push_back((now, Arc::clone(name)));
    }

    /// A name was found: those tried before it that are this name and a domain behind it were tried in vain.
    fn count_search_waste(&mut self, cgroup_id: u64, now: BootNs, found: &str) {
        let Some(names) = self.not_found.get_mut(&cgroup_id) else { return };
        names.retain(|(at, _)| now.since(*at) <= SEARCH_NS);
        let before = names.len();
        names.retain(|(_, name)| !name.strip_prefix(found).is_some_and(|rest| rest.starts_with('.')));
        let wasted = before - names.len();
        if wasted > 0 {
            self.tally(cgroup_id).search_waste += wasted as u64;
        }
    }
}

// === impl Tally ===

impl Tally {
    /// Adds another's counts.
    pub fn add(&mut self, more: Self) {
        for (count, more) in self.queries.iter_mut().zip(more.queries) {
            *count = count.saturating_add(more);
        }
        self.search_waste = self.search_waste.saturating_add(more.search_waste);
    }

    /// Queries with one outcome.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.queries.get(outcome as usize).copied().unwrap_or(0)
    }
}
