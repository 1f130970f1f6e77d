//! What was measured, as it is stored. `docs/performance/README.md` describes the file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version that is written and read.
const SCHEMA: &str = "sekisho-bench/2";

/// A result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    schema: String,
    pub(crate) machine: Machine,
    pub(crate) figures: Vec<Figure>,
    /// Tables of programs: kept as they are.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

/// What figures depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) architecture: String,
}

/// A figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// The same in every result.
    pub(crate) name: String,
    /// What it is, for people.
    pub(crate) what: String,
    pub(crate) unit: String,
    pub(crate) load: Option<Load>,
    pub(crate) measured: Spread,
    pub(crate) at_most: Option<f64>,
    pub(crate) reached: Option<bool>,
    pub(crate) is_detail: bool,
}

/// Under how much work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) amount: u64,
    pub(crate) of: String,
}

/// Median, least and greatest of as many rounds as there were.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Outcome {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let outcome: Self = serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
        ensure!(
            outcome.schema == SCHEMA,
            "{} is of schema {}, and this is {SCHEMA}: measure it anew with this version",
            path.display(),
            outcome.schema
        );
        Ok(outcome)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("encode the result")?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }

    /// The figures of a name, in the order of their loads.
    pub(crate) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Figure> {
        self.figures.iter().filter(move |figure| figure.name == name)
    }

    /// Replaces all figures that others stand for: those of the same name.
    pub(crate) fn replace(&mut self, figures: Vec<Figure>) {
        self.figures.retain(|figure| figures.iter().all(|new| new.name != figure.name));
        self.figures.extend(figures);
    }

    /// Takes over whatever another result measured; what it did not measure stays.
    pub(crate) fn merge(&mut self, other: Self) {
        let Self { machine, figures, rest, schema: _ } = other;
        self.machine = machine;
        self.replace(figures);
        let is_measured = |value: &Value| value.as_array().is_none_or(|values| !values.is_empty());
        self.rest.extend(rest.into_iter().filter(|(_, value)| is_measured(value)));
    }
}

impl Spread {
    pub(crate) fn once(value: f64) -> Self {
        Self { median: value, least: value, greatest: value }
    }

    pub(crate) fn of(mut values: Vec<f64>) -> Result<Self> {
        values.sort_by(f64::total_cmp);
        let (least, greatest) = values.first().zip(values.last()).context("nothing was measured")?;
        let middle = values.get(values.len() / 2).context("nothing was measured")?;
        Ok(Self { median: *middle, least: *least, greatest: *greatest })
    }
}

/// With as many digits as a figure of this size deserves.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
