//! What is raised, what is not, and when it ends.

use super::*;
use crate::capacity::{Counter, CounterName};
use crate::finding::{Code, Severity, Verdict};

/// What the last evaluation said of the node: `low`, `exhausted`, `well`, `doubt`.
fn said(setting: &Setting, resource: Resource, scope: &str) -> &'static str {
    let judged = setting.capacity.judgements();
    let of = |code| {
        let mut found = judged.iter().filter(|judgement| judgement.code == code);
        found.find(|judgement| &*judgement.subject.resource == resource.name() && &*judgement.subject.scope == scope)
    };
    match (of(Code::CapacityExhausted).map(|found| &found.verdict), of(Code::CapacityLow).map(|found| &found.verdict)) {
        (Some(Verdict::Violated(violation)), _) if violation.severity == Severity::High => "exhausted",
        (_, Some(Verdict::Violated(violation))) if violation.severity == Severity::Warning => "low",
        (Some(Verdict::CannotTell(_)), _) | (_, Some(Verdict::CannotTell(_))) => "doubt",
        (Some(Verdict::Holds), Some(Verdict::Holds)) => "well",
        (None, None) => "not mentioned",
        other => panic!("{other:?}"),
    }
}

/// Half a minute later, with a reading just before the evaluation.
fn evaluate(setting: &mut Setting, resource: Resource, used: u64, limit: u64) -> &'static str {
    setting.seconds(29);
    setting.read(Collector::Conntrack, resource, Scope::Node, used, limit);
    setting.seconds(1);
    said(setting, resource, "node")
}

fn started() -> Setting {
    let mut setting = Setting::default();
    setting.second();
    setting
}

#[test]
fn thresholds_have_a_distance_between_opening_and_closing() {
    let mut setting = started();
    let mut at = |used| evaluate(&mut setting, Resource::ConntrackEntries, used, 1_000);
    let course = [100, 849, 850, 849, 801, 799, 849, 990, 950, 941, 939, 799];
    let expected =
        ["well", "well", "low", "low", "low", "well", "well", "exhausted", "exhausted", "exhausted", "low", "well"];
    assert_eq!(course.map(&mut at), expected);
}

#[test]
fn only_cliffs_are_raised() {
    for &resource in Resource::ALL {
        let mut setting = m5_large();
        // Pods are far from their limit: addresses bind.
        setting.pods([pod(1, 0, 0)]);
        let said = evaluate(&mut setting, resource, 1_000, 1_000);
        let derived = matches!(resource, Resource::Pods | Resource::CpuRequests | Resource::MemoryRequests);
        match (resource.is_cliff(), derived) {
            (true, false) => assert_eq!(said, "exhausted", "{resource:?}"),
            (_, _) => assert_eq!(said, "not mentioned", "{resource:?}"),
        }
    }
}

#[test]
fn a_full_node_is_healthy_where_the_kubelet_refuses_first() {
    let mut setting = m5_large();
    let mut at = |pods: u32, assigned| {
        setting.seconds(20);
        setting.pods((0..pods).map(|index| pod(index, 0, 0)));
        setting.ipam(assigned, IpamSettings::default());
        setting.seconds(10);
        said(&setting, Resource::PodIps, "node")
    };
    assert_eq!(at(29, 27), "well", "two on the node's network: 29 of 29 pods, 27 of 27 addresses");
    assert_eq!(at(28, 27), "exhausted", "the scheduler sends one more, and there is no address for it");
    assert_eq!(at(10, 8), "well");
    // Nobody tells how many pods may come.
    let mut alone = started();
    alone.host(HostFact::InstanceType { name: Arc::from("m5.large"), source: Arc::from("DMI") });
    alone.seconds(28);
    alone.ipam(27, IpamSettings::default());
    alone.seconds(2);
    assert_eq!(said(&alone, Resource::PodIps, "node"), "doubt");
}

#[test]
fn growth_is_raised_before_the_end_and_a_step_is_not() {
    let mut growing = started();
    // At 20 a minute 200 more take ten minutes; the level is 510.
    let course: Vec<_> = (0..20)
        .map(|step| evaluate(&mut growing, Resource::Threads, 300 + 10 * step, 600))
        .take_while(|said| *said != "low")
        .collect();
    assert!(!course.is_empty() && 300 + 10 * course.len() < 510, "foreseen after {} readings", course.len());
    let judged = growing.capacity.judgements().to_vec();
    let text = judged.iter().find_map(|judgement| match &judgement.verdict {
        Verdict::Violated(violation) => Some(violation.text.clone()),
        _ => None,
    });
    assert!(text.is_some_and(|text| text.contains("threads of node") && text.contains("min")));
    let mut step = started();
    for index in 0..20 {
        let used = if index < 10 { 300 } else { 480 };
        assert_eq!(evaluate(&mut step, Resource::Threads, used, 600), "well", "{index}");
    }
}

#[test]
fn a_silent_source_leaves_doubt_and_a_scope_that_is_gone_does_not() {
    let mut setting = started();
    for _ in 0..4 {
        assert_eq!(evaluate(&mut setting, Resource::ConntrackEntries, 900, 1_000), "low");
    }
    setting.seconds(120);
    assert_eq!(said(&setting, Resource::ConntrackEntries, "node"), "doubt");
    assert_eq!(evaluate(&mut setting, Resource::ConntrackEntries, 840, 1_000), "low", "it was never seen to end");
    assert_eq!(evaluate(&mut setting, Resource::ConntrackEntries, 100, 1_000), "well");
    let file_system = |path: &str| Scope::FileSystem(Arc::from(path));
    let disks = |used: &[(&str, u64)]| HostFact::Samples {
        collector: Collector::Disks,
        samples: used
            .iter()
            .map(|(path, used)| sample(Resource::DiskBytes, file_system(path), Some(*used), Limit::Of(100)))
            .collect(),
    };
    setting.host(disks(&[("/", 50), ("/data", 95)]));
    setting.seconds(30);
    assert_eq!(said(&setting, Resource::DiskBytes, "file system /data"), "low");
    setting.host(disks(&[("/", 50)]));
    setting.seconds(30);
    assert_eq!(said(&setting, Resource::DiskBytes, "file system /data"), "not mentioned");
    assert_eq!(said(&setting, Resource::DiskBytes, "file system /"), "well");
}

#[test]
fn pods_are_named_and_only_mentioned_when_something_is_wrong() {
    let mut setting = m5_large();
    setting.pods([pod(1, 0, 0), pod(2, 0, 0)]);
    let of = |uid: &str, used| sample(Resource::OpenFiles, Scope::Pod(Arc::from(uid)), Some(used), Limit::Of(1_024));
    setting.seconds(28);
    setting.host(HostFact::Samples {
        collector: Collector::OpenFiles,
        samples: vec![of("uid-1", 1_020), of("uid-2", 10), of("uid-9", 1_000)],
    });
    setting.seconds(2);
    assert_eq!(said(&setting, Resource::OpenFiles, "pod shop/cart-1"), "exhausted");
    assert_eq!(said(&setting, Resource::OpenFiles, "pod shop/cart-2"), "not mentioned");
    assert_eq!(said(&setting, Resource::OpenFiles, "pod uid-9"), "low");
    let subject = setting.capacity.judgements().iter().find(|judged| &*judged.subject.uid == "uid-1").expect("raised");
    assert_eq!((&*subject.subject.namespace, &*subject.subject.pod), ("shop", "cart-1"));
}

#[test]
fn counters_of_refusals_raise_and_a_reset_does_not() {
    let mut setting = started();
    let count = |setting: &mut Setting, name, value| {
        setting.host(HostFact::Counters {
            collector: Collector::Conntrack,
            counters: vec![Counter { name, scope: Scope::Node, value }],
        });
    };
    // What was counted before the agent's start is no news; nor is a fall.
    count(&mut setting, CounterName::ConntrackDrop, 500);
    setting.seconds(30);
    count(&mut setting, CounterName::ConntrackDrop, 20);
    assert_eq!(evaluate(&mut setting, Resource::ConntrackEntries, 10, 1_000), "well");
    count(&mut setting, CounterName::ConntrackDrop, 23);
    assert_eq!(evaluate(&mut setting, Resource::ConntrackEntries, 900, 1_000), "exhausted");
    // Five minutes later it is over.
    setting.seconds(300);
    assert_eq!(evaluate(&mut setting, Resource::ConntrackEntries, 10, 1_000), "well");
    // Where nobody tells how much there is, the refusal is what is known.
    count(&mut setting, CounterName::NeighbourTableFull, 0);
    setting.seconds(10);
    count(&mut setting, CounterName::NeighbourTableFull, 1);
    setting.seconds(30);
    assert_eq!(said(&setting, Resource::NeighbourEntries, "node"), "exhausted");
}

#[test]
fn a_pod_that_waits_for_an_address_for_a_moment_is_no_lack() {
    let mut setting = started();
    let refuse = |setting: &mut Setting, value| {
        setting.host(HostFact::Counters {
            collector: Collector::IpamMetrics,
            counters: vec![Counter { name: CounterName::NoAvailableAddress, scope: Scope::Node, value }],
        });
        setting.seconds(30);
        said(setting, Resource::PodIps, "node")
    };
    assert_eq!(refuse(&mut setting, 0), "not mentioned");
    assert_eq!(refuse(&mut setting, 12), "not mentioned");
    for value in [12, 12, 12, 12, 12, 12, 12, 12, 12] {
        assert_eq!(refuse(&mut setting, value), "not mentioned");
    }
    // Again and again for minutes.
    let course: Vec<_> = (13..20).map(|value| refuse(&mut setting, value)).collect();
    assert_eq!(course.last(), Some(&"exhausted"), "{course:?}");
    assert_eq!(course.first(), Some(&"not mentioned"));
}

#[test]
fn memory_is_meant_to_be_used() {
    let mut setting = started();
    assert_eq!(evaluate(&mut setting, Resource::Memory, 900, 1_000), "well");
    let stall = |setting: &mut Setting, value| {
        let counters = vec![Counter { name: CounterName::MemoryStallMicros, scope: Scope::Node, value }];
        setting.host(HostFact::Counters { collector: Collector::Memory, counters });
    };
    stall(&mut setting, 0);
    setting.seconds(30);
    // Six seconds of thirty.
    stall(&mut setting, 6_000_000);
    assert_eq!(evaluate(&mut setting, Resource::Memory, 900, 1_000), "low");
    stall(&mut setting, 6_000_000);
    assert_eq!(evaluate(&mut setting, Resource::Memory, 880, 1_000), "well");
    assert_eq!(evaluate(&mut setting, Resource::Memory, 960, 1_000), "low");
    assert_eq!(evaluate(&mut setting, Resource::Memory, 995, 1_000), "exhausted");
}
