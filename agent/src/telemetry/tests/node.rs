//! The node's ceilings in a scrape: what is known now and nothing else.

use agent_core::capacity::{Collector, Counter, CounterName, Limit, Resource, Sample, Scope, Unit};
use agent_core::facts::{HostFact, LinkFacts, PodHostFacts};
use agent_core::output::{CapacityRow, Exhaustion, ResourceRow};

use super::*;
use crate::telemetry::Telemetry;

pub(super) fn row(
    resource: Resource,
    scope: &str,
    used: Option<u64>,
    limit: Option<u64>,
    exhaustion_s: Exhaustion,
) -> ResourceRow {
    ResourceRow {
        resource,
        scope: scope.to_owned(),
        used,
        limit,
        unit: resource.unit(),
        source: "a source".to_owned(),
        age_s: 1,
        headroom: limit.zip(used).map(|(limit, used)| limit - used),
        exhaustion_s,
    }
}

fn capacity() -> Output {
    Output::Capacity(Box::new(CapacityRow {
        time: WallNs(0),
        resources: vec![
            row(Resource::PodIps, "node", Some(20), Some(27), Exhaustion::Range { earliest_s: 60, likely_s: 90 }),
            row(Resource::DiskBytes, "file system /", Some(5), Some(10), Exhaustion::NotGrowing),
            row(Resource::Memory, "node", Some(7), None, Exhaustion::CannotTell),
            row(Resource::Threads, "pod shop/cart-0", Some(7), Some(9), Exhaustion::NotGrowing),
        ],
        pods_fit: Some(7),
        binding_resource: Some(Resource::PodIps),
        pods_waiting: Some(2),
        left_out: 5,
        ..CapacityRow::default()
    }))
}

pub(super) fn samples_of(collector: Collector, resource: Resource, pods: &[(&str, u64, Limit)]) -> HostFact {
    let sample = |(uid, used, limit): &(&str, u64, Limit)| Sample {
        resource,
        scope: Scope::Pod(Arc::from(*uid)),
        used: Some(*used),
        limit: *limit,
        source: "a source".into(),
    };
    HostFact::Samples { collector, samples: pods.iter().map(sample).collect() }
}

fn links(bytes: u64) -> HostFact {
    HostFact::Links(vec![LinkFacts {
        index: 5,
        received_bytes: bytes,
        received_packets: 2,
        sent_bytes: 10 * bytes,
        sent_packets: 20,
        ..LinkFacts::default()
    }])
}

fn living(uid: &str, pod: &str) -> Identity {
    Identity { uid: uid.to_owned(), ..Identity::clone(&named(pod)) }
}

fn named(pod: &str) -> Identity {
    Identity { namespace: "shop".to_owned(), pod: pod.to_owned(), workload: "w".to_owned(), ..Identity::default() }
}

pub(super) fn standing(collector: Collector, error: Option<&str>, absent: bool) -> HostFact {
    HostFact::Collector { collector, error: error.map(ToOwned::to_owned), absent, duration_ns: 1_500_000 }
}

/// Everything once, so that each metric has a series.
pub(super) fn told(telemetry: &Telemetry) {
    let now = BootNs(1);
    telemetry.observe(&capacity(), now);
    let facts = [
        links(1),
        HostFact::Pods(vec![PodHostFacts { uid: "u1".into(), veth: Some(5), ..PodHostFacts::default() }]),
        samples_of(Collector::Threads, Resource::Threads, &[("u1", 3, Limit::Of(10))]),
        samples_of(Collector::OpenFiles, Resource::OpenFiles, &[("u1", 256, Limit::Of(1_024))]),
        HostFact::Counters {
            collector: Collector::Ena,
            counters: vec![Counter {
                name: CounterName::LinklocalExceeded,
                scope: Scope::Interface("eth0".into()),
                value: 9,
            }],
        },
        HostFact::Counters {
            collector: Collector::Conntrack,
            counters: vec![Counter { name: CounterName::ConntrackDrop, scope: Scope::Node, value: 4 }],
        },
        standing(Collector::Conntrack, None, false),
        standing(Collector::Disks, Some("broken"), false),
        standing(Collector::Ena, Some("no such thing"), true),
    ];
    for fact in &facts {
        telemetry.host(fact, now);
    }
    telemetry.keep([living("u1", "cart-0")].into_iter(), now);
}

#[test]
fn a_scrape_shows_what_was_told() {
    let (telemetry, exposition) = new(100);
    told(&telemetry);
    let samples = samples(&exposition);
    let pod = r#"namespace="shop",pod="cart-0""#;
    for (series, value) in [
        (r#"sekisho_node_capacity_used{resource="pod_ips",scope="node",unit="count"}"#.to_owned(), 20.0),
        (r#"sekisho_node_capacity_limit{resource="pod_ips",scope="node",unit="count"}"#.to_owned(), 27.0),
        (r#"sekisho_node_capacity_used{resource="disk_bytes",scope="file system /",unit="bytes"}"#.to_owned(), 5.0),
        (r#"sekisho_node_capacity_used{resource="memory",scope="node",unit="bytes"}"#.to_owned(), 7.0),
        ("sekisho_node_pods_fit".to_owned(), 7.0),
        (r#"sekisho_node_binding_resource{resource="pod_ips"}"#.to_owned(), 1.0),
        (r#"sekisho_capacity_exhaustion_seconds{resource="pod_ips",scope="node"}"#.to_owned(), 90.0),
        (
            r#"sekisho_capacity_exhaustion_seconds{resource="disk_bytes",scope="file system /"}"#.to_owned(),
            f64::INFINITY,
        ),
        (format!("sekisho_pod_threads{{{pod}}}"), 3.0),
        (format!("sekisho_pod_threads_limit{{{pod}}}"), 10.0),
        (format!("sekisho_pod_open_files_ratio{{{pod}}}"), 0.25),
        (format!(r#"sekisho_pod_network_bytes_total{{{pod},direction="egress"}}"#), 1.0),
        (format!(r#"sekisho_pod_network_bytes_total{{{pod},direction="ingress"}}"#), 10.0),
        (format!(r#"sekisho_pod_network_packets_total{{{pod},direction="ingress"}}"#), 20.0),
        (r#"sekisho_ena_allowance_exceeded_total{interface="eth0",allowance="linklocal"}"#.to_owned(), 9.0),
        (r#"sekisho_capacity_events_total{event="conntrack_drop"}"#.to_owned(), 4.0),
        ("sekisho_node_pods_waiting".to_owned(), 2.0),
        ("sekisho_capacity_left_out_total".to_owned(), 5.0),
        (r#"sekisho_collector_success{collector="conntrack"}"#.to_owned(), 1.0),
        (r#"sekisho_collector_success{collector="disks"}"#.to_owned(), 0.0),
        (r#"sekisho_collector_duration_seconds{collector="ena"}"#.to_owned(), 0.0015),
    ] {
        assert_eq!(samples.get(&series), Some(&value), "{series}");
    }
    for absent in [
        r#"sekisho_node_capacity_limit{resource="memory",scope="node",unit="bytes"}"#,
        r#"sekisho_capacity_exhaustion_seconds{resource="memory",scope="node"}"#,
        r#"sekisho_collector_success{collector="ena"}"#,
    ] {
        assert_eq!(samples.get(absent), None, "absent is not zero: {absent}");
    }
    assert!(!samples.keys().any(|series| series.contains("pod shop/cart-0")), "pods have metrics of their own");
}

#[test]
fn what_is_not_told_any_more_goes() {
    let (telemetry, exposition) = new(100);
    told(&telemetry);
    telemetry.host(&samples_of(Collector::Threads, Resource::Threads, &[]), BootNs(2));
    let cannot_tell = CapacityRow::default();
    telemetry.observe(&Output::Capacity(Box::new(cannot_tell)), BootNs(2));
    telemetry.host(&links(7), BootNs(2));
    let text = exposition.render().expect("renders");
    for gone in [
        "sekisho_pod_threads{",
        "\nsekisho_node_pods_fit ",
        "\nsekisho_node_pods_waiting ",
        "sekisho_node_binding_resource{",
        "_used{",
    ] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    let bytes = r#"sekisho_pod_network_bytes_total{namespace="shop",pod="cart-0",direction="egress"} 7"#;
    assert!(text.contains(bytes), "{text}");
    telemetry.host(&HostFact::Links(Vec::new()), BootNs(3));
    assert!(exposition.render().expect("renders").contains(bytes), "a dead pod's count is scraped once more");
    telemetry.expire(BootNs(2 + IDLE_NS));
    assert!(!exposition.render().expect("renders").contains("cart-0"), "and then it goes");
}

/// A stateful pod comes again under its name, with another uid, before the old one is forgotten.
#[test]
fn a_name_is_shown_once() {
    let (telemetry, exposition) = new(100);
    for (at, uid, threads) in [(1, "old", 3), (2, "new", 4)] {
        let fact = samples_of(Collector::Threads, Resource::Threads, &[(uid, threads, Limit::Unlimited)]);
        telemetry.host(&fact, BootNs(at));
    }
    telemetry.host(&HostFact::Pods(vec![PodHostFacts { uid: "old".into(), ..PodHostFacts::default() }]), BootNs(1));
    telemetry.keep([living("old", "db-0"), living("new", "db-0")].into_iter(), BootNs(3));
    let text = exposition.render().expect("renders");
    assert_eq!(text.matches(r#"sekisho_pod_threads{namespace="shop",pod="db-0"} 4"#).count(), 1, "{text}");
    assert_eq!(text.matches("sekisho_pod_threads{").count(), 1);
}

#[test]
fn pods_are_bounded_and_the_rest_is_counted() {
    let (telemetry, exposition) = new(100);
    let uids: Vec<String> = (0..100).map(|number| format!("u{number}")).collect();
    let pods: Vec<_> = uids.iter().map(|uid| (uid.as_str(), 1, Limit::Unlimited)).collect();
    telemetry.host(&samples_of(Collector::Threads, Resource::Threads, &pods), BootNs(1));
    telemetry.keep(uids.iter().map(|uid| living(uid, uid)), BootNs(1));
    let samples = samples(&exposition);
    assert_eq!(samples.keys().filter(|series| series.starts_with("sekisho_pod_threads{")).count(), 12);
    let suppressed = r#"sekisho_series_suppressed_total{metric="sekisho_pod_threads"}"#;
    assert_eq!(samples.get(suppressed), Some(&88.0));
}

#[test]
fn units_agree_with_json() {
    for unit in [Unit::Count, Unit::Bytes, Unit::MilliCores, Unit::BitsPerSecond, Unit::BytesPerSecond, Unit::PerSecond]
    {
        assert_eq!(serde_json::to_value(unit).expect("a value"), labels::unit(unit));
    }
    for collector in Collector::ALL {
        assert_eq!(serde_json::to_value(collector).expect("a value"), collector.name());
    }
}
