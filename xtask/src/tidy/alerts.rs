//! Alerts, their tests and their runbooks belong together: each alert of `deploy/prometheus/rules` says how bad it is and
//! where its page is, has a page with all its parts, and a test of when it fires and of when it must not. Each code of a
//! finding and each resource has an alert, or stands in a table with the reason why not.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Source, Violation};

const RULES: &str = "deploy/prometheus/rules/";
const TESTS: &str = "deploy/prometheus/tests/";
const RUNBOOKS: &str = "docs/runbooks/";
/// The list of runbooks, and of what has no alert.
const INDEX: &str = "docs/runbooks/README.md";
/// The heading of that.
const WITHOUT: &str = "## Without an alert";
/// A page for each code.
const FINDINGS: &str = "docs/findings/";
/// The closed list of resources.
const RESOURCES: &str = "agent/core/src/capacity/resource.rs";
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];
const ANNOTATIONS: [&str; 3] = ["summary", "description", "runbook_url"];
const PARTS: [&str; 5] = ["## Meaning", "## Impact", "## How to look", "## Cure", "## When to silence it"];

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: Option<String>,
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Tests {
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Test {
    #[serde(default)]
    promql_expr_test: Vec<Expectation>,
}

#[derive(Deserialize)]
struct Expectation {
    expr: String,
    exp_samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    labels: String,
}

/// The rule of the tree.
pub(super) fn belong_together(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut alerts: Vec<(&Source, Rule)> = Vec::new();
    for source in below(tree, RULES) {
        match serde_yaml_ng::from_str::<Rules>(&source.text) {
            Ok(rules) => {
                alerts.extend(rules.groups.into_iter().flat_map(|group| group.rules).map(|rule| (source, rule)));
            }
            Err(error) => violations.push(Violation::new(source, 0, format!("is no file of rules: {error}"))),
        }
    }
    // Recording rules have no name of an alert, but their expressions count for what is covered.
    let expressions: Vec<String> =
        alerts.iter().filter(|(_, rule)| rule.alert.is_some()).map(|(_, rule)| rule.expr.clone()).collect();
    let alerts: Vec<(&Source, String, Rule)> =
        alerts.into_iter().filter_map(|(source, rule)| Some((source, rule.alert.clone()?, rule))).collect();
    let names: BTreeSet<&str> = alerts.iter().map(|(_, name, _)| name.as_str()).collect();
    violations.extend(pages(tree, &names));
    let (untested, seen) = tested(tree, &names);
    violations.extend(untested);
    for (source, name, rule) in &alerts {
        violations.extend(described(source, name, rule));
        if let Some(seen) = seen.get(name.as_str()) {
            violations.extend(labelled(source, name, rule, seen));
        }
    }
    violations.extend(covered(tree, &expressions));
    violations
}

/// Severity and annotations.
fn described(source: &Source, name: &str, rule: &Rule) -> Vec<Violation> {
    let mut missing = Vec::new();
    if !rule.labels.get("severity").is_some_and(|severity| SEVERITIES.contains(&severity.as_str())) {
        missing.push(format!("a severity of {}", SEVERITIES.join(", ")));
    }
    for annotation in ANNOTATIONS {
        if rule.annotations.get(annotation).is_none_or(|text| text.trim().is_empty()) {
            missing.push(format!("the annotation {annotation}"));
        }
    }
    let page = format!("{RUNBOOKS}{name}.md");
    if rule.annotations.get("runbook_url") != Some(&page) {
        missing.push(format!("the runbook_url {page}"));
    }
    missing
        .into_iter()
        .map(|what| Violation::new(source, line_of(source, name), format!("{name} lacks {what}")))
        .collect()
}

/// Labels that an alert's annotations name and that no test sees it fire with: people would read "<no value>".
fn labelled(source: &Source, name: &str, rule: &Rule, seen: &BTreeSet<String>) -> Vec<Violation> {
    let text = rule.annotations.values().map(String::as_str).collect::<String>();
    let named = text.split("$labels.").skip(1);
    let named: BTreeSet<&str> =
        named.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()).collect();
    let unknown = named.into_iter().filter(|label| !seen.contains(*label));
    let text = |label| format!("{name} speaks of the label {label}, which no test sees it fire with");
    unknown.map(|label| Violation::new(source, line_of(source, name), text(label))).collect()
}

/// A page for each alert, whole and listed, and none besides.
fn pages(tree: &[Source], names: &BTreeSet<&str>) -> Vec<Violation> {
    let Some(index) = tree.iter().find(|source| source.path == INDEX) else { return Vec::new() };
    let mut violations = Vec::new();
    for name in names {
        let Some(page) = tree.iter().find(|source| source.path == format!("{RUNBOOKS}{name}.md")) else {
            violations.push(Violation::new(index, 0, format!("{name} has no page {RUNBOOKS}{name}.md")));
            continue;
        };
        let lines: Vec<&str> = page.text.lines().collect();
        for part in PARTS.iter().filter(|part| !lines.contains(part)) {
            violations.push(Violation::new(page, 0, format!("lacks `{part}`")));
        }
        if !index.text.contains(&format!("[{name}]({name}.md)")) {
            violations.push(Violation::new(index, 0, format!("does not list {name}")));
        }
    }
    let pages = below(tree, RUNBOOKS).filter(|source| source.path != INDEX);
    for page in pages {
        let name = page.path.trim_start_matches(RUNBOOKS).trim_end_matches(".md");
        if !names.contains(name) {
            violations.push(Violation::new(page, 0, "there is no alert of this name"));
        }
    }
    violations
}

/// Each alert is seen to fire and seen not to; and the labels that it is seen to fire with.
fn tested<'a>(tree: &[Source], names: &BTreeSet<&'a str>) -> (Vec<Violation>, BTreeMap<&'a str, BTreeSet<String>>) {
    let (mut fires, mut silent) = (BTreeMap::<_, BTreeSet<String>>::new(), BTreeSet::new());
    let mut violations = Vec::new();
    let Some(first) = below(tree, RULES).next() else { return (violations, fires) };
    for source in below(tree, TESTS) {
        let tests = match serde_yaml_ng::from_str::<Tests>(&source.text) {
            Ok(tests) => tests,
            Err(error) => {
                violations.push(Violation::new(source, 0, format!("is no file of tests: {error}")));
                continue;
            }
        };
        for expectation in tests.tests.into_iter().flat_map(|test| test.promql_expr_test) {
            let of = |text: &str| names.iter().copied().find(|name| text.contains(&format!("alertname=\"{name}\"")));
            if expectation.exp_samples.is_empty() {
                silent.extend(of(&expectation.expr));
            }
            for sample in &expectation.exp_samples {
                let keys = sample.labels.split("=\"").map(|part| part.rsplit(['{', ',']).next().unwrap_or(part));
                if let Some(name) = of(&sample.labels) {
                    fires.entry(name).or_default().extend(keys.map(ToOwned::to_owned));
                }
            }
        }
    }
    for name in names {
        if !fires.contains_key(name) {
            violations.push(Violation::new(first, 0, format!("no test in {TESTS} sees {name} fire")));
        }
        if !silent.contains(name) {
            violations.push(Violation::new(first, 0, format!("no test in {TESTS} sees {name} keep silent")));
        }
    }
    (violations, fires)
}

/// Each code and each resource has an alert or a reason why not, and not both.
fn covered(tree: &[Source], expressions: &[String]) -> Vec<Violation> {
    let Some(index) = tree.iter().find(|source| source.path == INDEX) else { return Vec::new() };
    let without = index.text.split_once(WITHOUT).map_or("", |(_, table)| table);
    let excused: BTreeSet<&str> = without
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter(|(_, why)| why.trim_end_matches('|').trim().len() > 1)
        .map(|(name, _)| name)
        .collect();
    let codes = below(tree, FINDINGS).filter_map(|source| source.path.strip_prefix(FINDINGS)?.strip_suffix(".md"));
    let codes = codes.filter(|name| *name != "README").map(ToOwned::to_owned);
    let known: BTreeSet<String> = codes.chain(resources(tree)).collect();
    let mut violations = Vec::new();
    for name in &known {
        let alerted = expressions.iter().any(|expression| names_word(expression, name));
        let text = match (alerted, excused.contains(name.as_str())) {
            (false, false) => format!("`{name}` has no alert, and no reason why not under `{WITHOUT}`"),
            (true, true) => format!("`{name}` has an alert, and stands under `{WITHOUT}` all the same"),
            _ => continue,
        };
        violations.push(Violation::new(index, 0, text));
    }
    let unknown = excused.iter().filter(|name| !known.contains(**name));
    violations.extend(unknown.map(|name| Violation::new(index, 0, format!("`{name}` is no finding and no resource"))));
    violations
}

/// Names of the closed list: the lines `Variant, "name", Unit, cliff;` of its macro.
fn resources(tree: &[Source]) -> Vec<String> {
    let Some(source) = tree.iter().find(|source| source.path == RESOURCES) else { return Vec::new() };
    let named = |line: &str| -> Option<String> {
        let (variant, rest) = line.trim().split_once(", \"")?;
        let (name, rest) = rest.split_once("\", ")?;
        let is_variant = variant.chars().all(char::is_alphanumeric) && rest.ends_with(';');
        is_variant.then(|| name.to_owned())
    };
    source.text.lines().filter_map(named).collect()
}

/// Whether a text holds a name as a word: `disk` is not in `disk_bytes`, and `pods` not in `pods-x`.
fn names_word(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    text.match_indices(name).any(|(at, _)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text.get(at + name.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

fn below<'a>(tree: &'a [Source], directory: &'a str) -> impl Iterator<Item = &'a Source> {
    tree.iter().filter(move |source| source.path.starts_with(directory))
}

fn line_of(source: &Source, name: &str) -> usize {
    let found = source.text.lines().position(|line| line.trim_end().ends_with(&format!("alert: {name}")));
    found.map_or(0, |index| index + 1)
}

#[cfg(test)]
mod tests;
