//! Ceilings that no single source tells: requests against allocatable, interfaces and addresses against what the type and
//! the CNI's settings allow, volumes against places that interfaces share, bandwidths against the type's.

use super::known::{Known, has_branch};
use super::line::Line;
use super::readings::Readings;
use super::{carrying, node, shared};
use crate::capacity::instances::InstanceType;
use crate::capacity::plan::recommended_max_pods;
use crate::capacity::pool::{Pool, Settings};
use crate::capacity::{IpamFacts, IpamSettings, Limit, Resource};
use crate::facts::Source;
use crate::time::BootNs;

/// What is known at one moment.
struct Moment<'a> {
    readings: &'a Readings,
    known: &'a Known,
    now: BootNs,
    /// Ages of what the cluster told of pods and of the node; `None`: nothing, or too long ago.
    pods_age_s: Option<u64>,
    node_age_s: Option<u64>,
    found: Vec<Line>,
}

/// The instance's type: the label wins over what the node tells of itself, the table over what EC2 tells.
pub(super) fn instance(readings: &Readings, known: &Known) -> Option<InstanceType> {
    let told = || {
        let mut names = known.instance_name().into_iter().chain(readings.instance_name());
        names.find_map(|name| known.told().instance(name))
    };
    known.instance().or_else(|| readings.instance()).or_else(told)
}

/// The kubelet's max-pods: allocatable wins over the kubelet's files, those over the type's recommendation.
pub(super) fn max_pods(readings: &Readings, known: &Known, of: &InstanceType, settings: &Settings, now: BootNs) -> u32 {
    let told = known.node().and_then(|node| node.pods);
    let read = readings.node(Resource::Pods, now).and_then(|(sample, _)| match sample.limit {
        Limit::Of(limit) => u32::try_from(limit).ok(),
        Limit::Unknown | Limit::Unlimited => None,
    });
    told.or(read).unwrap_or_else(|| recommended_max_pods(of, settings))
}

/// Addresses of the pool that pods have; `None`: nobody tells.
pub(super) fn assigned(ipam: &IpamFacts) -> Option<u64> {
    let listed = Some(ipam.allocations.len() as u64).filter(|&count| count > 0);
    ipam.assigned.map(u64::from).or(listed)
}

/// The CNI's settings in force and who tells them: introspection, and for what it leaves out the environment of the CNI's
/// pod; that alone where introspection is off, as long as it is whole. `None`: nobody tells.
pub(super) fn settings(ipam: &IpamFacts, known: &Known) -> Option<(IpamSettings, &'static str)> {
    let environment = known.cni_environment();
    match (&ipam.settings, environment) {
        (Some(told), None) => Some((told.clone(), "ipamd")),
        (Some(told), Some(environment)) => {
            let whole = told.clone().or_environment(&environment.settings);
            let source = if whole == *told { "ipamd" } else { "ipamd and aws-node's environment" };
            Some((whole, source))
        }
        (None, Some(environment)) if !environment.partial => {
            Some((environment.settings.clone(), "ipamd; aws-node's environment"))
        }
        (None, _) => None,
    }
}

/// All of them.
pub(super) fn lines(readings: &Readings, known: &Known, now: BootNs) -> Vec<Line> {
    let mut moment = Moment {
        readings,
        known,
        now,
        pods_age_s: known.age_s(Source::Pods, now),
        node_age_s: known.age_s(Source::Node, now),
        found: Vec::new(),
    };
    moment.requests();
    moment.branches();
    moment.images();
    let instance = instance(readings, known);
    if let Some(of) = &instance {
        moment.interfaces(of);
        moment.bandwidths(of);
    }
    moment.addresses(instance.as_ref());
    moment.volumes(instance.as_ref());
    moment.found
}

impl Moment<'_> {
    fn put(&mut self, resource: Resource, used: Option<u64>, limit: Option<u64>, source: &str, age_s: u64) {
        if used.is_none() && limit.is_none() {
            return;
        }
        let source = shared(source.to_owned());
        self.found.push(Line { resource, scope: node(), used, limit, source, age_s });
    }

    /// Pods and what they ask for, against allocatable.
    fn requests(&mut self) {
        let node = self.known.node().filter(|_| self.node_age_s.is_some());
        let age_s = self.pods_age_s.unwrap_or(0).max(self.node_age_s.unwrap_or(0));
        let (pods, cpu, memory) = match self.known.pods().filter(|_| self.pods_age_s.is_some()) {
            None => (None, None, None),
            Some(pods) => {
                let (mut count, mut cpu, mut memory) = (0_u64, 0_u64, 0_u64);
                for pod in pods {
                    count += 1;
                    cpu = cpu.saturating_add(pod.requests.cpu_milli);
                    memory = memory.saturating_add(pod.requests.memory_bytes);
                }
                (Some(count), Some(cpu), Some(memory))
            }
        };
        let source = match (pods, node) {
            (Some(_), Some(_)) => "pods; node's allocatable",
            (Some(_), None) => "pods",
            _ => "node's allocatable",
        };
        let limit = node.and_then(|node| node.pods).map(u64::from);
        let (cpu_limit, memory_limit) = (node.and_then(|node| node.cpu_milli), node.and_then(|node| node.memory_bytes));
        self.put(Resource::Pods, pods, limit, source, age_s);
        self.put(Resource::CpuRequests, cpu, cpu_limit, source, age_s);
        self.put(Resource::MemoryRequests, memory, memory_limit, source, age_s);
    }

    /// Branch interfaces of pods, and those that cool down.
    fn branches(&mut self) {
        let Some(pods_age_s) = self.pods_age_s else { return };
        let Some(pods) = self.known.pods() else { return };
        let used = pods.filter(|pod| has_branch(pod)).count() as u64;
        let cooling = self.known.cooling(self.now);
        let told = self.known.node().filter(|_| self.node_age_s.is_some()).and_then(|node| node.branch_interfaces);
        let by_type = || {
            let of = instance(self.readings, self.known).filter(|_| self.known.has_trunk())?;
            Some(of.branch_interfaces).filter(|branches| *branches > 0)
        };
        let (limit, mut source) = match told {
            Some(limit) => (Some(limit), "pods; node's allocatable".to_owned()),
            None => (by_type(), "pods; instance type".to_owned()),
        };
        if limit.is_none() && used == 0 && cooling == 0 {
            return;
        }
        if cooling > 0 {
            source = format!("{source}; {cooling} of them cool down after their pods");
        }
        let age_s = pods_age_s.max(self.node_age_s.unwrap_or(0));
        self.put(Resource::BranchInterfaces, Some(used + cooling), limit.map(u64::from), &source, age_s);
    }

    fn images(&mut self) {
        let (Some(age_s), Some(node)) = (self.node_age_s, self.known.node()) else { return };
        self.put(Resource::ImageBytes, node.image_bytes, None, "node's status.images", age_s);
    }

    fn interfaces(&mut self, of: &InstanceType) {
        let limit = Some(u64::from(of.interfaces_total));
        let source = |seen: &str| format!("{seen}; {} has {}", of.name, of.interfaces_total);
        match self.readings.interfaces(self.now) {
            Some((used, age_s, seen)) => self.put(Resource::Interfaces, Some(used), limit, &source(seen), age_s),
            None => self.put(Resource::Interfaces, None, limit, &source("not seen"), 0),
        }
    }

    /// Limits only: what is used the collectors tell.
    fn bandwidths(&mut self, of: &InstanceType) {
        let megabits = |mbps: Option<u32>| mbps.map(|mbps| u64::from(mbps) * 1_000_000);
        let source = format!("{} always has so much", of.name);
        self.put(Resource::NetworkBandwidth, None, megabits(of.network_mbps), &source, 0);
        self.put(Resource::EbsBandwidth, None, megabits(of.ebs_mbps).map(|bits| bits / 8), &source, 0);
        self.put(Resource::EbsIops, None, of.ebs_iops.map(u64::from), &source, 0);
    }

    /// Addresses of the CNI's pool.
    fn addresses(&mut self, instance: Option<&InstanceType>) {
        let Some((ipam, age_s)) = self.readings.ipam(self.now) else { return };
        let used = assigned(ipam);
        let settings = settings(ipam, self.known);
        if settings.as_ref().is_some_and(|(settings, _)| settings.ipv6) {
            // One prefix of a /80 has more addresses than pods will ever be.
            self.put(Resource::PodIps, used, None, "ipamd; an IPv6 prefix (/80) does not run out", age_s);
            return;
        }
        let Some((of, (settings, told_by))) = instance.zip(settings) else {
            self.put(Resource::PodIps, used, None, "ipamd", age_s);
            return;
        };
        let settings = Settings::from(&settings);
        let max_pods = max_pods(self.readings, self.known, of, &settings, self.now);
        let settings = carrying::settings(settings, of, ipam, self.readings.unmanaged());
        let pool = Pool::new(of, &settings, max_pods);
        let limit = u64::from(pool.reachable());
        let prefixes = ipam.prefixes.map(u64::from);
        self.put(Resource::PodIps, used, Some(limit), &format!("{told_by}; {} carries {limit}", of.name), age_s);
        if let Some(most) = pool.most_prefixes() {
            self.put(Resource::IpPrefixes, prefixes, Some(u64::from(most)), &format!("{told_by}; {}", of.name), age_s);
        }
    }

    /// Volumes of pods: what the scheduler takes for the limit, unless interfaces that came later took its places.
    fn volumes(&mut self, instance: Option<&InstanceType>) {
        // The root volume is attached too, and no pod's.
        let attached = self.readings.node(Resource::EbsVolumes, self.now);
        let seen = attached.and_then(|(sample, age_s)| Some((sample.used?.saturating_sub(1), age_s)));
        let of_pods = self.known.node().and_then(|node| node.ebs_attached).map(u64::from).zip(self.node_age_s);
        let told = self.known.csi_volumes().filter(|_| self.known.age_s(Source::CsiNode, self.now).is_some());
        let interfaces = self.readings.interfaces(self.now).map(|(count, ..)| count);
        if let Some(told) = told {
            // The driver took off all that was there at boot, so what it counts is pods' volumes. Without the controller's
            // word all but the first stand for these: one too many for each further volume of the image.
            let (used, by) = match (of_pods, seen) {
                (Some(of_pods), _) => (Some(of_pods), "node's status.volumesAttached; "),
                (None, Some(seen)) => (Some(seen), "attached volumes but the first; "),
                (None, None) => (None, ""),
            };
            let age_s = used.map_or(0, |(_, age_s)| age_s);
            let source = format!("{by}CSINode allocatable");
            self.put(Resource::EbsVolumes, used.map(|(used, _)| used), Some(told.into()), &source, age_s);
        }
        let Some(of) = instance else { return };
        let count = u32::try_from(interfaces.unwrap_or(1)).unwrap_or(u32::MAX);
        let places = of.volumes.slots(count);
        let by = if seen.is_some() { "attached volumes but the first; " } else { "" };
        let (used, age_s) = (seen.map(|(used, _)| used), seen.map_or(0, |(_, age_s)| age_s));
        let source = match told {
            // What the instance itself has left, the image's volumes counted: less when interfaces came after the driver's start.
            Some(told) if of.volumes.shared && interfaces.is_some() && used.is_some() => format!(
                "{by}CSINode says {told}, as of the driver's start; {count} interfaces share the places of {}: {places}",
                of.name
            ),
            None if interfaces.is_some() || !of.volumes.shared => format!("{by}instance type {}", of.name),
            _ => return,
        };
        self.put(Resource::EbsVolumes, used, Some(places.into()), &source, age_s);
    }
}
