//! The model by its inputs and its rows: limits that bind, pods that fit, what is stale, what is raised.

mod cni;
mod counts;
mod judging;
mod nodes;
mod waiting;

use std::sync::Arc;

use self::nodes::{Setting, gibibytes, m5_large, pod, sample};
use super::*;
use crate::capacity::{Collector, IpamFacts, IpamInterface, IpamSettings, Limit};
use crate::facts::{Branch, BranchInterface, CsiNodeFacts, LinkFacts, LinkKind, NodeFacts, Phase, PodFacts, Source};
use crate::time::WallNs;

#[test]
fn nothing_known_is_no_zero() {
    let mut setting = Setting::default();
    let row = setting.row();
    assert_eq!((row.pods_fit, row.binding_resource, &row.pool), (None, None, &None));
    assert!(row.resources.is_empty(), "{row:?}");
    assert!(setting.capacity.judgements().is_empty());
}

#[test]
fn a_row_comes_every_half_minute() {
    let mut setting = Setting::default();
    let rows: Vec<_> = (0..95).filter(|_| setting.second().is_some()).collect();
    assert_eq!(rows, [30, 60, 90]);
}

#[test]
fn the_scheduler_stops_the_next_pod_where_requests_do() {
    let mut setting = m5_large();
    setting.pods((0..4).map(|index| pod(index, 400, gibibytes(1))));
    let row = setting.row();
    // 1,930 allocatable, 1,600 asked for: 330 are no place for one more of 400.
    assert_eq!((row.pods_fit, row.binding_resource), (Some(0), Some(Resource::CpuRequests)));
    assert_eq!(row.resources.first().map(|row| row.resource), Some(Resource::CpuRequests));
    setting.pods((0..2).map(|index| pod(index, 400, gibibytes(2))));
    let row = setting.row();
    // 1,130 are left, and 3 GiB of 7: the memory is the first to go.
    assert_eq!((row.pods_fit, row.binding_resource), (Some(1), Some(Resource::MemoryRequests)));
}

#[test]
fn addresses_or_the_kubelet_stop_pods_that_ask_for_little() {
    let mut setting = m5_large();
    setting.pods((0..10).map(|index| pod(index, 0, 0)));
    setting.ipam(10, IpamSettings::default());
    let row = setting.row();
    assert_eq!((row.pods_fit, row.binding_resource), (Some(17), Some(Resource::PodIps)), "27 addresses, 29 pods");
    let line = nodes::line(&row, Resource::PodIps);
    assert_eq!((line.used, line.limit, line.headroom), (Some(10), Some(27), Some(17)));
    // A trunk takes an interface and its nine addresses.
    setting.ipam(10, IpamSettings { pod_eni: true, ..IpamSettings::default() });
    assert_eq!(setting.row().pods_fit, Some(8));
    // With prefixes the kubelet is the first.
    setting.ipam(10, IpamSettings { prefix_delegation: true, ..IpamSettings::default() });
    let row = setting.row();
    assert_eq!((row.pods_fit, row.binding_resource), (Some(19), Some(Resource::Pods)));
    assert_eq!(nodes::line(&row, Resource::IpPrefixes).limit, Some(27));
}

#[test]
fn a_shape_that_is_given_counts_instead_of_the_usual_one() {
    let shape = Shape { cpu_milli: 500, memory_bytes: 0, volumes: 2, branch: false };
    let mut setting = m5_large();
    setting.capacity = Capacity::new(Settings { shape: Some(shape), ..Settings::default() });
    setting.cluster_of_m5_large();
    setting.pods((0..2).map(|index| pod(index, 100, 0)));
    assert_eq!((setting.row().pods_fit, setting.row().binding_resource), (Some(3), Some(Resource::CpuRequests)));
    // Three volumes are attached to a node that takes four beside the first.
    setting.host(HostFact::Samples {
        collector: Collector::Ebs,
        samples: vec![sample(Resource::EbsVolumes, Scope::Node, Some(3), Limit::Unknown)],
    });
    setting.cluster(ClusterFact::CsiNode(Some(CsiNodeFacts { ebs_volumes: Some(4) })));
    assert_eq!((setting.row().pods_fit, setting.row().binding_resource), (Some(1), Some(Resource::EbsVolumes)));
}

#[test]
fn pods_that_ended_and_those_of_the_node_take_what_they_take() {
    let mut setting = m5_large();
    let ended = PodFacts { phase: Some(Phase::Succeeded), ..pod(9, 1_000, 0) };
    let daemon = |index| {
        let mut pod = pod(index, 10, 0);
        pod.workload.kind = Arc::from("DaemonSet");
        pod
    };
    setting.pods([pod(1, 300, 0), daemon(2), daemon(3), ended]);
    let row = setting.row();
    assert_eq!(nodes::line(&row, Resource::Pods).used, Some(3));
    assert_eq!(nodes::line(&row, Resource::CpuRequests).used, Some(320));
    // The usual pod is not the daemon set's: 1,610 are left for 300 each.
    assert_eq!(row.pods_fit, Some(5));
    setting.cluster(ClusterFact::PodGone { uid: Arc::from("uid-1") });
    assert_eq!(nodes::line(&setting.row(), Resource::Pods).used, Some(2));
}

#[test]
fn branch_interfaces_cool_down_before_they_are_free() {
    let mut setting = m5_large();
    let branch = |index| PodFacts {
        branch: Branch::Interfaces(vec![BranchInterface {
            id: Arc::from("eni-0"),
            mac: Arc::from("02:00:00:00:00:01"),
            ipv4: None,
            ipv6: None,
            vlan_id: 1,
            subnet: None,
        }]),
        branch_limit: 1,
        ..pod(index, 0, 0)
    };
    setting.cluster(ClusterFact::Node(Arc::new(NodeFacts { branch_interfaces: Some(9), ..nodes::node_of_m5_large() })));
    setting.pods((0..5).map(branch));
    let row = setting.row();
    let used = |row: &CapacityRow| nodes::line(row, Resource::BranchInterfaces).used;
    assert_eq!((used(&row), row.pods_fit, row.binding_resource), (Some(5), Some(4), Some(Resource::BranchInterfaces)));
    setting.cluster(ClusterFact::PodGone { uid: Arc::from("uid-1") });
    setting.cluster(ClusterFact::Pod(Arc::new(PodFacts { phase: Some(Phase::Failed), ..branch(2) })));
    let row = setting.row();
    assert_eq!(used(&row), Some(5));
    assert!(nodes::line(&row, Resource::BranchInterfaces).source.contains("2 of them cool down"), "{row:?}");
    setting.seconds(60);
    // A relist brings the third end.
    setting.pods([branch(0), branch(3)]);
    assert_eq!(used(&setting.row()), Some(5));
    setting.seconds(31);
    assert_eq!(used(&setting.row()), Some(3));
    setting.seconds(60);
    assert_eq!(used(&setting.row()), Some(2));
}

#[test]
fn interfaces_that_came_later_take_places_of_volumes() {
    let mut setting = m5_large();
    setting.cluster(ClusterFact::CsiNode(Some(CsiNodeFacts { ebs_volumes: Some(26) })));
    setting.host(HostFact::Samples {
        collector: Collector::Ebs,
        samples: vec![sample(Resource::EbsVolumes, Scope::Node, Some(4), Limit::Unknown)],
    });
    let volumes = |setting: &mut Setting| nodes::line(&setting.row(), Resource::EbsVolumes);
    let before = volumes(&mut setting);
    assert_eq!((before.used, before.limit), (Some(3), Some(26)));
    let ena = |index: u32| LinkFacts { kind: LinkKind::Ena, index, ..LinkFacts::default() };
    setting.host(HostFact::Links(vec![ena(1), ena(2), ena(3), LinkFacts::default()]));
    let after = volumes(&mut setting);
    assert_eq!((after.used, after.limit), (Some(3), Some(24)));
    assert!(after.source.contains("CSINode says 26") && after.source.contains("3 interfaces share"), "{after:?}");
    // Where places are dedicated the driver's figure stands.
    setting.cluster(ClusterFact::Node(Arc::new(NodeFacts {
        instance_type: Some(Arc::from("c7a.large")),
        ..nodes::node_of_m5_large()
    })));
    assert_eq!(volumes(&mut setting).limit, Some(26));
}

#[test]
fn the_node_s_own_figure_wins_over_the_table_and_the_files() {
    let mut setting = m5_large();
    setting.pods([pod(1, 0, 0)]);
    setting.host(HostFact::Samples {
        collector: Collector::Kubelet,
        samples: vec![sample(Resource::Pods, Scope::Node, None, Limit::Of(110))],
    });
    setting.host(HostFact::InstanceType { name: Arc::from("m5.4xlarge"), source: Arc::from("DMI") });
    setting.ipam(1, IpamSettings::default());
    let row = setting.row();
    assert_eq!(nodes::line(&row, Resource::Pods).limit, Some(29));
    assert_eq!(nodes::line(&row, Resource::PodIps).limit, Some(27), "the label says m5.large");
    // Without the API the node's own word is what there is.
    let mut alone = Setting::default();
    alone.host(HostFact::InstanceType { name: Arc::from("m5.4xlarge"), source: Arc::from("DMI") });
    alone.ipam(1, IpamSettings::default());
    assert_eq!(nodes::line(&alone.row(), Resource::PodIps).limit, Some(232));
    alone.host(HostFact::InstanceType { name: Arc::from("zz9.plural"), source: Arc::from("DMI") });
    alone.ipam(1, IpamSettings::default());
    assert_eq!(nodes::line(&alone.row(), Resource::PodIps).limit, None, "an unknown type has no limit, and not 0");
}

#[test]
fn of_several_limits_the_one_with_the_least_left_binds() {
    let mut setting = Setting::default();
    let threads = |used, limit| sample(Resource::Threads, Scope::Node, Some(used), limit);
    setting.host(HostFact::Samples {
        collector: Collector::Threads,
        samples: vec![threads(500, Limit::Of(4_194_304)), threads(500, Limit::Of(600)), threads(500, Limit::Unlimited)],
    });
    let line = nodes::line(&setting.row(), Resource::Threads);
    assert_eq!((line.limit, line.headroom), (Some(600), Some(100)));
}

#[test]
fn old_readings_are_absent_and_not_zero() {
    let mut setting = Setting::default();
    let reading = |used| HostFact::Samples {
        collector: Collector::Conntrack,
        samples: vec![sample(Resource::ConntrackEntries, Scope::Node, Some(used), Limit::Of(1_000))],
    };
    for used in 0..10 {
        setting.host(reading(used));
        setting.seconds(30);
    }
    assert_eq!(nodes::line(&setting.row(), Resource::ConntrackEntries).age_s, 30);
    setting.seconds(60);
    assert_eq!(nodes::line(&setting.row(), Resource::ConntrackEntries).age_s, 90);
    setting.seconds(1);
    assert!(setting.row().resources.is_empty());
}

#[test]
fn what_the_cluster_told_grows_old_by_boot_time_whatever_the_clock_says() {
    let mut setting = m5_large();
    setting.pods([pod(1, 100, 0)]);
    let fresh = ClusterFact::Source { source: Source::Pods, fresh_at: Some(setting.wall()), error: None };
    setting.cluster(fresh);
    setting.set_clock(WallNs(i64::MAX / 2));
    setting.seconds(5);
    assert_eq!(setting.row().pods_fit, Some(18), "the clock jumped, nothing is old");
    setting.set_clock(WallNs(0));
    setting.seconds(5);
    assert_eq!(setting.row().pods_fit, Some(18));
    setting.seconds(900);
    assert_eq!(setting.row().pods_fit, None, "nobody told of pods for too long");
}

#[test]
fn the_pool_s_waste_comes_with_its_cure() {
    let mut setting = m5_large();
    setting.cluster(ClusterFact::Node(Arc::new(NodeFacts {
        instance_type: Some(Arc::from("m5.4xlarge")),
        pods: Some(234),
        ..nodes::node_of_m5_large()
    })));
    setting.host(HostFact::Ipam(Box::new(IpamFacts {
        interfaces: vec![IpamInterface::default(), IpamInterface::default()],
        total: Some(58),
        assigned: Some(3),
        settings: Some(IpamSettings::default()),
        ..IpamFacts::default()
    })));
    let pool = setting.row().pool.expect("ipamd told");
    assert_eq!((pool.addresses_held, pool.assigned, pool.free), (Some(58), 3, Some(55)));
    assert_eq!((pool.expected_least, pool.expected_most.is_some_and(|most| most >= 58)), (Some(58), true));
    assert!(pool.why.as_deref().is_some_and(|why| why.starts_with("WARM_ENI_TARGET=1")), "{pool:?}");
    let advice = pool.recommended.expect("less would do");
    assert_eq!((advice.warm_ip_target, advice.minimum_ip_target), (2, 3));
    assert_eq!((advice.addresses_held, advice.addresses_saved, advice.burst_pods), (5, 53, 2));
}

#[test]
fn everything_is_bounded_and_what_finds_no_room_is_counted() {
    let mut setting = Setting::default();
    let of_pod = |index: u32| {
        sample(
            Resource::Threads,
            Scope::Pod(Arc::from(format!("uid-{index}"))),
            Some(u64::from(index)),
            Limit::Of(9_999),
        )
    };
    setting.host(HostFact::Samples { collector: Collector::Threads, samples: (0..3_000).map(of_pod).collect() });
    setting.pods((0..3_000).map(|index| pod(index, 0, 0)));
    let row = setting.row();
    assert_eq!(row.resources.iter().filter(|row| row.scope.starts_with("pod ")).count(), POD_ROWS);
    assert_eq!(nodes::line(&row, Resource::Pods).used, Some(1_024));
    // Samples, pods, and series.
    assert_eq!(setting.capacity.refused(), (3_000 - 1_024) * 2);
    setting.seconds(31);
    assert!(setting.capacity.series.len() <= MAX_SERIES);
}
