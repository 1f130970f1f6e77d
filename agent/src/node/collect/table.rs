//! The two forms in which the kernel prints counters: a table with one line per CPU, in hexadecimal
//! (`/proc/net/stat/*`), and pairs of lines with names and values (`/proc/net/snmp`, `netstat`).

use std::path::Path;

use super::{Error, read};

/// Counters of all CPUs: a head of names, and a line of hexadecimal numbers per CPU.
pub(super) struct PerCpu<'a> {
    path: &'a Path,
    names: Vec<&'a str>,
    lines: Vec<&'a str>,
}

// === impl PerCpu ===

impl<'a> PerCpu<'a> {
    /// Reads the head.
    pub(super) fn new(path: &'a Path, text: &'a str) -> Result<Self, Error> {
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
        let lines: Vec<&str> = lines.collect();
        if names.is_empty() || lines.is_empty() {
            return Err(read::malformed(path, "expected a line of names and a line per cpu"));
        }
        Ok(Self { path, names, lines })
    }

    /// The sum of a column; `None` when this kernel has no such column.
    pub(super) fn sum(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some(column) = self.column(name) else { return Ok(None) };
        let mut sum = 0_u64;
        for line in &self.lines {
            sum = sum.saturating_add(self.value(line, column)?);
        }
        Ok(Some(sum))
    }

    /// A column that says the same on every line.
    pub(super) fn first(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some((column, line)) = self.column(name).zip(self.lines.first()) else { return Ok(None) };
        self.value(line, column).map(Some)
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|candidate| *candidate == name)
    }

    fn value(&self, line: &str, column: usize) -> Result<u64, Error> {
        let word = line.split_whitespace().nth(column).unwrap_or_default();
        u64::from_str_radix(word, 16)
            .map_err(|_| read::malformed(self.path, format!("expected a hexadecimal number, not {word:?}")))
    }
}

/// The value of a counter that stands in a pair of lines that begin with a word: `Icmp: InMsgs …` and `Icmp: 5 …`;
/// `None` when this kernel has no such counter.
pub(super) fn paired(path: &Path, text: &str, group: &str, name: &str) -> Result<Option<u64>, Error> {
    let mut lines = text.lines().filter(|line| line.split_once(':').is_some_and(|(word, _)| word == group));
    let Some((names, values)) = lines.next().zip(lines.next()) else { return Ok(None) };
    let Some(at) = names.split_whitespace().position(|candidate| candidate == name) else { return Ok(None) };
    read::parse(path, values.split_whitespace().nth(at).unwrap_or_default()).map(Some)
}
