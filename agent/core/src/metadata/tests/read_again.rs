//! Records read again after a crash: from the place that the tracker names, every exchange is told with the key that it had,
//! and none is missed.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::continuity::{Key, Place, Resume};

struct Packet {
    cookie: u64,
    way: Way,
    seq: u32,
    payload: String,
}

/// Two connections that talk across each other: several requests on one connection, two of them in one packet, an answer
/// in pieces, a head in pieces.
fn packets() -> Vec<Packet> {
    let get = |path: &str| format!("GET /latest/{path} HTTP/1.1\r\nHost: imds\r\n\r\n");
    let ok = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let whole = get("meta-data/iam/info");
    let (head, rest) = whole.split_at(20);
    let answer = ok("0123456789");
    let (begin, end) = answer.split_at(12);
    let pieces = [
        (7, Way::Request, get("meta-data/instance-id")),
        (8, Way::Request, head.to_owned()),
        (7, Way::Answer, ok("i-1")),
        (8, Way::Request, rest.to_owned()),
        (7, Way::Request, get("user-data") + &get("user-data")),
        (8, Way::Answer, begin.to_owned()),
        (7, Way::Answer, ok("a") + &ok("b")),
        (7, Way::Request, get("dynamic/instance-identity/document")),
        (8, Way::Answer, end.to_owned()),
        (8, Way::Request, get("meta-data/mac")),
        (7, Way::Answer, ok("{}")),
    ];
    let mut next: BTreeMap<(u64, bool), u32> = BTreeMap::new();
    pieces
        .into_iter()
        .map(|(cookie, way, payload)| {
            let next = next.entry((cookie, way == Way::Answer)).or_insert(1_000);
            let seq = *next;
            *next += u32::try_from(payload.len()).expect("small");
            Packet { cookie, way, seq, payload }
        })
        .collect()
}

/// Takes the packets from one on, each in a place of its own.
fn feed(tracker: &mut Tracker, packets: &[Packet], from: usize) -> Vec<Input> {
    let mut inputs = Vec::new();
    for (at, packet) in packets.iter().enumerate().skip(from) {
        tracker.at(place(at));
        let segment = Segment {
            who: Who { cookie: packet.cookie, ..who(packet.cookie) },
            way: packet.way,
            seq: packet.seq,
            payload_len: u32::try_from(packet.payload.len()).expect("small"),
            payload: packet.payload.as_bytes(),
            stamp: Stamp { time: BootNs(1_000_000 * (at as u64 + 1)), ttl: 64 },
        };
        tracker.segment(&segment, &mut inputs);
    }
    inputs
}

fn place(at: usize) -> Place {
    Place { position: at as u64 * 100, records: at as u64 }
}

fn told(inputs: Vec<Input>) -> Vec<(Key, String)> {
    let fact = |input| {
        let Input::Metadata(fact) = input else { return None };
        let key = fact.origin.expect("a place").key;
        let fact = MetadataFact { origin: None, ..*fact };
        Some((key, format!("{fact:?}")))
    };
    inputs.into_iter().filter_map(fact).collect()
}

/// What the rows of these facts tell of their connections.
fn until(inputs: &[Input]) -> HashMap<u64, u64> {
    let origin = |input: &Input| if let Input::Metadata(fact) = input { fact.origin } else { None };
    inputs.iter().filter_map(origin).filter_map(|origin| Some((origin.key.cookie, origin.until?))).collect()
}

#[test]
fn whenever_it_is_cut_off_nothing_is_missed_and_nothing_has_another_key() {
    let packets = packets();
    let mut whole = Tracker::default();
    let mut inputs = feed(&mut whole, &packets, 0);
    assert_eq!(whole.untold(), Some(place(9)), "the last request of the second connection waits");
    whole.finish(BootNs(100_000_000), &mut inputs);
    let expected: BTreeMap<Key, String> = told(inputs.clone()).into_iter().collect();
    assert_eq!((expected.len(), told(inputs).len()), (6, 6), "keys tell them apart");

    for cut in 0..=packets.len() {
        let mut first = Tracker::default();
        let before = feed(&mut first, &packets[..cut], 0);
        let resumed = until(&before);
        let mut all: BTreeMap<Key, String> = told(before).into_iter().collect();
        let from = first.untold().unwrap_or(place(cut));
        assert!(from <= place(cut));
        let mut second = Tracker::default();
        second.resume(Resume { told: resumed, ..Resume::default() });
        let mut inputs = feed(&mut second, &packets, usize::try_from(from.records).expect("small"));
        second.finish(BootNs(100_000_000), &mut inputs);
        for (key, fact) in told(inputs) {
            // Told again or for the first time: the same key names the same exchange.
            assert_eq!(expected.get(&key), Some(&fact), "cut {cut}");
            all.insert(key, fact);
        }
        assert_eq!(all, expected, "cut {cut}");
    }
}

#[test]
fn the_end_of_a_connection_that_was_told_is_no_row() {
    let end = |start: u64| ConnectionEnd {
        who: who(7),
        time: BootNs(5_000_000),
        start: Some(BootNs(start)),
        established: true,
        outcome: Outcome::Established,
    };
    let mut tracker = Tracker::default();
    tracker.resume(Resume { since: BootNs(1_000), ..Resume::default() });
    let mut inputs = Vec::new();
    tracker.at(place(3));
    tracker.end(end(999), &mut inputs);
    tracker.finish(BootNs(6_000_000), &mut inputs);
    assert_eq!(told(inputs), []);
    // One that began later was seen whole: it carried nothing.
    let mut inputs = Vec::new();
    tracker.end(end(1_001), &mut inputs);
    tracker.finish(BootNs(6_000_000), &mut inputs);
    assert_eq!(told(inputs).len(), 1);
}

#[test]
fn what_is_quiet_holds_no_place() {
    let packets = packets();
    let mut tracker = Tracker::default();
    feed(&mut tracker, &packets[..1], 0);
    assert_eq!(tracker.untold(), Some(place(0)));
    tracker.forget_places();
    assert_eq!(tracker.untold(), None);
}
