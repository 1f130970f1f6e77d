//! What flows tell. One scene for all, since each of these rules waits for half a minute or more before it says so.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use system_tests::lab::{IMDS_V4, POD_IDENTITY_V4};
use system_tests::metadata_server::Behaviour;
use system_tests::node::{NODE_IP, account, policy};
use system_tests::protocol::Op;
use system_tests::{MetadataServer, Node, Pod, Wiring, scale};

/// Long enough for every rule that counts attempts over a span, the longest being a minute.
const WATCHED: Duration = Duration::from_secs(75);
const BETWEEN: Duration = Duration::from_secs(5);
/// A client's patience: longer than the first SYN's, for one that gives up at once proves nothing.
const PATIENCE_MS: u32 = 2_500;

#[test]
fn flows_that_stay_unanswered_are_told_with_their_cause_and_resolve() -> Result<()> {
    let mut node = Node::new()?;
    node.put(&account("shop", "default", None))?;
    let groups = ["sg-00000000000000001"];
    for app in ["blocked", "unresolved", "probed", "healthy"] {
        node.put(&policy("shop", app, app, &groups))?;
    }
    let blocked = node.pod("shop", "blocked", Wiring::Strict { vlan: 1 })?;
    let unresolved = node.pod("shop", "unresolved", Wiring::Strict { vlan: 2 })?;
    let mut probed = node.pod("shop", "probed", Wiring::Strict { vlan: 3 })?;
    probed.object["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"port": 8080, "path": "/"}, "timeoutSeconds": 1, "periodSeconds": 5});
    node.put(&probed.object)?;
    let healthy = node.pod("shop", "healthy", Wiring::Strict { vlan: 4 })?;
    let plain = node.pod("shop", "plain", Wiring::Plain)?;
    let mut lonely = node.pod("shop", "lonely", Wiring::Plain)?;
    lonely.object["metadata"]["labels"]["eks.amazonaws.com/pod-identity"] = json!("enabled");
    lonely.object["spec"]["containers"][0]["env"] = json!([
        {"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "http://169.254.170.23/v1/credentials"},
        {"name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
         "value": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token"},
    ]);
    node.put(&lonely.object)?;
    let sniffer = node.pod("shop", "sniffer", Wiring::Plain)?;
    for pod in [&healthy, &plain, &lonely] {
        node.admit(pod)?;
    }
    node.cut_off(&probed)?;

    let outside = Pod::new()?;
    let mut vpc = node.vpc_actor(&outside)?;
    vpc.serve_http(Node::vpc_address(5432))?;
    let mut resolver = node.vpc_actor(&outside)?;
    let resolvers: Vec<SocketAddr> = resolver.ask(&Op::ServeUdp { address: Node::vpc_address(53), sockets: 1 })?;

    let agent = node.agent(json!({}))?;
    let mut kubelet = node.kubelet()?;
    let mut actors = [blocked.actor()?, unresolved.actor()?, healthy.actor()?, plain.actor()?, lonely.actor()?];
    let mut packets = sniffer.actor()?;
    let _: () = packets.ask(&Op::OpenPacket { socket: "all".into() })?;

    let [of_blocked, of_unresolved, of_healthy, of_plain, of_lonely] = &mut actors;
    let ask_dns =
        |peers: Vec<SocketAddr>| Op::LoadUdp { peers, sockets: 1, rounds: 1, interleaved: false, connected: true };
    let started = Instant::now();
    let mut round = 0;
    while started.elapsed() < WATCHED {
        let name = format!("attempt {round}");
        round += 1;
        of_blocked.connect_and_give_up(&name, Node::vpc_address(5432), PATIENCE_MS)?;
        of_unresolved.ask::<serde_json::Value>(&Op::UdpConnect { socket: name.clone(), address: resolvers[0] })?;
        of_unresolved.send_datagram(&name, None, 40)?;
        of_unresolved.close(&name)?;
        let probe = (probed.ip, 8080).into();
        kubelet.ask::<serde_json::Value>(&Op::Connect {
            socket: name.clone(),
            address: probe,
            bind: Some((NODE_IP, 0).into()),
            give_up_ms: Some(1_000),
        })?;
        for actor in [&mut *of_healthy, &mut *of_plain] {
            actor.load_http(Node::vpc_address(5432), 1, 1)?;
            actor.ask::<serde_json::Value>(&ask_dns(resolvers.clone()))?;
        }
        // Nobody listens there: refused.
        of_lonely.try_connect(&name, SocketAddr::from((POD_IDENTITY_V4, 80)))?;
        std::thread::sleep(BETWEEN);
    }
    let found = agent.wait_for_findings(
        "open",
        &[
            "sgp-blocked-flow blocked",
            "sgp-dns-blocked unresolved",
            "sgp-probe-blocked probed",
            "pod-identity-unreachable lonely",
            "traffic-unaccounted sniffer",
        ],
    )?;
    let blocked_text = found.iter().find(|f| f.code == "sgp-blocked-flow").map(|f| f.text.clone()).unwrap_or_default();
    assert!(blocked_text.contains("10.79.0.2") && blocked_text.contains("5432"), "{blocked_text}");

    // The cure of each.
    for pod in [&blocked, &unresolved] {
        node.admit(pod)?;
    }
    of_blocked.load_http(Node::vpc_address(5432), 1, 1)?;
    of_unresolved.ask::<serde_json::Value>(&ask_dns(resolvers))?;
    packets.close("all")?;
    node.reconnect(&probed)?;
    let mut answering = probed.actor()?;
    answering.listen("probed", (probed.ip, 8080).into())?;
    kubelet.connect_from("answered", (NODE_IP, 0).into(), (probed.ip, 8080).into())?;
    kubelet.close("answered")?;
    let services = MetadataServer::start(&node.network, Behaviour::default())?;
    let request = "GET /v1/credentials HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    of_lonely.exchange(SocketAddr::from((POD_IDENTITY_V4, 80)), &[request])?;
    agent.wait_for_findings("open", &[])?;
    services.stop()?;
    vpc.stop_serving()?;
    resolver.stop_serving()?;
    agent.finish()?;
    Ok(())
}

/// Requests, processes, DNS messages and flows, each by a pod of its own beside one that keeps within its share.
#[test]
fn a_pod_that_makes_more_records_than_its_budget_is_told() -> Result<()> {
    let mut node = Node::new()?;
    let kinds = ["metadata", "processes", "dns", "flows"];
    let pods = kinds.iter().map(|kind| node.pod("shop", kind, Wiring::Plain)).collect::<Result<Vec<_>>>()?;
    let quiet = node.pod("shop", "quiet", Wiring::Plain)?;
    for pod in pods.iter().chain([&quiet]) {
        node.admit(pod)?;
    }
    let services = MetadataServer::start(&node.network, Behaviour::default())?;
    let outside = Pod::new()?;
    let mut vpc = node.vpc_actor(&outside)?;
    let web = vpc.serve_http(Node::vpc_address(8080))?;
    let mut resolver = node.vpc_actor(&outside)?;
    let _: Vec<SocketAddr> = resolver.ask(&Op::ServeUdp { address: Node::vpc_address(53), sockets: 1 })?;
    let agent = node.agent(json!({ "kernel": {
        "metadata_ring_bytes": 65_536, "lifecycle_ring_bytes": 65_536, "bulk_ring_bytes": 65_536,
    } }))?;
    let imds = SocketAddr::from((IMDS_V4, 80));
    let payload = "GET /computeMetadata/v1/ HTTP/1.0\r\n\r\n".to_owned();
    let mut actors = pods.iter().map(system_tests::NodePod::actor).collect::<Result<Vec<_>>>()?;
    // Nobody empties the rings meanwhile.
    agent.pause()?;
    let _: u64 = actors[0].ask(&Op::ExchangeMany { server: imds, payload: payload.clone(), times: 500 })?;
    let script = "i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done";
    let mut shell = pods[1].container.command(&pods[1].network, std::path::Path::new("/bin/sh"))?;
    anyhow::ensure!(shell.args(["-c", script]).status()?.success(), "the flood of processes failed");
    let _: SocketAddr = actors[2].ask(&Op::UdpConnect { socket: "dns".into(), address: Node::vpc_address(53) })?;
    for _ in 0..400 {
        let text = format!("\0\u{1}\u{1}\0\0\u{1}\0\0\0\0\0\0\u{1}a\0\0\u{1}\0\u{1}{}", "\0".repeat(64));
        let _: serde_json::Value = actors[2].ask(&Op::SendText { socket: "dns".into(), text })?;
    }
    actors[3].load_http(web, 500, 1)?;
    agent.resume()?;
    let _: u64 = quiet.actor()?.ask(&Op::ExchangeMany { server: imds, payload, times: 1 })?;
    let texts = ["requests", "processes", "DNS messages", "flows"];
    let deadline = Instant::now() + scale::deadline();
    loop {
        let found = agent.findings()?;
        let is_told = |pod: &str, what: &str| {
            let is_it = |text: &str| text.starts_with(&format!("shop/{pod} made more")) && text.contains(what);
            found.iter().any(|finding| finding.code == "record-flood" && is_it(&finding.text))
        };
        assert!(!is_told("quiet", ""), "{found:?}");
        if kinds.into_iter().zip(texts).all(|(pod, what)| is_told(pod, &format!(" of {what}"))) {
            break;
        }
        assert!(Instant::now() < deadline, "not all floods were told: {found:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    services.stop()?;
    vpc.stop_serving()?;
    resolver.stop_serving()?;
    agent.finish()?;
    Ok(())
}
