//! `cargo xtask instances`: writes the table of instance types that is compiled into the agent, and renews the figures it
//! is written from. CONTRIBUTING.md tells where the sources are.

mod figures;
mod renew;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::workspace;
use figures::Figures;

/// The project's own form of the figures, from the workspace's root.
const FIGURES: &str = "agent/core/data/instance-types.csv";
/// What is written from it.
const TABLE: &str = "agent/core/src/capacity/instances/table.rs";

/// What `cargo xtask instances` takes. Without sources it only writes the table anew.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Karpenter's `zz_generated.vpclimits.go`: interfaces, addresses, branch interfaces; types that are not in it go
    #[arg(long, value_name = "FILE")]
    vpc_limits: Option<PathBuf>,
    /// Karpenter's `zz_generated.bandwidth.go`: network bandwidth
    #[arg(long, value_name = "FILE")]
    bandwidth: Option<PathBuf>,
    /// Output of `aws ec2 describe-instance-types`: processors, memory, bandwidths, EBS
    #[arg(long, value_name = "FILE")]
    describe: Option<PathBuf>,
    /// Write nothing; fail when the table is not what the figures say
    #[arg(long)]
    check: bool,
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let path = workspace::root().join(FIGURES);
    let read = |path: &PathBuf| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let mut figures = Figures::parse(&read(&path)?).with_context(|| format!("in {FIGURES}"))?;
    let before = figures.clone();
    if let Some(source) = &arguments.vpc_limits {
        renew::vpc_limits(&mut figures, &read(source)?).with_context(|| format!("in {}", source.display()))?;
    }
    if let Some(source) = &arguments.bandwidth {
        renew::bandwidth(&mut figures, &read(source)?).with_context(|| format!("in {}", source.display()))?;
    }
    if let Some(source) = &arguments.describe {
        renew::describe(&mut figures, &read(source)?).with_context(|| format!("in {}", source.display()))?;
    }
    let table = workspace::root().join(TABLE);
    let text = figures.table()?;
    if arguments.check {
        if before != figures || fs::read_to_string(&table).unwrap_or_default() != text {
            bail!("{TABLE} is not what {FIGURES} says: run `cargo xtask instances`");
        }
        return Ok(());
    }
    if before != figures {
        fs::write(&path, figures.csv()).with_context(|| format!("write {FIGURES}"))?;
    }
    fs::write(&table, text).with_context(|| format!("write {TABLE}"))?;
    eprintln!("{}", before.changes(&figures));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_what_the_figures_say() {
        let nothing = Arguments { vpc_limits: None, bandwidth: None, describe: None, check: true };
        run(&nothing).expect("up to date");
    }
}
