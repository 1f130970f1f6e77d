//! SIGKILL at any moment: the store opens, what was acknowledged as synced is there, and nothing twice.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent_core::output::Output;

use super::samples::{at, exec, flow, metadata};
use super::{MIB, found, options, shared};
use crate::history::read::Query;
use crate::history::store::Store;

const DIRECTORY: &str = "SEKISHO_TEST_HISTORY";
const BATCH: &str = "SEKISHO_TEST_BATCH";
/// How long the writer is killed again and again.
const TIME: Duration = Duration::from_secs(20);
/// Kills that are too few to say anything.
const KILLS_MIN: u32 = 10;

/// The writer. Writes batches that are each one of their kind, and says which are synced.
#[test]
#[ignore = "is started and killed by killed_at_any_moment"]
fn writes_until_killed() {
    let directory = std::env::var_os(DIRECTORY).expect("started by killed_at_any_moment");
    let first: u64 = std::env::var(BATCH).expect("a number").parse().expect("a number");
    let second = |batch: u64| i64::try_from(batch).expect("small") * 40;
    let mut store = Store::open(options(directory.as_ref(), 512 * MIB), at(second(first))).expect("opens");
    for batch in first.. {
        let peer = u32::try_from(batch).expect("small") * 64;
        let rows = (0..64).map(|n| flow(n % 9, peer + n, second(batch))).chain([exec(1, second(batch))]);
        let written = store.write(&shared(rows.chain([metadata(1, second(batch), batch)])), at(second(batch)));
        assert!(written.error.is_none(), "{written:?}");
        // Not by println, which the test harness keeps to itself.
        // One write: half a line would be heard if it was killed in between.
        std::io::stderr().write_all(format!("synced {batch}\n").as_bytes()).expect("is heard");
    }
}

#[test]
fn killed_at_any_moment() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut next, mut synced, mut kills) = (0, Vec::new(), 0);
    let started = Instant::now();
    // A sequence of moments that is the same in every run, spread over what a batch takes.
    let mut moment: u64 = 0x9e37_79b9_7f4a_7c15;
    while started.elapsed() < TIME || kills < KILLS_MIN {
        let mut writer = Command::new(std::env::current_exe().expect("a program"))
            .args(["--ignored", "--exact", "--nocapture", "history::tests::crash::writes_until_killed"])
            .env(DIRECTORY, directory.path())
            .env(BATCH, next.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(writer.stderr.take().expect("is piped")).lines();
        moment ^= moment << 13;
        moment ^= moment >> 7;
        moment ^= moment << 17;
        let mut acknowledged = 0;
        let mut log = String::new();
        while let Some(Ok(line)) = lines.next() {
            match line.strip_prefix("synced ") {
                Some(batch) => synced.push(batch.parse::<u64>().expect("a number")),
                None => log.push_str(&line),
            }
            acknowledged += 1;
            if acknowledged == 1 {
                std::thread::sleep(Duration::from_micros(moment % 40_000));
                // It may have ended by an assertion, which shows below.
                let _ = writer.kill();
            }
        }
        assert!(!writer.wait().expect("ends").success());
        assert!(!log.contains("panicked") && acknowledged > 0, "{log}");
        kills += 1;
        // What was under way when it was killed may stand there or not: the next writer uses other numbers.
        next = synced.last().map_or(0, |last| last + 2);
    }

    let rows = found(directory.path(), &Query::default());
    let mut batches: BTreeMap<u64, [u32; 3]> = BTreeMap::new();
    for row in &rows {
        let (batch, which) = match row {
            Output::Metadata(row) => {
                let key = row.access_key_id.as_deref().expect("a key");
                (key.trim_start_matches("ASIA").parse().expect("a number"), 0)
            }
            Output::Flow(row) => (number(row.window.end.0), 1),
            Output::Process(row) => (number(row.time.0), 2),
            _ => continue,
        };
        batches.entry(batch).or_default()[which] += 1;
    }
    for batch in &synced {
        assert_eq!(batches.get(batch), Some(&[1, 64, 1]), "batch {batch} was synced");
    }
    // At the most one batch per kill was written and not acknowledged; it is whole, for it is one transaction.
    let others = batches.iter().filter(|(batch, _)| !synced.contains(batch)).collect::<Vec<_>>();
    assert!(others.len() <= kills as usize, "{others:?}");
    assert!(others.iter().all(|(_, rows)| **rows == [1, 64, 1]), "{others:?}");
    println!("{kills} kills, {} batches synced, {} beside them", synced.len(), others.len());
}

fn number(time: i64) -> u64 {
    u64::try_from((time - at(0).0) / (40 * super::samples::SECOND)).expect("is later")
}
