//! Whole exchanges through a [`Tracker`], without wire records.

use std::net::{IpAddr, Ipv4Addr};

use agent_ebpf::wire::Owner;

use super::*;
use crate::input::{Category, ImdsVersion, MetadataFact, MetadataOutcome, Method};

mod any_order;
mod limits;
mod losses;
mod read_again;

const KEY: &str = "ASIAIOSFODNN7EXAMPLE";
const ROLE_PATH: &str = "/latest/meta-data/iam/security-credentials/node-role";

/// A tracker and one connection; each packet is a millisecond after the one before.
pub(super) struct Bench {
    pub(super) tracker: Tracker,
    pub(super) inputs: Vec<Input>,
    pub(super) who: Who,
    pub(super) now: u64,
    next: [u32; 2],
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            tracker: Tracker::default(),
            inputs: Vec::new(),
            who: who(7),
            now: 1_000_000,
            next: [1000, u32::MAX - 50],
        }
    }

    /// Sends a packet.
    pub(super) fn send(&mut self, way: Way, payload: &[u8]) {
        self.send_captured(way, payload, payload.len());
    }

    /// Sends a packet of which only the first bytes are captured.
    pub(super) fn send_captured(&mut self, way: Way, payload: &[u8], captured: usize) {
        let seq = self.advance(way, payload.len());
        self.feed(way, seq, payload.len(), &payload[..captured]);
    }

    /// Sends a packet whose record is lost.
    pub(super) fn lose(&mut self, way: Way, payload: &[u8]) {
        self.advance(way, payload.len());
    }

    fn advance(&mut self, way: Way, len: usize) -> u32 {
        self.now += 1_000_000;
        let next = &mut self.next[usize::from(way == Way::Answer)];
        let seq = *next;
        *next = next.wrapping_add(u32::try_from(len).expect("small"));
        seq
    }

    pub(super) fn feed(&mut self, way: Way, seq: u32, len: usize, payload: &[u8]) {
        let segment = Segment {
            who: self.who.clone(),
            way,
            seq,
            payload_len: u32::try_from(len).expect("small"),
            payload,
            stamp: Stamp { time: BootNs(self.now), ttl: if way == Way::Answer { 255 } else { 64 } },
        };
        self.tracker.segment(&segment, &mut self.inputs);
    }

    pub(super) fn request(&mut self, text: &str) {
        self.send(Way::Request, text.as_bytes());
    }

    pub(super) fn answer(&mut self, text: &str) {
        self.send(Way::Answer, text.as_bytes());
    }

    pub(super) fn end(&mut self, established: bool, outcome: Outcome) {
        self.now += 1_000_000;
        let end = ConnectionEnd {
            who: self.who.clone(),
            time: BootNs(self.now),
            start: Some(BootNs(500)),
            established,
            outcome,
        };
        self.tracker.end(end, &mut self.inputs);
    }

    pub(super) fn wait(&mut self, ns: u64) {
        self.now += ns;
        self.tracker.tick(BootNs(self.now), &mut self.inputs);
    }

    /// The facts told since the last call.
    pub(super) fn facts(&mut self) -> Vec<MetadataFact> {
        std::mem::take(&mut self.inputs)
            .into_iter()
            .map(|input| match input {
                Input::Metadata(fact) => *fact,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// The one fact told since the last call.
    pub(super) fn fact(&mut self) -> MetadataFact {
        let mut facts = self.facts();
        assert_eq!(facts.len(), 1, "{facts:#?}");
        facts.remove(0)
    }

    pub(super) fn outcomes(&mut self) -> Vec<MetadataOutcome> {
        self.facts().iter().map(|fact| fact.outcome).collect()
    }
}

pub(super) fn who(cookie: u64) -> Who {
    let owner = Owner { start_ns: 5, tgid: 42, pad: 0 };
    Who {
        cgroup_id: 99,
        cookie,
        process: Some(NamedProcess { owner, comm: "curl".to_owned() }),
        ancestors: Vec::new(),
        sender_only: false,
        ends: Ends {
            local: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            local_port: 40000,
            remote: IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
            remote_port: 80,
            netns: 1,
        },
        service: Service::Imds,
    }
}

pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\nX-aws-ec2-metadata-token: secret\r\n\r\n")
}

pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(super) fn credentials() -> String {
    format!(
        "{{\n  \"Code\" : \"Success\",\n  \"AccessKeyId\" : \"{KEY}\",\n  \"SecretAccessKey\" : \"secret\",\n  \"Token\" : \"secret\"\n}}"
    )
}

#[test]
fn token_then_role_then_credentials_on_one_connection() {
    let mut bench = Bench::new();
    bench.request(
        "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 0\r\n\r\n",
    );
    bench.answer(&ok("secret"));
    let token = bench.fact();
    let request = token.request.expect("a request");
    assert_eq!((request.method, request.category, request.version), (Method::Put, Category::Token, ImdsVersion::V2));
    let response = token.response.expect("an answer");
    assert_eq!((response.status, response.ttl, response.bytes), (200, 255, 6));
    assert_eq!((token.outcome, token.latency_ns), (MetadataOutcome::Ok, Some(1_000_000)));
    assert_eq!(token.process, who(7).process);

    bench.request(&get("/latest/meta-data/iam/security-credentials/"));
    bench.answer(&ok("node-role"));
    assert_eq!(bench.fact().request.expect("a request").category, Category::RoleList);

    bench.request(&get(ROLE_PATH));
    bench.answer(&ok(&credentials()));
    let taken = bench.fact();
    assert_eq!(taken.request.expect("a request").role.as_deref(), Some("node-role"));
    assert_eq!(taken.response.expect("an answer").access_key_id.as_deref(), Some(KEY));

    bench.end(true, Outcome::Established);
    assert_eq!(bench.outcomes(), [], "a connection that had exchanges ends silently");
    assert!(bench.tracker.connections.is_empty());
}

#[test]
fn statuses() {
    for (status, outcome) in [
        (200, MetadataOutcome::Ok),
        (301, MetadataOutcome::Ok),
        (401, MetadataOutcome::Unauthorized),
        (403, MetadataOutcome::Forbidden),
        (404, MetadataOutcome::NotFound),
        (400, MetadataOutcome::Error),
        (503, MetadataOutcome::Error),
    ] {
        let mut bench = Bench::new();
        bench.request(&get("/latest/user-data"));
        bench.answer(&format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(bench.fact().outcome, outcome, "{status}");
    }
}

#[test]
fn bodies() {
    let cases = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 3),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", 5),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", 0),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 0),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 3),
    ];
    for (answer, bytes) in cases {
        let mut bench = Bench::new();
        for _ in 0..2 {
            bench.request(&get("/latest/meta-data/mac"));
            bench.answer(answer);
            assert_eq!(bench.fact().response.expect("an answer").bytes, bytes, "{answer:?}");
        }
    }
}

#[test]
fn head_has_no_body() {
    let mut bench = Bench::new();
    bench.request("HEAD /latest/user-data HTTP/1.1\r\n\r\n");
    bench.answer("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    assert_eq!(bench.fact().response.expect("an answer").bytes, 0);
    bench.request(&get("/latest/meta-data/mac"));
    bench.answer(&ok("x"));
    assert_eq!(bench.fact().outcome, MetadataOutcome::Ok);
}

#[test]
fn body_up_to_the_close() {
    let mut bench = Bench::new();
    bench.request(&get(ROLE_PATH));
    bench.answer("HTTP/1.0 200 OK\r\n\r\n");
    bench.answer(&credentials());
    bench.answer("tail");
    assert_eq!(bench.outcomes(), [], "more may come");
    bench.end(true, Outcome::Established);
    bench.wait(REORDER_WAIT_NS);
    let fact = bench.fact();
    let response = fact.response.expect("an answer");
    assert_eq!(response.bytes, credentials().len() as u64 + 4);
    assert_eq!(response.access_key_id.as_deref(), Some(KEY));
}

#[test]
fn pipelined() {
    let mut bench = Bench::new();
    bench.request(&format!("{}{}", get(ROLE_PATH), get("/latest/user-data")));
    bench.answer(&format!("{}{}", ok(&credentials()), "HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"));
    let facts = bench.facts();
    assert_eq!(facts.len(), 2);
    assert_eq!(facts[0].response.as_ref().and_then(|answer| answer.access_key_id.as_deref()), Some(KEY));
    assert_eq!(facts[1].request.as_ref().map(|request| request.category), Some(Category::UserData));
    assert_eq!(facts[1].outcome, MetadataOutcome::NotFound);
}

#[test]
fn request_with_a_body() {
    let mut bench = Bench::new();
    bench.request("POST /latest/user-data HTTP/1.1\r\nContent-Length: 22\r\n\r\nGET / HTTP/1.1");
    bench.request("\r\n\r\nxxxxPUT /latest/api/token HTTP/1.1\r\n\r\n");
    bench.answer(&ok("a"));
    bench.answer(&ok("b"));
    let methods: Vec<_> = bench.facts().iter().filter_map(|fact| fact.request.as_ref().map(|r| r.method)).collect();
    assert_eq!(methods, [Method::Post, Method::Put]);
}

#[test]
fn key_is_told_only_for_credentials() {
    for (path, key) in [(ROLE_PATH, Some(KEY)), ("/latest/user-data", None), ("/latest/meta-data/mac", None)] {
        let mut bench = Bench::new();
        bench.request(&get(path));
        bench.answer(&ok(&credentials()));
        assert_eq!(bench.fact().response.expect("an answer").access_key_id.as_deref(), key, "{path}");
    }
    let mut bench = Bench::new();
    bench.who.service = Service::PodIdentity;
    bench.request("GET /v1/credentials HTTP/1.1\r\nAuthorization: secret\r\n\r\n");
    bench.answer(&ok(&format!("{{\"AccessKeyId\":\"{KEY}\"}}")));
    let fact = bench.fact();
    assert_eq!(fact.request.map(|request| request.version), Some(ImdsVersion::None));
    assert_eq!(fact.response.expect("an answer").access_key_id.as_deref(), Some(KEY));
}

#[test]
fn connections_without_payload() {
    for (established, outcome, told) in [
        (false, Outcome::TimedOut, MetadataOutcome::Blocked),
        (false, Outcome::Refused, MetadataOutcome::Failed),
        (false, Outcome::Unreachable, MetadataOutcome::Failed),
        (false, Outcome::Denied, MetadataOutcome::Failed),
        (false, Outcome::Aborted, MetadataOutcome::Failed),
        (true, Outcome::Established, MetadataOutcome::Idle),
        (true, Outcome::Reset, MetadataOutcome::Idle),
    ] {
        let mut bench = Bench::new();
        bench.end(established, outcome);
        bench.wait(REORDER_WAIT_NS);
        let fact = bench.fact();
        assert_eq!((fact.outcome, fact.time), (told, BootNs(500)), "{outcome:?}");
        assert_eq!((fact.request, fact.response), (None, None));
        assert!(bench.tracker.connections.is_empty());
    }
}

#[test]
fn unanswered_at_the_end_and_after_the_wait() {
    let mut bench = Bench::new();
    bench.request(&get("/latest/user-data"));
    bench.end(true, Outcome::TimedOut);
    bench.wait(REORDER_WAIT_NS);
    let fact = bench.fact();
    assert_eq!(fact.outcome, MetadataOutcome::Unanswered);
    assert!(fact.request.is_some() && fact.response.is_none());

    let mut bench = Bench::new();
    bench.request(&get("/latest/user-data"));
    bench.wait(ANSWER_WAIT_NS - 1);
    assert_eq!(bench.outcomes(), []);
    bench.wait(1);
    assert_eq!(bench.outcomes(), [MetadataOutcome::Unanswered]);
    bench.answer(&ok("late"));
    let late = bench.fact();
    assert_eq!((late.request, late.outcome), (None, MetadataOutcome::Ok), "the request was told already");
    bench.request(&get("/latest/meta-data/mac"));
    bench.answer(&ok("x"));
    assert!(bench.fact().request.is_some(), "later exchanges pair again");
}

#[test]
fn stop_puts_out_what_is_held() {
    let mut bench = Bench::new();
    bench.request(&get("/latest/user-data"));
    bench.tracker.finish(BootNs(bench.now), &mut bench.inputs);
    assert_eq!(bench.outcomes(), [MetadataOutcome::Unanswered]);
    assert!(bench.tracker.connections.is_empty());
}

#[test]
fn socket_used_twice() {
    let mut bench = Bench::new();
    bench.end(false, Outcome::Refused);
    bench.request(&get("/latest/user-data"));
    bench.end(true, Outcome::Reset);
    // Before that end's wait is over the socket connects anew.
    bench.request(&get("/latest/meta-data/mac"));
    bench.answer(&ok("x"));
    assert_eq!(bench.outcomes(), [MetadataOutcome::Failed, MetadataOutcome::Unanswered, MetadataOutcome::Ok]);
}

#[test]
fn opener_counts_more_than_sender() {
    let mut bench = Bench::new();
    let opener = bench.who.clone();
    bench.who.sender_only = true;
    bench.who.process = Some(NamedProcess { owner: Owner { tgid: 9, ..Owner::default() }, comm: "sender".to_owned() });
    bench.request("GET /latest/user-data HTTP/1.1\r\n");
    bench.who = opener.clone();
    bench.request("\r\n");
    bench.who.process = None;
    bench.answer(&ok("x"));
    let fact = bench.fact();
    assert_eq!((fact.process, fact.sender_only), (opener.process, false));
}
