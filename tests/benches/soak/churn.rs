//! Pods that come, make a bit of every kind of traffic, and go: some by themselves, some killed with all they hold.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use system_tests::lab::IMDS_V4;
use system_tests::metadata_server::Behaviour;
use system_tests::protocol::Op;
use system_tests::{Actor, Load, MetadataServer, Node, NodePod, Wiring};

/// Pods that live at a time, besides the one that serves.
const LIVE: usize = 12;
/// HTTP connections of a pod, and how many of them at a time.
const CONNECTIONS: usize = 40;
const IN_FLIGHT: usize = 8;
/// Connections to the pod that came before, held as long as both live.
const HELD: usize = 20;
/// UDP sockets of a pod, and the server's that they share.
const SOCKETS: usize = 20;
const UDP_SERVERS: usize = 2;
/// Requests of a pod to the metadata service.
const REQUESTS: u32 = 2;
/// Programs that a pod starts and that end at once.
const PROGRAMS: u32 = 4;

/// What was done.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Work {
    /// Pods that came and went.
    pub(crate) pods: u64,
    /// Programs that were started in them, the one that makes traffic included.
    pub(crate) programs: u64,
    /// TCP connections, each with both ends on the machine.
    pub(crate) connections: u64,
    /// UDP 5-tuples.
    pub(crate) tuples: u64,
    /// Requests to the metadata service.
    pub(crate) requests: u64,
}

/// A pod, and where it takes connections that are held as long as both ends live.
struct Live {
    // Before the pod: what runs in it ends first.
    actor: Actor,
    holding: SocketAddr,
    pod: NodePod,
}

/// The node and its pods.
pub(crate) struct Churn {
    // Before the node: what runs in it ends first.
    live: VecDeque<Live>,
    server: Actor,
    server_pod: NodePod,
    services: MetadataServer,
    http: SocketAddr,
    udp: Vec<SocketAddr>,
    program: PathBuf,
    work: Work,
    node: Node,
}

impl Churn {
    pub(crate) fn new(mut node: Node) -> Result<Self> {
        let services = MetadataServer::start(&node.network, Behaviour::default())?;
        let server_pod = node.pod("soak", "server", Wiring::Plain)?;
        let mut server = server_pod.actor()?;
        let address = SocketAddr::from((server_pod.ip, 0));
        let http = server.serve_http(address)?;
        let udp = server.ask(&Op::ServeUdp { address, sockets: UDP_SERVERS })?;
        let program = which("true")?;
        let (live, work) = (VecDeque::new(), Work::default());
        Ok(Self { live, server, server_pod, services, http, udp, program, work, node })
    }

    /// A pod comes; when there are enough, the oldest goes.
    pub(crate) fn step(&mut self) -> Result<()> {
        let number = self.work.pods + self.live.len() as u64;
        let pod = self.node.pod("soak", &format!("pod-{number}"), Wiring::Plain)?;
        for _ in 0..PROGRAMS {
            let mut command = pod.container.command(&pod.network, &self.program)?;
            let status = command.stdin(Stdio::null()).status().context("run a program in a pod")?;
            ensure!(status.success(), "{} ended with {status}", self.program.display());
        }
        let mut actor = pod.actor()?;
        let load = actor.load_http(self.http, CONNECTIONS, IN_FLIGHT)?;
        let holding = actor.ask(&Op::ServeHolding { address: SocketAddr::from((pod.ip, 0)) })?;
        let held = match self.live.back() {
            Some(before) => actor.ask(&Op::OpenMany { server: before.holding, connections: HELD })?,
            None => Load::default(),
        };
        let connected = number.is_multiple_of(2);
        let udp: Load = actor.ask(&Op::LoadUdp {
            peers: self.udp.clone(),
            sockets: SOCKETS,
            rounds: 1,
            interleaved: !connected,
            connected,
        })?;
        let imds = SocketAddr::from((IMDS_V4, 80));
        let payload = "GET /latest/meta-data/instance-id HTTP/1.0\r\n\r\n".to_owned();
        let answered: u64 = actor.ask(&Op::ExchangeMany { server: imds, payload, times: REQUESTS })?;
        ensure!(answered == u64::from(REQUESTS), "{answered} of {REQUESTS} metadata requests were answered");
        let work = &mut self.work;
        work.programs += u64::from(PROGRAMS) + 1;
        work.connections += load.connections + held.connections + answered;
        work.tuples += udp.connections;
        work.requests += answered;
        self.live.push_back(Live { actor, holding, pod });
        if self.live.len() > LIVE {
            self.end_oldest()?;
        }
        Ok(())
    }

    /// All pods go.
    pub(crate) fn end(mut self) -> Result<Work> {
        while !self.live.is_empty() {
            self.end_oldest()?;
        }
        self.server.stop_serving()?;
        self.server.end()?;
        self.services.stop()?;
        self.node.end(self.server_pod)?;
        Ok(self.work)
    }

    fn end_oldest(&mut self) -> Result<()> {
        let Some(Live { actor, pod, holding: _ }) = self.live.pop_front() else { return Ok(()) };
        if self.work.pods.is_multiple_of(2) { actor.end() } else { actor.kill() }?;
        self.node.end(pod)?;
        self.work.pods += 1;
        Ok(())
    }
}

fn which(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    let found = std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file());
    found.with_context(|| format!("no {program} in PATH"))
}
