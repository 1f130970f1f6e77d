//! The pump with inputs made by hand, and what the HTTP server says of it. Time is an argument; nothing waits for it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_core::cluster::Cluster;
use agent_core::engine::EngineConfig;
use agent_core::facts::{ClusterFact, Source};
use agent_core::input::{ExecFact, Input, NamedProcess};
use agent_core::output::Output;
use agent_core::time::{BootNs, WallNs};
use agent_ebpf::wire::Owner;
use tokio::sync::{mpsc, oneshot};

use super::history::Keeper;
use super::kernel::{ProbeState, ProbeStatus};
use super::pump::{EXE_READS_PER_TICK, Ended, Outlets, Pump, Surroundings};
use super::served::{HEARTBEAT_MAX_NS, Heartbeat, Listing, Served};
use super::shipping::Sinks;
use super::{Feed, Status};
use crate::api::protocol::{Question, Verb};
use crate::export::{Exporter, Style};
use crate::http::Source as _;
use crate::lines::Form;
use crate::telemetry;

const EVER: Duration = Duration::from_mins(10);

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("sound").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Bench {
    pump: Pump,
    page: Page,
    feed: Feed,
    exposition: telemetry::Exposition,
    heartbeat: Heartbeat,
    exe_reads: Arc<AtomicU32>,
}

fn bench() -> Bench {
    let page = Page::default();
    let style = Style { form: Form::Json, node: Arc::from("n"), width: || 0, now: || WallNs(0) };
    let exporter = Exporter::start(page.clone(), style).expect("starts");
    let (metrics, exposition) = telemetry::new(100);
    let feed = Feed::default();
    let heartbeat = Heartbeat::default();
    let exe_reads = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&exe_reads);
    let outlets = Outlets {
        telemetry: metrics,
        feed: feed.clone(),
        exporter: Some(exporter),
        history: Keeper::off(),
        sinks: Sinks::default(),
        heartbeat: heartbeat.clone(),
        listing: Listing::default(),
        status: Status { node: "n".to_owned(), pid: 1, ..Status::default() },
    };
    let surroundings = Surroundings {
        clock: || (BootNs(5_000_000_000), WallNs(1_700_000_000_000_000_000)),
        asleep: || 0,
        boot_id: None,
        addresses: Box::new(|| vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
        exe_of: Box::new(move |owner| {
            counted.fetch_add(1, Ordering::Relaxed);
            Some(format!("/resolved/{}", owner.tgid))
        }),
        settings: Box::new(|| Input::Host(Box::new(agent_core::facts::HostFact::TcpEarlyDemux(None)))),
    };
    let pump = Pump::new(EngineConfig::default(), outlets, surroundings);
    Bench { pump, page, feed, exposition, heartbeat, exe_reads }
}

fn exec(pid: u32) -> Input {
    let owner = Owner { start_ns: 1, tgid: pid, pad: 0 };
    Input::Exec(ExecFact {
        time: BootNs(2),
        cgroup_id: 1,
        process: NamedProcess { owner, comm: "x".to_owned() },
        parent: None,
        path: "/bin/x".to_owned(),
        path_cut: false,
        args: Vec::new(),
        uid: 0,
    })
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn pids(page: &Page) -> Vec<u64> {
    let text = String::from_utf8(page.0.lock().expect("sound").clone()).expect("UTF-8");
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["process"]["pid"].as_u64())
        .map(|pid| pid.expect("a pid"))
        .collect()
}

fn no_facts() -> mpsc::Receiver<Vec<Input>> {
    mpsc::channel(1).1
}

/// All that was sent before the stop, and all that comes while the probes stop, is written; in order.
#[test]
fn nothing_is_lost_at_the_stop() {
    let Bench { mut pump, page, exposition, .. } = bench();
    run(async {
        pump.start(vec![exec(1)]).await;
        let (send, mut inputs) = mpsc::channel(8);
        let (_ask, mut questions) = mpsc::channel(1);
        send.send(vec![exec(2), exec(3)]).await.expect("room");
        let (stop, stopped) = oneshot::channel::<()>();
        stop.send(()).expect("somebody waits");
        let stop = Box::pin(async move { stopped.await.expect("is told") });
        assert!(matches!(pump.run(&mut inputs, &mut no_facts(), &mut questions, stop).await, Ended::Stopped));
        send.send(vec![exec(4)]).await.expect("room");
        drop(send);
        assert!(pump.drain(&mut inputs, EVER).await, "the inputs end");
        pump.finish(EVER).await.expect("writes");
    });
    assert_eq!(pids(&page), [1, 2, 3, 4]);
    let text = exposition.render().expect("renders");
    assert!(text.contains("sekisho_records_total{kind=\"process\",fate=\"stored\"} 4\n"), "{text}");
}

#[test]
fn the_end_of_the_probes_is_an_end() {
    let Bench { mut pump, .. } = bench();
    run(async {
        let (send, mut inputs) = mpsc::channel::<Vec<Input>>(1);
        let (_ask, mut questions) = mpsc::channel(1);
        drop(send);
        let never = Box::pin(std::future::pending());
        assert!(matches!(pump.run(&mut inputs, &mut no_facts(), &mut questions, never).await, Ended::NoInputs));
    });
}

#[test]
fn questions_are_answered_between_inputs() {
    let Bench { mut pump, .. } = bench();
    run(async {
        pump.start(vec![exec(1)]).await;
        let (_send, mut inputs) = mpsc::channel::<Vec<Input>>(1);
        let (ask, mut questions) = mpsc::channel(1);
        let (question, answer) = oneshot::channel();
        ask.send(Question { verb: Verb::Status, answer: question }).await.expect("room");
        let stop = Box::pin(async move {
            let lines = answer.await.expect("an answer");
            let status: Status = serde_json::from_str(&lines[0]).expect("a status");
            let counts: BTreeMap<_, _> = status.books.iter().map(|book| (book.kind.as_str(), book)).collect();
            assert_eq!(status.node, "n");
            assert_eq!(counts["process"].seen, 1);
            assert!(status.books.iter().all(crate::api::protocol::Book::balances));
        });
        assert!(matches!(pump.run(&mut inputs, &mut no_facts(), &mut questions, stop).await, Ended::Stopped));
    });
}

#[test]
fn executables_are_looked_up_a_bounded_number_of_times() {
    let Bench { mut pump, exe_reads, .. } = bench();
    run(async {
        pump.start((0..2 * EXE_READS_PER_TICK).map(exec).collect()).await;
        pump.finish(EVER).await.expect("writes");
    });
    assert_eq!(exe_reads.load(Ordering::Relaxed), EXE_READS_PER_TICK);
}

#[test]
fn outputs_reach_the_feed() {
    let Bench { mut pump, feed, .. } = bench();
    run(async {
        pump.start((1..=1_000).map(exec).collect()).await;
        pump.finish(EVER).await.expect("writes");
    });
    let seen = feed.recent();
    assert_eq!(seen.len(), 1_000);
    assert!(seen.iter().all(|output| matches!(&**output, Output::Process(_))));
}

#[test]
fn health_follows_the_heartbeat() {
    let Bench { mut pump, exposition, heartbeat, .. } = bench();
    run(pump.start(Vec::new()));
    let served = |now| Served::new(exposition.clone(), heartbeat.clone(), Listing::default(), &[]).at(now);
    assert_eq!(served(|| BootNs(5_000_000_000 + HEARTBEAT_MAX_NS)).healthy(), Ok(()));
    let late = served(|| BootNs(5_000_000_001 + HEARTBEAT_MAX_NS)).healthy();
    assert_eq!(late, Err("the loop stands still for 10 s".to_owned()));
}

#[test]
fn readiness_names_the_required_probes_that_are_missing() {
    let (_, exposition) = telemetry::new(100);
    let probe = |name, required, state| ProbeStatus { name, gives: "x", required, state };
    let refused = || ProbeState::Refused("EPERM".to_owned());
    let ready = |probes: &[ProbeStatus]| {
        Served::new(exposition.clone(), Heartbeat::default(), Listing::default(), probes).ready()
    };
    assert_eq!(ready(&[probe("tcp", true, ProbeState::Attached), probe("owners", false, refused())]), Ok(()));
    let error = ready(&[probe("tcp", true, refused())]).expect_err("is not ready");
    assert!(error.contains("tcp: EPERM"), "{error}");
}

#[test]
fn readiness_waits_for_the_first_list_of_pods_and_says_why() {
    let (_, exposition) = telemetry::new(100);
    let listing = Listing::awaited();
    let ready = || Served::new(exposition.clone(), Heartbeat::default(), listing.clone(), &[]).ready();
    assert_eq!(ready(), Err("pods are not listed yet".to_owned()));
    let mut cluster = Cluster::default();
    let source = |error: Option<&str>| ClusterFact::Source {
        source: Source::Pods,
        fresh_at: None,
        error: error.map(ToOwned::to_owned),
    };
    cluster.learn(source(Some("403 pods is forbidden")), BootNs(1));
    listing.look(&cluster);
    assert_eq!(ready(), Err("pods are not listed yet: 403 pods is forbidden".to_owned()));
    // From the server or from the disk: it is a list.
    cluster.learn(ClusterFact::PodsReplaced(Vec::new()), BootNs(2));
    listing.look(&cluster);
    assert_eq!(ready(), Ok(()));
    // What was known stays known.
    cluster.learn(source(Some("no answer")), BootNs(3));
    listing.look(&cluster);
    assert_eq!(ready(), Ok(()));
}
