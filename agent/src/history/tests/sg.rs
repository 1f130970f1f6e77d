//! What security groups say of flows: kept, and absent in files of the version before.

use std::sync::Arc;

use agent_core::output::{JudgedBy, Output, SgRow, SgVerdict, SgWhy};

use super::samples::{at, flow};
use super::{found, shared, store};
use crate::history::files;
use crate::history::read::Query;
use crate::lines::LineKind;

fn with(output: Output, sg: SgRow) -> Output {
    let Output::Flow(mut row) = output else { unreachable!("a flow") };
    row.sg = Some(Box::new(sg));
    Output::Flow(row)
}

#[test]
fn verdicts_of_security_groups_come_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path());
    let allowed = || SgRow {
        verdict: SgVerdict::Allowed,
        by: Some(JudgedBy::Pod),
        rules: vec![Arc::from("sgr-1"), Arc::from("sgr-2")],
        why: Some(SgWhy::PeerSideUnknown),
        told: Some(agent_core::time::WallNs(1_700_000_000_123_456_000)),
    };
    let unjudged =
        SgRow { verdict: SgVerdict::NotJudged, by: None, rules: vec![], why: Some(SgWhy::SameNode), told: None };
    let rows = [
        with(flow(1, 1, 60), allowed()),
        flow(1, 2, 60),
        with(flow(1, 3, 60), unjudged),
        with(flow(1, 1, 70), allowed()),
    ];
    assert_eq!(store.write(&shared(rows.clone()), at(70)).rows, 4);
    store.close();
    let expected: Vec<_> = rows.iter().map(|row| row.to_json("n")).collect();
    let come_back: Vec<_> = found(directory.path(), &Query::default()).iter().map(|row| row.to_json("n")).collect();
    assert_eq!(come_back, expected);
    let path = files::list(directory.path()).expect("lists").remove(0).path;
    let file = rusqlite::Connection::open(&path).expect("opens");
    let kept: i64 = file.query_row("SELECT count(*) FROM sg", [], |row| row.get(0)).expect("counts");
    assert_eq!(kept, 2, "the same verdict stands once");
}

#[test]
fn a_file_of_the_version_before_is_read_and_goes_on_with_verdicts() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut first = store(directory.path());
    assert_eq!(first.write(&shared([flow(1, 1, 60)]), at(60)).rows, 1);
    first.close();
    drop(first);
    let path = files::list(directory.path()).expect("lists").remove(0).path;
    let file = rusqlite::Connection::open(&path).expect("opens");
    for (table, columns) in [
        ("run", &["boot_id", "ended", "continues", "mark", "kernel"][..]),
        ("flow_key", &["actual_ip", "actual_port", "via"]),
    ] {
        for column in columns {
            file.execute(&format!("ALTER TABLE {table} DROP COLUMN {column}"), []).expect("goes back");
        }
    }
    file.execute_batch(
        "ALTER TABLE flow DROP COLUMN sg; DROP TABLE sg; DROP TABLE told; DROP TABLE object; PRAGMA user_version = 1;",
    )
    .expect("goes back");
    drop(file);
    let read = || {
        let rows = found(directory.path(), &Query { kinds: vec![LineKind::Flow], ..Query::default() });
        rows.into_iter().filter(|row| matches!(row, Output::Flow(_))).collect::<Vec<_>>()
    };
    assert_eq!(read().len(), 1, "as it was");

    let sg = SgRow { verdict: SgVerdict::NoRule, by: Some(JudgedBy::Node), rules: vec![], why: None, told: None };
    let mut second = store(directory.path());
    assert_eq!(second.write(&shared([with(flow(1, 1, 70), sg.clone())]), at(70)).rows, 1);
    second.close();
    assert_eq!(files::list(directory.path()).expect("lists").len(), 1, "the same file");
    let verdicts: Vec<_> = read()
        .into_iter()
        .map(|row| match row {
            Output::Flow(row) => row.sg,
            other => unreachable!("{other:?}"),
        })
        .collect();
    assert_eq!(verdicts, [None, Some(Box::new(sg))]);
}
