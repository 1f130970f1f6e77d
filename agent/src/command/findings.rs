//! `sekisho findings`: what a running agent found.

use std::fmt::Write as _;

use agent_core::finding::ledger::CannotTellRow;
use agent_core::finding::{Severity, Subject};
use agent_core::output::{FindingRow, State};
use clap::Args;
use serde_json::Value;

use super::{Exit, Shape, Socket};
use crate::api::client;
use crate::api::protocol::Verb;
use crate::lines;

/// What a running agent found: what stands, what waivers accept, what was resolved within a day, and what could not be
/// told. Exits with 1 when something stands that no waiver accepts, or when a part of the answer cannot be read.
#[derive(Args)]
pub(super) struct Findings {
    /// How it looks.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,

    #[command(flatten)]
    socket: Socket,
}

/// The agent's answer, sorted out.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) findings: Vec<FindingRow>,
    pub(super) doubts: Vec<CannotTellRow>,
    basis: Option<Value>,
    /// Findings that this version cannot read, as those of a newer agent: open, or nobody can tell.
    pub(super) unread: usize,
}

impl Findings {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Self { output, socket } = self;
        let lines: Vec<Value> = client::state(&socket.socket, Verb::Findings)?;
        let answer = Answer::read(&lines);
        let text = match output {
            Shape::Json => lines::of_objects(&lines),
            Shape::Text => answer.text(),
        };
        super::print(&text)?;
        lines::warn_unread(answer.unread);
        let is_open = answer.unread > 0 || answer.findings.iter().any(|finding| finding.state == State::Open);
        Ok(if is_open { Exit::Found } else { Exit::Fine })
    }
}

impl Answer {
    /// Lines of a kind that this version does not know are left out; what it should know and cannot read is counted.
    pub(super) fn read(lines: &[Value]) -> Self {
        let mut answer = Self::default();
        for line in lines {
            match line.get("kind").and_then(Value::as_str) {
                Some("finding") => lines::put_read(line, &mut answer.unread, |finding| answer.findings.push(finding)),
                Some("cannot_tell") => lines::put_read(line, &mut answer.unread, |doubt| answer.doubts.push(doubt)),
                Some("basis") => answer.basis = Some(line.clone()),
                _ => {}
            }
        }
        answer.findings.sort_by_key(|finding| (finding.state, std::cmp::Reverse(finding.severity)));
        answer
    }

    fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        // Names and programs come from workloads: no escape sequence of theirs reaches a terminal.
        lines::clean_lines(&out)
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let count = |state| self.findings.iter().filter(|finding| finding.state == state).count();
        writeln!(
            out,
            "{} open, {} accepted, {} resolved within a day",
            count(State::Open),
            count(State::Accepted),
            count(State::Resolved)
        )?;
        for row in &self.findings {
            finding(out, row)?;
        }
        if !self.doubts.is_empty() {
            writeln!(out, "\ncannot tell:")?;
            for doubt in &self.doubts {
                cannot_tell(out, doubt)?;
            }
        }
        self.sources(out)
    }

    /// What the findings rest on, where that is not all well.
    fn sources(&self, out: &mut String) -> std::fmt::Result {
        let Some(basis) = &self.basis else { return Ok(()) };
        if basis.get("watched") == Some(&Value::Bool(false)) {
            writeln!(out, "\nno cluster is watched: pods show by uid, and nothing is judged by their objects")?;
        }
        for source in basis.get("sources").and_then(Value::as_array).into_iter().flatten() {
            let text = |field| source.get(field).and_then(Value::as_str);
            if let (Some(name), Some(error)) = (text("source"), text("error")) {
                let since = text("fresh_at").unwrap_or("never");
                writeln!(out, "\nsource {name} does not answer, last current: {since}: {error}")?;
            }
        }
        Ok(())
    }
}

fn finding(out: &mut String, row: &FindingRow) -> std::fmt::Result {
    let state = match row.state {
        State::Open => String::new(),
        State::Accepted => format!("  accepted: {}", row.accepted_reason.as_deref().unwrap_or_default()),
        State::Resolved => {
            format!("  resolved {}", row.resolved_at.map(|at| at.to_string()).unwrap_or_default())
        }
    };
    let severity = match row.severity {
        Severity::Critical | Severity::High => row.severity.name().to_uppercase(),
        _ => row.severity.name().to_owned(),
    };
    let pods = match row.pods_count {
        0 | 1 => String::new(),
        more => format!(", {more} pods"),
    };
    writeln!(out, "\n{severity:<8} {:<26} {}{pods}{state}", row.code.name(), whom(&row.subject))?;
    writeln!(out, "         {}", row.text)?;
    let times = if row.count == 1 { "once".to_owned() } else { format!("{} times", row.count) };
    writeln!(
        out,
        "         cause {}; {times}, first {}, last {}; watched since {}",
        row.cause, row.first_seen, row.last_seen, row.watched_since
    )?;
    if row.state == State::Open {
        writeln!(out, "         > {} (sekisho explain {})", row.advice, row.code.name())?;
    }
    Ok(())
}

fn cannot_tell(out: &mut String, row: &CannotTellRow) -> std::fmt::Result {
    let names: Vec<_> = row.subjects.iter().take(3).map(whom).collect();
    let more = row.count.saturating_sub(names.len() as u64);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let objects = match &row.objects[..] {
        [] => String::new(),
        objects => format!(" ({})", objects.join(", ")),
    };
    writeln!(out, "  {:<26} {:<32} {}{more}{objects}", row.code.name(), row.why, names.join(", "))
}

/// What a finding is about, as people call it.
pub(super) fn whom(subject: &Subject) -> String {
    let Subject { namespace, workload, pod, uid: _, container: _, service_account: _, policy, peer, resource, scope } =
        subject;
    let name = [workload, policy, pod].into_iter().find(|name| !name.is_empty());
    let mut text = match (&**namespace, name) {
        ("", Some(name)) => name.to_string(),
        (namespace, Some(name)) => format!("{namespace}/{name}"),
        (namespace, None) => namespace.to_owned(),
    };
    for more in [peer, resource, scope] {
        if !more.is_empty() {
            text.push_str(if text.is_empty() { "" } else { " " });
            text.push_str(more);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Answer;

    fn finding(state: &str, severity: &str, pod: &str) -> serde_json::Value {
        json!({
            "schema": "sekisho/1", "kind": "finding", "time": "2026-01-02T03:04:05.000000Z", "node": "n",
            "id": "0123456789abcdef", "code": "user-data-read", "severity": severity, "state": state,
            "subject": {"namespace": "shop", "workload": "cart", "pod": pod}, "pods": [pod], "pods_count": 2,
            "cause": "read", "first_seen": "2026-01-02T03:04:05.000000Z", "last_seen": "2026-01-02T03:04:06.000000Z",
            "resolved_at": null, "count": 3, "watched_since": "2026-01-02T03:00:00.000000Z", "text": "\u{1b}[2Jread",
            "advice": "do something", "evidence": [], "accepted_reason": "as it should be"
        })
    }

    #[test]
    fn what_stands_comes_first_and_the_worst_of_it() {
        let lines = [
            finding("resolved", "medium", "a"),
            finding("accepted", "high", "b"),
            finding("open", "medium", "c"),
            finding("open", "critical", "d"),
            json!({"kind": "cannot_tell", "code": "sgp-stale", "why": "event_expired", "count": 5,
                   "objects": ["NetworkPolicy shop/deny-all"], "subjects": [{"namespace": "shop", "workload": "till"}]}),
            json!({"kind": "basis", "watched": false, "sources": [
                {"source": "pods", "error": "refused", "fresh_at": null}, {"source": "node", "error": null}]}),
            json!({"kind": "of another version"}),
        ];
        assert_eq!(Answer::read(&lines).unread, 0);
        let mut newer = finding("open", "high", "e");
        newer["code"] = json!("of-a-newer-agent");
        let doubt = json!({"kind": "cannot_tell", "code": "of-a-newer-agent"});
        assert_eq!(Answer::read(&[newer, doubt]).unread, 2);
        let text = Answer::read(&lines).text();
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part:?} is not in {text}"));
        assert!(place("2 open, 1 accepted, 1 resolved") < place("CRITICAL"));
        assert!(place("CRITICAL") < place("medium") && place("medium") < place("accepted: as it should be"));
        assert!(place("shop/cart, 2 pods") < place("shop/till and 4 more (NetworkPolicy shop/deny-all)"));
        assert!(text.contains("> do something (sekisho explain user-data-read)"));
        assert!(
            text.contains("no cluster is watched") && text.contains("source pods does not answer, last current: never")
        );
        assert!(!text.contains('\u{1b}') && !text.contains("source node"));
    }
}
