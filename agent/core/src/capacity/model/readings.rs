//! What the collectors told last, as long as it is fresh.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::carrying::Unmanaged;
use super::line::Line;
use crate::capacity::instances::{InstanceType, instance_type};
use crate::capacity::{Collector, Counter, CounterName, IpamFacts, IpamSettings, Limit, Resource, Sample, Scope};
use crate::facts::{HostFact, LinkFacts, LinkKind};
use crate::time::BootNs;

/// Most samples of one collector: 250 pods with one each have room four times. At about 100 bytes and with 20 collectors
/// at most 2 MiB.
pub(super) const MAX_SAMPLES: usize = 1_024;
/// Most counters, of about 80 bytes: 80 KiB. 250 pods have two or three each.
const MAX_COUNTERS: usize = 1_024;
/// A reading counts for so many of the intervals in which its collector reads.
const FRESH_INTERVALS: u64 = 3;
/// And at least so long, so that a busy node does not blink.
const FRESH_LEAST_NS: u64 = 60_000_000_000;
/// As long as the interval is not known, and at most: no collector reads less often than every 750 s (five minutes at the
/// longest cadence, 250 %).
const FRESH_MOST_NS: u64 = 900_000_000_000;
/// Something was refused lately when it was within this time.
const REFUSED_LATELY_NS: u64 = 300_000_000_000;
/// Refusals so far apart belong together: two readings of a counter at the longest cadence, 75 s each.
const STREAK_GAP_NS: u64 = 150_000_000_000;
/// Tasks that waited for memory for this part of the time: percent.
const STALL_PERCENT: u64 = 10;

/// A reading with its time.
#[derive(Debug)]
struct Timed<T> {
    at: BootNs,
    interval_ns: Option<u64>,
    value: T,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Readings {
    samples: BTreeMap<Collector, Timed<Vec<Sample>>>,
    ipam: Option<Timed<IpamFacts>>,
    /// ENA interfaces that are attached.
    interfaces: Option<Timed<u64>>,
    unmanaged: Unmanaged,
    counters: BTreeMap<(CounterName, Scope), Grown>,
    instance: Option<(Arc<str>, Arc<str>)>,
    refused: u64,
}

/// A counter.
#[derive(Clone, Copy, Debug)]
struct Grown {
    at: BootNs,
    value: u64,
    /// How much it grew, and in which time, at the last reading.
    last: Option<(u64, u64)>,
    /// First and last moment of the streak in which it grew, and by how much in all.
    streak: Option<(BootNs, BootNs, u64)>,
}

/// Somebody was refused one more of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) resource: Resource,
    pub(super) scope: Scope,
    /// How often in the present streak.
    pub(super) times: u64,
    /// The counter.
    pub(super) name: CounterName,
    /// From the first to the last, nanoseconds.
    pub(super) for_ns: u64,
}

impl Readings {
    pub(super) fn host(&mut self, fact: &HostFact, now: BootNs) {
        match fact {
            HostFact::Samples { collector, samples } => {
                let kept: Vec<_> = samples.iter().take(MAX_SAMPLES).cloned().collect();
                self.refused += (samples.len() - kept.len()) as u64;
                let before = self.samples.get(collector).map(|reading| (reading.at, reading.interval_ns));
                self.samples.insert(*collector, Timed::after(before, now, kept));
            }
            HostFact::Counters { counters, .. } => counters.iter().for_each(|counter| self.count(counter, now)),
            HostFact::Ipam(facts) => {
                let before = self.ipam.as_ref().map(|reading| (reading.at, reading.interval_ns));
                self.ipam = Some(Timed::after(before, now, facts.as_ref().clone()));
                self.compare(now);
            }
            HostFact::Links(links) => {
                let attached = links.iter().filter(|link| is_interface(link)).count() as u64;
                let before = self.interfaces.as_ref().map(|reading| (reading.at, reading.interval_ns));
                self.interfaces = Some(Timed::after(before, now, attached));
                self.compare(now);
            }
            HostFact::InstanceType { name, source } => self.instance = Some((Arc::clone(name), Arc::clone(source))),
            HostFact::Pods(_) | HostFact::TcpEarlyDemux(_) | HostFact::Backends(_) | HostFact::Collector { .. } => {}
        }
    }

    /// Forgets what is too old, but not how often it came.
    pub(super) fn expire(&mut self, now: BootNs) {
        self.samples.values_mut().for_each(|reading| reading.expire(now));
        self.ipam.iter_mut().for_each(|reading| reading.expire(now));
        self.interfaces.iter_mut().for_each(|reading| reading.expire(now));
        self.counters.retain(|_, grown| now.since(grown.at) <= FRESH_MOST_NS);
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// What ipamd holds, and the age of that.
    pub(super) fn ipam(&self, now: BootNs) -> Option<(&IpamFacts, u64)> {
        self.ipam.as_ref().filter(|reading| reading.is_fresh(now)).map(|reading| (&reading.value, reading.age_s(now)))
    }

    /// Network interfaces attached to the instance, branch interfaces not among them: as the kernel sees them, else as
    /// ipamd does, which leaves out those that it was told not to touch.
    pub(super) fn interfaces(&self, now: BootNs) -> Option<(u64, u64, &'static str)> {
        let seen = self.interfaces.as_ref().filter(|reading| reading.is_fresh(now) && reading.value > 0);
        if let Some(reading) = seen {
            return Some((reading.value, reading.age_s(now), "ENA interfaces"));
        }
        let (ipam, age_s) = self.ipam(now)?;
        (!ipam.interfaces.is_empty()).then_some((ipam.interfaces.len() as u64, age_s, "ipamd"))
    }

    /// Interfaces that are attached and that ipamd leaves alone; 0 while nobody can tell.
    pub(super) fn unmanaged(&self) -> u64 {
        self.unmanaged.count()
    }

    fn compare(&mut self, now: BootNs) {
        let attached = self.interfaces.as_ref().filter(|reading| reading.is_fresh(now)).map(|reading| reading.value);
        let managed = self.ipam(now).map(|(ipam, _)| ipam.interfaces.len() as u64).filter(|&count| count > 0);
        if let (Some(attached), Some(managed)) = (attached, managed) {
            self.unmanaged.see(attached, managed, now);
        }
    }

    /// The instance's type as the node itself tells it.
    pub(super) fn instance(&self) -> Option<InstanceType> {
        self.instance.as_ref().and_then(|(name, _)| instance_type(name))
    }

    /// The CNI's settings, as ipamd told them last: they change with a new ipamd alone.
    pub(super) fn settings(&self) -> Option<&IpamSettings> {
        self.ipam.as_ref().and_then(|reading| reading.value.settings.as_ref())
    }

    /// The type that the node tells of itself.
    pub(super) fn instance_name(&self) -> Option<&Arc<str>> {
        self.instance.as_ref().map(|(name, _)| name)
    }

    /// What a collector last saw of a resource of the whole node.
    pub(super) fn node(&self, resource: Resource, now: BootNs) -> Option<(&Sample, u64)> {
        let fresh = self.samples.values().filter(|reading| reading.is_fresh(now));
        fresh
            .flat_map(|reading| reading.value.iter().map(|sample| (sample, reading.age_s(now))))
            .find(|(sample, _)| sample.resource == resource && sample.scope == Scope::Node)
    }

    /// All samples that are fresh.
    pub(super) fn lines(&self, now: BootNs) -> Vec<Line> {
        let fresh = self.samples.values().filter(|reading| reading.is_fresh(now));
        fresh.flat_map(|reading| reading.value.iter().map(move |sample| line(sample, reading.age_s(now)))).collect()
    }

    /// Who was refused something lately.
    pub(super) fn refusals(&self, now: BootNs) -> Vec<Refusal> {
        let streaks = self.counters.iter().filter_map(|((name, scope), grown)| {
            let resource = refused_resource(*name)?;
            let (first, last, times) = grown.streak?;
            let lately = now.since(last) <= REFUSED_LATELY_NS;
            lately.then(|| Refusal { resource, scope: scope.clone(), times, name: *name, for_ns: last.since(first) })
        });
        streaks.collect()
    }

    /// Resources whose refusals are counted, refused or not.
    pub(super) fn counted(&self) -> impl Iterator<Item = Resource> {
        self.counters.keys().filter_map(|(name, _)| refused_resource(*name))
    }

    /// How often a counter of the node grew in its present streak, and for how long, as long as that is lately.
    pub(super) fn streak(&self, name: CounterName, now: BootNs) -> Option<(u64, u64)> {
        let (first, last, times) = self.counters.get(&(name, Scope::Node))?.streak?;
        (now.since(last) <= REFUSED_LATELY_NS).then(|| (times, last.since(first)))
    }

    /// Tasks wait for memory, as of the last reading.
    pub(super) fn memory_stalls(&self, now: BootNs) -> bool {
        let grown = self.counters.get(&(CounterName::MemoryStallMicros, Scope::Node));
        let last = grown.filter(|grown| now.since(grown.at) <= FRESH_LEAST_NS).and_then(|grown| grown.last);
        last.is_some_and(|(micros, in_ns)| micros.saturating_mul(1_000).saturating_mul(100) >= in_ns * STALL_PERCENT)
    }

    fn count(&mut self, counter: &Counter, now: BootNs) {
        let key = (counter.name, counter.scope.clone());
        if self.counters.len() >= MAX_COUNTERS && !self.counters.contains_key(&key) {
            self.refused += 1;
            return;
        }
        let fresh = Grown { at: now, value: counter.value, last: None, streak: None };
        let before = *self.counters.entry(key.clone()).or_insert(fresh);
        let mut grown = Grown { at: now, value: counter.value, ..before };
        // Set to zero by somebody, or another device of the same name: a new beginning.
        let Some(by) = counter.value.checked_sub(before.value) else {
            self.counters.insert(key, fresh);
            return;
        };
        let in_ns = now.since(before.at);
        if in_ns > 0 {
            grown.last = Some((by, in_ns));
        }
        if by > 0 {
            grown.streak = Some(match before.streak {
                Some((first, last, times)) if now.since(last) <= STREAK_GAP_NS => {
                    (first, now, times.saturating_add(by))
                }
                _ => (now, now, by),
            });
        }
        self.counters.insert(key, grown);
    }
}

// === impl Timed ===

impl<T: Default> Timed<T> {
    fn after(before: Option<(BootNs, Option<u64>)>, now: BootNs, value: T) -> Self {
        let interval_ns = match before {
            // Several readings in one moment are one.
            Some((at, known)) if at == now => known,
            // After an outage the interval is not the outage: it doubles at most, until the next reading.
            Some((at, known)) => {
                let since = now.since(at);
                Some(known.map_or(since, |known| since.min(known.saturating_mul(2))))
            }
            None => None,
        };
        Self { at: now, interval_ns, value }
    }

    fn expire(&mut self, now: BootNs) {
        if !self.is_fresh(now) {
            self.value = T::default();
        }
    }

    fn is_fresh(&self, now: BootNs) -> bool {
        let most = self.interval_ns.map_or(FRESH_MOST_NS, |interval| {
            interval.saturating_mul(FRESH_INTERVALS).clamp(FRESH_LEAST_NS, FRESH_MOST_NS)
        });
        now.since(self.at) <= most
    }

    fn age_s(&self, now: BootNs) -> u64 {
        now.since(self.at) / 1_000_000_000
    }
}

/// The resource whose end a counter tells.
fn refused_resource(name: CounterName) -> Option<Resource> {
    match name {
        CounterName::ConntrackDrop => Some(Resource::ConntrackEntries),
        CounterName::NeighbourTableFull => Some(Resource::NeighbourEntries),
        CounterName::ForksRefused => Some(Resource::Threads),
        CounterName::ConntrackExceeded => Some(Resource::EnaConntrackAllowance),
        CounterName::NoAvailableAddress => Some(Resource::PodIps),
        CounterName::SubnetFull => Some(Resource::SubnetIps),
        _ => None,
    }
}

fn is_interface(link: &LinkFacts) -> bool {
    link.kind == LinkKind::Ena
}

fn line(sample: &Sample, age_s: u64) -> Line {
    Line {
        resource: sample.resource,
        scope: sample.scope.clone(),
        used: sample.used,
        limit: match sample.limit {
            Limit::Of(limit) => Some(limit),
            Limit::Unknown | Limit::Unlimited => None,
        },
        source: Arc::clone(&sample.source),
        age_s,
    }
}
