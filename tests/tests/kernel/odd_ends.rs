//! Connections that end, begin or change hands in odd ways: counted once, with every byte, and owned by the right process.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use system_tests::lab::FAST_OPEN;
use system_tests::protocol::{Connected, Op};
use system_tests::{Actor, Agent, Lab, Pod, Rows, Sum, Wire};

/// A client and a server that listens.
struct Scene {
    lab: Lab,
    web: Pod,
    caller: Pod,
    agent: Agent,
    server: Actor,
    client: Actor,
    address: SocketAddr,
}

impl Scene {
    fn new() -> Result<Self> {
        let lab = Lab::new(Wire::Veth)?;
        let (web, caller) = (Pod::new()?, Pod::new()?);
        let agent = Agent::start()?;
        let (mut server, client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
        let address = server.listen("listener", lab.server_v4(0))?;
        Ok(Self { lab, web, caller, agent, server, client, address })
    }

    /// Connects and accepts, both called `name`.
    fn connect(&mut self, name: &str) -> Result<()> {
        self.client.connect(name, self.address)?;
        self.server.accept("listener", name)?;
        Ok(())
    }

    /// Ends both actors where they still live, and gives what the agent saw.
    fn end(self) -> Result<Seen> {
        let (client, server) = (self.client.pid(), self.server.pid());
        self.client.end()?;
        self.server.end()?;
        self.lab.wait_until_closed()?;
        Ok(Seen { rows: self.agent.finish()?.rows, web: self.web, caller: self.caller, client, server })
    }
}

/// What the agent saw of a scene.
struct Seen {
    rows: Rows,
    web: Pod,
    caller: Pod,
    client: u32,
    server: u32,
}

impl Seen {
    /// The client's connections by outcome, all of them, and their bytes.
    fn outbound(&self, ended: &[(&str, u64)], sent: u64, received: u64) -> Result<()> {
        self.all(&self.caller, "outbound", ended, (sent, received))
    }

    /// The server's connections by outcome, all of them, and their bytes.
    fn inbound(&self, ended: &[(&str, u64)], sent: u64, received: u64) -> Result<()> {
        self.all(&self.web, "inbound", ended, (sent, received))
    }

    fn all(&self, pod: &Pod, direction: &str, expected: &[(&str, u64)], bytes: (u64, u64)) -> Result<()> {
        let shown = || format!("expected {direction} {expected:?}, bytes {bytes:?}{}", self.rows.show(pod));
        let mut ended = BTreeMap::new();
        for flow in self.rows.flows_of(pod) {
            ensure!(flow.direction == direction, "wrong direction; {}", shown());
            if flow.connections > 0 {
                *ended.entry(flow.outcome.as_deref().unwrap_or("open")).or_insert(0) += flow.connections;
            }
        }
        ensure!(ended == expected.iter().copied().collect(), "connections differ; {}", shown());
        let sum = Sum::over(self.rows.flows_of(pod));
        ensure!((sum.sent, sum.received) == bytes, "bytes differ; {}", shown());
        Ok(())
    }

    fn owned(&self, pod: &Pod, pid: u32, by: &[&str]) -> Result<()> {
        for flow in self.rows.flows_of(pod).filter(|flow| flow.connections > 0) {
            let owner = flow.who.process.as_ref().map(|process| (process.pid, process.by.as_str()));
            let right = owner.is_some_and(|(owner, tie)| owner == pid && by.contains(&tie));
            ensure!(right, "expected pid {pid} by {by:?}: {flow}");
        }
        Ok(())
    }
}

#[test]
fn abort() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.connect("c")?;
    scene.client.send("c", 100)?;
    scene.server.receive("c", 100)?;
    scene.client.abort("c")?;
    assert_eq!(scene.server.receive_to_end("c")?.errno, Some(libc::ECONNRESET));

    let seen = scene.end()?;
    seen.outbound(&[("reset", 1)], 100, 0)?;
    seen.inbound(&[("reset", 1)], 0, 100)
}

#[test]
fn fast_open() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.lab.client.sysctl("net/ipv4/tcp_fastopen", FAST_OPEN)?;
    scene.lab.server.sysctl("net/ipv4/tcp_fastopen", FAST_OPEN)?;
    scene.server.close("listener")?;
    scene.address = scene.server.listen("listener", scene.lab.server_v4(0))?;
    for name in ["one", "two"] {
        scene.client.ask::<Connected>(&Op::FastOpen { socket: name.into(), address: scene.address, bytes: 100 })?;
        scene.server.accept("listener", name)?;
        scene.server.receive(name, 100)?;
        scene.server.send(name, 50)?;
        scene.client.receive(name, 50)?;
    }

    let seen = scene.end()?;
    seen.outbound(&[("established", 2)], 200, 100)?;
    seen.inbound(&[("established", 2)], 100, 200)?;
    seen.owned(&seen.web, seen.server, &["close"])
}

#[test]
fn fork_and_close() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.connect("c")?;
    scene.client.send("c", 100)?;
    scene.client.ask::<u32>(&Op::ForkAndClose { socket: "c".into(), bytes: 200 })?;
    assert_eq!(scene.server.receive_to_end("c")?.bytes, 300);

    let seen = scene.end()?;
    seen.outbound(&[("established", 1)], 300, 0)?;
    seen.inbound(&[("established", 1)], 0, 300)?;
    // The parent connected, whoever closed.
    seen.owned(&seen.caller, seen.client, &["connect"])
}

#[test]
fn the_client_is_killed() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.connect("c")?;
    scene.client.send("c", 100)?;
    scene.server.receive("c", 100)?;
    let killed = scene.client.pid();
    let successor = scene.caller.actor(&scene.lab.client)?;
    std::mem::replace(&mut scene.client, successor).kill()?;
    assert_eq!(scene.server.receive_to_end("c")?.errno, None);

    let seen = scene.end()?;
    seen.outbound(&[("established", 1)], 100, 0)?;
    seen.inbound(&[("established", 1)], 0, 100)?;
    seen.owned(&seen.caller, killed, &["connect"])
}

#[test]
fn the_server_is_killed() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.connect("c")?;
    scene.client.send("c", 100)?;
    scene.server.receive("c", 100)?;
    let killed = scene.server.pid();
    let successor = scene.web.actor(&scene.lab.server)?;
    std::mem::replace(&mut scene.server, successor).kill()?;
    assert_eq!(scene.client.receive_to_end("c")?.errno, None);

    let seen = scene.end()?;
    seen.outbound(&[("established", 1)], 100, 0)?;
    seen.inbound(&[("established", 1)], 0, 100)?;
    // A killed process closes its sockets as it ends.
    seen.owned(&seen.web, killed, &["close", "listen"])
}

#[test]
fn one_socket_twice_by_unspec() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.connect("c")?;
    scene.client.send("c", 10)?;
    scene.server.receive("c", 10)?;
    scene.client.ask::<()>(&Op::Disconnect { socket: "c".into() })?;
    assert_eq!(scene.server.receive_to_end("c")?.errno, Some(libc::ECONNRESET));
    scene.connect("c")?;
    scene.client.send("c", 20)?;
    scene.server.receive("c", 20)?;
    scene.client.close("c")?;
    scene.server.receive_to_end("c")?;

    let seen = scene.end()?;
    seen.outbound(&[("reset", 1), ("established", 1)], 30, 0)?;
    seen.inbound(&[("reset", 1), ("established", 1)], 0, 30)
}

#[test]
fn one_socket_twice_after_a_refusal() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.server.close("listener")?;
    assert_eq!(scene.client.try_connect("c", scene.address)?.errno, Some(libc::ECONNREFUSED));
    scene.server.listen("listener", scene.address)?;
    scene.connect("c")?;
    scene.client.send("c", 20)?;
    scene.server.receive("c", 20)?;
    scene.client.close("c")?;
    scene.server.receive_to_end("c")?;

    let seen = scene.end()?;
    seen.outbound(&[("refused", 1), ("established", 1)], 20, 0)?;
    seen.inbound(&[("established", 1)], 0, 20)?;
    seen.owned(&seen.caller, seen.client, &["connect"])
}

#[test]
fn a_listener_closed_over_queued_children() -> Result<()> {
    let mut scene = Scene::new()?;
    for name in ["one", "two", "three"] {
        scene.client.connect(name, scene.address)?;
        scene.client.send(name, 10)?;
    }
    scene.server.close("listener")?;
    for name in ["one", "two", "three"] {
        assert_eq!(scene.client.receive_to_end(name)?.errno, Some(libc::ECONNRESET));
    }

    let seen = scene.end()?;
    seen.outbound(&[("reset", 3)], 30, 0)?;
    seen.inbound(&[("reset", 3)], 0, 30)?;
    seen.owned(&seen.web, seen.server, &["close", "listen"])
}

#[test]
fn a_connection_to_itself() -> Result<()> {
    let mut scene = Scene::new()?;
    let own = scene.lab.client_v4(40_000);
    assert_eq!(scene.client.connect_from("c", own, own)?.errno, None);
    scene.client.send("c", 10)?;
    scene.client.receive("c", 10)?;
    scene.client.close("c")?;

    let seen = scene.end()?;
    seen.outbound(&[("established", 1)], 10, 10)
}

#[test]
fn shut_down_and_slow_to_close() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.connect("c")?;
    scene.client.send("c", 10)?;
    scene.client.shutdown("c")?;
    assert_eq!(scene.server.receive_to_end("c")?.bytes, 10);
    // Half closed for a while: the server still sends.
    scene.server.send("c", 40_000)?;
    scene.client.receive("c", 40_000)?;
    scene.client.close("c")?;
    scene.server.close("c")?;

    let seen = scene.end()?;
    seen.outbound(&[("established", 1)], 10, 40_000)?;
    seen.inbound(&[("established", 1)], 40_000, 10)?;
    seen.owned(&seen.web, seen.server, &["close"])
}

#[test]
fn a_connection_that_lasts() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.connect("c")?;
    let mut sent = 0;
    for step in 1..=3_u64 {
        sent += scene.client.send("c", 1_000)?;
        scene.server.receive("c", 1_000)?;
        let (caller, web) = (&scene.caller, &scene.web);
        scene.agent.wait_for(&format!("bytes of step {step}"), |rows| {
            Sum::over(rows.flows_of(caller)) == Sum { connections: 0, sent, received: 0 }
                && Sum::over(rows.flows_of(web)) == Sum { connections: 0, sent: 0, received: sent }
                && rows.flows_of(caller).any(|flow| flow.open == 1)
        })?;
    }
    scene.client.send("c", 500)?;
    scene.client.close("c")?;
    scene.server.receive_to_end("c")?;

    let seen = scene.end()?;
    seen.outbound(&[("established", 1)], 3_500, 0)?;
    seen.inbound(&[("established", 1)], 0, 3_500)
}
