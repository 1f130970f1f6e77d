//! What takes rows that leave the node, as a running agent tells.

use std::fmt::Write as _;

use super::{Finding, Verdict};
use crate::api::protocol::ExportStatus;

/// It degrades while nothing arrives, and when rows were refused or lost.
pub(super) fn finding(status: ExportStatus) -> Finding {
    let ExportStatus { sink, to, failing, shipped, refused, lost, oldest_age_s } = status;
    let mut text = format!("{shipped} rows shipped to {to}");
    for (rows, what) in [(refused, "refused"), (lost, "lost")] {
        if rows > 0 {
            // Writing to a string does not fail.
            let _ = write!(text, ", {rows} {what}");
        }
    }
    if oldest_age_s > 0 {
        let _ = write!(text, "; the oldest that waits is {oldest_age_s} s old");
    }
    let cure = match (&failing, sink.as_str()) {
        (None, _) if refused > 0 => Some("see the agent's log and the collector's for what it refuses"),
        (None, _) if lost > 0 => Some("give the history more room by history.max_bytes, or see the agent's log"),
        (None, _) => None,
        (Some(_), "file") => Some("see that the directory of export.file.path is there, may be written and has room"),
        (Some(_), _) => Some("see export.otlp and the collector; until it takes rows they wait in the history"),
    };
    if let Some(why) = failing {
        text = format!("failing: {why}; {text}");
    }
    let state = if cure.is_none() { Verdict::Ok } else { Verdict::Degraded };
    Finding { name: format!("export {sink}"), state, text, cure: cure.map(str::to_owned) }
}
