//! ipamd's metrics: what it holds in all, what the instance can hold, and how often it failed. They need no permission at
//! EC2, and its failures there are the first sign of a subnet that runs dry.

use agent_core::capacity::{Collector, Counter, CounterName, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;

use super::{Shared, Totals};
use crate::node::collect::http::{Peer, get};
use crate::node::collect::{Error, Look, exposition};

/// Errors of EC2 that say that a subnet has no address left, or no 16 in a row.
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>
const SUBNET_FULL: [&str; 2] = ["error=\"InsufficientFreeAddressesInSubnet\"", "error=\"InsufficientCidrBlocks\""];

/// Looks at ipamd's metrics.
pub(in super::super) struct Metrics {
    peer: Peer,
    shared: Shared,
}

// === impl Metrics ===

impl Metrics {
    pub(in super::super) fn new(peer: Peer, shared: Shared) -> Self {
        Self { peer, shared }
    }

    fn page(&self) -> Result<String, Error> {
        let page = String::from_utf8_lossy(&get(&self.peer, "/metrics")?).into_owned();
        if exposition::sum(&page, "awscni_eni_allocated").is_none() {
            let why = "has no metric awscni_eni_allocated: not ipamd's".to_owned();
            return Err(Error::Malformed { what: self.peer.to_string(), why });
        }
        Ok(page)
    }
}

impl Look for Metrics {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let page = self.page();
        let totals = page.as_deref().ok().map(totals);
        if let Ok(page) = &page {
            facts.push(HostFact::Samples { collector: Collector::IpamMetrics, samples: samples(page) });
            facts.push(HostFact::Counters { collector: Collector::IpamMetrics, counters: counters(page) });
        }
        self.shared.put(page.map(|_| totals.unwrap_or_default()), |parts| &mut parts.metrics, facts)
    }
}

fn totals(page: &str) -> Totals {
    let value = |name| exposition::whole(page, name).and_then(|value| u32::try_from(value).ok());
    Totals {
        total: value("awscni_total_ip_addresses"),
        assigned: value("awscni_assigned_ip_addresses"),
        prefixes: value("awscni_total_ipv4_prefixes"),
    }
}

fn samples(page: &str) -> Vec<Sample> {
    let sample = |resource, used, limit: Option<&str>| {
        let limit = limit.and_then(|name| exposition::whole(page, name)).filter(|limit| *limit > 0);
        exposition::whole(page, used).map(|value| Sample {
            resource,
            scope: Scope::Node,
            used: Some(value),
            limit: limit.map_or(Limit::Unknown, Limit::Of),
            source: used.into(),
        })
    };
    [
        // The most addresses that the instance's interfaces can hold, not those of now.
        sample(Resource::PodIps, "awscni_assigned_ip_addresses", Some("awscni_ip_max")),
        sample(Resource::Interfaces, "awscni_eni_allocated", Some("awscni_eni_max")),
        sample(Resource::IpPrefixes, "awscni_total_ipv4_prefixes", None),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn counters(page: &str) -> Vec<Counter> {
    let told = [
        (CounterName::NoAvailableAddress, "awscni_no_available_ip_addresses"),
        (CounterName::Ec2CallsFailed, "awscni_ec2api_error_count"),
    ];
    // A family with labels is not there before its first event, while the page itself is: then there was none.
    let value = |name| exposition::whole(page, name).unwrap_or(0);
    let counter = |name, value| Counter { name, scope: Scope::Node, value };
    let mut counters: Vec<_> = told.into_iter().map(|(name, metric)| counter(name, value(metric))).collect();
    let is_full = |line: &&str| SUBNET_FULL.iter().any(|label| line.contains(label));
    let refusals = page.lines().filter(is_full).collect::<Vec<_>>().join("\n");
    let refusals = exposition::whole(&refusals, "awscni_aws_api_error_count").unwrap_or(0);
    counters.push(counter(CounterName::SubnetFull, refusals));
    counters
}
