//! What disks do: damage, no room, no right to write. The store says so, counts, and goes on.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};

use agent_core::books::Ledger;

use super::samples::{at, flow, metadata};
use super::{MIB, options, shared, store};
use crate::history::files;
use crate::history::store::{Error, Store};

#[test]
fn a_damaged_file_is_set_aside_and_the_next_one_begun() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut first = store(directory.path());
    let rows = (0..2_000).map(|row| flow(row % 9, row, 60));
    assert_eq!(first.write(&shared(rows), at(60)).rows, 2_000);
    first.close();
    let path = files::list(directory.path()).expect("lists").remove(0).path;
    let mut file = fs::OpenOptions::new().write(true).open(&path).expect("opens");
    file.seek(SeekFrom::Start(4_096 * 3)).expect("seeks");
    file.write_all(&[0xa5; 4_096 * 4]).expect("writes");
    drop((file, first));

    let mut second = store(directory.path());
    assert_eq!(second.write(&shared([flow(1, 1, 120)]), at(120)).rows, 1);
    let all = files::list(directory.path()).expect("lists");
    assert_eq!(all.iter().map(|segment| (segment.number, segment.broken)).collect::<Vec<_>>(), [(1, true), (2, false)]);
    assert!(all[0].path.to_string_lossy().contains(".db.broken-"), "{all:?}");
}

#[test]
fn damage_under_a_running_writer_costs_no_row_that_comes_after() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path());
    assert_eq!(store.write(&shared([flow(1, 1, 60)]), at(60)).rows, 1);
    store.close();
    // Not even a database.
    let path = files::list(directory.path()).expect("lists").remove(0).path;
    fs::write(&path, [b'x'; 9_000]).expect("writes");
    let written = store.write(&shared([flow(1, 1, 70)]), at(70));
    assert_eq!((written.rows, written.lost_rows), (1, 0), "{written:?}");
    assert!(files::list(directory.path()).expect("lists")[0].broken);
}

#[test]
fn a_file_of_a_version_to_come_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    store(directory.path()).close();
    let path = files::list(directory.path()).expect("lists").remove(0).path;
    let file = rusqlite::Connection::open(&path).expect("opens");
    file.pragma_update(None, "user_version", 99).expect("writes");
    drop(file);
    let before = fs::read(&path).expect("reads");

    let mut store = store(directory.path());
    assert_eq!(store.write(&shared([flow(1, 1, 60)]), at(60)).rows, 1);
    assert_eq!(fs::read(&path).expect("reads"), before);
    let all = files::list(directory.path()).expect("lists");
    assert_eq!(
        all.iter().map(|segment| (segment.number, segment.broken)).collect::<Vec<_>>(),
        [(1, false), (2, false)]
    );
}

#[test]
fn an_empty_file_of_a_crash_at_its_birth_is_taken_up() {
    let directory = tempfile::tempdir().expect("a directory");
    files::create(directory.path(), 1, at(0)).expect("creates");
    let mut store = store(directory.path());
    assert_eq!(store.write(&shared([flow(1, 1, 60)]), at(60)).rows, 1);
    assert_eq!(files::list(directory.path()).expect("lists").len(), 1);
}

/// As above, and the machine comes back on another day: the file is not written on, and is one that can be read.
#[test]
fn a_file_that_was_only_begun_is_made_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let empty = files::create(directory.path(), 1, at(0)).expect("creates");
    let begun = files::create(directory.path(), 2, at(0)).expect("creates");
    let file = rusqlite::Connection::open(&begun.path).expect("opens");
    file.pragma_update(None, "application_id", crate::history::schema::APPLICATION_ID).expect("writes");
    drop(file);
    let mut store = Store::open(options(directory.path(), 64 * MIB), at(90_000)).expect("opens");
    assert_eq!(store.write(&shared([flow(1, 1, 90_000)]), at(90_000)).rows, 1);
    assert_eq!(files::list(directory.path()).expect("lists")[..2], [empty, begun]);
    assert_eq!(super::found(directory.path(), &crate::history::read::Query::default()).len(), 1);
}

/// A directory that vanishes is a fault that root meets too; what is lost is counted by the books' own kinds.
#[test]
fn rows_that_cannot_be_written_are_counted_and_later_ones_are_written() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("data");
    let mut store = store(&directory);
    store.close();
    fs::rename(&directory, home.path().join("away")).expect("renames");

    let written = store.write(&shared([flow(1, 1, 60), metadata(1, 60, 1)]), at(60));
    assert_eq!((written.rows, written.lost_rows), (0, 2));
    let lost: Vec<_> = written.lost.iter().filter(|(_, records)| *records > 0).collect();
    assert_eq!(lost, [(Ledger::Tcp, 3), (Ledger::Metadata, 1)]);
    assert!(matches!(written.error, Some(Error::Files(..))), "{written:?}");

    fs::rename(home.path().join("away"), &directory).expect("renames");
    let written = store.write(&shared([flow(1, 1, 70)]), at(70));
    assert_eq!((written.rows, written.lost_rows), (1, 0), "{written:?}");
}

#[test]
fn one_directory_has_one_writer() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = store(directory.path());
    let second = Store::open(options(directory.path(), 64 * MIB), at(0));
    assert!(matches!(second, Err(Error::Taken(_))));
    drop(first);
    store(directory.path());
}

#[test]
fn what_is_no_directory_is_said() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("file");
    fs::write(&path, "").expect("writes");
    let error = Store::open(options(&path, 64 * MIB), at(0)).err().expect("is refused");
    assert!(error.to_string().contains(path.to_str().expect("UTF-8")), "{error}");
}
