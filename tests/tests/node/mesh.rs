//! A pod whose connections are turned to a proxy beside the application, as Istio's rules do it, by a real proxy that goes on
//! to where the application wanted to.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use system_tests::node::{NodePod, VPC_IP};
use system_tests::rows::{ActualPeer, Flow, Rows};
use system_tests::{Node, Pod, Wiring, scale};

/// Names the root below which `HAProxy` is.
const HAPROXY: &str = "SEKISHO_HAPROXY";
/// Istio's: where the proxy listens for what leaves the pod, and who it is, whose own connections go their way.
const LISTENS: u16 = 15_001;
const PROXY_UID: u32 = 1_337;
const PORT: u16 = 8_080;

/// `server … 0.0.0.0:0` is `HAProxy`'s way to say: to the address that the client asked for.
const CONFIGURATION: &str = "\
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend outbound
  bind 127.0.0.1:15001
  default_backend original
backend original
  server original 0.0.0.0:0
";

/// The proxy, ended with its guard.
struct Proxy {
    child: Child,
    container: Pod,
    _home: tempfile::TempDir,
}

impl Proxy {
    /// Starts it in a container of its own in the pod.
    fn start(pod: &NodePod) -> Result<Self> {
        let root = PathBuf::from(std::env::var_os(HAPROXY).with_context(|| format!("{HAPROXY} names no directory"))?);
        let home = tempfile::tempdir()?;
        let configuration = home.path().join("haproxy.cfg");
        let user = format!("global\n  uid {PROXY_UID}\n  gid {PROXY_UID}\n");
        fs::write(&configuration, user + CONFIGURATION).context("write the proxy's configuration")?;
        let container = Pod::with_uid(pod.uid())?;
        let mut command = container.command(&pod.network, &root.join("usr/sbin/haproxy"))?;
        command.arg("-db").arg("-f").arg(&configuration).env("LD_LIBRARY_PATH", libraries(&root)?);
        let child = command.stdin(Stdio::null()).spawn().context("start HAProxy")?;
        let proxy = Self { child, container, _home: home };
        let end = Instant::now() + scale::deadline();
        while !pod.network.run(listens)? {
            ensure!(Instant::now() < end, "HAProxy does not listen");
            std::thread::sleep(scale::LOOK);
        }
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where its libraries are, that the machine may not have.
fn libraries(root: &Path) -> Result<PathBuf> {
    let all = fs::read_dir(root.join("usr/lib")).with_context(|| format!("list {}/usr/lib", root.display()))?;
    let mut all = all.filter_map(Result::ok).map(|entry| entry.path());
    all.find(|path| path.to_string_lossy().ends_with("-linux-gnu")).context("no libraries beside HAProxy")
}

/// Whether somebody listens in this network namespace: 127.0.0.1:15001, state LISTEN.
fn listens() -> Result<bool> {
    let text = fs::read_to_string("/proc/thread-self/net/tcp").context("read the sockets")?;
    Ok(text.contains(&format!("0100007F:{LISTENS:04X} 00000000:0000 0A")))
}

/// Turns all TCP that leaves the pod to the proxy, but the proxy's own and what stays on loopback.
fn redirect(pod: &NodePod) -> Result<()> {
    let rules = [
        "add table ip mesh".to_owned(),
        "add chain ip mesh out { type nat hook output priority -100; }".to_owned(),
        format!("add rule ip mesh out meta skuid {PROXY_UID} return"),
        "add rule ip mesh out ip daddr 127.0.0.0/8 return".to_owned(),
        format!("add rule ip mesh out meta l4proto tcp redirect to :{LISTENS}"),
    ];
    pod.network.run(|| {
        let output = Command::new("nft").arg(rules.join("; ")).output().context("run nft: is nftables installed?")?;
        ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })
}

/// Makes the pod's object tell of the proxy, as Istio's injector does.
fn inject(pod: &mut NodePod, proxy: &Proxy) -> Result<()> {
    pod.object["metadata"]["labels"]["security.istio.io/tlsMode"] = json!("istio");
    let containers = pod.object["spec"]["containers"].as_array_mut().context("no containers")?;
    containers.push(json!({"name": "istio-proxy", "image": "istio/proxyv2:1.24", "resources": {}}));
    let statuses = pod.object["status"]["containerStatuses"].as_array_mut().context("no statuses")?;
    statuses.push(json!({
        "name": "istio-proxy", "image": "istio/proxyv2:1.24", "ready": true, "started": true,
        "containerID": format!("containerd://{}", proxy.container.container),
        "state": {"running": {"startedAt": "2026-01-01T00:00:02Z"}},
    }));
    Ok(())
}

/// Rows of ended TCP connections of a container of the pod.
fn of<'a>(rows: &'a Rows, pod: &'a NodePod, container: &str, direction: &str) -> Vec<&'a Flow> {
    let is_of = |flow: &&Flow| flow.who.container == container && flow.direction == direction && flow.connections > 0;
    rows.flows_of(&pod.container).filter(|flow| flow.protocol.as_deref() == Some("tcp")).filter(is_of).collect()
}

fn connections<'a>(flows: impl IntoIterator<Item = &'a Flow>) -> u64 {
    flows.into_iter().map(|flow| flow.connections).sum()
}

#[test]
fn a_connection_that_is_turned_to_a_sidecar_is_told_as_both_and_counted_once() -> Result<()> {
    let mut node = Node::new()?;
    let mut pod = node.pod("shop", "cart", Wiring::Plain)?;
    node.admit(&pod)?;
    let proxy = Proxy::start(&pod)?;
    inject(&mut pod, &proxy)?;
    node.put(&pod.object)?;
    redirect(&pod)?;
    let far = Pod::new()?;
    let mut server = node.vpc_actor(&far)?;
    server.serve_http(Node::vpc_address(PORT))?;
    let mut app = pod.actor()?;
    let mut agent = node.agent(json!({"fold_seconds": 2}))?;

    // The ends of one connection may be told in two folds, and then it is not joined: so often until some are.
    let turned = Some(ActualPeer { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: LISTENS });
    let is_joined = |flow: &&&Flow| flow.actual_peer == turned;
    let (mut made, end) = (0, Instant::now() + scale::deadline());
    loop {
        app.load_http(SocketAddr::from((VPC_IP, PORT)), 4, 2)?;
        made += 4;
        agent.wait_for("both ends of all connections", |rows| {
            connections(of(rows, &pod, "app", "outbound")) == made
                && connections(of(rows, &pod, "istio-proxy", "inbound")) == made
                && connections(of(rows, &pod, "istio-proxy", "outbound")) == made
        })?;
        let rows = agent.rows()?;
        if connections(of(&rows, &pod, "app", "outbound").iter().filter(is_joined).copied()) >= 8 {
            break;
        }
        ensure!(Instant::now() < end, "not joined: {}", rows.show(&pod.container));
        std::thread::sleep(Duration::from_millis(300));
    }
    let metrics = agent.metrics()?;
    let rows = agent.finish()?.rows;
    assert_eq!(server.stop_serving()?.connections, made);

    let asked = of(&rows, &pod, "app", "outbound");
    for flow in &asked {
        // What was asked for stays, whoever takes it.
        assert_eq!((flow.peer.ip.as_deref(), flow.service_port), (Some(&*VPC_IP.to_string()), Some(PORT)), "{flow}");
        assert!(flow.actual_peer.is_none() || flow.actual_peer == turned, "{flow}");
        assert_eq!(flow.via, None, "{flow}");
    }
    for flow in of(&rows, &pod, "istio-proxy", "outbound") {
        assert_eq!(flow.peer.ip.as_deref(), Some(&*VPC_IP.to_string()), "{flow}");
        assert_eq!((flow.via.as_deref(), flow.actual_peer.as_ref()), (Some("sidecar"), None), "{flow}");
    }
    // Between the two there is no traffic: what was joined counts once, as the proxy's.
    let alone = connections(asked.iter().filter(|flow| flow.actual_peer.is_none()).copied());
    let counted = |direction| {
        let labels = [("namespace", "shop"), ("workload", "cart"), ("direction", direction)];
        metrics.sum("sekisho_connections_total", &labels)
    };
    let expected = f64::from(u32::try_from(made + alone)?);
    ensure!((counted("outbound") - expected).abs() < 0.5, "{} are counted, not {expected}", counted("outbound"));
    ensure!(counted("inbound") < 0.5, "what the proxy accepts within the pod is counted");
    Ok(())
}
