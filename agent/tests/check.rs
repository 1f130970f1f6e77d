//! `sekisho check` as a user runs it, on manifests in `tests/fixtures/check`.
//!
//! The expected answers beside them are written anew by `SEKISHO_UPDATE_GOLDEN=1 cargo test -p sekisho --test check`.

#![expect(clippy::expect_used, reason = "a test ends where it cannot go on")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// The secret key in `shop/others.json`: AWS's own example.
const SECRET: &str = "wJalrXUtnFEMI";
const FORMS: [&str; 3] = ["text", "json", "sarif"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/check")
}

/// Runs in the directory of the fixtures, so that places in the answers are the same everywhere.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEKISHO_")) {
        command.env_remove(name);
    }
    command.arg("check").args(args).current_dir(fixtures()).stdin(Stdio::null());
    command
}

fn check(args: &[&str]) -> Output {
    command(args).output().expect("the binary starts")
}

fn check_input(args: &[&str], input: &str) -> Output {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[track_caller]
fn exits(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}\n{}", stdout(output), stderr(output));
}

/// One line, one object.
#[track_caller]
fn object(output: &Output) -> Value {
    let text = stdout(output);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

fn json_of(args: &[&str]) -> Value {
    object(&check(&[&["-o", "json"], args].concat()))
}

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().expect("findings").iter().map(|one| one["code"].as_str().expect("a code")).collect()
}

/// Compares with the file of this name.
#[track_caller]
fn golden(name: &str, found: &str) {
    let path = fixtures().join(name);
    if std::env::var_os("SEKISHO_UPDATE_GOLDEN").is_some() {
        fs::write(&path, found).expect("written");
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == found, "{name} is not what is answered; SEKISHO_UPDATE_GOLDEN=1 writes it anew:\n{found}");
}

fn pretty(value: &Value) -> String {
    format!("{}\n", serde_json::to_string_pretty(value).expect("JSON"))
}

/// What the shop is checked with.
const SHOP: [&str; 5] =
    ["shop", "--cluster-security-group", "sg-0000000000000000c", "--pod-identity-associations", "associations.json"];

#[test]
fn a_shop_as_text() {
    let output = check(&SHOP);
    exits(&output, 1);
    assert_eq!(stderr(&output), "");
    golden("shop.txt", &stdout(&output));
}

#[test]
fn a_shop_as_json() {
    golden("shop.json", &pretty(&json_of(&SHOP)));
}

#[test]
fn a_shop_as_sarif() {
    let mut log = object(&check(&[&["-o", "sarif"], &SHOP[..]].concat()));
    // The version moves with every release.
    let version = log["runs"][0]["tool"]["driver"]["semanticVersion"].take();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    golden("shop.sarif", &pretty(&log));
}

#[test]
fn pods_of_a_cluster_are_judged_as_they_are() {
    let report = json_of(&["dump"]);
    assert_eq!(codes(&report), ["sgp-not-enforced", "irsa-not-injected"]);
    golden("dump.json", &pretty(&report));
}

/// What SARIF 2.1.0 requires, and what makes its references hold.
fn assert_sarif(log: &Value) {
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().expect("an address").ends_with("/sarif-schema-2.1.0.json"));
    let runs = log["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 1);
    let driver = &runs[0]["tool"]["driver"];
    assert_eq!(driver["name"], "sekisho");
    let rules = driver["rules"].as_array().expect("rules");
    for rule in rules {
        assert!(rule["id"].is_string(), "{rule}");
        for part in ["shortDescription", "fullDescription", "help"] {
            assert!(rule[part]["text"].as_str().is_some_and(|text| !text.is_empty()), "{rule}");
        }
    }
    let invocations = runs[0]["invocations"].as_array().expect("invocations");
    assert!(invocations[0]["executionSuccessful"].is_boolean());
    let results = runs[0]["results"].as_array().expect("results, also when there are none");
    let notifications = invocations[0]["toolExecutionNotifications"].as_array().cloned().unwrap_or_default();
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().expect("an index")).expect("small");
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert!(result["partialFingerprints"].as_object().is_some_and(|prints| !prints.is_empty()));
    }
    for result in results.iter().chain(&notifications) {
        assert!(["none", "note", "warning", "error"].contains(&result["level"].as_str().expect("a level")));
        assert!(!result["message"]["text"].as_str().expect("a message").is_empty());
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().expect("an address");
        assert!(!uri.is_empty() && !uri.contains([' ', '#', '?']), "{uri}");
        let region = place.get("region");
        assert!(region.is_none_or(|region| region["startLine"].as_u64().is_some_and(|line| line > 0)), "{place}");
    }
}

#[test]
fn sarif_has_what_it_requires() {
    for (paths, successful, results) in [("shop", true, true), ("clean", true, false), ("broken", false, false)] {
        let log = object(&check(&["-o", "sarif", paths]));
        assert_sarif(&log);
        assert_eq!(log["runs"][0]["invocations"][0]["executionSuccessful"], successful, "{paths}");
        let found = log["runs"][0]["results"].as_array().expect("results");
        assert_eq!(!found.is_empty(), results, "{paths}");
    }
}

#[test]
fn sarif_addresses_are_addresses() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("50% of #1 shop.yaml");
    fs::copy(fixtures().join("shop/policies.yml"), &file).expect("copied");
    let log = object(&check(&["-o", "sarif", file.to_str().expect("UTF-8")]));
    assert_sarif(&log);
    let uri = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].clone();
    let uri = uri.as_str().expect("an address");
    assert!(uri.starts_with("file:///") && uri.ends_with("/50%25%20of%20%231%20shop.yaml"), "{uri}");
}

#[test]
fn exit_codes_by_severity() {
    exits(&check(&["clean"]), 0);
    exits(&check(&["clean", "--fail-on", "info"]), 0);
    exits(&check(&["shop"]), 1);
    exits(&check(&["shop", "--fail-on", "high"]), 1);
    exits(&check(&["shop", "--fail-on", "critical"]), 0);
    exits(&check(&["shop", "--fail-on", "never"]), 0);
    // Advice alone does not fail a build, unless it is asked for.
    let advice = ["clean", "--cluster-security-group", "sg-0000000000000000a"];
    let output = check(&advice);
    exits(&output, 0);
    assert!(stdout(&output).contains("sgp-cluster-group"), "{}", stdout(&output));
    exits(&check(&[&advice[..], &["--fail-on", "info"]].concat()), 1);
}

#[test]
fn what_the_agents_configuration_accepts_is_accepted_here_too() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app:1",
            "env": [{"name": "AWS_ACCESS_KEY_ID", "value": "AKIAIOSFODNN7EXAMPLE"}]}]}});
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("write");
        path.to_str().expect("UTF-8").to_owned()
    };
    let manifest = file("pod.json", &pod.to_string());
    exits(&check(&[&manifest]), 1);
    let waiver =
        "findings:\n  waivers:\n    - {code: static-credentials, namespace: shop, reason: agreed until spring}\n";
    // Keys that matter to the agent alone may stand beside.
    let config = file("config.yaml", &format!("fold_seconds: 5\n{waiver}"));
    let text = check(&["--config", &config, &manifest]);
    exits(&text, 0);
    let text = stdout(&text);
    assert!(text.contains("accepted         static-credentials") && text.contains("agreed until spring"), "{text}");
    assert!(text.contains("0 findings, 1 accepted") && !text.contains("What to do"), "{text}");
    let report = json_of(&["--config", &config, &manifest]);
    assert_eq!(report["findings"][0]["state"], "accepted");
    assert_eq!(report["findings"][0]["accepted_reason"], "agreed until spring");
    let log = object(&check(&["--config", &config, "-o", "sarif", &manifest]));
    assert_eq!(log["runs"][0]["results"][0]["suppressions"][0]["justification"], "agreed until spring");
    // One that has ended.
    let ended = file("ended.yaml", &waiver.replace("reason", "until: 2020-01-31, reason"));
    exits(&check(&["--config", &ended, &manifest]), 1);
    let broken = file("broken.yaml", "findings: {waivers: [{namespace: shop}]}\n");
    let refused = check(&["--config", &broken, &manifest]);
    exits(&refused, 3);
    assert!(stderr(&refused).contains("waivers"), "{}", stderr(&refused));
}

#[test]
fn errors_of_usage_exit_with_2() {
    for args in [
        &[][..],
        &["clean", "--fail-on", "bad"],
        &["clean", "-o", "xml"],
        &["clean", "--enforcement-mode", "lax"],
        &["clean", "--cluster-security-group", "eks-cluster-sg"],
        &["clean", "--max-security-groups", "4"],
        &["clean", "--max-security-groups", "17"],
    ] {
        let output = check(args);
        exits(&output, 2);
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn broken_documents_are_named_and_the_others_are_judged() {
    let output = check(&["-o", "json", "broken", "shop"]);
    exits(&output, 3);
    let report = object(&output);
    let errors = report["errors"].as_array().expect("errors");
    let places: Vec<_> = errors.iter().map(|error| (&error["file"], &error["document"], &error["line"])).collect();
    let file = json!("broken/torn.yaml");
    assert_eq!(places, [(&file, &json!(2), &json!(11)), (&file, &json!(3), &json!(12))]);
    assert!(
        errors[1]["text"].as_str().is_some_and(|text| text.contains("Pod shop/odd: spec.hostNetwork")),
        "{errors:?}"
    );
    assert_eq!(report["pods"].as_array().map(Vec::len), Some(3), "the other files are judged");
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.lines().all(|line| line.starts_with("sekisho: broken/torn.yaml:1")), "{said}");
}

#[test]
fn what_is_not_there_is_said() {
    let output = check(&["no-such-file.yaml"]);
    exits(&output, 3);
    assert!(stderr(&output).contains("no-such-file.yaml"), "{}", stderr(&output));
    let report = object(&check(&["-o", "json", "no-such-file.yaml"]));
    assert_eq!(report["errors"][0]["file"], "no-such-file.yaml");
}

#[test]
fn standard_input_is_read() {
    let mut manifests = fs::read_to_string(fixtures().join("shop/policies.yml")).expect("a fixture");
    manifests.push_str("---\n");
    manifests.push_str(&fs::read_to_string(fixtures().join("shop/cart.yaml")).expect("a fixture"));
    let output = check_input(&["-o", "json", "-"], &manifests);
    exits(&output, 1);
    let report = object(&output);
    assert_eq!(report["pods"][0]["file"], "-");
    assert_eq!(report["pods"][0]["security_groups"].as_array().map(Vec::len), Some(3));
    let log = object(&check_input(&["-o", "sarif", "-"], &manifests));
    assert_sarif(&log);
}

#[test]
fn directories_are_read_down_to_the_last_and_only_manifests() {
    let report = json_of(&["clean"]);
    assert_eq!(report["errors"], json!([]));
    assert_eq!(report["pods"][0]["file"], "clean/nested/workload.yaml");
    assert_eq!(report["pods"][0]["security_groups"], json!(["sg-0000000000000000a"]));
}

#[test]
fn other_kinds_are_skipped_and_counted() {
    let report = json_of(&["shop"]);
    assert_eq!((&report["skipped"], &report["skipped_kinds"]), (&json!(1), &json!({"Service": 1})));
}

#[test]
fn associations_settle_the_identity() {
    let identity = |report: &Value, name: &str| {
        let pods = report["pods"].as_array().expect("pods");
        let pod = pods.iter().find(|pod| pod["name"] == name).expect("the pod");
        pod["identity"]["kind"].clone()
    };
    let with = ["--pod-identity-associations", "associations.json"];
    let before = json_of(&["shop"]);
    assert_eq!((identity(&before, "node-helper"), identity(&before, "cart")), (json!("node_role"), json!("irsa")));
    let after = json_of(&[&["shop"], &with[..]].concat());
    assert_eq!(identity(&after, "node-helper"), "pod_identity");
    assert_eq!(identity(&after, "report"), "static", "its own keys come first");
    // Which is a finding of its own.
    assert!(codes(&after).contains(&"identity-conflict"));
    assert_eq!(identity(&json_of(&["clean"]), "cart"), "unknown");
    assert_eq!(identity(&json_of(&[&["clean"], &with[..]].concat()), "cart"), "none");
}

#[test]
fn associations_that_are_none_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("associations.json");
    let path = path.to_str().expect("UTF-8");
    for (text, part) in [
        ("[]", "list-pod-identity-associations"),
        ("{\"associations\":[{\"namespace\":\"shop\"}]}", "associations[0]"),
        ("{\"associations\":[],\"nextToken\":\"x\"}", "nextToken"),
        ("associations: []", "list-pod-identity-associations"),
    ] {
        fs::write(path, text).expect("written");
        let output = check(&["clean", "--pod-identity-associations", path]);
        exits(&output, 3);
        let said = stderr(&output);
        assert!(said.starts_with("sekisho: ") && said.contains(part) && said.contains(path), "{said}");
        assert_eq!(stdout(&output), "");
    }
    exits(&check(&["clean", "--pod-identity-associations", "no-such-file"]), 3);
}

#[test]
fn the_mode_is_told_and_decides() {
    let report = json_of(&["clean", "--enforcement-mode", "standard"]);
    assert_eq!(report["pods"][0]["enforcement_mode"], "standard");
    assert_eq!(json_of(&["clean"])["pods"][0]["enforcement_mode"], Value::Null);
    let associations = json!({"associations": [{"namespace": "shop", "serviceAccount": "cart"}]}).to_string();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("associations.json");
    fs::write(&path, associations).expect("written");
    let path = path.to_str().expect("UTF-8");
    let strict = ["clean", "--pod-identity-associations", path, "--enforcement-mode", "strict"];
    assert_eq!(codes(&json_of(&strict)), ["pod-identity-unreachable"]);
}

#[test]
fn more_groups_than_an_interface_takes() {
    let policy = |name: &str, from: u32| {
        let ids: Vec<_> = (from..from + 4).map(|id| format!("sg-{id:017x}")).collect();
        json!({"apiVersion": "vpcresources.k8s.aws/v1beta1", "kind": "SecurityGroupPolicy",
            "metadata": {"name": name}, "spec": {"podSelector": {}, "securityGroups": {"groupIds": ids}}})
    };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "web"}]}});
    let input = [policy("a", 1), policy("b", 4), pod].map(|object| object.to_string()).join("\n");
    assert_eq!(codes(&object(&check_input(&["-o", "json", "-"], &input))), ["sgp-invalid"]);
    let output = check_input(&["-o", "json", "--max-security-groups", "7", "-"], &input);
    exits(&output, 0);
}

#[test]
fn no_secret_is_in_any_answer() {
    for form in FORMS {
        let output = check(&["shop", "broken", "-o", form]);
        assert!(stdout(&output).len() > 100, "{form}");
        assert!(!stdout(&output).contains(SECRET) && !stderr(&output).contains(SECRET), "{form}");
    }
    // Also not where the object that holds one cannot be read.
    let input = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  containers:\n  - name: a\n    env: {SECRET}\n"
    );
    for form in FORMS {
        let output = check_input(&["-o", form, "-"], &input);
        exits(&output, 3);
        assert!(!stdout(&output).contains(SECRET) && !stderr(&output).contains(SECRET), "{}", stderr(&output));
    }
}

#[test]
fn documents_that_grow_without_end_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb = format!("{bomb}a{level}: &a{level} [{items}]\n");
    }
    let output = check_input(&["-o", "json", "-"], &bomb);
    exits(&output, 3);
    assert_eq!(object(&output)["errors"][0]["document"], 1);
    let deep = format!("a: {}\n", "[".repeat(100_000));
    exits(&check_input(&["-o", "json", "-"], &deep), 3);
    exits(&check_input(&["-o", "json", "-"], &format!("{{\"a\": {}", "[".repeat(100_000))), 3);
}

#[test]
fn a_template_of_helm_is_no_manifest() {
    let output = check_input(&["-"], "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}\n");
    exits(&output, 3);
    assert!(stderr(&output).contains("standard input"), "{}", stderr(&output));
}
