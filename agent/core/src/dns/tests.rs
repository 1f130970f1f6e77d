//! Messages made by hand, and what becomes of them.

use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::testing::{CGROUP, SECOND, ends};

mod hostile;
mod names;
mod queries;
mod rows;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// A name in wire form.
fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

/// A message: header with these flags and counts, one question, and whatever follows.
fn message(flags: u16, (name, record_type): (&str, u16), answers: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [7, flags, 1, u16::try_from(answers.len()).expect("few"), 0, 0].map(u16::to_be_bytes).concat();
    bytes.extend(wire(name));
    bytes.extend([record_type.to_be_bytes(), 1_u16.to_be_bytes()].concat());
    bytes.extend(answers.concat());
    bytes
}

fn record(owner: &[u8], record_type: u16, ttl_s: u32, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).expect("small").to_be_bytes();
    [owner, &record_type.to_be_bytes(), &1_u16.to_be_bytes(), &ttl_s.to_be_bytes(), &len, data].concat()
}

fn a(owner: &str, ttl_s: u32, ip: [u8; 4]) -> Vec<u8> {
    record(&wire(owner), A, ttl_s, &ip)
}

fn alias(owner: &str, ttl_s: u32, target: &str) -> Vec<u8> {
    record(&wire(owner), CNAME, ttl_s, &wire(target))
}

fn fact(second: u64, cookie: u64, message: DnsMessage) -> DnsFact {
    DnsFact {
        time: BootNs(second * SECOND),
        cgroup_id: CGROUP,
        cookie,
        ends: ends("10.0.0.1", 40_000, "10.100.0.10", 53),
        bytes: 60,
        message: Some(message),
    }
}

fn query(second: u64, cookie: u64, name: &str) -> DnsFact {
    let message = DnsMessage { id: 7, name: name.into(), record_type: A, answer: None };
    fact(second, cookie, message)
}

fn answer(second: u64, cookie: u64, name: &str, code: DnsCode, addresses: &[(&str, u32)]) -> DnsFact {
    let addresses: Vec<(IpAddr, u32)> =
        addresses.iter().map(|(ip, ttl_s)| (ip.parse().expect("an address"), *ttl_s)).collect();
    let answer = DnsAnswer { code, truncated: false, records: u16::try_from(addresses.len()).expect("few"), addresses };
    fact(second, cookie, DnsMessage { id: 7, name: name.into(), record_type: A, answer: Some(answer) })
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_query_says_what_is_asked() {
    let read = parse(&message(0x0100, ("WWW.Example.COM", AAAA), &[]), false).expect("a query");
    assert_eq!(read, DnsMessage { id: 7, name: "www.example.com".into(), record_type: AAAA, answer: None });
    let root = parse(&message(0x0100, ("", 2), &[]), false).expect("a query");
    assert_eq!(&*root.name, ".");
    let odd =
        [&[7, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat()[..], &[3, b'a', 0x1b, b'.', 0, 0, 1, 0, 1]].concat();
    let odd = parse(&odd, false).expect("a query");
    assert!(!odd.name.contains(char::is_control) && odd.name.len() > 3, "{odd:?}");
}

#[test]
fn only_plain_queries_and_answers_going_their_way_are_read() {
    let query = message(0x0100, ("a.example", A), &[]);
    let answer = message(0x8180, ("a.example", A), &[]);
    assert_eq!(parse(&query, true), None, "a query from the server's side");
    assert_eq!(parse(&answer, false), None, "an answer from the client's side");
    assert_eq!(parse(&message(0x2800, ("a.example", A), &[]), false), None, "an update");
    for questions in [0, 2] {
        let mut changed = query.clone();
        changed[5] = questions;
        assert_eq!(parse(&changed, false), None, "{questions} questions");
    }
    for len in 0..query.len() {
        assert_eq!(parse(&query[..len], false), None, "cut to {len}");
    }
}

#[test]
fn addresses_are_found_by_aliases_in_any_order_with_the_least_time() {
    let mut answers = vec![
        alias("www.example.com", 300, "lb.example.net"),
        alias("lb.example.net", 20, "edge.example.org"),
        a("edge.example.org", 60, [192, 0, 2, 1]),
        a("edge.example.org", 60, [192, 0, 2, 2]),
        a("other.example.org", 60, [192, 0, 2, 9]),
    ];
    for _ in 0..answers.len() {
        answers.rotate_left(1);
        let read = parse(&message(0x8180, ("www.Example.com", A), &answers), true).expect("an answer");
        let answer = read.answer.expect("an answer");
        let mut addresses = answer.addresses.clone();
        addresses.sort_unstable();
        assert_eq!(addresses, [(ip("192.0.2.1"), 20), (ip("192.0.2.2"), 20)]);
        assert_eq!((answer.code, answer.truncated, answer.records), (DnsCode::NoError, false, 5));
    }
}

#[test]
fn compressed_names_are_read_and_both_families() {
    let mapped = ip("::ffff:192.0.2.7");
    let IpAddr::V6(mapped) = mapped else { unreachable!() };
    let answers = [
        record(&[0xc0, 12], A, 5, &[192, 0, 2, 1]),
        record(&[0xc0, 12], AAAA, 6, &"2001:db8::1".parse::<std::net::Ipv6Addr>().expect("v6").octets()),
        record(&[0xc0, 12], AAAA, 7, &mapped.octets()),
    ];
    let read = parse(&message(0x8180, ("db.example", A), &answers), true).and_then(|read| read.answer).expect("read");
    assert_eq!(read.addresses, [(ip("192.0.2.1"), 5), (ip("2001:db8::1"), 6), (ip("192.0.2.7"), 7)]);
}

#[test]
fn what_stands_before_a_cut_counts() {
    let answers: Vec<_> = (0..80).map(|n| record(&[0xc0, 12], A, 5, &[10, 0, 0, n])).collect();
    let whole = message(0x8180, ("many.example", A), &answers);
    let read = |bytes: &[u8]| parse(bytes, true).and_then(|read| read.answer).expect("an answer");
    let head = read(&whole[..agent_ebpf::wire::DNS_BYTES]);
    assert_eq!((head.records, head.addresses.len()), (80, (agent_ebpf::wire::DNS_BYTES - 30) / 16));
    assert_eq!(read(&whole).addresses.len(), MAX_RECORDS);
}

#[test]
fn response_codes_and_truncation_are_told() {
    let code = |flags| parse(&message(flags, ("a.example", A), &[]), true).and_then(|read| read.answer).expect("read");
    assert_eq!(code(0x8183).code, DnsCode::NxDomain);
    assert_eq!(code(0x8182).code, DnsCode::ServFail);
    assert_eq!(code(0x8185).code, DnsCode::Other);
    assert!(code(0x8380).truncated && !code(0x8180).truncated);
}
