//! The shipped rules as promtool judges them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use system_tests::prometheus::Waits;
use system_tests::{Exposition, Prometheus, prometheus};

fn promtool(arguments: &[&str], files: &[PathBuf]) -> Result<String> {
    let program = prometheus::program("promtool")?;
    let output = Command::new(&program).args(arguments).args(files).output();
    let output = output.with_context(|| format!("run {}", program.display()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "promtool {arguments:?}: {text}");
    Ok(text)
}

#[test]
fn rules_are_well_formed() -> Result<()> {
    let text = promtool(&["check", "rules"], &prometheus::rules()?)?;
    ensure!(text.matches("SUCCESS").count() == prometheus::rules()?.len(), "{text}");
    Ok(())
}

/// Each alert fires when it should and keeps silent when it should; `cargo xtask tidy` sees that none is left out.
#[test]
fn alerts_fire_when_they_should_and_only_then() -> Result<()> {
    let text = promtool(&["test", "rules"], &prometheus::rule_tests()?)?;
    ensure!(text.matches("SUCCESS").count() == prometheus::rule_tests()?.len(), "{text}");
    Ok(())
}

/// What a runbook marks as `PromQL` is read by Prometheus, and names metrics that there are.
#[test]
fn queries_of_runbooks_are_read() -> Result<()> {
    let stand_in = Exposition::start()?;
    let server = Prometheus::start_in(None, &[stand_in.address()], Waits::Short)?;
    server.wait_for("count(instance:sekisho_node_capacity_used:ratio)", |points| points.len() == 1)?;
    let known = server.api("/api/v1/label/__name__/values")?;
    let known: Vec<&str> = known.as_array().context("names")?.iter().filter_map(|name| name.as_str()).collect();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
    let mut count = 0_usize;
    for entry in fs::read_dir(&directory).context("list the runbooks")? {
        let path = entry.context("an entry")?.path();
        let page = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for marked in page.split("(PromQL):\n\n").skip(1) {
            let query = marked.lines().next().unwrap_or_default().trim();
            server.query(query).with_context(|| path.display().to_string())?;
            for word in query.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
                let is_name = word.contains("sekisho_") && word != "sekisho_";
                ensure!(!is_name || known.contains(&word), "{}: there is no {word}", path.display());
            }
            count += 1;
        }
    }
    ensure!(count > 15, "{count} queries");
    Ok(())
}
