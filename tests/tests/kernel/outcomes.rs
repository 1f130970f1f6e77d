//! How connections end, told apart. Every case has a pod of its own, in which nothing else happens.

use anyhow::{Context, Result, ensure};
use system_tests::{Actor, Agent, Flow, Lab, Pod, Rows, Sum, Wire, bpf};

/// The pod made exactly one connection, of this direction and outcome, and these bytes.
fn one(rows: &Rows, pod: &Pod, direction: &str, outcome: &str, sent: u64, received: u64) -> Result<()> {
    let ended: Vec<&Flow> = rows.flows_of(pod).filter(|flow| flow.connections > 0).collect();
    let right = ended.len() == 1
        && ended[0].direction == direction
        && ended[0].outcome.as_deref() == Some(outcome)
        && Sum::over(rows.flows_of(pod)) == Sum { connections: 1, sent, received };
    ensure!(right, "expected one {direction} {outcome}, {sent} sent, {received} received{}", rows.show(pod));
    Ok(())
}

/// The pod's rows name the process, by connect.
fn connected_by(rows: &Rows, pod: &Pod, pid: u32) -> Result<()> {
    for flow in rows.flows_of(pod) {
        let process = flow.who.process.as_ref().with_context(|| format!("no process in {flow}"))?;
        ensure!(process.pid == pid && process.by == "connect", "not pid {pid} by connect: {flow}");
    }
    Ok(())
}

/// A pair with one established connection, called `c` at both ends.
fn pair(lab: &Lab, web: &Pod, caller: &Pod) -> Result<(Actor, Actor)> {
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.listen("listener", lab.server_v4(0))?;
    client.connect("c", address)?;
    server.accept("listener", "c")?;
    Ok((server, client))
}

#[test]
fn established() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut server, mut client) = pair(&lab, &web, &caller)?;

    client.send("c", 300)?;
    server.receive("c", 300)?;
    server.send("c", 70_000)?;
    client.receive("c", 70_000)?;
    client.close("c")?;
    server.receive_to_end("c")?;
    server.close("c")?;
    server.close("listener")?;
    lab.wait_until_closed()?;

    let rows = agent.finish()?.rows;
    one(&rows, &caller, "outbound", "established", 300, 70_000)?;
    one(&rows, &web, "inbound", "established", 70_000, 300)?;
    connected_by(&rows, &caller, client.pid())
}

#[test]
fn reset_by_the_server() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut server, mut client) = pair(&lab, &web, &caller)?;

    client.send("c", 300)?;
    server.receive("c", 300)?;
    server.abort("c")?;
    assert_eq!(client.receive_to_end("c")?.errno, Some(libc::ECONNRESET));
    client.close("c")?;
    server.close("listener")?;
    lab.wait_until_closed()?;

    let rows = agent.finish()?.rows;
    one(&rows, &caller, "outbound", "reset", 300, 0)?;
    one(&rows, &web, "inbound", "reset", 0, 300)
}

#[test]
fn reset_after_the_servers_end_of_file() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut server, mut client) = pair(&lab, &web, &caller)?;

    // The server closes with data unread: its FIN became an RST.
    client.send("c", 300)?;
    server.receive("c", 100)?;
    server.close("c")?;
    assert_eq!(client.receive_to_end("c")?.errno, Some(libc::ECONNRESET));
    client.close("c")?;
    server.close("listener")?;
    lab.wait_until_closed()?;

    let rows = agent.finish()?.rows;
    one(&rows, &caller, "outbound", "reset", 300, 0)?;
    one(&rows, &web, "inbound", "reset", 0, 300)
}

/// One attempt of one pod's process that fails.
fn attempt(outcome: &str, mut fail: impl FnMut(&Lab, &Pod, &mut Actor) -> Result<()>) -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let caller = Pod::new()?;
    let agent = Agent::start()?;
    let mut client = caller.actor(&lab.client)?;

    fail(&lab, &caller, &mut client)?;
    // The test's last socket must be closed for its record to exist.
    let pid = client.pid();
    client.end()?;
    lab.wait_until_closed()?;

    let rows = agent.finish()?.rows;
    one(&rows, &caller, "outbound", outcome, 0, 0)?;
    connected_by(&rows, &caller, pid)?;
    ensure!(rows.flows_of(&caller).all(|flow| flow.service_port == Some(81)), "wrong port{}", rows.show(&caller));
    Ok(())
}

#[test]
fn refused() -> Result<()> {
    attempt("refused", |lab, _, client| {
        assert_eq!(client.try_connect("c", lab.server_v4(81))?.errno, Some(libc::ECONNREFUSED));
        Ok(())
    })
}

#[test]
fn refused_over_ipv6() -> Result<()> {
    attempt("refused", |lab, _, client| {
        assert_eq!(client.try_connect("c", lab.server_v6(81))?.errno, Some(libc::ECONNREFUSED));
        Ok(())
    })
}

#[test]
fn timed_out_for_the_caller() -> Result<()> {
    attempt("timed_out", |lab, _, client| {
        // The SYN is sent again after one second.
        let connected = client.connect_and_give_up("c", lab.swallowed(81), 2_500)?;
        assert_eq!(connected.errno, Some(libc::EINPROGRESS));
        Ok(())
    })
}

#[test]
fn timed_out_for_the_kernel() -> Result<()> {
    attempt("timed_out", |lab, _, client| {
        lab.client.sysctl("net/ipv4/tcp_syn_retries", "1")?;
        assert_eq!(client.try_connect("c", lab.swallowed(81))?.errno, Some(libc::ETIMEDOUT));
        Ok(())
    })
}

#[test]
fn aborted() -> Result<()> {
    attempt("aborted", |lab, _, client| {
        let connected = client.connect_and_give_up("c", lab.swallowed(81), 1)?;
        assert_eq!(connected.errno, Some(libc::EINPROGRESS));
        Ok(())
    })
}

#[test]
fn unreachable() -> Result<()> {
    attempt("unreachable", |lab, _, client| {
        assert_eq!(client.try_connect("c", lab.nowhere(81))?.errno, Some(libc::ENETUNREACH));
        Ok(())
    })
}

#[test]
fn denied_by_another_partys_program() -> Result<()> {
    attempt("denied", |lab, caller, client| {
        let _refusal = bpf::Refusal::attach(caller.directory())?;
        assert_eq!(client.try_connect("c", lab.server_v4(81))?.errno, Some(libc::EPERM));
        client.close("c")
    })
}
