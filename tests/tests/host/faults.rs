//! What goes wrong around the agent, one fault a test: it goes on with what is left and says what is missing, or ends
//! with one sentence; and afterwards everything stands in its place again. `docs/faults.md` names the test of each fault.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};
use system_tests::bpf::{Crowd, Hook};
use system_tests::bpffs::BpfFs;
use system_tests::lab::IMDS_V4;
use system_tests::metadata_server::Behaviour;
use system_tests::protocol::Load;
use system_tests::rows::Rows;
use system_tests::{Agent, Lab, MemoryGroup, MetadataServer, Pod, Sum, Wire, agent, scale};

/// Between two looks at something that must come.
const LOOK: Duration = Duration::from_millis(20);

fn wait_for(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + scale::deadline();
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what} did not come in {:?}", scale::deadline());
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// The outbound connections to a port, whosever they are.
fn outbound(rows: &Rows, port: u16) -> Sum {
    Sum::over(rows.flows.iter().filter(|flow| flow.direction == "outbound" && flow.service_port == Some(port)))
}

/// What `sekisho doctor` says of one thing.
fn doctor(agent: &Agent, part: &str, name: &str) -> Result<Value> {
    let report = agent.command(&["doctor", "-o", "json"])?.stdout;
    let report: Value = serde_json::from_slice(&report).context("a report")?;
    let found = report[part].as_array().into_iter().flatten().find(|one| one["name"] == name);
    found.cloned().with_context(|| format!("no {name} in {report}"))
}

/// Others have the hook: the kernel refuses the program, what it gives is missing and named, and all else is there.
#[test]
fn a_program_that_the_kernel_refuses_is_named_and_the_others_go_on() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let crowd = Crowd::attach(caller.directory(), Hook::Connect4)?;
    ensure!(crowd.programs() == 64, "there is room for others");
    let agent = Agent::with(json!({ "roots": { "cgroup": caller.directory() } }))?;
    let probe = doctor(&agent, "probes", "probe connect4")?;
    ensure!(probe["state"] == "degraded", "{probe}");
    ensure!(probe["text"].as_str().is_some_and(|text| text.contains("who connected, IPv4")), "{probe}");
    let metrics = agent.metrics()?;
    for (probe, is_attached) in [("connect4", 0.0), ("connect6", 1.0), ("tcp", 1.0)] {
        let shown = metrics.sum("sekisho_probe_attached", &[("probe", probe)]);
        ensure!((shown - is_attached).abs() < 0.5, "{probe}: {shown}");
    }
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;
    let load = client.load_http(address, 50, 4)?;
    server.stop_serving()?;
    lab.wait_until_closed()?;
    agent.settled_books_with("tcp", 50)?.check()?;
    let rows = agent.finish()?.rows;
    assert_eq!(outbound(&rows, address.port()), load.into());
    // Nobody saw who connected, and so whoever closed is named.
    let ours = rows.flows.iter().filter(|flow| flow.connections > 0 && flow.service_port == Some(address.port()));
    let mut processes = ours.map(|flow| flow.who.process.as_ref());
    ensure!(processes.all(|process| process.is_some_and(|process| process.by == "close")), "{:?}", rows.flows);
    Ok(())
}

/// Without the program that tells of connections there is nothing to run for.
#[test]
fn a_required_program_that_the_kernel_refuses_ends_the_start_with_a_sentence() -> Result<()> {
    let (home, pod) = (tempfile::tempdir()?, Pod::new()?);
    let _crowd = Crowd::attach(pod.directory(), Hook::SockOps)?;
    let keys = json!({ "roots": { "cgroup": pod.directory() } });
    let configuration = agent::write_configuration(home.path(), agent::free_port()?, keys)?;
    // Ends by itself if it runs after all.
    let mut command = Command::new(agent::program()?);
    let output = command.args(["run", "--duration", "5", "-o", "none", "--config"]).arg(configuration).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3), "ended with {}: {said}", output.status);
    ensure!(said.lines().last().is_some_and(|line| line.contains("the kernel refused the probe tcp")), "{said}");
    ensure!(!home.path().join("agent.sock").exists(), "its socket is still there");
    Ok(())
}

/// The mount through which the agent found the control groups is taken away: programs stay where they are, and pods that
/// come afterwards are known.
#[test]
fn a_cgroup_tree_that_vanishes_takes_no_flow_with_it() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let web = Pod::new()?;
    let before = Pod::new()?;
    let tree = tempfile::tempdir().context("make a directory")?;
    let script = format!(
        "exec unshare --mount --propagation private sh -ec 'mount -t cgroup2 none {0}; exec \"$@\"' sh \"$@\"",
        tree.path().display()
    );
    let agent = Agent::within(&script, json!({ "roots": { "cgroup": tree.path() } }))?;
    let pid = agent.pid().to_string();
    let gone = Command::new("nsenter").args(["--mount", "--target", &pid, "umount", "-l"]).arg(tree.path()).output()?;
    ensure!(gone.status.success(), "umount: {}", String::from_utf8_lossy(&gone.stderr));
    let after = Pod::new()?;
    let mut server = web.actor(&lab.server)?;
    let address = server.serve_http(lab.server_v4(0))?;
    let mut loads = Vec::new();
    for pod in [&before, &after] {
        loads.push(pod.actor(&lab.client)?.load_http(address, 30, 4)?);
    }
    server.stop_serving()?;
    lab.wait_until_closed()?;
    agent.settled_books_with("tcp", 120)?.check()?;
    let rows = agent.finish()?.rows;
    for (pod, load) in [&before, &after].into_iter().zip(loads) {
        assert_eq!(rows.sum(pod, "outbound", "tcp", "established"), load.into(), "{}", rows.show(pod));
    }
    Ok(())
}

/// Nothing can be opened for a while: flows and requests are told all the same, whoever asked meanwhile is answered
/// afterwards, and the log says it once.
#[test]
fn out_of_file_descriptors_it_goes_on_and_answers_afterwards() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let services = MetadataServer::start(&lab.server, Behaviour::default())?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;

    let pid = Pid::from_raw(agent.pid().cast_signed());
    // Below what it holds: every new one is refused.
    let inherited = getrlimit(Resource::Nofile);
    let starved = Rlimit { current: Some(3), ..inherited };
    let before = prlimit(pid, Resource::Nofile, starved).context("take the descriptors away")?;
    let mut waiting = TcpStream::connect(agent.http()).context("connect")?;
    waiting.set_read_timeout(Some(scale::deadline()))?;
    waiting.write_all(b"GET /readyz HTTP/1.0\r\nHost: x\r\n\r\n").context("ask")?;
    wait_for("the refusal", || Ok(agent.stderr().contains("could not accept an HTTP connection")))?;
    let load = client.load_http(address, 200, 4)?;
    let imds = SocketAddr::from((IMDS_V4, 80));
    for _ in 0..5 {
        client.exchange(imds, &["GET /latest/meta-data/instance-id HTTP/1.0\r\n\r\n"])?;
    }
    let told = |rows: &Rows| rows.metadata_of(&caller).count() == 5;
    wait_for("the requests", || Ok(told(&agent.rows()?)))?;
    prlimit(pid, Resource::Nofile, before).context("give the descriptors back")?;
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).context("the answer")?;
    ensure!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200"), "{answer}");
    services.stop()?;
    server.stop_serving()?;
    lab.wait_until_closed()?;
    agent.settled_books_with("tcp", 400)?.check()?;
    let said = agent.stderr().matches("could not accept an HTTP connection").count();
    ensure!(said == 1, "said {said} times: {}", agent.stderr());
    let rows = agent.finish()?.rows;
    let flows = rows.flows_of(&caller).filter(|flow| flow.service_port == Some(address.port()));
    assert_eq!(Sum::over(flows), load.into(), "{}", rows.show(&caller));
    Ok(())
}

/// Killed for want of memory. With pins nothing that happened meanwhile is missing; without, the gap says how it came.
#[test]
fn killed_for_want_of_memory_the_next_one_goes_on() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let services = MetadataServer::start(&lab.server, Behaviour::default())?;
    let caller = Pod::new()?;
    let mut client = caller.actor(&lab.client)?;
    let imds = SocketAddr::from((IMDS_V4, 80));
    let mut ask = |times: usize| -> Result<()> {
        for _ in 0..times {
            client.exchange(imds, &["GET /latest/meta-data/instance-id HTTP/1.0\r\n\r\n"])?;
        }
        Ok(())
    };
    let (bpf, home) = (BpfFs::mount()?, tempfile::tempdir()?);
    let data = home.path().join("data");
    let keys = json!({ "data_dir": data, "history": { "free_percent": 0 }, "kernel": { "pin": bpf.pins() } });
    let group = MemoryGroup::new("killed")?;
    // The one that is to go, whoever else is in there.
    let script = format!("{}\necho 1000 > /proc/$$/oom_score_adj", group.entry());
    let mut first = Agent::within(&script, keys.clone())?;
    ask(5)?;
    wait_for("the requests", || Ok(first.rows()?.metadata_of(&caller).count() == 5))?;
    group.limit(group.usage()? + (4 << 20))?;
    let eats = format!("{}\nexec dd if=/dev/zero of=/dev/null bs=32M", group.entry());
    let mut eater = Command::new("sh").args(["-ec", &eats]).stdout(Stdio::null()).spawn().context("start an eater")?;
    let status = first.wait_for_end();
    // Both fail only when it has ended already.
    let _ = eater.kill();
    let _ = eater.wait();
    ensure!(status?.signal() == Some(9) && group.killed()? > 0, "not killed for want of memory: {}", first.stderr());

    ask(7)?;
    let second = Agent::with(keys)?;
    ask(3)?;
    second.settled_books_with("metadata", 3)?.check()?;
    second.finish()?;
    services.stop()?;
    drop(first);
    let told = Command::new(agent::program()?)
        .args(["timeline", "-o", "json", "--uid", &caller.uid, "--kind", "metadata", "--data-dir"])
        .arg(&data)
        .output()?;
    let told: Vec<String> = String::from_utf8_lossy(&told.stdout).lines().map(str::to_owned).collect();
    assert_eq!(Rows::parse(&told)?.metadata_of(&caller).count(), 15);
    ensure!(agent_unpins(home.path(), &bpf)?, "the pins are still there");
    Ok(())
}

fn agent_unpins(home: &Path, bpf: &BpfFs) -> Result<bool> {
    let keys = json!({ "kernel": { "pin": bpf.pins() } });
    let configuration = agent::write_configuration(home, agent::free_port()?, keys)?;
    let ended = Command::new(agent::program()?).args(["doctor", "--unpin", "--config"]).arg(configuration).output()?;
    Ok(ended.status.success() && !bpf.pins().exists())
}

/// Two agents by mistake, as beside a test or in the middle of a roll-out: each sees everything, and what only one may
/// have stays with the first.
#[test]
fn two_agents_on_one_node_take_nothing_from_each_other() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (bpf, home) = (BpfFs::mount()?, tempfile::tempdir()?);
    let keys = json!({
        "data_dir": home.path().join("data"), "history": { "free_percent": 0 }, "kernel": { "pin": bpf.pins() },
    });
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;
    let first = Agent::with(keys.clone())?;
    let second = Agent::with(keys)?;
    let history = |agent: &Agent| doctor(agent, "checks", "history").map(|check| check["state"].clone());
    assert_eq!((history(&first)?, history(&second)?), (json!("ok"), json!("degraded")));
    assert_eq!(doctor(&second, "probes", "probe pins")?["state"], "degraded");
    let mut load: Load = client.load_http(address, 40, 4)?;
    for agent in [&first, &second] {
        agent.settled_books_with("tcp", 80)?.check()?;
    }
    let seen = second.finish()?.rows;
    assert_eq!(seen.sum(&caller, "outbound", "tcp", "established"), load.into(), "{}", seen.show(&caller));
    // The one that is left lost nothing by the other's end.
    load += client.load_http(address, 20, 4)?;
    server.stop_serving()?;
    lab.wait_until_closed()?;
    first.settled_books_with("tcp", 120)?.check()?;
    let seen = first.finish()?.rows;
    assert_eq!(seen.sum(&caller, "outbound", "tcp", "established"), load.into(), "{}", seen.show(&caller));
    ensure!(agent_unpins(home.path(), &bpf)?, "the pins are still there");
    fs::metadata(home.path().join("data")).context("the data directory")?;
    Ok(())
}
