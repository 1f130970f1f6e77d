//! On a small tree that keeps the rule, broken in one place each.

use super::super::fixture::{shown, tree};
use super::*;

const RULE: &str = "groups:\n- name: a\n  rules:\n  - record: b\n    expr: sgp-stale\n  - alert: Low\n    expr: x{resource=~\"pods|disk_bytes\",code=\"user-data-read\"} > 1\n    labels: {severity: warning}\n    annotations: {summary: 'a {{ $labels.host }}', description: b, runbook_url: docs/runbooks/Low.md}\n";
const TEST: &str = "tests:\n- promql_expr_test:\n  - expr: ALERTS{alertname=\"Low\"}\n    exp_samples: []\n  - expr: ALERTS\n    exp_samples: [{labels: 'ALERTS{alertname=\"Low\",host=\"a\"}', value: 1}]\n";
const PAGE: &str = "# Low\n## Meaning\n## Impact\n## How to look\n## Cure\n## When to silence it\n";
const LIST: &str = "[Low](Low.md)\n## Without an alert\n| `sgp-stale` | because |\n";
const NAMES: &str =
    "resources! {\n    /// A pod.\n    Pods, \"pods\", Count, false;\n    DiskBytes, \"disk_bytes\", Bytes, true;\n}\n";

fn files() -> Vec<(&'static str, String)> {
    vec![
        ("deploy/prometheus/rules/a.yaml", RULE.to_owned()),
        ("deploy/prometheus/tests/a.yaml", TEST.to_owned()),
        ("docs/runbooks/README.md", LIST.to_owned()),
        ("docs/runbooks/Low.md", PAGE.to_owned()),
        ("docs/findings/README.md", String::new()),
        ("docs/findings/user-data-read.md", String::new()),
        ("docs/findings/sgp-stale.md", String::new()),
        ("agent/core/src/capacity/resource.rs", NAMES.to_owned()),
    ]
}

/// What is said when a text of a file is replaced by another.
fn after(path: &str, old: &str, new: &str) -> String {
    let mut files = files();
    let (_, text) = files.iter_mut().find(|(name, _)| *name == path).unwrap();
    assert!(text.contains(old), "{path} has no {old:?}");
    *text = text.replace(old, new);
    said(&files)
}

fn said(files: &[(&str, String)]) -> String {
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    shown(&belong_together(&tree(&files))).join("\n")
}

#[test]
fn what_belongs_together_is_accepted() {
    assert_eq!(said(&files()), "");
}

#[test]
fn an_alert_says_how_bad_it_is_and_where_its_page_is() {
    let rules = "deploy/prometheus/rules/a.yaml";
    let lacks = |text: &str| format!("{rules}:6: Low lacks {text}");
    assert_eq!(after(rules, "warning", "awful"), lacks("a severity of critical, warning, info"));
    assert_eq!(after(rules, "summary: 'a {{ $labels.host }}'", "summary: ''"), lacks("the annotation summary"));
    let lacks_page = lacks("the runbook_url docs/runbooks/Low.md");
    assert_eq!(after(rules, "docs/runbooks/Low.md", "docs/runbooks/High.md"), lacks_page);
    // A host that nobody serves.
    assert_eq!(after(rules, "docs/runbooks/Low.md", "https://example.org/docs/runbooks/Low.md"), lacks_page);
    assert!(after(rules, "groups:", "[").contains("is no file of rules"));
}

#[test]
fn an_alert_has_a_page_with_all_its_parts() {
    let page = "docs/runbooks/Low.md";
    assert_eq!(after(page, "## Cure\n", ""), format!("{page}: lacks `## Cure`"));
    let index = "docs/runbooks/README.md";
    assert_eq!(after(index, "[Low](Low.md)", ""), format!("{index}: does not list Low"));
    let mut files = files();
    files.retain(|(path, _)| *path != page);
    assert_eq!(said(&files), format!("{index}: Low has no page {page}"));
    files.push((page, PAGE.to_owned()));
    files.push(("docs/runbooks/High.md", PAGE.to_owned()));
    assert_eq!(said(&files), "docs/runbooks/High.md: there is no alert of this name");
}

#[test]
fn an_alert_is_seen_to_fire_and_to_keep_silent() {
    let (rules, tests) = ("deploy/prometheus/rules/a.yaml", "deploy/prometheus/tests/a.yaml");
    let silent = format!("{rules}: no test in deploy/prometheus/tests/ sees Low keep silent");
    assert_eq!(after(tests, "  - expr: ALERTS{alertname=\"Low\"}\n    exp_samples: []\n", ""), silent);
    let fires = format!("{rules}: no test in deploy/prometheus/tests/ sees Low fire");
    assert_eq!(after(tests, "[{labels: 'ALERTS{alertname=\"Low\",host=\"a\"}', value: 1}]", "[]"), fires);
}

#[test]
fn every_code_and_resource_has_an_alert_or_a_reason() {
    let (rules, index) = ("deploy/prometheus/rules/a.yaml", "docs/runbooks/README.md");
    let none =
        |name: &str| format!("{index}: `{name}` has no alert, and no reason why not under `## Without an alert`");
    assert_eq!(after(rules, "pods|", ""), none("pods"));
    assert_eq!(after(rules, "disk_bytes", "disk"), none("disk_bytes"));
    // A recording rule calls nobody.
    assert_eq!(after(index, "| `sgp-stale` | because |\n", ""), none("sgp-stale"));
    assert_eq!(after(index, "because", ""), none("sgp-stale"));
    let both = format!("{index}: `pods` has an alert, and stands under `## Without an alert` all the same");
    assert_eq!(after(index, "| `sgp", "| `pods` | because |\n| `sgp"), both);
    let unknown = format!("{index}: `nobody` is no finding and no resource");
    assert_eq!(after(index, "| `sgp", "| `nobody` | because |\n| `sgp"), unknown);
}

#[test]
fn annotations_speak_of_labels_that_there_are() {
    let rules = "deploy/prometheus/rules/a.yaml";
    let unknown = format!("{rules}:6: Low speaks of the label hots, which no test sees it fire with");
    assert_eq!(after(rules, "$labels.host", "$labels.hots"), unknown);
}
