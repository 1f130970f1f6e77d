//! Nodes for tests.

use super::*;
use crate::capacity::Sample;
use crate::facts::Requests;

/// A model with a clock.
#[derive(Default)]
pub(super) struct Setting {
    pub(super) capacity: Capacity,
    now_s: u64,
    offset: i64,
}

impl Setting {
    fn now(&self) -> BootNs {
        BootNs(self.now_s * 1_000_000_000)
    }

    fn clock(&self) -> Clock {
        Clock::new(BootNs(0), WallNs(self.offset))
    }

    pub(super) fn wall(&self) -> WallNs {
        self.clock().wall(self.now())
    }

    pub(super) fn set_clock(&mut self, at_boot: WallNs) {
        self.offset = at_boot.0;
    }

    #[expect(clippy::needless_pass_by_value, reason = "shorter to call")]
    pub(super) fn host(&mut self, fact: HostFact) {
        self.capacity.host(&fact, self.now());
    }

    #[expect(clippy::needless_pass_by_value, reason = "shorter to call")]
    pub(super) fn cluster(&mut self, fact: ClusterFact) {
        self.capacity.cluster(&fact, self.now());
    }

    /// A tick, then a second.
    pub(super) fn second(&mut self) -> Option<CapacityRow> {
        let row = self.capacity.tick(self.now(), self.clock());
        self.now_s += 1;
        row
    }

    pub(super) fn seconds(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second();
        }
    }

    pub(super) fn row(&mut self) -> CapacityRow {
        self.capacity.row(self.now(), self.clock())
    }

    pub(super) fn pods(&mut self, pods: impl IntoIterator<Item = PodFacts>) {
        self.cluster(ClusterFact::PodsReplaced(pods.into_iter().map(Arc::new).collect()));
    }

    /// ipamd, with so many addresses given out.
    pub(super) fn ipam(&mut self, assigned: u32, settings: IpamSettings) {
        self.host(HostFact::Ipam(Box::new(IpamFacts {
            total: Some(18),
            assigned: Some(assigned),
            prefixes: Some(0),
            settings: Some(settings),
            ..IpamFacts::default()
        })));
    }

    pub(super) fn cluster_of_m5_large(&mut self) {
        self.cluster(ClusterFact::Node(Arc::new(node_of_m5_large())));
    }

    /// A reading of one resource.
    pub(super) fn read(&mut self, collector: Collector, resource: Resource, scope: Scope, used: u64, limit: u64) {
        let samples = vec![sample(resource, scope, Some(used), Limit::Of(limit))];
        self.host(HostFact::Samples { collector, samples });
    }
}

/// A node that the API server tells of.
pub(super) fn m5_large() -> Setting {
    let mut setting = Setting::default();
    setting.second();
    setting.cluster_of_m5_large();
    setting
}

pub(super) fn node_of_m5_large() -> NodeFacts {
    NodeFacts {
        name: Arc::from("n"),
        instance_type: Some(Arc::from("m5.large")),
        pods: Some(29),
        cpu_milli: Some(1_930),
        memory_bytes: Some(gibibytes(7)),
        ..NodeFacts::default()
    }
}

pub(super) fn gibibytes(count: u64) -> u64 {
    count << 30
}

pub(super) fn pod(index: u32, cpu_milli: u64, memory_bytes: u64) -> PodFacts {
    PodFacts {
        namespace: Arc::from("shop"),
        name: Arc::from(format!("cart-{index}")),
        uid: Some(Arc::from(format!("uid-{index}"))),
        phase: Some(Phase::Running),
        requests: Requests { cpu_milli, memory_bytes, claims: 0 },
        ..PodFacts::default()
    }
}

pub(super) fn sample(resource: Resource, scope: Scope, used: Option<u64>, limit: Limit) -> Sample {
    Sample { resource, scope, used, limit, source: Arc::from("test") }
}

/// The node's line of a resource.
#[track_caller]
pub(super) fn line(row: &CapacityRow, resource: Resource) -> ResourceRow {
    let found = row.resources.iter().find(|row| row.resource == resource && row.scope == "node");
    found.unwrap_or_else(|| panic!("no {resource:?} in {row:?}")).clone()
}
