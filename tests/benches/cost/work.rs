//! The work that is measured: the same for every round and every variant, over the loopback of a namespace of its own, with
//! both ends in pods of this machine, so that every packet and every socket is seen at both ends.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use system_tests::protocol::Op;
use system_tests::{Actor, Lab, Load, Pod, Wire};

/// HTTP connections at a time.
const IN_FLIGHT: usize = 16;
/// One TCP stream of this many bytes: a few seconds.
pub(crate) const BULK_BYTES: usize = 4_000_000_000;
/// UDP 5-tuples: as many client sockets, one exchange each.
pub(crate) const TUPLES: usize = 20_000;
/// Server sockets that share them; each has thousands of peers, as a name server's have.
const UDP_SERVERS: usize = 4;
/// Connections held open together.
pub(crate) const FLOWS: usize = 20_000;
/// Processes at each end that share them: a process may have 20,000 files on some machines, its own ones included.
const HOLDERS: usize = 2;
/// Pods on a full node.
pub(crate) const PODS: usize = 110;
/// Ephemeral ports: 50,000 connections come faster than their ports become free.
const PORTS: &str = "1024 65535";

/// A network with a pod at each end.
pub(crate) struct Site {
    lab: Lab,
    client: Pod,
    server: Pod,
}

impl Site {
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::new(Wire::Loopback)?;
        lab.client.sysctl("net/ipv4/ip_local_port_range", PORTS)?;
        Ok(Self { lab, client: Pod::new()?, server: Pod::new()? })
    }

    /// What the agent calls the workload of the client's end.
    pub(crate) fn client_workload(&self) -> String {
        format!("pod-{}", self.client.uid)
    }

    /// Makes HTTP connections, one request each.
    pub(crate) fn churn(&self, connections: usize) -> Result<()> {
        let (mut client, mut server) = self.actors()?;
        let address = server.serve_http(any_port())?;
        let load = client.load_http(address, connections, IN_FLIGHT)?;
        ensure!(load.connections == connections as u64, "{connections} connections were asked for: {load:?}");
        server.stop_serving()?;
        self.lab.wait_until_closed()
    }

    /// Sends [`BULK_BYTES`] over one connection.
    pub(crate) fn bulk(&self) -> Result<()> {
        let (mut client, mut server) = self.actors()?;
        let address = server.listen("listener", any_port())?;
        client.connect("stream", address)?;
        server.accept("listener", "stream")?;
        server.tell(&Op::ReceiveToEnd { socket: "stream".into() })?;
        client.send("stream", BULK_BYTES)?;
        client.close("stream")?;
        let received: system_tests::protocol::Moved = server.answer()?;
        ensure!(received.bytes == BULK_BYTES as u64, "the receiver got {received:?}");
        server.close("stream")?;
        server.close("listener")?;
        self.lab.wait_until_closed()
    }

    /// Makes one exchange on each of [`TUPLES`] sockets; gives how many datagrams that were.
    pub(crate) fn datagrams(&self) -> Result<u64> {
        let (mut client, mut server) = self.actors()?;
        let peers: Vec<SocketAddr> = server.ask(&Op::ServeUdp { address: any_port(), sockets: UDP_SERVERS })?;
        let load: Load =
            client.ask(&Op::LoadUdp { peers, sockets: TUPLES, rounds: 1, interleaved: false, connected: true })?;
        server.stop_serving()?;
        self.lab.wait_until_closed()?;
        Ok(load.datagrams_sent + load.datagrams_received)
    }

    /// Opens [`FLOWS`] connections, each with one exchange made.
    pub(crate) fn hold(&self) -> Result<Held> {
        let mut pairs = Vec::new();
        for _ in 0..HOLDERS {
            let (mut client, mut server) = self.actors()?;
            let address: SocketAddr = server.ask(&Op::ServeHolding { address: any_port() })?;
            client.tell(&Op::OpenMany { server: address, connections: FLOWS / HOLDERS })?;
            pairs.push((client, server));
        }
        for (client, _) in &mut pairs {
            let load: Load = client.answer().context("open many connections; is the limit of open files 20,000?")?;
            ensure!(load.connections == (FLOWS / HOLDERS) as u64, "opened {load:?}");
        }
        Ok(Held { pairs })
    }

    /// Ends what [`Self::hold`] opened.
    pub(crate) fn release(&self, held: Held) -> Result<()> {
        for (mut client, mut server) in held.pairs {
            client.ask::<()>(&Op::CloseMany)?;
            server.stop_serving()?;
        }
        self.lab.wait_until_closed()
    }

    /// Makes [`PODS`] pods that have connected once.
    pub(crate) fn pods(&self) -> Result<Vec<Pod>> {
        let mut server = self.server.actor(&self.lab.server)?;
        let address = server.serve_http(any_port())?;
        let mut pods = Vec::new();
        for _ in 0..PODS {
            let pod = Pod::new()?;
            pod.actor(&self.lab.client)?.load_http(address, 1, 1)?;
            pods.push(pod);
        }
        server.stop_serving()?;
        Ok(pods)
    }

    fn actors(&self) -> Result<(Actor, Actor)> {
        Ok((self.client.actor(&self.lab.client)?, self.server.actor(&self.lab.server)?))
    }
}

/// Open connections.
pub(crate) struct Held {
    pairs: Vec<(Actor, Actor)>,
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
