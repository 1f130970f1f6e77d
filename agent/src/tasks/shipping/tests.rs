//! A history that is written meanwhile, shipped to a collector that comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_core::continuity::Mark;
use agent_core::input::GapCause;
use agent_core::output::{GapRow, Output};
use agent_core::time::{Moment, WallNs};
use tokio::sync::watch;

use super::{Shipper, Work, place};
use crate::export::Tally;
use crate::export::otlp::receiver::{Arrived, Manner, Receiver};
use crate::export::otlp::{Client, Options, Source};
use crate::history::{self, History, Outbox};

const HASTE: Duration = Duration::from_millis(2);
const EVER: Duration = Duration::from_mins(10);

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Until it is so; the harness ends a test that never comes to its end.
async fn until(mut so: impl FnMut() -> bool) {
    while !so() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

struct Bench {
    history: History,
    written: u64,
}

impl Bench {
    fn new(directory: &Path) -> Self {
        let options = history::Options {
            directory: directory.to_owned(),
            quota_bytes: 64 << 20,
            age_days: 3_650,
            free_percent: 0,
            node: Arc::from("n"),
            boot_id: None,
            continues: None,
        };
        Self { history: History::start(options, || WallNs(1_767_323_045_000_000_000)).unwrap(), written: 0 }
    }

    /// Writes rows with numbers that go on, and waits until they stand on disk.
    async fn write(&mut self, rows: u64) {
        let numbers = self.written..self.written + rows;
        let row = |number: u64| {
            let end = WallNs(1_767_323_045_000_000_000 + i64::try_from(number).unwrap() % 100);
            let records_lost = [("tcp", number)].into();
            Arc::new(Output::Gap(GapRow { start: WallNs(0), end, cause: GapCause::RingFull, records_lost }))
        };
        let rows: Vec<_> = numbers.map(row).collect();
        let counts = self.history.counts().clone();
        for some in rows.chunks(500) {
            self.history.push(some, Mark { at: Moment::default(), kernel: None });
            self.written += some.len() as u64;
            let written = self.written;
            until(|| counts.stored() >= written).await;
        }
    }
}

fn start(directory: &Path, receiver: &Receiver, tally: &Tally) -> Work {
    let options = Options { endpoint: receiver.endpoint(), headers: None, ca_file: None };
    let client = Client::new(&options, Source { node: Arc::from("n") }).unwrap().waiting(Duration::from_millis(100));
    let outbox = Outbox::open(directory, Vec::new(), true).unwrap();
    let (stop, told) = watch::channel(false);
    let shipper = Shipper::new(outbox, client, tally.clone(), HASTE, (HASTE, HASTE), told, || WallNs(0));
    Work { stop, task: tokio::spawn(shipper.run()) }
}

/// The number in a row's body.
fn number(arrived: &Arrived) -> u64 {
    let body = format!("{:?}", arrived.log.body);
    let digits = body.split("\"tcp\"").nth(1).and_then(|rest| rest.split("IntValue(").nth(1)).expect("a number");
    digits.split(')').next().and_then(|digits| digits.parse().ok()).expect("a number")
}

/// Every row arrived; a row always had the same name, and a name always meant the same row. Returns how many came again.
fn check(arrived: &[Arrived], rows: u64) -> usize {
    let mut by_id: BTreeMap<&str, &Arrived> = BTreeMap::new();
    for one in arrived {
        let first = by_id.entry(&one.id).or_insert(one);
        assert_eq!(*first, one, "one name, two rows");
    }
    let numbers: BTreeSet<u64> = by_id.values().map(|one| number(one)).collect();
    assert_eq!(numbers, (0..rows).collect::<BTreeSet<u64>>(), "every row");
    assert_eq!(by_id.len() as u64, rows, "one row, one name");
    arrived.len() - by_id.len()
}

/// The collector is gone, hangs, answers errors and breaks off, the agent is killed in the middle and rows are written all the
/// while: all arrive, and what came again has its name.
#[test]
fn an_outage_of_the_collector_loses_nothing() {
    run(async {
        let home = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(home.path());
        let mut receiver = Receiver::start().await;
        let tally = Tally::default();
        let mut work = start(home.path(), &receiver, &tally);
        bench.write(700).await;
        until(|| receiver.arrived().len() == 700).await;
        assert_eq!(check(&receiver.arrived(), 700), 0, "nothing comes twice while all is well");

        let unavailable = Manner::Answers(503, Vec::new(), String::new());
        for manner in [Manner::Hangs, unavailable, Manner::Breaks, Manner::TakesAndBreaks] {
            receiver.behaves(manner);
            let before = receiver.requests();
            bench.write(300).await;
            until(|| receiver.requests() >= before + 2).await;
            assert!(tally.failing().is_some() && tally.waits_since().is_some());
            // Killed, with a request on its way.
            work.task.abort();
            work = start(home.path(), &receiver, &tally);
            until(|| receiver.requests() >= before + 4).await;
            receiver.behaves(Manner::Takes);
            let (arrived, written) = (|| receiver.arrived(), bench.written);
            until(|| arrived().iter().map(number).collect::<BTreeSet<_>>().len() as u64 == written).await;
        }
        receiver.down().await;
        bench.write(300).await;
        until(|| tally.failing().is_some()).await;
        receiver.up().await;
        until(|| tally.failing().is_none() && tally.waits_since().is_none()).await;
        let again = check(&receiver.arrived(), bench.written);
        assert!(again >= 300, "what was taken without a word is sent again: {again}");
        assert_eq!((tally.refused(), tally.lost()), (0, 0));

        // What is written last goes out at the stop.
        bench.write(10).await;
        work.finish().await;
        check(&receiver.arrived(), bench.written);
        bench.history.finish(EVER).await;
    });
}

/// What a collector calls wrong or too large costs those rows and no others.
#[test]
fn a_row_that_is_refused_holds_up_nothing() {
    run(async {
        let home = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(home.path());
        let receiver = Receiver::start().await;
        let tally = Tally::default();
        bench.write(600).await;
        receiver.behaves(Manner::CallsWrong("IntValue(321)"));
        let work = start(home.path(), &receiver, &tally);
        until(|| tally.shipped() + tally.refused() == 600).await;
        assert_eq!((tally.refused(), receiver.arrived().len()), (1, 599));
        receiver.behaves(Manner::TakesAllBut("IntValue(999)", "not that one".to_owned()));
        bench.write(600).await;
        until(|| tally.shipped() + tally.refused() == 1_200).await;
        assert_eq!((tally.refused(), receiver.arrived().len()), (2, 1_198));
        receiver.behaves(Manner::TakesAtMost(100));
        bench.write(600).await;
        until(|| tally.shipped() == 1_798).await;
        assert_eq!(receiver.arrived().len(), 1_798);
        work.finish().await;
        bench.history.finish(EVER).await;
    });
}

/// The agent stops in an outage at once, and the next one goes on where it stood.
#[test]
fn a_stop_does_not_wait_for_a_collector() {
    run(async {
        let home = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(home.path());
        let receiver = Receiver::start().await;
        receiver.behaves(Manner::Breaks);
        let tally = Tally::default();
        let work = start(home.path(), &receiver, &tally);
        bench.write(20).await;
        until(|| tally.failing().is_some()).await;
        work.finish().await;
        bench.history.finish(EVER).await;
        receiver.behaves(Manner::Takes);
        let work = start(home.path(), &receiver, &tally);
        until(|| tally.shipped() == 20).await;
        work.finish().await;
        assert_eq!(check(&receiver.arrived(), 20), 0);
    });
}

#[test]
fn what_is_shown_of_an_endpoint_holds_no_path() {
    assert_eq!(place("https://vendor.example:443/v1/token/hunter2?key=hunter2"), "https://vendor.example:443");
    assert_eq!(place("http://[::1]:4318"), "http://[::1]:4318");
}
