//! Counters of the Elastic Network Adapter: how often the instance's allowances were exceeded, and how many connections
//! its security groups can still track. Allowances but the link-local one hold for the whole instance, and each interface
//! tells its own part.

use std::fs;
use std::io;
use std::path::PathBuf;

use agent_core::capacity::{Collector, Counter, CounterName, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;

use super::ethtool::Ethtool;
use super::{Error, Look, Roots, links, read};

/// Driver of the adapter.
const DRIVER: &str = "ena";
/// Most of them: 64 at the largest types.
const MAX_INTERFACES: usize = 256;
/// What the driver calls what only grows.
const EXCEEDED: [(&str, CounterName); 5] = [
    ("bw_in_allowance_exceeded", CounterName::BandwidthInExceeded),
    ("bw_out_allowance_exceeded", CounterName::BandwidthOutExceeded),
    ("pps_allowance_exceeded", CounterName::PacketsExceeded),
    ("conntrack_allowance_exceeded", CounterName::ConntrackExceeded),
    ("linklocal_allowance_exceeded", CounterName::LinklocalExceeded),
];
/// Connections that can still be tracked; drivers from 2.8.1 on tell it.
const AVAILABLE: &str = "conntrack_allowance_available";

/// Looks at the adapters.
pub(super) struct Ena {
    sys: PathBuf,
    pub(super) ask: Ask,
    /// The most connections that could be tracked at any look.
    most_available: Option<u64>,
    /// That number has moved since the start.
    moved: bool,
}

/// Names and values of an interface's counters.
pub(super) type Ask = fn(&str) -> io::Result<Vec<(String, u64)>>;

// === impl Ena ===

impl Ena {
    pub(super) fn new(roots: &Roots, ask: Ask) -> Self {
        Self { sys: roots.sys.clone(), ask, most_available: None, moved: false }
    }

    fn interfaces(&self) -> Result<Vec<String>, Error> {
        let path = self.sys.join("class/net");
        let entries = fs::read_dir(&path).map_err(|source| Error::Read { path, source })?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names
            .filter(|name| links::driver(&self.sys, name).as_deref() == Some(DRIVER))
            .take(MAX_INTERFACES)
            .collect();
        names.sort();
        Ok(names)
    }
}

impl Look for Ena {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let interfaces = self.interfaces()?;
        if interfaces.is_empty() {
            return Err(Error::Absent("no interface has the driver ena".to_owned()));
        }
        let mut result = Ok(());
        let mut counters = Vec::new();
        let mut available: Option<u64> = None;
        for interface in interfaces {
            let told = match (self.ask)(&interface) {
                Ok(told) => told,
                // Detached while it was asked.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                Err(source) => {
                    let what = format!("read the ethtool counters of {interface}");
                    read::keep_first(&mut result, Error::Kernel { what, source });
                    continue;
                }
            };
            let value = |name: &str| told.iter().find(|(told, _)| told == name).map(|(_, value)| *value);
            let scope = Scope::Interface(interface.as_str().into());
            counters.extend(
                EXCEEDED.iter().filter_map(|(told, name)| {
                    Some(Counter { name: *name, scope: scope.clone(), value: value(told)? })
                }),
            );
            available = available.into_iter().chain(value(AVAILABLE)).min();
        }
        facts.push(HostFact::Counters { collector: Collector::Ena, counters });
        let sample = available.map(|available| self.sample(available));
        facts.push(HostFact::Samples { collector: Collector::Ena, samples: sample.into_iter().collect() });
        result
    }
}

impl Ena {
    /// The driver tells what is left, and nobody tells the allowance. The most that was ever left stands for it: what is
    /// left is exact, and what is used is so beyond what was in use at the agent's start. Until the number has moved nothing
    /// is known of that, unless none is left.
    fn sample(&mut self, available: u64) -> Sample {
        let most = self.most_available.unwrap_or(available).max(available);
        self.moved |= self.most_available.is_some_and(|before| before != available);
        self.most_available = Some(most);
        Sample {
            resource: Resource::EnaConntrackAllowance,
            scope: Scope::Node,
            used: (self.moved || available == 0).then_some(most - available),
            limit: Limit::Of(most),
            source: format!("ethtool {AVAILABLE}; the limit is the most that was seen").into(),
        }
    }
}

/// By ioctl.
pub(super) fn ask(interface: &str) -> io::Result<Vec<(String, u64)>> {
    Ethtool::open()?.counters(interface)
}
