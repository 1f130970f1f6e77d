//! DNS with a real server and real clients: every query once with what came of it, and peers by the names that their pod
//! asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use system_tests::agent::Agent;
use system_tests::metrics::Metrics;
use system_tests::rows::Rows;
use system_tests::{Lab, Pod, Wire, scale};

use super::clients::python;

const DNSMASQ: &str = "/usr/sbin/dnsmasq";
/// What the server knows. `other.test` is refused, for it has nobody to ask.
const ZONE: [&str; 6] = [
    "--local=/example.test/",
    "--local=/cluster.local/",
    "--host-record=db.example.test,10.77.0.2,fd77::2,60",
    "--host-record=www.example.test,10.77.0.2,60",
    "--host-record=api.example.test,10.77.0.2,60",
    "--cname=shop.example.test,www.example.test,30",
];

/// A server in a pod of its own, ended with its guard.
struct Server {
    child: Child,
    log: PathBuf,
    _pod: Pod,
    home: tempfile::TempDir,
}

impl Server {
    fn start(lab: &Lab) -> Result<Self> {
        ensure!(Path::new(DNSMASQ).exists(), "dnsmasq is not installed: run `cargo xtask setup`");
        let (pod, home) = (Pod::new()?, tempfile::tempdir()?);
        let log = home.path().join("log");
        let mut command = pod.command(&lab.server, Path::new(DNSMASQ))?;
        command.args(["--conf-file=/dev/null", "--keep-in-foreground", "--user=root", "--pid-file=", "--no-resolv"]);
        command.args(["--no-hosts", "--bind-interfaces", "--listen-address=10.77.0.2,fd77::2", "--log-queries"]);
        command.arg(format!("--log-facility={}", log.display())).args(ZONE);
        // More than a datagram without EDNS holds.
        command.arg(format!("--txt-record=big.example.test,{}", vec!["x".repeat(200); 4].join(",")));
        let child = command.stdin(Stdio::null()).spawn().context("start dnsmasq")?;
        let server = Self { child, log, _pod: pod, home };
        wait_for("dnsmasq's start", || Ok(fs::read_to_string(&server.log).unwrap_or_default().contains("started")))?;
        Ok(server)
    }

    /// Queries of the client, as the server itself counted them.
    fn queries(&self) -> Result<u64> {
        let log = fs::read_to_string(&self.log).context("read dnsmasq's log")?;
        let of_client = |line: &&str| line.contains(" query[") && line.contains(" from ");
        Ok(log.lines().filter(of_client).count() as u64)
    }

    /// Runs a script in a pod whose resolver is this server, with a search list as a pod's.
    fn run(&self, lab: &Lab, pod: &Pod, script: &str) -> Result<Output> {
        let resolv = self.home.path().join("resolv.conf");
        let text = "nameserver 10.77.0.2\nsearch shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n";
        fs::write(&resolv, text).context("write resolv.conf")?;
        let mount = format!("mount --bind {} /etc/resolv.conf\n{script}", resolv.display());
        let mut command = pod.command(&lab.client, Path::new("/usr/bin/unshare"))?;
        command.args(["--mount", "/bin/sh", "-ec", &mount]);
        command.output().context("run a client")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + scale::deadline();
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what} did not come in {:?}", scale::deadline());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn dig(lab: &Lab, pod: &Pod, arguments: &[&str]) -> Result<()> {
    let program = Path::new("/usr/bin/dig");
    ensure!(program.exists(), "dig is not installed: run `cargo xtask setup`");
    let output = pod.command(&lab.client, program)?.args(arguments).output().context("run dig")?;
    // 9: no answer at all, which one of the queries is to get.
    ensure!(matches!(output.status.code(), Some(0 | 9)), "dig {arguments:?}: {output:?}");
    Ok(())
}

fn queries(metrics: &Metrics, pod: &Pod, outcome: &str) -> f64 {
    let workload = format!("pod-{}", pod.uid);
    metrics.sum("sekisho_dns_queries_total", &[("workload", &workload), ("outcome", outcome)])
}

/// A and AAAA at once from one socket, to two servers of which one is silent: as musl asks.
const PARALLEL: &str = r#"
import socket, struct
name = b"".join(bytes([len(label)]) + label.encode() for label in "db.example.test".split(".")) + b"\0"
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(20)
client.bind(("0.0.0.0", 0))
for number, kind in ((0x1234, 1), (0x1235, 28)):
    for server in ("10.77.0.2", "10.99.0.1"):
        client.sendto(struct.pack(">6H", number, 0x100, 1, 0, 0, 0) + name + struct.pack(">2H", kind, 1), (server, 53))
assert {client.recv(512)[:2] for _ in range(2)} == {b"\x12\x34", b"\x12\x35"}
"#;

/// A and AAAA at once, each from a socket of its own that is connected to the server, with EDNS: as Go asks.
const SIDE_BY_SIDE: &str = r#"
import socket, struct
name = b"".join(bytes([len(label)]) + label.encode() for label in "db.example.test".split(".")) + b"\0"
edns = struct.pack(">BHHIH", 0, 41, 1232, 0, 0)
clients = []
for kind in (1, 28):
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(20)
    client.connect(("10.77.0.2", 53))
    client.send(struct.pack(">6H", 0x4321, 0x100, 1, 0, 0, 1) + name + struct.pack(">2H", kind, 1) + edns)
    clients.append(client)
assert all(client.recv(1232)[:2] == b"\x43\x21" for client in reversed(clients))
"#;

#[test]
fn queries_are_counted_once_by_what_came_of_them() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let server = Server::start(&lab)?;
    let pod = Pod::new()?;
    let agent = Agent::start()?;
    let once = ["+tries=1", "+timeout=1"];
    for query in [
        &["@10.77.0.2", "db.example.test", "A"][..],
        &["@fd77::2", "db.example.test", "AAAA"],
        &["@10.77.0.2", "nothing.example.test", "A"],
        &["@10.77.0.2", "nothing.example.test", "AAAA"],
        &["@10.77.0.2", "other.test", "A"],
        // Over TCP as well, once it was told that it does not fit.
        &["@10.77.0.2", "+noedns", "big.example.test", "TXT"],
        &["@10.99.0.1", "db.example.test", "A"],
    ] {
        dig(&lab, &pod, &[query, &once[..]].concat())?;
    }
    // glibc: two types for each name of the search list, and for the name itself.
    let output = server.run(&lab, &pod, "getent -s dns ahosts db.example.test")?;
    ensure!(String::from_utf8_lossy(&output.stdout).contains("10.77.0.2"), "getent: {output:?}");
    for script in [PARALLEL, SIDE_BY_SIDE] {
        let output = pod.command(&lab.client, &python()?)?.args(["-c", script]).output().context("run Python")?;
        ensure!(output.status.success(), "{output:?}");
    }

    let mut metrics = agent.metrics()?;
    wait_for("the query without an answer", || {
        metrics = agent.metrics()?;
        Ok(queries(&metrics, &pod, "unanswered") > 0.0)
    })?;
    let expected = [
        ("answered", 8.0),
        ("nxdomain", 6.0),
        ("error", 1.0),
        ("truncated", 1.0),
        ("unanswered", 1.0),
        ("unknown", 0.0),
    ];
    for (outcome, count) in expected {
        ensure!((queries(&metrics, &pod, outcome) - count).abs() < 0.5, "{outcome}: {}", shown(&metrics));
    }
    let workload = format!("pod-{}", pod.uid);
    let waste = metrics.sum("sekisho_dns_search_waste_total", &[("workload", &workload)]);
    ensure!((waste - 4.0).abs() < 0.5, "search waste {waste}: {}", shown(&metrics));
    // The server got all but the one to the silent address, and one more by TCP.
    assert_eq!(server.queries()?, 17);
    assert!(!metrics.text.contains("example"), "names are no labels");
    // 17 queries and two copies for the silent server, 16 answers; and whatever else this machine asks meanwhile.
    let books = agent.books_with("dns", 35)?;
    books.check()?;
    let dns = books.of("dns")?;
    ensure!(dns.fate("aggregated")? == dns.seen && dns.lost() == 0, "{dns:?}");
    agent.finish()?;
    Ok(())
}

fn shown(metrics: &Metrics) -> String {
    metrics.text.lines().filter(|line| line.starts_with("sekisho_dns")).collect::<Vec<_>>().join("\n")
}

/// Names and connections of a pod's TCP rows to the server, rows of one name together, in order.
fn peers(rows: &Rows, pod: &Pod) -> Vec<(Option<String>, u64)> {
    let mut names = std::collections::BTreeMap::new();
    let to_server = rows.flows_of(pod).filter(|flow| flow.protocol.as_deref() == Some("tcp"));
    for flow in to_server.filter(|flow| flow.peer.ip.as_deref() == Some("10.77.0.2")) {
        *names.entry(flow.peer.name.clone()).or_default() += flow.connections;
    }
    names.into_iter().collect()
}

#[test]
fn peers_have_the_name_that_their_own_pod_asked_for() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let server = Server::start(&lab)?;
    let web_pod = Pod::new()?;
    let mut web = web_pod.actor(&lab.server)?;
    let port = web.serve_http(lab.server_v4(0))?.port();
    let (asks, knows, asks_twice) = (Pod::new()?, Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let get = |pod: &Pod, hosts: &[&str]| {
        let urls: Vec<_> = hosts.iter().map(|host| format!("curl -sf -4 -o /dev/null http://{host}:{port}/")).collect();
        let output = server.run(&lab, pod, &urls.join("\n"))?;
        ensure!(output.status.success(), "curl: {output:?}");
        Ok(())
    };
    // An address before any name, the name that is asked for and not its alias's target.
    get(&asks, &["10.77.0.2", "shop.example.test", "shop.example.test", "10.77.0.2"])?;
    get(&knows, &["10.77.0.2"])?;
    get(&asks_twice, &["api.example.test", "www.example.test"])?;
    web.stop_serving()?;
    web.end()?;
    let finished = agent.finish()?;
    let named = |name: &str| Some(name.to_owned());
    // The second look at the address is by whoever resolved it a moment ago, as far as anybody can tell.
    assert_eq!(peers(&finished.rows, &asks), [(None, 1), (named("shop.example.test"), 3)]);
    assert_eq!(peers(&finished.rows, &knows), [(None, 1)], "another pod's names are not this one's");
    assert_eq!(
        peers(&finished.rows, &asks_twice),
        [(None, 1), (named("api.example.test"), 1)],
        "two names, one address"
    );
    drop(web_pod);
    Ok(())
}
