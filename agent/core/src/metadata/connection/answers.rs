//! Reading the service's direction, and finding the request of each answer.

use super::{AnswerState, Connection};
use crate::input::{Input, MetadataOutcome};
use crate::metadata::body::{Body, Passed};
use crate::metadata::exchange::{Answering, Waiting};
use crate::metadata::head::{HeadBuffer, Taken};
use crate::metadata::http;
use crate::metadata::reassembly::{Chunk, Piece};
use crate::metadata::{REORDER_WAIT_NS, Stamp, Way};
use crate::time::BootNs;

impl Connection {
    pub(super) fn advance_answers(&mut self, now: BootNs, hurry: bool, inputs: &mut Vec<Input>) {
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
}
