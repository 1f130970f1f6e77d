//! The outbox on real files that a store writes beside it.

use std::collections::BTreeMap;
use std::path::Path;

use agent_core::books::Records;
use agent_core::output::{FlowRow, Output, RttHistogram};

use super::{Batch, CURSOR, Most, Outbox, Parcel};
use crate::history::store::{Options, Store};
use crate::history::tests::read::finding;
use crate::history::tests::samples::{at, exec, flow, gap, metadata};
use crate::history::tests::{MIB, options, shared, store};
use crate::lines::LineKind;

const MOST: Most = Most { rows: 7, bytes: 1 << 20 };

fn outbox(directory: &Path) -> Outbox {
    Outbox::open(directory, Vec::new(), true).expect("opens")
}

fn rows(batch: &Batch) -> Vec<(String, Output)> {
    let row = |parcel: &Parcel| match parcel {
        Parcel::Row { id, row } => Some((id.clone(), (**row).clone())),
        Parcel::Missing { .. } => None,
    };
    batch.parcels.iter().filter_map(row).collect()
}

fn missing(batch: &Batch) -> Vec<Option<u64>> {
    let missing = |parcel: &Parcel| match parcel {
        Parcel::Missing { rows, .. } => Some(*rows),
        Parcel::Row { .. } => None,
    };
    batch.parcels.iter().filter_map(missing).collect()
}

/// All that is there, batch by batch; each arrives.
fn everything(outbox: &mut Outbox) -> Vec<(String, Output)> {
    let mut all = Vec::new();
    loop {
        let batch = outbox.next(MOST, at(0)).expect("reads");
        assert!(batch.parcels.len() <= MOST.rows);
        assert_eq!((batch.unreadable, missing(&batch)), (0, Vec::new()));
        outbox.arrived(&batch).expect("writes");
        if batch.parcels.is_empty() {
            return all;
        }
        all.extend(rows(&batch));
    }
}

/// As it is stored: what only telemetry and the books need is gone.
fn stored(output: Output) -> Output {
    match output {
        Output::Flow(row) => {
            Output::Flow(Box::new(FlowRow { rtt: RttHistogram::default(), records: Records::default(), ..*row }))
        }
        other => other,
    }
}

fn sorted(mut outputs: Vec<Output>) -> Vec<String> {
    let mut texts: Vec<String> = outputs.drain(..).map(|output| stored(output).to_json("n")).collect();
    texts.sort();
    texts
}

fn some(second: i64) -> Vec<Output> {
    let mut some: Vec<Output> = (0..20).map(|peer| flow(1, peer, second)).collect();
    some.extend([metadata(1, second, 1), metadata(2, second, 2), exec(3, second), finding(4, second), gap(second)]);
    some
}

#[test]
fn every_row_comes_once_and_with_a_name_of_its_own() {
    let home = tempfile::tempdir().expect("a directory");
    let mut store = store(home.path());
    let mut outbox = outbox(home.path());
    assert_eq!((everything(&mut outbox).len(), outbox.waits_since()), (0, None));
    let mut seen = BTreeMap::new();
    // The clock goes back: rows that come late have times before those that were shipped.
    for second in [100, 50, 200, 199] {
        store.write(&shared(some(second)), at(second));
        assert!(outbox.waits_since().is_some());
        let all = everything(&mut outbox);
        assert_eq!(sorted(all.iter().map(|(_, row)| row.clone()).collect()), sorted(some(second)), "at {second}");
        seen.extend(all);
    }
    assert_eq!(seen.len(), 100, "names are of one row each");
    assert_eq!(outbox.waits_since(), None);
    store.finish(at(300)).expect("ends");
    assert!(everything(&mut outbox).is_empty());
}

#[test]
fn what_did_not_arrive_comes_again_with_the_same_names() {
    let home = tempfile::tempdir().expect("a directory");
    let mut store = store(home.path());
    store.write(&shared(some(10)), at(10));
    let first = {
        let mut outbox = outbox(home.path());
        let batch = outbox.next(MOST, at(0)).expect("reads");
        outbox.arrived(&batch).expect("writes");
        // Sent, and the agent is killed before it knows.
        outbox.next(MOST, at(0)).expect("reads")
    };
    let mut after = outbox(home.path());
    let again = after.next(MOST, at(0)).expect("reads");
    assert_eq!(rows(&first).len(), MOST.rows);
    let ids = |batch: &Batch| rows(batch).into_iter().map(|(id, row)| (id, row.to_json("n"))).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&again));
    assert_eq!(everything(&mut after).len(), 25 - MOST.rows);
}

#[test]
fn it_begins_with_what_comes_or_with_what_is_there() {
    let home = tempfile::tempdir().expect("a directory");
    let mut store = store(home.path());
    store.write(&shared(some(10)), at(10));
    let mut outbox = Outbox::open(home.path(), Vec::new(), false).expect("opens");
    assert_eq!(everything(&mut outbox).len(), 0);
    store.write(&shared(some(20)), at(20));
    // It has a place now, whatever the configuration says.
    let mut outbox = Outbox::open(home.path(), Vec::new(), true).expect("opens");
    assert_eq!(everything(&mut outbox).len(), 25);
    // Nobody knows where it stood: all of it, rather than too little.
    std::fs::write(home.path().join(CURSOR), "{\"place\":").expect("writes");
    let mut outbox = Outbox::open(home.path(), Vec::new(), false).expect("opens");
    assert_eq!(everything(&mut outbox).len(), 50);
}

#[test]
fn only_the_kinds_that_are_wanted() {
    let home = tempfile::tempdir().expect("a directory");
    let mut store = store(home.path());
    store.write(&shared(some(10)), at(10));
    let kinds = vec![LineKind::Finding, LineKind::Metadata];
    let mut outbox = Outbox::open(home.path(), kinds, true).expect("opens");
    let all = everything(&mut outbox);
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|(_, row)| matches!(row, Output::Finding(_) | Output::Metadata(_))));
    assert_eq!(outbox.waits_since(), None);
}

/// A file of a program without a journal: its rows get one when it is written on.
#[test]
fn rows_of_an_earlier_program_are_shipped_too() {
    let home = tempfile::tempdir().expect("a directory");
    let mut old = store(home.path());
    old.write(&shared(some(10)), at(10));
    old.finish(at(11)).expect("ends");
    drop(old);
    let file = std::fs::read_dir(home.path()).expect("lists").flatten().map(|entry| entry.path());
    let file = file.filter(|path| path.extension().is_some_and(|end| end == "db")).last().expect("a file");
    rusqlite::Connection::open(file)
        .and_then(|file| {
            file.execute_batch(
                "DROP TRIGGER journal_metadata; DROP TRIGGER journal_exec; DROP TRIGGER journal_finding; \
                 DROP TRIGGER journal_gap; DROP TRIGGER journal_capacity; DROP TRIGGER journal_object; DROP TABLE journal;",
            )
        })
        .expect("drops");
    let mut store = store(home.path());
    store.write(&shared(some(20)), at(20));
    assert_eq!(everything(&mut outbox(home.path())).len(), 50);
}

/// Files go while nothing arrives, and the agent starts again meanwhile: what they held is counted exactly, told once, and the rest
/// arrives.
#[test]
fn what_is_removed_before_its_turn_is_counted() {
    let home = tempfile::tempdir().expect("a directory");
    let kept = Options { age_days: 3, ..options(home.path(), 64 * MIB) };
    let mut store = Store::open(kept, at(0)).expect("opens");
    let mut outbox = outbox(home.path());
    store.write(&shared(some(1)), at(1));
    let batch = outbox.next(MOST, at(1)).expect("reads");
    outbox.arrived(&batch).expect("writes");
    let first = rows(&batch).len() as u64;
    let mut written = 25;
    for day in 1..30 {
        let second = day * 86_400 + 5;
        written += store.write(&shared(some(second)), at(second)).rows;
        outbox.look().expect("counts");
        if day % 7 == 0 {
            outbox = Outbox::open(home.path(), Vec::new(), true).expect("opens");
        }
        // Found out, and not told: this batch never arrives.
        outbox.next(Most { rows: 1, bytes: 1 }, at(second)).expect("reads");
    }
    let batch = outbox.next(MOST, at(0)).expect("reads");
    let [Some(lost)] = missing(&batch)[..] else { panic!("{batch:?}") };
    assert!(lost > 500, "{lost}");
    assert_eq!(outbox.missing(), lost);
    outbox.arrived(&batch).expect("writes");
    let rest = (rows(&batch).len() + everything(&mut outbox).len()) as u64;
    assert_eq!(written, first + lost + rest);
    assert_eq!(outbox.missing(), lost);
}

#[test]
fn a_history_that_began_anew_is_shipped_from_its_start() {
    let home = tempfile::tempdir().expect("a directory");
    let mut first = Store::open(options(home.path(), 16 * MIB), at(0)).expect("opens");
    let fill = |store: &mut Store, days: i64| {
        for day in 0..days {
            store.write(&shared(some(day * 86_400 + 5)), at(day * 86_400 + 5));
        }
    };
    fill(&mut first, 3);
    assert_eq!(everything(&mut outbox(home.path())).len(), 75);
    drop(first);
    for file in std::fs::read_dir(home.path()).expect("lists").flatten() {
        if file.file_name() != CURSOR {
            std::fs::remove_file(file.path()).expect("removes");
        }
    }
    let mut second = Store::open(options(home.path(), 16 * MIB), at(7)).expect("opens");
    fill(&mut second, 1);
    assert_eq!(everything(&mut outbox(home.path())).len(), 25);
}
