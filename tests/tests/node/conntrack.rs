//! A node with many connections: the look at its connection tracking finds the backends of the few that are asked for, and
//! what the look costs is printed.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use system_tests::rows::ActualPeer;
use system_tests::{Agent, Node, NodePod, Wiring};

const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 11);
const PORT: u16 = 80;
const BACKEND_PORT: u16 = 8_080;
/// As many translated connections as a busy node of 110 pods has.
const ENTRIES: u32 = 20_000;
/// What the agent may grow by for them, KiB: it goes through them and keeps none.
const MORE_KIB: u64 = 8 * 1_024;
/// Folds that look.
const LOOKS: usize = 5;

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Connections of other pods of this node to other services, translated, that live for some minutes.
fn fill(node: &Node) -> Result<()> {
    let mut lines = String::new();
    for n in 0..ENTRIES {
        let [_, _, high, low] = n.to_be_bytes();
        let backend = format!("10.200.{high}.{low}");
        writeln!(
            lines,
            "-I -p tcp -s 10.78.9.9 -d 172.20.{high}.{low} --sport {} --dport 443 --dst-nat {backend}:8443 \
             --state ESTABLISHED --timeout 600 -u SEEN_REPLY",
            1_024 + n % 60_000
        )?;
    }
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), lines).context("write the connections")?;
    let path = file.path().to_str().context("a path of text")?.to_owned();
    node.network.run(|| run("conntrack", &["--load-file", &path]))
}

fn entries(node: &Node) -> Result<u32> {
    node.network.run(|| {
        let text = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").context("count connections")?;
        text.trim().parse().context("a number")
    })
}

/// Resident memory in KiB, and the processor's time in ticks of ten milliseconds.
fn cost(agent: &Agent) -> Result<(u64, u64)> {
    let read =
        |name: &str| fs::read_to_string(format!("/proc/{}/{name}", agent.pid())).context("read the agent's cost");
    let status = read("status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let stat = read("stat")?;
    let fields: Vec<_> = stat.rsplit_once(") ").context("no stat")?.1.split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).context("no time");
    Ok((line.trim().trim_end_matches(" kB").parse()?, ticks(11)? + ticks(12)?))
}

/// Connections to the service, one fold after the other, and whom their rows name.
fn ask(agent: &mut Agent, client: &NodePod, of_client: &mut system_tests::Actor, folds: usize) -> Result<()> {
    for _ in 0..folds {
        let told = |rows: &system_tests::rows::Rows| {
            let flows = rows.flows_of(&client.container).filter(|flow| flow.service_port == Some(PORT));
            flows.filter(|flow| flow.connections > 0).count()
        };
        let before = told(&agent.rows()?);
        of_client.load_http(SocketAddr::from((SERVICE, PORT)), 4, 2)?;
        agent.wait_for("a fold with the service", |rows| told(rows) > before)?;
    }
    Ok(())
}

#[test]
fn a_look_at_20_000_connections_finds_the_few_and_keeps_none() -> Result<()> {
    let mut node = Node::new()?;
    node.put(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"clusterIP": SERVICE, "ports": [{"port": PORT}]},
    }))?;
    let client = node.pod("shop", "client", Wiring::Plain)?;
    let server = node.pod("shop", "server", Wiring::Plain)?;
    let rules = format!(
        "add table ip services; add chain ip services in {{ type nat hook prerouting priority -100; }}; \
         add rule ip services in ip daddr {SERVICE} tcp dport {PORT} dnat to {}:{BACKEND_PORT}",
        server.ip
    );
    node.network.run(|| run("nft", &[&rules]))?;
    let mut of_server = server.actor()?;
    of_server.serve_http((server.ip, BACKEND_PORT).into())?;
    let mut of_client = client.actor()?;
    let mut agent = node.agent(json!({"fold_seconds": 2}))?;
    ask(&mut agent, &client, &mut of_client, LOOKS)?;
    let (few_kib, few_ticks) = cost(&agent)?;
    ask(&mut agent, &client, &mut of_client, LOOKS)?;
    let (_, few_later) = cost(&agent)?;

    fill(&node)?;
    let count = entries(&node)?;
    ensure!(count >= ENTRIES, "only {count} connections are tracked");
    ask(&mut agent, &client, &mut of_client, 1)?;
    let (_, many_ticks) = cost(&agent)?;
    ask(&mut agent, &client, &mut of_client, LOOKS)?;
    let (many_kib, many_later) = cost(&agent)?;
    let seconds = agent.metrics()?.value("sekisho_collector_duration_seconds", &[("collector", "backends")]);
    println!(
        "{count} connections: {} ms of processor for {LOOKS} folds, {} ms with few; the last look took {:.1} ms; \
         {many_kib} KiB resident, {few_kib} KiB before",
        10 * (many_later - many_ticks),
        10 * (few_later - few_ticks),
        1_000.0 * seconds.unwrap_or(f64::NAN),
    );
    ensure!(many_kib < few_kib + MORE_KIB, "{many_kib} KiB, {few_kib} KiB before");
    let rows = agent.finish()?.rows;
    let backend = Some(ActualPeer { ip: server.ip.into(), port: BACKEND_PORT });
    let flows = rows.flows_of(&client.container).filter(|flow| flow.service_port == Some(PORT) && flow.connections > 0);
    let flows: Vec<_> = flows.collect();
    ensure!(flows.len() > 3 * LOOKS - 2, "{}", rows.show(&client.container));
    // A look that comes late for its fold tells nothing; none tells anything else.
    for flow in &flows {
        assert!(flow.actual_peer.is_none() || flow.actual_peer == backend, "{flow}");
    }
    assert!(flows.iter().any(|flow| flow.actual_peer == backend), "no look came in time");
    Ok(())
}
