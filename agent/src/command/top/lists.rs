//! The lines of findings and of ceilings, and all that is known of one line.

use agent_core::finding::Severity;
use agent_core::output::{FindingRow, ResourceRow, State};
use agent_core::time::WallNs;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::columns::short;
use super::picture::PodRow;
use crate::command::capacity::{Amount, duration, filled, left, shorten};
use crate::command::findings::whom;
use crate::lines::clean_into;

/// Below it a line has room for the most telling parts alone.
const NARROW: usize = 72;
/// From it on bars are longer and scopes are told whole.
const WIDE: usize = 110;

/// A severity is told by its word; the colour only helps.
pub(super) fn colour(severity: Severity) -> Style {
    match severity {
        Severity::Critical => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        Severity::High => Style::new().fg(Color::Red),
        Severity::Medium | Severity::Warning => Style::new().fg(Color::Yellow),
        Severity::Low | Severity::Info => Style::new(),
    }
}

/// A ceiling: name, scope, bar, used and limit, and when it is reached. What is not known is "?", no limit "-".
pub(super) fn resource(row: &ResourceRow, width: usize) -> Line<'static> {
    let shown =
        |figure: Option<u64>| figure.map_or_else(|| "?".to_owned(), |figure| Amount(figure, row.unit).to_string());
    let limit = if row.limit.is_none() { "-".to_owned() } else { shown(row.limit) };
    let length = if width >= WIDE { 20 } else { 10 };
    let (bar, percent, style) = match (row.used, row.limit) {
        (Some(used), Some(limit)) if limit > 0 => {
            let full = filled(used, limit, length as u64);
            let percent = used.saturating_mul(100) / limit;
            (format!("{}{}", "#".repeat(full), "-".repeat(length - full)), format!("{percent}%"), fullness(percent))
        }
        _ => (" ".repeat(length), String::new(), Style::new()),
    };
    let name = row.resource.name();
    if width < NARROW {
        let room = width.saturating_sub(length + 6);
        return Line::from(vec![
            Span::raw(format!("{:<room$} ", shorten(name, room))),
            Span::styled(bar, style),
            Span::raw(format!(" {percent:>4}")),
        ]);
    }
    // 18 for the name, 5 for per cent, 16 for the figures, 11 for the time, and blanks.
    let room = width.saturating_sub(18 + 1 + 1 + length + 5 + 16 + 11);
    let room = if width >= WIDE { room.min(48) } else { room };
    Line::from(vec![
        Span::raw(format!("{:<18} {:<room$} ", shorten(name, 18), shorten(&clean(&row.scope), room))),
        Span::styled(bar, style),
        Span::raw(format!(" {percent:>4} {:>7}/{limit:<7} {:>10}", shown(row.used), left(row))),
    ])
}

fn fullness(percent: u64) -> Style {
    match percent {
        90.. => Style::new().fg(Color::Red),
        75..90 => Style::new().fg(Color::Yellow),
        _ => Style::new().fg(Color::Green),
    }
}

/// A finding: how bad, what, about whom, how many pods, and when it was seen last.
pub(super) fn finding(row: &FindingRow, now: Option<WallNs>, width: usize) -> Line<'static> {
    let whom = clean(&whom(&row.subject));
    let style = if row.state == State::Open { colour(row.severity) } else { Style::new() };
    if width < NARROW {
        let room = width.saturating_sub(5 + 19);
        return Line::from(vec![
            Span::styled(format!("{:<4} ", short(row.severity)), style),
            Span::raw(format!("{:<18} {}", shorten(row.code.name(), 18), shorten(&whom, room))),
        ]);
    }
    let pods = if row.pods_count > 1 { format!("{} pods", row.pods_count) } else { String::new() };
    let when = match row.state {
        State::Open => age(row.last_seen, now),
        State::Accepted => "accepted".to_owned(),
        State::Resolved => "resolved".to_owned(),
    };
    let room = width.saturating_sub(9 + 27 + 10 + 9);
    Line::from(vec![
        Span::styled(format!("{:<8} ", row.severity.name()), style),
        Span::raw(format!("{:<26} {:<room$} {pods:>9} {when:>8}", row.code.name(), shorten(&whom, room))),
    ])
}

/// How long ago; "-" when the agent's clock is not known.
fn age(then: WallNs, now: Option<WallNs>) -> String {
    let Some(now) = now else { return "-".to_owned() };
    let seconds = u64::try_from(now.0.saturating_sub(then.0) / 1_000_000_000).unwrap_or(0);
    format!("{} ago", duration(seconds))
}

/// All that is known of a pod, and what was found of it.
pub(super) fn pod_details(row: &PodRow, findings: &[FindingRow]) -> Vec<String> {
    let traffic = &row.traffic;
    let total = &traffic.total;
    let mut lines = vec![row.name.clone()];
    if !traffic.uid.is_empty() {
        lines.push(format!("uid {}", clean(&traffic.uid)));
    }
    if !traffic.workload.is_empty() {
        lines.push(format!("workload {}", clean(&traffic.workload)));
    }
    lines.push(format!(
        "since the agent's start: {} bytes sent, {} received, {} connections ended, {} of them failed",
        total.amounts.bytes_sent, total.amounts.bytes_received, total.amounts.connections, total.failed
    ));
    lines.push(format!(
        "requests to metadata services: {}, {} of them without a token (IMDSv1)",
        total.metadata_requests, total.metadata_v1
    ));
    if row.findings == 0 {
        lines.push("no open findings".to_owned());
    }
    for finding in findings.iter().filter(|finding| finding.state == State::Open && row.is_in(finding)) {
        lines.push(String::new());
        lines.push(format!("{} {}: {}", finding.severity.name(), finding.code.name(), clean(&finding.text)));
    }
    lines
}

/// All that is known of a finding.
pub(super) fn finding_details(row: &FindingRow) -> Vec<String> {
    let mut lines = vec![
        format!("{} {}, {}", row.severity.name(), row.code.name(), clean(&whom(&row.subject))),
        clean(&row.text),
        format!(
            "cause {}; seen {} times, first {}, last {}; watched since {}",
            clean(&row.cause),
            row.count,
            row.first_seen,
            row.last_seen,
            row.watched_since
        ),
    ];
    if !row.pods.is_empty() {
        let more = row.pods_count.saturating_sub(row.pods.len() as u64);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let names: Vec<_> = row.pods.iter().map(|pod| clean(pod)).collect();
        lines.push(format!("pods {}{more}", names.join(", ")));
    }
    match row.state {
        State::Open => lines.extend([String::new(), clean(&row.advice)]),
        State::Accepted => {
            lines.push(format!("accepted: {}", clean(row.accepted_reason.as_deref().unwrap_or_default())));
        }
        State::Resolved => {
            lines.push(row.resolved_at.map_or_else(|| "resolved".to_owned(), |at| format!("resolved {at}")));
        }
    }
    lines.push(format!("more: sekisho explain {}", row.code.name()));
    lines
}

/// All that is known of a ceiling.
pub(super) fn resource_details(row: &ResourceRow) -> Vec<String> {
    let shown = |figure: Option<u64>| figure.map_or_else(|| "not known".to_owned(), |figure| figure.to_string());
    let limit = row.limit.map_or_else(|| "no limit, or not known".to_owned(), |limit| limit.to_string());
    let reached = match left(row) {
        empty if empty.is_empty() => "cannot tell, or does not grow".to_owned(),
        left => left,
    };
    vec![
        format!("{}, {}", row.resource.name(), clean(&row.scope)),
        format!("used {}, limit {limit}, left {} ({})", shown(row.used), shown(row.headroom), unit(row)),
        format!("used up in: {reached}"),
        format!("said by {}, {} old", clean(&row.source), duration(row.age_s)),
    ]
}

fn unit(row: &ResourceRow) -> String {
    // The name that a unit has in JSON is the one that people know from metrics.
    serde_json::to_value(row.unit).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Lines no longer than `width`, broken at blanks where there are any.
pub(super) fn wrap(lines: &[String], width: usize) -> Vec<String> {
    let mut wrapped = Vec::new();
    for line in lines {
        let mut rest: Vec<char> = line.chars().collect();
        while rest.len() > width {
            let at = rest.iter().take(width + 1).rposition(|c| *c == ' ').filter(|at| *at > 0);
            let tail = rest.split_off(at.unwrap_or(width.max(1)));
            wrapped.push(rest.into_iter().collect());
            rest = tail.into_iter().skip(usize::from(at.is_some())).collect();
        }
        wrapped.push(rest.into_iter().collect());
    }
    wrapped
}

fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    clean_into(text, &mut out);
    out
}
