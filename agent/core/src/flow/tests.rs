//! Rows from records: what is folded, what stays apart, who is named, and that nothing is lost.

mod redirected;
mod translated;

use agent_ebpf::wire::Direction::{Inbound, Outbound, Unknown};
use agent_ebpf::wire::Outcome;
use proptest::prelude::*;

use super::*;
use crate::books::Fate;
use crate::facts::ClusterFact;
use crate::input::{ForkFact, Input, KernelTotals};
use crate::output::{FlowRow, PeerClass};
use crate::testing::*;
use crate::time::WallNs;

#[test]
fn connections_alike_are_one_row() {
    let mut engine = engine();
    feed(&mut engine, [Input::Exec(exec(10, "/usr/bin/curl")), Input::Exec(exec(12, "/usr/bin/curl"))]);
    let rows = fold(
        &mut engine,
        [
            Input::Tcp(TcpFact { retransmits: 2, srtt_us: Some(900), ..tcp(1) }),
            Input::Tcp(TcpFact { ends: ends("10.0.0.1", 40_001, "10.0.0.2", 80), srtt_us: None, ..tcp(2) }),
            Input::Tcp(TcpFact { connected: Some(owner(12)), ..tcp(3) }),
        ],
    );
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.connections, row.open, row.processes, row.records.total()), (3, 0, 2, 3));
    assert_eq!((row.bytes_sent, row.bytes_received, row.retransmits), (300, 3_000, Some(2)));
    assert_eq!((row.rtt_us, row.rtt.count(), row.rtt.sum_us()), (Some(900), 2, 1_200));
    assert_eq!((row.direction, row.service_port, row.outcome), ("outbound", Some(80), Some("established")));
    assert_eq!((row.local.ip.as_deref(), row.peer.ip.as_deref()), (Some("10.0.0.1"), Some("10.0.0.2")));
    assert_eq!(row.who.identity.workload, "app.service");
    let process = row.who.process.as_deref().unwrap();
    assert_eq!((process.pid, process.exe.as_deref(), process.by), (10, Some("/usr/bin/curl"), By::Connect));
    assert!(!row.merged && !row.preexisting);
}

#[test]
fn whatever_a_row_shows_keeps_rows_apart() {
    let mut engine = engine();
    feed(&mut engine, [Input::Exec(exec(10, "/a")), Input::Exec(exec(12, "/b"))]);
    let base = tcp(1);
    let other_cgroup = Input::CgroupPresent { id: 78, path: "/system.slice/other.service".to_owned() };
    let rows = fold(
        &mut engine,
        [
            other_cgroup,
            Input::Tcp(base.clone()),
            Input::Tcp(TcpFact { cgroup_id: 78, ..base.clone() }),
            Input::Tcp(TcpFact { connected: Some(owner(12)), ..base.clone() }),
            Input::Tcp(TcpFact { direction: Inbound, ..base.clone() }),
            Input::Tcp(TcpFact { ends: ends("10.0.0.9", 40_000, "10.0.0.2", 80), ..base.clone() }),
            Input::Tcp(TcpFact { ends: ends("10.0.0.1", 40_000, "10.0.0.9", 80), ..base.clone() }),
            Input::Tcp(TcpFact { ends: ends("10.0.0.1", 40_000, "10.0.0.2", 81), ..base.clone() }),
            Input::Tcp(TcpFact { outcome: Outcome::Reset, ..base.clone() }),
            Input::Udp(UdpFact { outcome: Outcome::Established, ends: base.ends, ..udp(1) }),
        ],
    );
    assert_eq!(rows.len(), 9);
    assert!(rows.iter().all(|row| row.connections == 1 && row.records.total() == 1));
}

#[test]
fn cgroups_of_one_identity_are_one_row_and_names_may_come_late() {
    let mut engine = engine();
    let rows = fold(
        &mut engine,
        [
            Input::Tcp(tcp(1)),
            Input::Tcp(TcpFact { cgroup_id: 78, connected: Some(owner(12)), ..tcp(2) }),
            Input::Tcp(TcpFact { ends: Ends { netns: 5, ..tcp(3).ends }, ..tcp(3) }),
            Input::CgroupPresent { id: 78, path: "/system.slice/app.service/worker".to_owned() },
        ],
    );
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.connections, row.processes), (3, 2));
}

#[test]
fn a_connection_counts_where_it_ends() {
    let mut engine = engine();
    let open = |bytes_sent| TcpFact { open: true, bytes_sent, ..tcp(1) };
    let rows = fold(&mut engine, [Input::Tcp(open(10))]);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.connections, row.open, row.bytes_sent, row.outcome), (0, 1, 10, None));
    assert_eq!((row.rtt.count(), row.rtt_us), (0, Some(300)), "a round trip counts at the end");
    // Reported twice: open once.
    let again = Input::Tcp(TcpFact { first: false, ..open(5) });
    let rows = fold(&mut engine, [again.clone(), again.clone()]);
    assert_eq!((rows[0].connections, rows[0].open, rows[0].bytes_sent), (0, 1, 10));
    // Reported, and ended: not open any more, counted once.
    let rows = fold(&mut engine, [again, Input::Tcp(TcpFact { first: false, ..tcp(1) })]);
    let counts: Vec<_> = rows.iter().map(|row| (row.connections, row.open, row.bytes_sent, row.outcome)).collect();
    assert_eq!(counts, [(0, 0, 5, None), (1, 0, 100, Some("established"))]);
}

#[test]
fn the_process_is_whoever_is_known_best() {
    let (connected, listened, closed) = (Some(owner(20)), Some(owner(21)), Some(owner(22)));
    let by = |direction, connected, listened, closed| {
        tcp_process(&TcpFact { direction, connected, listened, closed, ..tcp(1) })
    };
    assert_eq!(by(Outbound, connected, None, closed), Some((owner(20), By::Connect)));
    assert_eq!(by(Outbound, None, None, closed), Some((owner(22), By::Close)));
    assert_eq!(by(Inbound, None, listened, closed), Some((owner(22), By::Close)));
    assert_eq!(by(Inbound, None, listened, None), Some((owner(21), By::Listen)));
    assert_eq!(by(Unknown, connected, None, closed), Some((owner(22), By::Close)));
    assert_eq!(by(Unknown, connected, None, None), Some((owner(20), By::Hold)));
    assert_eq!(by(Inbound, None, None, None), None);
    let by = |direction, sent, closed| udp_process(&UdpFact { direction, sent, closed, ..udp(1) });
    assert_eq!(by(Outbound, connected, closed), Some((owner(20), By::Send)));
    assert_eq!(by(Outbound, None, closed), Some((owner(22), By::Close)));
    assert_eq!(by(Inbound, None, closed), Some((owner(22), By::Close)));
    assert_eq!(by(Unknown, connected, None), Some((owner(20), By::Hold)));
}

#[test]
fn ports_addresses_and_protocols_by_kind() {
    let mut engine = engine();
    let rows = fold(
        &mut engine,
        [
            Input::Tcp(TcpFact { direction: Inbound, ..tcp(1) }),
            Input::Tcp(TcpFact { direction: Unknown, preexisting: true, ..tcp(2) }),
            Input::Udp(udp(3)),
            Input::Attempt(attempt(4)),
        ],
    );
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (row.service_port, row.local.ip.is_some(), row.outcome.unwrap(), row.retransmits, row.preexisting))
        .collect();
    assert_eq!(
        shown,
        [
            (Some(40_000), true, "established", Some(0), false),
            (None, true, "established", Some(0), true),
            (Some(53), true, "one_way", None, false),
            (Some(80), false, "unreachable", Some(0), false),
        ]
    );
}

#[test]
fn folds_follow_the_clock() {
    let mut engine = engine();
    assert!(feed(&mut engine, [Input::Tcp(tcp(1)), tick(10)]).is_empty());
    let outputs = feed(&mut engine, [tick(11)]);
    let rows = flows(&outputs);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].window.end.0 - rows[0].window.start.0, 10 * i64::try_from(SECOND).unwrap());
    assert_eq!(rows[0].window.end, WallNs(1_767_323_045 * 1_000_000_000));
    assert!(feed(&mut engine, [tick(30), Input::Stop]).is_empty(), "an empty fold has no rows");
}

#[test]
fn peers_are_named_from_their_own_end() {
    let uid = |n: u32| format!("00000000-0000-0000-0000-00000000000{n}");
    let pod =
        |id: u64, n: u32| Input::CgroupPresent { id, path: format!("/kubepods/pod{}/{}", uid(n), "a".repeat(64)) };
    let client = TcpFact { cgroup_id: 101, ..tcp(1) };
    let server =
        TcpFact { cgroup_id: 102, direction: Inbound, ends: ends("10.0.0.2", 80, "10.0.0.1", 40_000), ..tcp(2) };
    let mut engine = engine();
    feed(&mut engine, [pod(101, 1), pod(102, 2), pod(103, 3)]);
    let rows = fold(&mut engine, [Input::Tcp(client.clone()), Input::Tcp(server.clone())]);
    let peers: Vec<_> = rows.iter().map(|row| (row.peer.pod.clone().unwrap(), row.peer.class)).collect();
    assert_eq!(
        peers,
        [(format!("pod-{}", uid(2)), PeerClass::ClusterPod), (format!("pod-{}", uid(1)), PeerClass::ClusterPod)]
    );
    // The other end was seen lately, but not in this fold.
    let rows = fold(&mut engine, [Input::Tcp(client.clone())]);
    assert!(rows[0].peer.pod.is_some());
    // Two pods at one address and port (the same addresses in two namespaces): not certain.
    let rows = fold(
        &mut engine,
        [Input::Tcp(client.clone()), Input::Tcp(server.clone()), Input::Tcp(TcpFact { cgroup_id: 103, ..server })],
    );
    assert_eq!((&rows[0].peer.pod, rows[0].peer.class), (&None, PeerClass::Unknown));
    // Long after, nothing is known any more.
    for _ in 0..5 {
        fold(&mut engine, []);
    }
    assert_eq!(fold(&mut engine, [Input::Tcp(client)])[0].peer.pod, None);
}

#[test]
fn loopback_peers_are_named_within_their_namespace_only() {
    let mut engine = engine();
    let other = Input::CgroupPresent { id: 78, path: "/system.slice/server.service".to_owned() };
    let client = TcpFact { ends: ends("127.0.0.1", 40_000, "127.0.0.1", 80), ..tcp(1) };
    let mut server_ends = ends("127.0.0.1", 80, "127.0.0.1", 40_000);
    let server = TcpFact { cgroup_id: 78, direction: Inbound, ends: server_ends, ..tcp(2) };
    server_ends.netns = 5;
    let elsewhere = TcpFact { ends: server_ends, ..server.clone() };
    let rows = fold(&mut engine, [other, Input::Tcp(client.clone()), Input::Tcp(elsewhere)]);
    assert!(rows.iter().all(|row| row.peer.pod.is_none()));
    let rows = fold(&mut engine, [Input::Tcp(client), Input::Tcp(server)]);
    assert_eq!((rows[0].peer.pod.as_deref(), rows[0].peer.class), (Some("server.service"), PeerClass::NodeLocal));
    assert_eq!(rows[1].peer.pod.as_deref(), Some("app.service"));
}

#[test]
fn in_the_root_the_process_tells_who_it_is() {
    let mut engine = engine();
    let path = format!("/docker/{}", "ab".repeat(32));
    let rows = fold(
        &mut engine,
        [
            Input::Exec(exec(10, "/app")),
            Input::Tcp(TcpFact { cgroup_id: ROOT_ID, ..tcp(1) }),
            // Read late, and inherited by a child.
            Input::ProcessCgroupV1 { process: owner(10), path },
            Input::Fork(ForkFact { time: BootNs(2), cgroup_id: ROOT_ID, child: named(12, "app"), parent: owner(10) }),
            Input::Tcp(TcpFact { cgroup_id: ROOT_ID, connected: Some(owner(12)), ..tcp(2) }),
        ],
    );
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((&*row.who.identity.workload, row.connections, row.processes), ("abababababab", 2, 2));
}

// === accounts ===

fn account(outbound: u64, inbound_refused: u64, bytes_sent: u64) -> Account {
    let mut account = Account { merged_bytes_sent: bytes_sent, ..Account::default() };
    account.merged_connections[0][Outcome::Established.index()] = outbound;
    account.merged_connections[1][Outcome::Refused.index()] = inbound_refused;
    account
}

fn totals(accounts: &[(u64, Account)]) -> Input {
    Input::KernelTotals(Box::new(KernelTotals { accounts: accounts.to_vec(), ..KernelTotals::default() }))
}

type Shown = (&'static str, Option<&'static str>, u64, u64);

fn shown(rows: &[FlowRow]) -> Vec<Shown> {
    assert!(
        rows.iter()
            .all(|row| row.merged && row.records.total() == 0 && row.protocol.is_none() && row.peer.ip.is_none())
    );
    rows.iter().map(|row| (row.direction, row.outcome, row.connections, row.bytes_sent)).collect()
}

#[test]
fn accounts_become_rows_by_what_they_grew() {
    let mut engine = engine();
    let rows = fold(&mut engine, [totals(&[(CGROUP, account(5, 2, 100))]), totals(&[(CGROUP, account(6, 2, 100))])]);
    let expected =
        [("outbound", Some("established"), 6, 0), ("inbound", Some("refused"), 2, 0), ("unknown", None, 0, 100)];
    assert_eq!(shown(&rows), expected);
    assert_eq!(rows[0].who.identity.workload, "app.service");
    assert!(fold(&mut engine, [totals(&[(CGROUP, account(6, 2, 100))])]).is_empty(), "nothing grew");
    // Missed by one reading: not deleted. Shrunk: deleted and made anew.
    let rows = fold(&mut engine, [totals(&[]), totals(&[(CGROUP, account(7, 2, 100))])]);
    assert_eq!(shown(&rows), [("outbound", Some("established"), 1, 0)]);
    let rows = fold(&mut engine, [totals(&[(CGROUP, account(3, 0, 0))])]);
    assert_eq!(shown(&rows), [("outbound", Some("established"), 3, 0)]);
    // Missed by three readings: deleted; what comes then counts from zero.
    let rows = fold(&mut engine, [totals(&[]), totals(&[]), totals(&[]), totals(&[(CGROUP, account(4, 0, 0))])]);
    assert_eq!(shown(&rows), [("outbound", Some("established"), 4, 0)]);
}

#[test]
fn the_overflow_account_belongs_to_nobody() {
    let mut engine = engine();
    let rows = fold(&mut engine, [totals(&[(agent_ebpf::shared::OVERFLOW_ACCOUNT, account(1, 0, 0))])]);
    assert_eq!(rows[0].who.identity.why, Some(crate::attribution::why::NO_ROOM));
}

// === bounds ===

#[test]
fn too_many_rows_merge_and_lose_nothing() {
    let mut engine = engine();
    let extra = 1_000;
    let inputs = (0..MAX_ROWS + extra).map(|n| {
        let peer = format!("fd00::{:x}:{:x}", n >> 16, n & 0xffff);
        Input::Tcp(TcpFact { ends: ends("fd00::ffff:1", 1, &peer, 80), ..tcp(n as u64) })
    });
    let mut outputs = Vec::new();
    for input in inputs.chain([Input::Stop]) {
        engine.handle(input, &mut outputs);
    }
    let rows = flows(&outputs);
    assert_eq!(rows.len(), MAX_ROWS + 1);
    let merged: Vec<_> = rows.iter().filter(|row| row.merged).collect();
    let [merged] = &merged[..] else { panic!("{merged:?}") };
    assert_eq!((merged.connections, merged.bytes_sent), (extra as u64, 100 * extra as u64));
    assert_eq!((merged.who.identity.workload.as_str(), merged.protocol), ("app.service", Some(Protocol::Tcp)));
    assert!(merged.who.process.is_none() && merged.peer.ip.is_none());
    let line = engine.books().line(Ledger::Tcp);
    assert_eq!((line.fate(Fate::Aggregated), line.fate(Fate::Merged)), (MAX_ROWS as u64, extra as u64));
    assert_eq!((line.pending, engine.books().imbalance()), (0, None));
}

#[test]
fn too_many_merged_rows_merge_into_nobodys() {
    let mut engine = engine();
    let accounts: Vec<_> = (0..MAX_MERGED_ROWS as u64 + 10).map(|id| (id + 1_000, account(1, 0, 0))).collect();
    let rows = fold(&mut engine, [totals(&accounts)]);
    assert_eq!(rows.iter().map(|row| row.connections).sum::<u64>(), accounts.len() as u64);
    let nobody = rows.iter().find(|row| row.who.identity.why == Some(crate::attribution::why::NO_ROOM));
    assert_eq!(nobody.unwrap().connections, 10);
}

#[test]
fn processes_beyond_the_bound_are_not_told_apart() {
    let mut engine = engine();
    let mut outputs = Vec::new();
    let most = u32::try_from(MAX_PROCESSES).unwrap();
    for n in 0..most + 100 {
        engine.handle(Input::Tcp(TcpFact { connected: Some(owner(n + 1)), ..tcp(u64::from(n)) }), &mut outputs);
    }
    engine.handle(Input::Stop, &mut outputs);
    assert_eq!(flows(&outputs)[0].processes, u64::from(most) + 1);
}

// === any sequence ===

fn any_tcp() -> impl Strategy<Value = TcpFact> {
    let outcome = proptest::sample::select(Outcome::ALL);
    let direction = proptest::sample::select(Direction::ALL);
    let owners = (proptest::option::of(1_u32..4), proptest::option::of(1_u32..4), proptest::option::of(1_u32..4));
    (0_u64..4, 0_u64..5, any::<bool>(), direction, outcome, owners, 0_u64..100, proptest::option::of(1_u32..5), 0_u8..3)
        .prop_map(|(cgroup, cookie, open, direction, outcome, (a, b, c), bytes, srtt_us, peer)| TcpFact {
            time: BootNs(bytes),
            cgroup_id: cgroup,
            cookie,
            open,
            first: false,
            direction,
            outcome,
            bytes_sent: bytes,
            bytes_received: bytes * 2,
            retransmits: 1,
            srtt_us,
            connected: a.map(owner),
            listened: b.map(owner),
            closed: c.map(owner),
            ends: ends("10.0.0.1", 80, &format!("10.0.0.{peer}"), 80),
            ..tcp(cookie)
        })
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        8 => any_tcp().prop_map(Input::Tcp),
        3 => (0_u64..5, any::<bool>()).prop_map(|(cookie, open)| Input::Udp(UdpFact { open, ..udp(cookie) })),
        2 => (0_u64..5).prop_map(|cookie| Input::Attempt(attempt(cookie))),
        1 => (0_u64..4).prop_map(|id| Input::CgroupPresent { id, path: format!("/{}.service", id / 2) }),
        1 => (0_u64..4).prop_map(|id| Input::CgroupGone { id, time: BootNs(1) }),
        1 => (1_u32..4).prop_map(|pid| Input::Exec(exec(pid, "/app"))),
        1 => (1_u32..4).prop_map(|pid| Input::Exit { time: BootNs(2), process: owner(pid) }),
        1 => (0_u64..400).prop_map(tick),
        1 => (0_u64..3, 0_u64..3).prop_map(|(metadata, cgroups)| Input::Decoded { metadata, cgroups }),
        1 => Just(Input::Undecodable { kind: None, why: crate::input::DecodeError::Short }),
    ]
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    connections: u64,
    sent: u64,
    received: u64,
    retransmits: u64,
    round_trips: u64,
}

impl Sums {
    fn add(&mut self, connections: u64, sent: u64, received: u64, retransmits: u64, round_trips: u64) {
        self.connections += connections;
        self.sent += sent;
        self.received += received;
        self.retransmits += retransmits;
        self.round_trips += round_trips;
    }
}

proptest! {
    /// Sums over rows are sums over records; the books balance after every input (`feed` asserts it), and at the end
    /// nothing is pending.
    #[test]
    fn nothing_is_lost_or_counted_twice(inputs in proptest::collection::vec(any_input(), 0..80)) {
        let mut expected = Sums::default();
        for input in &inputs {
            match input {
                Input::Tcp(fact) => {
                    let ended = u64::from(!fact.open);
                    let round_trips = ended * u64::from(fact.srtt_us.is_some());
                    let retransmits = u64::from(fact.retransmits);
                    expected.add(ended, fact.bytes_sent, fact.bytes_received, retransmits, round_trips);
                }
                Input::Udp(fact) => expected.add(u64::from(!fact.open), fact.bytes_sent, fact.bytes_received, 0, 0),
                Input::Attempt(_) => expected.add(1, 0, 0, 0, 0),
                _ => {}
            }
        }
        let mut engine = engine();
        let outputs = feed(&mut engine, inputs.into_iter().chain([Input::Stop]));
        let mut found = Sums::default();
        for row in flows(&outputs) {
            let retransmits = row.retransmits.unwrap_or(0);
            found.add(row.connections, row.bytes_sent, row.bytes_received, retransmits, row.rtt.count());
            prop_assert!(row.outcome.is_none() == (row.connections == 0));
        }
        prop_assert_eq!(found, expected);
        prop_assert!(engine.books().lines().all(|(_, line)| line.pending == 0));
    }

    /// Within a fold the order of the records of different connections does not matter.
    #[test]
    fn order_within_a_fold_does_not_matter(
        (facts, shuffled) in proptest::collection::vec(any_tcp(), 0..30).prop_flat_map(|mut facts| {
            for (cookie, fact) in facts.iter_mut().enumerate() {
                fact.cookie = cookie as u64;
            }
            (Just(facts.clone()), Just(facts).prop_shuffle())
        })
    ) {
        let rows = |facts: Vec<TcpFact>| {
            let mut engine = engine();
            feed(&mut engine, [Input::Exec(exec(1, "/a")), Input::Exec(exec(2, "/a"))]);
            let mut rows = fold(&mut engine, facts.into_iter().map(Input::Tcp));
            rows.sort_by_cached_key(|row| format!("{row:?}"));
            rows
        };
        prop_assert_eq!(rows(facts), rows(shuffled));
    }
}
