//! All ceilings of the node together: what is used, what is left, which one stops the next pod, and when.
//!
//! Readings come from the collectors as samples and counters, and from the cluster as facts. From both are made
//! [`line::Line`]s, one for each resource and scope; from these the row, the pods that still fit, and the judgements.

mod carrying;
mod derived;
mod fit;
mod judge;
mod known;
mod line;
mod pool;
mod readings;
mod settings;
mod subnet;
mod told;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::judge::Judge;
use self::known::Known;
use self::line::Line;
use self::readings::{MAX_SAMPLES, Readings};
pub use self::settings::{Settings, Shape};
use super::forecast::Series;
use super::{Resource, Scope};
use crate::facts::{ClusterFact, Ec2Fact, HostFact};
use crate::finding::{Code, Judgement};
use crate::output::{CapacityRow, Exhaustion, ResourceRow};
use crate::time::{BootNs, Clock};

/// Codes that an evaluation is complete for.
pub const CODES: [Code; 2] = [Code::CapacityLow, Code::CapacityExhausted];

/// Why nothing can be said of a ceiling that was near before.
pub const NOT_TOLD: &str = "the last reading is too old";

/// A row, and an evaluation, this often.
const EVERY_NS: u64 = 30_000_000_000;
/// Most series of readings, of about 900 bytes: under 1 MiB. 250 pods have some 750. What comes beyond has no forecast.
const MAX_SERIES: usize = 1_024;
/// Rows of pods that are shown for each resource: those with the least left.
const POD_ROWS: usize = 5;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Capacity {
    settings: Settings,
    readings: Readings,
    known: Known,
    series: BTreeMap<(Resource, Scope), Series>,
    judge: Judge,
    judgements: Vec<Judgement>,
    /// Resources that were told since the start.
    told: BTreeSet<Resource>,
    next: Option<BootNs>,
    clock: Clock,
    refused: u64,
}

impl Capacity {
    /// Knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// What a look at the node told.
    pub fn host(&mut self, fact: &HostFact, now: BootNs) {
        if let HostFact::Samples { samples, .. } = fact {
            for sample in samples.iter().take(MAX_SAMPLES).filter(|sample| !is_derived(sample.resource)) {
                if let Some(used) = sample.used {
                    self.push((sample.resource, sample.scope.clone()), used, now);
                }
            }
        }
        self.readings.host(fact, now);
    }

    /// What the cluster told.
    pub fn cluster(&mut self, fact: &ClusterFact, now: BootNs) {
        self.known.cluster(fact, now, self.clock);
    }

    /// What EC2 told.
    pub fn ec2(&mut self, fact: &Ec2Fact) {
        self.known.ec2(fact);
    }

    /// Time goes by: every half minute a row, after a new evaluation.
    pub fn tick(&mut self, now: BootNs, clock: Clock) -> Option<CapacityRow> {
        self.clock = clock;
        // The first row waits for the collectors' first round.
        let next = *self.next.get_or_insert(BootNs(now.0.saturating_add(EVERY_NS)));
        if now < next {
            return None;
        }
        self.next = Some(BootNs(now.0.saturating_add(EVERY_NS)));
        self.known.expire(now);
        self.readings.expire(now);
        let lines = self.lines(now);
        for line in lines.iter().filter(|line| is_derived(line.resource)) {
            if let Some(used) = line.used {
                self.push((line.resource, line.scope.clone()), used, now);
            }
        }
        let present: BTreeSet<_> = lines.iter().map(|line| (line.resource, &line.scope)).collect();
        self.series.retain(|(resource, scope), _| present.contains(&(*resource, scope)));
        let waiting = self.known.waiting(now).unwrap_or_default();
        let mut refusals = self.readings.refusals(now);
        refusals.extend(subnet::dry(&refusals, &self.readings, &waiting, &lines, now));
        self.told.extend(lines.iter().map(|line| line.resource).chain(self.readings.counted()));
        self.judgements = self.judge.evaluate(&judge::Seen {
            lines: &lines,
            series: &self.series,
            refusals: &refusals,
            waiting: &waiting,
            memory_stalls: self.readings.memory_stalls(now),
            settings: &self.settings,
            known: &self.known,
        });
        Some(self.put_together(lines, now, clock))
    }

    /// All ceilings as they stand.
    pub fn row(&self, now: BootNs, clock: Clock) -> CapacityRow {
        self.put_together(self.lines(now), now, clock)
    }

    /// What the last evaluation said: complete for [`CODES`].
    pub fn judgements(&self) -> &[Judgement] {
        &self.judgements
    }

    /// Whether others than the CNI translate the addresses of what leaves the VPC, as ipamd tells or else its environment,
    /// where that is whole: unset is off. `None`: neither tells.
    pub fn external_snat(&self) -> Option<bool> {
        let by_environment = || {
            let environment = self.known.cni_environment()?;
            environment.settings.external_snat.or((!environment.partial).then_some(false))
        };
        self.readings.settings().and_then(|settings| settings.external_snat).or_else(by_environment)
    }

    /// The instance's type, where it is known by name and the table lacks it.
    pub fn unknown_instance_type(&self) -> Option<Arc<str>> {
        let known = derived::instance(&self.readings, &self.known).is_some();
        let name = || self.known.instance_name().or_else(|| self.readings.instance_name());
        name().filter(|_| !known).map(Arc::clone)
    }

    /// Whether a resource, by its name, was told since the start: by a reading, or by a count of refusals.
    pub fn has_told(&self, resource: &str) -> bool {
        self.told.iter().any(|told| told.name() == resource)
    }

    /// Readings, pods and series that found no room since the start.
    pub fn refused(&self) -> u64 {
        self.refused + self.readings.refused() + self.known.refused()
    }

    fn push(&mut self, key: (Resource, Scope), used: u64, now: BootNs) {
        if self.series.len() >= MAX_SERIES && !self.series.contains_key(&key) {
            self.refused += 1;
            return;
        }
        self.series.entry(key).or_default().push(now, used);
    }

    fn lines(&self, now: BootNs) -> Vec<Line> {
        let mut found = derived::lines(&self.readings, &self.known, now);
        found.extend(self.known.told().lines(self.clock.wall(now)));
        found.extend(self.readings.lines(now));
        line::merge(found)
    }

    fn put_together(&self, lines: Vec<Line>, now: BootNs, clock: Clock) -> CapacityRow {
        let shape = self.settings.shape.or_else(|| self.known.usual_shape());
        let fit = fit::fit(&lines, shape.unwrap_or_default(), &self.known);
        let binding = fit.map(|fit| fit.stopped_by);
        let mut rows: Vec<_> = shown(lines).into_iter().map(|line| self.resource_row(&line)).collect();
        rows.sort_by_key(|row| std::cmp::Reverse((Some(row.resource) == binding, filled(row))));
        CapacityRow {
            time: clock.wall(now),
            resources: rows,
            pods_fit: fit.map(|fit| fit.pods),
            binding_resource: binding,
            pool: pool::row(&self.readings, &self.known, now),
            pods_waiting: self.known.waiting(now).map(|waiting| waiting.len() as u64),
            left_out: self.refused(),
        }
    }

    fn resource_row(&self, line: &Line) -> ResourceRow {
        let series = self.series.get(&(line.resource, line.scope.clone()));
        let exhaustion_s = match (line.limit, series) {
            _ if line.headroom() == Some(0) => Exhaustion::Range { earliest_s: 0, likely_s: 0 },
            (Some(limit), Some(series)) => series.forecast(limit),
            _ => Exhaustion::CannotTell,
        };
        ResourceRow {
            resource: line.resource,
            scope: self.known.name(&line.scope),
            used: line.used,
            limit: line.limit,
            unit: line.resource.unit(),
            source: line.source.to_string(),
            age_s: line.age_s,
            headroom: line.headroom(),
            exhaustion_s,
        }
    }
}

/// Whether rows of a resource may be put together from several sources. Its forecast rests on the rows, every half minute,
/// and on no single source's own count: two of them may differ by what each leaves out. All others are counted at each look.
fn is_derived(resource: Resource) -> bool {
    matches!(
        resource,
        Resource::Pods
            | Resource::CpuRequests
            | Resource::MemoryRequests
            | Resource::BranchInterfaces
            | Resource::ImageBytes
            | Resource::Interfaces
            | Resource::PodIps
            | Resource::IpPrefixes
            | Resource::EbsVolumes
            | Resource::SubnetIps
            | Resource::NetworkBandwidth
            | Resource::EbsBandwidth
            | Resource::EbsIops
    )
}

/// How full, in parts of 65,536; `None`: cannot tell, and last.
fn filled(row: &ResourceRow) -> Option<u64> {
    line::filled(row.used?, row.limit?)
}

/// Of the pods' lines those with the least left, and all others.
fn shown(lines: Vec<Line>) -> Vec<Line> {
    let (mut of_pods, mut others): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|line| matches!(line.scope, Scope::Pod(_)));
    of_pods.sort_by_key(|line| std::cmp::Reverse(line.filled()));
    let mut count: BTreeMap<Resource, usize> = BTreeMap::new();
    of_pods.retain(|line| {
        let count = count.entry(line.resource).or_default();
        *count += 1;
        *count <= POD_ROWS
    });
    others.extend(of_pods);
    others
}

/// The node itself.
fn node() -> Scope {
    Scope::Node
}

/// A text that is shared.
fn shared(text: String) -> Arc<str> {
    Arc::from(text)
}

#[cfg(test)]
mod tests;
