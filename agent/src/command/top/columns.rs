//! The columns of the list of pods: which fit, what stands in them, and what is first by them.

use std::cmp::Ordering;

use agent_core::capacity::Unit;
use agent_core::finding::Severity;

use super::picture::PodRow;
use crate::command::capacity::{Amount, shorten};

/// Least room for a name.
const NAME_MIN: u16 = 16;
/// Longest name that helps: on a wide screen figures stay near.
const NAME_MAX: u16 = 64;
/// The workload is told where the name has this much room without it.
const NAME_WITH_WORKLOAD: u16 = 44;

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    Workload,
    Sent,
    Received,
    Total,
    Connections,
    Failed,
    Requests,
    NoToken,
    Findings,
}

/// As they stand on the screen, from left to right.
const ORDER: [Column; 10] = [
    Column::Name,
    Column::Workload,
    Column::Sent,
    Column::Received,
    Column::Total,
    Column::Connections,
    Column::Failed,
    Column::Requests,
    Column::NoToken,
    Column::Findings,
];

/// Who goes first where there is little room comes last.
const IMPORTANCE: [Column; 8] = [
    Column::Received,
    Column::Sent,
    Column::Findings,
    Column::Connections,
    Column::Requests,
    Column::Failed,
    Column::NoToken,
    Column::Total,
];

/// The columns that a screen has room for, from left to right, with their widths.
pub(super) fn fitting(width: u16) -> Vec<(Column, u16)> {
    let mut room = width.saturating_sub(NAME_MIN);
    let mut chosen = Vec::new();
    for column in IMPORTANCE {
        // No column of less weight takes the place of one that does not fit.
        let Some(rest) = room.checked_sub(column.width()) else { break };
        room = rest;
        chosen.push(column);
    }
    if room + NAME_MIN >= NAME_WITH_WORKLOAD + Column::Workload.width() {
        room -= Column::Workload.width();
        chosen.push(Column::Workload);
    }
    let name = (NAME_MIN.min(width) + room).min(NAME_MAX);
    let wide = |column: Column| if column == Column::Name { name } else { column.width() };
    let is_shown = |column: &Column| *column == Column::Name || chosen.contains(column);
    ORDER.into_iter().filter(is_shown).map(|column| (column, wide(column))).collect()
}

impl Column {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Name => "POD OR UNIT",
            Self::Workload => "WORKLOAD",
            Self::Sent => "SENT/s",
            Self::Received => "RECV/s",
            Self::Total => "BYTES",
            Self::Connections => "CONN/s",
            Self::Failed => "FAIL",
            Self::Requests => "META",
            Self::NoToken => "V1",
            Self::Findings => "FINDINGS",
        }
    }

    /// With the blank before it. The mark of the order takes one more.
    fn width(self) -> u16 {
        match self {
            Self::Name => NAME_MIN,
            Self::Workload => 26,
            Self::Sent | Self::Received | Self::Total | Self::Connections => 8,
            Self::Failed | Self::Requests => 6,
            Self::NoToken => 5,
            Self::Findings => 10,
        }
    }

    /// Names begin at the left, figures end at the right.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Name | Self::Workload)
    }

    /// The next one on a screen of this width, from left to right.
    pub(super) fn next(self, width: u16) -> Self {
        let shown = fitting(width);
        let place = shown.iter().position(|(column, _)| *column == self);
        let next = place.map_or(0, |place| place + 1);
        shown.into_iter().cycle().nth(next).map_or(Self::Name, |(column, _)| column)
    }

    /// What stands in it. Absent is "-", which is not 0.
    pub(super) fn cell(self, row: &PodRow, room: usize) -> String {
        let total = &row.traffic.total;
        match self {
            Self::Name => {
                let ended = if row.traffic.alive || !row.is_mortal() { "" } else { " ended" };
                format!("{}{ended}", shorten(&row.name, room.saturating_sub(ended.len())))
            }
            Self::Workload => shorten(&clean(&row.traffic.workload), room),
            Self::Sent => bytes(row.sent()),
            Self::Received => bytes(row.received()),
            Self::Total => Amount(row.total(), Unit::Bytes).to_string(),
            Self::Connections => row.connections().map_or_else(absent, per_second),
            Self::Failed => Amount(total.failed, Unit::Count).to_string(),
            Self::Requests => Amount(total.metadata_requests, Unit::Count).to_string(),
            Self::NoToken => Amount(total.metadata_v1, Unit::Count).to_string(),
            Self::Findings => match row.worst {
                Some((worst, count)) if count == row.findings => format!("{count} {}", short(worst)),
                Some((worst, count)) => format!("{count} {}+{}", short(worst), row.findings - count),
                None => String::new(),
            },
        }
    }

    /// Brings rows into the order of this column: names from a, figures from the greatest, or the other way round. What is
    /// absent comes last both ways; among equals the names decide.
    pub(super) fn order(self, rows: &mut [&PodRow], is_reversed: bool) {
        let turn = |order: Ordering| if is_reversed { order.reverse() } else { order };
        rows.sort_by(|a, b| {
            let total = |row: &PodRow| row.traffic.total;
            let by = match self {
                Self::Name => turn(a.name.cmp(&b.name)),
                Self::Workload => turn(a.traffic.workload.cmp(&b.traffic.workload)),
                Self::Sent => known(a.sent(), b.sent(), turn),
                Self::Received => known(a.received(), b.received(), turn),
                Self::Connections => known(a.connections(), b.connections(), turn),
                Self::Total => turn(b.total().cmp(&a.total())),
                Self::Failed => turn(total(b).failed.cmp(&total(a).failed)),
                Self::Requests => turn(total(b).metadata_requests.cmp(&total(a).metadata_requests)),
                Self::NoToken => turn(total(b).metadata_v1.cmp(&total(a).metadata_v1)),
                Self::Findings => turn((b.worst, b.findings).cmp(&(a.worst, a.findings))),
            };
            // Of rows that are silent now those with more bytes are the more telling.
            by.then_with(|| b.total().cmp(&a.total())).then_with(|| a.name.cmp(&b.name))
        });
    }
}

impl PodRow {
    /// Whether anybody could tell that it ended: what has no control group of its own never has one.
    fn is_mortal(&self) -> bool {
        use agent_core::output::AttributionKind as Kind;
        matches!(self.traffic.attribution, Kind::Pod | Kind::Container)
    }
}

fn known(a: Option<f64>, b: Option<f64>, turn: impl Fn(Ordering) -> Ordering) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => turn(b.total_cmp(&a)),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

fn absent() -> String {
    "-".to_owned()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float becomes the nearest whole number")]
fn bytes(rate: Option<f64>) -> String {
    rate.map_or_else(absent, |rate| Amount(rate.round() as u64, Unit::Bytes).to_string())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float becomes the nearest whole number")]
fn per_second(rate: f64) -> String {
    if rate < 1_000.0 { format!("{rate:.1}") } else { Amount(rate.round() as u64, Unit::Count).to_string() }
}

/// In at most five letters.
pub(super) fn short(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "crit",
        Severity::High => "high",
        Severity::Medium => "med",
        Severity::Warning => "warn",
        Severity::Low => "low",
        Severity::Info => "info",
    }
}

fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    crate::lines::clean_into(text, &mut out);
    out
}
