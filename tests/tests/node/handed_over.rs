//! What is handed over of a node's history once its agent has ended: readiness for a change of the metadata service, and
//! evidence about one pod.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::metadata_server::Behaviour;
use system_tests::node::account;
use system_tests::{MetadataServer, Node, NodePod, Wiring, agent};

use super::credentials::{CREDENTIALS, ROLE, ask, ask_without_token, inject_irsa, use_account};

fn sekisho(arguments: &[&str], data: &Path) -> Result<Output> {
    let program = agent::program()?;
    let mut command = Command::new(&program);
    command.args(arguments).arg("--data-dir").arg(data);
    command.output().with_context(|| format!("run {} {arguments:?}", program.display()))
}

fn verify(bundle: &Path) -> Result<Output> {
    let program = agent::program()?;
    Command::new(program).args(["evidence", "verify"]).arg(bundle).output().context("verify a bundle")
}

/// Names in one list of a plan.
fn list(report: &Value, plan: &str, list: &str) -> Vec<String> {
    let plans = report["plans"].as_array().into_iter().flatten();
    let entries = plans.filter(|found| found["plan"] == plan).filter_map(|found| found[list].as_array().cloned());
    entries.flatten().filter_map(|entry| entry["workload"].as_str().map(str::to_owned)).collect()
}

#[test]
fn readiness_and_evidence_tell_what_the_clients_did_and_no_secret() -> Result<()> {
    let mut node = Node::with_metadata_beyond()?;
    node.put(&account("shop", "web", Some(ROLE)))?;
    node.put(&account("shop", "default", None))?;
    let mut falls_back = node.pod("shop", "falls-back", Wiring::Plain)?;
    use_account(&mut falls_back, "web");
    inject_irsa(&mut falls_back);
    node.put(&falls_back.object)?;
    let plain = node.pod("shop", "plain", Wiring::Plain)?;
    let old = node.pod("shop", "old", Wiring::Plain)?;
    let _quiet = node.pod("shop", "quiet", Wiring::Plain)?;
    let on_the_host = node.pod("shop", "on-the-host", Wiring::HostNetwork)?;
    for pod in [&falls_back, &plain, &old] {
        node.admit(pod)?;
    }
    let services = MetadataServer::start(&node.vpc, Behaviour { hop_limit: Some(2), ..Behaviour::default() })?;
    let agent = node.agent(json!({}))?;
    let taken = |pod: &NodePod| -> Result<()> {
        let status = ask(&mut pod.actor()?, CREDENTIALS, "")?;
        ensure!(status.contains("200"), "{status}");
        Ok(())
    };
    for pod in [&falls_back, &plain, &on_the_host] {
        taken(pod)?;
    }
    ask_without_token(&mut old.actor()?, "/latest/meta-data/instance-id", "")?;
    let open = [
        "node-credentials-taken falls-back",
        "node-credentials-taken plain",
        "node-credentials-taken on-the-host",
        "metadata-v1-used old",
    ];
    agent.wait_for_findings("open", &open)?;
    node.end(plain)?;
    agent.wait_for_findings("resolved", &["node-credentials-taken plain"])?;
    let secret = services.canary().to_owned();
    services.stop()?;
    let finished = agent.finish()?;
    let data = finished.home.path().join("data");

    let ready = sekisho(&["readiness", "imds", "-o", "json"], &data)?;
    let said = String::from_utf8_lossy(&ready.stderr).into_owned();
    assert_eq!(ready.status.code(), Some(1), "somebody breaks: {said}");
    let report: Value = serde_json::from_slice(&ready.stdout).context("a report")?;
    let of = |plan, name: &str| -> Vec<String> {
        let own = ["falls-back", "plain", "old", "quiet", "on-the-host"];
        list(&report, plan, name).into_iter().filter(|name| own.contains(&name.as_str())).collect()
    };
    assert_eq!(of("hop_limit_1", "breaks"), ["plain"], "{report}");
    assert_eq!(of("hop_limit_1", "falls_back"), ["falls-back"], "{report}");
    assert_eq!(of("hop_limit_1", "does_not_care"), ["old", "on-the-host", "quiet"], "{report}");
    assert_eq!(of("tokens_required", "breaks"), ["old"], "{report}");
    assert_eq!(of("blocked_for_pods", "breaks"), ["old", "plain"], "{report}");
    assert_eq!((&report["hop_limit"]["value"], &report["hop_limit"]["by"]), (&json!(2), &json!("node")), "{report}");
    assert_eq!(report["tokens"]["required"], json!(false), "{report}");
    let text = sekisho(&["readiness", "imds"], &data)?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    ensure!(text.contains("shop/plain: lives on the node's role eks-node-role"), "{text}");

    let objects = sekisho(&["timeline", "--pod", "shop/plain", "--kind", "object", "-o", "json"], &data)?;
    let objects = String::from_utf8_lossy(&objects.stdout).into_owned();
    let of_pod = objects.lines().filter(|line| line.contains("\"object\":\"pod\"")).collect::<Vec<_>>();
    ensure!(of_pod.first().is_some_and(|line| line.contains("\"change\":\"seen\"")), "{objects}");
    ensure!(of_pod.last().is_some_and(|line| line.contains("\"change\":\"gone\"")), "{objects}");

    let path = finished.home.path().join("plain.tar.zst");
    let bundle = path.to_str().context("UTF-8")?;
    let made = sekisho(&["evidence", "--pod", "shop/plain", "-o", bundle], &data)?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let checked = verify(&path)?;
    ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let again = sekisho(&["evidence", "--pod", "shop/plain", "-o", bundle], &data)?;
    assert_eq!(again.status.code(), Some(3), "it is not replaced");
    let packed = std::fs::read(&path).context("read the bundle")?;
    let content = zstd::decode_all(&packed[..]).context("decode the bundle")?;
    let content = String::from_utf8_lossy(&content);
    for part in ["\"category\":\"role_credentials\"", "\"access_key_id\":\"ASIA", "\"kernel\":", "\"change\":\"gone\""]
    {
        ensure!(content.contains(part), "{part} is not in the bundle");
    }
    ensure!(!content.contains("on-the-host\""), "rows of another pod are in the bundle");
    ensure!(!content.contains(&secret), "the planted secret stands in the bundle");
    let mut changed = packed;
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(&path, changed).context("change the bundle")?;
    assert_eq!(verify(&path)?.status.code(), Some(1));

    let leaks = finished.leaks(&secret)?;
    ensure!(leaks.is_empty(), "the planted secret stands in {leaks:?}");
    Ok(())
}
