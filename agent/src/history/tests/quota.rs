//! Weeks of synthetic time: never more on disk than the quota, and the oldest goes first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agent_core::output::Output;

use super::samples::{at, flow, metadata};
use super::{MIB, bytes_in, options, shared};
use crate::history::files;
use crate::history::store::Store;

const QUOTA: u64 = 64 * MIB;

#[test]
fn weeks_stay_below_the_quota_at_any_moment() {
    let directory = tempfile::tempdir().expect("a directory");
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        // Looks all the time, also within transactions and while the log is copied.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(bytes_in(directory.path()), Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        // Also when an assertion fails: the thread would look for ever.
        let _end = End(&done);
        let mut store = Store::open(options(directory.path(), QUOTA), at(0)).expect("opens");
        let mut days = Vec::new();
        // Three weeks, four hours at a time, about twice the quota: no peer and no program comes again, and programs have
        // long arguments.
        for turn in 0..21 * 6 {
            let second = turn * 4 * 3_600;
            let unique = u32::try_from(turn).expect("small") * 250;
            let rows = (0..250).map(|row| with_arguments(flow(row % 110, unique + row, second), unique + row));
            let written = store.write(&shared(rows.chain([metadata(1, second, 1)])), at(second));
            assert!(written.error.is_none() && written.lost_rows == 0, "{written:?}");
            most.fetch_max(bytes_in(directory.path()), Ordering::Relaxed);
            let oldest = files::list(directory.path()).expect("lists").remove(0);
            days.push(files::day(&oldest).expect("a day").to_owned());
        }
        assert!(days.is_sorted(), "the oldest goes first");
        assert_ne!(days.first(), days.last(), "nothing had to go: this test is too small");
    });
    let most = most.into_inner();
    assert!(most <= QUOTA, "{most} bytes");
    assert!(most > QUOTA / 2, "only {most} bytes of the quota are used");
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A program whose arguments take four kilobytes.
fn with_arguments(output: Output, unique: u32) -> Output {
    let Output::Flow(mut row) = output else { return output };
    let mut process = (**row.who.process.as_ref().expect("a process")).clone();
    process.args = vec![format!("{unique:04000}")];
    row.who.process = Some(Arc::new(process));
    Output::Flow(row)
}

#[test]
fn days_go_when_they_are_old() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = options(directory.path(), QUOTA);
    options.age_days = 2;
    let mut store = Store::open(options, at(0)).expect("opens");
    for day in 0..6 {
        let second = day * 86_400 + 60;
        assert_eq!(store.write(&shared([flow(1, 1, second)]), at(second)).rows, 1);
    }
    let days: Vec<_> = files::list(directory.path())
        .expect("lists")
        .iter()
        .filter_map(|segment| files::day(segment).map(str::to_owned))
        .collect();
    assert_eq!(days, ["2026-11-25", "2026-11-26", "2026-11-27"]);
}

#[test]
fn a_start_after_a_start_goes_on_in_the_same_file() {
    let directory = tempfile::tempdir().expect("a directory");
    for start in 0..20 {
        let mut store = Store::open(options(directory.path(), QUOTA), at(start)).expect("opens");
        assert_eq!(store.write(&shared([flow(1, 1, start)]), at(start)).rows, 1);
        store.close();
    }
    assert_eq!(files::list(directory.path()).expect("lists").len(), 1);
}
