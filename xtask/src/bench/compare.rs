//! A result beside an earlier one: ratios, for people. Nothing is judged by them.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::result::{Figure, Outcome, short};

/// A figure in both.
struct Pair<'a> {
    before: &'a Figure,
    now: &'a Figure,
}

/// The table of everything that is in both, and a word on what is not.
pub(super) fn table(before: &Outcome, now: &Outcome) -> String {
    let (pairs, alone) = pairs(before, now);
    let mut text = String::new();
    if before.machine != now.machine {
        text.push_str("measured on different machines: only counts compare\n");
    }
    let _ = writeln!(text, "{:<62} {:>12} {:>12} {:>7}", "", "before", "now", "ratio");
    for pair in &pairs {
        let (before, now) = (pair.before.measured, pair.now.measured);
        let ratio = pair.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let mark = if pair.is_beyond_the_rounds() { " *" } else { "" };
        let line = format!(
            "{:<62} {:>12} {:>12} {ratio:>7} {}{mark}",
            pair.what(),
            short(before.median),
            short(now.median),
            pair.now.unit
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push_str("* beyond the least and the greatest of either's rounds\n");
    if alone > 0 {
        let _ = writeln!(text, "{alone} figures are in one of the two only");
    }
    text
}

/// Figures of both by name and load, and how many have no other.
fn pairs<'a>(before: &'a Outcome, now: &'a Outcome) -> (Vec<Pair<'a>>, usize) {
    let mut earlier: HashMap<_, &Figure> = before.figures.iter().map(|figure| (key(figure), figure)).collect();
    let mut pairs = Vec::new();
    for figure in &now.figures {
        if let Some(before) = earlier.remove(&key(figure)) {
            pairs.push(Pair { before, now: figure });
        }
    }
    let alone = earlier.len() + now.figures.len() - pairs.len();
    (pairs, alone)
}

/// Loads that depend on what a run did (entries, rows) differ a little, and are told apart by their size alone.
fn key(figure: &Figure) -> (&str, u32) {
    (&figure.name, figure.load.as_ref().map_or(0, |load| load.amount.checked_ilog2().unwrap_or(0) + 1))
}

impl Pair<'_> {
    fn what(&self) -> String {
        match &self.now.load {
            Some(load) => format!("{}, {} {}", self.now.what, load.amount, load.of),
            None => self.now.what.clone(),
        }
    }

    /// How many times what it was before; None where that was nothing, or less.
    fn ratio(&self) -> Option<f64> {
        (self.before.measured.median > 0.0).then(|| self.now.measured.median / self.before.measured.median)
    }

    /// Whether no round of one was as any round of the other; of a single round each, nothing can be said.
    fn is_beyond_the_rounds(&self) -> bool {
        let (before, now) = (self.before.measured, self.now.measured);
        let has_spread = before.least < before.greatest && now.least < now.greatest;
        has_spread && (now.least > before.greatest || now.greatest < before.least)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(cpus: usize, figures: &[(&str, Option<u64>, [f64; 3])]) -> Outcome {
        let figures: Vec<_> = figures
            .iter()
            .map(|(name, load, [least, median, greatest])| {
                json!({
                    "name": name, "what": name, "unit": "ns",
                    "load": load.map(|amount| json!({ "amount": amount, "of": "rows" })),
                    "measured": { "median": median, "least": least, "greatest": greatest },
                    "at_most": null, "reached": null, "is_detail": false,
                })
            })
            .collect();
        let machine = json!({ "cpus": cpus, "memory_bytes": 1, "kernel": "6.1", "architecture": "x86_64" });
        serde_json::from_value(json!({ "schema": "sekisho-bench/2", "machine": machine, "figures": figures })).unwrap()
    }

    fn line<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {table}"));
        line[62.min(line.len())..].split_whitespace().collect()
    }

    #[test]
    fn ratios_are_of_the_same_name_and_load() {
        let before =
            outcome(2, &[("a", Some(100), [10.0; 3]), ("a", Some(1_000), [100.0; 3]), ("gone", None, [1.0; 3])]);
        let now = outcome(2, &[("a", Some(1_001), [150.0; 3]), ("a", Some(101), [5.0; 3]), ("new", None, [1.0; 3])]);
        let table = table(&before, &now);
        assert_eq!(line(&table, "a, 1001 rows"), ["100", "150", "1.50", "ns"]);
        assert_eq!(line(&table, "a, 101 rows"), ["10.0", "5.00", "0.50", "ns"]);
        assert!(table.contains("2 figures are in one of the two only"), "{table}");
        assert!(!table.contains("different machines"), "{table}");
    }

    #[test]
    fn only_what_no_round_of_the_other_saw_is_marked() {
        let before = outcome(
            2,
            &[("worse", None, [9.0, 10.0, 11.0]), ("same", None, [9.0, 10.0, 11.0]), ("once", None, [1.0; 3])],
        );
        let now = outcome(
            4,
            &[("worse", None, [12.0, 13.0, 14.0]), ("same", None, [11.0, 13.0, 14.0]), ("once", None, [9.0; 3])],
        );
        let table = table(&before, &now);
        assert_eq!(line(&table, "worse").last(), Some(&"*"));
        assert_eq!(line(&table, "same").last(), Some(&"ns"));
        assert_eq!(line(&table, "once").last(), Some(&"ns"));
        assert!(table.contains("different machines"), "{table}");
    }

    #[test]
    fn nothing_has_no_ratio() {
        let table = table(&outcome(2, &[("a", None, [-2.0, 0.0, 1.0])]), &outcome(2, &[("a", None, [1.0, 2.0, 3.0])]));
        assert_eq!(line(&table, "a")[2], "-");
    }
}
