//! Traffic that a pod's sockets do not account for: packet sockets, and an interface that moved more than they did.
//!
//! A pod's interface is compared with its sockets over spans of five minutes. Sockets tell payload, the interface tells
//! frames: the largest headers are allowed for with every packet, and a jumbo frame with every retransmitted segment.
//! What is reported late in one span stands in the next, which is why one span alone proves nothing.

use std::sync::Arc;

use super::{violation, whom, why};
use crate::facts::{LinkFacts, PodFacts, PodHostFacts};
use crate::fast::{FastMap, FastSet};
use crate::finding::{Evidence, Severity, Verdict, Violation};
use crate::output::{AttributionKind, FlowRow, Output, Protocol};
use crate::time::BootNs;

/// Length of a span.
pub(in crate::finding) const SPAN_NS: u64 = 300 * 1_000_000_000;
/// More than this, and more than a tenth of what the sockets moved, is not explained by sampling.
const EXCESS_BYTES: u64 = 1_000_000;
/// Ethernet 14, IPv6 40, TCP with all options 60.
const HEADER_BYTES: u64 = 114;
/// The largest frame in a VPC.
const SEGMENT_BYTES: u64 = 9_001;
/// Spans in a row that must exceed.
const SPANS: u8 = 2;
/// Most pods followed.
const MAX_PODS: usize = crate::cluster::MAX_PODS;

/// See the module's text.
#[derive(Debug, Default)]
pub(in crate::finding) struct Traffic {
    pods: FastMap<Arc<str>, Moved>,
    since: Option<BootNs>,
    /// Pods that had packet sockets: that these are gone ends what was found of them.
    had_sockets: FastSet<Arc<str>>,
    /// Something was not seen in this span: it proves nothing.
    is_spoiled: bool,
    has_seen_tcp: bool,
    has_seen_udp: bool,
}

#[derive(Debug, Default)]
struct Moved {
    /// By its sockets, in this span.
    socket_bytes: u64,
    retransmits: u64,
    /// The interface's totals at the span's start.
    start: Option<Totals>,
    /// The last span was seen whole.
    is_proven: bool,
    /// Spans in a row that exceeded, and by how much the last. What two of them said stands until one says otherwise.
    exceeded: u8,
    excess: u64,
}

/// Of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Totals {
    index: u32,
    bytes: u64,
    packets: u64,
}

impl Traffic {
    /// Takes in the rows of a fold.
    pub(in crate::finding) fn rows(&mut self, outputs: &[Output]) {
        for row in outputs.iter().filter_map(flow) {
            self.has_seen_tcp |= row.protocol == Some(Protocol::Tcp);
            self.has_seen_udp |= row.protocol == Some(Protocol::Udp);
            // It never passes the pod's interface, and would hide what does without a socket.
            if row.is_within_pod() {
                continue;
            }
            let identity = &row.who.identity;
            if identity.attribution == AttributionKind::Unknown {
                // It may be anybody's.
                self.is_spoiled = true;
            }
            if identity.uid.is_empty() || (self.pods.len() >= MAX_PODS && !self.pods.contains_key(&*identity.uid)) {
                continue;
            }
            let moved = self.pods.entry(Arc::from(&*identity.uid)).or_default();
            let bytes = row.bytes_sent.saturating_add(row.bytes_received);
            moved.socket_bytes = moved.socket_bytes.saturating_add(bytes);
            moved.retransmits = moved.retransmits.saturating_add(row.retransmits.unwrap_or(0));
        }
    }

    /// Records were lost, or sockets not followed.
    pub(in crate::finding) fn spoil(&mut self) {
        self.is_spoiled = true;
    }

    /// Interfaces were read. `veths`: of each pod, by the uid that its cgroups tell, its interface on the node.
    pub(in crate::finding) fn links(&mut self, links: &[LinkFacts], veths: &[(Arc<str>, u32)], now: BootNs) {
        let since = *self.since.get_or_insert(now);
        let is_over = now.since(since) >= SPAN_NS;
        let is_proof = !self.is_spoiled && self.has_seen_tcp && self.has_seen_udp;
        let by_index: FastMap<u32, &LinkFacts> = links.iter().map(|link| (link.index, link)).collect();
        for (uid, veth) in veths {
            let Some(link) = by_index.get(veth) else { continue };
            if self.pods.len() >= MAX_PODS && !self.pods.contains_key(uid) {
                continue;
            }
            let moved = self.pods.entry(Arc::clone(uid)).or_default();
            let totals = Totals {
                index: link.index,
                bytes: link.received_bytes.saturating_add(link.sent_bytes),
                packets: link.received_packets.saturating_add(link.sent_packets),
            };
            match moved.start {
                Some(start) if is_over && is_proof => moved.close(start, totals),
                Some(_) if is_over => moved.prove_nothing(),
                Some(start) if start.index == totals.index => continue,
                // Its interface was seen in the middle of the span: the sockets' bytes before do not count.
                _ => moved.prove_nothing(),
            }
            (moved.start, moved.socket_bytes, moved.retransmits) = (Some(totals), 0, 0);
        }
        if is_over {
            (self.since, self.is_spoiled) = (Some(now), false);
            self.pods.retain(|uid, _| veths.iter().any(|(known, _)| known == uid));
        }
    }

    /// Pods were looked at from outside: their packet sockets.
    pub(in crate::finding) fn seen(&mut self, pods: &[PodHostFacts]) {
        self.had_sockets.retain(|uid| pods.iter().any(|pod| pod.uid == *uid));
        let has = pods.iter().filter(|pod| pod.packet_sockets.is_some_and(|sockets| sockets > 0));
        self.had_sockets.extend(has.take(MAX_PODS).map(|pod| Arc::clone(&pod.uid)));
    }

    /// What is so of a pod now.
    pub(in crate::finding) fn judge(&self, uid: &str, pod: &PodFacts, seen: Option<&PodHostFacts>) -> Verdict {
        if pod.host_network || seen.is_some_and(|seen| seen.host_network) {
            return Verdict::Holds;
        }
        if pod.runtime_class.is_some() {
            return Verdict::CannotTell(why::SANDBOX);
        }
        let who = whom(&crate::papers::subject(pod));
        match (seen.and_then(|seen| seen.packet_sockets), self.pods.get(uid)) {
            (Some(sockets @ 1..), _) => {
                let text = format!(
                    "{who} has {sockets} packet {}, which move traffic past what is seen of flows",
                    if sockets == 1 { "socket" } else { "sockets" }
                );
                violated("packet_sockets", text, "net/packet", sockets.to_string())
            }
            (_, Some(moved)) if moved.exceeded >= SPANS && moved.is_proven => {
                let text = format!(
                    "the interface of {who} moved {} bytes more in five minutes than its sockets account for",
                    moved.excess
                );
                violated("interface_bytes", text, "bytes", moved.excess.to_string())
            }
            (None, None) => Verdict::CannotTell(why::NOT_SEEN),
            (_, Some(moved)) if moved.is_proven && moved.exceeded == 0 => Verdict::Holds,
            (Some(0), moved) if self.had_sockets.contains(uid) && moved.is_none_or(|moved| moved.exceeded == 0) => {
                Verdict::Holds
            }
            _ => Verdict::CannotTell(why::NO_SPAN),
        }
    }
}

impl Moved {
    /// A span in which something was not seen.
    fn prove_nothing(&mut self) {
        self.is_proven = false;
        // Two in a row are to stand side by side: what is late in one stands in the next.
        if self.exceeded < SPANS {
            self.exceeded = 0;
        }
    }

    fn close(&mut self, start: Totals, end: Totals) {
        let is_same = start.index == end.index && start.bytes <= end.bytes && start.packets <= end.packets;
        if !is_same {
            self.prove_nothing();
            return;
        }
        self.is_proven = true;
        let headers = (end.packets - start.packets).saturating_mul(HEADER_BYTES);
        let known =
            self.socket_bytes.saturating_add(headers).saturating_add(self.retransmits.saturating_mul(SEGMENT_BYTES));
        self.excess = (end.bytes - start.bytes).saturating_sub(known);
        let has_excess = self.excess > EXCESS_BYTES && self.excess > self.socket_bytes / 10;
        self.exceeded = if has_excess { self.exceeded.saturating_add(1) } else { 0 };
    }
}

fn flow(output: &Output) -> Option<&FlowRow> {
    match output {
        Output::Flow(row) => Some(row),
        _ => None,
    }
}

fn violated(cause: &'static str, text: String, field: &str, value: String) -> Verdict {
    let evidence =
        vec![Evidence { object: "network namespace".to_owned(), field: field.to_owned(), generation: None, value }];
    Verdict::Violated(Box::new(Violation { evidence, ..violation(Severity::Medium, cause, text) }))
}
