//! The harness against itself and the kernel: what the client counted, what the server counted and what the kernel
//! counted are the same. Without this no comparison with the agent's rows would mean anything.

use anyhow::Result;
use system_tests::protocol::{Load, Op};
use system_tests::{Lab, Pod, Wire, scale};

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
