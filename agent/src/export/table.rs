//! Flows as a table: each fold sorted by bytes, the greatest first. Other outputs are lines between the tables;
//! programs that were started are left out, for they would drown the rest. Of the node's ceilings a line comes when the one
//! that stops the next pod becomes another; `sekisho capacity` shows them all.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::sync::Arc;

use agent_core::capacity::Resource;
use agent_core::output::{FlowRow, Identity, Output, Peer, PeerClass, Protocol, Who};

use crate::lines::{self, Form};

/// Width without a terminal.
const WIDTH_DEFAULT: usize = 120;
/// Narrower terminals wrap.
const WIDTH_MIN: usize = 80;
/// Below this the process is left out.
const WIDTH_WITH_PROCESS: usize = 100;
/// Rows shown of a fold; the rest is summed up in a line.
const ROWS_MAX: usize = 40;
/// Metadata requests shown between two tables; beyond them they are counted.
const METADATA_MAX: usize = 100;
/// The header comes again after so many lines: once a screen.
const HEADER_EVERY: usize = 50;

const DIRECTION: usize = 3;
const PORT: usize = 9;
const OUTCOME: usize = 11;
const CONNECTIONS: usize = 6;
const BYTES: usize = 8;
/// All columns of fixed width, and a space before each column but the first.
const FIXED: usize = DIRECTION + PORT + OUTCOME + CONNECTIONS + 2 * BYTES + 7;
/// Longest address: IPv6 without shortening.
const PEER_MAX: usize = 39;
/// Longest IPv4 address.
const PEER_MIN: usize = 15;

/// Gathers the rows of a fold.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Arc<Output>>,
    /// Lines since the header; `None` before the first.
    lines: Option<usize>,
    /// Metadata requests since the last table.
    metadata_shown: usize,
    metadata_left_out: u64,
    /// What stops the next pod, as it was shown last; `None`: nobody could tell.
    binding: Option<Resource>,
}

/// Widths of the columns that give way.
struct Widths {
    who: usize,
    peer: usize,
    process: Option<usize>,
    total: usize,
}

/// Columns of the terminal on standard output; of a page when it is none.
pub(crate) fn terminal_width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(WIDTH_DEFAULT)
}

// === impl Table ===

impl Table {
    /// Takes a row; whatever is no flow is written at once.
    pub(super) fn add(&mut self, output: Arc<Output>, out: &mut String) {
        match &*output {
            Output::Flow(_) => self.rows.push(output),
            Output::Process(_) | Output::Object(_) => {}
            Output::Capacity(row) if row.binding_resource == self.binding => {}
            Output::Capacity(row) => {
                self.binding = row.binding_resource;
                self.write(&output, out);
            }
            Output::Metadata(_) if self.metadata_shown >= METADATA_MAX => self.metadata_left_out += 1,
            Output::Metadata(_) => {
                self.metadata_shown += 1;
                self.write(&output, out);
            }
            Output::Gap(_) | Output::Finding(_) => self.write(&output, out),
        }
    }

    fn write(&mut self, output: &Output, out: &mut String) {
        lines::write(output, Form::Text, "", out);
        self.lines = self.lines.map(|lines| lines + 1);
    }

    /// Writes the rows that were gathered.
    pub(super) fn end_of_batch(&mut self, width: usize, out: &mut String) {
        let gathered = std::mem::take(&mut self.rows);
        let mut rows: Vec<&FlowRow> = gathered
            .iter()
            .filter_map(|output| match &**output {
                Output::Flow(row) => Some(&**row),
                _ => None,
            })
            .collect();
        let Some(first) = rows.first() else { return };
        self.metadata_shown = 0;
        let left_out = std::mem::take(&mut self.metadata_left_out);
        if left_out > 0 {
            line(out, format_args!("… and {left_out} metadata requests more (all of them: -o json)"));
        }
        let widths = Widths::new(width);
        if self.lines.is_none_or(|lines| lines >= HEADER_EVERY) {
            widths.header(out);
            self.lines = Some(0);
        }
        widths.fold(first, rows.len(), out);
        rows.sort_by_key(|row| Reverse((row.bytes_sent.saturating_add(row.bytes_received), row.connections, row.open)));
        let shown = rows.len().min(ROWS_MAX);
        for row in &rows[..shown] {
            widths.row(row, out);
        }
        rest(&rows[shown..], out);
        self.lines = self.lines.map(|lines| lines + shown + 2);
    }
}

fn rest(rows: &[&FlowRow], out: &mut String) {
    if rows.is_empty() {
        return;
    }
    let sum = |of: fn(&FlowRow) -> u64| rows.iter().fold(0_u64, |sum, row| sum.saturating_add(of(row)));
    let (connections, sent, received) =
        (sum(|row| row.connections), sum(|row| row.bytes_sent), sum(|row| row.bytes_received));
    line(
        out,
        format_args!(
            "… and {} rows more: {connections} connections, {} sent, {} received (all of them: -o json)",
            rows.len(),
            bytes(sent),
            bytes(received)
        ),
    );
}

// === impl Widths ===

impl Widths {
    fn new(width: usize) -> Self {
        let total = width.max(WIDTH_MIN);
        let process_gap = usize::from(total >= WIDTH_WITH_PROCESS);
        let free = total - FIXED - process_gap;
        let peer = (free * 3 / 8).clamp(PEER_MIN, PEER_MAX);
        let process = (process_gap == 1).then_some(free / 4);
        Self { who: free - peer - process.unwrap_or(0), peer, process, total }
    }

    fn header(&self, out: &mut String) {
        self.columns(
            ["WHO", "DIR", "PEER", "PORT", "OUTCOME", "CONNS", "SENT", "RECEIVED", "PROCESS"].map(str::to_owned),
            out,
        );
    }

    /// The line above a fold's rows.
    fn fold(&self, row: &FlowRow, rows: usize, out: &mut String) {
        let end = row.window.end.to_string();
        let clock = end.get(11..19).unwrap_or(&end);
        let seconds = row.window.end.0.saturating_sub(row.window.start.0) / 1_000_000_000;
        let text = format!("-- {clock} UTC, {seconds} s, {rows} {} ", if rows == 1 { "row" } else { "rows" });
        line(out, format_args!("{text:-<width$}", width = self.total));
    }

    fn row(&self, row: &FlowRow, out: &mut String) {
        let direction = match row.direction {
            "outbound" => "out",
            "inbound" => "in",
            _ => "?",
        };
        let protocol = match row.protocol {
            Some(Protocol::Tcp) => "tcp",
            Some(Protocol::Udp) => "udp",
            None => "",
        };
        let port = match row.service_port {
            Some(port) => format!("{port}/{protocol}"),
            None => protocol.to_owned(),
        };
        let (outcome, count) = match row.outcome {
            Some(outcome) => (outcome, row.connections),
            None if row.open > 0 => ("open", row.open),
            None => ("-", 0),
        };
        self.columns(
            [
                who(&row.who.identity),
                direction.to_owned(),
                if row.merged { "(merged)".to_owned() } else { peer(&row.peer) },
                port,
                outcome.to_owned(),
                count.to_string(),
                bytes(row.bytes_sent),
                bytes(row.bytes_received),
                process(&row.who, row.processes),
            ],
            out,
        );
    }

    fn columns(&self, texts: [String; 9], out: &mut String) {
        let [who, direction, peer, port, outcome, connections, sent, received, process] = texts;
        let (who, peer) = (fit(&who, self.who), fit(&peer, self.peer));
        let process = self.process.map(|width| format!(" {}", fit(&process, width))).unwrap_or_default();
        line(
            out,
            format_args!(
                "{who:w$} {direction:DIRECTION$} {peer:p$} {port:PORT$} {outcome:OUTCOME$} \
                 {connections:>CONNECTIONS$} {sent:>BYTES$} {received:>BYTES$}{process}",
                w = self.who,
                p = self.peer,
            ),
        );
    }
}

/// Appends a line without control characters and without spaces at its end.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    lines::clean_into(text.to_string().trim_end(), out);
    out.push('\n');
}

fn who(identity: &Identity) -> String {
    let Identity { attribution: _, why, namespace, pod, uid, container, workload } = identity;
    match (pod.as_str(), workload.as_str(), uid.as_str(), container.as_str()) {
        ("", "", "", "") => format!("unknown{}", why.map(|why| format!(" ({why})")).unwrap_or_default()),
        ("", "", "", container) => container.to_owned(),
        ("", "", uid, _) => format!("pod {uid}"),
        ("", workload, ..) => workload.to_owned(),
        (pod, ..) if namespace.is_empty() => pod.to_owned(),
        (pod, ..) => format!("{namespace}/{pod}"),
    }
}

fn peer(peer: &Peer) -> String {
    match (&peer.name, &peer.namespace, &peer.pod, &peer.ip) {
        (Some(name), ..) => name.clone(),
        (None, Some(namespace), Some(pod), _) if !namespace.is_empty() => format!("{namespace}/{pod}"),
        // Of the node's own addresses it matters which one it was; that a process of the host has it goes without saying.
        (None, _, _, Some(ip)) if peer.class == PeerClass::NodeLocal => ip.clone(),
        (None, _, Some(pod), _) => pod.clone(),
        (None, _, None, Some(ip)) => ip.clone(),
        (None, _, None, None) => "(many)".to_owned(),
    }
}

fn process(who: &Who, processes: u64) -> String {
    let Some(process) = &who.process else { return "?".to_owned() };
    let name = process.exe.as_deref().and_then(|exe| exe.rsplit('/').next()).filter(|name| !name.is_empty());
    let mut text = match name.unwrap_or(&process.comm) {
        "" => format!("pid {}", process.pid),
        name => format!("{name}({})", process.pid),
    };
    if processes > 1 {
        // Writing to a string does not fail.
        let _ = write!(text, " +{}", processes - 1);
    }
    text
}

/// Cut in the middle: both ends of an address and of a pod's name tell more than their middle.
fn fit(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let head = width / 2;
    let tail = width.saturating_sub(head + 1);
    text.chars().take(head).chain(std::iter::once('…')).chain(text.chars().skip(length - tail)).collect()
}

/// Three digits and a unit, powers of 1,000; at most eight characters.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut whole = bytes;
    let mut rest = 0;
    while whole >= 1_000 && unit < UNITS.len() {
        rest = whole % 1_000;
        whole /= 1_000;
        unit += 1;
    }
    let name = UNITS[unit - 1];
    match whole {
        0..10 => format!("{whole}.{:02} {name}", rest / 10),
        10..100 => format!("{whole}.{} {name}", rest / 100),
        _ => format!("{whole} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, fit};

    #[test]
    fn bytes_are_short() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (9_999, "9.99 kB"),
            (12_345, "12.3 kB"),
            (999_999, "999 kB"),
            (1_234_567, "1.23 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(number), text);
            assert!(text.len() <= super::BYTES);
        }
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(fit("short", 5), "short");
        assert_eq!(fit("2600:1f18:1234:5678:9abc:def0:1234:5678", 15), "2600:1f…34:5678");
        assert_eq!(fit("日本語の名前", 4), "日本…前");
        assert_eq!(fit("abc", 1), "…");
        assert_eq!(fit("abc", 0), "…");
    }
}
