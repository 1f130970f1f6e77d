//! Whether an agent grew: the median of the last third of the samples beside that of the middle third. The first third is
//! for tables that fill up to their bounds. Medians, for a single look may fall into a fold's end.

use std::fmt;

use super::samples::{Sample, Soak};

/// Growth is judged from so many minutes on: what is remembered of the dead for minutes is still being filled before.
const JUDGED_FROM_S: f64 = 9.5 * 60.0;
/// What memory may grow from the middle to the last third: a twentieth, and the steps in which an allocator takes it.
const MEMORY_GROWTH: (u64, u64) = (20, 1 << 20);
/// Descriptors and threads: the look of the moment.
const FEW: u64 = 2;
/// Series follow the pods that came and went in the last two minutes: a tenth.
const SERIES_GROWTH: (u64, u64) = (10, 50);
/// The file that is being written, and what SQLite keeps beside it.
const HISTORY_SLACK_BYTES: u64 = 16 << 20;

/// A bound, and what came of it.
pub(super) struct Verdict {
    what: &'static str,
    found: String,
    /// None: the soak was too short to tell.
    pub(super) held: Option<bool>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, found, held } = self;
        let held = match held {
            Some(true) => "held",
            Some(false) => "NOT HELD",
            None => "not judged: shorter than ten minutes",
        };
        write!(f, "{what:<48} {found:<40} {held}")
    }
}

/// Judges a soak.
pub(super) fn judge(soak: &Soak) -> Vec<Verdict> {
    let samples = &soak.samples;
    let is_long = samples.last().is_some_and(|last| last.at_s >= JUDGED_FROM_S);
    let flat = |what, (part, slack): (u64, u64), of: fn(&Sample) -> u64| {
        let (_, middle, last) = thirds(samples);
        let (middle, last) = (median(middle, of), median(last, of));
        let most = middle + middle / part + slack;
        Verdict {
            what,
            found: format!("{middle}, then {last} (at most {most})"),
            held: is_long.then_some(last <= most),
        }
    };
    let few = (u64::MAX, FEW);
    let unbalanced = samples.iter().chain([&soak.aftermath]).filter(|sample| !sample.balanced).count();
    let history = samples.iter().map(|sample| sample.history_bytes).max().unwrap_or(0);
    let (quota, aftermath) = (soak.history_max_bytes + HISTORY_SLACK_BYTES, &soak.aftermath);
    // Both ends of each connection are on the machine, and others may have made some.
    let least = 2 * soak.work.connections;
    vec![
        flat("heap and stacks, bytes", MEMORY_GROWTH, |sample| sample.memory.anonymous),
        flat("all memory, kernel memory included, bytes", MEMORY_GROWTH, |sample| sample.whole_bytes),
        flat("descriptors", few, |sample| sample.descriptors),
        flat("threads", few, |sample| sample.threads),
        flat("samples in a scrape", SERIES_GROWTH, |sample| sample.series),
        Verdict {
            what: "history, bytes at most",
            found: format!("{history} (at most {quota})"),
            held: Some(history <= quota),
        },
        Verdict {
            what: "looks at books that did not balance",
            found: format!("{unbalanced} of {}", samples.len() + 1),
            held: Some(unbalanced == 0),
        },
        Verdict {
            what: "records seen",
            found: format!("{} (at least {least}, of {} pods)", aftermath.seen, soak.work.pods),
            held: Some(aftermath.seen >= least),
        },
        Verdict { what: "records lost", found: aftermath.lost.to_string(), held: Some(aftermath.lost == 0) },
    ]
}

/// Beginning, middle and end.
fn thirds(samples: &[Sample]) -> (&[Sample], &[Sample], &[Sample]) {
    let third = samples.len() / 3;
    let (first, rest) = samples.split_at(third);
    let (middle, last) = rest.split_at(third);
    (first, middle, last)
}

fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MB: u64 = 1_000_000;

    fn sample(at_s: u64, anonymous: u64, descriptors: u64) -> serde_json::Value {
        json!({
            "at_s": at_s, "memory": { "anonymous": anonymous }, "whole_bytes": anonymous, "descriptors": descriptors,
            "threads": 6, "history_bytes": MB, "series": 500, "seen": 1_000, "lost": 0, "balanced": true,
        })
    }

    /// A soak of an hour in 60 samples, of which the n-th is given.
    fn soak(of: impl Fn(u64) -> serde_json::Value) -> Soak {
        let samples: Vec<_> = (0..60).map(of).collect();
        let aftermath = samples.last().unwrap().clone();
        let work = json!({ "pods": 10, "connections": 500 });
        let soak = json!({
            "schema": "sekisho-soak/1", "history_max_bytes": 64 * MB, "work": work, "samples": samples,
            "aftermath": aftermath,
        });
        serde_json::from_value(soak).unwrap()
    }

    fn broken(soak: &Soak) -> Vec<&'static str> {
        judge(soak).into_iter().filter(|verdict| verdict.held == Some(false)).map(|verdict| verdict.what).collect()
    }

    #[test]
    fn what_fills_up_and_stays_is_flat() {
        // Up to its bound within twenty minutes, then up and down by a megabyte.
        let fills = |n: u64| sample(n * 60, 10 * MB + n.min(20) * MB + (n % 2) * MB, 60 + n % 2);
        assert_eq!(broken(&soak(fills)), [""; 0]);
    }

    #[test]
    fn a_slow_leak_is_seen() {
        // 100 kB a minute on 20 MB: the last third has two megabytes more than the middle one.
        let leaks = |n: u64| sample(n * 60, 20 * MB + n * MB / 10 + 50_000 * (n % 3), 60);
        assert!(broken(&soak(leaks)).is_empty(), "2.0 MB of 23 MB are within a twentieth and a step");
        let leaks = |n: u64| sample(n * 60, 20 * MB + n * MB / 5, 60);
        assert_eq!(broken(&soak(leaks)), ["heap and stacks, bytes", "all memory, kernel memory included, bytes"]);
        let leaks = |n: u64| sample(n * 60, 20 * MB, 60 + n / 5);
        assert_eq!(broken(&soak(leaks)), ["descriptors"]);
    }

    #[test]
    fn one_look_that_falls_into_something_is_forgiven() {
        let once = |n: u64| sample(n * 60, if n == 50 { 90 * MB } else { 20 * MB }, 60);
        assert_eq!(broken(&soak(once)), [""; 0]);
    }

    #[test]
    fn a_short_soak_judges_no_growth_but_all_else() {
        let mut short = soak(|n| sample(n, 20 * MB * (n + 1), 60));
        let verdicts = judge(&short);
        assert_eq!(verdicts.iter().filter(|verdict| verdict.held.is_none()).count(), 5);
        assert_eq!(broken(&short), [""; 0]);
        short.samples[3].balanced = false;
        short.aftermath.lost = 1;
        short.work.connections = 501;
        let wrong = ["looks at books that did not balance", "records seen", "records lost"];
        assert_eq!(broken(&short), wrong);
        short.samples[4].history_bytes = 100 * MB;
        assert_eq!(broken(&short)[0], "history, bytes at most");
    }
}
