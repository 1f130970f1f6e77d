//! Real sockets, real clients; no test waits for a clock.

use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_core::input::GapCause;
use agent_core::output::{By, GapRow, Identity, Output, ProcessRow, ProcessView, Who};
use agent_core::time::WallNs;
use tokio::sync::mpsc;

use super::client;
use super::feed::{Feed, Next, QUEUE_MAX, RECENT_BYTES_MAX, RECENT_MAX};
use super::listen::{self, Error};
use super::protocol::{
    Book, Ec2Standing, Ec2Status, Filter, PodName, PrivilegeStatus, Probe, Question, Request, Status,
};
use super::serve::{self, CLIENTS_MAX, Sources};
use crate::lines::{Form, LineKind};
use crate::lossy::Entry;

fn process(pid: u32, namespace: &str, pod: &str, workload: &str) -> Arc<Output> {
    let identity = Identity {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        workload: workload.to_owned(),
        ..Identity::default()
    };
    let view = ProcessView {
        pid,
        exe: None,
        exe_resolved: None,
        comm: "x".to_owned(),
        args: Vec::new(),
        ancestors: Vec::new(),
        by: By::Exec,
    };
    Arc::new(Output::Process(Box::new(ProcessRow {
        time: WallNs(0),
        who: Who { identity: Arc::new(identity), process: Some(Arc::new(view)) },
        uid_number: 0,
    })))
}

fn gap() -> Arc<Output> {
    Arc::new(Output::Gap(GapRow {
        start: WallNs(0),
        end: WallNs(1),
        cause: GapCause::RingFull,
        records_lost: [].into(),
    }))
}

fn pid(output: &Output) -> u32 {
    match output {
        Output::Process(row) => row.who.process.as_ref().map_or(0, |process| process.pid),
        _ => 0,
    }
}

/// An agent's socket on its own thread and runtime; stops when dropped.
struct Agent {
    path: PathBuf,
    feed: Feed,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("run/agent.sock");
        let bound = listen::bind(&path).expect("binds");
        let feed = Feed::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (questions, mut asked) = mpsc::channel::<Question>(1);
        let sources = Sources { feed: feed.clone(), questions, node: Arc::from("node-1"), now: || WallNs(0) };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let answer = async {
                    while let Some(ask) = asked.recv().await {
                        let _ = ask.answer.send(vec![crate::lines::json(&some_status())]);
                    }
                };
                tokio::select! {
                    result = serve::serve(bound, sources) => result.expect("serves"),
                    () = answer => {}
                    _ = stopped => {}
                }
            });
        });
        Self { path, feed, stop: Some(stop), thread: Some(thread), _directory: directory }
    }

    fn observe(&self, request: &Request) -> Vec<serde_json::Value> {
        let mut out = Vec::new();
        client::observe(&self.path, request, &mut out).expect("observes");
        json_lines(&out)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the agent's thread ends well");
        }
        assert!(!self.path.exists(), "the socket is gone");
    }
}

fn some_status() -> Status {
    Status {
        privileges: Some(PrivilegeStatus { held: vec!["CAP_NET_ADMIN".to_owned()], failed: None }),
        collectors: Vec::new(),
        node: "node-1".to_owned(),
        pid: 1,
        probes: vec![Probe { name: "tcp".to_owned(), gives: "connections".to_owned(), required: true, refused: None }],
        readings: 3,
        books: vec![Book { kind: "tcp_end".to_owned(), seen: 3, pending: 1, fates: [("stored".to_owned(), 2)].into() }],
        ec2: Some(Ec2Status {
            enabled: true,
            place: None,
            unreachable: None,
            calls: vec![Ec2Standing { name: "vpcs".to_owned(), age_seconds: Some(7), ..Ec2Standing::default() }],
        }),
        history: None,
        exports: Vec::new(),
        secure: None,
    }
}

fn json_lines(bytes: &[u8]) -> Vec<serde_json::Value> {
    std::str::from_utf8(bytes)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn all(follow: bool) -> Request {
    Request::observe(Form::Json, follow, Filter::default())
}

#[test]
fn recent_lines_are_shown_and_the_stream_ends() {
    let agent = Agent::start();
    assert_eq!(agent.observe(&all(false)), Vec::<serde_json::Value>::new());
    agent.feed.publish(&process(1, "shop", "web-1", "web"));
    agent.feed.publish(&gap());
    let lines = agent.observe(&all(false));
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["kind"], "process");
    assert_eq!(lines[0]["process"]["pid"], 1);
    assert_eq!(lines[0]["node"], "node-1");
    assert_eq!(lines[1]["kind"], "gap");
}

#[test]
fn filters_are_applied_in_the_agent() {
    let agent = Agent::start();
    agent.feed.publish(&process(1, "shop", "web-1", "web"));
    agent.feed.publish(&process(2, "shop", "web-2", "web"));
    agent.feed.publish(&process(3, "other", "web-1", "api"));
    agent.feed.publish(&process(4, "", "", "sshd.service"));
    agent.feed.publish(&gap());
    let seen = |filter| {
        let lines = agent.observe(&Request::observe(Form::Json, false, filter));
        lines.iter().map(|line| line["process"]["pid"].as_u64().unwrap_or(0)).collect::<Vec<_>>()
    };
    let pod = |text: &str| text.parse::<PodName>().expect("a pod's name");
    assert_eq!(seen(Filter { pods: vec![pod("shop/web-1")], ..Filter::default() }), [1, 0]);
    assert_eq!(seen(Filter { pods: vec![pod("shop/web-1"), pod("other/web-1")], ..Filter::default() }), [1, 3, 0]);
    assert_eq!(seen(Filter { workloads: vec!["web".to_owned()], ..Filter::default() }), [1, 2, 0]);
    assert_eq!(seen(Filter { kinds: vec![LineKind::Gap], ..Filter::default() }), [0]);
    assert_eq!(seen(Filter { kinds: vec![LineKind::Flow, LineKind::Process], ..Filter::default() }), [1, 2, 3, 4]);
    let both = Filter { workloads: vec!["api".to_owned()], pods: vec![pod("shop/web-1")], kinds: Vec::new() };
    assert_eq!(seen(both), [0]);
}

#[test]
fn pod_names_have_two_parts() {
    for wrong in ["", "web", "/web", "shop/", "shop/web/1"] {
        assert!(wrong.parse::<PodName>().is_err(), "{wrong}");
    }
}

/// Two clients follow at once; both see what was before and what comes after, once; both end when the agent stops.
#[test]
fn two_clients_follow() {
    let agent = Agent::start();
    agent.feed.publish(&process(1, "", "", "a"));
    let clients: Vec<_> = (0..2).map(|_| Follower::start(&agent.path)).collect();
    for client in &clients {
        client.wait_for_lines(1);
    }
    agent.feed.publish(&process(2, "", "", "a"));
    agent.feed.close();
    for client in clients {
        let pids: Vec<_> = client.end().iter().map(|line| line["process"]["pid"].as_u64()).collect();
        assert_eq!(pids, [Some(1), Some(2)]);
    }
}

/// A client on its own thread that hands over what it read.
struct Follower {
    lines: std::sync::mpsc::Receiver<Vec<u8>>,
    seen: std::cell::RefCell<Vec<u8>>,
}

impl Follower {
    fn start(path: &Path) -> Self {
        struct Out(std::sync::mpsc::Sender<Vec<u8>>);
        impl std::io::Write for Out {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.send(bytes.to_vec()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (send, lines) = std::sync::mpsc::channel();
        let path = path.to_owned();
        std::thread::spawn(move || client::observe(&path, &all(true), &mut Out(send)).expect("observes"));
        Self { lines, seen: std::cell::RefCell::default() }
    }

    fn wait_for_lines(&self, count: usize) {
        let mut seen = self.seen.borrow_mut();
        while seen.split(|byte| *byte == b'\n').count() <= count {
            seen.extend(self.lines.recv().expect("the client goes on"));
        }
    }

    fn end(self) -> Vec<serde_json::Value> {
        let mut seen = self.seen.into_inner();
        seen.extend(self.lines.iter().flatten());
        json_lines(&seen)
    }
}

/// What a reader who does not read misses is counted at the place where it is missing; the publisher never waits.
#[test]
fn a_slow_reader_is_told_what_it_missed() {
    let feed = Feed::default();
    let reader = feed.subscribe(Filter::default(), true);
    let published = QUEUE_MAX + 1_000;
    for number in 0..published {
        feed.publish(&process(u32::try_from(number).expect("small"), "", "", ""));
    }
    let mut next = 0;
    let dropped = loop {
        match reader.try_next() {
            Next::Entry(Entry::Item(output, _)) => {
                assert_eq!(pid(&output), next);
                next += 1;
            }
            Next::Entry(Entry::Dropped(count)) => break count,
            Next::NotYet | Next::End => panic!("nothing was told"),
        }
    };
    assert_eq!(u64::from(next) + dropped, published as u64);
    feed.publish(&process(77, "", "", ""));
    assert!(matches!(reader.try_next(), Next::Entry(Entry::Item(output, _)) if pid(&output) == 77));
    assert!(matches!(reader.try_next(), Next::NotYet));
}

/// The same over a socket: the client reads nothing until all is published.
#[test]
fn a_slow_client_gets_a_dropped_line() {
    let agent = Agent::start();
    let mut stream = UnixStream::connect(&agent.path).expect("connects");
    writeln!(stream, "{}", serde_json::to_string(&all(true)).expect("JSON")).expect("asks");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stream));
    let hello = lines.next().expect("an answer").expect("reads");
    assert!(hello.contains("\"error\":null"), "{hello}");
    // More than the queue and any socket buffer hold.
    let published = 20 * QUEUE_MAX as u64;
    for _ in 0..published {
        agent.feed.publish(&process(1, "", "", ""));
    }
    agent.feed.close();
    let (mut shown, mut dropped) = (0, 0);
    for line in lines {
        let line: serde_json::Value = serde_json::from_str(&line.expect("reads")).expect("JSON");
        match line["kind"].as_str() {
            Some("dropped") => dropped += line["lines"].as_u64().expect("a count"),
            _ => shown += 1,
        }
    }
    assert!(dropped > 0, "{shown} lines shown");
    assert_eq!(shown + dropped, published);
}

#[test]
fn recent_lines_are_bounded() {
    let feed = Feed::default();
    let output = process(1, "", "", "");
    for _ in 0..2 * RECENT_MAX {
        feed.publish(&output);
    }
    assert_eq!(count(&feed), RECENT_MAX.min(RECENT_BYTES_MAX / crate::lossy::weigh(&output)));
    let big = process(1, "", "", &"x".repeat(RECENT_BYTES_MAX / 10));
    for _ in 0..20 {
        feed.publish(&big);
    }
    assert_eq!(count(&feed), 9);
}

fn count(feed: &Feed) -> usize {
    let reader = feed.subscribe(Filter::default(), false);
    std::iter::from_fn(|| matches!(reader.try_next(), Next::Entry(Entry::Item(..))).then_some(())).count()
}

#[test]
fn status_goes_through() {
    let agent = Agent::start();
    assert_eq!(client::status(&agent.path).expect("a status"), some_status());
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    let agent = Agent::start();
    let ask = |text: &str| {
        let mut stream = UnixStream::connect(&agent.path).expect("connects");
        stream.write_all(text.as_bytes()).expect("writes");
        stream.shutdown(std::net::Shutdown::Write).expect("shuts down");
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("reads");
        answer
    };
    assert!(ask("hello\n").contains("not a request"));
    assert!(ask("{\"schema\":\"sekisho/1\",\"request\":\"dance\"}\n").contains("not a request"));
    assert!(ask("{\"schema\":\"sekisho/1\",\"request\":\"status\",\"extra\":1}\n").contains("extra"));
    assert!(ask("{\"schema\":\"sekisho/9\",\"request\":\"status\"}\n").contains("sekisho/1"));
    assert!(ask("{\"schema\":\"sekisho/1\"").contains("one line"));
    assert!(ask("").contains("one line"));
}

#[test]
fn too_many_clients_are_refused() {
    let agent = Agent::start();
    let held: Vec<_> = (0..CLIENTS_MAX)
        .map(|_| {
            let follower = Follower::start(&agent.path);
            agent.feed.publish(&gap());
            follower.wait_for_lines(1);
            follower
        })
        .collect();
    let error = client::status(&agent.path).expect_err("no place").to_string();
    assert!(error.contains("8 clients"), "{error}");
    agent.feed.close();
    for follower in held {
        follower.end();
    }
}

#[test]
fn the_file_is_private() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("a/agent.sock");
    let bound = listen::bind(&path).expect("binds");
    assert_eq!(bound.path(), path);
    let file = std::fs::symlink_metadata(&path).expect("is there");
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let parent = std::fs::metadata(directory.path().join("a")).expect("is there");
    assert_eq!(parent.permissions().mode() & 0o777, 0o700);
    drop(bound);
    assert!(!path.exists());
}

#[test]
fn a_dead_agents_socket_is_taken_over_and_a_live_one_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("agent.sock");
    // A listener that goes away without removing its file.
    drop(UnixListener::bind(&path).expect("binds"));
    assert!(UnixStream::connect(&path).is_err());
    let live = listen::bind(&path).expect("takes over");
    UnixStream::connect(&path).expect("somebody listens");

    let error = listen::bind(&path).expect_err("is in use");
    assert!(matches!(error, Error::Live(_)), "{error}");
    assert!(error.to_string().contains("agent.sock") && error.to_string().contains("--socket"), "{error}");
    drop(live);
    listen::bind(&path).expect("is free again");
}

#[test]
fn what_is_no_socket_stays() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("agent.sock");
    std::fs::write(&path, "precious").expect("writes");
    assert!(matches!(listen::bind(&path), Err(Error::NoSocket(_))));
    assert_eq!(std::fs::read_to_string(&path).expect("reads"), "precious");
    let below = path.join("agent.sock");
    let error = listen::bind(&below).expect_err("a file is no directory");
    assert!(matches!(&error, Error::Io { what: "make the directory", .. }), "{error}");
}

/// An agent that ends late does not remove the socket of its successor.
#[test]
fn a_successors_socket_stays() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("agent.sock");
    let old = listen::bind(&path).expect("binds");
    std::fs::remove_file(&path).expect("removes");
    let new = listen::bind(&path).expect("binds again");
    drop(old);
    assert!(path.exists());
    drop(new);
    assert!(!path.exists());
}

#[test]
fn a_missing_agent_is_named_with_a_cure() {
    let error = client::status(Path::new("/nonexistent/agent.sock")).expect_err("nobody there").to_string();
    assert!(error.contains("/nonexistent/agent.sock") && error.contains("sekisho run"), "{error}");
}
