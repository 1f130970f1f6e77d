//! The work that is measured: the same for every round and every variant, over the loopback of a namespace of its own, with
//! both ends in pods of this machine, so that every packet and every socket is seen at both ends.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use system_tests::lab::IMDS_V4;
use system_tests::metadata_server::Behaviour;
use system_tests::protocol::Op;
use system_tests::{Actor, Lab, Load, MetadataServer, Pod, Wire};

use crate::figures::number;

/// Parts of each kind of work. A program that the machine interrupts takes as long as the interruption: that spoils a
/// part, and a median over parts does not see it.
const PARTS: usize = 20;
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

    /// Makes HTTP connections, one request each. Here and below, `part` is told how much of the work was just done.
    pub(crate) fn churn(&self, connections: usize, mut part: impl FnMut(f64) -> Result<()>) -> Result<()> {
        let (mut client, mut server) = self.actors()?;
        let address = server.serve_http(any_port())?;
        for connections in parts(connections) {
            let load = client.load_http(address, connections, IN_FLIGHT)?;
            ensure!(load.connections == connections as u64, "{connections} connections were asked for: {load:?}");
            part(number(load.connections))?;
        }
        server.stop_serving()?;
        self.lab.wait_until_closed()
    }

    /// Sends [`BULK_BYTES`] over one connection; told in MB.
    pub(crate) fn bulk(&self, mut part: impl FnMut(f64) -> Result<()>) -> Result<()> {
        let (mut client, mut server) = self.actors()?;
        let address = server.listen("listener", any_port())?;
        client.connect("stream", address)?;
        server.accept("listener", "stream")?;
        server.tell(&Op::ReceiveToEnd { socket: "stream".into() })?;
        for bytes in parts(BULK_BYTES) {
            part(number(client.send("stream", bytes)?) / 1e6)?;
        }
        client.close("stream")?;
        let received: system_tests::protocol::Moved = server.answer()?;
        ensure!(received.bytes == BULK_BYTES as u64, "the receiver got {received:?}");
        server.close("stream")?;
        server.close("listener")?;
        self.lab.wait_until_closed()
    }

    /// Makes one exchange on each of so many sockets; told in datagrams, each counted once.
    pub(crate) fn datagrams(&self, tuples: usize, mut part: impl FnMut(f64) -> Result<()>) -> Result<()> {
        let (mut client, mut server) = self.actors()?;
        let peers: Vec<SocketAddr> = server.ask(&Op::ServeUdp { address: any_port(), sockets: UDP_SERVERS })?;
        for sockets in parts(tuples) {
            let peers = peers.clone();
            let load: Load =
                client.ask(&Op::LoadUdp { peers, sockets, rounds: 1, interleaved: false, connected: true })?;
            part(number(load.datagrams_sent + load.datagrams_received))?;
        }
        server.stop_serving()?;
        self.lab.wait_until_closed()
    }

    /// Asks the metadata service, each time on a connection of its own.
    pub(crate) fn requests(&self, times: u32) -> Result<()> {
        let services = MetadataServer::start(&self.lab.server, Behaviour::default())?;
        let mut client = self.client.actor(&self.lab.client)?;
        ask_metadata(&mut client, times)?;
        drop(client);
        services.stop()?;
        self.lab.wait_until_closed()
    }

    /// Opens so many connections, each with one exchange made.
    pub(crate) fn hold(&self, flows: usize) -> Result<Held> {
        Held::open(flows, any_port(), || self.actors())
    }

    /// Ends what [`Self::hold`] opened.
    pub(crate) fn release(&self, held: Held) -> Result<()> {
        held.close()?;
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

impl Held {
    /// Opens connections between pairs of a client and a server, who listens on `address`.
    pub(crate) fn open(
        flows: usize,
        address: SocketAddr,
        mut actors: impl FnMut() -> Result<(Actor, Actor)>,
    ) -> Result<Self> {
        let mut pairs = Vec::new();
        for _ in 0..HOLDERS {
            let (mut client, mut server) = actors()?;
            let address: SocketAddr = server.ask(&Op::ServeHolding { address })?;
            client.tell(&Op::OpenMany { server: address, connections: flows / HOLDERS })?;
            pairs.push((client, server));
        }
        for (client, _) in &mut pairs {
            let load: Load = client.answer().context("open many connections; is the limit of open files 20,000?")?;
            ensure!(load.connections == (flows / HOLDERS) as u64, "opened {load:?}");
        }
        Ok(Self { pairs })
    }

    pub(crate) fn close(self) -> Result<()> {
        for (mut client, mut server) in self.pairs {
            client.ask::<()>(&Op::CloseMany)?;
            server.stop_serving()?;
        }
        Ok(())
    }
}

/// Has a client ask the metadata service, each time on a connection of its own.
pub(crate) fn ask_metadata(client: &mut Actor, times: u32) -> Result<()> {
    let server = SocketAddr::from((IMDS_V4, 80));
    let payload = "GET /latest/meta-data/instance-id HTTP/1.0\r\n\r\n".to_owned();
    let answered: u64 = client.ask(&Op::ExchangeMany { server, payload, times })?;
    ensure!(answered == u64::from(times), "{answered} of {times} metadata requests were answered");
    Ok(())
}

/// Divides some work into [`PARTS`].
fn parts(whole: usize) -> impl Iterator<Item = usize> {
    (0..PARTS).map(move |part| whole * (part + 1) / PARTS - whole * part / PARTS)
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
