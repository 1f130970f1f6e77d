//! The screen, from the top down: a title with the age of the picture, a line that sums up, ceilings as bars, the list, the
//! keys. And the same as plain text.

use agent_core::finding::Severity;
use agent_core::output::CapacityRow;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::columns::{Column, fitting, short};
use super::lists;
use super::picture::{Picture, PodRow};
use super::state::{App, Overlay, View};
use crate::command::capacity::duration;

/// Least screen on which anything can be read.
const WIDTH_MIN: u16 = 24;
const HEIGHT_MIN: u16 = 6;
/// Lines beside bars and list: title, summary, tabs, head of the list, keys.
const FIXED: u16 = 5;
/// Ceilings in the plain text: the ones that bind first.
const BARS_AS_TEXT: usize = 8;

const HELP: [&str; 18] = [
    "q, ctrl-c      end",
    "tab, 1 2 3     pods, findings, capacity",
    "up down, j k   pick a line; page up, page down, home, end",
    "enter          all that is known of the line; esc closes",
    "/              show only lines with this text; esc shows all",
    "s              order by the next column; r turns it round",
    "",
    "SENT/s RECV/s  payload bytes a second in the last fold",
    "CONN/s         connections ended a second in the last fold",
    "BYTES          payload of both directions since the agent's start",
    "FAIL           connections that never came about, since then",
    "META, V1       requests to metadata services since then; without a token",
    "FINDINGS       the worst that stand, and how many others: 1 high+2",
    "bars           ceilings; the one that binds first comes first, and when",
    "               it is used up",
    "-              nobody can tell yet; 0 is a count",
    "",
    "More: sekisho findings, capacity, timeline --pod NS/NAME",
];

/// Draws all of it.
pub(super) fn draw(app: &mut App, area: Rect, buf: &mut Buffer) {
    let Rect { width, height, .. } = area;
    if width < WIDTH_MIN || height < HEIGHT_MIN {
        put(buf, area, 0, &Line::raw("too small: q ends"));
        return;
    }
    app.width = width;
    title(app, area, buf);
    keys(app, area, buf);
    let Some(picture) = &app.picture else {
        let text = match &app.trouble {
            Some(why) => format!("{why}; asking again every {} s", app.interval.as_secs()),
            None => "asking the agent".to_owned(),
        };
        for (row, line) in (2..).zip(lists::wrap(&[text], usize::from(width))).take(usize::from(height - 3)) {
            put(buf, area, row, &Line::raw(line));
        }
        overlay(app, area, buf);
        return;
    };
    put(buf, area, 1, &summary(app, picture));
    let bars = bars(picture, height, usize::from(width));
    let mut row = 2;
    for bar in bars {
        put(buf, area, row, &bar);
        row += 1;
    }
    app.show(usize::from(height - row - (FIXED - 2)));
    put(buf, area, row, &tabs(app));
    let (head, lines) = list(app, usize::from(width));
    put(buf, area, row + 1, &head);
    for (place, line) in lines.into_iter().enumerate().skip(app.top).take(app.page) {
        let y = row + 2 + u16::try_from(place - app.top).unwrap_or(0);
        put(buf, area, y, &line);
        if place == app.cursor {
            let at = Rect { y: area.y + y, height: 1, ..area };
            buf.set_style(at, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
    if app.stale().is_some() {
        let old = Rect { y: area.y + 2, height: height - 3, ..area };
        buf.set_style(old, Style::new().add_modifier(Modifier::DIM));
    }
    overlay(app, area, buf);
}

/// One picture as plain text, all of it.
pub(super) fn text(picture: &Picture, width: u16) -> String {
    let columns = usize::from(width.max(WIDTH_MIN));
    let mut lines = vec![Line::raw(match picture.time {
        Some(time) => format!("{} at {time}", picture.node),
        None => picture.node.clone(),
    })];
    lines.extend([sums(picture), Line::default()]);
    if let Some(row) = &picture.capacity {
        let known = row.resources.iter().take(BARS_AS_TEXT);
        lines.extend(known.map(|row| lists::resource(row, columns)));
        lines.push(Line::default());
    }
    let mut rows: Vec<&PodRow> = picture.pods.iter().collect();
    Column::Received.order(&mut rows, false);
    lines.push(head(width, None));
    lines.extend(rows.into_iter().map(|row| pod(row, width)));
    if !picture.findings.is_empty() {
        lines.push(Line::default());
        lines.extend(picture.findings.iter().map(|row| lists::finding(row, picture.time, columns)));
    }
    lines.into_iter().fold(String::new(), |text, line| text + line.to_string().trim_end() + "\n")
}

fn put(buf: &mut Buffer, area: Rect, row: u16, line: &Line<'_>) {
    if row < area.height {
        buf.set_line(area.x, area.y + row, line, area.width);
    }
}

fn title(app: &App, area: Rect, buf: &mut Buffer) {
    let node = app.picture.as_ref().map_or("", |picture| &picture.node);
    let age = |age: std::time::Duration| duration(age.as_secs());
    let (status, style) = match (&app.picture, app.stale()) {
        (Some(_), Some(old)) => (format!("STALE, {} old", age(old)), Style::new().fg(Color::Red)),
        (Some(_), None) => ("live".to_owned(), Style::new()),
        (None, _) => ("no picture yet".to_owned(), Style::new()),
    };
    let reversed = Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD);
    buf.set_style(Rect { height: 1, ..area }, reversed);
    let room = area.width.saturating_sub(u16::try_from(status.len()).unwrap_or(0) + 2);
    buf.set_line(area.x, area.y, &Line::raw(format!(" sekisho top  {node}")), room);
    buf.set_stringn(area.x + room + 1, area.y, &status, status.len(), style);
}

/// What is wrong with the picture, or what it says in a line.
fn summary(app: &App, picture: &Picture) -> Line<'static> {
    if app.stale().is_none() {
        return sums(picture);
    }
    let why = app.trouble.as_deref().unwrap_or("the agent does not answer");
    Line::styled(format!("{why}; asking again"), Style::new().fg(Color::Red))
}

fn sums(picture: &Picture) -> Line<'static> {
    let mut spans = Vec::new();
    for severity in
        [Severity::Critical, Severity::High, Severity::Medium, Severity::Warning, Severity::Low, Severity::Info]
    {
        let open = picture.open(severity);
        if open > 0 {
            let comma = if spans.is_empty() { "findings: " } else { ", " };
            spans.push(Span::raw(comma));
            spans.push(Span::styled(format!("{open} {}", short(severity)), lists::colour(severity)));
        }
    }
    if spans.is_empty() {
        spans.push(Span::raw("no open findings"));
    }
    let capacity = picture.capacity.as_ref();
    spans.push(Span::raw(match capacity.map(|row| (row.pods_fit, row.binding_resource)) {
        Some((Some(fit), Some(resource))) => format!("; {fit} more pods fit, then {} ends", resource.name()),
        Some((Some(fit), None)) => format!("; {fit} more pods fit"),
        _ => "; cannot tell how many more pods fit".to_owned(),
    }));
    spans.push(Span::raw(match picture.living_pods() {
        1 => "; 1 pod".to_owned(),
        pods => format!("; {pods} pods"),
    }));
    if picture.unread > 0 {
        spans.push(Span::raw(format!("; {} lines of another version are not shown", picture.unread)));
    }
    Line::from(spans)
}

/// The ceilings that bind first, as many as the screen has room for.
fn bars(picture: &Picture, height: u16, width: usize) -> Vec<Line<'static>> {
    let most = match height {
        ..12 => 0,
        12..18 => 2,
        18..36 => 4,
        36.. => 8,
    };
    let known = picture.capacity.iter().flat_map(|row| &row.resources);
    let known = known.filter(|row| row.used.is_some() && row.limit.is_some_and(|limit| limit > 0));
    known.take(most).map(|row| lists::resource(row, width)).collect()
}

fn tabs(app: &App) -> Line<'static> {
    let mut spans = Vec::new();
    for (view, key) in View::ALL.into_iter().zip(1..) {
        let style = if view == app.view {
            Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
        } else {
            Style::new()
        };
        spans.push(Span::raw(format!("{key} ")));
        spans.push(Span::styled(view.name(), style));
        spans.push(Span::raw("  "));
    }
    let shown = match app.view {
        View::Pods => app.pods().len(),
        View::Findings => app.findings().len(),
        View::Capacity => app.resources().len(),
    };
    let last = (app.top + app.page).min(shown);
    spans.push(Span::raw(if shown == 0 { "none".to_owned() } else { format!("{}-{last} of {shown}", app.top + 1) }));
    if !app.filter.is_empty() || app.is_typing {
        spans.push(Span::styled(format!("  with \"{}\"", app.filter), Style::new().fg(Color::Yellow)));
    }
    let left_out = app.picture.as_ref().and_then(|picture| picture.basis).map_or(0, |basis| basis.left_out);
    if app.view == View::Pods && left_out > 0 {
        spans.push(Span::raw(format!("  sums of {left_out} began anew")));
    }
    Line::from(spans)
}

/// The head of the list, and all its lines.
fn list(app: &App, width: usize) -> (Line<'static>, Vec<Line<'static>>) {
    let empty = (Line::default(), Vec::new());
    let Some(picture) = &app.picture else { return empty };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    match app.view {
        View::Pods => {
            let lines = app.pods().into_iter().map(|row| pod(row, app.width)).collect();
            (head(app.width, Some((app.sort, app.is_reversed))), lines)
        }
        View::Findings => {
            let rows = app.findings().into_iter().filter_map(|place| picture.findings.get(place));
            let lines: Vec<_> = rows.map(|row| lists::finding(row, picture.time, width)).collect();
            let doubts = match picture.doubts {
                0 => String::new(),
                1 => "; one question cannot be decided".to_owned(),
                doubts => format!("; {doubts} questions cannot be decided"),
            };
            (Line::styled(format!("FINDINGS, THE WORST FIRST{doubts}"), bold), lines)
        }
        View::Capacity => {
            let rows = picture.capacity.as_ref().map_or(&[][..], |row: &CapacityRow| &row.resources);
            let rows = app.resources().into_iter().filter_map(|place| rows.get(place));
            (
                Line::styled("CEILINGS, WHAT BINDS FIRST IS FIRST", bold),
                rows.map(|row| lists::resource(row, width)).collect(),
            )
        }
    }
}

fn head(width: u16, sort: Option<(Column, bool)>) -> Line<'static> {
    let cells = fitting(width).into_iter().map(|(column, room)| {
        // Names go from a, figures from the greatest.
        let mark = match sort.filter(|(sort, _)| *sort == column) {
            Some((_, is_reversed)) if is_reversed == column.is_text() => "▼",
            Some(_) => "▲",
            None => "",
        };
        cell(&format!("{}{mark}", column.title()), column, room)
    });
    Line::styled(cells.collect::<String>(), Style::new().add_modifier(Modifier::BOLD))
}

fn pod(row: &PodRow, width: u16) -> Line<'static> {
    let cells = fitting(width).into_iter().map(|(column, room)| {
        let text = cell(&column.cell(row, usize::from(room - 1)), column, room);
        match row.worst.filter(|_| column == Column::Findings) {
            Some((worst, _)) => Span::styled(text, lists::colour(worst)),
            None => Span::raw(text),
        }
    });
    Line::from(cells.collect::<Vec<_>>())
}

fn cell(text: &str, column: Column, room: u16) -> String {
    let room = usize::from(room);
    if column.is_text() { format!("{text:<room$}") } else { format!("{text:>room$}") }
}

/// As many as fit, the most needed first.
fn keys(app: &App, area: Rect, buf: &mut Buffer) {
    let keys: &[&str] = match (app.is_typing, app.overlay, app.view) {
        (true, ..) => &["type to filter", "enter keep", "esc show all"],
        (false, Overlay::Details | Overlay::Help, _) => &["esc close", "q quit", "? help", "↑↓ pick"],
        (false, Overlay::None, View::Pods) => {
            &["q quit", "? help", "/ filter", "s sort", "r reverse", "tab view", "↑↓ pick", "enter details"]
        }
        (false, Overlay::None, _) => &["q quit", "? help", "/ filter", "tab view", "↑↓ pick", "enter details"],
    };
    let mut text = String::new();
    for key in keys {
        if text.chars().count() + key.chars().count() + 3 > usize::from(area.width) {
            break;
        }
        text.push(' ');
        text.push_str(key);
        text.push(' ');
    }
    let row = area.height - 1;
    put(buf, area, row, &Line::raw(text));
    buf.set_style(Rect { y: area.y + row, height: 1, ..area }, Style::new().add_modifier(Modifier::REVERSED));
}

/// Details or help, in a frame over the list.
fn overlay(app: &App, area: Rect, buf: &mut Buffer) {
    let lines = match app.overlay {
        Overlay::None => return,
        Overlay::Help => HELP.iter().map(ToString::to_string).collect(),
        Overlay::Details => details(app),
    };
    let width = area.width.saturating_sub(2).min(78);
    let inside = usize::from(width.saturating_sub(4));
    let mut lines = lists::wrap(&lines, inside);
    let most = usize::from(area.height.saturating_sub(4));
    if lines.len() > most {
        lines.truncate(most.saturating_sub(1));
        lines.push("… a larger terminal shows more".to_owned());
    }
    let height = u16::try_from(lines.len()).unwrap_or(0) + 2;
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - 1).saturating_sub(height);
    let rule = "─".repeat(usize::from(width.saturating_sub(2)));
    let framed = std::iter::once(format!("┌{rule}┐"))
        .chain(lines.into_iter().map(|line| format!("│ {line:<inside$} │")))
        .chain(std::iter::once(format!("└{rule}┘")));
    for (row, line) in (y..).zip(framed) {
        if row < area.bottom() {
            let at = Rect { x, y: row, width, height: 1 };
            for position in at.positions() {
                if let Some(cell) = buf.cell_mut(position) {
                    cell.reset();
                }
            }
            buf.set_stringn(x, row, line, usize::from(width), Style::new());
        }
    }
}

fn details(app: &App) -> Vec<String> {
    let Some(picture) = &app.picture else { return Vec::new() };
    let lines = match app.view {
        View::Pods => app.pods().get(app.cursor).map(|row| lists::pod_details(row, &picture.findings)),
        View::Findings => {
            let place = app.findings().get(app.cursor).copied();
            place.and_then(|place| picture.findings.get(place)).map(lists::finding_details)
        }
        View::Capacity => {
            let rows = picture.capacity.as_ref().map_or(&[][..], |row| &row.resources);
            let place = app.resources().get(app.cursor).copied();
            place.and_then(|place| rows.get(place)).map(lists::resource_details)
        }
    };
    lines.unwrap_or_default()
}
