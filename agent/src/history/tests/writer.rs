//! The thread and its queues: nobody waits, what is lost is counted, what is said is synced.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use agent_core::books::Ledger;
use agent_core::continuity::Mark;
use agent_core::output::{AttributionKind, Output};

use super::samples::{at, exec, flow, metadata};
use super::{MIB, found, options, shared};
use crate::history::History;
use crate::history::read::Query;

/// Long enough for any disk; tests never wait for it to pass.
pub(super) const EVER: Duration = Duration::from_mins(10);

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

#[test]
fn what_was_handed_over_before_the_end_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let history = History::start(options(directory.path(), 64 * MIB), || at(0)).expect("starts");
    history.push(&shared((0..3_000).map(|n| flow(n % 9, n, 10))), Mark::default());
    history.push(&shared([metadata(1, 11, 1)]), Mark::default());
    let counts = run(history.finish(EVER));
    assert_eq!((counts.stored(), counts.lost(), counts.failing()), (3_001, 0, None));
    assert_eq!(found(directory.path(), &Query::default()).len(), 3_001);
}

#[test]
fn started_programs_of_the_host_are_left_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let history = History::start(options(directory.path(), 64 * MIB), || at(0)).expect("starts");
    let Output::Process(mut host) = exec(1, 10) else { unreachable!("a program") };
    let identity = std::sync::Arc::make_mut(&mut host.who.identity);
    identity.attribution = AttributionKind::Host;
    history.push(&shared([Output::Process(host), exec(2, 11)]), Mark::default());
    assert_eq!(run(history.finish(EVER)).stored(), 1);
}

/// The writer cannot keep up with a flood of flows that are handed over at once. Requests do not suffer, and what is
/// stored and what is lost is all there was.
#[test]
fn a_flood_is_counted_and_takes_no_request_with_it() {
    const FLOWS: u32 = 60_000;
    let directory = tempfile::tempdir().expect("a directory");
    let history = History::start(options(directory.path(), 64 * MIB), || at(0)).expect("starts");
    history.push(&shared((0..FLOWS).map(|n| flow(n % 9, n % 500, 10))), Mark::default());
    history.push(&shared((0..300).map(|n| metadata(1, 11, n))), Mark::default());
    let counts = run(history.finish(EVER));
    assert!(counts.lost() > 0, "this flood is too small");
    assert_eq!(counts.stored() + counts.lost(), u64::from(FLOWS) + 300);
    let settled: Vec<_> = counts.settle().collect();
    assert_eq!(settled, [(Ledger::Tcp, 3 * counts.lost())], "each of these rows stands for three records");
    assert_eq!(counts.settle().count(), 0, "they are written off once");
    let requests = Query { kinds: vec![crate::lines::LineKind::Metadata], ..Query::default() };
    assert_eq!(found(directory.path(), &requests).len(), 300);
}

#[test]
fn a_directory_that_goes_away_is_said_and_its_cost_counted() {
    /// Every look at the clock is a day later, so that each batch needs a new file.
    fn another_day() -> agent_core::time::WallNs {
        static DAY: AtomicI64 = AtomicI64::new(0);
        at(DAY.fetch_add(1, Ordering::Relaxed) * 86_400)
    }
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("data");
    let history = History::start(options(&directory, 64 * MIB), another_day).expect("starts");
    std::fs::remove_dir_all(&directory).expect("removes");
    std::fs::write(&directory, "in the way").expect("writes");
    history.push(&shared([flow(1, 1, 10), metadata(1, 11, 1)]), Mark::default());
    let counts = run(history.finish(EVER));
    assert_eq!((counts.stored(), counts.lost()), (0, 2));
    let why = counts.failing().expect("it fails");
    assert!(why.contains(directory.to_str().expect("UTF-8")), "{why}");
}
