//! What the history costs. Measures and prints, judges nothing:
//! `cargo test --release -p sekisho -- --ignored --nocapture history::tests::figures`.

use std::ops::ControlFlow;
use std::time::Instant;

use agent_core::output::Output;

use super::samples::{at, exec, flow, identity, metadata};
use super::{MIB, bytes_in, options, shared};
use crate::history::read::{Query, Reader};
use crate::history::store::Store;
use crate::lines::LineKind;

const PODS: u32 = 110;
/// Peers of one pod: 5,720 flows go on all day.
const PEERS: u32 = 52;
/// A fold in half a minute: five million rows in 24 hours.
const FOLDS: i64 = 880;
const FOLD_SECONDS: i64 = 98;

#[test]
#[ignore = "measures, and takes minutes"]
fn a_day_of_five_million_folded_rows() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(options(directory.path(), 1_024 * MIB), at(0)).expect("opens");
    let (mut rows, mut writing, before) = (0, std::time::Duration::ZERO, resident_kib());
    for fold in 0..FOLDS {
        let second = fold * FOLD_SECONDS;
        let batch = shared((0..PODS * PEERS).map(|n| flow(n % PODS, n, second)));
        let started = Instant::now();
        let written = store.write(&batch, at(second));
        writing += started.elapsed();
        assert_eq!(written.lost_rows, 0, "{written:?}");
        rows += written.rows;
    }
    let bytes = bytes_in(directory.path());
    println!("{rows} flows in {writing:?}: {:.0} rows/s", rate(rows, writing));
    println!("{bytes} bytes: {} a flow; {} KiB more resident", bytes / rows, resident_kib() - before);

    let pod = identity(7);
    let by_pod = Query { pods: vec![(pod.namespace.clone(), pod.pod.clone())], ..Query::default() };
    let peer = Query { networks: vec!["10.100.0.7".parse().expect("a network")], ..Query::default() };
    let hour = Query { since: Some(at(43_200)), until: Some(at(46_800)), ..by_pod.clone() };
    for (what, query) in [("a pod over the day", by_pod), ("a pod over an hour", hour), ("a peer over the day", peer)] {
        // The second time as the first left the page cache.
        for _ in 0..2 {
            let started = Instant::now();
            let (mut found, mut length) = (0, 0);
            Reader::open(directory.path()).expect("opens").each(&query, &mut |output| {
                found += 1;
                length += output.to_json("node-1").len();
                ControlFlow::Continue(())
            });
            println!("{what}: {found} rows, {length} bytes of JSON in {:?}", started.elapsed());
        }
    }
}

#[test]
#[ignore = "measures, and takes a minute"]
fn requests_and_programs() {
    for (what, kind, make) in [
        ("request", LineKind::Metadata, (|n| metadata(n % PODS, i64::from(n), u64::from(n))) as fn(u32) -> Output),
        ("program", LineKind::Process, |n| exec(n % PODS, i64::from(n))),
        ("flow to a peer that never comes again", LineKind::Flow, |n| flow(n % PODS, n, i64::from(n / 5_000))),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = Store::open(options(directory.path(), 1_024 * MIB), at(0)).expect("opens");
        let batch = shared((0..100_000).map(make));
        let started = Instant::now();
        assert_eq!(store.write(&batch, at(0)).lost_rows, 0);
        let elapsed = started.elapsed();
        store.close();
        let bytes = bytes_in(directory.path());
        println!("{what}: {} bytes, {:.0} rows/s ({kind:?})", bytes / 100_000, rate(100_000, elapsed));
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn rate(rows: u64, time: std::time::Duration) -> f64 {
    rows as f64 / time.as_secs_f64()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
