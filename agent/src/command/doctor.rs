//! `sekisho doctor`: what works on this machine, what does not, and what to do.

mod ec2;
mod export;
mod secure;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::{Exit, Shape, Socket, chain, print};
use crate::api::client;
use crate::api::protocol::{Book, Collector, CollectorState, HistoryStatus, PrivilegeStatus, Probe, Status};
use crate::lines::{SCHEMA, clean_into, json};
use crate::tasks::{self, CheckState};

/// What works here and what does not: kernel, BTF, cgroups, capabilities and each probe. Asks the running agent for its
/// probes; without one, loads them for a moment. Exits with 1 when something is degraded, 3 when the agent cannot run.
#[derive(Args)]
pub(super) struct Doctor {
    /// Configuration file (YAML) of the agent.
    #[arg(long, value_name = "FILE", env = "SEKISHO_CONFIG")]
    config: Option<PathBuf>,

    /// Show what became of every record that the running agent's probes saw, and whether that adds up.
    #[arg(long)]
    books: bool,

    /// End the probes that go on without an agent, by the names that kernel.pin gave them; what their rings hold is lost.
    #[arg(long, conflicts_with = "books")]
    unpin: bool,

    /// How the answer looks.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,

    #[command(flatten)]
    socket: Socket,
}

/// The answer.
#[derive(Serialize)]
struct Report {
    schema: &'static str,
    kind: &'static str,
    node: String,
    verdict: Verdict,
    /// Process id of the running agent.
    agent: Option<u32>,
    /// Why no agent was asked.
    no_agent: Option<String>,
    checks: Vec<Finding>,
    probes: Vec<Finding>,
    collectors: Vec<Finding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Degraded,
    Missing,
}

#[derive(Serialize)]
struct Finding {
    name: String,
    state: Verdict,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

#[derive(Serialize)]
struct BooksReport<'a> {
    schema: &'static str,
    kind: &'static str,
    node: &'a str,
    balanced: bool,
    books: &'a [Book],
    readings: u64,
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        if self.books {
            return self.show_books();
        }
        let config = super::load(self.config.clone(), Vec::new())?;
        if self.unpin {
            let (directory, removed) = tasks::unpin(&config);
            let removed = removed.with_context(|| format!("could not remove the pins in {}", directory.display()))?;
            print(&format!("{removed} pins removed from {}\n", directory.display()))?;
            return Ok(Exit::Fine);
        }
        let node = config.node();
        let cluster = tasks::examine_cluster(&config).context("could not ask the Kubernetes API")?;
        let report = match client::status(&self.socket.socket) {
            Ok(status) => Report::of_agent(status, tasks::preflight()),
            Err(error) => Report::of_machine(node, &error, tasks::examine(&config)),
        };
        let report = report.with(cluster.into_iter().map(of_cluster));
        print(&match self.output {
            Shape::Json => format!("{}\n", json(&report)),
            Shape::Text => report.text(),
        })?;
        Ok(match report.verdict {
            Verdict::Ok => Exit::Fine,
            Verdict::Degraded => Exit::Found,
            Verdict::Missing => Exit::CannotRun,
        })
    }

    fn show_books(&self) -> anyhow::Result<Exit> {
        let Status { node, books, readings, .. } = client::status(&self.socket.socket)?;
        let balanced = books.iter().all(Book::balances);
        let report = BooksReport { schema: SCHEMA, kind: "books", node: &node, balanced, books: &books, readings };
        print(&match self.output {
            Shape::Json => format!("{}\n", json(&report)),
            Shape::Text => books_text(&books, balanced),
        })?;
        Ok(if balanced { Exit::Fine } else { Exit::Found })
    }
}

// === impl Report ===

impl Report {
    /// The agent runs: what it has counts. What this command itself lacks is shown, and degrades.
    fn of_agent(status: Status, checks: Vec<tasks::Check>) -> Self {
        let mut checks: Vec<_> = checks.into_iter().map(check).collect();
        checks.extend(status.privileges.map(privileges));
        checks.extend(status.history.map(history));
        checks.extend(status.secure.map(secure::finding));
        checks.extend(status.exports.into_iter().map(export::finding));
        checks.extend(status.ec2.into_iter().flat_map(ec2::findings));
        let probes: Vec<_> = status.probes.into_iter().map(probe).collect();
        let collectors: Vec<_> = status.collectors.into_iter().map(collector).collect();
        let verdict = worst(checks.iter().chain(&probes).chain(&collectors)).min(Verdict::Degraded);
        Self {
            schema: SCHEMA,
            kind: "doctor",
            node: status.node,
            verdict,
            agent: Some(status.pid),
            no_agent: None,
            checks,
            probes,
            collectors,
        }
    }

    fn of_machine(node: String, no_agent: &client::Error, examination: tasks::Examination) -> Self {
        let mut checks: Vec<_> = examination.checks.into_iter().map(check).collect();
        let mut probes = Vec::new();
        match examination.probes {
            None => {}
            Some(Ok(loaded)) => probes = loaded.into_iter().map(probe).collect(),
            Some(Err(error)) => checks.push(Finding {
                name: "probes".to_owned(),
                state: Verdict::Missing,
                text: chain(&error),
                cure: None,
            }),
        }
        checks.extend(examination.ec2.into_iter().flat_map(ec2::findings));
        let collectors: Vec<_> = examination.collectors.into_iter().map(collector).collect();
        let verdict = worst(checks.iter().chain(&probes).chain(&collectors));
        Self {
            schema: SCHEMA,
            kind: "doctor",
            node,
            verdict,
            agent: None,
            no_agent: Some(chain(no_agent)),
            checks,
            probes,
            collectors,
        }
    }

    /// With more that was looked at, which degrades at the most.
    fn with(mut self, more: impl Iterator<Item = Finding>) -> Self {
        let before = self.checks.len();
        self.checks.extend(more);
        self.verdict = self.verdict.max(worst(self.checks[before..].iter()));
        self
    }

    fn text(&self) -> String {
        let mut out = String::new();
        match (self.agent, &self.no_agent) {
            (Some(pid), _) => line(&mut out, format_args!("agent running, pid {pid}, node {}", self.node)),
            (None, Some(why)) => line(&mut out, format_args!("no agent asked: {why}")),
            (None, None) => {}
        }
        for finding in self.checks.iter().chain(&self.probes).chain(&self.collectors) {
            let Finding { name, state, text, cure } = finding;
            let state = match state {
                Verdict::Ok => "ok",
                Verdict::Degraded => "degraded",
                Verdict::Missing => "missing",
            };
            line(&mut out, format_args!("{state:<9} {name:<23} {text}"));
            if let Some(cure) = cure {
                line(&mut out, format_args!("{:<33} what to do: {cure}", ""));
            }
        }
        let verdict = match self.verdict {
            Verdict::Ok => "everything works",
            Verdict::Degraded => "works, with less: see above",
            Verdict::Missing => "the agent cannot run here: see above",
        };
        line(&mut out, format_args!("{verdict}"));
        out
    }
}

fn worst<'a>(findings: impl Iterator<Item = &'a Finding>) -> Verdict {
    findings.map(|finding| finding.state).max().unwrap_or(Verdict::Ok)
}

/// What the agent still holds is for people to read: who gave it more had a reason.
fn privileges(status: PrivilegeStatus) -> Finding {
    let PrivilegeStatus { held, failed } = status;
    let held = if held.is_empty() { "none".to_owned() } else { held.join(", ") };
    let (state, text) = match failed {
        None => (Verdict::Ok, format!("held by the agent since its probes are attached: {held}")),
        Some(why) => (Verdict::Degraded, format!("not all could be given up: {why}; held: {held}")),
    };
    Finding { name: "privileges".to_owned(), state, text, cure: None }
}

/// The history degrades when rows are lost; off is a choice.
fn history(history: HistoryStatus) -> Finding {
    let HistoryStatus { directory, enabled, failing, bytes, stored_rows, lost_rows } = history;
    let (state, text, cure) = match failing {
        _ if !enabled => (Verdict::Ok, "off by history.enabled".to_owned(), None),
        Some(why) => {
            let cure = "see the agent's log; name another directory by data_dir, or free some room".to_owned();
            (Verdict::Degraded, format!("not written, {lost_rows} rows lost: {why}"), Some(cure))
        }
        None => {
            let lost = if lost_rows == 0 { String::new() } else { format!(", {lost_rows} lost") };
            (Verdict::Ok, format!("{bytes} bytes in {directory}; {stored_rows} rows stored{lost}"), None)
        }
    };
    Finding { name: "history".to_owned(), state, text, cure }
}

fn check(check: tasks::Check) -> Finding {
    let (state, text, cure) = match check.state {
        CheckState::Ok(text) => (Verdict::Ok, text, None),
        CheckState::Degraded(text) => (Verdict::Degraded, text, None),
        CheckState::Missing { what, cure } => (Verdict::Missing, what, Some(cure)),
    };
    Finding { name: check.name.to_owned(), state, text, cure }
}

fn of_cluster(finding: tasks::Finding) -> Finding {
    let tasks::Finding { name, state, text } = finding;
    let state = match state {
        tasks::State::Ok => Verdict::Ok,
        tasks::State::Degraded => Verdict::Degraded,
    };
    Finding { name, state, text, cure: None }
}

fn probe(probe: Probe) -> Finding {
    let Probe { name, gives, required, refused } = probe;
    let name = format!("probe {name}");
    match refused {
        None => Finding { name, state: Verdict::Ok, text: gives, cure: None },
        Some(why) => {
            let state = if required { Verdict::Missing } else { Verdict::Degraded };
            Finding { name, state, text: format!("refused, so there is no {gives}: {why}"), cure: None }
        }
    }
}

/// A source that the node does not have is as it should be; one that fails degrades.
fn collector(collector: Collector) -> Finding {
    let Collector { name, state, why, duration_us } = collector;
    let name = format!("look {name}");
    let (state, text) = match state {
        CollectorState::Ok => (Verdict::Ok, format!("takes {}.{:03} ms", duration_us / 1_000, duration_us % 1_000)),
        CollectorState::Absent => (Verdict::Ok, format!("not on this node: {why}")),
        CollectorState::Failed => (Verdict::Degraded, format!("failed, wholly or in part: {why}")),
    };
    Finding { name, state, text, cure: None }
}

/// A table of kinds and fates.
fn books_text(books: &[Book], balanced: bool) -> String {
    let mut out = String::new();
    let Some(first) = books.first() else { return "no books: the agent has none yet\n".to_owned() };
    let fates: Vec<&String> = first.fates.keys().collect();
    let mut row = format!("{:<10} {:>12} {:>12}", "kind", "seen", "pending");
    // Writing to a string does not fail.
    for fate in &fates {
        let _ = write!(row, " {fate:>12}");
    }
    line(&mut out, format_args!("{row}"));
    for book in books {
        let mut row = format!("{:<10} {:>12} {:>12}", book.kind, book.seen, book.pending);
        for fate in &fates {
            let _ = write!(row, " {:>12}", book.fates.get(*fate).copied().unwrap_or(0));
        }
        let verdict = if book.balances() { "" } else { "  does not add up" };
        line(&mut out, format_args!("{row}{verdict}"));
    }
    let verdict = if balanced {
        "the books balance: seen = all fates + pending, for every kind"
    } else {
        "the books do not balance: that is a defect of the agent, please report it with this table"
    };
    line(&mut out, format_args!("{verdict}"));
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    clean_into(&text.to_string(), out);
    out.push('\n');
}
