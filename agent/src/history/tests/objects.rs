//! Versions of the cluster's objects: what comes back, what stands once, and what every file begins with.

use std::sync::Arc;

use agent_core::facts::{PodFacts, ServiceAccountFacts};
use agent_core::output::{Change, ObjectFacts, ObjectKind, ObjectRow, Output};

use super::samples::{at, flow};
use super::{MIB, found, options, shared, store};
use crate::history::files;
use crate::history::read::Query;
use crate::history::store::Store;
use crate::lines::LineKind;

/// The pod `ns-N/pod-N`; `digest` stands for its content.
fn pod(number: u32, second: i64, change: Change, digest: u64) -> Output {
    let facts = PodFacts {
        namespace: format!("ns-{number}").into(),
        name: format!("pod-{number}").into(),
        uid: Some(format!("uid-{number}").into()),
        ips: vec![std::net::IpAddr::from([10, 0, 0, u8::try_from(number % 256).expect("fits")])],
        ..PodFacts::default()
    };
    let changed = if change == Change::Changed { vec!["labels".to_owned(), "phase".to_owned()] } else { Vec::new() };
    Output::Object(Box::new(ObjectRow {
        time: at(second),
        object: ObjectKind::Pod,
        change,
        namespace: facts.namespace.clone(),
        name: facts.name.clone(),
        uid: facts.uid.clone(),
        workload: format!("app-{number}").into(),
        changed,
        facts: (change != Change::Gone).then(|| ObjectFacts::Pod(Arc::new(facts))),
        digest,
    }))
}

fn account(namespace: &str, second: i64, digest: u64) -> Output {
    let facts = ServiceAccountFacts {
        namespace: namespace.into(),
        name: "default".into(),
        role_arn: Some("arn:aws:iam::111122223333:role/cart".into()),
        ..ServiceAccountFacts::default()
    };
    Output::Object(Box::new(ObjectRow {
        time: at(second),
        object: ObjectKind::ServiceAccount,
        change: Change::Seen,
        namespace: facts.namespace.clone(),
        name: facts.name.clone(),
        uid: None,
        workload: Arc::default(),
        changed: Vec::new(),
        facts: Some(ObjectFacts::ServiceAccount(Arc::new(facts))),
        digest,
    }))
}

fn objects() -> Query {
    Query { kinds: vec![LineKind::Object], ..Query::default() }
}

/// Changes in the order of the story, with seconds.
fn story(directory: &std::path::Path) -> Vec<(String, Change, i64)> {
    let rows = found(directory, &objects());
    let rows = rows.into_iter().filter_map(|output| match output {
        Output::Object(row) => Some((row.name.to_string(), row.change, (row.time.0 - at(0).0) / 1_000_000_000)),
        _ => None,
    });
    rows.collect()
}

#[test]
fn versions_come_back_by_every_filter() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path());
    let rows = [
        pod(1, 10, Change::Seen, u64::MAX),
        pod(2, 10, Change::Seen, 2),
        account("ns-1", 11, 3),
        pod(1, 20, Change::Changed, 4),
        pod(1, 30, Change::Gone, 0),
    ];
    assert_eq!(store.write(&shared(rows.clone()), at(30)).rows, 5);
    assert_eq!(found(directory.path(), &objects()), rows);

    let one = |query: Query| found(directory.path(), &query).iter().map(Output::time).collect::<Vec<_>>();
    let name = (String::from("ns-1"), String::from("pod-1"));
    // The account may be the pod's.
    assert_eq!(one(Query { pods: vec![name], ..objects() }), [at(10), at(11), at(20), at(30)]);
    assert_eq!(one(Query { uids: vec!["uid-2".to_owned()], ..objects() }), [at(10)]);
    assert_eq!(one(Query { workloads: vec!["app-1".to_owned()], ..objects() }), [at(10), at(20), at(30)]);
    assert_eq!(one(Query { networks: vec!["10.0.0.2".parse().expect("an address")], ..objects() }), [at(10)]);
    assert_eq!(one(Query { since: Some(at(20)), ..objects() }), [at(20), at(30)]);
    assert_eq!(one(Query { keys: vec!["ASIA".to_owned()], ..objects() }), []);
}

#[test]
fn a_version_that_stands_is_not_written_again_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut first = store(directory.path());
    first.write(
        &shared([pod(1, 10, Change::Seen, 1), pod(2, 10, Change::Seen, 2), pod(3, 10, Change::Seen, 3)]),
        at(10),
    );
    first.write(&shared([pod(3, 15, Change::Gone, 0)]), at(15));
    drop(first);
    let mut second = store(directory.path());
    let rows = [pod(1, 60, Change::Seen, 1), pod(2, 60, Change::Seen, 9), pod(3, 60, Change::Seen, 3)];
    assert_eq!(second.write(&shared(rows), at(60)).rows, 2, "one is as it was");
    let wanted = [
        ("pod-1", Change::Seen, 10),
        ("pod-2", Change::Seen, 10),
        ("pod-3", Change::Seen, 10),
        ("pod-3", Change::Gone, 15),
        ("pod-2", Change::Changed, 60),
        ("pod-3", Change::Seen, 60),
    ];
    let wanted = wanted.map(|(name, change, second)| (name.to_owned(), change, second));
    assert_eq!(story(directory.path()), wanted);
}

#[test]
fn every_file_begins_with_what_stands_and_the_story_tells_it_once() {
    const DAY_S: i64 = 86_400;
    let directory = tempfile::tempdir().expect("a directory");
    // A small quota: eight rows a transaction.
    let mut store = Store::open(options(directory.path(), 16 * MIB), at(0)).expect("opens");
    for number in 0..40 {
        store.write(&shared([pod(number, 10, Change::Seen, 1)]), at(10));
    }
    store.write(&shared([pod(7, 20, Change::Gone, 0)]), at(20));
    for minute in 0..60 {
        store.alive(at(DAY_S + 60 * minute)).expect("writes");
    }
    store.write(&shared([flow(1, 1, DAY_S + 3_600), pod(8, DAY_S + 3_600, Change::Changed, 5)]), at(DAY_S + 3_600));
    store.close();
    let all = files::list(directory.path()).expect("lists");
    assert_eq!(all.len(), 2);
    assert_eq!(story(directory.path()).len(), 42, "each change once");

    all[0].remove().expect("removes");
    let file = rusqlite::Connection::open(&all[1].path).expect("opens");
    let of = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("reads");
    assert_eq!(of("SELECT count(*) FROM object WHERE base = 1"), 39);
    assert_eq!(of("SELECT count(*) FROM object WHERE base = 1 AND name = 'pod-7'"), 0);
    assert_eq!(of("SELECT count(*) FROM run WHERE kernel LIKE '_%._% _%'"), of("SELECT count(*) FROM run"));
    assert_eq!(story(directory.path()), [("pod-8".to_owned(), Change::Changed, DAY_S + 3_600)]);
}

#[test]
fn a_row_that_was_lost_stands_in_the_next_transaction() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path());
    store.write(&shared([pod(1, 10, Change::Seen, 1)]), at(10));
    let path = files::list(directory.path()).expect("lists").remove(0).path;
    let other = rusqlite::Connection::open(&path).expect("opens");
    // Somebody holds the file for longer than the store waits.
    other.execute_batch("BEGIN IMMEDIATE").expect("begins");
    let written = store.write(&shared([pod(1, 20, Change::Changed, 2), pod(2, 20, Change::Seen, 1)]), at(20));
    assert_eq!((written.rows, written.lost_rows), (0, 2), "{written:?}");
    other.execute_batch("ROLLBACK").expect("ends");
    drop(other);
    store.alive(at(30)).expect("writes");
    store.alive(at(40)).expect("writes");
    let file = rusqlite::Connection::open(&path).expect("opens");
    let of = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("reads");
    assert_eq!(of("SELECT count(*) FROM object WHERE name = 'pod-2' AND digest = 1"), 1);
    assert_eq!(of("SELECT count(*) FROM object WHERE name = 'pod-1' AND digest = 2"), 1);
}
