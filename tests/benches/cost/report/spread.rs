//! A figure over rounds.

use std::fmt;

use serde::Serialize;

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// Of at least one figure.
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        let (last, middle) = (figures.len().saturating_sub(1), figures.len() / 2);
        let median =
            if figures.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) };
        Self { median, least: at(0), greatest: at(last) }
    }

    pub(crate) fn scaled(self, by: f64) -> Self {
        Self { median: self.median * by, least: self.least * by, greatest: self.greatest * by }
    }
}

/// `2.10 (2.05..2.31)`, with as many digits as a figure of this size deserves.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.greatest.abs() {
            size if size < 10.0 => 2,
            size if size < 100.0 => 1,
            _ => 0,
        };
        let text = format!("{:.digits$} ({:.digits$}..{:.digits$})", self.median, self.least, self.greatest);
        f.pad(&text)
    }
}
