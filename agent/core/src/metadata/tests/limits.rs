//! Floods: every bound holds, and nothing vanishes silently.

use super::*;

#[test]
fn too_many_connections() {
    let mut bench = Bench::new();
    // A quiet pod with one connection, then another pod that opens many.
    bench.who.cgroup_id = 5;
    bench.request(&get("/latest/user-data"));
    let quiet = bench.who.clone();
    for cookie in 0..MAX_CONNECTIONS as u64 + 10 {
        bench.who = who(1000 + cookie);
        bench.next = [1000, 2000];
        bench.request(&get("/latest/meta-data/mac"));
    }
    assert_eq!(bench.tracker.connections.len(), MAX_CONNECTIONS);
    assert_eq!(bench.tracker.evicted(), 11);
    let given_up = bench.facts();
    assert_eq!(given_up.len(), 11);
    assert!(given_up.iter().all(|fact| fact.outcome == MetadataOutcome::Unparsed && fact.cgroup_id == 99));
    assert_eq!(given_up[0].cookie, 1000, "the one silent longest goes first");
    bench.who = quiet;
    bench.next = [1000, 2000];
    bench.answer(&ok("x"));
    assert_eq!(bench.fact().cgroup_id, 5, "the quiet pod lost nothing");
}

#[test]
fn too_many_requests_in_flight() {
    let mut bench = Bench::new();
    for _ in 0..IN_FLIGHT + 3 {
        bench.request(&get("/latest/user-data"));
    }
    assert_eq!(bench.outcomes(), [MetadataOutcome::Unparsed; 3]);
    for _ in 0..IN_FLIGHT + 3 {
        bench.answer(&ok("x"));
    }
    let facts = bench.facts();
    assert_eq!(facts.iter().filter(|fact| fact.request.is_none()).count(), 3);
    assert_eq!(facts.iter().filter(|fact| fact.request.is_some()).count(), IN_FLIGHT);
}

#[test]
fn held_bytes_are_bounded_in_all() {
    let mut bench = Bench::new();
    for cookie in 0..MAX_CONNECTIONS as u64 {
        bench.who = who(cookie);
        bench.next = [1000, 2000];
        bench.request("GET /latest/user-data HTTP/1.1\r\nX-Filler: ");
        // Out of order, so that it is held too.
        bench.lose(Way::Request, b"x");
        bench.send(Way::Request, &[b'x'; 4096]);
        let held: usize = bench.tracker.connections.values().map(Connection::held_bytes).sum();
        assert_eq!(bench.tracker.held_bytes, held);
        assert!(held <= TOTAL_HELD_BYTES);
    }
    assert!(bench.tracker.evicted() > 0);
    let evicted = usize::try_from(bench.tracker.evicted()).expect("small");
    assert!(bench.facts().iter().all(|fact| fact.outcome == MetadataOutcome::Truncated));
    bench.tracker.finish(BootNs(bench.now), &mut bench.inputs);
    assert_eq!(bench.facts().len(), MAX_CONNECTIONS - evicted);
}

#[test]
fn one_byte_packets() {
    let mut bench = Bench::new();
    let (request, answer) = (get(ROLE_PATH), ok(&credentials()));
    for byte in request.as_bytes().chunks(1) {
        bench.send(Way::Request, byte);
    }
    for byte in answer.as_bytes().chunks(1) {
        bench.send(Way::Answer, byte);
    }
    let fact = bench.fact();
    assert_eq!(fact.response.expect("an answer").access_key_id.as_deref(), Some(KEY));
}
