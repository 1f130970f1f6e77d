//! Ephemeral ports and listeners, and the networks of pods, as far as files tell them.

use super::*;
use crate::node::collect::ports;

const NETSTAT: &str =
    "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 33\nIpExt: InNoRoutes\nIpExt: 0\n";

/// Connections of one local address to one remote address and port, with so many local ports from the first on.
fn table(connections: &[(&str, &str, u16, u16, &str)]) -> String {
    let mut lines = vec!["  sl  local_address rem_address   st tx_queue rx_queue".to_owned()];
    for (local, remote, first, count, state) in connections {
        for port in *first..*first + *count {
            lines.push(format!(
                "   0: {local}:{port:04X} {remote} {state} 00000000:00000000 00:00000000 00000000 0 0 1"
            ));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn network(node: &Fixture, process: &str, sockets: u64, connections: &[(&str, &str, u16, u16, &str)]) {
    let path = format!("proc/{process}/net");
    node.put(&format!("{path}/dev"), "").put(&format!("{path}/netstat"), NETSTAT);
    node.put(
        &format!("{path}/sockstat"),
        &format!("sockets: used 1\nTCP: inuse {sockets} orphan 0 tw 2 alloc 9 mem 1\nUDP: inuse 0 mem 0\n"),
    );
    node.put(&format!("{path}/tcp"), &table(connections));
}

/// 10.0.0.1 and 10.0.0.2 as the tables write them.
const HERE: &str = "0100000A";
const DATABASE: &str = "0200000A:1538";
const OTHER: &str = "0200000A:0050";

#[test]
fn the_most_crowded_peer_counts() {
    let node = Fixture::new();
    node.put("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
    network(&node, "self", 1, &[(HERE, DATABASE, 40_000, 3, "01"), (HERE, DATABASE, 1_000, 9, "01")]);
    node.pod(1, &[10]).pod(2, &[20]).pod(3, &[30]);
    let pod_1 = [
        (HERE, "00000000:0000", 34_000, 1, "0A"),
        (HERE, DATABASE, 40_000, 300, "01"),
        (HERE, DATABASE, 41_000, 20, "06"),
        (HERE, OTHER, 42_000, 100, "01"),
        // Answered by the listener: these ports are no ephemeral ones.
        (HERE, "0300000A:9999", 34_000, 1, "01"),
    ];
    network(&node, "10", 400, &pod_1);
    network(&node, "20", 400, &[(HERE, DATABASE, 2_000, 400, "01")]);
    network(&node, "30", 0, &[]);
    node.put("proc/30/net/sockstat", "sockets: used 1\nTCP: inuse 0 orphan 0 tw 0 alloc 9 mem 1\nUDP: inuse 0 mem 0\n");
    let seen = Seen::by(Collector::Ports, ports::Ports::new(&node.roots, node.pods()));
    assert_eq!(seen.error, None);
    let ports = |scope: &Scope| seen.figures(Resource::EphemeralPorts, scope);
    assert_eq!(ports(&Scope::Node), Some((Some(3), Limit::Of(28_232))), "ports below the range were chosen");
    assert_eq!(ports(&pod(1)), Some((Some(320), Limit::Of(28_232))), "those that wait are taken, too");
    assert_eq!(ports(&pod(2)), Some((Some(400), Limit::Unknown)), "a range of its own, which does not show");
    assert_eq!(ports(&pod(3)), None);
    let source = &seen.samples.iter().find(|sample| sample.scope == pod(1)).expect("told").source;
    assert!(source.contains("10.0.0.1 to 10.0.0.2:5432") && source.contains("assumed"), "{source}");
    assert_eq!(seen.counter(CounterName::ListenDrops, &pod(1)), Some(33));
    assert_eq!(seen.counter(CounterName::ListenOverflows, &Scope::Node), Some(22));
}

#[test]
fn a_broken_namespace_hides_no_other() {
    let node = Fixture::new();
    node.put("proc/sys/net/ipv4/ip_local_port_range", "60999 32768\n");
    network(&node, "self", 1, &[]);
    node.pod(1, &[10]).pod(2, &[20]).pod(3, &[30]);
    network(&node, "10", 5, &[(HERE, DATABASE, 40_000, 5, "01")]);
    network(&node, "20", 5, &[(HERE, DATABASE, 40_000, 5, "01")]);
    node.put("proc/10/net/tcp", "head\n   0: half a line");
    let seen = Seen::by(Collector::Ports, ports::Ports::new(&node.roots, node.pods()));
    assert!(seen.error.as_deref().is_some_and(|error| error.contains("is no range")), "{seen:?}");
    assert_eq!(seen.figures(Resource::EphemeralPorts, &pod(1)), None);
    assert_eq!(seen.figures(Resource::EphemeralPorts, &pod(2)), Some((Some(5), Limit::Of(28_232))));
}

/// With more crowded pods than are read in a look, all get their turn.
#[test]
fn all_pods_get_their_turn() {
    let node = Fixture::new();
    node.put("proc/sys/net/ipv4/ip_local_port_range", "32768 60999\n");
    network(&node, "self", 1, &[]);
    for number in 1..20 {
        node.pod(number, &[u32::from(number)]);
        let count = u16::from(number);
        network(&node, &number.to_string(), count.into(), &[(HERE, DATABASE, 40_000, count, "01")]);
    }
    let mut look = ports::Ports::new(&node.roots, node.pods());
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let seen = Seen::again(Collector::Ports, &mut look);
        assert!(seen.samples.len() <= 8, "{}", seen.samples.len());
        assert!(seen.figures(Resource::EphemeralPorts, &pod(19)).is_some(), "the most crowded at each look");
        told.extend(seen.samples.into_iter().map(|sample| sample.scope));
    }
    assert_eq!(told.len(), 19);
}

/// Lines of a table of datagram sockets on these ports; the remote address does not matter.
fn datagrams(ports: impl IntoIterator<Item = u16>) -> String {
    let sockets: Vec<_> = ports.into_iter().map(|port| (HERE, OTHER, port, 1, "07")).collect();
    table(&sockets)
}

#[test]
fn sockets_for_datagrams_hold_ports_as_well() {
    let node = Fixture::new();
    node.put("proc/sys/net/ipv4/ip_local_port_range", "32768 60999\n");
    network(&node, "self", 1, &[(HERE, DATABASE, 40_000, 3, "01")]);
    let counted = |udp: u32, udp6: u32| {
        node.put("proc/self/net/sockstat", &format!("TCP: inuse 3 tw 0\nUDP: inuse {udp} mem 0\n"));
        node.put("proc/self/net/sockstat6", &format!("TCP6: inuse 0\nUDP6: inuse {udp6}\n"));
        let seen = Seen::by(Collector::Ports, ports::Ports::new(&node.roots, node.pods()));
        assert_eq!(seen.error, None);
        let sample = seen.samples.into_iter().find(|sample| sample.scope == Scope::Node).expect("told");
        (sample.used, sample.limit, sample.source.to_string())
    };
    let tcp = "net/tcp: 10.0.0.1 to 10.0.0.2:5432, its own range".to_owned();
    // As many sockets as connections: the table is not even read, and is not there.
    assert_eq!(counted(2, 1), (Some(3), Limit::Of(28_232), tcp.clone()));
    // Two sockets that share a port hold one; ports below the range were chosen.
    node.put("proc/self/net/udp", &datagrams([33_000, 33_000, 33_001, 53, 514, 33_002]));
    assert_eq!(counted(6, 0), (Some(3), Limit::Of(28_232), tcp));
    node.put("proc/self/net/udp6", &datagrams([33_001, 33_003]));
    assert_eq!(counted(6, 2), (Some(4), Limit::Of(28_232), "net/udp, its own range".to_owned()));
}
