//! Inputs to outputs, beside what folding does.

use agent_ebpf::wire::Service;

use super::*;
use crate::books::Fate;
use crate::facts::{ClusterFact, RemotePod, RemotePodName};
use crate::input::{
    Category, DecodeError, ForkFact, ImdsVersion, MetadataOutcome, Method, ProcessFact, RequestFact, ResponseFact,
};
use crate::output::{AttributionKind, PeerClass};
use crate::testing::*;
use crate::time::WallNs;

fn metadata() -> MetadataFact {
    MetadataFact {
        time: BootNs(3 * SECOND),
        cgroup_id: CGROUP,
        cookie: 9,
        process: Some(named(10, "aws")),
        ancestors: vec![named(5, "sh")],
        sender_only: false,
        ends: ends("10.0.0.1", 40_000, "169.254.169.254", 80),
        service: Service::Imds,
        request: Some(RequestFact {
            method: Method::Get,
            category: Category::RoleCredentials,
            role: Some("node".into()),
            version: ImdsVersion::V1,
            forwarded_for: None,
        }),
        response: Some(ResponseFact { status: 200, ttl: 64, bytes: 900, access_key_id: Some("ASIAEXAMPLE".into()) }),
        outcome: MetadataOutcome::Ok,
        latency_ns: Some(1_234_567),
        origin: None,
    }
}

#[test]
fn a_metadata_request_becomes_a_row_at_once() {
    let mut engine = engine();
    feed(&mut engine, [Input::Exec(exec(5, "/bin/sh")), Input::Exec(exec(10, "/usr/bin/aws"))]);
    let outputs = feed(&mut engine, [Input::Metadata(Box::new(metadata()))]);
    let [Output::Metadata(row)] = &outputs[..] else { panic!("{outputs:?}") };
    let process = row.who.process.as_deref().unwrap();
    assert_eq!((process.pid, process.exe.as_deref(), process.by), (10, Some("/usr/bin/aws"), By::Connect));
    assert_eq!(process.ancestors[0].exe.as_deref(), Some("/bin/sh"));
    assert_eq!(row.who.identity.workload, "app.service");
    assert_eq!(
        (row.service, row.version, row.status, row.response_ttl),
        ("imds", ImdsVersion::V1, Some(200), Some(64))
    );
    assert_eq!((row.role.as_deref(), row.access_key_id.as_deref()), (Some("node"), Some("ASIAEXAMPLE")));
    assert_eq!(
        (row.latency_us, row.response_bytes, row.local.ip.as_deref()),
        (Some(1_234), Some(900), Some("10.0.0.1"))
    );
    // The clocks were told at one second: two seconds later.
    assert_eq!(row.time, WallNs((1_767_323_045 + 2) * 1_000_000_000));
}

#[test]
fn a_metadata_exchange_without_request_says_nothing_of_it() {
    let fact = MetadataFact { request: None, response: None, process: None, sender_only: true, ..metadata() };
    let outputs = feed(&mut engine(), [Input::Metadata(Box::new(fact))]);
    let [Output::Metadata(row)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((row.method, row.category, row.version, row.status), (None, None, ImdsVersion::None, None));
    assert!(row.who.process.is_none());
}

#[test]
fn an_exec_becomes_a_row_with_its_ancestry() {
    let mut engine = engine();
    let seen = ProcessFact {
        process: named(5, "systemd"),
        parent: None,
        cgroup_id: None,
        exe: Some("/sbin/init".into()),
        args: Vec::new(),
    };
    let fork = ForkFact { time: BootNs(SECOND), cgroup_id: CGROUP, child: named(10, "systemd"), parent: owner(5) };
    let inputs = [Input::ProcessSeen(seen), Input::Fork(fork), Input::Exec(exec(10, "/usr/bin/app"))];
    assert!(feed(&mut engine, inputs).is_empty(), "held until the tick");
    assert_eq!(engine.books().line(Ledger::Process).pending, 1);
    let outputs = feed(&mut engine, [tick(2)]);
    let [Output::Process(row)] = &outputs[..] else { panic!("{outputs:?}") };
    let process = row.who.process.as_deref().unwrap();
    assert_eq!((process.exe.as_deref(), process.comm.as_str(), process.by), (Some("/usr/bin/app"), "app", By::Exec));
    assert_eq!(process.ancestors[0].exe.as_deref(), Some("/sbin/init"));
    let line = engine.books().line(Ledger::Process);
    assert_eq!((line.seen, line.fate(Fate::Stored), line.fate(Fate::Aggregated)), (2, 1, 1));
}

#[test]
fn a_program_replaced_before_the_tick_shows_no_resolved_path() {
    let resolved = |path: &str| Input::ExeResolved { process: owner(10), path: path.to_owned() };
    let outputs = feed(
        &mut engine(),
        [
            Input::Exec(exec(10, "sh")),
            resolved("/usr/bin/dash"),
            Input::Exec(exec(10, "app")),
            resolved("/opt/app"),
            Input::Exec(exec(11, "other")),
            Input::Stop,
        ],
    );
    let paths: Vec<_> = outputs
        .iter()
        .map(|output| match output {
            Output::Process(row) => row.who.process.as_deref().unwrap().exe_resolved.as_deref(),
            other => panic!("{other:?}"),
        })
        .collect();
    // Whether dash was read before or after the second exec cannot be told.
    assert_eq!(paths, [None, Some("/opt/app"), None]);
}

#[test]
fn a_flood_of_programs_is_not_held_back() {
    let mut engine = engine();
    let starts = (0..u32::try_from(MAX_STARTS).unwrap()).map(|pid| Input::Exec(exec(pid + 1, "/app")));
    assert_eq!(feed(&mut engine, starts).len(), MAX_STARTS);
}

#[test]
fn what_is_not_known_is_unknown() {
    let mut engine = engine();
    let fact = MetadataFact { cgroup_id: 999, ..metadata() };
    let outputs = feed(&mut engine, [Input::Metadata(Box::new(fact))]);
    let [Output::Metadata(row)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(row.who.identity.attribution, AttributionKind::Unknown);
    assert_eq!(row.who.identity.why, Some(crate::attribution::why::CGROUP));
}

fn totals(lost: u64) -> Input {
    let mut records = [[0; agent_ebpf::shared::FATES]; agent_ebpf::shared::KINDS];
    records[agent_ebpf::wire::Kind::MetadataEnd.index()] = [10 + lost, 10, 0, 0, lost];
    Input::KernelTotals(Box::new(KernelTotals { records, ..KernelTotals::default() }))
}

#[test]
fn gaps_are_told_and_made_of_what_rings_lost() {
    let mut engine = engine();
    let (start, end) = (WallNs(500_000_000), WallNs(1_000_000_000));
    let told = Input::Gap { start, end, cause: GapCause::Stopped, lost: None };
    let outputs = feed(&mut engine, [told, totals(0), tick(3), totals(4), totals(4)]);
    let [Output::Gap(told), Output::Gap(lost)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((told.end.0 - told.start.0, told.records_lost.len()), (500_000_000, 0));
    assert_eq!((lost.cause, lost.end.0 - lost.start.0), (GapCause::RingFull, 2_000_000_000));
    assert_eq!(lost.records_lost, [("metadata", 4)].into());
    // Lost before the first totals: since the start.
    let outputs = feed(&mut crate::testing::engine(), [tick(3), totals(4)]);
    let [Output::Gap(lost)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(lost.end.0 - lost.start.0, 2_000_000_000);
}

#[test]
fn the_books_hold_every_record() {
    let mut engine = engine();
    feed(
        &mut engine,
        [
            totals(4),
            Input::Decoded { metadata: 7, cgroups: 1 },
            Input::Metadata(Box::new(metadata())),
            Input::Undecodable { kind: Some(agent_ebpf::wire::Kind::MetadataSegment), why: DecodeError::Field },
            Input::Undecodable { kind: None, why: DecodeError::Short },
            Input::Tcp(tcp(1)),
        ],
    );
    let line = engine.books().line(Ledger::Metadata);
    assert_eq!((line.seen, line.pending, line.fate(Fate::Aggregated)), (14, 2, 7));
    assert_eq!(engine.books().line(Ledger::Cgroup).fate(Fate::Aggregated), 1);
    assert_eq!((line.fate(Fate::LostDecode), line.fate(Fate::LostRing)), (1, 4));
    assert_eq!(engine.books().line(Ledger::Unknown).fate(Fate::LostDecode), 1);
    assert_eq!(engine.books().line(Ledger::Tcp).pending, 1, "held in the fold");
    feed(&mut engine, [Input::Stop]);
    assert_eq!(engine.books().line(Ledger::Tcp).fate(Fate::Aggregated), 1);
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = || {
        let mut engine = engine();
        let inputs = (0..200_u64).map(|n| {
            let peer = format!("10.1.{}.{}", n % 7, n % 11);
            Input::Tcp(crate::input::TcpFact { ends: ends("10.0.0.1", 1, &peer, 80), ..tcp(n) })
        });
        feed(&mut engine, [totals(1)].into_iter().chain(inputs).chain([tick(20), Input::Stop]))
    };
    assert_eq!(run(), run());
}

// === names ===

fn names(outputs: &[Output]) -> Vec<(&str, &str)> {
    let identities = outputs.iter().filter_map(|output| match output {
        Output::Metadata(row) => Some(&row.who.identity),
        Output::Flow(row) => Some(&row.who.identity),
        Output::Process(row) => Some(&row.who.identity),
        Output::Finding(_) | Output::Object(_) => None,
        other => panic!("{other:?}"),
    });
    identities.map(|identity| (&*identity.pod, &*identity.container)).collect()
}

fn request(n: u32) -> Input {
    Input::Metadata(Box::new(MetadataFact { cgroup_id: pod_cgroup(n), ..metadata() }))
}

#[test]
fn names_that_come_late_are_applied_to_rows_still_held() {
    let mut engine = engine();
    feed(&mut engine, [pods([pod(2)]), pod_present(1), pod_present(2)]);
    let flow = Input::Tcp(crate::input::TcpFact { cgroup_id: pod_cgroup(1), ..tcp(1) });
    assert!(feed(&mut engine, [request(1), flow]).is_empty(), "held");
    assert_eq!(names(&feed(&mut engine, [request(2)])), [("cart-2", "app")], "a pod with a name is told at once");
    assert_eq!(names(&feed(&mut engine, [pods([pod(1), pod(2)])])), [("cart-1", "app")]);
    assert_eq!(names(&feed(&mut engine, [Input::Stop])), [("cart-1", "app")]);
}

#[test]
fn a_request_waits_five_seconds_for_a_name_and_only_where_pods_are_watched() {
    let mut engine = engine();
    feed(&mut engine, [pod_present(1)]);
    assert_eq!(names(&feed(&mut engine, [request(1)])), [("", &*container_id(1))], "nobody tells names here");
    feed(&mut engine, [pods([])]);
    assert!(feed(&mut engine, [request(1), tick(5)]).is_empty());
    assert_eq!(names(&feed(&mut engine, [tick(6)])), [("", &*container_id(1))]);
    feed(&mut engine, [request(1)]);
    assert_eq!(names(&feed(&mut engine, [Input::Stop])).len(), 1, "nothing is kept at the end");
}

#[test]
fn requests_beyond_the_bound_do_not_wait() {
    let mut engine = engine();
    feed(&mut engine, [pod_present(1), pods([])]);
    assert_eq!(names(&feed(&mut engine, (0..MAX_HELD + 3).map(|_| request(1)))).len(), 3);
}

#[test]
fn a_pod_that_is_gone_keeps_its_name_for_its_last_rows() {
    let mut engine = engine();
    feed(&mut engine, [pods([pod(1)]), pod_present(1), pods([])]);
    feed(&mut engine, [Input::CgroupGone { id: pod_cgroup(1), time: BootNs(2 * SECOND) }]);
    assert_eq!(names(&feed(&mut engine, [request(1)])), [("cart-1", "app")]);
}

#[test]
fn peers_on_other_nodes_have_the_names_of_a_fresh_look_up() {
    let mut engine = engine();
    let looked_up = |ip: &str| {
        let pod = RemotePodName { namespace: "db".into(), pod: "pg-0".into() };
        cluster(ClusterFact::RemotePod(RemotePod { ip: ip.parse().unwrap(), pod: Some(pod), at: WallNs(0) }))
    };
    let to = |peer: &str| Input::Tcp(crate::input::TcpFact { ends: ends("10.0.0.1", 1, peer, 80), ..tcp(1) });
    feed(&mut engine, [looked_up("10.0.0.2"), looked_up("169.254.169.254")]);
    let rows = fold(&mut engine, [to("10.0.0.2"), to("10.0.0.3"), to("169.254.169.254")]);
    let peers: Vec<_> = rows.iter().map(|row| (row.peer.pod.as_deref(), row.peer.class)).collect();
    assert_eq!(peers, [(Some("pg-0"), PeerClass::ClusterPod), (None, PeerClass::Unknown), (None, PeerClass::Imds)]);
    feed(&mut engine, [tick(1 + crate::cluster::REMOTE_VALID_NS / SECOND + 1)]);
    assert_eq!(fold(&mut engine, [to("10.0.0.2")])[0].peer.pod, None, "too long ago");
}

// === ceilings ===

/// A reading of the connection tracking table, which takes a hundred.
fn conntrack(used: u64) -> Input {
    let sample = crate::capacity::Sample {
        resource: crate::capacity::Resource::ConntrackEntries,
        scope: crate::capacity::Scope::Node,
        used: Some(used),
        limit: crate::capacity::Limit::Of(100),
        source: std::sync::Arc::from("nf_conntrack_count"),
    };
    let collector = crate::capacity::Collector::Conntrack;
    Input::Host(Box::new(HostFact::Samples { collector, samples: vec![sample] }))
}

/// Seconds with a tick and a reading each.
fn watched(engine: &mut Engine, seconds: std::ops::Range<u64>, used: u64) -> Vec<Output> {
    let mut outputs = Vec::new();
    for second in seconds {
        engine.handle(Input::Tick { boot: BootNs(second * SECOND), wall: WallNs(0) }, &mut outputs);
        engine.handle(conntrack(used), &mut outputs);
    }
    outputs
}

#[test]
fn ceilings_are_told_every_half_minute_when_somebody_looks() {
    let mut engine = Engine::new(EngineConfig::default());
    let mut outputs = Vec::new();
    for second in 0..100 {
        engine.handle(Input::Tick { boot: BootNs(second * SECOND), wall: WallNs(0) }, &mut outputs);
    }
    assert!(outputs.is_empty(), "nobody looked: {outputs:?}");
    engine.handle(conntrack(10), &mut outputs);
    assert_eq!(engine.capacity().resources.len(), 1, "at once, for whoever asks");
    let outputs = watched(&mut engine, 100..160, 10);
    assert_eq!(outputs.iter().map(Output::kind).collect::<Vec<_>>(), ["capacity", "capacity"]);
}

#[test]
fn a_cliff_that_is_near_becomes_a_finding_and_ends() {
    let mut engine = Engine::new(EngineConfig::default());
    let findings = |outputs: Vec<Output>| -> Vec<(&'static str, crate::output::State, String)> {
        let found = outputs.into_iter().filter_map(|output| match output {
            Output::Finding(row) => Some((row.code.name(), row.state, row.cause)),
            _ => None,
        });
        found.collect()
    };
    assert_eq!(findings(watched(&mut engine, 0..100, 10)), []);
    let opened = findings(watched(&mut engine, 100..200, 90));
    assert_eq!(opened, [("capacity-low", crate::output::State::Open, "conntrack_entries".to_owned())]);
    let used_up = findings(watched(&mut engine, 200..300, 100));
    let names: Vec<_> = used_up.iter().map(|(code, state, _)| (*code, *state)).collect();
    assert!(names.contains(&("capacity-exhausted", crate::output::State::Open)), "{names:?}");
    assert!(names.contains(&("capacity-low", crate::output::State::Resolved)), "{names:?}");
    let ended = findings(watched(&mut engine, 300..400, 10));
    assert!(
        ended.iter().any(|(code, state, _)| (*code, *state) == ("capacity-exhausted", crate::output::State::Resolved))
    );
}
