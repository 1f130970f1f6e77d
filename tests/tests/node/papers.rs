//! What objects contradict.

use anyhow::Result;
use serde_json::{Value, json};
use system_tests::node::{account, policy};
use system_tests::{Node, NodePod, Wiring};

const ROLE: &str = "arn:aws:iam::111122223333:role/web";
const CLUSTER_GROUP: &str = "sg-0c1a5500000000000";

fn created(mut object: Value, time: &str) -> Value {
    object["metadata"]["creationTimestamp"] = json!(time);
    object
}

fn env(pod: &mut NodePod, variables: &[(&str, &str)]) {
    let variables: Vec<Value> = variables.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    pod.object["spec"]["containers"][0]["env"] = Value::Array(variables);
}

#[test]
fn policies_that_are_not_in_force_are_told_and_those_that_are_stay_silent() -> Result<()> {
    let mut node = Node::new()?;
    node.put(&account("shop", "default", None))?;
    let unenforced = node.pod("shop", "unenforced", Wiring::Plain)?;
    let late = node.pod("shop", "late", Wiring::Plain)?;
    // Annotated and limited, and yet on an address of the node.
    let mut ignored = node.pod("shop", "ignored", Wiring::Strict { vlan: 3 })?;
    ignored.object["status"]["podIP"] = json!("10.78.9.9");
    ignored.object["status"]["podIPs"] = json!([{"ip": "10.78.9.9"}]);
    node.put(&ignored.object)?;
    let orphan = node.pod("shop", "orphan", Wiring::Strict { vlan: 4 })?;
    let _strict = node.pod("shop", "strict", Wiring::Strict { vlan: 5 })?;
    let _standard = node.pod("shop", "standard", Wiring::Standard { vlan: 6 })?;
    let on_the_host = node.pod("shop", "on-the-host", Wiring::HostNetwork)?;
    let mut done = node.pod("shop", "done", Wiring::Plain)?;
    done.object["status"]["phase"] = json!("Succeeded");
    node.put(&done.object)?;
    let _too_many = node.pod("shop", "too-many", Wiring::Strict { vlan: 7 })?;

    let groups = ["sg-00000000000000001"];
    let many: Vec<String> = (1..=6).map(|n| format!("sg-{n:017x}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut policies: Vec<Value> = ["unenforced", "ignored", "strict", "standard", "on-the-host", "done"]
        .iter()
        .map(|app| policy("shop", app, app, &groups))
        .collect();
    policies.push(created(policy("shop", "late", "late", &groups), "2026-02-01T00:00:00Z"));
    policies.push(policy("shop", "too-many", "too-many", &many));
    policies.push(policy("shop", "names-the-cluster", "strict", &[CLUSTER_GROUP]));
    for policy in &policies {
        node.put(policy)?;
    }
    let agent = node.agent(json!({ "findings": { "cluster_security_groups": [CLUSTER_GROUP] } }))?;
    let found = agent.wait_for_findings(
        "open",
        &[
            "sgp-not-enforced unenforced",
            "sgp-not-enforced late",
            "sgp-not-enforced ignored",
            "sgp-not-enforced on-the-host",
            "sgp-orphaned orphan",
            "sgp-invalid too-many",
            "sgp-cluster-group names-the-cluster",
        ],
    )?;
    let cause = |name: &str| {
        let finding = found.iter().find(|finding| finding.name() == name);
        finding.map(|finding| (finding.severity.as_str(), finding.cause.as_str()))
    };
    assert_eq!(cause("sgp-not-enforced unenforced"), Some(("high", "webhook_missed")));
    assert_eq!(cause("sgp-not-enforced late"), Some(("high", "policy_newer")));
    assert_eq!(cause("sgp-not-enforced ignored"), Some(("high", "cni_ignored")));
    assert_eq!(cause("sgp-not-enforced on-the-host"), Some(("info", "host_network")));
    assert!(found.iter().all(|finding| !finding.evidence.is_empty()), "{found:#?}");

    // The cure of each, as the agent sees it.
    for policy in &policies {
        node.remove(policy)?;
    }
    for pod in [unenforced, late, ignored, orphan, on_the_host] {
        node.end(pod)?;
    }
    agent.wait_for_findings("open", &["sgp-orphaned strict", "sgp-orphaned standard", "sgp-orphaned too-many"])?;
    agent.finish()?;
    Ok(())
}

#[test]
fn identities_that_contradict_the_papers_are_told_and_resolve() -> Result<()> {
    let mut node = Node::new()?;
    node.put(&account("shop", "web", Some(ROLE)))?;
    node.put(&account("shop", "default", None))?;
    let mut missed = node.pod("shop", "missed", Wiring::Plain)?;
    missed.object["spec"]["serviceAccountName"] = json!("web");
    node.put(&missed.object)?;
    let mut opted_out = node.pod("shop", "opted-out", Wiring::Plain)?;
    opted_out.object["spec"]["serviceAccountName"] = json!("web");
    opted_out.object["metadata"]["labels"]["eks.amazonaws.com/skip-pod-identity-webhook"] = json!("true");
    node.put(&opted_out.object)?;
    let mut keys = node.pod("shop", "keys", Wiring::Plain)?;
    env(&mut keys, &[("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "not-a-real-one")]);
    node.put(&keys.object)?;
    let mut local = node.pod("shop", "local-store", Wiring::Plain)?;
    env(&mut local, &[("AWS_ACCESS_KEY_ID", "minioadmin"), ("AWS_SECRET_ACCESS_KEY", "minioadmin")]);
    node.put(&local.object)?;
    let mut both = node.pod("shop", "both", Wiring::Plain)?;
    env(
        &mut both,
        &[
            ("AWS_ACCESS_KEY_ID", "localkey"),
            ("AWS_SECRET_ACCESS_KEY", "localsecret"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token",
            ),
        ],
    );
    node.put(&both.object)?;

    let agent = node.agent(json!({}))?;
    agent.wait_for_findings(
        "open",
        &["irsa-not-injected missed", "static-credentials keys", "identity-conflict both"],
    )?;
    let printed = agent.command(&["findings", "-o", "text"])?.stdout;
    let printed = String::from_utf8_lossy(&printed);
    assert!(!printed.contains("not-a-real-one") && !printed.contains("localsecret"), "{printed}");

    node.put(&account("shop", "web", None))?;
    for pod in [&mut keys, &mut both] {
        env(pod, &[]);
        node.put(&pod.object)?;
    }
    agent.wait_for_findings("open", &[])?;
    agent.wait_for_findings(
        "resolved",
        &["irsa-not-injected missed", "static-credentials keys", "identity-conflict both"],
    )?;
    let finished = agent.finish()?;
    let leaks = finished.leaks("not-a-real-one")?;
    assert!(leaks.is_empty(), "the secret key stands in {leaks:?}");
    Ok(())
}

#[test]
fn groups_that_the_policies_do_not_ask_for_any_more_are_told() -> Result<()> {
    let mut node = Node::new()?;
    node.put(&account("shop", "default", None))?;
    let pod = node.pod("shop", "cart", Wiring::Strict { vlan: 1 })?;
    let event = |message: &str| {
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"namespace": "shop", "name": "cart.1"},
            "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "cart", "uid": pod.uid()},
            "reason": "SecurityGroupRequested", "type": "Normal", "message": message,
            "source": {"component": "vpc-resource-controller"}, "lastTimestamp": "2026-01-01T00:00:05Z",
        })
    };
    node.put(&event("Pod will get the following Security Groups [sg-00000000000000001]"))?;
    node.put(&policy("shop", "cart", "cart", &["sg-00000000000000001"]))?;
    let mut agent = node.agent(json!({}))?;
    agent.wait_for("the pod's first evaluations", |rows| !rows.capacity.is_empty())?;
    assert!(agent.named_findings("open")?.is_empty(), "{:?}", agent.findings()?);
    // The policy changes; running pods never do.
    node.put(&policy("shop", "cart", "cart", &["sg-00000000000000002"]))?;
    let found = agent.wait_for_findings("open", &["sgp-stale cart"])?;
    let text = found.iter().find(|finding| finding.code == "sgp-stale").map_or("", |finding| &finding.text);
    assert!(text.contains("sg-00000000000000001") && text.contains("sg-00000000000000002"), "{text}");
    node.put(&policy("shop", "cart", "cart", &["sg-00000000000000001"]))?;
    agent.wait_for_findings("open", &[])?;
    agent.finish()?;
    Ok(())
}
