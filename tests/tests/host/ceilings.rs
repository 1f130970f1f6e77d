//! The node's ceilings: figures of this machine against other tools, and pods that are driven into their limits. What
//! moves while it is compared is read twice by the other tool, and the comparison holds when both readings agree.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::{Value, json};
use system_tests::looks::{Looks, PidsLimit, pod_scope};
use system_tests::node::{Node, Wiring};
use system_tests::protocol::Op;
use system_tests::{Lab, Pod, Wire, scale};

/// Runs a tool and gives its output.
pub(super) fn tool(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).with_context(|| format!("{program} prints text"))
}

/// Looks between two readings of another tool, until those agree with each other.
fn between<T: PartialEq + std::fmt::Debug>(mut read: impl FnMut() -> Result<T>) -> Result<(T, Looks)> {
    let deadline = Instant::now() + scale::deadline();
    loop {
        let before = read()?;
        let looks = Looks::take()?;
        let after = read()?;
        if before == after {
            return Ok((before, looks));
        }
        ensure!(Instant::now() < deadline, "it never stands still: {before:?}, {after:?}");
    }
}

/// What is used changes all the time on a machine that works, so it may be off by a hundredth of the whole; the whole is
/// exact.
#[test]
fn file_systems_agree_with_df() -> Result<()> {
    let text = tool("df", &["--output=used,avail,iused,itotal", "-B1", "/"])?;
    let looks = Looks::take()?;
    let figures: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [used, available, inodes_used, inodes] = figures[..] else { bail!("df: {text}") };
    let scope = json!({ "FileSystem": "/" });
    for (resource, used, limit) in [("disk_bytes", used, used + available), ("disk_inodes", inodes_used, inodes)] {
        let (told, told_limit) = looks.figures(resource, &scope)?;
        assert_eq!(told_limit, limit, "{resource}");
        ensure!(told.abs_diff(used) <= limit / 100, "{resource}: {told}, and df says {used} of {limit}");
    }
    Ok(())
}

#[test]
fn interfaces_agree_with_ip() -> Result<()> {
    let read = || -> Result<Vec<Value>> {
        let text = tool("ip", &["-s", "-j", "-d", "link"])?;
        serde_json::from_str(&text).context("ip prints JSON")
    };
    let lab = Lab::new(Wire::Veth)?;
    let (before, looks, after) = lab.client.run(|| Ok((read()?, Looks::take()?, read()?)))?;
    let links = looks.links()?;
    assert_eq!(links.len(), before.len());
    for ((told, before), after) in links.iter().zip(&before).zip(&after) {
        assert_eq!(told["name"], before["ifname"]);
        assert_eq!(told["index"], before["ifindex"]);
        let mac = if before["address"] == "00:00:00:00:00:00" { &Value::from("") } else { &before["address"] };
        assert_eq!(told["mac"], *mac);
        let kind = before["linkinfo"]["info_kind"].as_str();
        assert_eq!(told["kind"] == "veth", kind == Some("veth"), "{before}");
        for (name, group, figure) in
            [("received_bytes", "rx", "bytes"), ("received_packets", "rx", "packets"), ("sent_bytes", "tx", "bytes")]
        {
            let of = |ip: &Value| ip["stats64"][group][figure].as_u64().context("ip tells counts");
            let told = told[name].as_u64().context("a count")?;
            ensure!((of(before)?..=of(after)?).contains(&told), "{name}: {told} is not between {before} and {after}");
        }
    }
    Ok(())
}

#[test]
fn tables_of_the_kernel_agree_with_their_own_files() -> Result<()> {
    let number = |path: &str| -> Result<u64> {
        fs::read_to_string(path).with_context(|| format!("read {path}"))?.trim().parse().context("a number")
    };
    let count = "/proc/sys/net/netfilter/nf_conntrack_count";
    if fs::exists(count).context("look for connection tracking")? {
        let (used, looks) = between(|| number(count))?;
        let max = number("/proc/sys/net/netfilter/nf_conntrack_max")?;
        assert_eq!(looks.figures("conntrack_entries", &json!("Node"))?, (used, max));
    }
    let looks = Looks::take()?;
    let (_, limit) = looks.figures("threads", &json!("Node"))?;
    assert_eq!(limit, number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?));
    Ok(())
}

/// Threads as Python counts the directories of all tasks; the machine starts and ends some meanwhile.
#[test]
fn threads_and_files_agree_with_python() -> Result<()> {
    let (lab, pod) = (Lab::new(Wire::Loopback)?, Pod::new()?);
    let mut actor = pod.actor(&lab.client)?;
    for socket in 0..25 {
        actor.ask::<Value>(&Op::UdpBind { socket: format!("s{socket}"), address: lab.client_v4(0) })?;
    }
    let script = format!("import os; print(len(os.listdir('/proc/{}/fd')))", actor.pid());
    let (files, looks) = between(|| tool("python3", &["-c", &script]))?;
    let (used, limit) = looks.figures("open_files", &pod_scope(&pod))?;
    assert_eq!(used.to_string(), files.trim());
    let script = format!("import resource; print(resource.prlimit({}, resource.RLIMIT_NOFILE)[0])", actor.pid());
    assert_eq!(limit.to_string(), tool("python3", &["-c", &script])?.trim());
    actor.end()
}

/// A child that ends with its guard.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_pod_at_its_limit_of_threads_is_seen_and_named() -> Result<()> {
    const MAX: u32 = 50;
    let (lab, pod, other) = (Lab::new(Wire::Loopback)?, Pod::new()?, Pod::new()?);
    let limit = PidsLimit::new(&pod, MAX)?;
    let mut bystander = other.actor(&lab.client)?;
    let shell = std::path::Path::new("/bin/sh");
    let mut command = pod.command(&lab.client, shell)?;
    // Forks only when told to, by then under the limit; the last fork is refused, and the shell ends.
    command.args(["-c", "read go; i=0; while [ $i -lt 80 ]; do sleep 600 & i=$((i+1)); done"]);
    let child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start sh")?;
    let mut child = Guard(child);
    limit.enter(child.0.id())?;
    let stdin = child.0.stdin.take().context("its input")?;
    std::io::Write::write_all(&mut &stdin, b"go\n").context("tell it to go")?;
    child.0.wait().context("wait for the shell")?;

    let (current, looks) = between(|| limit.current())?;
    let (used, max) = looks.figures("threads", &pod_scope(&pod))?;
    assert_eq!((used, max), (current, u64::from(MAX)));
    ensure!(used >= u64::from(MAX) - 1, "it did not fill its limit: {used}");
    let refused = looks.counter("forks_refused", &pod_scope(&pod)).context("refusals are counted")?;
    ensure!(refused >= 1, "no fork was refused");
    assert_eq!(looks.counter("forks_refused", &pod_scope(&other)).unwrap_or(0), 0, "it is told of the right pod");
    bystander.ask::<Value>(&Op::UdpBind { socket: "s".to_owned(), address: lab.client_v4(0) })?;
    bystander.end()?;
    // Its processes go with the pod, and the limit's groups after them.
    drop(pod);
    drop(limit);
    Ok(())
}

#[test]
fn a_process_at_its_limit_of_files_is_seen_and_named() -> Result<()> {
    const MAX: u64 = 40;
    let (lab, pod) = (Lab::new(Wire::Loopback)?, Pod::new()?);
    let mut actor = pod.actor(&lab.client)?;
    let pid = Pid::from_raw(actor.pid().cast_signed()).context("a pid")?;
    rustix::process::prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(MAX), maximum: Some(MAX) })
        .context("limit its files")?;
    let mut opened = 0;
    while actor.ask::<Value>(&Op::UdpBind { socket: format!("s{opened}"), address: lab.client_v4(0) }).is_ok() {
        opened += 1;
        ensure!(opened <= MAX, "the limit does not hold");
    }
    let looks = Looks::take()?;
    // A descriptor that it had before may lie beyond the limit.
    let files = fs::read_dir(format!("/proc/{}/fd", actor.pid())).context("list its files")?.count() as u64;
    ensure!(files >= MAX, "it did not fill its limit: {files}");
    assert_eq!(looks.figures("open_files", &pod_scope(&pod))?, (files, MAX));
    let sample = looks.sample("open_files", &pod_scope(&pod)).context("told")?;
    let source = sample["source"].as_str().unwrap_or_default();
    ensure!(source.contains(&actor.pid().to_string()) && source.contains("actor"), "names the process: {source}");
    Ok(())
}

#[test]
fn a_pod_out_of_ephemeral_ports_is_seen_and_named() -> Result<()> {
    const PORTS: u64 = 20;
    let mut node = Node::new()?;
    let (database, client) = (node.pod("shop", "db-0", Wiring::Plain)?, node.pod("shop", "cart-0", Wiring::Plain)?);
    client.network.sysctl("net/ipv4/ip_local_port_range", "40000 40019")?;
    let (mut server, mut caller) = (database.actor()?, client.actor()?);
    let address = server.listen("listener", (database.ip, 5432).into())?;
    let mut connected = 0;
    loop {
        match caller.connect(&format!("c{connected}"), address) {
            Ok(_) => connected += 1,
            Err(error) => {
                ensure!(connected == PORTS, "after {connected} connections: {error:#}");
                break;
            }
        }
        ensure!(connected <= PORTS, "the range does not hold");
    }
    let network = Arc::clone(&node.network);
    let (looks, sockets) =
        network.run(|| Ok((Looks::take()?, client.network.run(|| tool("ss", &["-Htn", "state", "established"]))?)))?;
    assert_eq!(sockets.lines().filter(|line| line.contains(":5432")).count() as u64, PORTS, "{sockets}");
    let scope = pod_scope(&client.container);
    assert_eq!(looks.figures("ephemeral_ports", &scope)?, (PORTS, PORTS));
    let sample = looks.sample("ephemeral_ports", &scope).context("told")?;
    let source = sample["source"].as_str().unwrap_or_default();
    ensure!(source.contains(&address.to_string()), "names where to: {source}");
    Ok(())
}
