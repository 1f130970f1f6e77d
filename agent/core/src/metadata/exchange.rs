//! Requests that wait, answers that are under way, and the facts they become.

use std::sync::Arc;

use super::http::{AnswerHead, Framing, RequestHead};
use super::key_scan::KeyScan;
use super::{Stamp, Who};
use crate::input::{Category, Input, MetadataFact, MetadataOutcome, Method, RequestFact, ResponseFact};
use crate::time::BootNs;

/// A request whose answer did not begin yet.
pub(super) struct Waiting {
    pub(super) who: Arc<Who>,
    pub(super) head: RequestHead,
    pub(super) time: BootNs,
}

/// An answer under way, with its request if that was seen.
pub(super) struct Answering {
    who: Arc<Who>,
    request: Option<Waiting>,
    status: u16,
    stamp: Stamp,
    /// Body bytes as stated; `None` when only the end of the body tells.
    stated: Option<u64>,
    seen: u64,
    scan: Option<KeyScan>,
}

// === impl Waiting ===

impl Waiting {
    /// The fact of a request without an answer; `outcome` is that of a request whose head was seen in full.
    pub(super) fn into_input(self, outcome: MetadataOutcome) -> Input {
        let outcome = if self.head.truncated { MetadataOutcome::Truncated } else { outcome };
        fact(&self.who, self.time, outcome, Some(self.head.fact), None, None)
    }
}

// === impl Answering ===

impl Answering {
    /// An answer whose head is `head` and began with `stamp`. `who` counts when the request was not seen.
    pub(super) fn new(who: &Arc<Who>, request: Option<Waiting>, head: AnswerHead, stamp: Stamp) -> Self {
        let mut answering = Self {
            who: request.as_ref().map_or_else(|| who.clone(), |request| request.who.clone()),
            request,
            status: head.status,
            stamp,
            stated: None,
            seen: 0,
            scan: None,
        };
        answering.stated = match head.framing {
            _ if !answering.has_body() => Some(0),
            Framing::Length(length) => Some(length),
            _ => None,
        };
        if answering.stated != Some(0) && answering.may_hold_credentials() {
            answering.scan = Some(KeyScan::new());
        }
        answering
    }

    /// Whether a body follows the head (RFC 9112 section 6.3).
    pub(super) fn has_body(&self) -> bool {
        let is_head = self.request.as_ref().is_some_and(|request| request.head.fact.method == Method::Head);
        !is_head && !matches!(self.status, 101 | 204 | 304)
    }

    pub(super) fn request_is_known(&self) -> bool {
        self.request.is_some()
    }

    pub(super) fn began(&self) -> BootNs {
        self.stamp.time
    }

    /// Takes a piece of the body.
    pub(super) fn content(&mut self, bytes: &[u8]) {
        self.seen = self.seen.saturating_add(bytes.len() as u64);
        if let Some(scan) = &mut self.scan {
            scan.feed(bytes);
        }
    }

    /// A piece of the body was missed.
    pub(super) fn gap(&mut self, bytes: u64) {
        self.seen = self.seen.saturating_add(bytes);
        if let Some(scan) = &mut self.scan {
            scan.gap();
        }
    }

    /// Whether the rest of the body can add nothing to the fact.
    pub(super) fn is_ready(&self) -> bool {
        self.stated.is_some() && self.scan.as_ref().is_none_or(KeyScan::is_over)
    }

    pub(super) fn into_input(self) -> Input {
        let response = ResponseFact {
            status: self.status,
            ttl: self.stamp.ttl,
            bytes: self.stated.unwrap_or(self.seen),
            access_key_id: self.scan.as_ref().and_then(KeyScan::found).map(str::to_owned),
        };
        let began = self.stamp.time;
        match self.request {
            Some(Waiting { who, head, time }) => {
                let outcome = if head.truncated { MetadataOutcome::Truncated } else { outcome_of_status(self.status) };
                fact(&who, time, outcome, Some(head.fact), Some(response), Some(began.since(time)))
            }
            None => fact(&self.who, began, outcome_of_status(self.status), None, Some(response), None),
        }
    }

    fn may_hold_credentials(&self) -> bool {
        let category = self.request.as_ref().map(|request| request.head.fact.category);
        let asked = matches!(
            category,
            None | Some(Category::RoleCredentials | Category::IdentityCredentials | Category::PodIdentityCredentials)
        );
        // The path of a request that was seen in part may have been any.
        let in_part = self.request.as_ref().is_some_and(|request| request.head.truncated);
        (asked || in_part) && (200..300).contains(&self.status)
    }
}

fn outcome_of_status(status: u16) -> MetadataOutcome {
    match status {
        0..=399 => MetadataOutcome::Ok,
        401 => MetadataOutcome::Unauthorized,
        403 => MetadataOutcome::Forbidden,
        404 => MetadataOutcome::NotFound,
        _ => MetadataOutcome::Error,
    }
}

/// A fact about the connection of `who`.
pub(super) fn fact(
    who: &Who,
    time: BootNs,
    outcome: MetadataOutcome,
    request: Option<RequestFact>,
    response: Option<ResponseFact>,
    latency_ns: Option<u64>,
) -> Input {
    Input::Metadata(Box::new(MetadataFact {
        time,
        cgroup_id: who.cgroup_id,
        cookie: who.cookie,
        process: who.process.clone(),
        ancestors: who.ancestors.clone(),
        sender_only: who.sender_only,
        ends: who.ends,
        service: who.service,
        request,
        response,
        outcome,
        latency_ns,
        origin: None,
    }))
}
