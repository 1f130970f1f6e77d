//! The running agent: its pods' interfaces and policies' groups make it ask, and it says how that stands.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::Agent;
use system_tests::moto::Moto;
use system_tests::scale;

use super::vpc::{Asker, Key, Vpc};

const NODE: &str = "node-1";

/// A pod with a branch interface, and a policy that selects it.
fn objects(vpc: &Vpc, directory: &Path) -> Result<()> {
    let branch = json!([{"eniId": vpc.branch.id, "ifAddress": vpc.branch.mac, "privateIp": vpc.branch.ip, "ipv6Addr": "",
                         "vlanId": 1, "subnetCidr": "10.9.1.0/24", "subnetV6Cidr": "", "associationID": "trunk-assoc-1"}]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "cart", "uid": "8e1f1a3c-0000-4000-8000-000000000001", "labels": {"app": "cart"},
                     "creationTimestamp": "2026-01-01T00:00:00Z",
                     "annotations": {"vpc.amazonaws.com/pod-eni": branch.to_string()}},
        "spec": {"nodeName": NODE, "serviceAccountName": "default", "containers": [{"name": "app", "image": "x:1"}]},
        "status": {"phase": "Running", "podIP": vpc.branch.ip, "podIPs": [{"ip": vpc.branch.ip}]},
    });
    let policy = json!({
        "apiVersion": "vpcresources.k8s.aws/v1beta1", "kind": "SecurityGroupPolicy",
        "metadata": {"namespace": "shop", "name": "cart", "uid": "policy", "generation": 1, "creationTimestamp": "2025-12-01T00:00:00Z"},
        "spec": {"podSelector": {"matchLabels": {"app": "cart"}}, "securityGroups": {"groupIds": [vpc.db]}},
    });
    for (name, object) in [("pod.json", pod), ("policy.json", policy)] {
        std::fs::write(directory.join(name), object.to_string()).with_context(|| format!("write {name}"))?;
    }
    Ok(())
}

#[test]
fn pods_make_the_agent_ask_and_doctor_and_metrics_say_how_that_stands() -> Result<()> {
    let moto = Moto::start()?;
    let vpc = Vpc::make(&moto)?;
    let manifests = tempfile::tempdir()?;
    objects(&vpc, manifests.path())?;
    let configuration = json!({
        "node_name": NODE,
        "cluster": {"manifests": manifests.path()},
        "aws": Asker::configuration(&moto.endpoint()),
    });
    let key = Key::any();
    let agent = Agent::with_environment(configuration, &key.environment())?;
    let deadline = Instant::now() + scale::deadline() + Duration::from_secs(20);
    let calls = ["network_interfaces", "security_groups", "security_group_rules", "prefix_lists", "subnets", "vpcs"];
    loop {
        let output = agent.command(&["doctor", "-o", "json"])?;
        let report: Value = serde_json::from_slice(&output.stdout).context("read the doctor's report")?;
        let lines = report["checks"].as_array().cloned().unwrap_or_default();
        let works = |call: &&str| {
            lines.iter().any(|line| {
                line["name"] == format!("ec2 {call}")
                    && line["state"] == "ok"
                    && line["text"].as_str().is_some_and(|text| text.starts_with("last worked "))
            })
        };
        if calls.iter().all(works) {
            break;
        }
        ensure!(Instant::now() < deadline, "not all calls were made: {report} {}", moto.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    // Metrics are brought up to date once a second.
    for call in calls {
        let labels = [("call", call)];
        loop {
            let metrics = agent.metrics()?;
            let age = metrics.value("sekisho_ec2_age_seconds", &labels);
            if metrics.value("sekisho_ec2_success", &labels) == Some(1.0) && age.is_some_and(|age| age >= 0.0) {
                break;
            }
            ensure!(Instant::now() < deadline, "{call} is not shown to work, {age:?} s ago");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    // The answers are on disk when the agent has ended.
    let finished = agent.finish()?;
    let file =
        std::fs::read_to_string(finished.home.path().join("data/ec2.json")).context("read the file of answers")?;
    ensure!(file.contains(&vpc.branch.id) && file.contains(&vpc.db) && file.contains(&vpc.list), "{file}");
    ensure!(!file.contains(&key.secret) && !finished.stderr.contains(&key.secret));
    Ok(())
}
