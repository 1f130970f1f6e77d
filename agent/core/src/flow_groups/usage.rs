//! Which rules were used and what pods did: for the question which rules nobody needs.
//!
//! Of a rule three things are told apart: flows that it let pass, flows that it may have let pass, because their verdict
//! could not be told, and none of either since it is watched.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answer::Weighed;
use crate::facts::PodFacts;
use crate::fast::FastMap;
use crate::output::{FlowRow, Protocol, SgRow, SgVerdict, SgWhy};
use crate::sg::{Group, GroupId, Rule, Service, Side, Transport};
use crate::time::WallNs;

/// Most rules of which use is noted: 1,024 groups could have 61,440, of which a node's flows meet a few. At about 100
/// bytes: 400 KiB. What comes beyond is counted, and then nobody says of a rule that it was not used.
pub(super) const MAX_RULES: usize = 4_096;
/// Most rules of which it is noted since when they are watched, at about 60 bytes: 1 MiB. Of one beyond that nobody says
/// that it was not used.
const MAX_WATCHED: usize = 16_384;
/// Most groups, sides and protocols whose rules flows may have used, at about 80 bytes: 320 KiB. A group has four.
const MAX_OPEN: usize = 4_096;
/// Most uses told apart, at about 200 bytes: 800 KiB. 110 pods have 37 each.
pub(super) const MAX_USES: usize = 4_096;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    rules: FastMap<Arc<str>, Used>,
    /// Flows that a rule may have let pass.
    perhaps: FastMap<Arc<str>, Used>,
    /// Flows that any rule of a group's side and protocol may have let pass.
    open: BTreeMap<(GroupId, Side, &'static str), Used>,
    /// Since when each group, and each rule, is known without a break.
    groups: BTreeMap<GroupId, WallNs>,
    watched: FastMap<Arc<str>, WallNs>,
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
    /// What the verdict says of the use of rules.
    pub(super) weighed: &'a Weighed,
}

impl Usage {
    /// The groups and rules that are known from now on; of those known before nothing changes.
    pub(super) fn know(&mut self, known: &[Group], now: WallNs) {
        let before = std::mem::take(&mut self.groups);
        let since = |id: &GroupId| before.get(id).copied().unwrap_or(now);
        self.groups = known.iter().map(|group| (group.id.clone(), since(&group.id))).collect();
        let before = std::mem::take(&mut self.watched);
        let rules = known.iter().flat_map(|group| &group.rules).map(|rule| rule.id.shared());
        let since = |id: &Arc<str>| before.get(id).copied().unwrap_or(now);
        self.watched = rules.take(MAX_WATCHED).map(|id| (Arc::clone(&id), since(&id))).collect();
    }

    /// A row was judged.
    pub(super) fn note(&mut self, noted: &Noted<'_>) {
        let Noted { row, pod, sg, side, weighed } = noted;
        let (Some(side), Some(port), Some(protocol)) = (side, row.service_port, row.protocol) else { return };
        let at = row.window.end;
        let transport = match protocol {
            Protocol::Tcp => Transport::Tcp.name(),
            Protocol::Udp => Transport::Udp.name(),
        };
        for (rules, map) in [(&weighed.used, &mut self.rules), (&weighed.perhaps, &mut self.perhaps)] {
            for rule in rules {
                if map.len() >= MAX_RULES && !map.contains_key(rule) {
                    self.rules_dropped += 1;
                    continue;
                }
                map.entry(Arc::clone(rule)).or_default().add(row.connections, at);
            }
        }
        for group in &weighed.open {
            self.opened((group.clone(), *side, transport), row);
        }
        let peer: Arc<str> = match (&row.peer.namespace, &row.peer.pod, &row.peer.ip) {
            (Some(namespace), Some(pod), _) if !namespace.is_empty() => format!("{namespace}/{pod}").into(),
            (_, _, Some(ip)) => ip.as_str().into(),
            _ => return,
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

    /// A row that sums up flows of many peers and ports: they may have used any rule of these groups.
    pub(super) fn hidden(&mut self, row: &FlowRow, groups: &[GroupId]) {
        let sides = match row.direction {
            "outbound" => &[Side::Egress][..],
            "inbound" => &[Side::Ingress],
            _ => &[Side::Egress, Side::Ingress],
        };
        let transports = match row.protocol {
            Some(Protocol::Tcp) => &[Transport::Tcp][..],
            Some(Protocol::Udp) => &[Transport::Udp],
            None => &[Transport::Tcp, Transport::Udp],
        };
        for group in groups {
            for (side, transport) in sides.iter().flat_map(|side| transports.iter().map(move |of| (*side, of.name()))) {
                self.opened((group.clone(), side, transport), row);
            }
        }
    }

    fn opened(&mut self, key: (GroupId, Side, &'static str), row: &FlowRow) {
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&key) {
            self.rules_dropped += 1;
            return;
        }
        self.open.entry(key).or_default().add(row.connections, row.window.end);
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

    /// What may have used a rule, which cannot be told; `None`: nothing.
    pub(super) fn perhaps(&self, group: &GroupId, rule: &Rule) -> Option<Used> {
        let transports = [Transport::Tcp, Transport::Udp].into_iter().filter(|transport| match rule.service {
            Service::All => true,
            Service::Ports { transport: of, .. } => of == *transport,
            Service::Icmp { .. } | Service::Protocol(_) => false,
        });
        let open = transports.filter_map(|transport| self.open.get(&(group.clone(), rule.side, transport.name())));
        let all = open.chain(self.perhaps.get(rule.id.as_str())).copied();
        all.reduce(|one, other| Used {
            connections: one.connections.saturating_add(other.connections),
            last: one.last.max(other.last),
        })
    }

    /// Since when a group is known.
    pub(super) fn group_since(&self, id: &GroupId) -> Option<WallNs> {
        self.groups.get(id).copied()
    }

    /// Since when a rule is known and watched; `None`: it is not, or there was no room.
    pub(super) fn rule_since(&self, id: &str) -> Option<WallNs> {
        self.watched.get(id).copied()
    }

    /// What a pod did.
    pub(super) fn of_pod<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = (&'a Use, &'a Used)> {
        self.uses.iter().filter(move |(used, _)| *used.uid == *uid)
    }

    /// Whether rules were used, or may have been, that there was no room for, and how many uses found none.
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
