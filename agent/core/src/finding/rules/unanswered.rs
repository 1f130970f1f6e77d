//! Requests for a metadata token whose answer never came: the hop limit, throttling, or nobody knows.
//!
//! The answer to the request starts with the instance's hop limit as its time to live. Where that is used up on the
//! node, the node sends ICMP "time exceeded". The counter is read now and then, so a request waits here for the readings
//! around it.

use std::collections::VecDeque;

use super::{violation, whom, why};
use crate::cluster::HostSide;
use crate::finding::{Severity, Subject, Violation};
use crate::input::{Category, MetadataOutcome, Method};
use crate::output::{AttributionKind, MetadataRow};
use crate::time::BootNs;

/// Most requests that wait for readings, at about 1 KiB: 256 KiB. Beyond it the oldest is given up.
const MAX_WAITING: usize = 256;
/// How long one waits: several readings.
const WAIT_NS: u64 = 120 * 1_000_000_000;
/// How long a hop limit that was seen is taken for the instance's: it can be changed at any time.
const HOP_LIMIT_VALID_NS: u64 = 3_600 * 1_000_000_000;
/// A pod is one hop farther than the node.
const POD_HOPS: u8 = 2;

/// See the module's text.
#[derive(Debug, Default)]
pub(in crate::finding) struct Unanswered {
    waiting: VecDeque<Waiting>,
    hop_limit: Option<(BootNs, u8)>,
    /// Requests given up for want of room, to be counted.
    pub(in crate::finding) refused: u64,
}

#[derive(Debug)]
struct Waiting {
    from: BootNs,
    to: BootNs,
    subject: Subject,
    own: Option<bool>,
    evidence: Vec<crate::finding::Evidence>,
}

/// What came of a request that waited.
pub(in crate::finding) enum Answer {
    Violated(Subject, Violation),
    CannotTell(Subject, &'static str),
}

impl Unanswered {
    /// Takes in a request. `on_node`: its sender is in the node's network namespace.
    pub(in crate::finding) fn request(
        &mut self,
        row: &MetadataRow,
        subject: Option<Subject>,
        on_node: bool,
        own: Option<bool>,
        (from, now): (BootNs, BootNs),
    ) {
        if row.service != "imds" || row.method != Some(Method::Put) || row.category != Some(Category::Token) {
            return;
        }
        if let (Some(200), Some(hops), true) = (row.status, row.response_ttl, on_node) {
            self.hop_limit = Some((now, hops));
        }
        if row.outcome != MetadataOutcome::Unanswered || on_node {
            return;
        }
        if let Some(subject) = subject {
            if self.waiting.len() >= MAX_WAITING {
                self.waiting.pop_front();
                self.refused += 1;
            }
            let evidence = super::requests::evidence(row);
            self.waiting.push_back(Waiting { from, to: now, subject, own, evidence });
        }
    }

    /// What can be told by now.
    pub(in crate::finding) fn answers(&mut self, host: &HostSide, now: BootNs) -> Vec<Answer> {
        let hop_limit = self.hop_limit.filter(|(seen, _)| now.since(*seen) <= HOP_LIMIT_VALID_NS).map(|(_, hops)| hops);
        let mut answers = Vec::new();
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else { break };
            // Each counter that is read at all is waited for: the one that is read last may name the cause.
            if !host.is_counted_since(waiting.to) && now.since(waiting.to) <= WAIT_NS {
                self.waiting.push_back(waiting);
                continue;
            }
            let throttled = host.linklocal_exceeded(waiting.from, waiting.to) == Some(true);
            let died_here = host.time_exceeded().rose(waiting.from, waiting.to);
            let cause = match (throttled, died_here, hop_limit) {
                (true, ..) => Ok("link_local_throttled"),
                // Also beside a limit that was large enough an hour ago.
                (false, Some(true), _) | (false, _, Some(..POD_HOPS)) => Ok("hop_limit"),
                (false, Some(false), _) | (false, None, Some(_)) => Err(why::OTHER_REASON),
                (false, None, None) if now.since(waiting.to) > WAIT_NS => Err(why::NO_COUNTER),
                (false, None, None) => {
                    self.waiting.push_back(waiting);
                    continue;
                }
            };
            answers.push(match cause {
                Ok(cause) => {
                    let violation = describe(&waiting, cause, hop_limit);
                    Answer::Violated(waiting.subject, violation)
                }
                Err(why) => Answer::CannotTell(waiting.subject, why),
            });
        }
        answers
    }
}

fn describe(waiting: &Waiting, cause: &'static str, hop_limit: Option<u8>) -> Violation {
    let severity = if waiting.own == Some(true) { Severity::Info } else { Severity::Low };
    let because = match (cause, hop_limit) {
        ("hop_limit", Some(hops @ ..POD_HOPS)) => {
            format!("the instance's hop limit is {hops}, and a pod is {POD_HOPS} hops away")
        }
        ("hop_limit", _) => "answers ran out of hops on the node meanwhile (ICMP time exceeded)".to_owned(),
        _ => "the interface dropped link-local packets over its allowance meanwhile".to_owned(),
    };
    let who = whom(&waiting.subject);
    let text = format!("{who} asked for a metadata token and got no answer: {because}");
    Violation { evidence: waiting.evidence.clone(), ..violation(severity, cause, text) }
}

/// Whether a request's sender is in the node's network namespace, as far as that is certain.
pub(in crate::finding) fn is_on_node(row: &MetadataRow, pod: Option<&crate::facts::PodFacts>) -> bool {
    match row.who.identity.attribution {
        AttributionKind::Host => true,
        AttributionKind::Pod => pod.is_some_and(|pod| pod.host_network),
        AttributionKind::Container | AttributionKind::Unknown => false,
    }
}
