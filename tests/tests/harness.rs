//! The harness against itself and the kernel: what the client counted, what the server counted and what the kernel
//! counted are the same. Without this no comparison with the agent's rows would mean anything.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use system_tests::lab::{FAST_OPEN, IMDS_V4, IMDS_V6};
use system_tests::metadata_server::{Behaviour, ROLE, ROLE_KEY};
use system_tests::protocol::{Connected, Load, Moved, Op};
use system_tests::{Lab, MetadataServer, Node, Pod, Wire, Wiring, bpf, scale};

/// HTTP on either network: both ends and the kernel's TCP counters agree.
fn http_counts_agree(wire: Wire) -> Result<()> {
    let connections = scale::count("HTTP connections", 500, 100);
    let lab = Lab::new(wire)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);

    let address = server.serve_http(lab.server_v4(0))?;
    let asked = client.load_http(address, connections, 16)?;
    let answered = server.stop_serving()?;

    assert_eq!(asked.connections, connections as u64);
    assert_eq!(asked.mirrored(), answered);
    assert_eq!(lab.client.tcp_counters()?.active_opens, connections as u64);
    assert_eq!(lab.server.tcp_counters()?.passive_opens, connections as u64);
    client.end()?;
    server.end()
}

#[test]
fn http_counts_agree_over_loopback() -> Result<()> {
    http_counts_agree(Wire::Loopback)
}

#[test]
fn http_counts_agree_over_a_veth() -> Result<()> {
    http_counts_agree(Wire::Veth)
}

#[test]
fn prefork_workers_share_the_connections() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);

    let prefork = server.serve_prefork(lab.server_v6(0), 4)?;
    let asked = client.load_http(prefork.address, 100, 16)?;

    assert_eq!(prefork.workers.len(), 4);
    assert_eq!(server.stop_serving()?, asked.mirrored());
    Ok(())
}

#[test]
fn datagrams_agree() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (echo, caller) = (Pod::new()?, Pod::new()?);
    let (mut server, mut client) = (echo.actor(&lab.server)?, caller.actor(&lab.client)?);
    for (interleaved, connected, address) in
        [(true, true, lab.server_v4(0)), (true, false, lab.server_v6(0)), (false, true, lab.server_v6(0))]
    {
        let peers = server.ask(&Op::ServeUdp { address, sockets: 10 })?;
        let asked: Load = client.ask(&Op::LoadUdp { peers, sockets: 100, rounds: 3, interleaved, connected })?;
        assert_eq!(asked.connections, 100);
        assert_eq!(asked.datagrams_sent, 300);
        assert_eq!(server.stop_serving()?, asked.mirrored());
    }
    Ok(())
}

#[test]
fn connects_fail_each_in_its_own_way() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let pod = Pod::new()?;
    let mut client = pod.actor(&lab.client)?;

    let refused = client.try_connect("refused", lab.server_v4(9))?;
    let unreachable = client.try_connect("unreachable", lab.nowhere(80))?;
    let swallowed = client.connect_and_give_up("swallowed", lab.swallowed(80), 50)?;

    assert_eq!(refused.errno, Some(libc::ECONNREFUSED));
    assert_eq!(unreachable.errno, Some(libc::ENETUNREACH));
    assert_eq!(swallowed.errno, Some(libc::EINPROGRESS));
    Ok(())
}

#[test]
fn packets_are_steered() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    for (namespace, interface) in [(&lab.client, "client0"), (&lab.server, "server0"), (&lab.server, "lo")] {
        assert_ne!(namespace.steering(interface)?, 0, "{interface}");
    }
    Ok(())
}

#[test]
fn the_metadata_server_tells_tokens_and_roles_apart() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let services = MetadataServer::start(&lab.server, Behaviour { tokens_required: true, ..Behaviour::default() })?;
    let pod = Pod::new()?;
    let mut client = pod.actor(&lab.client)?;
    let imds = SocketAddr::from((IMDS_V4, 80));

    let without = client.exchange(imds, &["GET /latest/user-data HTTP/1.1\r\nConnection: close\r\n\r\n"])?;
    let token = client.exchange(
        SocketAddr::from((IMDS_V6, 80)),
        &["PUT /latest/api/token HTTP/1.0\r\nX-aws-ec2-meta", "data-token-ttl-seconds: 60\r\n\r\n"],
    )?;
    let token = token.answer.split_once("\r\n\r\n").context("no token")?.1.to_owned();
    let path = format!("/latest/meta-data/iam/security-credentials/{ROLE}");
    let with =
        client.exchange(imds, &[&format!("GET {path} HTTP/1.0\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n")])?;

    assert!(without.answer.starts_with("HTTP/1.1 401 "), "{without:?}");
    assert!(with.answer.contains(ROLE_KEY) && with.answer.contains(services.canary()), "{with:?}");
    let log = services.stop()?;
    let seen: Vec<_> = log.iter().map(|r| (r.method.as_str(), r.path.as_str(), r.token, r.status)).collect();
    assert_eq!(
        seen,
        [
            ("GET", path.as_str(), true, Some(200)),
            ("GET", "/latest/user-data", false, Some(401)),
            ("PUT", "/latest/api/token", true, Some(200)),
        ]
    );
    Ok(())
}

#[test]
fn another_partys_program_refuses_connects() -> Result<()> {
    let lab = Lab::new(Wire::Loopback)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.listen("listener", lab.server_v4(0))?;

    let refusal = bpf::Refusal::attach(caller.directory())?;
    assert_eq!(client.try_connect("one", address)?.errno, Some(libc::EPERM));
    drop(refusal);
    assert_eq!(client.try_connect("two", address)?.errno, None);
    Ok(())
}

#[test]
fn odd_ends_are_what_they_are_called() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    lab.server.sysctl("net/ipv4/tcp_fastopen", FAST_OPEN)?;
    lab.client.sysctl("net/ipv4/tcp_fastopen", FAST_OPEN)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.listen("listener", lab.server_v4(0))?;

    client.ask::<Connected>(&Op::FastOpen { socket: "fast".into(), address, bytes: 100 })?;
    server.accept("listener", "fast")?;
    assert_eq!(server.receive("fast", 100)?, 100);

    client.connect("forked", address)?;
    server.accept("listener", "forked")?;
    let child: u32 = client.ask(&Op::ForkAndClose { socket: "forked".into(), bytes: 200 })?;
    assert_ne!(child, client.pid());
    assert_eq!(server.receive_to_end("forked")?, Moved { bytes: 200, errno: None });

    client.connect("aborted", address)?;
    server.accept("listener", "aborted")?;
    client.abort("aborted")?;
    assert_eq!(server.receive_to_end("aborted")?, Moved { bytes: 0, errno: Some(libc::ECONNRESET) });

    client.connect("twice", address)?;
    client.ask::<()>(&Op::Disconnect { socket: "twice".into() })?;
    client.connect("twice", address)?;

    client.connect("queued", address)?;
    server.close("listener")?;
    assert_eq!(client.receive_to_end("queued")?.errno, Some(libc::ECONNRESET));

    let own = lab.client_v4(40_000);
    assert_eq!(client.connect_from("self", own, own)?.errno, None);
    assert_eq!(client.send("self", 10)?, client.receive("self", 10)?);

    assert_eq!(lab.client.tcp_counters()?.active_opens, 7);
    Ok(())
}

#[test]
fn a_node_joins_its_pods() -> Result<()> {
    let mut node = Node::new()?;
    let plain = node.pod("shop", "web", Wiring::Plain)?;
    let strict = node.pod("shop", "cart", Wiring::Strict { vlan: 1 })?;
    let outside = Pod::new()?;
    let mut vpc = node.vpc_actor(&outside)?;
    vpc.serve_http(Node::vpc_address(80))?;
    let services = MetadataServer::start(&node.network, Behaviour::default())?;

    let mut client = strict.actor()?;
    let mut server = plain.actor()?;
    server.serve_http((plain.ip, 8080).into())?;
    assert_eq!(client.load_http((plain.ip, 8080).into(), 1, 1)?.connections, 1, "pod to pod");
    let answer = client.exchange((IMDS_V4, 80).into(), &["GET /latest/user-data HTTP/1.0\r\n\r\n"])?.answer;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let unanswered = client.connect_and_give_up("blocked", Node::vpc_address(80), 300)?;
    assert_eq!(unanswered.errno, Some(libc::EINPROGRESS), "nothing comes back before it is admitted");
    node.admit(&strict)?;
    assert_eq!(client.load_http(Node::vpc_address(80), 1, 1)?.connections, 1, "pod to the VPC");

    let links = node.network.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
    for name in ["vlan.eth.1:", "eth0:", "eni", "vlan"] {
        assert!(links.contains(name), "no {name} in {links}");
    }
    server.stop_serving()?;
    vpc.stop_serving()?;
    services.stop()?;
    Ok(())
}
