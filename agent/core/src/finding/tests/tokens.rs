//! Tokens for the Kubernetes API that nobody uses: what is seen of a pod's connections, and of what hides them.

use std::sync::Arc;

use agent_ebpf::shared::{FATES, Fate, KINDS};
use agent_ebpf::wire::{Direction, Kind, Outcome};

use super::bench::Bench;
use crate::continuity::{Adopted, KernelMark};
use crate::engine::EngineConfig;
use crate::facts::{ClusterFact, PodFacts, ServiceFacts, TokenMount};
use crate::finding::{Code, Settings, Severity};
use crate::input::{Input, KernelTotals, TcpFact};
use crate::testing::*;
use crate::time::BootNs;

/// Instead of a day.
const WINDOW_S: u64 = 100;
const API: &str = "172.20.0.1";

fn with_token(n: u32) -> PodFacts {
    PodFacts { api_token_mounted: true, api_token: Some(TokenMount::Automounted), ..pod(n) }
}

fn bench(pods: impl IntoIterator<Item = PodFacts>) -> Bench {
    let findings = Settings { token_window_ns: WINDOW_S * SECOND, ..Settings::default() };
    let mut bench = Bench::new(EngineConfig { findings, ..EngineConfig::default() });
    let api = ServiceFacts {
        namespace: "default".into(),
        name: "kubernetes".into(),
        cluster_ips: vec![API.parse().unwrap()],
        ..ServiceFacts::default()
    };
    bench.feed(cluster(ClusterFact::ServicesReplaced(vec![Arc::new(api)])));
    bench.feed(cluster(ClusterFact::ApiEndpoints(vec!["10.0.9.9:443".parse().unwrap()])));
    bench.know(pods);
    bench
}

fn connection(bench: &Bench, n: u32, remote: &str, direction: Direction) -> Input {
    let fact =
        TcpFact { time: bench.now(), cgroup_id: pod_cgroup(n), direction, connected: None, closed: None, ..tcp(1) };
    Input::Tcp(TcpFact { ends: ends("10.0.0.1", 40_000, remote, 443), ..fact })
}

fn is_open(bench: &Bench) -> bool {
    bench.open().iter().any(|(code, ..)| *code == Code::ApiTokenUnused)
}

#[test]
fn a_token_that_nobody_used_for_the_window_is_found_and_its_use_ends_that() {
    let mut bench = bench([with_token(1)]);
    bench.wait(WINDOW_S - 20);
    assert!(!is_open(&bench) && bench.doubts(Code::ApiTokenUnused).is_empty(), "silent until then");
    bench.wait(60);
    assert!(bench.open().contains(&(Code::ApiTokenUnused, Severity::Info, "unused".to_owned())), "{:?}", bench.open());
    let row = bench.row(Code::ApiTokenUnused);
    assert!(row.text.contains("service account cart"), "{}", row.text);

    let input = connection(&bench, 1, API, Direction::Outbound);
    bench.feed(input);
    bench.wait(40);
    assert!(!is_open(&bench));
    let [audited] = &bench.engine.tokens()[..] else { panic!("one pod") };
    assert_eq!((audited.used, audited.connections, audited.bytes), (Some(true), 1, 1_100));
    assert_eq!((&*audited.service_account, audited.mount), ("cart", Some(TokenMount::Automounted)));
    assert!(audited.first_used.is_some() && audited.first_used < audited.last_used);
}

#[test]
fn every_way_to_the_api_server_is_a_use_and_no_other() {
    for (remote, direction, is_use) in [
        (API, Direction::Outbound, true),
        ("10.0.9.9", Direction::Outbound, true),
        // Older than the agent: the direction is not known.
        (API, Direction::Unknown, true),
        ("10.0.9.9", Direction::Unknown, true),
        ("10.0.9.8", Direction::Outbound, false),
        // The API server calls the pod.
        ("10.0.9.9", Direction::Inbound, false),
    ] {
        let mut bench = bench([with_token(1)]);
        let input = connection(&bench, 1, remote, direction);
        bench.feed(input);
        bench.wait(15);
        let used = bench.engine.tokens()[0].used;
        assert_eq!(used, is_use.then_some(true), "{remote} {direction:?}");
    }
}

#[test]
fn what_may_have_hidden_a_connection_begins_the_window_anew() {
    let mut bench = bench([with_token(1), with_token(2)]);
    bench.wait(WINDOW_S - 30);
    // A row of nobody: it may have been anybody's.
    let unknown = TcpFact { cgroup_id: 999_999, connected: None, closed: None, ..tcp(9) };
    let time = bench.now();
    bench.feed(Input::Tcp(TcpFact { time, outcome: Outcome::Established, ..unknown }));
    bench.wait(60);
    assert!(!is_open(&bench));
    assert_eq!(bench.engine.tokens()[0].why.as_deref(), Some("not_watched_long_enough"));
    bench.wait(WINDOW_S);
    assert!(is_open(&bench));
}

#[test]
fn what_cannot_be_told_is_not_told() {
    let none = pod(1);
    let sandboxed = PodFacts { runtime_class: Some("kata".into()), ..with_token(2) };
    let ended = PodFacts { phase: Some(crate::facts::Phase::Succeeded), ..with_token(3) };
    let mut bench = bench([none, sandboxed, ended]);
    bench.wait(2 * WINDOW_S);
    assert!(!is_open(&bench));
    let rows = bench.engine.tokens();
    assert_eq!(rows.iter().map(|row| (&*row.pod, row.used)).collect::<Vec<_>>(), [("cart-2", None)]);

    let mut bench = Bench::with_pods([with_token(1)]);
    bench.wait(30);
    assert_eq!(bench.engine.tokens()[0].why.as_deref(), Some("api_server_not_known"));
    assert!(bench.now() > BootNs(0));
}

/// The agent is made anew on the same node; `lost`: what went by meanwhile, `None`: nobody knows.
fn restarted(before: &mut Bench, same_boot: bool, lost: Option<u64>) -> Bench {
    before.feed(Input::Stop);
    restarted_with(before, same_boot, lost)
}

fn restarted_with(before: &Bench, same_boot: bool, lost: Option<u64>) -> Bench {
    let mut bench = bench([]);
    bench.wait(before.now().0 / SECOND - bench.now().0 / SECOND);
    if let Some(lost) = lost {
        let mut totals = KernelTotals { records: [[0; FATES]; KINDS], ..KernelTotals::default() };
        totals.records[Kind::TcpEnd.index()][Fate::LostRing as usize] = lost;
        let adopted =
            Adopted { pins: 1, consumed: [0; KINDS], totals, mark: Some(KernelMark::default()), replaced: None };
        bench.feed(Input::Adopted(Box::new(adopted)));
    }
    let text = serde_json::to_string(&before.engine.snapshot()).unwrap();
    bench.engine.restore(serde_json::from_str(&text).unwrap(), same_boot).unwrap();
    // Nothing is lost when it is written again before any pod is told.
    assert_eq!(bench.engine.snapshot(), {
        let text = serde_json::to_string(&bench.engine.snapshot()).unwrap();
        serde_json::from_str(&text).unwrap()
    });
    bench.know([with_token(1), with_token(2)]);
    bench
}

/// One pod called the API server, the other one was silent for nearly the window.
fn watched() -> Bench {
    let mut bench = bench([with_token(1), with_token(2)]);
    bench.wait(40);
    let input = connection(&bench, 1, API, Direction::Outbound);
    bench.feed(input);
    bench.wait(40);
    bench
}

fn used(bench: &Bench) -> Vec<(Option<bool>, u64)> {
    bench.engine.tokens().iter().map(|row| (row.used, row.connections)).collect()
}

#[test]
fn the_window_goes_on_over_a_restart_that_missed_nothing() {
    let mut before = watched();
    let since: Vec<_> = before.engine.tokens().iter().map(|row| row.watched_since).collect();
    let mut bench = restarted(&mut before, true, Some(0));
    bench.wait(40);
    assert_eq!(used(&bench), [(Some(true), 1), (Some(false), 0)]);
    assert_eq!(bench.engine.tokens().iter().map(|row| row.watched_since).collect::<Vec<_>>(), since);
    assert!(is_open(&bench));
    // What is missed later begins it anew all the same.
    let time = bench.now();
    bench.feed(Input::Tcp(TcpFact { time, cgroup_id: 999_999, connected: None, closed: None, ..tcp(9) }));
    bench.wait(20);
    assert_eq!(used(&bench)[1].0, None);
}

#[test]
fn after_a_restart_that_may_have_missed_something_only_uses_are_known() {
    for (same_boot, lost, is_ended) in
        [(true, None, true), (true, Some(1), true), (false, Some(0), true), (true, Some(0), false)]
    {
        let mut before = watched();
        let mut bench =
            if is_ended { restarted(&mut before, same_boot, lost) } else { restarted_with(&before, same_boot, lost) };
        bench.wait(40);
        assert_eq!(used(&bench), [(Some(true), 1), (None, 0)], "{same_boot} {lost:?} {is_ended}");
        assert!(!is_open(&bench));
        // A use is of its time: it does not become younger by a restart.
        bench.wait(40);
        assert_eq!(used(&bench)[0].0, None, "{same_boot} {lost:?} {is_ended}");
    }
}
