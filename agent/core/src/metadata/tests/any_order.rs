//! The facts of an exchange do not depend on how its bytes are cut into packets, nor on the order of the records.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// A packet: direction, position in its stream, payload.
#[derive(Clone, Debug)]
struct Packet {
    way: Way,
    at: usize,
    payload: Vec<u8>,
    time: u64,
}

/// Exchanges of a keep-alive connection: what the client says, what the service says.
fn dialogues() -> Vec<Vec<(String, String)>> {
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        " ".repeat(16),
        credentials().len(),
        credentials()
    );
    vec![
        vec![
            ("PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n".into(), ok("secret")),
            (get("/latest/meta-data/iam/security-credentials/"), ok("node-role")),
            (get(ROLE_PATH), ok(&credentials())),
        ],
        vec![
            ("HEAD /latest/user-data HTTP/1.1\r\n\r\n".into(), "HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n".into()),
            (
                "POST /latest/x HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /".into(),
                "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 403 F\r\nContent-Length: 0\r\n\r\n".into(),
            ),
            ("GET /latest/user-data HTTP/1.1\nX-Forwarded-For: 10.1.1.1\n\n".into(), ok(&"d".repeat(300))),
        ],
        vec![(get(ROLE_PATH), chunked), (get("/opc/v1/"), "HTTP/1.1 404 N\nContent-Length: 0\n\n".into())],
    ]
}

/// The packets of a dialogue, cut at the given places, in the order they were sent.
fn packets(dialogue: &[(String, String)], cuts: &[Index]) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut at = [0, 0];
    for (request, answer) in dialogue {
        for (way, text) in [(Way::Request, request), (Way::Answer, answer)] {
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            places.dedup();
            for place in places.windows(2) {
                let at = &mut at[usize::from(way == Way::Answer)];
                let payload = text.as_bytes()[place[0]..place[1]].to_vec();
                let time = 1_000_000 + 1000 * packets.len() as u64;
                packets.push(Packet { way, at: *at, payload: payload.clone(), time });
                *at += payload.len();
            }
        }
    }
    packets
}

/// All bytes of one direction.
fn stream(dialogue: &[(String, String)], way: Way) -> Vec<u8> {
    let said = dialogue.iter().map(|(request, answer)| if way == Way::Request { request } else { answer });
    said.flat_map(|text| text.bytes()).collect()
}

/// What does not depend on the cutting: times of first bytes do, by a little.
fn facts(packets: &[Packet], starts: [u32; 2], end: u64) -> Vec<MetadataFact> {
    let mut bench = Bench::new();
    for packet in packets {
        bench.now = packet.time;
        let seq = starts[usize::from(packet.way == Way::Answer)].wrapping_add(u32::try_from(packet.at).expect("small"));
        bench.feed(packet.way, seq, packet.payload.len(), &packet.payload);
    }
    bench.now = end;
    bench.end(true, Outcome::Established);
    bench.wait(REORDER_WAIT_NS);
    let mut facts = bench.facts();
    for fact in &mut facts {
        fact.time = BootNs(0);
        fact.latency_ns = fact.latency_ns.map(|_| 0);
    }
    facts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn cutting_and_order_do_not_matter(
        dialogue in 0..3usize,
        cuts in prop::collection::vec(any::<Index>(), 0..12),
        swaps in prop::collection::vec((any::<Index>(), 1..6usize), 0..12),
        repeats in prop::collection::vec((any::<Index>(), any::<Index>(), any::<Index>()), 0..4),
        starts in prop::array::uniform2(prop_oneof![any::<u32>(), u32::MAX - 400..=u32::MAX]),
    ) {
        let dialogue = &dialogues()[dialogue];
        let sent = packets(dialogue, &[]);
        let expected = facts(&sent, starts, 10_000_000);
        prop_assert_eq!(expected.len(), dialogue.len());

        let mut cut = packets(dialogue, &cuts);
        // Records overtake each other by a few places; the first of each direction begins a message, as on a live
        // connection, so that a direction begins where it did.
        for (which, by) in &swaps {
            let from = which.index(cut.len());
            let to = (from + by).min(cut.len() - 1);
            let moved = cut.remove(from);
            cut.insert(to, moved);
        }
        for way in [Way::Request, Way::Answer] {
            let first = cut.iter().position(|p| p.way == way && p.at == 0).expect("a first packet");
            let place = cut.iter().position(|p| p.way == way).expect("some packet");
            let first = cut.remove(first);
            cut.insert(place, first);
        }
        // Retransmissions: a packet again, with some of the bytes before it, later than all of these were sent.
        for (which, place, len) in &repeats {
            let packet = cut[which.index(cut.len())].clone();
            let end = packet.at + packet.payload.len();
            let at = place.index(packet.at + 1);
            let mut payload = stream(dialogue, packet.way)[at..end].to_vec();
            payload.truncate(1 + len.index(payload.len()));
            let position = cut.iter().rposition(|p| p.way == packet.way && p.at < end).expect("it is there");
            cut.insert(position + 1, Packet { at, payload, ..packet });
        }
        prop_assert_eq!(facts(&cut, starts, 10_000_000), expected);
    }
}
