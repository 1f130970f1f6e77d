//! Which rules were used and what pods did, as far as verdicts were possible: for the question which rules nobody needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::facts::PodFacts;
use crate::fast::FastMap;
use crate::output::{FlowRow, Protocol, SgRow, SgVerdict, SgWhy};
use crate::sg::{GroupId, Side};
use crate::time::WallNs;

/// Most rules of which use is noted: 1,024 groups could have 61,440, of which a node's flows meet a few. At about 100
/// bytes: 400 KiB. What comes beyond is counted, and then nobody says of a rule that it was not used.
pub(super) const MAX_RULES: usize = 4_096;
/// Most uses told apart, at about 200 bytes: 800 KiB. 110 pods have 37 each.
pub(super) const MAX_USES: usize = 4_096;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    rules: FastMap<Arc<str>, Used>,
    /// Since when each group's rules are known.
    since: BTreeMap<GroupId, WallNs>,
    uses: BTreeMap<Use, Used>,
    rules_dropped: u64,
    uses_dropped: u64,
}

/// What pods did, told apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Use {
    /// The pod, by the uid of its object.
    pub(crate) uid: Arc<str>,
    pub(crate) side: Side,
    pub(crate) transport: &'static str,
    pub(crate) port: u16,
    /// Name or address of the other end.
    pub(crate) peer: Arc<str>,
    pub(crate) verdict: &'static str,
    /// Something came back although no rule lets it.
    pub(crate) unexplained: bool,
}

/// How often, and when last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Connections that ended.
    pub(crate) connections: u64,
    /// End of the last fold that saw one.
    pub(crate) last: WallNs,
}

/// A row and what groups say of it.
pub(super) struct Noted<'a> {
    pub(super) row: &'a FlowRow,
    pub(super) pod: &'a PodFacts,
    pub(super) sg: &'a SgRow,
    /// The side that the pod's end is; `None`: nobody judged.
    pub(super) side: Option<Side>,
}

impl Usage {
    /// The groups whose rules are known from now on; of those known before nothing changes.
    pub(super) fn groups<'a>(&mut self, known: impl Iterator<Item = &'a GroupId>, now: WallNs) {
        let before = std::mem::take(&mut self.since);
        self.since = known.map(|id| (id.clone(), before.get(id).copied().unwrap_or(now))).collect();
    }

    /// A row was judged.
    pub(super) fn note(&mut self, noted: &Noted<'_>) {
        let Noted { row, pod, sg, side } = noted;
        let (Some(side), Some(port), Some(protocol)) = (side, row.service_port, row.protocol) else { return };
        let at = row.window.end;
        for rule in &sg.rules {
            if self.rules.len() >= MAX_RULES && !self.rules.contains_key(rule) {
                self.rules_dropped += 1;
                continue;
            }
            self.rules.entry(Arc::clone(rule)).or_default().add(row.connections, at);
        }
        let peer: Arc<str> = match (&row.peer.namespace, &row.peer.pod, &row.peer.ip) {
            (Some(namespace), Some(pod), _) if !namespace.is_empty() => format!("{namespace}/{pod}").into(),
            (_, _, Some(ip)) => ip.as_str().into(),
            _ => return,
        };
        let transport = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let unexplained = sg.verdict == SgVerdict::NoRule && sg.why == Some(SgWhy::TrackedOrOtherGroups);
        let uid = pod.uid.clone().unwrap_or_default();
        let verdict = sg.verdict.name();
        let key = Use { uid, side: *side, transport, port, peer, verdict, unexplained };
        if self.uses.len() >= MAX_USES && !self.uses.contains_key(&key) {
            self.uses_dropped += 1;
            return;
        }
        self.uses.entry(key).or_default().add(row.connections, at);
    }

    /// Forgets what pods did that are forgotten.
    pub(super) fn expire(&mut self, is_known: &dyn Fn(&str) -> bool) {
        let mut last: Option<(Arc<str>, bool)> = None;
        self.uses.retain(|used, _| match &last {
            // In the order of uids: each is asked for once.
            Some((uid, known)) if *uid == used.uid => *known,
            _ => {
                let known = is_known(&used.uid);
                last = Some((Arc::clone(&used.uid), known));
                known
            }
        });
    }

    /// How often a rule was used; `None`: never, as far as there was room.
    pub(super) fn rule(&self, id: &str) -> Option<Used> {
        self.rules.get(id).copied()
    }

    /// Since when a group's rules are known.
    pub(super) fn since(&self, id: &GroupId) -> Option<WallNs> {
        self.since.get(id).copied()
    }

    /// What a pod did.
    pub(super) fn of_pod<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = (&'a Use, &'a Used)> {
        self.uses.iter().filter(move |(used, _)| *used.uid == *uid)
    }

    /// Whether rules were used that there was no room for, and how many uses found none.
    pub(super) fn dropped(&self) -> (u64, u64) {
        (self.rules_dropped, self.uses_dropped)
    }
}

impl Used {
    fn add(&mut self, connections: u64, at: WallNs) {
        self.connections = self.connections.saturating_add(connections);
        self.last = self.last.max(at);
    }
}
