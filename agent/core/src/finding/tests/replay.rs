//! A recorded incident gives the same findings again, byte for byte: inputs are all that the Engine knows.
//!
//! The fixture is one input a line, as JSON. `SEKISHO_UPDATE_DOCS=1` writes it and the findings anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bench::{EPOCH, Request};
use crate::engine::{Engine, EngineConfig};
use crate::facts::{ClusterFact, NodeFacts, PodFacts, ServiceAccountFacts, Source};
use crate::input::{Category, ImdsVersion, Input};
use crate::output::Output;
use crate::testing::*;
use crate::time::{BootNs, WallNs};

const ROLE: &str = "arn:aws:iam::111122223333:role/cart";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/finding/tests/fixtures").join(name)
}

fn wall(second: i64) -> WallNs {
    WallNs((EPOCH + second) * 1_000_000_000)
}

/// The webhook misses a pod whose account has a role; its SDK asks the metadata service, as the last in its chain; the
/// pod is made anew, with its role.
fn incident() -> Vec<Input> {
    let created = |second| Some(wall(second));
    let missed = PodFacts { created: created(-60), started: created(-58), node: Some("node-1".into()), ..pod(1) };
    let whole = super::bench::with_irsa(PodFacts {
        created: created(100),
        started: created(102),
        node: Some("node-1".into()),
        ..pod(2)
    });
    let account = ServiceAccountFacts {
        namespace: "shop".into(),
        name: "cart".into(),
        role_arn: Some(ROLE.into()),
        role_changed: created(-3_600),
        created: created(-7_200),
        ..ServiceAccountFacts::default()
    };
    let node = NodeFacts { name: "node-1".into(), ..NodeFacts::default() };
    let time = |second: i64| Input::Tick { boot: BootNs(u64::try_from(second).unwrap() * SECOND), wall: wall(second) };
    let fresh = ClusterFact::Source { source: Source::Pods, fresh_at: created(1), error: None };
    let mut inputs = vec![
        time(1),
        Input::CgroupPresent { id: CGROUP, path: "/system.slice/containerd.service".to_owned() },
        pod_present(1),
        cluster(ClusterFact::Node(Arc::new(node))),
        cluster(ClusterFact::ServiceAccount(Arc::new(account))),
        cluster(ClusterFact::PoliciesReplaced { policies: Vec::new(), installed: false }),
        pods([missed]),
        cluster(fresh),
        Input::Exec(exec(5, "/bin/sh")),
        Input::Exec(exec(10, "/usr/local/bin/python3")),
    ];
    let ask = |second: u64, category, version| {
        let request = Request { program: "python3", version, ..Request::new(category) };
        Input::Metadata(Box::new(request.fact(pod_cgroup(1), BootNs(second * SECOND))))
    };
    for second in 2..=60_u64 {
        inputs.push(time(i64::try_from(second).unwrap()));
        if second == 25 {
            inputs.push(ask(second, Category::Token, ImdsVersion::V2));
            inputs.push(ask(second, Category::RoleList, ImdsVersion::V2));
            inputs.push(ask(second, Category::RoleCredentials, ImdsVersion::V2));
            inputs.push(Input::Tcp(tcp(u64::from(owner(10).tgid))));
        }
    }
    inputs.push(pod_present(2));
    inputs.push(pods([whole]));
    inputs.push(Input::CgroupGone { id: pod_cgroup(1), time: BootNs(61 * SECOND) });
    inputs.extend((61..=100).map(time));
    inputs.push(Input::Stop);
    inputs
}

fn findings(inputs: impl IntoIterator<Item = Input>) -> String {
    let mut engine = Engine::new(EngineConfig::default());
    let mut outputs = Vec::new();
    for input in inputs {
        engine.handle(input, &mut outputs);
    }
    let told = outputs.iter().filter(|output| matches!(output, Output::Finding(_)));
    told.fold(String::new(), |text, output| text + &output.to_json("node-1") + "\n")
}

#[test]
fn a_pod_that_falls_back_to_the_nodes_role_is_found_again_from_a_record() {
    let (record, expected) = (path("irsa-fallback.jsonl"), path("irsa-fallback.findings.jsonl"));
    if std::env::var_os("SEKISHO_UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(record.parent().unwrap()).unwrap();
        let lines: String = incident().iter().map(|input| serde_json::to_string(input).unwrap() + "\n").collect();
        std::fs::write(&record, lines).unwrap();
        std::fs::write(&expected, findings(incident())).unwrap();
    }
    let text = std::fs::read_to_string(&record).unwrap();
    let mut inputs = Vec::new();
    for line in text.lines() {
        let input: Input = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(serde_json::to_string(&input).unwrap(), line, "reading and writing lose nothing");
        inputs.push(input);
    }
    assert_eq!(findings(inputs), std::fs::read_to_string(&expected).unwrap());
}

#[test]
fn the_record_says_what_happened() {
    let text = std::fs::read_to_string(path("irsa-fallback.findings.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<_> = rows
        .iter()
        .map(|row| [&row["code"], &row["severity"], &row["state"], &row["cause"]].map(|v| v.as_str().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            ["irsa-not-injected", "medium", "open", "webhook_missed"],
            ["node-credentials-taken", "critical", "open", "own_identity"],
            ["node-credentials-taken", "critical", "resolved", "own_identity"],
            ["irsa-not-injected", "medium", "resolved", "webhook_missed"],
        ]
    );
    assert!(text.contains("ASIAEXAMPLEEXAMPLE00") && text.contains("/usr/local/bin/python3"));
}
