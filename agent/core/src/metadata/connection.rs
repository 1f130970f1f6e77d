//! One connection to a metadata service: both directions, and which answer belongs to which request.
//!
//! Requests are read as they come. An answer is read only when its request is here, or was waited for: the records of
//! the two directions may arrive in the wrong order. The n-th answer belongs to the n-th request; where records were
//! lost, to the last request that was sent before it.

use std::collections::VecDeque;
use std::sync::Arc;

use agent_ebpf::wire::Outcome;

use super::body::Body;
use super::exchange::{Answering, Waiting, fact};
use super::head::HeadBuffer;
use super::http;
use super::reassembly::Reassembly;
use super::{ANSWER_WAIT_NS, ConnectionEnd, REORDER_WAIT_NS, Segment, Stamp, Way, Who};
use crate::continuity::{Key, Origin, Place};
use crate::input::{Input, MetadataOutcome};
use crate::time::BootNs;

mod answers;
mod requests;

pub(super) struct Connection {
    who: Arc<Who>,
    /// Time of the last record.
    last: BootNs,
    requests: Reassembly,
    answers: Reassembly,
    request: RequestState,
    answer: AnswerState,
    /// Requests in the order they were sent.
    waiting: VecDeque<Waiting>,
    /// Requests before those that were told without their answers, which may still come.
    forgotten: usize,
    /// Answers were missed since the last one that was read.
    answers_missed: bool,
    payload_seen: bool,
    /// Directions of which it was told that they hold what could not be read.
    unparsed_told: Vec<Way>,
    ended: Option<ConnectionEnd>,
    /// The first record of which not all is told yet.
    pub(super) since: Option<Place>,
    /// Where its last record stood.
    pub(super) last_place: Option<Place>,
    /// Time of the last fact told, and its number among those of the same time.
    told: (BootNs, u32),
}

enum RequestState {
    Head(HeadBuffer),
    Body(Body),
    /// Where the next message begins is not known.
    Lost,
}

enum AnswerState {
    Head(HeadBuffer),
    /// `answering` is `None` once it was told. `doubtful`: the request is not known, so that there may be no body.
    Body {
        body: Body,
        answering: Option<Box<Answering>>,
        doubtful: bool,
    },
    Lost,
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(who: Who, now: BootNs) -> Self {
        Self {
            who: Arc::new(who),
            last: now,
            requests: Reassembly::new(http::is_request),
            answers: Reassembly::new(http::is_answer),
            request: RequestState::Head(HeadBuffer::default()),
            answer: AnswerState::Head(HeadBuffer::default()),
            waiting: VecDeque::new(),
            forgotten: 0,
            answers_missed: false,
            payload_seen: false,
            unparsed_told: Vec::new(),
            ended: None,
            since: None,
            last_place: None,
            told: (BootNs(0), 0),
        }
    }

    /// Says of facts just told where they began. Decoding the same records again, from that place on, gives the same facts
    /// with the same key: it is made of what records say.
    pub(super) fn stamp(&mut self, inputs: &mut [Input]) {
        let Some(place) = self.since else { return };
        let until = self.last_place.filter(|_| self.is_quiet()).map(|last| last.position);
        for input in inputs {
            if let Input::Metadata(fact) = input {
                let number = if self.told.0 == fact.time { self.told.1.saturating_add(1) } else { 0 };
                self.told = (fact.time, number);
                fact.origin = Some(Origin { place, key: Key { time: fact.time, cookie: fact.cookie, number }, until });
            }
        }
    }

    /// What came before the first record here was told by an earlier run.
    pub(super) fn goes_on(&mut self) {
        self.payload_seen = true;
    }

    /// Nothing is held, nothing waits, and nothing more is told of the end.
    pub(super) fn is_quiet(&self) -> bool {
        self.ended.is_none() && self.is_settled()
    }

    pub(super) fn cgroup_id(&self) -> u64 {
        self.who.cgroup_id
    }

    pub(super) fn last(&self) -> BootNs {
        self.last
    }

    /// Bytes of memory that hold payload.
    pub(super) fn held_bytes(&self) -> usize {
        let heads = match &self.request {
            RequestState::Head(head) => head.held_bytes(),
            _ => 0,
        } + match &self.answer {
            AnswerState::Head(head) => head.held_bytes(),
            _ => 0,
        };
        self.requests.held_bytes() + self.answers.held_bytes() + heads
    }

    /// Whether a record of `who` at `now` is about a later connection of the same socket.
    pub(super) fn is_another(&self, who: &Who, now: BootNs) -> bool {
        let (known, told) = (&self.who.ends, &who.ends);
        let known_ports = known.local_port != 0 && told.local_port != 0;
        let differs = known_ports && known.local_port != told.local_port || known.remote != told.remote;
        differs || self.ended.as_ref().is_some_and(|end| now > end.time)
    }

    /// Learns from a record about the connection: the opener counts more than a sender.
    pub(super) fn learn(&mut self, who: Who, now: BootNs) {
        self.last = self.last.max(now);
        let better = who.process.is_some() && (self.who.process.is_none() || self.who.sender_only);
        if better && *self.who != who {
            self.who = Arc::new(who);
        }
    }

    pub(super) fn segment(&mut self, segment: &Segment<'_>, inputs: &mut Vec<Input>) {
        self.payload_seen |= segment.payload_len > 0;
        let direction = match segment.way {
            Way::Request => &mut self.requests,
            Way::Answer => &mut self.answers,
        };
        direction.push(segment.seq, segment.payload_len, segment.payload, segment.stamp);
        self.advance(segment.stamp.time, false, inputs);
    }

    /// Takes the end and says whether nothing is left to wait for.
    pub(super) fn end(&mut self, end: ConnectionEnd, inputs: &mut Vec<Input>) -> bool {
        let now = end.time;
        let nothing_due = if self.payload_seen { self.is_settled() } else { !end.established };
        self.ended = Some(end);
        if nothing_due {
            self.close(now, inputs);
        }
        nothing_due
    }

    /// Ends what waited long enough, and says whether the connection is over.
    pub(super) fn tick(&mut self, now: BootNs, inputs: &mut Vec<Input>) -> bool {
        self.advance(now, false, inputs);
        while let Some(first) = self.waiting.front()
            && now.since(first.time) >= ANSWER_WAIT_NS
        {
            let outcome = self.outcome_without_answer(MetadataOutcome::Unanswered);
            self.forget_first(outcome, inputs);
        }
        if let AnswerState::Body { answering, .. } = &mut self.answer
            && let Some(waited) = answering.take_if(|answering| now.since(answering.began()) >= ANSWER_WAIT_NS)
        {
            inputs.push(waited.into_input());
        }
        let is_over = self.ended.as_ref().is_some_and(|end| now.since(end.time) >= REORDER_WAIT_NS);
        if is_over {
            self.close(now, inputs);
        }
        is_over
    }

    /// Puts out all that is held because the connection is over, and what its end means.
    pub(super) fn close(&mut self, now: BootNs, inputs: &mut Vec<Input>) {
        let Some(end) = self.ended.take() else { return self.stop(now, inputs) };
        let failure = match end.outcome {
            Outcome::TimedOut => MetadataOutcome::Blocked,
            _ => MetadataOutcome::Failed,
        };
        self.put_out(now, if end.established { MetadataOutcome::Unanswered } else { failure }, inputs);
        if self.payload_seen {
            return;
        }
        // A connection that is older than the probes may have carried payload before them.
        let outcome = if end.established { end.start.map(|_| MetadataOutcome::Idle) } else { Some(failure) };
        if let Some(outcome) = outcome {
            inputs.push(fact(&self.who, end.start.unwrap_or(end.time), outcome, None, None, None));
        }
    }

    /// Puts out all that is held because the agent stops.
    pub(super) fn stop(&mut self, now: BootNs, inputs: &mut Vec<Input>) {
        if self.ended.is_some() {
            return self.close(now, inputs);
        }
        self.put_out(now, MetadataOutcome::Unanswered, inputs);
    }

    /// Puts out all that is held because there is no more room for this connection.
    pub(super) fn give_up(&mut self, now: BootNs, inputs: &mut Vec<Input>) {
        if self.ended.is_some() {
            return self.close(now, inputs);
        }
        self.put_out(now, MetadataOutcome::Unparsed, inputs);
    }

    /// Nothing is held, and nothing waits.
    fn is_settled(&self) -> bool {
        let request_open = matches!(&self.request, RequestState::Head(head) if !head.is_empty());
        let answer_open = match &self.answer {
            AnswerState::Head(head) => !head.is_empty(),
            AnswerState::Body { answering, .. } => answering.is_some(),
            AnswerState::Lost => false,
        };
        self.waiting.is_empty()
            && !request_open
            && !answer_open
            && self.requests.held_bytes() == 0
            && self.answers.held_bytes() == 0
    }

    fn put_out(&mut self, now: BootNs, without_answer: MetadataOutcome, inputs: &mut Vec<Input>) {
        self.advance_requests(now, true, inputs);
        if let RequestState::Head(head) = &mut self.request
            && let Some((bytes, stamp)) = head.take_out()
        {
            let head = http::partial_request(self.who.service, bytes.as_slice());
            self.take_request(head, stamp, inputs);
        }
        self.advance_answers(now, true, inputs);
        if let AnswerState::Body { answering, .. } = &mut self.answer
            && let Some(answering) = answering.take()
        {
            inputs.push(answering.into_input());
        }
        if !self.waiting.is_empty() {
            let outcome = self.outcome_without_answer(without_answer);
            self.forget_first(outcome, inputs);
        }
        while !self.waiting.is_empty() {
            self.forget_first(without_answer, inputs);
        }
    }

    fn advance(&mut self, now: BootNs, hurry: bool, inputs: &mut Vec<Input>) {
        self.advance_requests(now, hurry, inputs);
        self.advance_answers(now, hurry, inputs);
    }

    /// Tells the first waiting request without its answer.
    fn forget_first(&mut self, outcome: MetadataOutcome, inputs: &mut Vec<Input>) {
        if let Some(first) = self.waiting.pop_front() {
            self.forgotten = self.forgotten.saturating_add(1);
            inputs.push(first.into_input(outcome));
        }
    }

    /// The outcome of the first waiting request: bytes that are no complete head are still no silence.
    fn outcome_without_answer(&self, otherwise: MetadataOutcome) -> MetadataOutcome {
        match &self.answer {
            AnswerState::Head(head) if head.is_empty() && !self.answers_missed => otherwise,
            AnswerState::Body { .. } => otherwise,
            _ => MetadataOutcome::Unparsed,
        }
    }

    /// Tells, once per direction, that there is payload which could not be read.
    fn unparsed(&mut self, way: Way, stamp: Stamp, inputs: &mut Vec<Input>) {
        if !self.unparsed_told.contains(&way) {
            self.unparsed_told.push(way);
            inputs.push(fact(&self.who, stamp.time, MetadataOutcome::Unparsed, None, None, None));
        }
    }
}
