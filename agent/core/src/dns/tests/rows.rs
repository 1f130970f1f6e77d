//! Through the Engine: names in rows, counts by workload, the allowance of an interface.

use super::*;
use crate::capacity::Resource;
use crate::input::{Input, TcpFact, UdpFact};
use crate::output::FlowRow;
use crate::testing::{engine, feed, fold, tcp, tick, udp};

fn dns(fact: DnsFact) -> Input {
    Input::Dns(Box::new(fact))
}

fn resolved(second: u64, cookie: u64, name: &str, address: &str) -> [Input; 2] {
    [dns(query(second, cookie, name)), dns(answer(second, cookie, name, DnsCode::NoError, &[(address, 30)]))]
}

fn to(cookie: u64, start: u64, open: bool) -> Input {
    Input::Tcp(TcpFact { start: Some(BootNs(start * SECOND)), open, ..tcp(cookie) })
}

fn names(rows: &[FlowRow]) -> Vec<(Option<&str>, u64, u64)> {
    rows.iter().map(|row| (row.peer.name.as_deref(), row.connections, row.open)).collect()
}

#[test]
fn rows_show_the_name_of_the_time_when_their_connections_began() {
    let mut engine = engine();
    let inputs = resolved(2, 100, "db.example", "10.0.0.2").into_iter().chain([
        to(1, 1, false),
        to(2, 3, false),
        to(3, 3, true),
    ]);
    let rows = fold(&mut engine, inputs);
    assert_eq!(names(&rows), [(None, 1, 0), (Some("db.example"), 1, 0), (Some("db.example"), 0, 1)]);
    // Another name takes the address: what began before keeps its name, what begins now has none.
    let inputs = resolved(4, 101, "cache.example", "10.0.0.2").into_iter().chain([to(3, 3, false), to(4, 5, false)]);
    let rows = fold(&mut engine, inputs);
    assert_eq!(names(&rows), [(Some("db.example"), 1, 0), (None, 1, 0)]);
    let text = crate::output::Output::Flow(Box::new(rows.into_iter().next().expect("a row"))).to_text();
    assert!(text.contains("(db.example)"), "{text}");
}

#[test]
fn only_outbound_connections_that_were_seen_to_begin_have_names() {
    use agent_ebpf::wire::Direction::{Inbound, Outbound, Unknown};
    let mut engine = engine();
    feed(&mut engine, resolved(1, 100, "db.example", "10.0.0.2"));
    let late = Some(BootNs(2 * SECOND));
    let inputs = [
        Input::Tcp(TcpFact { direction: Inbound, start: late, ..tcp(1) }),
        Input::Tcp(TcpFact { direction: Unknown, start: None, preexisting: true, ..tcp(2) }),
        Input::Udp(UdpFact { direction: Outbound, start: late, ..udp(3) }),
    ];
    let rows = fold(&mut engine, inputs);
    assert_eq!(names(&rows), [(None, 1, 0), (None, 1, 0), (Some("db.example"), 1, 0)]);
}

#[test]
fn counts_are_told_by_workload_with_the_fold_and_the_books_balance() {
    let mut engine = engine();
    feed(&mut engine, resolved(1, 1, "db.example", "10.0.0.2"));
    feed(&mut engine, [dns(DnsFact { message: None, ..query(1, 2, "x") })]);
    assert_eq!(engine.take_dns().count(), 0, "the fold is not over");
    fold(&mut engine, []);
    let told: Vec<_> = engine.take_dns().collect();
    let [(identity, tally)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((&*identity.workload, tally.of(Outcome::Answered)), ("app.service", 1));
    assert_eq!(engine.dns_counts(), Counts { unreadable: 1, ..Counts::default() });
    assert_eq!(engine.take_dns().count(), 0);
    assert_eq!(engine.books().line(crate::books::Ledger::Dns).fate(crate::books::Fate::Aggregated), 3);
}

#[test]
fn queries_to_the_vpcs_resolver_count_against_the_interface_of_their_pod() {
    use crate::facts::{Ec2Fact, InterfaceFacts};
    let mut engine = engine();
    let to = |second, cookie, remote: &str, local: &str| {
        dns(DnsFact { ends: ends(local, 4_000, remote, 53), ..query(second, cookie, "a.example") })
    };
    let interface = InterfaceFacts { id: "eni-1".into(), addresses: vec![ip("10.0.3.4")], ..InterfaceFacts::default() };
    let vpc = Ec2Fact::Vpc {
        id: "vpc-1".into(),
        ranges: vec!["10.0.0.0/16".parse().expect("a range"), "100.64.0.0/16".parse().expect("a range")],
        at: crate::time::WallNs(1),
    };
    feed(&mut engine, [Input::Ec2(Box::new(vpc))]);
    feed(
        &mut engine,
        [Input::Ec2(Box::new(Ec2Fact::Interfaces {
            interfaces: vec![interface],
            missing: Vec::new(),
            at: crate::time::WallNs(1),
        }))],
    );
    let inputs = (0..30).map(|n| to(2, n, "10.0.0.2", "10.0.3.4"));
    let others = [
        to(2, 40, "169.254.169.253", "10.0.3.4"),
        to(2, 41, "fd00:ec2::253", "fd00::1"),
        to(2, 42, "10.0.0.2", "10.0.9.9"),
        to(2, 43, "100.64.0.2", "10.0.3.4"),
        to(2, 44, "10.100.0.10", "10.0.3.4"),
    ];
    feed(&mut engine, inputs.chain(others));
    fold(&mut engine, [tick(3)]);
    let row = engine.capacity();
    let lines = row.resources.iter().filter(|line| line.resource == Resource::LinklocalPackets);
    let mut lines: Vec<_> = lines.map(|line| (line.scope.clone(), line.used, line.limit)).collect();
    lines.sort_by_key(|line| line.1);
    let used: Vec<_> = lines.iter().map(|(_, used, limit)| (*used, *limit)).collect();
    assert_eq!(used, [(Some(3), Some(PACKETS_A_SECOND)), (Some(30), Some(PACKETS_A_SECOND))], "{lines:?}");
    assert!(format!("{:?}", lines.last()).contains("eni-1"), "{lines:?}");
}
