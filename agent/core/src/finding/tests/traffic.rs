//! Traffic that sockets do not account for, and records beyond a share.

use agent_ebpf::shared::Account;

use super::bench::Bench;
use crate::facts::{HostFact, LinkFacts, LinkKind, PodFacts, PodHostFacts};
use crate::finding::{Code, Severity};
use crate::input::{Input, KernelTotals, TcpFact};
use crate::output::State;
use crate::testing::{ends, pod, pod_cgroup, tcp, udp, uid};

pub(super) const SPAN: u64 = 300;

pub(super) fn seen(n: u32, packet_sockets: Option<u32>) -> PodHostFacts {
    PodHostFacts { uid: uid(n).into(), packet_sockets, veth: Some(100 + n), host_network: false }
}

pub(super) fn link(n: u32, bytes: u64, packets: u64) -> LinkFacts {
    LinkFacts {
        name: format!("eni{n}").into(),
        index: 100 + n,
        kind: LinkKind::Veth,
        received_bytes: bytes,
        received_packets: packets,
        ..LinkFacts::default()
    }
}

// === packet sockets ===

#[test]
fn a_packet_socket_is_found_after_two_looks_and_ends_with_it() {
    let mut bench = Bench::with_pods([pod(1), pod(2)]);
    bench.host(HostFact::Pods(vec![seen(1, Some(2)), seen(2, Some(0))]));
    bench.evaluate_twice();
    assert_eq!(bench.open(), [(Code::TrafficUnaccounted, Severity::Medium, "packet_sockets".to_owned())]);
    assert_eq!(&*bench.row(Code::TrafficUnaccounted).subject.pod, "cart-1");
    bench.host(HostFact::Pods(vec![seen(1, Some(0)), seen(2, Some(0))]));
    bench.evaluate_twice();
    assert_eq!(bench.row(Code::TrafficUnaccounted).state, State::Resolved);
}

#[test]
fn the_hosts_network_sandboxes_and_pods_that_nobody_looked_at_are_silent() {
    let on_host = PodFacts { host_network: true, ..pod(1) };
    let sandboxed = PodFacts { runtime_class: Some("kata".to_owned()), ..pod(2) };
    let mut bench = Bench::with_pods([on_host, sandboxed, pod(3)]);
    let host = PodHostFacts { host_network: true, ..seen(1, Some(3)) };
    bench.host(HostFact::Pods(vec![host, seen(2, Some(1))]));
    bench.evaluate_twice();
    assert_eq!(bench.open(), []);
    assert_eq!(bench.doubts(Code::TrafficUnaccounted), ["network_namespace_not_seen", "sandboxed_pod"]);
}

// === bytes ===

/// One span: the sockets move so much, the interface so much.
pub(super) fn span(bench: &mut Bench, sockets: u64, total: &mut (u64, u64), interface: (u64, u64), retransmits: u32) {
    let fact = TcpFact { cgroup_id: pod_cgroup(1), bytes_sent: sockets, bytes_received: 0, retransmits, ..tcp(1) };
    bench.feed(Input::Tcp(fact));
    bench.feed(Input::Udp(crate::input::UdpFact { cgroup_id: pod_cgroup(2), ..udp(2) }));
    bench.wait(SPAN);
    total.0 += interface.0;
    total.1 += interface.1;
    bench.host(HostFact::Links(vec![link(1, total.0, total.1)]));
    bench.evaluate_twice();
}

pub(super) fn watched() -> (Bench, (u64, u64)) {
    let mut bench = Bench::with_pods([pod(1), pod(2)]);
    bench.host(HostFact::Pods(vec![seen(1, Some(0)), seen(2, Some(0))]));
    bench.host(HostFact::Links(vec![link(1, 1_000_000, 1_000)]));
    (bench, (1_000_000, 1_000))
}

#[test]
fn what_a_pod_says_to_itself_does_not_hide_what_passes_its_interface() {
    let (mut bench, mut total) = watched();
    for _ in 0..2 {
        let inside = TcpFact { ends: ends("127.0.0.1", 40_000, "127.0.0.1", 15_001), ..tcp(3) };
        bench.feed(Input::Tcp(TcpFact { cgroup_id: pod_cgroup(1), bytes_sent: 20_000_000, ..inside }));
        span(&mut bench, 1_000_000, &mut total, (20_000_000, 15_000), 0);
    }
    assert_eq!(bench.open().len(), 1, "{:?}", bench.open());
}

#[test]
fn an_interface_that_moves_more_than_the_sockets_is_found_in_the_second_span() {
    let (mut bench, mut total) = watched();
    span(&mut bench, 1_000_000, &mut total, (20_000_000, 15_000), 0);
    assert_eq!(bench.open(), [], "one span proves nothing");
    span(&mut bench, 1_000_000, &mut total, (20_000_000, 15_000), 0);
    assert_eq!(bench.open(), [(Code::TrafficUnaccounted, Severity::Medium, "interface_bytes".to_owned())]);
    span(&mut bench, 20_000_000, &mut total, (20_000_000, 15_000), 0);
    assert_eq!(bench.open(), []);
}

#[test]
fn headers_retransmissions_and_small_differences_are_explained() {
    for (sockets, interface, retransmits) in [
        // Nothing but headers: acknowledgements of a large download.
        (50_000_000, (50_000_000 + 60_000 * 66, 60_000), 0),
        // 500 jumbo segments sent again.
        (10_000_000, (10_000_000 + 500 * 9_001, 2_000), 500),
        // Under a megabyte more, and under a tenth more.
        (1_000_000, (1_900_000, 100), 0),
        (100_000_000, (109_000_000, 1_000), 0),
        // Less than the sockets: connections within the pod.
        (100_000_000, (1_000_000, 1_000), 0),
    ] {
        let (mut bench, mut total) = watched();
        for _ in 0..3 {
            span(&mut bench, sockets, &mut total, interface, retransmits);
        }
        assert_eq!(bench.open(), [], "{sockets} {interface:?}");
    }
}

#[test]
fn spans_in_which_something_was_not_seen_prove_nothing() {
    let excess = (20_000_000, 15_000);
    let unfollowed = |n| {
        let mut totals = totals(&[]);
        totals.untracked_sockets = n;
        Input::KernelTotals(Box::new(totals))
    };
    let (mut bench, mut total) = watched();
    for n in 0..4 {
        bench.feed(unfollowed(n + 1));
        span(&mut bench, 1_000_000, &mut total, excess, 0);
    }
    assert_eq!(bench.open(), []);
    // A node without any datagram flow: the probes for them may not be attached.
    let mut bench = Bench::with_pods([pod(1)]);
    bench.host(HostFact::Pods(vec![seen(1, Some(0))]));
    for n in 0..4 {
        bench.feed(Input::Tcp(TcpFact { cgroup_id: pod_cgroup(1), ..tcp(1) }));
        bench.wait(SPAN);
        bench.host(HostFact::Links(vec![link(1, n * excess.0, n * excess.1)]));
    }
    bench.evaluate_twice();
    assert_eq!(bench.open(), []);
    // Another interface under the same index, with counters that began anew.
    let (mut bench, _) = watched();
    for _ in 0..4 {
        span(&mut bench, 0, &mut (0, 0), (900_000, 15_000), 0);
    }
    assert_eq!(bench.open(), []);
}

// === record-flood ===

fn totals(accounts: &[(u64, [u64; 3])]) -> KernelTotals {
    let accounts =
        accounts.iter().map(|(id, over_budget)| (*id, Account { over_budget: *over_budget, ..Account::default() }));
    KernelTotals { accounts: accounts.collect(), ..KernelTotals::default() }
}

#[test]
fn dns_messages_over_the_budget_are_not_called_flows() {
    let mut bench = Bench::with_pods([pod(1)]);
    let account = Account { dns_over_budget: 7, dns_ring_full: 9, ..Account::default() };
    bench.feed(Input::KernelTotals(Box::new(KernelTotals {
        accounts: vec![(pod_cgroup(1), account)],
        ..KernelTotals::default()
    })));
    let row = bench.row(Code::RecordFlood);
    assert_eq!((row.count, &*row.cause), (7, "dns"));
    assert!(row.text.ends_with("so many were not told: 7 of DNS messages"), "{}", row.text);
}

#[test]
fn a_pod_over_its_budget_is_found_with_what_it_grew_by() {
    let read = |bench: &mut Bench, accounts: &[(u64, [u64; 3])]| {
        bench.feed(Input::KernelTotals(Box::new(totals(accounts))));
    };
    let mut bench = Bench::with_pods([pod(1), pod(2)]);
    read(&mut bench, &[(pod_cgroup(1), [0; 3]), (pod_cgroup(2), [0; 3]), (crate::testing::CGROUP, [0, 9, 9])]);
    assert_eq!(bench.open(), [], "the host's units are no pods");
    read(&mut bench, &[(pod_cgroup(1), [0, 0, 40])]);
    assert_eq!(bench.open(), [(Code::RecordFlood, Severity::Medium, "flows".to_owned())]);
    read(&mut bench, &[(pod_cgroup(1), [0, 0, 40])]);
    read(&mut bench, &[(pod_cgroup(1), [0, 2, 50])]);
    let row = bench.row(Code::RecordFlood);
    assert_eq!((row.count, &*row.cause, &*row.subject.pod), (52, "processes", "cart-1"));
    assert!(
        row.text.ends_with(
            "so many were not told: 2 of processes; 10 of flows, whose bytes and connections are summed up and exact"
        ),
        "{}",
        row.text
    );
    // Deleted and made anew: what it shows counts from zero.
    read(&mut bench, &[(pod_cgroup(1), [0, 0, 7])]);
    assert_eq!(bench.row(Code::RecordFlood).count, 59);
}
