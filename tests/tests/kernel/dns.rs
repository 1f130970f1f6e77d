//! Messages to and from port 53 on every kernel: each one is a record, of any size and of both families, and none is lost
//! unseen. What they say is tested with real servers and clients on the host.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use system_tests::metrics::Metrics;
use system_tests::protocol::{Moved, Op};
use system_tests::{Agent, Lab, Pod, Wire, scale};

/// Sizes at the edges of what a record has room for.
const SIZES: [usize; 11] = [24, 64, 127, 128, 129, 255, 256, 257, 1_024, 1_025, 1_400];

/// A query for the addresses of `a`, with zeros behind it: all of it ASCII.
fn query(id: u8, bytes: usize) -> String {
    let mut text = format!("\0{}\u{1}\0\0\u{1}\0\0\0\0\0\0\u{1}a\0\0\u{1}\0\u{1}", char::from(id));
    text.extend(std::iter::repeat_n('\0', bytes.saturating_sub(text.len())));
    text
}

fn queries(metrics: &Metrics, pod: &Pod, outcome: &str) -> f64 {
    let workload = format!("pod-{}", pod.uid);
    metrics.sum("sekisho_dns_queries_total", &[("workload", &workload), ("outcome", outcome)])
}

/// Waits until so many queries of a pod were told with one of two outcomes.
fn wait_for(agent: &Agent, pod: &Pod, outcomes: [&str; 2], expected: u32) -> Result<Metrics> {
    let deadline = Instant::now() + scale::deadline();
    loop {
        let metrics = agent.metrics()?;
        let told: f64 = outcomes.iter().map(|outcome| queries(&metrics, pod, outcome)).sum();
        if told > f64::from(expected) - 0.5 {
            return Ok(metrics);
        }
        ensure!(Instant::now() < deadline, "{told} of {expected} queries in {:?}", scale::deadline());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn every_message_is_a_record_of_its_client_alone() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (resolver, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut server, mut client) = (resolver.actor(&lab.server)?, caller.actor(&lab.client)?);
    for address in [lab.server_v4(53), lab.server_v6(53)] {
        let _: Vec<SocketAddr> = server.ask(&Op::ServeUdp { address, sockets: 1 })?;
        let socket = format!("to {address}");
        let _: SocketAddr = client.ask(&Op::UdpConnect { socket: socket.clone(), address })?;
        for (id, bytes) in (0..).zip(SIZES) {
            let sent: Moved = client.ask(&Op::SendText { socket: socket.clone(), text: query(id, bytes) })?;
            ensure!(sent.bytes == bytes as u64, "{sent:?} of {bytes} bytes");
            // What the server gives back is no answer.
            client.receive_datagram(&socket)?;
        }
    }
    let expected = u32::try_from(2 * SIZES.len())?;
    let metrics = wait_for(&agent, &caller, ["unanswered", "unknown"], expected)?;
    for (outcome, count) in [("unanswered", f64::from(expected)), ("unknown", 0.0)] {
        let told = queries(&metrics, &caller, outcome);
        ensure!((told - count).abs() < 0.5, "{told} queries are {outcome}");
    }
    // The server's side, where the peer's port is another, makes none: it would double them.
    assert!(
        !metrics.text.contains(&format!("sekisho_dns_queries_total{{namespace=\"\",workload=\"pod-{}\"", resolver.uid))
    );
    // And what came back was seen as well.
    let books = agent.books_with("dns", u64::from(2 * expected))?;
    books.check()?;
    agent.finish()?;
    Ok(())
}

#[test]
fn messages_that_find_no_room_are_counted_and_the_books_balance() -> Result<()> {
    const MESSAGES: u8 = 120;
    let lab = Lab::new(Wire::Veth)?;
    let caller = Pod::new()?;
    let agent = Agent::with(json!({ "kernel": { "bulk_ring_bytes": 4096 } }))?;
    let mut client = caller.actor(&lab.client)?;
    // A ring of 18 messages that nobody empties.
    agent.pause()?;
    let socket = "silent".to_owned();
    let _: SocketAddr = client.ask(&Op::UdpConnect { socket: socket.clone(), address: lab.swallowed(53) })?;
    for id in 0..MESSAGES {
        let _: Moved = client.ask(&Op::SendText { socket: socket.clone(), text: query(id, 60) })?;
    }
    agent.resume()?;
    let books = agent.books_with("dns", MESSAGES.into())?;
    books.check()?;
    let dns = books.of("dns")?;
    let refused = dns.fate("suppressed")? + dns.fate("lost_ring")?;
    ensure!(refused >= u64::from(MESSAGES) - 20 && dns.fate("aggregated")? + refused == dns.seen, "{dns:?}");
    // Of those that were seen nobody can say that they got no answer.
    let metrics = wait_for(&agent, &caller, ["unanswered", "unknown"], 1)?;
    ensure!(queries(&metrics, &caller, "unanswered") < 0.5, "an answer may have been lost");
    agent.finish()?;
    Ok(())
}
