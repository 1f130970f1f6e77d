//! The thread, its queue, and how the table looks.

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_core::capacity::Resource;
use agent_core::input::{Category, ImdsVersion, MetadataOutcome, Method};
use agent_core::output::{
    AttributionKind, By, CapacityRow, FlowRow, Identity, Local, MetadataRow, Output, Peer, PeerClass, ProcessRow,
    ProcessView, Protocol, RttHistogram, Who, Window,
};
use agent_core::time::WallNs;

use super::{Error, Exporter, QUEUE_MAX, Style};
use crate::lines::Form;

/// Long enough for any machine; tests never wait for it to pass.
const EVER: Duration = Duration::from_mins(10);

fn style(form: Form, width: fn() -> usize) -> Style {
    Style { form, node: Arc::from("n"), width, now: || WallNs(0) }
}

fn row(pod: &str, peer: &str, bytes_sent: u64) -> FlowRow {
    let view = ProcessView {
        pid: 4_711,
        exe: Some("/usr/bin/curl".to_owned()),
        exe_resolved: None,
        comm: "curl".to_owned(),
        args: Vec::new(),
        ancestors: Vec::new(),
        by: By::Connect,
    };
    let identity = Identity {
        attribution: AttributionKind::Pod,
        namespace: "shop".to_owned(),
        pod: pod.to_owned(),
        ..Identity::default()
    };
    FlowRow {
        who: Who { identity: Arc::new(identity), process: Some(Arc::new(view)) },
        window: Window { start: WallNs(50_000_000_000), end: WallNs(60_000_000_000) },
        direction: "outbound",
        protocol: Some(Protocol::Tcp),
        local: Local { ip: Some("10.0.0.1".to_owned()) },
        peer: Peer { ip: Some(peer.to_owned()), class: PeerClass::Internet, name: None, namespace: None, pod: None },
        actual_peer: None,
        via: None,
        service_port: Some(443),
        outcome: Some("established"),
        connections: 12,
        open: 0,
        processes: 1,
        bytes_sent,
        bytes_received: 0,
        retransmits: Some(0),
        rtt_us: None,
        rtt: RttHistogram::default(),
        records: agent_core::books::Records::default(),
        merged: false,
        preexisting: false,
        sg: None,
    }
}

fn metadata() -> Arc<Output> {
    Arc::new(Output::Metadata(Box::new(MetadataRow {
        time: WallNs(0),
        who: row("web-1", "", 0).who,
        service: "imds",
        version: ImdsVersion::V1,
        method: Some(Method::Get),
        category: Some(Category::RoleList),
        role: None,
        access_key_id: None,
        forwarded_for: None,
        status: Some(200),
        response_ttl: Some(1),
        response_bytes: Some(10),
        outcome: MetadataOutcome::Ok,
        latency_us: Some(300),
        local: Local { ip: None },
        origin: None,
    })))
}

fn flow(row: FlowRow) -> Arc<Output> {
    Arc::new(Output::Flow(Box::new(row)))
}

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("sound").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("sound").clone()).expect("UTF-8")
    }
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn table(width: fn() -> usize, outputs: &[Arc<Output>]) -> String {
    let page = Page::default();
    let exporter = Exporter::start(page.clone(), style(Form::Text, width)).expect("starts");
    exporter.push(outputs);
    run(exporter.finish(EVER)).expect("writes");
    page.text()
}

#[test]
fn a_fold_is_a_table_sorted_by_bytes() {
    let open = FlowRow { outcome: None, connections: 0, open: 2, direction: "inbound", ..row("web-2", "192.0.2.9", 5) };
    let bytes_only = FlowRow { outcome: None, connections: 0, ..row("web-4", "192.0.2.10", 0) };
    let merged = FlowRow { merged: true, protocol: None, service_port: None, processes: 3, ..row("web-3", "", 1) };
    let text =
        table(|| 120, &[flow(open), flow(row("web-1", "2001:db8::1", 1_234_567)), flow(merged), flow(bytes_only)]);
    assert_eq!(
        text,
        "\
WHO                        DIR PEER                      PORT      OUTCOME      CONNS     SENT RECEIVED PROCESS
-- 00:01:00 UTC, 10 s, 4 rows ------------------------------------------------------------------------------------------
shop/web-1                 out 2001:db8::1               443/tcp   established     12  1.23 MB      0 B curl(4711)
shop/web-2                 in  192.0.2.9                 443/tcp   open             2      5 B      0 B curl(4711)
shop/web-3                 out (merged)                            established     12      1 B      0 B curl(4711) +2
shop/web-4                 out 192.0.2.10                443/tcp   -                0      0 B      0 B curl(4711)
"
    );
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let long =
        row("a-deployment-with-a-long-name-7d9c5b8f6d-x2x7k", "2600:1f18:1234:5678:9abc:def0:1234:5678", u64::MAX);
    let long = FlowRow { service_port: Some(65_535), outcome: Some("unreachable"), connections: 99_999, ..long };
    for (width, ask) in [(80, (|| 80) as fn() -> usize), (100, || 100), (120, || 120), (250, || 250)] {
        let text = table(ask, &[flow(long.clone())]);
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        assert_eq!(text.contains("PROCESS"), width >= 100);
    }
    assert_eq!(
        table(|| 80, &[flow(row("web-1", "192.168.100.200", 5))]).lines().last(),
        Some("shop/web-1    out 192.168.100.200 443/tcp   established     12      5 B      0 B")
    );
}

#[test]
fn what_does_not_fit_a_screen_is_summed_up() {
    let rows: Vec<_> = (0..100).map(|number| flow(row(&format!("web-{number}"), "192.0.2.1", 1_000))).collect();
    let text = table(|| 120, &rows);
    assert_eq!(text.lines().count(), 2 + 40 + 1);
    assert_eq!(
        text.lines().last(),
        Some("… and 60 rows more: 720 connections, 60.0 kB sent, 0 B received (all of them: -o json)")
    );
}

/// A pod that asks all the time does not push the tables off the screen.
#[test]
fn a_flood_of_metadata_requests_is_summed_up() {
    let mut outputs: Vec<_> = (0..150).map(|_| metadata()).collect();
    outputs.push(flow(row("web-1", "192.0.2.1", 1)));
    let text = table(|| 120, &[outputs.clone(), outputs].concat());
    let shown = text.lines().filter(|line| line.contains("role_list")).count();
    assert_eq!(shown, 100);
    assert!(text.contains("… and 200 metadata requests more (all of them: -o json)\nWHO"), "{text}");
}

#[test]
fn names_cannot_command_the_terminal() {
    let text = table(|| 120, &[flow(row("web\u{1b}[2J\n", "192.0.2.1", 1))]);
    assert_eq!(text.lines().count(), 3);
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn started_programs_are_no_part_of_the_table() {
    let who = row("web-1", "", 0).who;
    let process = Arc::new(Output::Process(Box::new(ProcessRow { time: WallNs(0), who, uid_number: 0 })));
    assert_eq!(table(|| 120, &[process]), "");
}

#[test]
fn the_ceiling_that_binds_is_shown_when_it_becomes_another() {
    let capacity = |fit: Option<u64>, binding_resource| {
        let row = CapacityRow { pods_fit: fit, binding_resource, ..CapacityRow::default() };
        Arc::new(Output::Capacity(Box::new(row)))
    };
    let text = table(
        || 120,
        &[
            capacity(None, None),
            capacity(Some(9), Some(Resource::Pods)),
            capacity(Some(8), Some(Resource::Pods)),
            capacity(Some(3), Some(Resource::PodIps)),
            capacity(None, None),
            capacity(None, None),
        ],
    );
    let said: Vec<_> = text.lines().map(|line| line.split_once(' ').map_or(line, |(_, said)| said).trim()).collect();
    assert_eq!(said.len(), 3, "{text}");
    for (said, expected) in
        said.iter().zip(["9 more pods fit; pods binds", "3 more pods fit; pod_ips binds", "cannot tell"])
    {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn json_is_one_object_per_line() {
    let page = Page::default();
    let exporter = Exporter::start(page.clone(), style(Form::Json, || 0)).expect("starts");
    exporter.push(&[flow(row("web-1", "192.0.2.1", 1)), flow(row("web-2", "192.0.2.1", 1))]);
    run(exporter.finish(EVER)).expect("writes");
    let pods: Vec<_> = page
        .text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["pod"].clone())
        .collect();
    assert_eq!(pods, ["web-1", "web-2"]);
}

/// A writer that stands still until it is told to go on.
struct Gate {
    entered: Sender<()>,
    go_on: Receiver<()>,
    page: Page,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Both ends live as long as the test; after it nobody cares.
        let _ = self.entered.send(());
        let _ = self.go_on.recv();
        self.page.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whoever does not read loses lines and is told how many and where; the tasks never wait.
#[test]
fn a_reader_that_stands_still_loses_lines() {
    let (entered, wait_entered) = channel();
    let (go_on, wait_go_on) = channel();
    let page = Page::default();
    let gate = Gate { entered, go_on: wait_go_on, page: page.clone() };
    let exporter = Exporter::start(gate, style(Form::Json, || 0)).expect("starts");
    let output = flow(row("web-1", "192.0.2.1", 1));
    exporter.push(std::slice::from_ref(&output));
    wait_entered.recv().expect("the writer came");
    let pushed = 2 * QUEUE_MAX as u64;
    for _ in 0..pushed {
        exporter.push(std::slice::from_ref(&output));
    }
    drop(go_on);
    run(exporter.finish(EVER)).expect("writes");
    let (mut shown, mut dropped) = (0, 0);
    for line in page.text().lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        match line["kind"].as_str() {
            Some("dropped") => dropped += line["lines"].as_u64().expect("a count"),
            _ => shown += 1,
        }
    }
    assert!(dropped > 0 && shown > 0, "{shown} {dropped}");
    assert_eq!(shown + dropped, pushed + 1);
}

#[test]
fn a_reader_that_stands_still_does_not_hold_up_the_end() {
    let (entered, wait_entered) = channel();
    let (go_on, wait_go_on) = channel();
    let exporter = Exporter::start(Gate { entered, go_on: wait_go_on, page: Page::default() }, style(Form::Json, || 0))
        .expect("starts");
    exporter.push(&[flow(row("web-1", "192.0.2.1", 1))]);
    wait_entered.recv().expect("the writer came");
    assert!(matches!(run(exporter.finish(Duration::ZERO)), Err(Error::Stuck)));
    drop(go_on);
}

struct Broken(std::io::ErrorKind);

impl Write for Broken {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_went_away_is_no_error_and_a_full_disk_is() {
    let end = |kind| {
        let mut exporter = Exporter::start(Broken(kind), style(Form::Json, || 0)).expect("starts");
        exporter.push(&[flow(row("web-1", "192.0.2.1", 1))]);
        run(exporter.gone())
    };
    assert!(end(std::io::ErrorKind::BrokenPipe).is_ok());
    assert!(matches!(end(std::io::ErrorKind::StorageFull), Err(Error::Write(_))));
}
