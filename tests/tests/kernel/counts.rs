//! Connections, flows and payload bytes, exactly, both ends, with the right container and the right process.

use std::net::SocketAddr;

use anyhow::Result;
use system_tests::protocol::Op;
use system_tests::{Agent, Expected, Lab, Load, Pod, Rows, Wire, scale};

/// Both ends' rows say what the client counted and the kernel too.
struct Truth<'a> {
    protocol: &'a str,
    load: Load,
    port: Option<u16>,
    /// Who connected, or sent first.
    caller: (&'a Pod, u32),
    /// Who listened.
    server: (&'a Pod, u32),
    /// Who closed the server's sockets.
    closers: &'a [u32],
}

impl Truth<'_> {
    fn check(&self, rows: &Rows) -> Result<()> {
        let by = if self.protocol == "tcp" { "connect" } else { "send" };
        let outbound = Expected {
            pod: self.caller.0,
            direction: "outbound",
            protocol: self.protocol,
            outcome: "established",
            port: self.port,
            sum: self.load.into(),
            owners: &[self.caller.1],
            by,
            listener: None,
        };
        outbound.check(rows)?;
        let inbound = Expected {
            pod: self.server.0,
            direction: "inbound",
            sum: self.load.mirrored().into(),
            owners: self.closers,
            by: "close",
            listener: Some(self.server.1),
            ..outbound
        };
        inbound.check(rows)
    }
}

fn the_kernel_counted(lab: &Lab, load: Load) -> Result<()> {
    assert_eq!(lab.client.tcp_counters()?.active_opens, load.connections, "TcpActiveOpens");
    assert_eq!(lab.server.tcp_counters()?.passive_opens, load.connections, "TcpPassiveOpens");
    Ok(())
}

fn http(lab: &Lab, listen: SocketAddr, ask: impl Fn(SocketAddr) -> SocketAddr) -> Result<()> {
    let connections = scale::count("HTTP connections", 5_000, 1_000);
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);

    let address = server.serve_http(listen)?;
    let load = client.load_http(ask(address), connections, 16)?;
    assert_eq!(server.stop_serving()?, load.mirrored());
    lab.wait_until_closed()?;
    the_kernel_counted(lab, load)?;

    let port = Some(address.port());
    let (caller, server) = ((&caller, client.pid()), (&web, server.pid()));
    let truth = Truth { protocol: "tcp", load, port, caller, server, closers: &[server.1] };
    truth.check(&agent.finish()?.rows)
}

#[test]
fn http_over_loopback() -> Result<()> {
    let lab = Lab::new(Wire::Loopback)?;
    http(&lab, lab.server_v4(0), |address| address)
}

#[test]
fn http_over_a_veth() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    http(&lab, lab.server_v4(0), |address| address)
}

#[test]
fn http_over_ipv6() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    http(&lab, lab.server_v6(0), |address| address)
}

#[test]
fn http_over_v4_mapped_sockets() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let mapped = |address: SocketAddr| match lab.server_v4(address.port()) {
        SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
        v6 @ SocketAddr::V6(_) => v6,
    };
    http(&lab, "[::]:0".parse()?, mapped)
}

#[test]
fn http_with_prefork_workers() -> Result<()> {
    let connections = scale::count("HTTP connections", 2_000, 500);
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);

    let prefork = server.serve_prefork(lab.server_v4(0), 4)?;
    let load = client.load_http(prefork.address, connections, 16)?;
    assert_eq!(server.stop_serving()?, load.mirrored());
    lab.wait_until_closed()?;
    the_kernel_counted(&lab, load)?;

    // The parent listened, but a worker closed: that is the one to name.
    let port = Some(prefork.address.port());
    let (caller, server) = ((&caller, client.pid()), (&web, server.pid()));
    let truth = Truth { protocol: "tcp", load, port, caller, server, closers: &prefork.workers };
    truth.check(&agent.finish()?.rows)
}

fn open_at_once(wire: Wire) -> Result<()> {
    let connections = scale::count("connections open at once", 2_000, 500);
    let lab = Lab::new(wire)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let mut agent = Agent::start()?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);

    let address: SocketAddr = server.ask(&Op::ServeHolding { address: lab.server_v4(0) })?;
    let load: Load = client.ask(&Op::OpenMany { server: address, connections })?;
    for pod in [&caller, &web] {
        // Each is reported in the folds in which it had bytes, and counts in none of them.
        agent.wait_for("rows with all connections open", |rows| {
            let open: u64 = rows.flows_of(pod).map(|flow| flow.open).sum();
            open >= connections as u64 && rows.flows_of(pod).all(|flow| flow.connections == 0)
        })?;
    }
    client.ask::<()>(&Op::CloseMany)?;
    assert_eq!(server.stop_serving()?, load.mirrored());
    lab.wait_until_closed()?;
    the_kernel_counted(&lab, load)?;

    let port = Some(address.port());
    let (caller, server) = ((&caller, client.pid()), (&web, server.pid()));
    let truth = Truth { protocol: "tcp", load, port, caller, server, closers: &[server.1] };
    truth.check(&agent.finish()?.rows)
}

#[test]
fn connections_open_at_once_over_loopback() -> Result<()> {
    open_at_once(Wire::Loopback)
}

#[test]
fn connections_open_at_once_over_a_veth() -> Result<()> {
    open_at_once(Wire::Veth)
}

/// `sockets` of the client, spread over `ports` of the server.
fn udp(lab: &Lab, listen: SocketAddr, ports: usize, sockets: usize, connected: bool) -> Result<()> {
    let (echo, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut server, mut client) = (echo.actor(&lab.server)?, caller.actor(&lab.client)?);

    let peers: Vec<SocketAddr> = server.ask(&Op::ServeUdp { address: listen, sockets: ports })?;
    let port = (ports == 1).then(|| peers[0].port());
    let load: Load = client.ask(&Op::LoadUdp { peers, sockets, rounds: 3, interleaved: true, connected })?;
    assert_eq!(server.stop_serving()?, load.mirrored());
    lab.wait_until_closed()?;

    let (caller, server) = ((&caller, client.pid()), (&echo, server.pid()));
    let truth = Truth { protocol: "udp", load, port, caller, server, closers: &[server.1] };
    truth.check(&agent.finish()?.rows)
}

/// Every flow has a socket of its own at both ends.
fn udp_five_tuples(wire: Wire) -> Result<()> {
    let flows = scale::count("UDP flows", 2_000, 500);
    let lab = Lab::new(wire)?;
    udp(&lab, lab.server_v4(0), flows, flows, true)
}

#[test]
fn udp_five_tuples_over_loopback() -> Result<()> {
    udp_five_tuples(Wire::Loopback)
}

#[test]
fn udp_five_tuples_over_a_veth() -> Result<()> {
    udp_five_tuples(Wire::Veth)
}

#[test]
fn udp_five_tuples_of_unconnected_sockets_over_ipv6() -> Result<()> {
    let flows = scale::count("UDP flows", 500, 200);
    let lab = Lab::new(Wire::Veth)?;
    udp(&lab, lab.server_v6(0), flows, flows, false)
}

/// One socket of the server hears from all of them in turn.
fn udp_one_server(wire: Wire) -> Result<()> {
    let peers = scale::count("peers of one UDP socket", 2_000, 500);
    let lab = Lab::new(wire)?;
    udp(&lab, lab.server_v4(0), 1, peers, true)
}

#[test]
fn udp_one_server_with_many_peers_over_loopback() -> Result<()> {
    udp_one_server(Wire::Loopback)
}

#[test]
fn udp_one_server_with_many_peers_over_a_veth() -> Result<()> {
    udp_one_server(Wire::Veth)
}
