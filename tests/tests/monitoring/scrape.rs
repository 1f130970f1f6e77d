//! The running agent, scraped by a real Prometheus that evaluates the shipped rules; and its output as promtool judges it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::lab::IMDS_V4;
use system_tests::metadata_server::Behaviour;
use system_tests::node::account;
use system_tests::prometheus::{self, Waits};
use system_tests::{Actor, Agent, MetadataServer, Node, Prometheus, Wiring, metrics, scale};

const ROLE: &str = "arn:aws:iam::111122223333:role/web";
const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/eks-node-role";

/// Takes the node role's credentials.
fn take(client: &mut Actor) -> Result<()> {
    let imds = SocketAddr::from((IMDS_V4, 80));
    let put = "PUT /latest/api/token HTTP/1.1\r\nHost: imds\r\nX-aws-ec2-metadata-token-ttl-seconds: 600\r\n\
               Connection: close\r\n\r\n";
    let answer = client.exchange(imds, &[put])?.answer;
    let token = answer.split_once("\r\n\r\n").context("an answer without a body")?.1.to_owned();
    let get = format!(
        "GET {CREDENTIALS} HTTP/1.1\r\nHost: imds\r\nX-aws-ec2-metadata-token: {token}\r\nConnection: close\r\n\r\n"
    );
    let answer = client.exchange(imds, &[&get])?.answer;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

/// What the webhook for IRSA adds to a pod's only container.
fn inject_irsa(object: &mut Value) {
    let directory = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
    object["spec"]["serviceAccountName"] = json!("web");
    let container = &mut object["spec"]["containers"][0];
    container["env"] = json!([
        {"name": "AWS_ROLE_ARN", "value": ROLE},
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": format!("{directory}/token")},
    ]);
    container["volumeMounts"] = json!([{"name": "aws-iam-token", "readOnly": true, "mountPath": directory}]);
    let token = json!({"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"});
    object["spec"]["volumes"] =
        json!([{"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": token}]}}]);
}

#[test]
fn a_theft_becomes_an_alert_and_so_does_an_agent_that_is_gone() -> Result<()> {
    let mut node = Node::new()?;
    node.put(&account("shop", "web", Some(ROLE)))?;
    let mut thief = node.pod("shop", "thief", Wiring::Plain)?;
    inject_irsa(&mut thief.object);
    node.put(&thief.object)?;
    let _services = MetadataServer::start(&node.network, Behaviour::default())?;
    let agent = node.agent(json!({ "aws": {"mode": "off"} }))?;
    let server = Prometheus::start_in(Some(Arc::clone(&node.network)), &[agent.http()], Waits::Short)?;

    // Scraped, so what Prometheus asked for (OpenMetrics) was read by its own parser.
    server.wait_for("up{job=\"sekisho\"} == 1", |points| points.len() == 1)?;
    let targets = server.api("/api/v1/targets")?;
    assert_eq!(targets["activeTargets"][0]["lastError"], "", "{targets}");
    let metadata = server.api("/api/v1/targets/metadata?metric=sekisho_connections")?;
    assert_eq!(metadata[0]["type"], "counter", "OpenMetrics names the family without _total: {metadata}");
    let before = server.firing()?;
    ensure!(!before.contains(&"SekishoNodeCredentialsTaken".to_owned()), "before anything happened: {before:?}");
    ensure!(!before.contains(&"SekishoAgentDown".to_owned()), "while it runs: {before:?}");

    let mut client = thief.actor()?;
    take(&mut client)?;
    client.end()?;
    let alerts = "ALERTS{alertname=\"SekishoNodeCredentialsTaken\",alertstate=\"firing\"}";
    let fired = server.wait_for(alerts, |points| !points.is_empty())?;
    let [alert] = &fired[..] else { anyhow::bail!("one alert for one workload: {fired:?}") };
    let label = |name: &str| alert.labels.get(name).map(String::as_str);
    assert_eq!(label("namespace"), Some("shop"), "{alert:?}");
    assert_eq!(label("workload"), Some("thief"), "{alert:?}");
    assert_eq!(label("severity"), Some("critical"), "{alert:?}");
    let told = server.api("/api/v1/alerts")?;
    let told = told["alerts"].as_array().context("alerts")?.iter();
    let told = told.filter(|told| told["labels"]["alertname"] == "SekishoNodeCredentialsTaken");
    let summaries: Vec<_> = told.map(|told| told["annotations"]["summary"].as_str().unwrap_or_default()).collect();
    ensure!(summaries.len() == 1 && summaries[0].starts_with("shop/thief took"), "{summaries:?}");

    // Ratios of what the machine really uses; a row of ceilings comes every half minute.
    server.wait_for("instance:sekisho_node_capacity_used:ratio", |points| {
        points.iter().any(|point| point.labels["resource"] == "threads" && point.value > 0.0 && point.value < 1.0)
    })?;

    // With every wait cut short nothing else fires about the agent: it is well.
    let firing = server.query("ALERTS{alertstate=\"firing\"}")?;
    let own = ["Agent", "Probe", "Records", "Gap", "Untracked", "Series", "Table", "History", "Cluster", "Absent"];
    let unwell: Vec<_> = firing
        .iter()
        .filter(|point| own.iter().any(|part| point.labels["alertname"].starts_with(&format!("Sekisho{part}"))))
        .collect();
    ensure!(unwell.is_empty(), "of an agent that is well: {unwell:?}");
    println!("firing: {:?}", server.firing()?);

    agent.finish()?;
    server.wait_for("ALERTS{alertname=\"SekishoAgentDown\",alertstate=\"firing\"}", |points| points.len() == 1)?;
    // The memory of findings: the alert does not end with the agent.
    ensure!(!server.query(alerts)?.is_empty(), "the theft is forgotten: {:?}", server.firing()?);
    Ok(())
}

/// What Prometheus sends that reads no OpenMetrics.
const TEXT: &str = "text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

#[test]
fn both_forms_of_metrics_are_clean() -> Result<()> {
    let agent = Agent::with(json!({ "fold_seconds": 1, "collect": {"cadence_percent": 5} }))?;
    // The scrapes are connections themselves; looks at the node come at once.
    let deadline = Instant::now() + scale::deadline();
    let (status, text) = loop {
        let (status, text) = metrics::get_as(agent.http(), "/metrics", TEXT)?;
        if ["sekisho_connections_total{", "sekisho_collector_success{"].iter().all(|series| text.contains(series)) {
            break (status, text);
        }
        ensure!(Instant::now() < deadline, "no connections or no looks: {text}");
        std::thread::sleep(scale::LOOK);
    };
    assert_eq!(status, 200);
    let mut child = Command::new(prometheus::program("promtool")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start promtool")?;
    child.stdin.take().context("its input")?.write_all(text.as_bytes()).context("give promtool the metrics")?;
    let output = child.wait_with_output().context("wait for promtool")?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && said.is_empty(), "promtool check metrics: {said}");

    let open_metrics = agent.metrics()?;
    ensure!(open_metrics.text.ends_with("# EOF\n"), "no OpenMetrics");
    // The same samples, but for what happened between.
    let names = |text: &str| -> std::collections::BTreeSet<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.split(['{', ' ']).next()).map(ToOwned::to_owned).collect()
    };
    let (plain, open) = (names(&text), names(&open_metrics.text));
    ensure!(plain.is_subset(&open) && plain.len() > 15, "{plain:?} {open:?}");
    ensure!(plain.contains("sekisho_build_info"), "{plain:?}");
    agent.finish()?;
    Ok(())
}
