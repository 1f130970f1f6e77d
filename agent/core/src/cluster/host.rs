//! The node's own side: interfaces, what is seen of pods from outside, and the counters that findings rest on.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::capacity::{Counter, CounterName, Scope};
use crate::facts::{HostFact, LinkFacts, PodHostFacts};
use crate::fast::FastMap;
use crate::time::{BootNs, Moment};

/// Most interfaces kept: two for each of 737 pods and the node's own, twice over. At about 200 bytes: 800 KiB.
const MAX_LINKS: usize = 4_096;
/// Most pods seen from outside: as many as [`super::MAX_PODS`].
const MAX_SEEN: usize = super::MAX_PODS;
/// Most interfaces whose counters are kept: an instance has at most 64 ENIs.
const MAX_SCOPES: usize = 64;
/// Readings kept of a counter: an unanswered request is waited for a minute, during which a counter that is read every
/// five seconds has twelve.
const MAX_READINGS: usize = 32;

/// See the module's text.
#[derive(Debug, Default)]
pub struct HostSide {
    links: Option<(Moment, Vec<LinkFacts>)>,
    early_demux: Option<bool>,
    pods: Option<(BootNs, FastMap<Arc<str>, PodHostFacts>)>,
    time_exceeded: Readings,
    linklocal_exceeded: FastMap<Scope, Readings>,
}

/// The latest readings of a counter, at most [`MAX_READINGS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings(VecDeque<(BootNs, u64)>);

impl HostSide {
    /// Takes in what a look at the node tells; what no finding needs is left to others.
    pub fn learn(&mut self, fact: &HostFact, now: Moment) {
        match fact {
            HostFact::Links(links) => self.links = Some((now, links.iter().take(MAX_LINKS).cloned().collect())),
            HostFact::Pods(pods) => {
                let pods = pods.iter().take(MAX_SEEN).map(|pod| (Arc::clone(&pod.uid), pod.clone()));
                self.pods = Some((now.boot, pods.collect()));
            }
            HostFact::TcpEarlyDemux(is_on) => self.early_demux = *is_on,
            HostFact::Counters { collector: _, counters } => {
                for counter in counters {
                    self.count(counter, now.boot);
                }
            }
            HostFact::Samples { .. }
            | HostFact::Ipam(_)
            | HostFact::InstanceType { .. }
            | HostFact::Backends(_)
            | HostFact::Collector { .. } => {}
        }
    }

    /// Interfaces, and when they were read; `None`: never.
    pub fn links(&self) -> Option<(Moment, &[LinkFacts])> {
        self.links.as_ref().map(|(at, links)| (*at, links.as_slice()))
    }

    /// Whether the node demultiplexes TCP early; `None`: not known.
    pub fn early_demux(&self) -> Option<bool> {
        self.early_demux
    }

    /// What was seen of a pod from outside, and when, by the uid that its cgroup tells.
    pub fn pod(&self, cgroup_uid: &str) -> Option<(BootNs, &PodHostFacts)> {
        let (at, pods) = self.pods.as_ref()?;
        pods.get(cgroup_uid).map(|pod| (*at, pod))
    }

    /// Each pod's interface on the node, by the uid that its cgroups tell, as far as it could be told.
    pub fn veths(&self) -> impl Iterator<Item = (Arc<str>, u32)> {
        let pods = self.pods.iter().flat_map(|(_, pods)| pods.values());
        pods.filter_map(|pod| Some((Arc::clone(&pod.uid), pod.veth.filter(|_| !pod.host_network)?)))
    }

    /// ICMP time exceeded messages that the node sent.
    pub fn time_exceeded(&self) -> &Readings {
        &self.time_exceeded
    }

    /// Whether every counter of these that was read at all was read at or after a moment. All interfaces are read at once.
    pub fn is_counted_since(&self, at: BootNs) -> bool {
        let linklocal: Vec<_> = self.linklocal_exceeded.values().filter_map(Readings::last).collect();
        let is_late = |last: Option<BootNs>| last.is_none_or(|last| last >= at);
        is_late(self.time_exceeded.last()) && is_late(linklocal.into_iter().max())
    }

    /// Whether any interface dropped link-local packets over its allowance between two moments; see [`Readings::rose`].
    pub fn linklocal_exceeded(&self, from: BootNs, to: BootNs) -> Option<bool> {
        let answers = self.linklocal_exceeded.values().map(|readings| readings.rose(from, to));
        answers.fold(None, |found, answer| match (found, answer) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (found, answer) => found.or(answer),
        })
    }

    fn count(&mut self, counter: &Counter, now: BootNs) {
        match counter.name {
            CounterName::IcmpTimeExceeded => self.time_exceeded.note(now, counter.value),
            CounterName::LinklocalExceeded => {
                let known = self.linklocal_exceeded.contains_key(&counter.scope);
                if known || self.linklocal_exceeded.len() < MAX_SCOPES {
                    self.linklocal_exceeded.entry(counter.scope.clone()).or_default().note(now, counter.value);
                }
            }
            _ => {}
        }
    }
}

impl Readings {
    fn last(&self) -> Option<BootNs> {
        self.0.back().map(|(at, _)| *at)
    }

    fn note(&mut self, now: BootNs, value: u64) {
        // A counter that shrank began anew: what was read before says nothing any more.
        if self.0.back().is_some_and(|(_, before)| *before > value) {
            self.0.clear();
        }
        if self.0.len() >= MAX_READINGS {
            self.0.pop_front();
        }
        self.0.push_back((now, value));
    }

    /// Whether it rose between the last reading before `from` and the first one after `to`. `None`: there are no such
    /// readings (yet).
    pub fn rose(&self, from: BootNs, to: BootNs) -> Option<bool> {
        let (_, before) = self.0.iter().rev().find(|(at, _)| *at <= from)?;
        let (_, after) = self.0.iter().find(|(at, _)| *at >= to)?;
        Some(after > before)
    }
}
