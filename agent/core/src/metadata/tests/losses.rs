//! Records that were lost, cut, or never HTTP.

use super::*;

#[test]
fn credentials_without_their_request() {
    let mut bench = Bench::new();
    bench.answer(&ok(&credentials()));
    assert_eq!(bench.outcomes(), [], "the request may still come");
    bench.wait(REORDER_WAIT_NS);
    let fact = bench.fact();
    assert_eq!(fact.request, None);
    assert_eq!(fact.response.expect("an answer").access_key_id.as_deref(), Some(KEY));
    assert_eq!((fact.outcome, fact.latency_ns), (MetadataOutcome::Ok, None));
}

#[test]
fn answer_of_an_unknown_head_request() {
    let mut bench = Bench::new();
    bench.answer("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    bench.wait(REORDER_WAIT_NS);
    bench.request(&get("/latest/meta-data/mac"));
    bench.answer(&ok("x"));
    let facts = bench.facts();
    assert_eq!(facts.len(), 2);
    assert_eq!(facts[1].request.as_ref().map(|request| request.category), Some(Category::Metadata));
}

#[test]
fn not_http_is_told_once_per_direction() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.request("\u{16}\u{3}\u{1}\u{2} secret");
        bench.answer("\u{15}\u{3}\u{1}\u{2} secret");
        bench.wait(REORDER_WAIT_NS);
    }
    bench.end(true, Outcome::Reset);
    bench.wait(REORDER_WAIT_NS);
    assert_eq!(bench.outcomes(), [MetadataOutcome::Unparsed, MetadataOutcome::Unparsed]);
}

#[test]
fn broken_heads() {
    let mut bench = Bench::new();
    bench.request("GET / HTTP/9.9\r\n\r\n");
    bench.answer("HTTP/1.1 abc\r\n\r\n");
    bench.wait(REORDER_WAIT_NS);
    assert_eq!(bench.outcomes(), [MetadataOutcome::Unparsed, MetadataOutcome::Unparsed]);
    bench.request(&get("/latest/user-data"));
    bench.answer(&ok("x"));
    assert_eq!(bench.fact().outcome, MetadataOutcome::Ok, "a plausible head in a packet of its own begins anew");
}

#[test]
fn lost_request() {
    let mut bench = Bench::new();
    bench.request(&get("/latest/meta-data/mac"));
    bench.answer(&ok("x"));
    bench.lose(Way::Request, get(ROLE_PATH).as_bytes());
    bench.answer(&ok(&credentials()));
    bench.request(&get("/latest/user-data"));
    bench.answer(&ok("y"));
    bench.wait(REORDER_WAIT_NS);
    let facts = bench.facts();
    let told: Vec<_> = facts
        .iter()
        .map(|fact| {
            let key = fact.response.as_ref().and_then(|response| response.access_key_id.as_deref());
            (fact.outcome, fact.request.as_ref().map(|request| request.category), key)
        })
        .collect();
    assert_eq!(
        told,
        [
            (MetadataOutcome::Ok, Some(Category::Metadata), None),
            (MetadataOutcome::Unparsed, None, None),
            (MetadataOutcome::Ok, None, Some(KEY)),
            (MetadataOutcome::Ok, Some(Category::UserData), None),
        ]
    );
}

#[test]
fn lost_answer() {
    let mut bench = Bench::new();
    bench.request(&get("/latest/meta-data/mac"));
    bench.answer(&ok("x"));
    bench.request(&get(ROLE_PATH));
    bench.lose(Way::Answer, ok("x").as_bytes());
    bench.request(&get("/latest/user-data"));
    bench.answer(&ok("y"));
    bench.wait(REORDER_WAIT_NS);
    let told: Vec<_> = bench
        .facts()
        .iter()
        .map(|fact| (fact.outcome, fact.request.as_ref().map(|request| request.category), fact.response.is_some()))
        .collect();
    assert_eq!(
        told,
        [
            (MetadataOutcome::Ok, Some(Category::Metadata), true),
            (MetadataOutcome::Unparsed, None, false),
            (MetadataOutcome::Unparsed, Some(Category::RoleCredentials), false),
            (MetadataOutcome::Ok, Some(Category::UserData), true),
        ]
    );
}

#[test]
fn body_that_was_captured_in_part() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.request(&get("/latest/user-data"));
        let answer = ok(&"x".repeat(60_000));
        bench.send_captured(Way::Answer, answer.as_bytes(), 4096);
        let fact = bench.fact();
        assert_eq!((fact.outcome, fact.response.map(|response| response.bytes)), (MetadataOutcome::Ok, Some(60_000)));
    }
}

#[test]
fn chunked_body_that_was_captured_in_part() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.request(&get("/latest/user-data"));
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(5));
        bench.send_captured(Way::Answer, answer.as_bytes(), 4096);
        bench.wait(1);
        let fact = bench.fact();
        assert_eq!(fact.outcome, MetadataOutcome::Ok);
        assert!(fact.request.is_some(), "the next answer is found where its packet begins");
    }
}

#[test]
fn key_behind_what_was_captured() {
    let mut bench = Bench::new();
    bench.request(&get(ROLE_PATH));
    let answer = ok(&format!("{}{}", " ".repeat(8000), credentials()));
    bench.send_captured(Way::Answer, answer.as_bytes(), 4096);
    let fact = bench.fact();
    assert_eq!(fact.response.map(|response| response.access_key_id), Some(None));
}

#[test]
fn head_larger_than_a_record() {
    let mut bench = Bench::new();
    let request = format!("GET {ROLE_PATH} HTTP/1.1\r\nX-Filler: {}\r\n\r\n", "x".repeat(5000));
    bench.send_captured(Way::Request, request.as_bytes(), 4096);
    bench.answer(&ok(&credentials()));
    let fact = bench.fact();
    assert_eq!(fact.outcome, MetadataOutcome::Truncated);
    let request = fact.request.expect("a request");
    assert_eq!((request.role.as_deref(), request.version), (Some("node-role"), ImdsVersion::None));
    assert_eq!(fact.response.expect("an answer").access_key_id.as_deref(), Some(KEY));
    bench.request(&get("/latest/user-data"));
    bench.answer(&ok("x"));
    assert_eq!(bench.fact().outcome, MetadataOutcome::Ok);
}

#[test]
fn head_larger_than_is_held() {
    for piece in [1000, 1460, 4096] {
        let mut bench = Bench::new();
        let request = format!("GET /latest/user-data?{} HTTP/1.1\r\n\r\n", "x".repeat(HELD_BYTES));
        for piece in request.as_bytes().chunks(piece) {
            bench.send(Way::Request, piece);
        }
        bench.answer(&ok("x"));
        let fact = bench.fact();
        assert_eq!(fact.outcome, MetadataOutcome::Truncated);
        assert_eq!(fact.request.map(|request| request.category), Some(Category::UserData));
    }
}

#[test]
fn heads_that_break_off() {
    let mut bench = Bench::new();
    bench.request("GET /latest/user-data HTTP/1.1\r\nHos");
    bench.end(true, Outcome::Reset);
    bench.wait(REORDER_WAIT_NS);
    let fact = bench.fact();
    assert_eq!(fact.outcome, MetadataOutcome::Truncated);
    assert_eq!(fact.request.map(|request| request.category), Some(Category::UserData));

    let mut bench = Bench::new();
    bench.request(&get("/latest/user-data"));
    bench.answer("HTTP/1.1 200 OK\r\nCont");
    bench.end(true, Outcome::Reset);
    bench.wait(REORDER_WAIT_NS);
    let fact = bench.fact();
    assert_eq!(fact.outcome, MetadataOutcome::Unparsed, "bytes came back, so it is not unanswered");
    assert!(fact.request.is_some());
}

#[test]
fn body_that_breaks_off() {
    let mut bench = Bench::new();
    bench.request(&get(ROLE_PATH));
    bench.answer("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{");
    bench.wait(ANSWER_WAIT_NS);
    let fact = bench.fact();
    assert_eq!((fact.outcome, fact.response.map(|response| response.bytes)), (MetadataOutcome::Ok, Some(1000)));
    bench.end(true, Outcome::Reset);
    bench.wait(REORDER_WAIT_NS);
    assert_eq!(bench.outcomes(), [], "told once");
}

#[test]
fn connection_older_than_the_agent() {
    let mut bench = Bench::new();
    bench.request("ken: secret\r\n\r\n");
    bench.wait(REORDER_WAIT_NS);
    assert_eq!(bench.outcomes(), [MetadataOutcome::Unparsed]);
    bench.answer(&ok("x"));
    bench.wait(REORDER_WAIT_NS);
    assert_eq!(bench.fact().request, None);
    bench.request(&get("/latest/user-data"));
    bench.answer(&ok("x"));
    assert!(bench.fact().request.is_some());
}
