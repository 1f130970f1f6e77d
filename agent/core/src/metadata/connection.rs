//! One connection to a metadata service: both directions, and which answer belongs to which request.
//!
//! Requests are read as they come. An answer is read only when its request is here, or was waited for: the records of
//! the two directions may arrive in the wrong order. The n-th answer belongs to the n-th request; where records were
//! lost, to the last request that was sent before it.

use std::collections::VecDeque;
use std::sync::Arc;

use agent_ebpf::wire::Outcome;

use super::body::{Body, Passed};
use super::exchange::{Answering, Waiting, fact};
use super::head::{HeadBuffer, Taken};
use super::http::{self, RequestHead};
use super::reassembly::{Chunk, Piece, Reassembly};
use super::{ANSWER_WAIT_NS, ConnectionEnd, IN_FLIGHT, REORDER_WAIT_NS, Segment, Stamp, Way, Who};
use crate::input::{Input, MetadataOutcome};
use crate::time::BootNs;

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
        }
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

    // === requests ===

    fn advance_requests(&mut self, now: BootNs, hurry: bool, inputs: &mut Vec<Input>) {
        while let Some(piece) = self.requests.pop(now, hurry) {
            match piece {
                Piece::Bytes(chunk) => self.request_bytes(chunk, inputs),
                Piece::Gap(bytes, stamp) => self.request_gap(bytes, stamp, inputs),
                Piece::Early(stamp) => self.unparsed(Way::Request, stamp, inputs),
            }
        }
    }

    fn request_bytes(&mut self, mut chunk: Chunk, inputs: &mut Vec<Input>) {
        while !chunk.bytes().is_empty() {
            match &mut self.request {
                RequestState::Lost => {
                    if !chunk.begins_packet() || !http::is_request(chunk.bytes()) {
                        return;
                    }
                    self.request = RequestState::Head(HeadBuffer::default());
                }
                RequestState::Head(head) => match head.take(chunk.bytes(), chunk.stamp, http::may_be_request) {
                    Taken::All => return,
                    Taken::Complete(used) => {
                        chunk.advance(used);
                        let Some((bytes, stamp)) = head.take_out() else { return };
                        let head = http::request(self.who.service, bytes.as_slice());
                        self.take_request(head, stamp, inputs);
                    }
                    Taken::TooLarge => return self.cut_request(inputs),
                    Taken::Implausible => {
                        self.request = RequestState::Lost;
                        return self.unparsed(Way::Request, chunk.stamp, inputs);
                    }
                },
                RequestState::Body(body) => match body.pass(chunk.bytes(), &mut |_| {}) {
                    Passed::Open => return,
                    Passed::Done(used) => {
                        chunk.advance(used);
                        self.request = RequestState::Head(HeadBuffer::default());
                    }
                    Passed::Lost => {
                        self.request = RequestState::Lost;
                        return self.unparsed(Way::Request, chunk.stamp, inputs);
                    }
                },
            }
        }
    }

    fn request_gap(&mut self, bytes: Option<u64>, stamp: Stamp, inputs: &mut Vec<Input>) {
        match &mut self.request {
            RequestState::Lost => return,
            RequestState::Head(head) if !head.is_empty() => return self.cut_request(inputs),
            RequestState::Head(_) => {}
            RequestState::Body(body) => {
                if bytes.and_then(|bytes| body.skip(bytes)) == Some(0) {
                    if body.is_over() {
                        self.request = RequestState::Head(HeadBuffer::default());
                    }
                    return;
                }
            }
        }
        self.request = RequestState::Lost;
        self.unparsed(Way::Request, stamp, inputs);
    }

    /// Makes the best of a head whose rest will not be seen.
    fn cut_request(&mut self, inputs: &mut Vec<Input>) {
        if let RequestState::Head(head) = &mut self.request
            && let Some((bytes, stamp)) = head.take_out()
        {
            let head = http::partial_request(self.who.service, bytes.as_slice());
            self.take_request(head, stamp, inputs);
        }
        self.request = RequestState::Lost;
    }

    /// Takes a request that began with `stamp`; `None` is one that does not parse.
    fn take_request(&mut self, head: Option<RequestHead>, stamp: Stamp, inputs: &mut Vec<Input>) {
        let Some(head) = head else {
            self.request = RequestState::Lost;
            return self.unparsed(Way::Request, stamp, inputs);
        };
        self.request = match Body::of_request(head.framing) {
            Some(body) if body.is_over() => RequestState::Head(HeadBuffer::default()),
            Some(body) => RequestState::Body(body),
            None => RequestState::Lost,
        };
        if self.waiting.len() >= IN_FLIGHT {
            self.forget_first(MetadataOutcome::Unparsed, inputs);
        }
        self.waiting.push_back(Waiting { who: self.who.clone(), head, time: stamp.time });
    }

    // === answers ===

    fn advance_answers(&mut self, now: BootNs, hurry: bool, inputs: &mut Vec<Input>) {
        while let Some(piece) = self.answers.pop(now, hurry) {
            match piece {
                Piece::Bytes(chunk) => {
                    if let Some(early) = self.answer_bytes(chunk, now, hurry, inputs) {
                        return self.answers.give_back(early);
                    }
                }
                Piece::Gap(bytes, stamp) => self.answer_gap(bytes, stamp, inputs),
                Piece::Early(stamp) => self.unparsed(Way::Answer, stamp, inputs),
            }
        }
    }

    /// Reads a chunk and gives back what has to wait for a request.
    fn answer_bytes(&mut self, mut chunk: Chunk, now: BootNs, hurry: bool, inputs: &mut Vec<Input>) -> Option<Chunk> {
        while !chunk.bytes().is_empty() {
            match &mut self.answer {
                AnswerState::Lost => {
                    if !chunk.begins_packet() || !http::is_answer(chunk.bytes()) {
                        return None;
                    }
                    self.answer = AnswerState::Head(HeadBuffer::default());
                }
                AnswerState::Head(head) => {
                    if head.is_empty() && !self.may_read_answer(chunk.stamp.time, now, hurry) {
                        return Some(chunk);
                    }
                    self.answer_head(&mut chunk, inputs)?;
                }
                AnswerState::Body { doubtful: true, .. } if chunk.begins_packet() && http::is_answer(chunk.bytes()) => {
                    self.end_answer(inputs);
                    self.answer = AnswerState::Head(HeadBuffer::default());
                }
                AnswerState::Body { body, answering, doubtful } => {
                    *doubtful = false;
                    let passed = body.pass(chunk.bytes(), &mut |content| {
                        if let Some(answering) = answering {
                            answering.content(content);
                        }
                    });
                    if let Some(ready) = answering.take_if(|answering| answering.is_ready()) {
                        inputs.push(ready.into_input());
                    }
                    match passed {
                        Passed::Open => return None,
                        Passed::Done(used) => {
                            chunk.advance(used);
                            self.end_answer(inputs);
                            self.answer = AnswerState::Head(HeadBuffer::default());
                        }
                        Passed::Lost => {
                            self.lose_answers(inputs);
                            return None;
                        }
                    }
                }
            }
        }
        None
    }

    /// Whether the answer that began at `began` need not wait for its request any more.
    fn may_read_answer(&self, began: BootNs, now: BootNs, hurry: bool) -> bool {
        hurry
            || self.forgotten > 0
            || self.waiting.front().is_some_and(|first| first.time <= began)
            || now.since(began) >= REORDER_WAIT_NS
            || self.answers.is_full()
    }

    /// Takes a piece of head; `None` when nothing of the chunk is left to read.
    fn answer_head(&mut self, chunk: &mut Chunk, inputs: &mut Vec<Input>) -> Option<()> {
        let AnswerState::Head(head) = &mut self.answer else { return None };
        match head.take(chunk.bytes(), chunk.stamp, http::may_be_answer) {
            Taken::All => return None,
            Taken::Complete(used) => chunk.advance(used),
            Taken::Implausible | Taken::TooLarge => {
                self.lose_answers(inputs);
                self.unparsed(Way::Answer, chunk.stamp, inputs);
                return None;
            }
        }
        let (bytes, stamp) = head.take_out()?;
        let Some(head) = http::answer(bytes.as_slice()) else {
            self.lose_answers(inputs);
            self.unparsed(Way::Answer, stamp, inputs);
            return None;
        };
        if (100..200).contains(&head.status) && head.status != 101 {
            // Interim: the answer proper follows.
            return Some(());
        }
        let request = self.pair(stamp.time, inputs);
        let answering = Answering::new(&self.who, request, head, stamp);
        let body = if answering.has_body() { Body::of_answer(head.framing) } else { Body::Length(0) };
        let doubtful = !answering.request_is_known();
        if body.is_over() || answering.is_ready() {
            inputs.push(answering.into_input());
            self.answer = if body.is_over() {
                AnswerState::Head(HeadBuffer::default())
            } else {
                AnswerState::Body { body, answering: None, doubtful }
            };
        } else {
            self.answer = AnswerState::Body { body, answering: Some(Box::new(answering)), doubtful };
        }
        Some(())
    }

    /// The request of the answer that began at `began`.
    fn pair(&mut self, began: BootNs, inputs: &mut Vec<Input>) -> Option<Waiting> {
        if std::mem::take(&mut self.answers_missed) {
            while self.waiting.get(1).is_some_and(|second| second.time <= began) {
                self.forget_first(MetadataOutcome::Unparsed, inputs);
            }
            self.forgotten = 0;
        }
        if self.forgotten > 0 {
            self.forgotten -= 1;
            return None;
        }
        self.waiting.pop_front_if(|first| first.time <= began)
    }

    fn answer_gap(&mut self, bytes: Option<u64>, stamp: Stamp, inputs: &mut Vec<Input>) {
        match &mut self.answer {
            AnswerState::Lost => {}
            AnswerState::Head(_) => {
                self.lose_answers(inputs);
                self.unparsed(Way::Answer, stamp, inputs);
            }
            AnswerState::Body { body, answering, .. } => {
                let behind = bytes.and_then(|bytes| body.skip(bytes));
                let is_over = body.is_over();
                if let (Some(answering), Some(bytes)) = (answering, bytes) {
                    answering.gap(bytes);
                }
                match behind {
                    Some(0) if is_over => {
                        self.end_answer(inputs);
                        self.answer = AnswerState::Head(HeadBuffer::default());
                    }
                    Some(0) => {}
                    _ => self.lose_answers(inputs),
                }
            }
        }
    }

    /// Tells the answer under way, if it was not told.
    fn end_answer(&mut self, inputs: &mut Vec<Input>) {
        if let AnswerState::Body { answering, .. } = &mut self.answer
            && let Some(answering) = answering.take()
        {
            inputs.push(answering.into_input());
        }
    }

    fn lose_answers(&mut self, inputs: &mut Vec<Input>) {
        self.end_answer(inputs);
        self.answer = AnswerState::Lost;
        self.answers_missed = true;
    }

    // === both ===

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
