//! What is counted: against which limit, and whether it means what it seems to.

use super::*;
use crate::capacity::{Counter, CounterName};
use crate::finding::{Code, Verdict};

fn open(setting: &Setting, code: Code, resource: Resource) -> bool {
    setting.capacity.judgements().iter().any(|judgement| {
        judgement.code == code
            && &*judgement.subject.resource == resource.name()
            && matches!(judgement.verdict, Verdict::Violated(_))
    })
}

/// A look at the table, and half a minute.
fn conntrack(setting: &mut Setting, used: u64, dropped: u64) -> bool {
    setting.seconds(28);
    let counters = vec![Counter { name: CounterName::ConntrackDrop, scope: Scope::Node, value: dropped }];
    setting.host(HostFact::Counters { collector: Collector::Conntrack, counters });
    setting.read(Collector::Conntrack, Resource::ConntrackEntries, Scope::Node, used, 131_072);
    setting.seconds(2);
    open(setting, Code::CapacityExhausted, Resource::ConntrackEntries)
}

/// Two DNS requests of one socket through a service's address race for one entry, and one packet is dropped.
#[test]
fn packets_dropped_far_from_the_limit_do_not_say_that_the_table_is_full() {
    let mut setting = Setting::default();
    setting.second();
    assert!(!conntrack(&mut setting, 1_200, 0));
    for dropped in 1..10 {
        assert!(!conntrack(&mut setting, 1_200, dropped), "{dropped}");
    }
    // Near the limit they do.
    setting.seconds(300);
    assert!(!conntrack(&mut setting, 120_000, 9));
    assert!(conntrack(&mut setting, 120_000, 12));
    assert!(!conntrack(&mut setting, 1_200, 13));
    // And where nobody tells how full the table is, nobody can tell.
    let mut blind = Setting::default();
    blind.second();
    for value in 0..4 {
        let counters = vec![Counter { name: CounterName::ConntrackDrop, scope: Scope::Node, value }];
        blind.host(HostFact::Counters { collector: Collector::Conntrack, counters });
        blind.seconds(31);
    }
    assert!(!open(&blind, Code::CapacityExhausted, Resource::ConntrackEntries));
}

fn ena(count: u32) -> HostFact {
    HostFact::Links((1..=count).map(|index| LinkFacts { kind: LinkKind::Ena, index, ..LinkFacts::default() }).collect())
}

fn ipamd(interfaces: Vec<IpamInterface>) -> HostFact {
    HostFact::Ipam(Box::new(IpamFacts {
        interfaces,
        total: Some(18),
        assigned: Some(10),
        settings: Some(IpamSettings::default()),
        ..IpamFacts::default()
    }))
}

fn managed(count: u32) -> Vec<IpamInterface> {
    (0..count).map(|device| IpamInterface { device, primary: device == 0, ..IpamInterface::default() }).collect()
}

fn addresses(setting: &mut Setting) -> Option<u64> {
    nodes::line(&setting.row(), Resource::PodIps).limit
}

/// m5.large: three interfaces with nine addresses for pods each.
#[test]
fn an_interface_that_ipamd_leaves_alone_takes_the_place_of_one_for_pods() {
    let mut setting = m5_large();
    setting.pods((0..10).map(|index| pod(index, 0, 0)));
    for _ in 0..9 {
        setting.host(ena(3));
        setting.host(ipamd(managed(2)));
        assert_eq!(addresses(&mut setting), Some(27), "perhaps it is just being attached");
        setting.seconds(30);
    }
    setting.seconds(30);
    setting.host(ena(3));
    setting.host(ipamd(managed(2)));
    assert_eq!(addresses(&mut setting), Some(18));
    assert_eq!((setting.row().pods_fit, setting.row().binding_resource), (Some(8), Some(Resource::PodIps)));
    // Detached, or taken over: at once.
    setting.host(ena(2));
    assert_eq!(addresses(&mut setting), Some(27));
    // An interface that ipamd was a moment late to see is none.
    for turn in 0..40 {
        setting.host(ena(2 + u32::from(turn % 8 == 0)));
        setting.host(ipamd(managed(2)));
        setting.seconds(30);
        assert_eq!(addresses(&mut setting), Some(27), "{turn}");
    }
}

#[test]
fn an_interface_that_pods_are_kept_off_carries_none() {
    let mut setting = m5_large();
    setting.pods([pod(1, 0, 0)]);
    let mut interfaces = managed(3);
    interfaces[2].excluded = true;
    setting.host(ipamd(interfaces.clone()));
    assert_eq!(addresses(&mut setting), Some(18));
    interfaces[0].excluded = true;
    setting.host(ipamd(interfaces));
    assert_eq!(addresses(&mut setting), Some(9));
    // On a second card they are not the pool's.
    let mut other_card = managed(3);
    other_card[2].card = 1;
    other_card[2].excluded = true;
    setting.host(ipamd(other_card));
    assert_eq!(addresses(&mut setting), Some(27));
}

fn volumes(attached: u64) -> HostFact {
    HostFact::Samples {
        collector: Collector::Ebs,
        samples: vec![sample(Resource::EbsVolumes, Scope::Node, Some(attached), Limit::Unknown)],
    }
}

/// An image with a volume for its data beside the root's: the driver takes both off before it tells its limit.
#[test]
fn volumes_of_the_image_are_not_counted_against_a_limit_without_them() {
    let mut setting = m5_large();
    let of_pods = |setting: &mut Setting, count| {
        let facts = NodeFacts { ebs_attached: Some(count), ..nodes::node_of_m5_large() };
        setting.cluster(ClusterFact::Node(Arc::new(facts)));
        setting.host(volumes(2 + u64::from(count)));
        setting.host(ena(1));
        let line = nodes::line(&setting.row(), Resource::EbsVolumes);
        (line.used, line.limit, line.headroom)
    };
    setting.cluster(ClusterFact::CsiNode(Some(CsiNodeFacts { ebs_volumes: Some(25) })));
    assert_eq!(of_pods(&mut setting, 0), (Some(0), Some(25), Some(25)));
    assert_eq!(of_pods(&mut setting, 25), (Some(25), Some(25), Some(0)));
    // Interfaces that came since take places: of 27 two are the image's, two the interfaces', ten the pods'.
    of_pods(&mut setting, 10);
    setting.host(ena(3));
    assert_eq!(nodes::line(&setting.row(), Resource::EbsVolumes).headroom, Some(13));
}

/// The count of all volumes has the root's in it, the line has not: one series must not have both.
#[test]
fn a_forecast_rests_on_what_its_row_shows() {
    let mut setting = m5_large();
    setting.cluster(ClusterFact::CsiNode(Some(CsiNodeFacts { ebs_volumes: Some(25) })));
    for _ in 0..40 {
        setting.host(volumes(25));
        setting.seconds(10);
        let line = nodes::line(&setting.row(), Resource::EbsVolumes);
        assert_eq!((line.used, line.headroom), (Some(24), Some(1)));
        assert_ne!(line.exhaustion_s, Exhaustion::Range { earliest_s: 0, likely_s: 0 });
    }
}

#[test]
fn an_outage_is_no_interval_and_what_was_waited_for_long_ago_is_no_stall() {
    let mut setting = Setting::default();
    setting.second();
    for _ in 0..4 {
        setting.read(Collector::Conntrack, Resource::ConntrackEntries, Scope::Node, 1, 1_000);
        setting.seconds(10);
    }
    setting.seconds(600);
    setting.read(Collector::Conntrack, Resource::ConntrackEntries, Scope::Node, 1, 1_000);
    setting.seconds(61);
    assert!(setting.row().resources.is_empty(), "one look after an outage counts as long as any other");

    let stall = |setting: &mut Setting, value| {
        let counters = vec![Counter { name: CounterName::MemoryStallMicros, scope: Scope::Node, value }];
        setting.host(HostFact::Counters { collector: Collector::Memory, counters });
    };
    stall(&mut setting, 0);
    setting.seconds(10);
    stall(&mut setting, 5_000_000);
    let low = |setting: &mut Setting| {
        setting.read(Collector::Disks, Resource::Memory, Scope::Node, 890, 1_000);
        setting.seconds(30);
        open(setting, Code::CapacityLow, Resource::Memory)
    };
    assert!(low(&mut setting));
    setting.seconds(60);
    assert!(!low(&mut setting), "nobody has told of stalls for more than a minute");
}

/// The longest intervals that the configuration allows.
#[test]
fn at_the_longest_cadence_nothing_flickers_and_a_lack_is_a_lack() {
    const KUBELET_S: u64 = 300 * 250 / 100;
    const METRICS_S: u64 = 30 * 250 / 100;
    let mut setting = Setting::default();
    setting.second();
    let mut lack = false;
    for second in 0..3 * KUBELET_S {
        if second % KUBELET_S == 0 {
            let samples = vec![sample(Resource::Pods, Scope::Node, None, Limit::Of(110))];
            setting.host(HostFact::Samples { collector: Collector::Kubelet, samples });
        }
        if second % METRICS_S == 0 {
            let counters =
                vec![Counter { name: CounterName::NoAvailableAddress, scope: Scope::Node, value: second / METRICS_S }];
            setting.host(HostFact::Counters { collector: Collector::IpamMetrics, counters });
        }
        setting.second();
        assert_eq!(nodes::line(&setting.row(), Resource::Pods).limit, Some(110), "after {second} s");
        lack |= open(&setting, Code::CapacityExhausted, Resource::PodIps);
    }
    assert!(lack);
}
