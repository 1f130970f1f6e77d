//! The real agent at the real API server: what it knows of the pods is seen in the names of their connections.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::agent::Observer;
use system_tests::kube::{Account, Server, manifests, paths};
use system_tests::metrics::Metrics;
use system_tests::{Actor, Agent, Lab, Pod, Wire, scale};
use tempfile::TempDir;

/// A node of its own in the cluster, which is this machine, with an agent's access.
struct Site {
    name: String,
    namespace: String,
    account: Account,
    home: TempDir,
    lab: Lab,
    /// Listens for whoever wants to be seen.
    _server: Actor,
    _server_pod: Pod,
    address: SocketAddr,
    addresses: u16,
}

/// A pod that the API server and the kernel know.
struct Running {
    name: String,
    path: String,
    container: Pod,
    actor: Actor,
}

impl Site {
    fn new(server: &mut Server, what: &str) -> Result<Self> {
        server.define_aws_objects()?;
        let account = server.install_role()?;
        let namespace = server.namespace(what)?;
        let name = format!("node-of-{namespace}");
        server.admin.apply(&manifests::node(&name))?;
        let lab = Lab::new(Wire::Loopback)?;
        let server_pod = Pod::new()?;
        let mut listener = server_pod.actor(&lab.server)?;
        let address = listener.serve_http(lab.server_v4(0))?;
        let home = tempfile::tempdir().context("make a directory")?;
        let site = Self {
            name,
            namespace,
            account,
            home,
            lab,
            _server: listener,
            _server_pod: server_pod,
            address,
            addresses: 0,
        };
        site.renew(&server.token(&site.account)?)?;
        server.write_kubeconfig(&site.kubeconfig(), &site.token())?;
        Ok(site)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    fn token(&self) -> PathBuf {
        self.home.path().join("token")
    }

    /// Puts another token where the agent reads it, in one step, as the kubelet does.
    fn renew(&self, token: &str) -> Result<()> {
        let fresh = self.home.path().join("token.new");
        std::fs::write(&fresh, token).context("write a token")?;
        std::fs::rename(fresh, self.token()).context("put a token into place")
    }

    fn agent(&self) -> Result<Agent> {
        Agent::with(json!({
            "standalone": false,
            "node_name": self.name,
            "data_dir": self.home.path().join("data"),
            "cluster": { "kubeconfig": self.kubeconfig(), "start_jitter_seconds": 0 },
        }))
    }

    /// A pod of this node that runs.
    fn pod(&mut self, server: &Server, name: &str) -> Result<Running> {
        let object = server.admin.apply(&manifests::pod(&self.namespace, name, &self.name))?;
        let uid = object["metadata"]["uid"].as_str().context("a pod without uid")?;
        let container = Pod::with_uid(uid)?;
        let path = format!("/api/v1/namespaces/{}/pods/{name}", self.namespace);
        self.addresses += 1;
        let address = format!("10.1.{}.{}", self.addresses >> 8, self.addresses & 0xff);
        server.admin.patch_status_of_all(vec![(path.clone(), manifests::running(&address, &container.container))])?;
        let actor = container.actor(&self.lab.client)?;
        Ok(Running { name: name.to_owned(), path, container, actor })
    }

    /// Has a pod make connections until one of them is shown with its name.
    fn wait_until_named(&self, observer: &Observer, pod: &mut Running) -> Result<()> {
        let end = Instant::now() + scale::deadline();
        loop {
            let shown = self.shown(observer, pod)?;
            if shown.iter().any(|(namespace, name)| *namespace == self.namespace && *name == pod.name) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{} stays {shown:?}", pod.name);
        }
    }

    /// The namespaces and names that a new connection of a pod is shown with.
    fn shown(&self, observer: &Observer, pod: &mut Running) -> Result<Vec<(String, String)>> {
        let before = rows_of(&observer.lines(), pod).len();
        pod.actor.load_http(self.address, 1, 1)?;
        observer.wait_for("a connection", |lines| rows_of(lines, pod).len() > before)?;
        let rows = rows_of(&observer.lines(), pod);
        let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let new = rows.get(before..).unwrap_or_default();
        Ok(new.iter().map(|row| (text(row, "namespace"), text(row, "pod"))).collect())
    }
}

/// Rows of ended connections that a pod made.
fn rows_of(lines: &[String], pod: &Running) -> Vec<Value> {
    let rows = lines.iter().filter(|line| line.contains(&pod.container.uid));
    rows.filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|row| row["kind"] == "flow" && row["uid"] == pod.container.uid.as_str())
        .filter(|row| row["direction"] == "outbound" && row["connections"].as_u64() > Some(0))
        .collect()
}

/// Makes pods that run, as far as the API server knows, and gives their paths.
fn make_running(
    server: &Server,
    namespace: &str,
    numbers: Range<usize>,
    node: impl Fn(usize) -> String,
) -> Result<Vec<String>> {
    let pods: Vec<_> = numbers.map(|n| manifests::pod(namespace, &format!("pod-{n}"), &node(n))).collect();
    let paths = pods.iter().map(paths::of_object).collect::<Result<Vec<_>>>()?;
    server.admin.create_all(pods)?;
    let status = |(n, path): (usize, &String)| (path.clone(), manifests::running("10.2.0.1", &format!("{n:064x}")));
    server.admin.patch_status_of_all(paths.iter().enumerate().map(status).collect())?;
    Ok(paths)
}

#[test]
fn pods_are_named_from_the_list_and_from_the_watch() -> Result<()> {
    let mut server = Server::take()?;
    let mut site = Site::new(&mut server, "named")?;
    let mut older = site.pod(&server, "older")?;
    let refused = refusals(&server)?;
    let agent = site.agent()?;
    let observer = agent.observe(&[])?;
    site.wait_until_named(&observer, &mut older)?;

    let mut newer = site.pod(&server, "newer")?;
    site.wait_until_named(&observer, &mut newer)?;
    // A pod that is gone keeps its name as long as it is remembered.
    server.admin.delete(&older.path)?;
    site.wait_until_named(&observer, &mut older)?;
    agent.finish()?;
    assert_eq!(refusals(&server)?, refused, "the shipped role does not allow what the agent asks");
    Ok(())
}

/// Requests that the server refused to whoever made them.
fn refusals(server: &Server) -> Result<Vec<String>> {
    let metrics = Metrics::parse(server.admin.try_get("/metrics")?.text)?;
    let refused = metrics.samples("apiserver_request_total").filter(|sample| sample.labels["code"] == "403");
    Ok(refused.map(|sample| format!("{:?} {}", sample.labels, sample.value)).collect())
}

#[test]
fn many_pods_come_and_go() -> Result<()> {
    let mut server = Server::take()?;
    let mut site = Site::new(&mut server, "churn")?;
    let agent = site.agent()?;
    let observer = agent.observe(&[])?;
    // Names that come back are other pods.
    for _ in 0..10 {
        let paths = make_running(&server, &site.namespace, 0..50, |_| site.name.clone())?;
        server.admin.delete_all(paths)?;
    }
    let mut last = (0..10).map(|n| site.pod(&server, &format!("pod-{n}"))).collect::<Result<Vec<_>>>()?;
    for pod in &mut last {
        site.wait_until_named(&observer, pod)?;
    }
    agent.finish()?;
    Ok(())
}

#[test]
fn what_changed_while_versions_were_compacted_is_known_after_a_new_list() -> Result<()> {
    let mut server = Server::take()?;
    let mut site = Site::new(&mut server, "relisted")?;
    let mut before = site.pod(&server, "before")?;
    let agent = site.agent()?;
    let observer = agent.observe(&[])?;
    site.wait_until_named(&observer, &mut before)?;

    // The agent asks on from a version that neither the server's memory nor etcd has any more: 410.
    agent.pause()?;
    server.kill()?;
    server.restart()?;
    let mut meanwhile = site.pod(&server, "meanwhile")?;
    server.compact()?;
    server.kill()?;
    server.restart()?;
    agent.resume()?;
    site.wait_until_named(&observer, &mut meanwhile)?;
    site.wait_until_named(&observer, &mut before)?;
    let mut after = site.pod(&server, "after")?;
    site.wait_until_named(&observer, &mut after)?;
    agent.finish()?;
    Ok(())
}

#[test]
fn without_the_server_the_agent_goes_on_and_starts() -> Result<()> {
    let mut server = Server::take()?;
    let mut site = Site::new(&mut server, "alone")?;
    let mut pod = site.pod(&server, "known")?;
    let agent = site.agent()?;
    let observer = agent.observe(&[])?;
    site.wait_until_named(&observer, &mut pod)?;

    server.kill()?;
    site.wait_until_named(&observer, &mut pod)?;
    // It writes down what it knows now and then.
    let facts = site.home.path().join("data/facts.json");
    let end = Instant::now() + 2 * scale::deadline();
    while !std::fs::read_to_string(&facts).is_ok_and(|text| text.contains(&pod.container.uid)) {
        ensure!(Instant::now() < end, "the pod does not stand in {}", facts.display());
        std::thread::sleep(scale::LOOK);
    }
    agent.finish()?;
    let agent = site.agent()?;
    let observer = agent.observe(&[])?;
    site.wait_until_named(&observer, &mut pod)?;

    server.restart()?;
    let mut later = site.pod(&server, "later")?;
    site.wait_until_named(&observer, &mut later)?;
    agent.finish()?;
    Ok(())
}

#[test]
fn a_token_that_ends_is_read_again() -> Result<()> {
    let mut server = Server::take()?;
    let mut site = Site::new(&mut server, "tokens")?;
    let mut pod = site.pod(&server, "first")?;
    let seconds = 10;
    let token = server.short_token(&site.account, seconds)?;
    let ends = Instant::now() + Duration::from_secs(seconds);
    site.renew(&token)?;
    let agent = site.agent()?;
    let observer = agent.observe(&[])?;
    site.wait_until_named(&observer, &mut pod)?;

    // Its watches end with the server, and then the token is no good.
    std::thread::sleep(ends.saturating_duration_since(Instant::now()));
    server.kill()?;
    server.restart()?;
    assert_eq!(server.client(&token)?.try_get("/api/v1/pods")?.status, 401);
    let mut unknown = site.pod(&server, "second")?;
    let shown = site.shown(&observer, &mut unknown)?;
    ensure!(shown.iter().all(|(_, name)| name.is_empty()), "named without a token: {shown:?}");
    site.wait_until_named(&observer, &mut pod)?;

    site.renew(&server.token(&site.account)?)?;
    site.wait_until_named(&observer, &mut unknown)?;
    agent.finish()?;
    Ok(())
}

#[test]
fn a_service_has_its_name_from_the_api_server() -> Result<()> {
    let mut server = Server::take()?;
    let mut site = Site::new(&mut server, "services")?;
    let path = format!("/api/v1/namespaces/{}/services", site.namespace);
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" }, "spec": { "ports": [{ "port": 80 }] },
    });
    let service = server.admin.post(&path, &object)?;
    let address = |object: &Value| -> Result<SocketAddr> {
        let ip = object["spec"]["clusterIP"].as_str().context("a service without address")?;
        Ok(SocketAddr::new(ip.parse().context("an address")?, 80))
    };
    let web = address(&service)?;
    let api = address(&server.admin.get("/api/v1/namespaces/default/services/kubernetes")?)?;
    let mut pod = site.pod(&server, "client")?;
    let agent = site.agent()?;
    let observer = agent.observe(&[])?;
    site.wait_until_named(&observer, &mut pod)?;

    // Nothing leads there, which is told as well as any other end.
    for (socket, to, class, name) in [
        ("web", web, "service", format!("web.{}.svc", site.namespace)),
        ("api", api, "kube_api", "kubernetes.default.svc".to_owned()),
    ] {
        // Told when the socket goes.
        pod.actor.try_connect(socket, to)?;
        pod.actor.close(socket)?;
        let ip = to.ip().to_string();
        observer.wait_for(class, |lines| {
            let to_it = rows_of(lines, &pod).into_iter().filter(|row| row["peer"]["ip"] == ip.as_str());
            to_it.map(|row| row["peer"].clone()).any(|peer| peer["class"] == class && peer["name"] == name.as_str())
        })?;
    }
    agent.finish()?;
    Ok(())
}

/// Waits for a finding about a pod, and says how long that took.
fn wait_for_finding(observer: &Observer, pod: &Running, code: &str, state: &str, since: Instant) -> Result<Duration> {
    observer.wait_for(&format!("{code} {state} of {}", pod.name), |lines| {
        let rows = lines.iter().filter(|line| line.contains(code) && line.contains(&pod.name));
        rows.filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .any(|row| row["kind"] == "finding" && row["code"] == code && row["state"] == state)
    })?;
    Ok(since.elapsed())
}

#[test]
fn a_policy_changes_the_verdict_on_a_running_pod() -> Result<()> {
    let mut server = Server::take()?;
    let mut site = Site::new(&mut server, "judged")?;
    let mut pod = site.pod(&server, "judged-pod")?;
    let agent = site.agent()?;
    let observer = agent.observe(&[])?;
    site.wait_until_named(&observer, &mut pod)?;

    // It runs without the interface that the policy wants for it.
    let since = Instant::now();
    let policy = manifests::security_group_policy(&site.namespace, "late", &pod.name, &["sg-1"]);
    server.admin.apply(&policy)?;
    let opened = wait_for_finding(&observer, &pod, "sgp-not-enforced", "open", since)?;
    let since = Instant::now();
    server.admin.delete(&paths::of_object(&policy)?)?;
    let resolved = wait_for_finding(&observer, &pod, "sgp-not-enforced", "resolved", since)?;
    println!("from a policy to the changed verdict: {opened:.2?}; from its deletion: {resolved:.2?}");
    agent.finish()?;
    Ok(())
}

#[test]
fn what_a_controller_makes_of_policies_is_read_too() -> Result<()> {
    let mut server = Server::take()?;
    let mut site = Site::new(&mut server, "endpoints")?;
    let mut pod = site.pod(&server, "judged")?;
    let object = |kind: &str, version: &str, name: &str, spec: Value| {
        let metadata = json!({ "namespace": site.namespace, "name": name });
        json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec })
    };
    let endpoint = |name: &str, of: &str| {
        let of = json!({ "namespace": site.namespace, "name": of });
        let spec = json!({ "policyRef": of, "podSelector": {}, "podIsolation": ["Egress"] });
        object("PolicyEndpoint", "networking.k8s.aws/v1alpha1", name, spec)
    };
    // One that is made of a policy, and one of a policy of a kind that is not read.
    let policy = json!({ "podSelector": {}, "policyTypes": ["Egress"] });
    server.admin.apply(&object("NetworkPolicy", "networking.k8s.io/v1", "deny", policy))?;
    server.admin.apply(&endpoint("deny-x1", "deny"))?;
    server.admin.apply(&endpoint("other-y1", "other"))?;
    let refused = refusals(&server)?;
    let agent = site.agent()?;
    let observer = agent.observe(&[])?;
    site.wait_until_named(&observer, &mut pod)?;
    let is_read = |metrics: &Metrics| {
        metrics.samples("sekisho_cluster_age_seconds").any(|sample| sample.labels["source"] == "network_policies")
    };
    let end = Instant::now() + scale::deadline();
    while !is_read(&agent.metrics()?) {
        ensure!(Instant::now() < end, "policies are not read");
        std::thread::sleep(scale::LOOK);
    }
    // What it knows is written down when it ends.
    agent.finish()?;
    let facts = std::fs::read_to_string(site.home.path().join("data/facts.json")).context("read what it knew")?;
    let facts: Value = serde_json::from_str(&facts).context("what it knew is JSON")?;
    let known = facts["known"]["network_policies"].as_array().context("no network policies")?;
    let known: Vec<_> = known.iter().map(|policy| (policy["name"].as_str(), policy["made_of"].as_str())).collect();
    assert_eq!(known, [(Some("deny"), None), (Some("other-y1"), Some("other"))]);
    assert_eq!(refusals(&server)?, refused, "the shipped role does not allow what the agent asks");
    Ok(())
}

/// An agent asks for a definition that is not there again after some minutes: nine hundred of them must not be felt.
const DEFINITION_NOTICED: Duration = Duration::from_mins(6);

#[test]
fn a_definition_that_comes_while_the_agent_runs_is_noticed() -> Result<()> {
    let mut server = Server::take()?;
    let mut site = Site::new(&mut server, "defined")?;
    server.forget_aws_objects()?;
    let mut pod = site.pod(&server, "defined-pod")?;
    let agent = site.agent()?;
    let observer = agent.observe(&[])?;
    site.wait_until_named(&observer, &mut pod)?;
    // That the kind is not there is an answer: there are no policies.
    let age = "sekisho_cluster_age_seconds";
    let answered = |metrics: &Metrics| metrics.samples(age).any(|sample| sample.labels["source"] == "policies");
    let end = Instant::now() + scale::deadline();
    while !answered(&agent.metrics()?) {
        ensure!(Instant::now() < end, "the agent does not take it for an answer");
        std::thread::sleep(scale::LOOK);
    }

    let since = Instant::now();
    server.define_aws_objects()?;
    server.admin.apply(&manifests::security_group_policy(&site.namespace, "late", &pod.name, &["sg-1"]))?;
    let opened = |rows: &[Value]| {
        rows.iter().any(|row| row["kind"] == "finding" && row["code"] == "sgp-not-enforced" && row["state"] == "open")
    };
    let told = || -> Result<Vec<Value>> {
        let output = agent.command(&["findings", "-o", "json"])?.stdout;
        let lines = String::from_utf8(output).context("findings are UTF-8")?;
        lines.lines().map(|line| serde_json::from_str(line).with_context(|| format!("read {line}"))).collect()
    };
    while !opened(&told()?) {
        ensure!(
            since.elapsed() < DEFINITION_NOTICED + scale::deadline(),
            "the definition is not noticed: {:#?}",
            told()?
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    println!("from a definition to the verdict by its first object: {:.1?}", since.elapsed());
    agent.finish()?;
    Ok(())
}

/// Pods of the cluster, and those of the agent's node.
const CLUSTER_PODS: usize = 5_000;
const NODE_PODS: usize = 110;

/// What an agent may need more for the pods of other nodes: a third of what they are as JSON (23 MB).
const MORE_KIB: u64 = 8 * 1024;

fn resident_kib(agent: &Agent) -> Result<u64> {
    let path = format!("/proc/{}/status", agent.pid());
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim().trim_end_matches(" kB").parse().context("read VmRSS")
}

#[test]
fn memory_follows_the_pods_of_the_node_and_not_of_the_cluster() -> Result<()> {
    let mut server = Server::take()?;
    let mut site = Site::new(&mut server, "crowd")?;
    make_running(&server, &site.namespace, 0..NODE_PODS - 2, |_| site.name.clone())?;

    // Told last, so what was told before is known as soon as it is.
    let mut last = site.pod(&server, "last")?;
    let agent = site.agent()?;
    let observer = agent.observe(&[])?;
    site.wait_until_named(&observer, &mut last)?;
    let alone = resident_kib(&agent)?;

    make_running(&server, &site.namespace, NODE_PODS..CLUSTER_PODS, |n| format!("other-{}", n % 50))?;
    let mut very_last = site.pod(&server, "very-last")?;
    site.wait_until_named(&observer, &mut very_last)?;
    let watched = resident_kib(&agent)?;
    drop(observer);
    agent.finish()?;

    let agent = site.agent()?;
    let observer = agent.observe(&[])?;
    site.wait_until_named(&observer, &mut very_last)?;
    let listed = resident_kib(&agent)?;
    agent.finish()?;
    println!(
        "resident with {NODE_PODS} pods on the node: {alone} KiB with no others, {watched} KiB when {CLUSTER_PODS} had \
         come, {listed} KiB started with {CLUSTER_PODS}"
    );
    ensure!(watched < alone + MORE_KIB && listed < alone + MORE_KIB, "memory grows with the cluster");
    server.admin.delete(&format!("/api/v1/namespaces/{}", site.namespace))
}
