//! Dashboards: made by the program that is beside them, and each query of each panel gives something on a Prometheus that
//! scrapes stand-ins with every metric of the catalogue.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::prometheus::Waits;
use system_tests::{Exposition, Prometheus, exposition, scale};

/// Names the Python that has Grafana's SDK in it.
const PYTHON: &str = "SEKISHO_GRAFANA";
const NAMES: [&str; 3] = ["fleet.json", "investigation.json", "node.json"];
/// Shown on no dashboard, and why.
const NOT_SHOWN: [(&str, &str); 6] = [
    ("sekisho_history_writable", "rows that are lost say the same, and say how many"),
    ("sekisho_export_working", "the age of the oldest row that waits says the same, and for how long"),
    ("sekisho_dns_names", "a bound of the agent's own; what it costs is the next"),
    ("sekisho_dns_names_dropped_total", "peers without a name, which rows show"),
    ("sekisho_dns_unmatched_answers_total", "for whoever doubts the counts of queries"),
    ("sekisho_dns_unreadable_messages_total", "for whoever doubts the counts of queries"),
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana")
}

/// A query of a panel, as Grafana would send it.
struct Query {
    dashboard: &'static str,
    panel: String,
    expression: String,
}

/// What Grafana puts in place of its variables.
fn filled(expression: &str) -> String {
    let expression = expression.replace("$__rate_interval", "1m");
    ["$cluster", "$instance", "$namespace", "$workload"]
        .iter()
        .fold(expression, |expression, variable| expression.replace(variable, ".*"))
}

fn queries() -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for name in NAMES {
        let path = directory().join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let dashboard: Value = serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        // Panels of a folded row stand in it.
        let panels = dashboard["panels"].as_array().context("panels")?.iter();
        let panels =
            panels.flat_map(|panel| std::iter::once(panel).chain(panel["panels"].as_array().into_iter().flatten()));
        for panel in panels {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = filled(target["expr"].as_str().context("a query")?);
                ensure!(!expression.contains('$'), "{name}: {expression} has a variable that nothing is known of");
                let panel = panel["title"].as_str().unwrap_or_default().to_owned();
                queries.push(Query { dashboard: name, panel, expression });
            }
        }
    }
    ensure!(queries.len() > 40, "{} queries", queries.len());
    Ok(queries)
}

#[test]
fn dashboards_are_as_their_program_makes_them() -> Result<()> {
    let python = std::env::var_os(PYTHON)
        .with_context(|| format!("no Grafana SDK: run `cargo xtask test --only monitoring`, or set {PYTHON}"))?;
    let made = tempfile::tempdir().context("make a directory")?;
    let program = directory().join("dashboards.py");
    let output = Command::new(python).arg(program).arg(made.path()).output().context("run the program")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in NAMES {
        let read = |directory: &Path| fs::read_to_string(directory.join(name)).with_context(|| format!("read {name}"));
        ensure!(read(made.path())? == read(&directory())?, "{name} is old: run `cargo xtask dashboards`");
    }
    Ok(())
}

#[test]
fn every_panel_has_data() -> Result<()> {
    let stand_ins = [Exposition::start()?, Exposition::start()?];
    let targets: Vec<_> = stand_ins.iter().map(Exposition::address).collect();
    let server = Prometheus::start_in(None, &targets, Waits::Short)?;
    server.wait_for("up{job=\"sekisho\"} == 1", |points| points.len() == targets.len())?;
    let mut open = queries()?;
    let deadline = Instant::now() + scale::deadline();
    // Rates need two scrapes, recorded ones two evaluations.
    loop {
        let mut empty = Vec::new();
        for query in open {
            // Not a number is no data: a panel shows nothing for it.
            if !server.query(&query.expression)?.iter().any(|point| !point.value.is_nan()) {
                empty.push(query);
            }
        }
        open = empty;
        if open.is_empty() {
            break;
        }
        let named: Vec<_> =
            open.iter().map(|query| format!("{}, {}: {}", query.dashboard, query.panel, query.expression)).collect();
        ensure!(Instant::now() < deadline, "without data: {named:#?}\n{}", server.log());
        std::thread::sleep(scale::LOOK);
    }
    Ok(())
}

/// A metric that no panel shows is one that nobody would miss: it is shown, or stands in a list with the reason.
#[test]
fn every_metric_is_on_a_dashboard() -> Result<()> {
    let rules = system_tests::prometheus::rules()?;
    let recorded = rules.iter().find(|path| path.ends_with("recording.yaml")).context("recording rules")?;
    let mut texts: Vec<String> = queries()?.into_iter().map(|query| query.expression).collect();
    texts.push(fs::read_to_string(recorded).context("read recording rules")?);
    let shown = |name: &str| texts.iter().any(|text| text.contains(name));
    let missing: BTreeSet<String> =
        exposition::catalogue()?.into_iter().map(|metric| metric.name).filter(|name| !shown(name)).collect();
    let excused: BTreeSet<String> = NOT_SHOWN.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(missing, excused);
    Ok(())
}
