//! A timeline in a few lines: since when, until when, with whom, and who of them is new.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::ops::ControlFlow;

use agent_core::output::{FlowRow, Output, Peer, PeerClass};
use agent_core::time::WallNs;
use jiff::Zoned;
use serde::Serialize;

use super::when::zoned;
use crate::history::{Coverage, Query, Reader};
use crate::lines::{LineKind, SCHEMA, clean_into};

/// Peers told apart, at about 400 bytes: 13 MiB. Volumes of what comes beyond are counted without a peer.
const PEERS_MAX: usize = 32_768;
/// Peers of the time before that are compared with, as text of up to 39 characters: 20 MiB at the most.
const KNOWN_MAX: usize = 262_144;
/// Keys and roles told apart.
const REQUESTS_MAX: usize = 4_096;
/// Peers that text shows.
const SHOWN: usize = 20;

/// What is gathered from rows, one after another.
#[derive(Default)]
pub(super) struct Summary {
    rows: BTreeMap<&'static str, u64>,
    first: Option<WallNs>,
    last: Option<WallNs>,
    total: Volume,
    peers: BTreeMap<PeerKey, PeerSeen>,
    others: Volume,
    requests: BTreeMap<RequestKey, u64>,
    requests_beyond: u64,
    /// Addresses seen before; `None` when that cannot be told.
    known: Option<std::collections::BTreeSet<String>>,
}

type PeerKey = (Option<String>, Option<u16>, &'static str);
type RequestKey = (&'static str, Option<String>, Option<String>, Option<String>);

#[derive(Clone, Copy, Default, Serialize)]
struct Volume {
    connections: u64,
    bytes_sent: u64,
    bytes_received: u64,
}

struct PeerSeen {
    peer: Peer,
    volume: Volume,
    first: WallNs,
    last: WallNs,
}

/// The summary as programs read it.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    schema: &'static str,
    kind: &'static str,
    node: &'a str,
    since: Option<WallNs>,
    until: Option<WallNs>,
    /// Spans in which the agent ran.
    covered: Vec<Span>,
    first_seen: Option<WallNs>,
    last_seen: Option<WallNs>,
    rows: &'a BTreeMap<&'static str, u64>,
    #[serde(flatten)]
    total: Volume,
    /// The greatest first.
    peers: Vec<PeerLine<'a>>,
    /// What went to and from peers that are not listed.
    other_peers: Volume,
    requests: Vec<RequestLine<'a>>,
    other_requests: u64,
    /// Why `new` is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_unknown: Option<&'static str>,
}

#[derive(Serialize)]
struct Span {
    from: WallNs,
    to: WallNs,
}

#[derive(Serialize)]
struct PeerLine<'a> {
    #[serde(flatten)]
    peer: &'a Peer,
    direction: &'static str,
    service_port: Option<u16>,
    #[serde(flatten)]
    volume: Volume,
    first_seen: WallNs,
    last_seen: WallNs,
    /// Not seen before `since`; null: cannot tell.
    new: Option<bool>,
}

#[derive(Serialize)]
struct RequestLine<'a> {
    service: &'static str,
    category: Option<&'a str>,
    role: Option<&'a str>,
    access_key_id: Option<&'a str>,
    requests: u64,
}

impl Volume {
    fn add(&mut self, row: &FlowRow) {
        self.connections = self.connections.saturating_add(row.connections);
        self.bytes_sent = self.bytes_sent.saturating_add(row.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(row.bytes_received);
    }

    fn bytes(self) -> u64 {
        self.bytes_sent.saturating_add(self.bytes_received)
    }
}

impl Summary {
    /// Reads what a query wants.
    pub(super) fn of(reader: &mut Reader, query: &Query) -> Self {
        let mut summary = Self::default();
        let starts = reader.coverage().span().map(|(from, _)| from);
        if let (Some(since), Some(starts)) = (query.since, starts)
            && starts < since
            && (query.kinds.is_empty() || query.kinds.contains(&LineKind::Flow))
        {
            let (known, all) = reader.peers_before(query, since, KNOWN_MAX);
            summary.known = all.then(|| known.into_iter().collect());
        }
        reader.each(query, &mut |output| {
            summary.add(&output);
            ControlFlow::Continue(())
        });
        summary
    }

    fn add(&mut self, output: &Output) {
        *self.rows.entry(output.kind()).or_default() += 1;
        let (from, to) = match output {
            Output::Flow(row) => (row.window.start, row.window.end),
            // They say nothing of whoever is asked for.
            Output::Gap(_) | Output::Capacity(_) | Output::Object(_) => return,
            output => (output.time(), output.time()),
        };
        self.first = Some(self.first.map_or(from, |first| first.min(from)));
        self.last = Some(self.last.map_or(to, |last| last.max(to)));
        match output {
            Output::Flow(row) => self.flow(row),
            Output::Metadata(row) => {
                let category = row.category.map(|category| crate::lines::json(&category).trim_matches('"').to_owned());
                let key = (row.service, category, row.role.clone(), row.access_key_id.clone());
                let room = self.requests.len() < REQUESTS_MAX;
                match self.requests.entry(key) {
                    Entry::Occupied(mut known) => *known.get_mut() += 1,
                    Entry::Vacant(new) if room => {
                        new.insert(1);
                    }
                    Entry::Vacant(_) => self.requests_beyond += 1,
                }
            }
            _ => {}
        }
    }

    fn flow(&mut self, row: &FlowRow) {
        self.total.add(row);
        let room = self.peers.len() < PEERS_MAX;
        let seen = match self.peers.entry((row.peer.ip.clone(), row.service_port, row.direction)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) if room => new.insert(PeerSeen {
                peer: row.peer.clone(),
                volume: Volume::default(),
                first: row.window.start,
                last: row.window.end,
            }),
            Entry::Vacant(_) => return self.others.add(row),
        };
        seen.volume.add(row);
        seen.first = seen.first.min(row.window.start);
        seen.last = seen.last.max(row.window.end);
        // A later row may know more of it.
        if seen.peer.pod.is_none() && row.peer.pod.is_some() {
            seen.peer = row.peer.clone();
        }
    }

    /// What was found.
    pub(super) fn report<'a>(&'a self, coverage: &'a Coverage, query: &Query) -> Report<'a> {
        let new = |peer: &Peer| Some(!self.known.as_ref()?.contains(peer.ip.as_deref()?));
        let mut peers: Vec<_> = self.peers.iter().collect();
        peers.sort_by_key(|(_, seen)| std::cmp::Reverse((seen.volume.bytes(), seen.volume.connections)));
        Report {
            schema: SCHEMA,
            kind: "summary",
            node: &coverage.node,
            since: query.since,
            until: query.until,
            covered: coverage.runs.iter().map(|run| Span { from: run.from, to: run.to }).collect(),
            first_seen: self.first,
            last_seen: self.last,
            rows: &self.rows,
            total: self.total,
            peers: peers
                .into_iter()
                .map(|((_, service_port, direction), seen)| PeerLine {
                    peer: &seen.peer,
                    direction,
                    service_port: *service_port,
                    volume: seen.volume,
                    first_seen: seen.first,
                    last_seen: seen.last,
                    new: new(&seen.peer),
                })
                .collect(),
            other_peers: self.others,
            requests: self
                .requests
                .iter()
                .map(|((service, category, role, key), requests)| RequestLine {
                    service,
                    category: category.as_deref(),
                    role: role.as_deref(),
                    access_key_id: key.as_deref(),
                    requests: *requests,
                })
                .collect(),
            other_requests: self.requests_beyond,
            new_unknown: match (query.since, &self.known) {
                (_, Some(_)) => None,
                (None, None) => Some("new peers are told from a moment on: give --since"),
                (Some(_), None) => Some("the history does not reach back before --since, or holds too many peers"),
            },
        }
    }
}

impl Report<'_> {
    /// For people.
    pub(super) fn text(&self, now: &Zoned) -> String {
        let show = |time: WallNs| zoned(time, now).strftime("%Y-%m-%d %H:%M:%S").to_string();
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(out, "node        {}  (times are {})", self.node, now.strftime("%Z, %:z"));
        for span in &self.covered {
            let _ = writeln!(out, "covered     {} to {}", show(span.from), show(span.to));
        }
        match (self.first_seen, self.last_seen) {
            (Some(first), Some(last)) => {
                let _ = writeln!(out, "seen        {} to {}", show(first), show(last));
            }
            _ => out.push_str("seen        nothing\n"),
        }
        for (kind, rows) in self.rows {
            let _ = writeln!(out, "{kind:<11} {rows} rows");
        }
        let Volume { connections, bytes_sent, bytes_received } = self.total;
        let _ =
            writeln!(out, "volume      {connections} connections, {bytes_sent} bytes sent, {bytes_received} received");
        if !self.requests.is_empty() {
            out.push_str("\nrequests  service       category              role                      access key id\n");
        }
        for request in &self.requests {
            let RequestLine { service, category, role, access_key_id, requests } = request;
            let or = |text: Option<&str>| text.unwrap_or("-").to_owned();
            let (category, role, key) = (or(*category), or(*role), or(*access_key_id));
            let line = format!("{requests:>8}  {service:<13} {category:<21} {role:<25} {key}");
            clean_into(&line, &mut out);
            out.push('\n');
        }
        if !self.peers.is_empty() {
            out.push_str("\n       bytes  connections  peer\n");
        }
        for line in self.peers.iter().take(SHOWN) {
            clean_into(&line.text(&show), &mut out);
            out.push('\n');
        }
        if self.peers.len() > SHOWN {
            let _ = writeln!(out, "and {} peers more; -o json lists them", self.peers.len() - SHOWN);
        }
        if let Some(why) = self.new_unknown
            && !self.peers.is_empty()
        {
            let _ = writeln!(out, "which peers are new cannot be told: {why}");
        }
        out
    }
}

impl PeerLine<'_> {
    fn text(&self, show: &impl Fn(WallNs) -> String) -> String {
        let Peer { ip, class, name, namespace, pod } = self.peer;
        let arrow = match self.direction {
            "outbound" => "->",
            "inbound" => "<-",
            _ => "--",
        };
        let mut text = format!("{:>12}  {:>11}  {arrow} ", self.volume.bytes(), self.volume.connections);
        text.push_str(ip.as_deref().unwrap_or("*"));
        if let Some(port) = self.service_port {
            let _ = write!(text, " port {port}");
        }
        match (namespace.as_deref(), pod.as_deref(), name.as_deref()) {
            (Some(namespace), Some(pod), _) if !namespace.is_empty() => {
                let _ = write!(text, " ({namespace}/{pod})");
            }
            (_, Some(name), _) | (_, None, Some(name)) => {
                let _ = write!(text, " ({name})");
            }
            (_, None, None) if *class != PeerClass::Unknown => {
                let _ = write!(text, " ({})", crate::lines::json(class).trim_matches('"'));
            }
            _ => {}
        }
        let _ = write!(text, "  {} to {}", show(self.first_seen), show(self.last_seen));
        if self.new == Some(true) {
            text.push_str("  new");
        }
        text
    }
}
