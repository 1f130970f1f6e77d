//! Everything at once and without end: pods that flood the agent with every kind of record, readers that do not read, and
//! the memory that the shipped `DaemonSet` allows, kernel maps included.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use system_tests::kube::manifests;
use system_tests::lab::IMDS_V4;
use system_tests::metadata_server::Behaviour;
use system_tests::protocol::{Load, Op};
use system_tests::{Agent, Lab, MemoryGroup, MetadataServer, Pod, Wire, agent, cgroup};

/// Connections held at once, and made one after another.
const CONNECTIONS: usize = 10_000;
/// Sockets for datagrams, each a flow of its own; DNS queries.
const DATAGRAMS: usize = 20_000;
const PROCESSES: usize = 2_000;
const REQUESTS: u32 = 2_000;
/// Containers that come and go: more than the agent has accounts for would take minutes to make.
const CGROUPS: usize = 1_000;
/// How often the agent stands still meanwhile, so that its rings fill.
const STANDSTILLS: usize = 3;

/// The limit of the shipped `DaemonSet`.
fn shipped_limit() -> Result<u64> {
    let (_, objects) = manifests::charts()?.into_iter().next().context("no rendering of the chart")?;
    let set = objects.iter().find(|object| object["kind"] == "DaemonSet").context("no DaemonSet")?;
    let limit = set["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"].as_str();
    let mebibytes = limit.and_then(|limit| limit.strip_suffix("Mi")).with_context(|| format!("limit {limit:?}"))?;
    Ok(mebibytes.parse::<u64>()? << 20)
}

/// A client of the socket that takes a little and then nothing.
struct Sleeper(Child);

impl Sleeper {
    fn start(agent: &Agent) -> Result<Self> {
        let child = Command::new(agent::program()?)
            .args(["observe", "--follow", "-o", "json", "--socket"])
            .arg(agent.socket())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start an observer")?;
        let pid = Pid::from_raw(child.id().cast_signed()).context("a pid of 0")?;
        kill_process(pid, Signal::STOP).context("stop an observer")?;
        Ok(Self(child))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Containers that come and go, below a directory that goes with its guard.
struct Passing(std::path::PathBuf);

impl Passing {
    fn new() -> Result<Self> {
        let directory = cgroup::mount_point()?.join(format!("sekisho-passing-{}", std::process::id()));
        fs::create_dir(&directory).context("make a control group")?;
        Ok(Self(directory))
    }

    fn come_and_go(&self, times: usize) -> Result<()> {
        for number in 0..times {
            let directory = self.0.join(format!("cri-containerd-{number:064x}.scope"));
            fs::create_dir(&directory).context("make a control group")?;
            fs::remove_dir(&directory).context("remove a control group")?;
        }
        Ok(())
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

#[test]
fn floods_stay_within_the_memory_that_is_shipped_and_what_is_shed_is_counted() -> Result<()> {
    let limit = shipped_limit()?;
    let lab = Lab::new(Wire::Veth)?;
    let services = MetadataServer::start(&lab.server, Behaviour::default())?;
    let web = Pod::new()?;
    let group = MemoryGroup::new("floods")?;
    group.limit(limit)?;
    let agent = Agent::within(&group.entry(), json!({}))?;
    let _sleepers = [Sleeper::start(&agent)?, Sleeper::start(&agent)?];
    let mut server = web.actor(&lab.server)?;
    let address = server.serve_http(lab.server_v4(0))?;
    let swallowed: SocketAddr = lab.swallowed(53);
    let echo: Vec<SocketAddr> = server.ask(&Op::ServeUdp { address: lab.server_v4(0), sockets: 8 })?;
    let pods = (0..5).map(|_| Pod::new()).collect::<Result<Vec<_>>>()?;
    let mut actors = pods.iter().take(4).map(|pod| pod.actor(&lab.client)).collect::<Result<Vec<_>>>()?;
    let payload = "GET /latest/user-data HTTP/1.0\r\n\r\n".to_owned();
    let floods = [
        Op::LoadHttp { server: address, connections: CONNECTIONS, in_flight: 32 },
        Op::LoadUdp { peers: echo, sockets: DATAGRAMS, rounds: 1, interleaved: false, connected: true },
        Op::ExchangeMany { server: SocketAddr::from((IMDS_V4, 80)), payload, times: REQUESTS },
    ];
    for (actor, flood) in actors.iter_mut().zip(&floods) {
        actor.tell(flood)?;
    }
    let socket = "silent".to_owned();
    let _: SocketAddr = actors[3].ask(&Op::UdpConnect { socket: socket.clone(), address: swallowed })?;
    let mut shell = pods[4].command(&lab.client, Path::new("/bin/sh"))?;
    let script = format!("i=0; while [ $i -lt {PROCESSES} ]; do /bin/true; i=$((i+1)); done");
    let mut processes = shell.args(["-c", &script]).spawn().context("start a flood of processes")?;
    let passing = Passing::new()?;
    for _ in 0..STANDSTILLS {
        agent.pause()?;
        passing.come_and_go(CGROUPS)?;
        for id in 0..500_u16 {
            let label: String = id.to_string();
            let length = char::from(u8::try_from(label.len())?);
            let text = format!(
                "\0{}\u{1}\0\0\u{1}\0\0\0\0\0\0{length}{label}\0\0\u{1}\0\u{1}",
                char::from(id.to_be_bytes()[1] & 0x7f)
            );
            let _: Value = actors[3].ask(&Op::SendText { socket: socket.clone(), text })?;
        }
        agent.resume()?;
    }
    ensure!(processes.wait()?.success(), "the flood of processes failed");
    let load: Load = actors[0].answer()?;
    ensure!(load.connections == CONNECTIONS as u64, "{load:?}");
    let _: Load = actors[1].answer()?;
    let answered: u64 = actors[2].answer()?;
    ensure!(answered == u64::from(REQUESTS), "{answered} of {REQUESTS} requests were answered");

    // The agent itself is there, knows where every record is, and took no more than it may.
    let books = agent.settled_books_with("tcp", 2 * CONNECTIONS as u64)?;
    books.check()?;
    let (peak, killed) = (group.peak()?, group.killed()?);
    println!("at the most {} of {} MiB", peak >> 20, limit >> 20);
    ensure!(killed == 0, "killed for want of memory, {killed} times");
    services.stop()?;
    for kind in ["tcp", "udp", "process", "cgroup", "metadata", "dns"] {
        let book = books.of(kind)?;
        println!("{book:?}");
        ensure!(book.seen > 1_000, "nearly nothing of {kind}");
    }
    agent.finish()?;
    Ok(())
}
