//! Others at the same files, and at the clock: readers that stand still, links, a jump ahead.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use agent_core::capacity::{Resource, Unit};
use agent_core::output::{CapacityRow, Exhaustion, Output, ResourceRow};
use rusqlite::{Connection, OpenFlags};

use super::samples::{at, flow, metadata};
use super::{MIB, found, options, shared, store};
use crate::history::files;
use crate::history::read::Query;
use crate::history::store::Store;

const DAY_S: i64 = 86_400;

/// A reader in the middle of its answer, as behind a pager.
fn standing_reader(directory: &Path) -> Connection {
    let path = files::list(directory).expect("lists").pop().expect("a file").path;
    let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
    reader.execute_batch("BEGIN").expect("begins");
    let runs: i64 = reader.query_row("SELECT count(*) FROM run", [], |row| row.get(0)).expect("reads");
    assert!(runs > 0);
    reader
}

#[test]
fn a_reader_that_stands_still_at_a_restart_costs_no_history() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut first = store(directory.path());
    assert_eq!(first.write(&shared([flow(1, 1, 60)]), at(60)).rows, 1);
    first.close();
    drop(first);
    let reader = standing_reader(directory.path());
    let mut second = store(directory.path());
    let written = second.write(&shared([flow(1, 1, 70)]), at(70));
    assert_eq!((written.rows, written.lost_rows), (1, 0), "{written:?}");
    drop(reader);
    assert_eq!(found(directory.path(), &Query::default()).len(), 2);
    assert_eq!(files::list(directory.path()).expect("lists").len(), 2);
}

#[test]
fn a_reader_that_stands_still_is_not_waited_for_at_each_copy_of_the_log() {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path());
    assert_eq!(store.write(&shared([flow(1, 1, 10)]), at(10)).rows, 1);
    let reader = standing_reader(directory.path());
    store.on_busy(|_| {
        ASKED.fetch_add(1, Ordering::Relaxed);
        false
    });
    let path = files::list(directory.path()).expect("lists").remove(0);
    let log = || fs::metadata(path.beside("-wal")).map_or(0, |log| log.len());
    let quarter = 64 * MIB / 16 / 4;
    let mut number = 0;
    while log() <= 2 * quarter {
        let written = store.write(&shared((0..50).map(|n| flow(n % 9, number * 50 + n, 20))), at(20));
        assert_eq!((written.rows, written.lost_rows), (50, 0), "{written:?}");
        number += 1;
        assert!(number < 10_000, "the log does not grow: {} bytes", log());
    }
    assert_eq!(ASKED.load(Ordering::Relaxed), 0, "it was waited for");
    // Once it is gone the log is copied as ever.
    drop(reader);
    assert_eq!(store.write(&shared([metadata(1, 30, 1)]), at(30)).rows, 1);
    assert!(log() <= quarter, "{} bytes", log());
}

#[test]
fn a_directory_behind_a_link_is_written_and_read() {
    let home = tempfile::tempdir().expect("a directory");
    fs::create_dir(home.path().join("disk")).expect("makes");
    symlink("disk", home.path().join("srv")).expect("links");
    let directory = home.path().join("srv/sekisho");
    let mut store = store(&directory);
    assert_eq!(store.write(&shared([flow(1, 1, 60)]), at(60)).rows, 1);
    store.close();
    assert_eq!(found(&directory, &Query::default()).len(), 1);
    symlink(home.path().join("disk/sekisho"), home.path().join("copy")).expect("links");
    assert_eq!(found(&home.path().join("copy"), &Query::default()).len(), 1);
}

/// A file that cannot be written on, and that is not damaged.
#[test]
fn a_file_that_cannot_be_opened_is_left_for_a_new_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut first = store(directory.path());
    assert_eq!(first.write(&shared([flow(1, 1, 60)]), at(60)).rows, 1);
    first.close();
    drop(first);
    let last = files::list(directory.path()).expect("lists").remove(0);
    // Nobody can write a log here.
    fs::create_dir(last.beside("-wal")).expect("makes");
    let mut second = store(directory.path());
    assert_eq!(second.write(&shared([flow(1, 1, 70)]), at(70)).rows, 1);
    assert_eq!(files::list(directory.path()).expect("lists").len(), 2);
}

#[test]
fn a_clock_that_jumps_ahead_erases_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = options(directory.path(), 64 * MIB);
    options.age_days = 2;
    let mut store = Store::open(options, at(0)).expect("opens");
    let write = |store: &mut Store, day: i64| {
        let second = day * DAY_S + 60;
        assert_eq!(store.write(&shared([flow(1, 1, second)]), at(second)).rows, 1);
    };
    let days = || -> Vec<String> {
        let all = files::list(directory.path()).expect("lists");
        all.iter().filter_map(|segment| files::day(segment).map(str::to_owned)).collect()
    };
    write(&mut store, 0);
    write(&mut store, 1);
    // Three years, and back.
    write(&mut store, 1_000);
    write(&mut store, 2);
    assert_eq!(days(), ["2026-11-22", "2026-11-23", "2029-08-18", "2026-11-24"]);
    // Where it stays, what is old goes with the next file.
    write(&mut store, 1_000);
    write(&mut store, 1_001);
    assert_eq!(days(), ["2029-08-18", "2029-08-18", "2029-08-19"]);
}

fn used_up() -> Output {
    let resource = ResourceRow {
        resource: Resource::PodIps,
        scope: "node".to_owned(),
        used: Some(10),
        limit: Some(10),
        unit: Unit::Count,
        source: "x".to_owned(),
        age_s: 0,
        headroom: Some(0),
        exhaustion_s: Exhaustion::NotGrowing,
    };
    let resources = vec![resource];
    Output::Capacity(CapacityRow { time: at(60), resources, ..CapacityRow::default() }.into())
}

/// A ceiling is written once when it is used up. If that transaction is not, it is written with the next.
#[test]
fn a_ceiling_that_was_not_written_is_written_again_and_only_what_is_written_counts() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path());
    let written = store.write(&shared([used_up(), used_up()]), at(60));
    assert_eq!((written.rows, written.lost_rows), (1, 0), "the second says nothing new");
    store.close();
    // Not even a database: found out when the rows are written.
    let path = files::list(directory.path()).expect("lists").remove(0).path;
    fs::write(&path, [b'x'; 9_000]).expect("writes");
    assert_eq!(store.write(&shared([used_up()]), at(70)).rows, 1);
    let aside = files::list(directory.path()).expect("lists").remove(0);
    assert!(aside.broken);
    aside.remove().expect("removes");
    assert_eq!(found(directory.path(), &Query::default()).len(), 1);
}
