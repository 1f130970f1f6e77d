//! Reading the client's direction.

use super::{Connection, RequestState};
use crate::input::{Input, MetadataOutcome};
use crate::metadata::body::{Body, Passed};
use crate::metadata::exchange::Waiting;
use crate::metadata::head::{HeadBuffer, Taken};
use crate::metadata::http::{self, RequestHead};
use crate::metadata::reassembly::{Chunk, Piece};
use crate::metadata::{IN_FLIGHT, Stamp, Way};
use crate::time::BootNs;

impl Connection {
    pub(super) fn advance_requests(&mut self, now: BootNs, hurry: bool, inputs: &mut Vec<Input>) {
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
    pub(super) fn take_request(&mut self, head: Option<RequestHead>, stamp: Stamp, inputs: &mut Vec<Input>) {
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
}
