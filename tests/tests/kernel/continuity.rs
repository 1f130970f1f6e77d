//! Over restarts, crashes and changes: what happened while the agent was away, once, or counted as lost.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::bpffs::BpfFs;
use system_tests::lab::IMDS_V4;
use system_tests::metadata_server::Behaviour;
use system_tests::protocol::{Load, Op};
use system_tests::rows::Rows;
use system_tests::{Agent, Lab, MetadataServer, Pod, Sum, Wire, agent};

/// Answered, and its connection stays open.
const REQUEST_THAT_STAYS: &str = "GET /latest/meta-data/iam/info HTTP/1.1\r\nHost: imds\r\nUser-Agent: test\r\n\r\n";
/// The beginning of the answer, which travels whole.
const ANSWER_BEGINS: usize = "HTTP/1.1 200 OK".len();
/// Connections whose request is answered and whose end is still to come: longer than it takes until a request is stored,
/// and shorter than a tick of the agent.
const STAY: usize = 60;

const REQUEST: &str =
    "GET /latest/meta-data/iam/info HTTP/1.1\r\nHost: imds\r\nUser-Agent: test\r\nConnection: close\r\n\r\n";

/// Records known to be lost in a gap, by kind; `None` when that is not known.
type Lost = Option<BTreeMap<String, u64>>;

/// What outlives the agents of a test.
struct Home {
    bpf: BpfFs,
    directory: tempfile::TempDir,
}

impl Home {
    fn new() -> Result<Self> {
        Ok(Self { bpf: BpfFs::mount()?, directory: tempfile::tempdir().context("make a directory")? })
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn pinned(&self) -> Value {
        json!({ "data_dir": self.data(), "history": { "free_percent": 0 }, "kernel": { "pin": self.bpf.pins() } })
    }

    /// What the history tells.
    fn timeline(&self, arguments: &[&str]) -> Result<Vec<String>> {
        let data = self.data();
        let told = Command::new(agent::program()?)
            .args(["timeline", "-o", "json", "--data-dir"])
            .arg(&data)
            .args(arguments)
            .output()
            .context("run sekisho timeline")?;
        ensure!(told.status.success(), "timeline: {}", String::from_utf8_lossy(&told.stderr));
        Ok(String::from_utf8_lossy(&told.stdout).lines().map(str::to_owned).collect())
    }

    /// Gaps by cause, and what is known to be lost in them; `None` for what is not known.
    fn gaps(&self) -> Result<Vec<(String, Lost)>> {
        let mut gaps = Vec::new();
        for line in self.timeline(&["--kind", "gap"])? {
            let gap: Value = serde_json::from_str(&line).context("a gap")?;
            let cause = gap["cause"].as_str().context("a cause")?.to_owned();
            let lost: BTreeMap<String, u64> = serde_json::from_value(gap["records_lost"].clone()).context("a loss")?;
            gaps.push((cause, (!lost.is_empty()).then_some(lost)));
        }
        Ok(gaps)
    }

    fn rows_of(&self, pod: &Pod) -> Result<Rows> {
        Rows::parse(&self.timeline(&["--uid", &pod.uid])?)
    }
}

fn imds() -> SocketAddr {
    SocketAddr::from((IMDS_V4, 80))
}

/// Stopped and started again under load, with connections and requests while nobody is there: all of them stand in the
/// history, once, and no gap is told.
#[test]
fn with_pins_a_restart_misses_nothing() -> Result<()> {
    let home = Home::new()?;
    let lab = Lab::new(Wire::Veth)?;
    let services = MetadataServer::start(&lab.server, Behaviour::default())?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;
    let mut sum = Sum::default();
    let mut add = |load: Load| {
        sum = Sum {
            connections: sum.connections + load.connections,
            sent: sum.sent + load.sent,
            received: sum.received + load.received,
        };
    };

    let first = Agent::with(home.pinned())?;
    add(client.load_http(address, 40, 4)?);
    client.exchange(imds(), &[REQUEST])?;
    // The stop falls into this.
    client.tell(&Op::LoadHttp { server: address, connections: 200, in_flight: 4 })?;
    first.finish()?;
    add(client.answer()?);
    let mode = |path: PathBuf| fs::metadata(path).map(|found| found.permissions().mode() & 0o777);
    assert_eq!((mode(home.bpf.pins())?, mode(home.bpf.pins().join("map_BULK"))?), (0o700, 0o600));

    add(client.load_http(address, 60, 4)?);
    for _ in 0..5 {
        client.exchange(imds(), &[REQUEST])?;
    }
    let second = Agent::with(home.pinned())?;
    add(client.load_http(address, 30, 4)?);
    client.exchange(imds(), &[REQUEST])?;
    second.books_with("tcp", 2 * 90)?.check()?;
    second.finish()?;

    let rows = home.rows_of(&caller)?;
    let flows = rows.flows_of(&caller).filter(|flow| flow.service_port == Some(address.port()));
    assert_eq!(Sum::over(flows), sum, "{}", rows.show(&caller));
    assert_eq!(rows.metadata_of(&caller).count(), 7);
    for row in rows.metadata_of(&caller) {
        let process = row.who.process.as_ref().with_context(|| format!("no process: {row:?}"))?;
        ensure!(process.pid == client.pid() && row.status == Some(200), "{row:?}");
    }
    assert_eq!(home.gaps()?, []);
    drop(services);
    unpin(&home)
}

/// `sekisho doctor --unpin` leaves nothing.
fn unpin(home: &Home) -> Result<()> {
    let configuration = agent::write_configuration(home.directory.path(), agent::free_port()?, home.pinned())?;
    let ended = Command::new(agent::program()?).args(["doctor", "--unpin", "--config"]).arg(configuration).output()?;
    ensure!(ended.status.success(), "doctor: {}", String::from_utf8_lossy(&ended.stderr));
    ensure!(!home.bpf.pins().exists(), "the pins are still there");
    Ok(())
}

/// A client that asks the metadata service one request after the other until it is told to stop, and counts them. Each
/// connection stays open for a while after its answer, so that the end of some falls to another agent than the request.
fn asks_on(pod: &Pod, lab: &Lab, stop: &Arc<AtomicBool>) -> Result<std::thread::JoinHandle<Result<usize>>> {
    let mut client = pod.actor(&lab.client)?;
    let stop = Arc::clone(stop);
    Ok(std::thread::spawn(move || {
        let (mut asked, mut open) = (0, VecDeque::new());
        while !stop.load(Ordering::Relaxed) {
            let socket = format!("request {asked}");
            client.connect(&socket, imds())?;
            client.send_text(&socket, REQUEST_THAT_STAYS)?;
            client.receive(&socket, ANSWER_BEGINS)?;
            asked += 1;
            open.push_back(socket);
            if open.len() > STAY
                && let Some(oldest) = open.pop_front()
            {
                client.close(&oldest)?;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for socket in open {
            client.close(&socket)?;
        }
        Ok(asked)
    }))
}

/// Killed again and again under load, at moments spread over what a start and a fold take.
fn killed(kills_max: u32, time: Duration) -> Result<()> {
    let home = Home::new()?;
    let lab = Lab::new(Wire::Veth)?;
    let services = MetadataServer::start(&lab.server, Behaviour::default())?;
    let (web, caller, asker) = (Pod::new()?, Pod::new()?, Pod::new()?);
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;
    // The pins come first: before them nobody watches.
    Agent::with(home.pinned())?.finish()?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut asking = None;

    let (mut connections, mut kills, started) = (0, 0, Instant::now());
    let mut moment: u64 = 0x9e37_79b9_7f4a_7c15;
    while kills < kills_max && (started.elapsed() < time || kills < 3) {
        // Every second one gets as far as to read, on machines that take long for a start too: the ring holds what is asked
        // meanwhile.
        let agent = if kills % 2 == 0 { Agent::with(home.pinned())? } else { Agent::launch("none", home.pinned())? };
        if asking.is_none() {
            asking = Some(asks_on(&asker, &lab, &stop)?);
        }
        client.tell(&Op::LoadHttp { server: address, connections: 150, in_flight: 4 })?;
        moment ^= moment << 13;
        moment ^= moment >> 7;
        moment ^= moment << 17;
        std::thread::sleep(Duration::from_millis(moment % 4_500));
        // Its guard kills it.
        drop(agent);
        let load: Load = client.answer()?;
        connections += load.connections;
        kills += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let asked = asking.context("nobody asked")?.join().map_err(|_| anyhow::anyhow!("the asking thread panicked"))??;
    let last = Agent::with(home.pinned())?;
    last.books_with("tcp", 0)?.check()?;
    last.finish()?;
    drop(services);

    let told = home.rows_of(&asker)?.metadata_of(&asker).count();
    let of_port = |pod: &Pod| -> Result<u64> {
        let rows = home.rows_of(pod)?;
        Ok(Sum::over(rows.flows_of(pod).filter(|flow| flow.service_port == Some(address.port()))).connections)
    };
    let (out, within) = (of_port(&caller)?, of_port(&web)?);
    let gaps = home.gaps()?;
    let lost = |kind: &str| -> u64 { gaps.iter().filter_map(|(_, lost)| lost.as_ref()?.get(kind)).sum() };
    println!(
        "{kills} kills: {connections} connections, {out} and {within} stored, {} records lost; {asked} requests, {told} stored",
        lost("tcp")
    );
    // The first agent was stopped: where its start took long, connections that waited for it, older than its probes, end
    // after it, and what the kernel merges of them while nobody watches counts as lost.
    let is_known = |(cause, lost): &(String, Lost)| ["crashed", "stopped"].contains(&cause.as_str()) && lost.is_some();
    ensure!(gaps.iter().all(is_known), "{gaps:?}");
    ensure!(gaps.iter().filter(|(cause, _)| cause == "stopped").count() <= 1, "{gaps:?}");
    ensure!(out <= connections && within <= connections, "doubled: {out} and {within} of {connections}");
    let missing = 2 * connections - out - within;
    ensure!(missing <= lost("tcp"), "{missing} connections are missing, {} records are known to be lost", lost("tcp"));
    // Each once, and no end of a connection for a request.
    ensure!(
        told == asked && lost("metadata") == 0,
        "{asked} requests, {told} rows, {} lost: {}",
        lost("metadata"),
        odd_requests(&home, &asker)?
    );
    unpin(&home)
}

/// Requests that are not told as all others are.
fn odd_requests(home: &Home, asker: &Pod) -> Result<String> {
    let rows = home.rows_of(asker)?;
    let odd = rows.metadata_of(asker).filter(|row| row.status != Some(200) || row.method.is_none());
    Ok(format!("{:?}", odd.collect::<Vec<_>>()))
}

#[test]
fn killed_again_and_again_nothing_is_doubled_and_what_is_missing_is_counted() -> Result<()> {
    killed(200, Duration::from_secs(20))
}

/// As above, two hundred times: some ten minutes.
#[test]
#[ignore = "takes ten minutes"]
fn killed_two_hundred_times() -> Result<()> {
    killed(200, Duration::from_hours(1))
}

/// Programs of other settings take the place of those that went on. What these had in their rings is told all the same,
/// and nothing twice.
#[test]
fn other_programs_take_over_and_nothing_is_doubled() -> Result<()> {
    let home = Home::new()?;
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;
    let first = Agent::with(home.pinned())?;
    client.load_http(address, 40, 4)?;
    first.finish()?;
    client.load_http(address, 30, 4)?;
    let mut other = home.pinned();
    other["kernel"]["max_sockets"] = json!(4_096);
    let second = Agent::with(other)?;
    client.load_http(address, 20, 4)?;
    second.books_with("tcp", 2 * 20)?.check()?;
    second.finish()?;
    let rows = home.rows_of(&caller)?;
    assert_eq!(Sum::over(rows.flows_of(&caller)).connections, 90, "{}", rows.show(&caller));
    unpin(&home)
}

/// Without pins nobody can tell what was missed: the gap says so, and why there is one.
#[test]
fn without_pins_the_loss_is_unknown() -> Result<()> {
    let home = Home::new()?;
    let unpinned = || json!({ "data_dir": home.data(), "history": { "free_percent": 0 } });
    Agent::with(unpinned())?.finish()?;
    // Killed by its guard.
    drop(Agent::with(unpinned())?);
    Agent::with(unpinned())?.finish()?;
    assert_eq!(home.gaps()?, [("stopped".to_owned(), None), ("crashed".to_owned(), None)]);
    Ok(())
}

/// Where nothing can be pinned the agent runs, and says so.
#[test]
fn a_directory_that_is_no_bpf_file_system_degrades() -> Result<()> {
    let home = Home::new()?;
    let agent = Agent::with(json!({ "kernel": { "pin": home.directory.path().join("pins") } }))?;
    let doctor = agent.command(&["doctor", "-o", "json"])?;
    let report: Value = serde_json::from_slice(&doctor.stdout).context("a report")?;
    let probes = report["probes"].as_array().context("probes")?;
    let pins = probes.iter().find(|probe| probe["name"] == "probe pins").context("nothing of pins")?;
    assert_eq!(pins["state"], "degraded", "{pins}");
    ensure!(pins["text"].as_str().is_some_and(|text| text.contains("no BPF file system")), "{pins}");
    agent.finish()?;
    Ok(())
}
