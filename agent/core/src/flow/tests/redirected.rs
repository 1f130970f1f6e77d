//! Connections that are turned to a proxy in the pod: joined by the ends of both sockets, or not at all.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::engine::Engine;
use crate::output::{ActualPeer, PeerClass};

const POD: &str = "10.0.0.1";
const FAR: &str = "192.0.2.9";
const PROXY: &str = "127.0.0.1";
const MILLI: u64 = 1_000_000;
/// What the rows of joined connections tell.
const TURNED: Option<ActualPeer> = Some(ActualPeer { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 15_001 });

/// What the application's socket tells; it begins at a millisecond, and lasts for 300.
fn app(cookie: u64, port: u16, start_ms: u64) -> TcpFact {
    let (start, time) = (BootNs(start_ms * MILLI), BootNs((start_ms + 300) * MILLI));
    TcpFact { start: Some(start), time, ends: ends(POD, port, FAR, 443), ..tcp(cookie) }
}

/// What the socket tells that the proxy accepted.
fn proxy(cookie: u64, port: u16, start_ms: u64, listens: u16) -> TcpFact {
    let ends = ends(PROXY, listens, POD, port);
    TcpFact { direction: Inbound, start: Some(BootNs(start_ms * MILLI)), ends, ..tcp(cookie) }
}

/// An Engine that has seen a proxy accept in this network namespace.
fn world() -> Engine {
    let mut engine = engine();
    let rows = fold_at(&mut engine, [proxy(1, 9, 1, 15_001)], 11);
    assert_eq!(rows.len(), 1);
    engine
}

fn fold_at(engine: &mut Engine, facts: impl IntoIterator<Item = TcpFact>, second: u64) -> Vec<FlowRow> {
    let outputs = feed(engine, facts.into_iter().map(Input::Tcp).chain([tick(second)]));
    flows(&outputs).into_iter().cloned().collect()
}

/// Who answers the application, of each of its rows.
fn answered(rows: &[FlowRow]) -> Vec<Option<ActualPeer>> {
    rows.iter().filter(|row| row.peer.ip.as_deref() == Some(FAR)).map(|row| row.actual_peer).collect()
}

#[test]
fn a_connection_is_joined_to_the_socket_that_accepted_it() {
    // In either order, and the address that was asked for stays.
    for is_first in [false, true] {
        let mut engine = world();
        let mut facts = vec![app(2, 40_000, 12_000), proxy(3, 40_000, 12_001, 15_001)];
        if is_first {
            facts.reverse();
        }
        let rows = fold_at(&mut engine, facts, 21);
        assert_eq!(answered(&rows), [TURNED]);
        let row = rows.iter().find(|row| row.direction == "outbound").unwrap();
        assert_eq!((row.peer.class, row.service_port), (PeerClass::Unknown, Some(443)));
        assert!(row.is_redirected() && row.is_within_pod());
    }
    // The proxy's end was told a fold before.
    let mut engine = world();
    fold_at(&mut engine, [TcpFact { open: true, ..proxy(3, 40_000, 12_001, 15_001) }], 21);
    assert_eq!(answered(&fold_at(&mut engine, [app(2, 40_000, 12_000)], 31)), [TURNED]);
}

#[test]
fn what_is_not_certain_is_not_told() {
    let other = TcpFact { ends: ends(POD, 40_000, "192.0.2.7", 443), ..app(4, 40_000, 12_050) };
    let mut elsewhere = proxy(3, 40_000, 12_001, 15_001);
    elsewhere.ends.netns += 1;
    let accepted = || proxy(3, 40_000, 12_001, 15_001);
    for (what, facts) in [
        ("nobody accepted it", vec![app(2, 40_000, 12_000)]),
        ("from another port", vec![app(2, 40_000, 12_000), proxy(3, 40_001, 12_001, 15_001)]),
        ("before it began", vec![app(2, 40_000, 12_000), proxy(3, 40_000, 11_999, 15_001)]),
        ("long after it began", vec![app(2, 40_000, 12_000), proxy(3, 40_000, 12_500, 15_001)]),
        ("twice", vec![app(2, 40_000, 12_000), accepted(), proxy(5, 40_000, 12_002, 15_001)]),
        ("in another network namespace", vec![app(2, 40_000, 12_000), elsewhere]),
        ("two sockets with one port", vec![app(2, 40_000, 12_000), other, proxy(3, 40_000, 12_060, 15_001)]),
        (
            "one that asked for the proxy itself, with the same port, and was accepted late",
            vec![
                TcpFact { open: true, ends: ends(POD, 40_000, PROXY, 15_001), ..app(9, 40_000, 11_000) },
                app(2, 40_000, 12_000),
                accepted(),
            ],
        ),
        ("one of two", vec![app(2, 40_000, 12_000), accepted(), app(6, 40_002, 12_000)]),
        (
            "two proxies",
            vec![app(2, 40_000, 12_000), accepted(), app(6, 40_002, 12_000), proxy(7, 40_002, 12_001, 15_002)],
        ),
    ] {
        let mut engine = world();
        let rows = fold_at(&mut engine, facts, 21);
        assert!(answered(&rows).iter().all(Option::is_none), "{what}: {rows:#?}");
    }
    // A socket that took the port later is another one.
    let mut engine = world();
    fold_at(&mut engine, [app(2, 40_000, 12_000), accepted()], 21);
    assert_eq!(answered(&fold_at(&mut engine, [app(8, 40_000, 22_000)], 31)), [None]);
    // And is joined to its own, when the first one was over by then.
    let mut engine = world();
    let first = TcpFact { time: BootNs(12_500 * MILLI), ..app(2, 40_000, 12_000) };
    let facts = [first, accepted(), app(8, 40_000, 13_000), proxy(9, 40_000, 13_001, 15_001)];
    let rows = fold_at(&mut engine, facts, 21);
    assert_eq!((answered(&rows), rows.iter().map(|row| row.connections).sum::<u64>()), (vec![TURNED], 4));
}

#[test]
fn nothing_is_kept_where_nobody_is_redirected() {
    let mut engine = engine();
    let inside = TcpFact { ends: ends(PROXY, 40_000, PROXY, 15_001), ..app(2, 40_000, 1_000) };
    let rows = fold_at(&mut engine, [app(3, 40_001, 1_000), inside], 11);
    assert_eq!(rows.iter().map(|row| row.actual_peer).collect::<Vec<_>>(), [None, None]);
    // Before the first was seen to be accepted nothing is known of those before it.
    let rows = fold_at(&mut engine, [app(2, 40_000, 12_000), proxy(3, 40_000, 12_001, 15_001)], 21);
    assert_eq!(answered(&rows), [None]);
}

#[test]
fn what_the_proxy_accepts_stays_in_the_pod_as_well() {
    let mut engine = engine();
    let known = crate::facts::PodFacts { ips: vec![POD.parse().unwrap()], ..pod(1) };
    feed(&mut engine, [pods([known]), pod_present(1)]);
    let rows = fold_at(&mut engine, [TcpFact { cgroup_id: pod_cgroup(1), ..proxy(1, 9, 1, 15_001) }], 11);
    assert_eq!((rows[0].peer.class, rows[0].is_within_pod()), (PeerClass::ClusterPod, true), "{rows:#?}");
    // From elsewhere it is traffic.
    let mut far = proxy(2, 9, 1, 15_001);
    far.ends = ends(POD, 8_080, FAR, 9);
    let rows = fold_at(&mut engine, [TcpFact { cgroup_id: pod_cgroup(1), ..far }], 21);
    assert!(!rows[0].is_within_pod(), "{rows:#?}");
}
