//! Sockets and listeners that are older than the agent.

use anyhow::{Context, Result, ensure};
use system_tests::protocol::Op;
use system_tests::{Agent, Expected, Flow, Lab, Pod, Rows, Sum, Wire};

#[test]
fn a_server_that_ran_before_owns_its_connections() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;
    let before = client.load_http(address, 10, 2)?;

    let agent = Agent::start()?;
    let load = client.load_http(address, 200, 8)?;
    let mut answered = load.mirrored();
    answered += before.mirrored();
    assert_eq!(server.stop_serving()?, answered);
    lab.wait_until_closed()?;

    let rows = agent.finish()?.rows;
    let outbound = Expected {
        pod: &caller,
        direction: "outbound",
        protocol: "tcp",
        outcome: "established",
        port: Some(address.port()),
        sum: load.into(),
        owners: &[client.pid()],
        by: "connect",
        listener: None,
    };
    outbound.check(&rows)?;
    let inbound = Expected {
        pod: &web,
        direction: "inbound",
        sum: load.mirrored().into(),
        owners: &[server.pid()],
        by: "close",
        listener: Some(server.pid()),
        ..outbound
    };
    inbound.check(&rows)
}

/// The connections of a pod that ended: one, older than the agent, with these bytes and this owner.
fn one_older(rows: &Rows, pod: &Pod, pid: u32, sent: u64, received: u64) -> Result<()> {
    let sum = Sum::over(rows.flows_of(pod));
    ensure!(sum == Sum { connections: 1, sent, received }, "{sum:?}{}", rows.show(pod));
    let ended: Vec<&Flow> = rows.flows_of(pod).filter(|flow| flow.connections > 0).collect();
    ensure!(ended.iter().all(|flow| flow.preexisting), "not marked as older{}", rows.show(pod));
    for flow in rows.flows_of(pod) {
        let process = flow.who.process.as_ref().with_context(|| format!("no process: {flow}"))?;
        ensure!(process.pid == pid, "not pid {pid}: {flow}");
    }
    Ok(())
}

#[test]
fn an_older_connection_counts_from_the_agents_start() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.listen("listener", lab.server_v4(0))?;
    client.connect("c", address)?;
    server.accept("listener", "c")?;
    client.send("c", 1_000)?;
    server.receive("c", 1_000)?;

    let agent = Agent::start()?;
    client.send("c", 500)?;
    server.receive("c", 500)?;
    server.send("c", 70)?;
    client.receive("c", 70)?;
    client.close("c")?;
    server.receive_to_end("c")?;
    server.close("c")?;
    server.close("listener")?;
    lab.wait_until_closed()?;

    let rows = agent.finish()?.rows;
    one_older(&rows, &caller, client.pid(), 500, 70)?;
    one_older(&rows, &web, server.pid(), 70, 500)
}

#[test]
fn older_udp_sockets_are_owned() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (echo, caller) = (Pod::new()?, Pod::new()?);
    let (mut server, mut client) = (echo.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.ask(&Op::UdpBind { socket: "s".into(), address: lab.server_v4(0) })?;
    client.ask::<std::net::SocketAddr>(&Op::UdpConnect { socket: "c".into(), address })?;
    client.send_datagram("c", None, 1_000)?;
    server.receive_datagram("s")?;

    let agent = Agent::start()?;
    client.send_datagram("c", None, 300)?;
    let from = server.receive_datagram("s")?.from;
    server.send_datagram("s", Some(from), 40)?;
    client.receive_datagram("c")?;
    client.close("c")?;
    server.close("s")?;
    lab.wait_until_closed()?;

    let rows = agent.finish()?.rows;
    one_older(&rows, &caller, client.pid(), 300, 40)?;
    one_older(&rows, &echo, server.pid(), 40, 300)
}
