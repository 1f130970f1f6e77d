//! The shipped rules as promtool judges them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use system_tests::prometheus;

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
