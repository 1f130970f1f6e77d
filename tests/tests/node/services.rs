//! Services as kube-proxy makes them, by nftables: whom a pod asked for, and who answered. What answered is counted by the
//! servers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::node::NODE_IP;
use system_tests::rows::{ActualPeer, Flow, Rows};
use system_tests::{Node, Wiring};

/// Of one backend, of two in turns, and one that nothing translates.
const ONE: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 11);
const TWO: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 12);
const NONE: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 13);
const PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;
const BACKEND_PORT: u16 = 8_080;

fn service(name: &str, ip: Ipv4Addr, node_port: Option<u16>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
        "spec": {"clusterIP": ip, "ports": [{"port": PORT, "nodePort": node_port}]},
    })
}

/// Translates as kube-proxy does: at the first packet of a connection, from pods and from the node itself, and with the
/// node's address as the source where a backend asked for itself.
fn translate(node: &Node, first: Ipv4Addr, second: Ipv4Addr) -> Result<()> {
    let one = format!("ip daddr {ONE} tcp dport {PORT} dnat to {first}:{BACKEND_PORT}");
    let two = format!(
        "ip daddr {TWO} tcp dport {PORT} dnat to numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }}:{BACKEND_PORT}"
    );
    let at_node = format!("fib daddr type local tcp dport {NODE_PORT} dnat to {first}:{BACKEND_PORT}");
    let mut rules = vec![
        "add table ip services".to_owned(),
        "add chain ip services in { type nat hook prerouting priority dstnat; }".to_owned(),
        "add chain ip services self { type nat hook postrouting priority srcnat; }".to_owned(),
        format!("add rule ip services self ip saddr {first} ip daddr {first} masquerade"),
    ];
    rules.extend([one, two, at_node].map(|rule| format!("add rule ip services in {rule}")));
    node.network.run(|| {
        let output = Command::new("nft").arg(rules.join("; ")).output().context("run nft: is nftables installed?")?;
        ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })
}

/// Rows of ended connections to an address and port.
fn to(rows: &Rows, pod: &system_tests::Pod, ip: Ipv4Addr, port: u16) -> Vec<Flow> {
    let asked = ip.to_string();
    let flows = rows.flows_of(pod).filter(|flow| flow.direction == "outbound" && flow.connections > 0);
    flows.filter(|flow| flow.peer.ip.as_ref() == Some(&asked) && flow.service_port == Some(port)).cloned().collect()
}

fn connections(flows: &[Flow]) -> u64 {
    flows.iter().map(|flow| flow.connections).sum()
}

#[test]
fn the_backend_of_a_service_is_told_when_it_is_certain() -> Result<()> {
    let mut node = Node::new()?;
    for (name, ip, node_port) in [("one", ONE, Some(NODE_PORT)), ("two", TWO, None), ("none", NONE, None)] {
        node.put(&service(name, ip, node_port))?;
    }
    let client = node.pod("shop", "client", Wiring::Plain)?;
    let [first, second] = ["first", "second"].map(|name| node.pod("shop", name, Wiring::Plain));
    let (first, second) = (first?, second?);
    translate(&node, first.ip, second.ip)?;
    let mut servers = [first.actor()?, second.actor()?];
    for (server, pod) in servers.iter_mut().zip([&first, &second]) {
        server.serve_http((pod.ip, BACKEND_PORT).into())?;
    }
    let mut agent = node.agent(json!({"fold_seconds": 2}))?;

    let mut of_client = client.actor()?;
    let at = |ip: Ipv4Addr, port| SocketAddr::from((ip, port));
    of_client.load_http(at(ONE, PORT), 7, 2)?;
    of_client.load_http(at(TWO, PORT), 6, 2)?;
    of_client.load_http(at(NODE_IP, NODE_PORT), 5, 1)?;
    // Without a service in between.
    of_client.load_http(at(second.ip, BACKEND_PORT), 3, 1)?;
    // To itself by way of the service.
    let mut of_first = first.actor()?;
    of_first.load_http(at(ONE, PORT), 4, 1)?;
    agent.wait_for("all connections", |rows| {
        connections(&to(rows, &client.container, second.ip, BACKEND_PORT)) == 3
            && connections(&to(rows, &first.container, ONE, PORT)) == 4
    })?;

    let rows = agent.finish()?.rows;
    let told = |pod, ip, port| -> Result<Vec<Option<ActualPeer>>> {
        let flows = to(&rows, pod, ip, port);
        ensure!(!flows.is_empty(), "nothing to {ip}:{port} in {}", rows.show(pod));
        Ok(flows.into_iter().map(|flow| flow.actual_peer).collect())
    };
    let backend = Some(ActualPeer { ip: IpAddr::V4(first.ip), port: BACKEND_PORT });
    for (pod, ip, port) in
        [(&client.container, ONE, PORT), (&client.container, NODE_IP, NODE_PORT), (&first.container, ONE, PORT)]
    {
        for peer in told(pod, ip, port)? {
            assert_eq!(peer, backend, "behind {ip}:{port}");
        }
    }
    for flow in to(&rows, &client.container, ONE, PORT) {
        assert_eq!((&*flow.peer.class, flow.peer.name.as_deref()), ("service", Some("one.shop.svc")));
        assert_eq!(flow.peer.namespace.as_deref(), Some("shop"));
    }
    // A row that knows one backend of two is one whose connections all went there.
    let second_backend = Some(ActualPeer { ip: IpAddr::V4(second.ip), port: BACKEND_PORT });
    for flow in to(&rows, &client.container, TWO, PORT) {
        let is_right = flow.actual_peer.is_none() || flow.connections == 1;
        assert!(is_right, "two backends answered {}: {flow}", flow.connections);
        assert!([None, backend.clone(), second_backend.clone()].contains(&flow.actual_peer));
    }
    assert!(told(&client.container, second.ip, BACKEND_PORT)?.iter().all(Option::is_none));

    // What the servers counted: all to the first service, half of those to the second, by the node's port, and itself.
    let served = [7 + 3 + 5 + 4, 3 + 3];
    for (server, expected) in servers.iter_mut().zip(served) {
        assert_eq!(server.stop_serving()?.connections, expected);
    }
    Ok(())
}
