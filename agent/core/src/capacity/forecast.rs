//! When a resource is used up, by what it did lately.
//!
//! The pace is the median of the slopes between all pairs of points (Theil–Sen), which a few odd readings do not move. A
//! single step is no growth: each third of the time has to bring its share. A fall is a new beginning.

use std::collections::VecDeque;

use crate::output::Exhaustion;
use crate::time::BootNs;

/// Points kept: 1,128 pairs, sorted in some 20 µs; 768 bytes.
const POINTS: usize = 48;
/// Fewer say nothing.
const FEWEST_POINTS: usize = 6;
/// Points come no closer than this at first; each time the room is used up every second one goes, and the distance doubles.
const FIRST_SPACING_NS: u64 = 1_000_000_000;
/// Until they are so far apart: 48 points are then 51 minutes.
const LAST_SPACING_NS: u64 = 64_000_000_000;
/// A fall by more than one part in so many of what was used begins anew.
const FALL: u64 = 5;
/// Each third of the time has to bring at least one part in so many of the growth.
const SHARE: f64 = 6.0;
/// The growth has to be so many times as great as the readings stray from it.
const ABOVE_NOISE: f64 = 2.0;
/// What lies further ahead is not growth that matters: 30 days.
const HORIZON_S: f64 = 30.0 * 86_400.0;

/// What was used lately.
#[derive(Clone, Debug)]
pub(super) struct Series {
    points: VecDeque<(BootNs, u64)>,
    spacing_ns: u64,
}

// === impl Series ===

impl Default for Series {
    fn default() -> Self {
        Self { points: VecDeque::new(), spacing_ns: FIRST_SPACING_NS }
    }
}

impl Series {
    /// One more reading.
    pub(super) fn push(&mut self, at: BootNs, used: u64) {
        if let Some(&(last, before)) = self.points.back() {
            if used < before && (before - used).saturating_mul(FALL) > before {
                *self = Self::default();
            } else if at.since(last) < self.spacing_ns {
                return;
            }
        }
        if self.points.len() >= POINTS {
            if self.spacing_ns < LAST_SPACING_NS {
                self.spacing_ns *= 2;
                let mut keep = false;
                self.points.retain(|_| {
                    keep = !keep;
                    keep
                });
            } else {
                self.points.pop_front();
            }
        }
        self.points.push_back((at, used));
    }

    /// How long it was watched since its last beginning, seconds.
    pub(super) fn span_s(&self) -> u64 {
        match (self.points.front(), self.points.back()) {
            (Some((first, _)), Some((last, _))) => last.since(*first) / 1_000_000_000,
            _ => 0,
        }
    }

    /// When `limit` is reached, from the last reading on.
    pub(super) fn forecast(&self, limit: u64) -> Exhaustion {
        let Some(&(_, used)) = self.points.back() else { return Exhaustion::CannotTell };
        let headroom = limit.saturating_sub(used);
        if headroom == 0 {
            return Exhaustion::Range { earliest_s: 0, likely_s: 0 };
        }
        if self.points.len() < FEWEST_POINTS {
            return Exhaustion::CannotTell;
        }
        let Some((usual, fastest)) = self.pace() else { return Exhaustion::NotGrowing };
        let after = |pace: f64| whole(lossy(headroom) / pace);
        match (after(fastest), after(usual)) {
            (Some(earliest_s), Some(likely_s)) => Exhaustion::Range { earliest_s, likely_s },
            _ => Exhaustion::NotGrowing,
        }
    }

    /// Usual and fastest growth a second; `None`: it does not grow.
    fn pace(&self) -> Option<(f64, f64)> {
        let points: Vec<(f64, f64)> = self.relative();
        let mut slopes = Vec::with_capacity(POINTS * (POINTS - 1) / 2);
        for (index, (at, used)) in points.iter().enumerate() {
            for (later, more) in points.iter().skip(index + 1) {
                if later > at {
                    slopes.push((more - used) / (later - at));
                }
            }
        }
        let usual = quantile(&mut slopes, 1, 2)?;
        let fastest = quantile(&mut slopes, 9, 10)?;
        let span = points.last()?.0;
        if usual <= 0.0 || !every_third_grows(&points) {
            return None;
        }
        let mut intercepts: Vec<f64> = points.iter().map(|(at, used)| used - usual * at).collect();
        let intercept = quantile(&mut intercepts, 1, 2)?;
        let mut strayed: Vec<f64> = points.iter().map(|(at, used)| (used - usual * at - intercept).abs()).collect();
        let noise = quantile(&mut strayed, 1, 2)?;
        (usual * span >= ABOVE_NOISE * noise).then_some((usual, fastest.max(usual)))
    }

    /// Seconds and used since the first point.
    fn relative(&self) -> Vec<(f64, f64)> {
        let Some(&(start, base)) = self.points.front() else { return Vec::new() };
        let relative = |(at, used): &(BootNs, u64)| {
            (lossy(at.since(start)) / 1e9, lossy(used.saturating_sub(base)) - lossy(base.saturating_sub(*used)))
        };
        self.points.iter().map(relative).collect()
    }
}

/// A step makes one third grow; growth makes all.
fn every_third_grows(points: &[(f64, f64)]) -> bool {
    let third = points.len() / 3;
    let level = |part: &[(f64, f64)]| {
        let mut used: Vec<f64> = part.iter().map(|(_, used)| *used).collect();
        quantile(&mut used, 1, 2).unwrap_or_default()
    };
    let (Some(first), Some(last)) = (points.get(..third), points.get(points.len() - third..)) else { return false };
    let middle = points.get(third..points.len() - third).unwrap_or_default();
    let (first, middle, last) = (level(first), level(middle), level(last));
    let share = (last - first) / SHARE;
    last > first && middle - first >= share && last - middle >= share
}

/// The value below which the given part of them lies.
fn quantile(values: &mut [f64], numerator: usize, denominator: usize) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let index = last * numerator / denominator;
    Some(*values.select_nth_unstable_by(index, f64::total_cmp).1)
}

/// Whole seconds, if near enough to matter.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the horizon")]
fn whole(seconds: f64) -> Option<u64> {
    (0.0..=HORIZON_S).contains(&seconds).then_some(seconds as u64)
}

#[expect(clippy::cast_precision_loss, reason = "a forecast is not exact to the byte")]
fn lossy(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests;
