//! Datadog's own OpenMetrics check with the configuration that is shipped: what it sends, by name, type and tag, and how much
//! that is; and dashboard and monitors, which ask for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use system_tests::exposition::{self, Metric};
use system_tests::{Agent, Exposition};

/// Names the Python that has Datadog's checks in it.
const PYTHON: &str = "SEKISHO_DATADOG";
/// Not sent to Datadog, and why; `docs/datadog.md` says the same.
const NOT_SENT: [&str; 18] = [
    "sekisho_tcp_rtt_seconds",
    "sekisho_verdicts_total",
    "sekisho_pod_network_packets_total",
    "sekisho_collector_duration_seconds",
    "sekisho_ec2_age_seconds",
    "sekisho_cluster_left_out_total",
    "sekisho_kubernetes_events_total",
    "sekisho_history_size_bytes",
    "sekisho_history_writable",
    "sekisho_export_rows_total",
    "sekisho_export_oldest_age_seconds",
    "sekisho_export_working",
    "sekisho_dns_queries_total",
    "sekisho_dns_search_waste_total",
    "sekisho_dns_names",
    "sekisho_dns_names_dropped_total",
    "sekisho_dns_unmatched_answers_total",
    "sekisho_dns_unreadable_messages_total",
];
/// Of these, besides, there is nothing for Datadog to keep: one is in the image's tag, one shows in the others.
const NOT_NEEDED: [&str; 2] = ["sekisho_build_info", "sekisho_capacity_left_out_total"];
/// Most custom metrics of a node without workloads, as `docs/datadog.md` says.
const MOST_WITHOUT_WORKLOADS: usize = 350;

#[derive(Debug, Deserialize)]
struct Sent {
    metrics: Vec<Sample>,
    health: Vec<i64>,
}

#[derive(Debug, Deserialize)]
struct Sample {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    tags: Vec<String>,
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/datadog").join(name)
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> Result<T> {
    let path = shipped(name);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    // JSON is YAML.
    serde_yaml_ng::from_str(&text).with_context(|| format!("parse {}", path.display()))
}

/// What the check sends of an endpoint in two runs.
fn check(endpoint: SocketAddr, form: &str) -> Result<Sent> {
    let python = std::env::var_os(PYTHON)
        .with_context(|| format!("no Datadog check: run `cargo xtask test --only monitoring`, or set {PYTHON}"))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/datadog_check.py");
    let mut command = Command::new(python);
    command.arg(script).arg(shipped("conf.yaml")).arg(format!("http://{endpoint}/metrics")).arg(form);
    let output = command.output().context("run Datadog's check")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "Datadog's check: {stderr}");
    let sent: Sent = serde_json::from_slice(&output.stdout).with_context(|| format!("what it sends: {stderr}"))?;
    ensure!(!sent.health.is_empty() && sent.health.iter().all(|status| *status == 0), "not healthy: {sent:?} {stderr}");
    Ok(sent)
}

/// The name of a metric at Datadog, and its type there.
fn at_datadog(metric: &Metric) -> (String, &'static str) {
    let name = metric.name.replacen("sekisho_", "sekisho.", 1);
    match name.strip_suffix("_total") {
        Some(name) => (format!("{name}.count"), "monotonic_count"),
        None => (name, "gauge"),
    }
}

/// The instance of the shipped configuration.
fn instance() -> Result<Value> {
    let configuration: Value = read("conf.yaml")?;
    let instances = configuration["instances"].as_array().context("instances")?;
    ensure!(instances.len() == 1, "one instance: {instances:?}");
    Ok(instances[0].clone())
}

/// Name at Datadog to type and tags, of what the configuration asks for.
fn expected() -> Result<BTreeMap<String, (String, BTreeSet<String>)>> {
    let instance = instance()?;
    let wanted: BTreeSet<String> = instance["metrics"]
        .as_array()
        .context("metrics")?
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let catalogue = exposition::catalogue()?;
    let plain = |metric: &Metric| metric.name.trim_start_matches("sekisho_").trim_end_matches("_total").to_owned();
    let known: BTreeSet<String> = catalogue.iter().map(plain).collect();
    ensure!(wanted.is_subset(&known), "no such metrics: {:?}", wanted.difference(&known));
    let left_out: BTreeSet<&str> =
        catalogue.iter().filter(|metric| !wanted.contains(&plain(metric))).map(|metric| metric.name.as_str()).collect();
    assert_eq!(left_out, NOT_SENT.into_iter().chain(NOT_NEEDED).collect(), "each metric is sent, or a reason is known");
    let renamed = |label: &String| {
        instance["rename_labels"][label.as_str()].as_str().map_or_else(|| label.clone(), ToOwned::to_owned)
    };
    let wanted = catalogue.iter().filter(|metric| wanted.contains(&plain(metric)));
    Ok(wanted
        .map(|metric| {
            let (name, kind) = at_datadog(metric);
            (name, (kind.to_owned(), metric.labels.iter().map(renamed).collect()))
        })
        .collect())
}

#[test]
fn datadog_gets_the_metrics_that_are_chosen_with_its_own_tags() -> Result<()> {
    let stand_in = Exposition::start()?;
    let mut sent: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for sample in check(stand_in.address(), "usual")?.metrics {
        let tags = sample.tags.iter().map(|tag| tag.split(':').next().unwrap_or_default().to_owned());
        let mut tags: BTreeSet<String> = tags.collect();
        // Of the agent's own pod: what would speak of another pod is left out, what does not stays.
        assert!(tags.remove("team"), "{sample:?}");
        let spoken = ["kube_namespace:sekisho", "pod_name:sekisho-x2z9k", "image_tag:1"];
        assert!(!sample.tags.iter().any(|tag| spoken.contains(&tag.as_str())), "{sample:?}");
        let place = sent.entry(sample.name).or_insert_with(|| (sample.kind.clone(), tags.clone()));
        assert_eq!(*place, (sample.kind, tags));
    }
    assert_eq!(sent, expected()?);
    Ok(())
}

#[test]
fn datadog_reads_the_running_agent_in_both_forms() -> Result<()> {
    let agent = Agent::with(json!({ "fold_seconds": 1, "collect": {"cadence_percent": 5} }))?;
    let deadline = std::time::Instant::now() + system_tests::scale::deadline();
    while agent.metrics()?.samples("sekisho_collector_success").count() < 5 {
        ensure!(std::time::Instant::now() < deadline, "no looks at the node");
        std::thread::sleep(system_tests::scale::LOOK);
    }
    for form in ["usual", "latest"] {
        let sent = check(agent.http(), form)?;
        let expected = expected()?;
        let mut series = BTreeSet::new();
        for sample in &sent.metrics {
            let (kind, _) = expected.get(&sample.name).with_context(|| format!("nobody asked for {sample:?}"))?;
            assert_eq!(*kind, sample.kind, "{sample:?}");
            series.insert((&sample.name, &sample.tags));
        }
        let has = |name: &str| sent.metrics.iter().any(|sample| sample.name == name);
        for name in ["sekisho.records.count", "sekisho.probe_attached", "sekisho.collector_success"] {
            ensure!(has(name), "{form}: {name} is missing");
        }
        // What the workloads of this machine do is not the node's own.
        let own = series.iter().filter(|(_, tags)| !tags.iter().any(|tag| tag.starts_with("workload:")));
        let own = own.filter(|(_, tags)| !tags.iter().any(|tag| tag.starts_with("pod_name:"))).count();
        println!("{form}: {} custom metrics, of which {own} are the node's own", series.len());
        ensure!(own > 50 && own <= MOST_WITHOUT_WORKLOADS, "{form}: {own} custom metrics of the node's own");
    }
    agent.finish()?;
    Ok(())
}

#[test]
fn the_annotation_says_what_the_configuration_says() -> Result<()> {
    let patch: Value = read("annotations.yaml")?;
    let text = &patch["spec"]["template"]["metadata"]["annotations"]["ad.datadoghq.com/sekisho.checks"];
    let checks: Value =
        serde_json::from_str(text.as_str().context("an annotation")?).context("parse the annotation")?;
    let mut annotated = checks["openmetrics"]["instances"][0].clone();
    let object = annotated.as_object_mut().context("an instance")?;
    // How the endpoint is reached is what they differ in.
    assert_eq!(
        object.insert("openmetrics_endpoint".to_owned(), instance()?["openmetrics_endpoint"].clone()),
        Some(json!("https://%%host%%:9847/metrics"))
    );
    for way in ["auth_token", "tls_verify"] {
        ensure!(object.remove(way).is_some(), "the annotation lacks {way}");
    }
    assert_eq!(annotated, instance()?);
    Ok(())
}

/// Every query of the dashboard and of the monitors.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("query").and_then(Value::as_str).map(ToOwned::to_owned));
            fields.values().for_each(|field| queries(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

#[test]
fn dashboard_and_monitors_ask_for_what_is_sent() -> Result<()> {
    // What Datadog adds to everything, and the variables of the dashboard.
    let always = ["host", "kube_cluster_name", "$cluster", "$namespace", "$host", "*"];
    let expected = expected()?;
    let mut found = Vec::new();
    for name in ["dashboard.json", "monitors.json"] {
        queries(&read::<Value>(name)?, &mut found);
    }
    let mut checked = 0_usize;
    // The service check of the endpoint is no metric.
    for query in found.iter().filter(|query| !query.starts_with("\"sekisho.openmetrics.health\"")) {
        // `aggregation:metric{filter,…} by {tag,…}`
        for part in query.split("sekisho.").skip(1) {
            let (name, rest) = part.split_once('{').with_context(|| format!("no scope: {query}"))?;
            let name = format!("sekisho.{name}");
            let (_, tags) = expected.get(&name).with_context(|| format!("{name} is not sent: {query}"))?;
            let (scope, rest) = rest.split_once('}').with_context(|| format!("a scope without its end: {query}"))?;
            let by = rest.strip_prefix(" by {").and_then(|rest| rest.split_once('}')).map_or("", |(by, _)| by);
            let keys =
                scope.split(',').map(|filter| filter.trim_start_matches('!').split(':').next().unwrap_or_default());
            for key in keys.chain(by.split(',')).filter(|key| !key.is_empty()) {
                ensure!(always.contains(&key) || tags.contains(key), "{name} has no tag {key}: {query}");
            }
            checked += 1;
        }
    }
    ensure!(checked > 30, "{checked} parts of queries");
    for monitor in read::<Value>("monitors.json")?.as_array().context("monitors")? {
        let message = monitor["message"].as_str().context("a message")?;
        let (_, page) = message.rsplit_once(": docs/runbooks/").context("a runbook")?;
        let path = shipped("../../docs/runbooks").join(page);
        ensure!(path.is_file(), "{} is missing: {message}", path.display());
    }
    Ok(())
}
