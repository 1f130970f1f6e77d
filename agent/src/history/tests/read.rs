//! What comes back: all of it, in the order of time, by every filter; from a running store and from a copy.

use std::fs;
use std::sync::Arc;

use agent_core::finding::{Code, Evidence, Severity, Subject};
use agent_core::output::{AttributionKind, FindingRow, Identity, Output, State};

use super::samples::{at, exec, flow, gap, identity, metadata, process};
use super::{found, shared, store};
use crate::history::read::{Query, Reader};
use crate::history::store::Store;
use crate::lines::LineKind;

pub(in crate::history) fn finding(pod: u32, second: i64) -> Output {
    let who = identity(pod);
    Output::Finding(Box::new(FindingRow {
        time: at(second),
        id: format!("f{pod}"),
        code: Code::NodeCredentialsTaken,
        severity: Severity::High,
        state: State::Open,
        subject: Subject {
            namespace: who.namespace.as_str().into(),
            workload: who.workload.as_str().into(),
            uid: who.uid.as_str().into(),
            peer: "10.100.0.5:5432/tcp".into(),
            ..Subject::default()
        },
        pods: vec![who.pod.as_str().into()],
        pods_count: 1,
        cause: "no_identity".to_owned(),
        first_seen: at(second),
        last_seen: at(second),
        resolved_at: None,
        count: 1,
        watched_since: at(0),
        text: "it did".to_owned(),
        advice: "do not".to_owned(),
        evidence: vec![Evidence {
            object: "request".to_owned(),
            field: String::new(),
            generation: None,
            value: "GET".to_owned(),
        }],
        accepted_reason: None,
    }))
}

/// A row of each shape, with everything absent that may be.
fn bare() -> Vec<Output> {
    let unknown = Arc::new(Identity { why: Some("cgroup not known"), ..Identity::default() });
    let Output::Flow(mut totals) = flow(1, 1, 30) else { unreachable!("a flow") };
    totals.who.identity = Arc::clone(&unknown);
    totals.who.process = None;
    (totals.direction, totals.protocol, totals.service_port, totals.outcome) = ("unknown", None, None, None);
    (totals.retransmits, totals.rtt_us, totals.merged, totals.preexisting) = (None, None, true, true);
    (totals.local.ip, totals.peer.ip, totals.peer.namespace, totals.peer.pod) = (None, None, None, None);
    (totals.bytes_sent, totals.open) = (u64::from(u32::MAX) * 9, 4);
    let Output::Metadata(mut request) = metadata(1, 31, 1) else { unreachable!("a request") };
    request.who.identity = Arc::new(Identity { attribution: AttributionKind::Host, ..(*unknown).clone() });
    request.who.process = None;
    (request.method, request.category, request.role, request.access_key_id) = (None, None, None, None);
    (request.status, request.response_ttl, request.response_bytes, request.latency_us) = (None, None, None, None);
    let Output::Process(mut started) = exec(1, 32) else { unreachable!("a program") };
    let mut view = (*process(77, "/bin/π \"x\"")).clone();
    view.args = vec!["a b".to_owned(), "\u{1b}[2J".to_owned()];
    (view.exe, view.exe_resolved, view.ancestors) = (None, None, Vec::new());
    started.who.process = Some(Arc::new(view));
    vec![Output::Flow(totals), Output::Metadata(request), Output::Process(started)]
}

#[test]
fn every_field_comes_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut rows = vec![flow(1, 1, 10), metadata(1, 11, 1), exec(1, 12), gap(13), finding(1, 14)];
    rows.extend(bare());
    let mut store = store(directory.path());
    assert_eq!(store.write(&shared(rows.clone()), at(20)).rows, rows.len() as u64);
    let json = |rows: &[Output]| rows.iter().map(|row| row.to_json("n")).collect::<Vec<_>>();
    let text = |rows: &[Output]| rows.iter().map(Output::to_text).collect::<Vec<_>>();
    let back = found(directory.path(), &Query::default());
    assert_eq!(json(&back), json(&rows));
    assert_eq!(text(&back), text(&rows));
}

#[test]
fn rows_come_in_the_order_of_time_over_kinds_and_files() {
    let directory = tempfile::tempdir().expect("a directory");
    for day in 0..3 {
        let mut store =
            Store::open(super::options(directory.path(), 64 * super::MIB), at(day * 86_400)).expect("opens");
        let second = |second| day * 86_400 + second;
        let mut rows: Vec<_> = (0..500).map(|n| flow(n % 50, n, second(i64::from(n / 100) * 10 + 10))).collect();
        // A request is told when its answer is complete: later ones may come first.
        rows.extend((0..100).map(|n| metadata(n, second(i64::from(99 - n)), u64::from(n))));
        rows.extend((0..100).map(|n| exec(n, second(7))));
        assert_eq!(store.write(&shared(rows), at(second(100))).lost_rows, 0);
    }
    let rows = found(directory.path(), &Query::default());
    let absences = rows.iter().filter(|row| matches!(row, Output::Gap(_))).count();
    assert_eq!((rows.len(), absences), (3 * 700 + 2, 2), "all rows, and the two times between three runs");
    assert!(rows.is_sorted_by_key(Output::time));
}

#[test]
fn every_filter_finds_its_rows_and_no_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut rows = Vec::new();
    for pod in 0..30 {
        let second = i64::from(pod) * 10 + 10;
        rows.extend([flow(pod, pod, second), exec(pod, second + 1), metadata(pod, second + 2, u64::from(pod))]);
        rows.push(finding(pod, second + 3));
    }
    rows.push(gap(400));
    let mut store = store(directory.path());
    assert_eq!(store.write(&shared(rows), at(500)).lost_rows, 0);
    let kinds = |query: Query| {
        let rows = found(directory.path(), &query);
        rows.iter().map(Output::kind).collect::<Vec<_>>().join(" ")
    };
    let who = identity(9);
    let list = |text: &str| vec![text.to_owned()];
    let all = "flow process metadata finding";
    let cases = [
        (Query { pods: vec![(who.namespace.clone(), who.pod.clone())], ..Query::default() }, format!("{all} gap")),
        (Query { pods: vec![("ns-8".to_owned(), who.pod.clone())], ..Query::default() }, "gap".to_owned()),
        (Query { uids: list(&who.uid), ..Query::default() }, format!("{all} gap")),
        (Query { workloads: list("app-3"), ..Query::default() }, format!("{all} {all} {all} gap")),
        // The peer of pod 5's flow; and of every finding here.
        (
            Query {
                networks: vec!["10.100.0.5".parse().expect("a network")],
                kinds: vec![LineKind::Flow],
                ..Query::default()
            },
            "flow".to_owned(),
        ),
        // What stands behind the peer of pod 5's flow.
        (Query { networks: vec!["10.200.0.5".parse().expect("a network")], ..Query::default() }, "flow gap".to_owned()),
        (
            Query {
                networks: vec!["10.0.0.8/31".parse().expect("a network")],
                kinds: vec![LineKind::Flow],
                ..Query::default()
            },
            "flow flow".to_owned(),
        ),
        (Query { keys: list("ASIA0000000000000007"), ..Query::default() }, "metadata gap".to_owned()),
        (Query { roles: list("node-role"), uids: list(&who.uid), ..Query::default() }, "metadata gap".to_owned()),
        (Query { roles: list("another"), ..Query::default() }, "gap".to_owned()),
        (
            Query { processes: list("usr/bin/cu"), uids: list(&who.uid), ..Query::default() },
            "flow process metadata gap".to_owned(),
        ),
        (Query { processes: list("wget"), ..Query::default() }, "gap".to_owned()),
        (Query { findings: list("f9"), ..Query::default() }, "finding gap".to_owned()),
        (
            Query { findings: list("node-credentials-taken"), uids: list(&who.uid), ..Query::default() },
            "finding gap".to_owned(),
        ),
        // From within the fold that ends at 100 to the request of the same pod.
        (
            Query { since: Some(at(99)), until: Some(at(102)), ..Query::default() },
            "flow process metadata flow".to_owned(),
        ),
        (Query { since: Some(at(1_000)), ..Query::default() }, String::new()),
    ];
    for (query, wanted) in cases {
        let mut wanted: Vec<_> = wanted.split_whitespace().collect();
        let got = kinds(query.clone());
        let mut got: Vec<_> = got.split_whitespace().collect();
        wanted.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, wanted, "{query:?}");
    }
}

#[test]
fn a_store_is_read_while_it_is_written_and_its_reader_holds_nothing_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path());
    assert_eq!(store.write(&shared((0..5_000).map(|n| flow(n % 9, n, 10))), at(10)).rows, 5_000);
    let mut reader = Reader::open(directory.path()).expect("opens");
    let mut seen = 0;
    reader.each(&Query::default(), &mut |_| {
        seen += 1;
        if seen % 500 == 0 {
            let written = store.write(&shared([metadata(1, 20, seen)]), at(20));
            assert_eq!(written.rows, 1, "{written:?}");
        }
        std::ops::ControlFlow::Continue(())
    });
    assert!(seen >= 5_000);
    assert_eq!(found(directory.path(), &Query { kinds: vec![LineKind::Metadata], ..Query::default() }).len(), 10);
}

#[test]
fn a_copy_is_read_with_what_stood_in_its_log() {
    let (home, copy) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut store = store(home.path());
    assert_eq!(store.write(&shared((0..100).map(|n| flow(n, n, 10))), at(10)).rows, 100);
    // Of a running agent: file and log, without what only its own memory needs.
    for entry in fs::read_dir(home.path()).expect("lists") {
        let path = entry.expect("lists").path();
        if !path.to_string_lossy().ends_with("-shm") {
            fs::copy(&path, copy.path().join(path.file_name().expect("a name"))).expect("copies");
        }
    }
    assert_eq!(found(copy.path(), &Query::default()).len(), 100);
}

#[test]
fn damaged_files_are_named_and_the_others_read() {
    let directory = tempfile::tempdir().expect("a directory");
    for day in 0..3 {
        let mut store =
            Store::open(super::options(directory.path(), 64 * super::MIB), at(day * 86_400)).expect("opens");
        let rows = (0..2_000).map(|n| flow(n % 9, n, day * 86_400 + 10));
        assert_eq!(store.write(&shared(rows), at(day * 86_400 + 10)).rows, 2_000);
        store.close();
    }
    let paths: Vec<_> =
        crate::history::files::list(directory.path()).expect("lists").into_iter().map(|segment| segment.path).collect();
    let mut bytes = fs::read(&paths[1]).expect("reads");
    let middle = bytes.len() / 2;
    bytes[4_096..middle].fill(0xa5);
    fs::write(&paths[1], bytes).expect("writes");

    let mut reader = Reader::open(directory.path()).expect("opens");
    let mut rows = 0;
    reader.each(&Query { kinds: vec![LineKind::Flow], ..Query::default() }, &mut |_| {
        rows += 1;
        std::ops::ControlFlow::Continue(())
    });
    assert!((4_000..6_000).contains(&rows), "{rows} rows");
    let unreadable: Vec<_> = reader.coverage().unreadable.iter().map(|file| &file.path).collect();
    assert_eq!(unreadable, [&paths[1]]);
}

#[test]
fn peers_are_found_by_name_by_what_is_above_it_and_by_pattern() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path());
    let names = ["db.shop.example.com", "example.com", "badexample.com", "a[b].example.net"];
    let named = names.iter().enumerate().map(|(n, name)| {
        let Output::Flow(mut row) = flow(1, u32::try_from(n).expect("few"), 10) else { unreachable!("a flow") };
        row.peer.name = Some((*name).to_owned());
        Output::Flow(row)
    });
    let nameless = [flow(1, 9, 10), metadata(1, 10, 1), exec(1, 10), finding(1, 10)];
    assert_eq!(store.write(&shared(named.chain(nameless)), at(10)).rows, 8);
    let found_by = |name: &str| {
        let rows = found(directory.path(), &Query { names: vec![name.to_owned()], ..Query::default() });
        let mut names: Vec<_> = rows
            .into_iter()
            .map(|row| match row {
                Output::Flow(row) => row.peer.name.expect("a name"),
                other => panic!("{other:?}"),
            })
            .collect();
        names.sort_unstable();
        names
    };
    assert_eq!(found_by("Example.COM."), ["db.shop.example.com", "example.com"]);
    assert_eq!(found_by("shop.example.com"), ["db.shop.example.com"]);
    assert_eq!(found_by("*example.com"), ["badexample.com", "db.shop.example.com", "example.com"]);
    assert_eq!(found_by("d?.*"), ["db.shop.example.com"]);
    assert_eq!(found_by("a[b].example.net"), ["a[b].example.net"], "brackets are no set");
    assert_eq!(found_by("%"), Vec::<String>::new());
}
