//! How many series a node costs: full, and after many short pods.

use agent_core::books::Ledger;
use agent_core::capacity::{Collector, Counter, CounterName, Limit, Resource, Scope};
use agent_core::dns::{Counts as DnsCounts, Outcome as DnsOutcome, Tally};
use agent_core::facts::{HostFact, LinkFacts, PodHostFacts};
use agent_core::output::{CapacityRow, Exhaustion};

use super::node::{row, samples_of, standing};
use super::*;
use crate::telemetry::Telemetry;
use crate::telemetry::catalogue::WITH_WORKLOAD;

/// Pods of a full node: the kubelet's usual most, each of a workload of its own.
const PODS: usize = 110;
/// What the documentation says that a full node stays below.
const MOST_SERIES: usize = 3_000;
/// As configured by default.
const MAX_SERIES: u32 = 3_000;
/// All that are attached on a kernel that has everything.
const PROBES: [&str; 16] = [
    "tcp",
    "connect4",
    "connect6",
    "release",
    "egress",
    "ingress",
    "exec",
    "fork",
    "exit",
    "cgroup_mkdir",
    "cgroup_rmdir",
    "preexisting",
    "baseline",
    "walk_tcp",
    "walk_udp",
    "walk_peers",
];
/// What becomes of records.
const FATE_NAMES: [&str; 9] =
    ["stored", "aggregated", "merged", "sampled", "suppressed", "lost_ring", "lost_decode", "lost_queue", "lost_store"];
/// Counts what found no room.
const SUPPRESSED: &str = "sekisho_series_suppressed_total";
const SECOND_NS: u64 = 1_000_000_000;

/// A pod by its number: uid, name and workload.
fn pod(number: usize) -> Identity {
    Identity {
        namespace: "shop".to_owned(),
        uid: format!("uid-{number}"),
        pod: format!("job-{number}-abcde"),
        workload: format!("job-{number}"),
        ..Identity::default()
    }
}

fn flow_of(
    number: usize,
    direction: &'static str,
    class: PeerClass,
    outcome: &'static str,
    retransmits: u64,
) -> Output {
    let identity = Arc::new(pod(number));
    let peer = Peer { ip: None, class, name: None, namespace: None, pod: None };
    output(FlowRow {
        who: Who { identity, process: None },
        direction,
        peer,
        outcome: Some(outcome),
        retransmits: Some(retransmits),
        ..flow("x")
    })
}

/// What a usual pod does: it calls a service and something outside, is called itself, and looks names up, which its search
/// list makes more of; each third one takes credentials and sends something to the outside again; each tenth meets a peer
/// that does not answer.
fn lives(telemetry: &Telemetry, number: usize, now: BootNs) {
    for (direction, class) in
        [("outbound", PeerClass::Service), ("outbound", PeerClass::AwsService), ("inbound", PeerClass::ClusterPod)]
    {
        telemetry.observe(&flow_of(number, direction, class, "established", 0), now);
    }
    let mut tally = Tally { search_waste: 2, ..Tally::default() };
    for outcome in [DnsOutcome::Answered, DnsOutcome::NxDomain] {
        tally.queries[outcome as usize] = 2;
    }
    telemetry.dns(&pod(number), &tally, now);
    if number.is_multiple_of(10) {
        telemetry.observe(&flow_of(number, "outbound", PeerClass::AwsService, "timed_out", 0), now);
    }
    if number.is_multiple_of(3) {
        telemetry.observe(&flow_of(number, "outbound", PeerClass::AwsService, "established", 7), now);
        for category in [Category::Token, Category::RoleList, Category::RoleCredentials] {
            let who = Who { identity: Arc::new(pod(number)), process: None };
            let row = MetadataRow { who, category: Some(category), ..metadata() };
            telemetry.observe(&Output::Metadata(Box::new(row)), now);
        }
    }
}

/// The node's looks at these pods.
fn look(telemetry: &Telemetry, pods: &[usize], now: BootNs) {
    let uids: Vec<String> = pods.iter().map(|number| pod(*number).uid).collect();
    let figures: Vec<_> = uids.iter().map(|uid| (uid.as_str(), 7, Limit::Of(100))).collect();
    let index = |place: usize| u32::try_from(place).expect("few interfaces");
    let links = (0..pods.len()).map(|place| LinkFacts { index: index(place), sent_bytes: 1, ..LinkFacts::default() });
    let placed = uids.iter().enumerate().map(|(place, uid)| PodHostFacts {
        uid: uid.as_str().into(),
        veth: Some(index(place)),
        ..PodHostFacts::default()
    });
    for fact in [
        HostFact::Links(links.collect()),
        HostFact::Pods(placed.collect()),
        samples_of(Collector::Threads, Resource::Threads, &figures),
        samples_of(Collector::OpenFiles, Resource::OpenFiles, &figures),
    ] {
        telemetry.host(&fact, now);
    }
    telemetry.keep(pods.iter().map(|number| pod(*number)), now);
    telemetry.expire(now);
}

/// What there is on a node whatever its pods do: every ceiling with two scopes where it has scopes, two network cards with
/// all allowances, every collector, probe, kind of record, call and source.
fn the_node_itself(telemetry: &Telemetry, now: BootNs) {
    let scopes = |resource: &Resource| match resource {
        Resource::DiskBytes | Resource::DiskInodes => vec!["file system /", "file system /var/lib/containerd"],
        Resource::SubnetIps => vec!["subnet subnet-a", "subnet subnet-b"],
        Resource::Threads => vec!["node", "slice kubepods.slice"],
        Resource::NetworkBandwidth | Resource::LinklocalPackets => vec!["interface eth0", "interface eth1"],
        _ => vec!["node"],
    };
    let rows = Resource::ALL.iter().flat_map(|resource| {
        scopes(resource).into_iter().map(|scope| row(*resource, scope, Some(1), Some(9), Exhaustion::NotGrowing))
    });
    telemetry.observe(
        &Output::Capacity(Box::new(CapacityRow {
            resources: rows.collect(),
            pods_fit: Some(0),
            pods_waiting: Some(0),
            binding_resource: Some(Resource::PodIps),
            ..CapacityRow::default()
        })),
        now,
    );
    let exceeded = [
        CounterName::BandwidthInExceeded,
        CounterName::BandwidthOutExceeded,
        CounterName::PacketsExceeded,
        CounterName::ConntrackExceeded,
        CounterName::LinklocalExceeded,
    ];
    let counters = ["eth0", "eth1"].into_iter().flat_map(|interface| {
        exceeded.map(|name| Counter { name, scope: Scope::Interface(interface.into()), value: 1 })
    });
    telemetry.host(&HostFact::Counters { collector: Collector::Ena, counters: counters.collect() }, now);
    let events = [
        CounterName::ConntrackDrop,
        CounterName::ConntrackInsertFailed,
        CounterName::NeighbourTableFull,
        CounterName::ListenDrops,
        CounterName::ListenOverflows,
        CounterName::IcmpTimeExceeded,
        CounterName::NoAvailableAddress,
        CounterName::Ec2CallsFailed,
        CounterName::SubnetFull,
    ];
    let counters = events.map(|name| Counter { name, scope: Scope::Node, value: 1 });
    telemetry.host(&HostFact::Counters { collector: Collector::Conntrack, counters: counters.to_vec() }, now);
    for collector in Collector::ALL {
        telemetry.host(&standing(*collector, None, false), now);
    }
    for ledger in Ledger::ALL {
        for fate in FATE_NAMES {
            telemetry.records(ledger.label(), fate, 1);
        }
    }
    telemetry.dns_counts(DnsCounts::default(), 1);
    for probe in PROBES {
        telemetry.probe(probe, true);
    }
    telemetry.history(1, 1, 1, true);
    telemetry.kubernetes_events(
        ["written", "repeated", "pod_gone", "queue_full", "rate_limited", "failed"].map(|outcome| (outcome, 1)),
    );
    let engine = engine();
    telemetry.findings(engine.ledger(), now);
    telemetry.cluster(engine.cluster(), WallNs(8_000_000_000));
    telemetry.ec2(engine.ec2(), WallNs(8_000_000_000));
}

fn series(exposition: &Exposition) -> usize {
    samples(exposition).len()
}

#[test]
fn a_node_with_110_pods_stays_under_3000_series() {
    let (telemetry, exposition) = new(MAX_SERIES);
    let now = BootNs(1);
    the_node_itself(&telemetry, now);
    let without_pods = series(&exposition);
    let pods: Vec<usize> = (0..PODS).collect();
    for number in &pods {
        lives(&telemetry, *number, now);
    }
    look(&telemetry, &pods, now);
    let count = series(&exposition);
    println!("{count} series, {without_pods} of them without any pod");
    assert!(count < MOST_SERIES, "{count} series");
    // The arithmetic of docs/metrics.md: 9 for what a pod does and 3 for its names, one more for each tenth, four for each
    // third; and 7 for each pod itself.
    assert_eq!(count - without_pods, PODS * (9 + 3 + 7) + PODS / 10 + 4 * PODS.div_ceil(3));
    assert!(without_pods < 700, "{without_pods} series without any pod");
    let suppressed: f64 =
        samples(&exposition).iter().filter(|(name, _)| name.starts_with(SUPPRESSED)).map(|(_, value)| value).sum();
    assert!(suppressed.abs() < f64::EPSILON, "{suppressed} updates found no room");
}

/// What each of many workloads does that does everything: three classes of peers both ways, each with two outcomes, and names;
/// each third one takes credentials and sends again.
fn works_hard(telemetry: &Telemetry, number: usize, now: BootNs) {
    let again = u64::from(number.is_multiple_of(3));
    for direction in ["outbound", "inbound"] {
        for class in [PeerClass::Service, PeerClass::AwsService, PeerClass::ClusterPod] {
            for outcome in ["established", "timed_out"] {
                telemetry.observe(&flow_of(number, direction, class, outcome, again), now);
            }
        }
    }
    lives(telemetry, number, now);
}

#[test]
fn workloads_that_do_everything_find_room_on_a_full_node() {
    let suppressed = |workloads: usize| {
        let (telemetry, exposition) = new(MAX_SERIES);
        for number in 0..workloads {
            works_hard(&telemetry, number, BootNs(1));
        }
        let samples = samples(&exposition);
        let of = |name: &str| {
            samples.iter().filter(|(series, _)| series.starts_with(name)).map(|(_, value)| value).sum::<f64>()
        };
        of(SUPPRESSED)
    };
    // 21 series each, and 6 more for each third one: 2,532 of 3,000.
    assert!(suppressed(PODS).abs() < f64::EPSILON);
    assert!(suppressed(PODS + 25) > 0.0, "the budget holds");
}

#[test]
fn short_pods_leave_no_more_series_than_the_living_need() {
    const STEPS: usize = 100;
    const NEW_PODS_A_STEP: usize = 20;
    let alive = |step: usize| (step * NEW_PODS_A_STEP..step * NEW_PODS_A_STEP + PODS).collect::<Vec<usize>>();
    let (telemetry, exposition) = new(MAX_SERIES);
    // Ten seconds a step: each pod lives for less than a minute, 2,000 come and go.
    let time = |step: usize| BootNs(u64::try_from(step).expect("few steps") * 10 * SECOND_NS + 1);
    let mut most = 0;
    for step in 0..STEPS {
        let pods = alive(step);
        for number in &pods {
            lives(&telemetry, *number, time(step));
        }
        look(&telemetry, &pods, time(step));
        if step % 10 == 9 {
            most = most.max(series(&exposition));
        }
    }
    // The dead stay for two minutes: they are twice as many as the living, and the budget holds. Pods have a pool of
    // their own of seven eighths of it, and what carries no workload is some 350.
    let max_series = usize::try_from(MAX_SERIES).expect("fits");
    assert!(most <= max_series + max_series * 7 / 8 + 500, "{most} series at a time");

    // Two minutes later the dead are gone; who lives goes on, and finds the room that they left.
    let pods = alive(STEPS - 1);
    for step in STEPS..STEPS + 13 {
        look(&telemetry, &pods, time(step));
    }
    for number in &pods {
        lives(&telemetry, *number, time(STEPS + 13));
    }
    look(&telemetry, &pods, time(STEPS + 13));
    let names = |exposition: &Exposition| -> BTreeSet<String> { samples(exposition).into_keys().collect() };
    let (fresh, fresh_exposition) = new(MAX_SERIES);
    for number in &pods {
        lives(&fresh, *number, time(0));
    }
    look(&fresh, &pods, time(0));
    let (left, needed) = (names(&exposition), names(&fresh_exposition));
    // What found no room meanwhile went to one workload together, and was counted: these series stay, one for each set of
    // the other labels.
    let is_overflow = |name: &str| name.contains("workload=\"other\"") || name.starts_with(SUPPRESSED);
    let (overflow, left): (Vec<String>, BTreeSet<String>) = {
        let (overflow, left): (Vec<String>, Vec<String>) = left.into_iter().partition(|name| is_overflow(name));
        (overflow, left.into_iter().collect())
    };
    let needed: BTreeSet<String> = needed.into_iter().filter(|name| !is_overflow(name)).collect();
    assert_eq!(left, needed, "the living have theirs, and the dead have none");
    // Four of connections, six of bytes, one of retransmits, three of metadata requests, three of names.
    assert!(overflow.len() <= 17 + WITH_WORKLOAD.len(), "{overflow:?}");
    println!("{most} series at most; {} left, and {} of what found no room", left.len(), overflow.len());
}
