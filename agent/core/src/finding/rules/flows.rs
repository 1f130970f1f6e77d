//! Connections of pods whose security groups are in force, and that stay without an answer: to any peer, to DNS, and the
//! kubelet's to them.
//!
//! Security groups drop without a word. So does a peer that is dead, and a network policy. What others on the node get
//! from the same peer, and what this pod got from it before, tells them apart as far as that goes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::attempts::{Tally, attempts, is_other, is_past_groups};
use crate::fast::{FastMap, FastSet};
use crate::output::{ActualPeer, FlowRow, Output, PeerClass};
use crate::papers::enforcement::Mode;
use crate::time::BootNs;

/// Unanswered attempts before it is a finding, and over how long at the least.
pub(in crate::finding) const ATTEMPTS: u64 = 3;
pub(in crate::finding) const OVER_NS: u64 = 30 * 1_000_000_000;
/// What others got from a peer counts for this long.
const OTHERS_NS: u64 = 600 * 1_000_000_000;
/// A peer that leaves more than one attempt in so many of others without an answer is down for them: less is a datagram
/// that was lost.
const LOST_PART: u64 = 10;
/// Attempts farther apart than this are not one run.
const RUN_NS: u64 = 3_600 * 1_000_000_000;
/// Most peers followed of all pods together, at about 300 bytes: 2.4 MiB. Beyond it the ones longest silent go; a pod of
/// which a success was forgotten is not said to have had none.
const MAX_TRIES: usize = 8_192;
/// Most pods of which it is noted that successes were forgotten.
const MAX_FORGOTTEN: usize = crate::cluster::MAX_PODS;

/// Pods with groups in force, by the uid that their cgroups tell, and their mode as far as it is known.
type Enforced = FastMap<Arc<str>, Option<Mode>>;

/// Who tries to reach whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::finding) struct Try {
    /// The pod with groups, by the uid that its cgroups tell.
    pub(in crate::finding) uid: Arc<str>,
    /// The other end; of a probe the pod itself.
    pub(in crate::finding) ip: Arc<str>,
    /// The listening port.
    pub(in crate::finding) port: u16,
    /// What about.
    pub(in crate::finding) about: About,
}

/// What an attempt is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::finding) enum About {
    /// A TCP connection of the pod.
    Flow,
    /// A DNS query of the pod, over UDP or TCP.
    Dns,
    /// A probe of the kubelet to the pod.
    Probe,
}

/// The other end on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::finding) enum Wire {
    /// The one that the pod knows; a service's address, if so it is, whose backend is not known.
    Same {
        /// It is a service's.
        is_service: bool,
    },
    /// The backend behind a service's address.
    Backend(ActualPeer),
}

/// What is known of one pair.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::finding) struct Tries {
    /// Unanswered attempts since the last answer.
    pub(in crate::finding) failures: u64,
    /// Those of the latest fold.
    pub(in crate::finding) new: u64,
    first: BootNs,
    last: BootNs,
    /// Standard mode does not filter the way there.
    is_past_groups: bool,
    /// The other end on the wire, as of the latest attempt.
    wire: Wire,
    /// There was an answer once.
    has_succeeded: bool,
    /// It was told.
    is_told: bool,
}

/// What others got from a peer that somebody with groups fails to reach.
#[derive(Clone, Copy, Debug)]
struct OtherEnd {
    port: u16,
    about: About,
    /// The fold that was noted last, and what it told.
    fold: BootNs,
    tally: Tally,
    /// The last fold before that one in which it answered.
    reached: Option<BootNs>,
    /// The last fold before that one in which it left many without an answer.
    failed: Option<BootNs>,
}

/// A step of a pair.
#[derive(Debug)]
pub(in crate::finding) enum Step {
    /// Unanswered often enough: how often since the last time, and what others get.
    Unanswered {
        /// Who.
        pair: Try,
        /// So often since this was told last.
        times: u64,
        /// So often since the last answer.
        failures: u64,
        /// Since when, nanoseconds.
        over_ns: u64,
        /// In standard mode the groups do not see it: on this node, or out of the VPC by the node's address.
        is_past_groups: bool,
        /// The other end on the wire, as of the latest attempt.
        wire: Wire,
        /// What others get from the same peer.
        others: Others,
    },
    /// It works.
    Works(Try),
}

/// What others on the node, without these groups, get from the same peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::finding) enum Others {
    /// Nobody tried.
    NotKnown,
    /// Answers.
    Reached,
    /// Nothing either.
    Failed,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(in crate::finding) struct Flows {
    tries: BTreeMap<Try, Tries>,
    /// By the peer's address; no more than there are pairs that fail.
    others: FastMap<Arc<str>, Vec<OtherEnd>>,
    /// Pods of which successes were forgotten for want of room, or never told one by one.
    forgotten: VecDeque<Arc<str>>,
    /// Pods of this node, enforced or not, that made flows which a group should have judged.
    unjudged: BTreeSet<Arc<str>>,
    /// Pods not noted, or forgotten again, for want of room, to be counted.
    pub(in crate::finding) refused: u64,
}

impl Flows {
    /// Takes in the rows of a fold. `enforced`: pods with groups in force; `groupless`: pods without any, as far as that
    /// is certain. `pod_of_ip`: the uid of the pod of this node that has an address of its own.
    pub(in crate::finding) fn rows(
        &mut self,
        outputs: &[Output],
        (enforced, groupless): (&Enforced, &FastSet<Arc<str>>),
        pod_of_ip: &dyn Fn(&str) -> Option<Arc<str>>,
        now: BootNs,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        for tries in self.tries.values_mut() {
            tries.new = 0;
        }
        let rows = outputs.iter().filter_map(|output| match output {
            Output::Flow(row) => Some(&**row),
            _ => None,
        });
        for row in rows {
            self.note_unjudged(row);
            let uid: &str = &row.who.identity.uid;
            if hides_success(row)
                && let Some((uid, _)) = enforced.get_key_value(uid)
            {
                self.note_forgotten(Arc::clone(uid));
            }
            // That a proxy in the pod takes a connection says nothing of the peer; what comes of it is told by the proxy's own.
            if row.is_redirected() {
                continue;
            }
            let Some((about, ip, port, tally)) = attempts(row) else { continue };
            let uid = match about {
                About::Probe => pod_of_ip(ip),
                About::Flow | About::Dns => Some(Arc::from(&*row.who.identity.uid)),
            };
            match uid.filter(|uid| enforced.contains_key(uid)) {
                Some(uid) => {
                    let wire = Wire::of(row);
                    let on_node = match wire {
                        Wire::Backend(ActualPeer { ip, .. }) => pod_of_ip(&ip.to_string()).is_some(),
                        Wire::Same { .. } => pod_of_ip(ip).is_some(),
                    };
                    let is_past_groups = about != About::Probe && is_past_groups(row, on_node);
                    let pair = Try { uid, ip: Arc::from(ip), port, about };
                    steps.extend(self.note(pair, tally, (is_past_groups, wire), now));
                }
                // A pod of which it is not known whether it has the same groups is no other.
                None if about != About::Probe && is_other(row, groupless) => {
                    self.note_other(ip, port, about, tally, now);
                }
                None => {}
            }
        }
        steps.extend(self.tell(now));
        steps
    }

    /// Whom pods with groups fail to reach, the latest failure first. Of a probe the peer is the pod itself.
    pub(in crate::finding) fn unanswered_peers(&self) -> Vec<IpAddr> {
        let failing = self.tries.iter().filter(|(pair, tries)| tries.failures > 0 && pair.about != About::Probe);
        let peer = |pair: &Try, tries: &Tries| match tries.wire {
            Wire::Backend(ActualPeer { ip, .. }) => Some(ip),
            Wire::Same { is_service: true } => None,
            Wire::Same { is_service: false } => pair.ip.parse().ok(),
        };
        let mut peers: Vec<_> =
            failing.filter_map(|(pair, tries)| Some((Reverse(tries.last), peer(pair, tries)?))).collect();
        peers.sort_unstable();
        peers.into_iter().map(|(_, ip)| ip).collect()
    }

    /// Whether a success of this pod may have been forgotten.
    pub(in crate::finding) fn has_forgotten(&self, uid: &str) -> bool {
        self.forgotten.iter().any(|known| **known == *uid)
    }

    /// Pods that made flows which a group should have judged.
    pub(in crate::finding) fn unjudged(&self) -> FastSet<Arc<str>> {
        self.unjudged.iter().cloned().collect()
    }

    /// Forgets pods that are gone.
    pub(in crate::finding) fn expire(&mut self, is_alive: &dyn Fn(&str) -> bool) {
        self.tries.retain(|pair, _| is_alive(&pair.uid));
        let failing: BTreeSet<_> = self
            .tries
            .iter()
            .filter(|(_, tries)| tries.failures > 0)
            .map(|(pair, _)| (Arc::clone(&pair.ip), pair.port, pair.about))
            .collect();
        self.others.retain(|ip, ends| {
            ends.retain(|end| failing.contains(&(Arc::clone(ip), end.port, end.about)));
            !ends.is_empty()
        });
        self.forgotten.retain(|uid| is_alive(uid));
        self.unjudged.retain(|uid| is_alive(uid));
    }

    fn note(&mut self, pair: Try, tally: Tally, (is_past_groups, wire): (bool, Wire), now: BootNs) -> Option<Step> {
        if tally == Tally::default() {
            return None;
        }
        if !self.tries.contains_key(&pair) {
            self.make_room();
        }
        if tally.answered == 0 {
            let ends = self.others.entry(Arc::clone(&pair.ip)).or_default();
            if !ends.iter().any(|end| end.is(pair.port, pair.about)) {
                ends.push(OtherEnd::new(pair.port, pair.about));
            }
        }
        let tries = self.tries.entry(pair.clone()).or_default();
        if tally.answered > 0 {
            // The first one since the agent watches, too: what was found before a restart, or of a pair that was forgotten
            // since, is over.
            let may_be_found = tries.is_told || !tries.has_succeeded;
            *tries = Tries { has_succeeded: true, last: now, ..Tries::default() };
            return may_be_found.then_some(Step::Works(pair));
        }
        if tries.failures == 0 || now.since(tries.last) > RUN_NS {
            (tries.first, tries.failures) = (now, 0);
        }
        (tries.is_past_groups, tries.wire) = (is_past_groups, wire);
        tries.failures = tries.failures.saturating_add(tally.unanswered);
        tries.new = tries.new.saturating_add(tally.unanswered);
        tries.last = now;
        None
    }

    /// What others get, of peers that somebody with groups fails to reach.
    fn note_other(&mut self, ip: &str, port: u16, about: About, tally: Tally, now: BootNs) {
        let ends = self.others.get_mut(ip).into_iter().flatten();
        for end in ends.filter(|end| end.is(port, about)) {
            end.note(tally, now);
        }
    }

    fn tell(&mut self, now: BootNs) -> Vec<Step> {
        let mut steps = Vec::new();
        for (pair, tries) in &mut self.tries {
            let over_ns = tries.last.since(tries.first);
            // A probe that worked before counts: the kubelet goes on for ever.
            let had_success = tries.has_succeeded && pair.about == About::Flow;
            if tries.new == 0 || tries.failures < ATTEMPTS || over_ns < OVER_NS || had_success {
                continue;
            }
            let others = self.others.get(&pair.ip).into_iter().flatten();
            let others =
                others.filter(|end| end.is(pair.port, pair.about)).map(|end| end.says(tries.first, now)).next();
            let others = others.unwrap_or(Others::NotKnown);
            let times = if tries.is_told { tries.new } else { tries.failures };
            tries.is_told = true;
            let Tries { failures, is_past_groups, wire, .. } = *tries;
            steps.push(Step::Unanswered { pair: pair.clone(), times, failures, over_ns, is_past_groups, wire, others });
        }
        steps
    }

    fn note_unjudged(&mut self, row: &FlowRow) {
        let is_judged = !matches!(row.peer.class, PeerClass::Imds | PeerClass::PodIdentity | PeerClass::NodeLocal)
            && row.peer.ip.is_some()
            // Named from its own end: on this node, which standard mode does not judge.
            && row.peer.pod.is_none();
        let uid = &row.who.identity.uid;
        if !is_judged || uid.is_empty() || self.unjudged.contains(&**uid) {
            return;
        }
        if self.unjudged.len() < MAX_FORGOTTEN {
            self.unjudged.insert(Arc::from(&**uid));
        } else {
            self.refused += 1;
        }
    }

    /// When it is full a quarter goes at once, the longest silent first: looking for the oldest takes long.
    fn make_room(&mut self) {
        if self.tries.len() < MAX_TRIES {
            return;
        }
        let mut ages: Vec<_> = self.tries.values().map(|tries| tries.last).collect();
        ages.sort_unstable();
        let oldest_kept = ages.get(MAX_TRIES / 4).copied().unwrap_or_default();
        let mut forgotten = BTreeSet::new();
        let mut over = self.tries.len() - MAX_TRIES * 3 / 4;
        self.tries.retain(|pair, tries| {
            // Those of one moment go in the order of the map.
            let goes = over > 0 && tries.last <= oldest_kept;
            if goes {
                over -= 1;
                if tries.has_succeeded {
                    forgotten.insert(Arc::clone(&pair.uid));
                }
            }
            !goes
        });
        for uid in forgotten {
            self.note_forgotten(uid);
        }
    }

    fn note_forgotten(&mut self, uid: Arc<str>) {
        if self.has_forgotten(&uid) {
            return;
        }
        if self.forgotten.len() >= MAX_FORGOTTEN {
            self.forgotten.pop_front();
            self.refused += 1;
        }
        self.forgotten.push_back(uid);
    }
}

/// Whether a row has connections that were answered, and does not say by whom: the kernel, or the fold, summed them up.
fn hides_success(row: &FlowRow) -> bool {
    let is_answered = matches!(row.outcome, Some("established" | "reset" | "refused"));
    row.merged && row.direction != "inbound" && row.connections > 0 && is_answered
}

impl Default for Wire {
    fn default() -> Self {
        Self::Same { is_service: false }
    }
}

impl Wire {
    fn of(row: &FlowRow) -> Self {
        let same = Self::Same { is_service: row.peer.class == PeerClass::Service };
        row.actual_peer.map_or(same, Self::Backend)
    }
}

impl OtherEnd {
    fn is(&self, port: u16, about: About) -> bool {
        self.port == port && self.about == about
    }

    fn new(port: u16, about: About) -> Self {
        Self { port, about, fold: BootNs::default(), tally: Tally::default(), reached: None, failed: None }
    }

    /// Takes in a row of the fold that ends now.
    fn note(&mut self, tally: Tally, now: BootNs) {
        if self.fold != now {
            self.failed = self.failed();
            if self.tally.answered_now > 0 {
                self.reached = Some(self.fold);
            }
            (self.fold, self.tally) = (now, Tally::default());
        }
        self.tally.answered_now = self.tally.answered_now.saturating_add(tally.answered_now);
        self.tally.unanswered = self.tally.unanswered.saturating_add(tally.unanswered);
    }

    /// The last fold in which it left many without an answer.
    fn failed(&self) -> Option<BootNs> {
        if self.tally.unanswered > self.tally.answered_now / LOST_PART { Some(self.fold) } else { self.failed }
    }

    /// What others get, for whoever fails since `first` and still now. An answer counts when this pod failed both before
    /// and after it, for an outage may begin and end in the middle of a fold; and half a minute after others failed last.
    fn says(&self, first: BootNs, now: BootNs) -> Others {
        let lately = |at: &BootNs| now.since(*at) <= OTHERS_NS;
        let latest = Some(self.fold).filter(|fold| *fold != now && self.tally.answered_now > 0);
        let failed = self.failed();
        let since = failed.map_or(first, |failed| failed.max(first));
        let is_reached = latest.or(self.reached).filter(lately).is_some_and(|at| at > since);
        if is_reached && now.since(since) >= OVER_NS {
            Others::Reached
        } else if failed.as_ref().is_some_and(lately) {
            Others::Failed
        } else {
            Others::NotKnown
        }
    }
}
