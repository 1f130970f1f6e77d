//! What a run leaves about itself, and what the next one and a reader make of it.

use agent_core::continuity::{KernelMark, Mark, Place};
use agent_core::input::GapCause;
use agent_core::output::{GapRow, Output};
use agent_core::time::{BootNs, Moment};

use super::samples::{at, exec, flow};
use super::{MIB, found, options, shared, store};
use crate::history::read::Query;
use crate::history::store::Store;
use crate::history::{files, schema};

fn mark(boot: u64) -> Mark {
    Mark { at: Moment { boot: BootNs(boot), wall: at(0) }, kernel: None }
}

fn gaps(rows: Vec<Output>) -> Vec<GapRow> {
    let gap = |row| if let Output::Gap(gap) = row { Some(gap) } else { None };
    rows.into_iter().filter_map(gap).collect()
}

#[test]
fn the_next_run_knows_how_the_last_one_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut first = store(directory.path());
    assert_eq!(first.before(), None);
    first.mark(Some(mark(7)));
    assert_eq!(first.write(&shared([flow(1, 1, 5)]), at(6)).lost_rows, 0);
    // Not closed: it was killed.
    drop(first);

    let mut second = Store::open(options(directory.path(), 64 * MIB), at(20)).expect("opens");
    let before = second.before().expect("knows").clone();
    assert_eq!((before.alive, before.is_ended, before.mark), (at(6), false, Some(mark(7))));
    assert_eq!(before.boot_id.as_deref(), Some("this boot"));
    second.mark(Some(mark(9)));
    second.finish(at(30)).expect("ends");
    drop(second);

    let third = Store::open(options(directory.path(), 64 * MIB), at(40)).expect("opens");
    let before = third.before().expect("knows");
    assert_eq!((before.alive, before.is_ended, before.mark), (at(30), true, Some(mark(9))));
}

#[test]
fn a_reader_tells_of_absences_that_no_start_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = |second: i64, continues: bool| {
        let continues = continues.then_some([0; agent_core::books::LEDGERS]);
        let options = crate::history::Options { continues, ..options(directory.path(), 64 * MIB) };
        Store::open(options, at(second)).expect("opens")
    };
    drop(open(0, false));
    open(100, false).finish(at(110)).expect("ends");
    // The kernel's side went on, and nothing was lost.
    open(200, true).finish(at(210)).expect("ends");
    // This one told by itself.
    let told = GapRow { start: at(210), end: at(300), cause: GapCause::Stopped, records_lost: [("tcp", 3)].into() };
    let mut fourth = open(300, false);
    assert_eq!(fourth.write(&shared([Output::Gap(told.clone())]), at(301)).lost_rows, 0);
    fourth.finish(at(310)).expect("ends");
    drop(fourth);
    drop(open(400, false));

    let unknown = |start, end, cause| GapRow { start: at(start), end: at(end), cause, records_lost: [].into() };
    let expected = [unknown(0, 100, GapCause::Crashed), told, unknown(310, 400, GapCause::Stopped)];
    assert_eq!(gaps(found(directory.path(), &Query::default())), expected);
}

#[test]
fn marks_count_the_records_of_rows_in_the_same_transaction() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path());
    let kernel = KernelMark { pins: 3, metadata: Place { position: 80, records: 2 }, ..KernelMark::default() };
    store.mark(Some(Mark { kernel: Some(kernel), ..mark(7) }));
    let rows = [flow(1, 1, 5), flow(2, 2, 5), exec(1, 5)];
    let mut expected = [0; agent_core::books::LEDGERS];
    for row in &rows {
        for ((_, records), sum) in crate::history::standing::records(row).iter().zip(&mut expected) {
            *sum += records;
        }
    }
    assert!(expected.iter().sum::<u64>() >= 3, "{expected:?}");
    assert_eq!(store.write(&shared(rows), at(6)).lost_rows, 0);
    // Rows that never came here are known to be lost.
    store.settle([(agent_core::books::Ledger::Tcp, 10)]);
    expected[0] += 10;
    store.finish(at(7)).expect("ends");
    drop(store);
    let next = super::store(directory.path());
    let found = next.before().and_then(|before| before.mark?.kernel).expect("a mark");
    assert_eq!((found.pins, found.metadata, found.settled), (3, kernel.metadata, expected));
}

/// A run that is killed before its rings said a word leaves what it found: without it the next one would not know from where
/// to read, nor what is lost.
#[test]
fn a_run_without_a_word_of_its_rings_leaves_what_it_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = |second: i64| {
        let continues = Some([0; agent_core::books::LEDGERS]);
        Store::open(crate::history::Options { continues, ..options(directory.path(), 64 * MIB) }, at(second))
            .expect("opens")
    };
    let kernel = KernelMark { pins: 3, metadata: Place { position: 80, records: 2 }, ..KernelMark::default() };
    let mut first = open(0);
    first.mark(Some(Mark { kernel: Some(kernel), ..mark(7) }));
    assert_eq!(first.write(&shared([flow(1, 1, 5)]), at(6)).lost_rows, 0);
    drop(first);
    let mut second = open(10);
    second.mark(Some(mark(8)));
    assert_eq!(second.write(&shared([flow(1, 1, 15)]), at(16)).lost_rows, 0);
    drop(second);
    let mut third = open(20);
    let left = third.before().and_then(|before| before.mark).expect("a mark");
    assert_eq!((left.at, left.kernel.map(|kernel| kernel.metadata)), (mark(7).at, Some(kernel.metadata)));
    // Its rings speak: from now on that counts.
    let metadata = Place { position: 160, records: 4 };
    third.mark(Some(Mark { kernel: Some(KernelMark { metadata, ..kernel }), ..mark(9) }));
    assert_eq!(third.write(&shared([flow(1, 1, 25)]), at(26)).lost_rows, 0);
    assert_eq!(third.place(), Some(metadata));
}

#[test]
fn a_file_of_the_first_version_is_read_and_written_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let segment = files::create(directory.path(), 1, at(0)).expect("makes");
    let file = rusqlite::Connection::open(&segment.path).expect("opens");
    file.execute_batch(include_str!("../schema.sql")).expect("makes tables");
    file.pragma_update(None, "application_id", schema::APPLICATION_ID).expect("writes");
    file.pragma_update(None, "user_version", 1).expect("writes");
    let run = "INSERT INTO run (node, version, started, since, alive) VALUES ('node-1', '0', ?1, ?1, ?2)";
    file.execute(run, [at(0).0, at(50).0]).expect("writes");
    drop(file);
    let read = found(directory.path(), &Query::default());
    assert_eq!(read, []);

    let store = Store::open(options(directory.path(), 64 * MIB), at(60)).expect("opens");
    let before = store.before().expect("knows").clone();
    assert_eq!((before.alive, before.mark, before.boot_id), (at(50), None, None));
    drop(store);
    let [gap] = &gaps(found(directory.path(), &Query::default()))[..] else { panic!("one absence") };
    assert_eq!((gap.start, gap.end), (at(50), at(60)));
}
