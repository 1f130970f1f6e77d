//! What is written is SARIF, by the standard's own schema.

use std::path::PathBuf;

use agent_core::check::{Options, check};
use agent_core::papers::waivers::Waiver;
use serde_json::{Value, json};

use super::super::read;
use super::log;

const SCHEMA: &str = include_str!("../fixtures/sarif-schema-2.1.0.json");
const MANIFESTS: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: keys, namespace: shop}
spec:
  containers:
    - name: app
      image: registry.example/app:1
      env: [{name: AWS_ACCESS_KEY_ID, value: AKIAIOSFODNN7EXAMPLE}]
---
apiVersion: vpcresources.k8s.aws/v1beta1
kind: SecurityGroupPolicy
metadata: {name: nobody, namespace: till}
spec: {securityGroups: {groupIds: [sg-1]}}
";

/// What is wrong with a log by the schema.
fn errors(log: &Value) -> Vec<String> {
    // Its pattern of languages has a lone `]`, which not every reader of regular expressions takes for what it stands for.
    let schema = SCHEMA.replace("[a-zA-Z]{2}]?$", "[a-zA-Z]{2}\\\\]?$");
    let schema: Value = serde_json::from_str(&schema).expect("the schema is JSON");
    let validator = jsonschema::draft7::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("the schema is one of draft 7");
    validator.iter_errors(log).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The log of these files, with the findings of namespace `till` accepted.
fn reviewed(files: &[(&str, &str)]) -> Value {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).expect("write");
    }
    let waiver =
        Waiver { namespace: Some("till".to_owned()), reason: "goes next week".to_owned(), ..Waiver::default() };
    let manifests = read::manifests(&[PathBuf::from(directory.path())], "eks.amazonaws.com");
    let report = check(manifests, &Options { waivers: vec![waiver], ..Options::default() });
    serde_json::to_value(log(&report)).expect("a log is JSON")
}

#[test]
fn logs_hold_to_the_schema_of_the_standard() {
    let log = reviewed(&[("a b#c%[1].yaml", MANIFESTS), ("broken.yaml", "kind: [Pod\n"), ("empty.json", "")]);
    assert_eq!(errors(&log), [""; 0], "{log:#}");
    let results = log["runs"][0]["results"].as_array().expect("results");
    let seen: Vec<_> = results.iter().map(|one| (&one["ruleId"], &one["suppressions"])).collect();
    let waived = json!([{"kind": "external", "status": "accepted", "justification": "goes next week"}]);
    assert_eq!(seen, [(&json!("sgp-invalid"), &waived), (&json!("static-credentials"), &Value::Null)]);
    let notifications = &log["runs"][0]["invocations"][0]["toolExecutionNotifications"];
    assert_eq!(notifications.as_array().map(Vec::len), Some(1), "{notifications:#}");
    assert_eq!(errors(&reviewed(&[])), [""; 0], "nothing at all");
}

#[test]
fn the_schema_refuses_what_is_no_sarif() {
    let good = reviewed(&[("a.yaml", MANIFESTS)]);
    let spoilt: [fn(&mut Value); 4] = [
        |log| log["version"] = json!("2.0.0"),
        |log| log["runs"][0]["results"][0]["level"] = json!("medium"),
        |log| log["runs"][0]["results"][0]["severity"] = json!("high"),
        |log| {
            let artifact = &mut log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"];
            artifact["uri"] = json!("a b");
        },
    ];
    for spoil in spoilt {
        let mut log = good.clone();
        spoil(&mut log);
        assert_eq!(errors(&log).len(), 1, "{log:#}");
    }
}
