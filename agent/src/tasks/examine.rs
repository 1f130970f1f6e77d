//! Looks at the machine without a running agent: for `sekisho doctor`, and for tests that ask one part alone.

use std::collections::BTreeMap;

use agent_core::facts::{Ec2Fact, Ec2Wishes, HostFact};
use tokio::sync::mpsc;

use super::{
    Check, CheckState, Error, INPUT_BATCHES, aws, collect, kernel_options, look_settings, pins, preflight, probe_status,
};
use crate::api::protocol::{Collector, Ec2Status, Probe};
use crate::config::Config;
use crate::{kernel, node};

/// What one look at every source of the node's ceilings cost.
#[derive(serde::Serialize)]
pub(crate) struct Round {
    /// Processor time of this process.
    pub(crate) cpu_us: u64,
    /// Time that each source took.
    pub(crate) sources: BTreeMap<&'static str, u64>,
}

/// Looks at every source of the node's ceilings so many times, with time enough in between that nothing is shared: what
/// the last round told, and what each cost.
pub(crate) fn look(config: &Config, rounds: u32) -> Result<(Vec<HostFact>, Vec<Round>), Error> {
    let root = config.cgroup_root().map(ToOwned::to_owned).or_else(|| node::cgroup2_mount(&config.roots.proc));
    let root = root.ok_or_else(|| Error::NoCgroup2(config.roots.proc.clone()))?;
    let mut sources = node::collect::sources(&look_settings(config, root));
    let (mut told, mut costs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round > 0 {
            std::thread::sleep(node::collect::SHARED_FOR);
        }
        told.clear();
        let start = node::cpu_time();
        collect::once(&mut sources, |facts| told.extend(facts));
        let cpu_us = u64::try_from(node::cpu_time().saturating_sub(start).as_micros()).unwrap_or(u64::MAX);
        let sources = told.iter().filter_map(|fact| match fact {
            HostFact::Collector { collector, duration_ns, .. } => Some((collector.name(), duration_ns / 1_000)),
            _ => None,
        });
        costs.push(Round { cpu_us, sources: sources.collect() });
    }
    Ok((told, costs))
}

/// A driver's own counters of an interface, as they are read of ENA interfaces; an error says why there are none.
pub(crate) fn driver_counters(interface: &str) -> Result<Vec<(String, u64)>, impl std::error::Error + use<>> {
    node::collect::driver_counters(interface)
}

/// Asks EC2 for what is wished, as the running agent would, until it is taken as enough or so many seconds are over.
pub(crate) fn ask_ec2<E: From<std::io::Error>>(
    config: &Config,
    wishes: Ec2Wishes,
    seconds: u32,
    take: impl FnMut(&Ec2Fact) -> Result<bool, E>,
) -> Result<(), E> {
    aws::ask(config, wishes, seconds, take)
}

/// What `sekisho doctor` finds without a running agent.
pub(crate) struct Examination {
    /// The machine.
    pub(crate) checks: Vec<Check>,
    /// The probes, loaded for a moment; `None` when the machine lacks what they need.
    pub(crate) probes: Option<Result<Vec<Probe>, kernel::Error>>,
    /// The sources of the node's ceilings, each looked at once.
    pub(crate) collectors: Vec<Collector>,
    /// The EC2 API, asked what would be allowed.
    pub(crate) ec2: Option<Ec2Status>,
}

/// Looks at the machine, and loads the probes for a moment when it has what they need.
pub(crate) fn examine(config: &Config) -> Examination {
    let mut checks = preflight();
    let missing = checks.iter().any(|check| matches!(check.state, CheckState::Missing { .. }));
    let root = config.cgroup_root().map(ToOwned::to_owned).or_else(|| node::cgroup2_mount(&config.roots.proc));
    let mut collectors = Vec::new();
    if let Some(root) = root.clone() {
        let mut sources = node::collect::sources(&look_settings(config, root));
        collect::once(&mut sources, |facts| collectors.extend(facts.iter().filter_map(collect::standing)));
    }
    let probes = root.filter(|_| !missing).map(|root| {
        let (sender, _inputs) = mpsc::channel(INPUT_BATCHES);
        // Only to see whether they load: never by pins, which an agent may have.
        let options = kernel::Options { pin: None, ..kernel_options(config, &root) };
        let handle = kernel::attach(&options)?.read(None, sender)?;
        Ok(handle.probes().iter().map(probe_status).collect())
    });
    checks.extend(pins(config));
    let ec2 = match aws::examine(config) {
        Ok(status) => status,
        Err(error) => Ec2Status { enabled: true, unreachable: Some(error.to_string()), ..Ec2Status::default() },
    };
    Examination { checks, probes, collectors, ec2: Some(ec2) }
}
