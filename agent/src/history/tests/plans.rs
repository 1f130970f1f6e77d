//! How the database finds rows: a question about a span, a pod, an address, a key or anything else that a timeline may be
//! asked for reads no table of rows from end to end, however many rows stand there.

use rusqlite::{Connection, params_from_iter};

use super::samples::{at, exec, flow, gap, metadata};
use super::{shared, store};
use crate::history::files;
use crate::history::read::merge::statements;
use crate::history::read::{Network, Query};

/// Tables that grow with time. All others are dictionaries, but for folds, of which one stands for thousands of flows.
const ROWS: [&str; 7] = ["capacity", "exec", "finding", "flow", "gap", "metadata", "object"];

fn questions() -> Vec<(&'static str, Query)> {
    let one = |text: &str| vec![text.to_owned()];
    let span = Query { since: Some(at(10)), until: Some(at(20)), ..Query::default() };
    let network = |text: &str| text.parse::<Network>().expect("a network");
    let all = [
        ("everything", Query::default()),
        ("a span", span.clone()),
        ("a pod", Query { pods: vec![("ns-1".to_owned(), "pod-1".to_owned())], ..Query::default() }),
        ("a uid", Query { uids: one("u"), ..Query::default() }),
        ("a workload", Query { workloads: one("app-1"), ..Query::default() }),
        ("an address", Query { networks: vec![network("10.100.0.7")], ..Query::default() }),
        ("a network", Query { networks: vec![network("10.100.0.0/16")], ..Query::default() }),
        ("a name", Query { names: one("db.example.com"), ..Query::default() }),
        ("a key", Query { keys: one("ASIA1"), ..Query::default() }),
        ("a role", Query { roles: one("node-role"), ..Query::default() }),
        ("a program", Query { processes: one("curl"), ..Query::default() }),
        ("a finding", Query { findings: one("f1"), ..Query::default() }),
    ];
    let within = all.clone().map(|(what, query)| (what, Query { since: span.since, until: span.until, ..query }));
    all.into_iter().chain(within).collect()
}

/// Steps of a plan.
fn steps(file: &Connection, sql: &str, values: &[rusqlite::types::Value]) -> Vec<String> {
    let mut statement = file.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
    let rows = statement.query_map(params_from_iter(values), |row| row.get(3)).expect(sql);
    rows.collect::<Result<_, _>>().expect(sql)
}

#[test]
fn every_question_finds_its_rows_by_an_index() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path());
    let rows = (0..400).map(|n| flow(n % 9, n, 15)).chain([metadata(1, 11, 1), exec(1, 12), gap(13)]);
    assert_eq!(store.write(&shared(rows), at(20)).lost_rows, 0);
    drop(store);
    let path = files::list(directory.path()).expect("lists").remove(0).path;
    let file = Connection::open(path).expect("opens");
    let mut looked_at = std::collections::BTreeSet::new();
    for (what, query) in questions() {
        for (sql, values) in statements(&file, &query).expect(what) {
            for step in steps(&file, &sql, &values) {
                let mut words = step.split(' ');
                let (verb, table) = (words.next().expect("a verb"), words.next().unwrap_or_default());
                let name = if table == "f" { "flow" } else { table };
                looked_at.extend(ROWS.into_iter().filter(|row| *row == name));
                let is_searched = verb == "SEARCH" && step.contains("USING");
                assert!(is_searched || !ROWS.contains(&name), "{what}: {step}, of {sql}");
            }
        }
    }
    assert!(looked_at.into_iter().eq(ROWS), "a table that no question looks at");
}
