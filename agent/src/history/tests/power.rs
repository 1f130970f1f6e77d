//! A machine whose power goes at any moment, and disks that fail or stand still, by [`Disk`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use agent_core::continuity::Mark;
use agent_core::output::Output;
use agent_core::time::WallNs;
use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR_WRITE};

use super::disk::{Disk, Fault};
use super::samples::{at, exec, flow, metadata};
use super::writer::{EVER, run};
use super::{MIB, found, options, shared};
use crate::history::outbox::{Most, Outbox, Parcel};
use crate::history::read::Query;
use crate::history::store::Store;
use crate::history::{History, Options, files};

/// Files of half a MiB at the most, with logs that are copied a dozen times; transactions of four rows, of which the last one
/// of a batch alone is synced.
const QUOTA: u64 = 8 * MIB;
/// Transactions of eight rows.
const FAULT_QUOTA: u64 = 16 * MIB;
/// Between two batches: a day ends among them.
const BATCH_SECONDS: i64 = 3_600;
const BATCHES: u32 = 32;
/// Moments at which the power goes.
const CUTS: usize = 50;

/// Rows that are each one of their kind.
fn batch(number: u32) -> Vec<Output> {
    let second = i64::from(number) * BATCH_SECONDS;
    let flows = (0..18).map(|n| flow(n % 5, number * 64 + n, second));
    let requests = (0..3).map(|n| metadata(1, second, u64::from(number * 64 + n)));
    flows.chain(requests).chain([exec(2, second)]).collect()
}

fn moment(number: u32) -> WallNs {
    at(i64::from(number) * BATCH_SECONDS)
}

/// Numbers that look like chance, and are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("64 bits") % end.max(1)
    }
}

fn after_a_boot(directory: &Path) -> Options {
    Options { boot_id: Some("the next boot".to_owned()), ..options(directory, QUOTA) }
}

/// All rows with the names under which they are shipped.
fn shipped(directory: &Path) -> BTreeMap<String, String> {
    let mut outbox = Outbox::open(directory, Vec::new(), true).expect("opens");
    let mut rows = BTreeMap::new();
    loop {
        let batch = outbox.next(Most { rows: 4_096, bytes: 64 << 20 }, at(0)).expect("reads");
        if batch.parcels.is_empty() {
            return rows;
        }
        for parcel in &batch.parcels {
            let Parcel::Row { id, row } = parcel else { panic!("{parcel:?}") };
            assert_eq!(rows.insert(id.clone(), row.to_json("n")), None, "{id} names two rows");
        }
        outbox.arrived(&batch).expect("goes on");
    }
}

fn texts(rows: &[Output]) -> Vec<String> {
    rows.iter().map(|row| row.to_json("n")).collect()
}

/// Whatever of the unsynced writes is left, in whole sectors: the store opens and nothing is damaged; what was acknowledged
/// is there, once; nothing is there that nobody wrote; it is written on; and no row gets the name of one that is gone, for
/// that one may have been shipped.
#[test]
fn the_power_may_go_at_any_moment() {
    let home = tempfile::tempdir().expect("a directory");
    let disk = Disk::new(home.path());
    let mut store = Store::open(options(home.path(), QUOTA), moment(0)).expect("opens");
    let mut acknowledged = Vec::new();
    for number in 0..BATCHES {
        let rows = batch(number);
        assert_eq!(store.write(&shared(rows.clone()), moment(number)).rows, rows.len() as u64);
        acknowledged.push((disk.ops(), texts(&rows)));
    }
    let seen = shipped(home.path());
    drop(store);
    assert!(files::list(home.path()).expect("lists").len() > 1, "no file was ended");

    let all: BTreeSet<&String> = acknowledged.iter().flat_map(|(_, rows)| rows).collect();
    let last = acknowledged.last().expect("some").0;
    let (mut chance, mut lost, mut fewer) = (Chance(0x9e37_79b9_7f4a_7c15), 0, 0);
    for _ in 0..CUTS {
        let (moment_of_cut, kept) = (chance.below(last + 1), [0, 50, 90, 100][chance.below(4)]);
        let left = disk.cut(moment_of_cut, || chance.below(100) < kept);
        let copy = tempfile::tempdir().expect("a directory");
        for (name, bytes) in &left {
            fs::write(copy.path().join(name), bytes).expect("writes");
        }
        let what = || format!("after {moment_of_cut} of {last}, {kept} of 100 sectors kept");
        let mut store = Store::open(after_a_boot(copy.path()), moment(BATCHES)).expect("opens");
        let next = batch(BATCHES);
        let written = store.write(&shared(next.clone()), moment(BATCHES));
        assert_eq!((written.rows, written.lost_rows), (next.len() as u64, 0), "{}: {written:?}", what());
        drop(store);

        assert!(files::list(copy.path()).expect("lists").iter().all(|file| !file.broken), "{}", what());
        // What a reader tells of itself: that nobody watched in between.
        let told = |row: &Output| matches!(row, Output::Gap(_));
        let mut rows = found(copy.path(), &Query::default());
        rows.retain(|row| !told(row));
        let rows = texts(&rows);
        let there: BTreeSet<&String> = rows.iter().collect();
        assert_eq!(there.len(), rows.len(), "{}: a row stands there twice", what());
        let synced = acknowledged.iter().filter(|(ops, _)| *ops <= moment_of_cut).flat_map(|(_, rows)| rows);
        let missing: Vec<_> = synced.chain(&texts(&next)).filter(|row| !there.contains(row)).cloned().collect();
        assert_eq!(missing, Vec::<String>::new(), "{}: acknowledged, and gone", what());
        let foreign = there.iter().filter(|row| !all.contains(**row) && !texts(&next).contains(row)).count();
        assert_eq!(foreign, 0, "{}: rows that nobody wrote", what());
        for (id, row) in shipped(copy.path()) {
            assert!(seen.get(&id).is_none_or(|before| *before == row), "{}: {id} names another row", what());
        }
        lost += usize::from(rows.len() < seen.len() + next.len());
        fewer += usize::from(acknowledged.iter().all(|(ops, _)| *ops != moment_of_cut));
    }
    assert!(lost > CUTS / 2 && fewer > CUTS / 2, "{lost} of {CUTS} cuts cost rows, {fewer} fell within a batch");
}

/// Rows of a machine that goes on are written into the file that is there; after a crash of the machine, into a new one.
#[test]
fn a_file_of_which_the_machine_may_have_lost_rows_is_not_written_on() {
    let numbers = |boot: Option<&str>, ends: bool| {
        let home = tempfile::tempdir().expect("a directory");
        let mut first = Store::open(options(home.path(), QUOTA), at(0)).expect("opens");
        assert_eq!(first.write(&shared(batch(0)), at(0)).lost_rows, 0);
        if ends {
            first.finish(at(1)).expect("ends");
        }
        drop(first);
        let again = Options { boot_id: boot.map(str::to_owned), ..options(home.path(), QUOTA) };
        let mut second = Store::open(again, at(60)).expect("opens");
        assert_eq!(second.write(&shared(batch(1)), at(60)).lost_rows, 0);
        files::list(home.path()).expect("lists").iter().map(|file| file.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(Some("this boot"), false), [1], "it was killed");
    assert_eq!(numbers(Some("another"), true), [1], "it was stopped, and all was synced");
    assert_eq!(numbers(Some("another"), false), [1, 2]);
    assert_eq!(numbers(None, false), [1, 2], "which boot this is cannot be told");
}

/// From one end of a run to the other, a write or a sync fails once, or they fail for a while: rows that are said to be stored are, rows
/// that are said to be lost are there once at the most, and the store goes on as soon as the disk does.
#[test]
fn any_write_may_fail_and_the_store_goes_on() {
    let total = with_fault(None);
    assert!(total > 60, "{total} writes are too few to say anything");
    for after in (0..total).step_by(7) {
        for (times, code) in [(1, SQLITE_IOERR_WRITE), (25, SQLITE_IOERR_WRITE), (1, SQLITE_FULL), (25, SQLITE_FULL)] {
            with_fault(Some(Fault { after, times, code }));
        }
    }
}

/// Writes some batches while a disk goes wrong; how many ops that takes.
fn with_fault(fault: Option<Fault>) -> usize {
    let home = tempfile::tempdir().expect("a directory");
    let disk = Disk::new(home.path());
    if let Some(fault) = fault {
        disk.fail(fault);
    }
    let Ok(mut store) = Store::open(options(home.path(), FAULT_QUOTA), moment(0)) else {
        // Said at the start, and the agent goes on without.
        assert!(fault.is_some());
        return 0;
    };
    let (mut stored, mut lost, mut failed) = (BTreeSet::new(), BTreeSet::new(), 0);
    for number in 0..3 {
        for chunk in batch(number).chunks(8) {
            let written = store.write(&shared(chunk.to_vec()), moment(number));
            assert_eq!(written.rows + written.lost_rows, chunk.len() as u64, "{fault:?}");
            assert_eq!(written.lost_rows > 0, written.error.is_some(), "{fault:?}");
            // A chunk is one transaction.
            let into = if written.lost_rows == 0 { &mut stored } else { &mut lost };
            into.extend(texts(chunk));
            failed += usize::from(written.lost_rows > 0);
        }
    }
    assert!(fault.is_some() || failed == 0);
    assert!(fault.is_none_or(|fault| fault.times > 1) || failed <= 1, "{failed} transactions for {fault:?}");
    disk.heal();
    let last = batch(3);
    assert_eq!(store.write(&shared(last.clone()), moment(3)).lost_rows, 0, "{fault:?}");
    stored.extend(texts(&last));
    store.finish(moment(4)).expect("ends");
    drop(store);
    let rows = texts(&found(home.path(), &Query::default()));
    let there: BTreeSet<String> = rows.iter().cloned().collect();
    assert_eq!(there.len(), rows.len(), "{fault:?}: a row stands there twice");
    assert_eq!(stored.difference(&there).next(), None, "{fault:?}: said to be stored");
    assert_eq!(there.iter().find(|row| !stored.contains(*row) && !lost.contains(*row)), None, "{fault:?}");
    disk.ops()
}

/// A part of the disk that cannot be used is left alone: the next rows go into a new file.
#[test]
fn a_file_that_cannot_be_written_is_followed_by_another() {
    let home = tempfile::tempdir().expect("a directory");
    let disk = Disk::new(home.path());
    let mut store = Store::open(options(home.path(), FAULT_QUOTA), moment(0)).expect("opens");
    assert_eq!(store.write(&shared(batch(0)), moment(0)).lost_rows, 0);
    disk.fail(Fault { after: 0, times: 1, code: SQLITE_IOERR_WRITE });
    let failed = store.write(&shared([flow(1, 1, 30)]), moment(1));
    assert_eq!((failed.rows, failed.lost_rows), (0, 1));
    assert!(failed.error.is_some_and(|error| error.to_string().contains("000001.db")));
    disk.heal();
    assert_eq!(store.write(&shared(batch(2)), moment(2)).lost_rows, 0);
    let numbers: Vec<_> = files::list(home.path()).expect("lists").iter().map(|file| file.number).collect();
    assert_eq!(numbers, [1, 2]);
    let rows = texts(&found(home.path(), &Query::default()));
    assert_eq!(rows.len(), batch(0).len() + batch(2).len());
}

/// A disk whose syncs do not come back holds up nobody: more rows than fit are handed over meanwhile, and counted. The rows
/// that fit are stored when it comes back.
#[test]
fn a_disk_that_stands_still_holds_up_nobody() {
    const REQUESTS: u32 = 8_000;
    let home = tempfile::tempdir().expect("a directory");
    let disk = Disk::new(home.path());
    let history = History::start(options(home.path(), 64 * MIB), || at(0)).expect("starts");
    disk.stand(true);
    for n in 0..REQUESTS {
        history.push(&shared([metadata(1, 10, n.into())]), Mark::default());
    }
    let counts = history.counts().clone();
    assert_eq!(counts.stored(), 0, "nothing is said to be stored before it is synced");
    assert!(counts.lost() > 0, "all of them fit");
    assert_eq!(counts.place(), None);
    disk.stand(false);
    let counts = run(history.finish(EVER));
    assert_eq!(counts.stored() + counts.lost(), u64::from(REQUESTS));
    assert_eq!(found(home.path(), &Query::default()).len() as u64, counts.stored());
    assert!(counts.stored() >= 4_096, "{} are stored, and more waited", counts.stored());
    let settled: u64 = counts.settle().map(|(_, records)| records).sum();
    assert_eq!(settled, counts.lost(), "written off in the books");
}
