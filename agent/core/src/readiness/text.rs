//! The report for people.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::Plan;
use super::report::{Entry, NotCovered, PlanReport, Report};
use crate::output::name_of;
use crate::time::WallNs;

/// Runs less often than the window is long may not have been seen: this many seconds hold a weekly job.
const WEEK_S: u64 = 7 * 86_400;

type Show<'s> = &'s dyn Fn(WallNs) -> String;

impl Report {
    /// Lines for people; `show` writes a time.
    pub fn text(&self, show: Show<'_>) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out, show);
        out
    }

    fn write(&self, out: &mut String, show: Show<'_>) -> fmt::Result {
        writeln!(
            out,
            "window      {} to {}, watched for {}",
            show(self.since),
            show(self.until),
            span(self.watched_s)
        )?;
        let limit = &self.hop_limit;
        match (limit.value, limit.by, limit.seen_at) {
            (Some(hops), Some(by), Some(at)) => {
                let by = if by == "node" { "on the node's network" } else { "in a pod, its own hop added" };
                write!(out, "hop limit   {hops}, read {by} at {}", show(at))?;
                out.push_str(if limit.changed { "; it was another one before\n" } else { "\n" });
            }
            _ => writeln!(
                out,
                "hop limit   cannot tell: no answer to a request for a token was seen, {} stayed unanswered",
                limit.unanswered
            )?,
        }
        match (self.tokens.required, self.tokens.seen_at) {
            (Some(required), Some(at)) => {
                let (word, answer) = if required { ("required", "refused") } else { ("optional", "answered") };
                writeln!(out, "tokens      {word}: a request without one was {answer} at {}", show(at))?;
            }
            _ => out.push_str("tokens      cannot tell whether they are required: no request came without one\n"),
        }
        for plan in &self.plans {
            plan.write(out, show)?;
        }
        self.not_covered.write(out, show)?;
        if self.watched_s < WEEK_S {
            out.push_str("  what runs less often than the window is long was not seen; a week holds weekly jobs\n");
        }
        out.push_str("  what happened on other nodes: ask each node\n");
        Ok(())
    }
}

impl PlanReport {
    fn write(&self, out: &mut String, show: Show<'_>) -> fmt::Result {
        let what = match self.plan {
            Plan::HopLimit1 => "answers to requests for tokens do not reach pods with a network of their own",
            Plan::TokensRequired => "requests without a token are refused, on the node's network too",
            Plan::BlockedForPods => {
                "pods with a network of their own do not reach the service, as with hop limit 1 and tokens required"
            }
            Plan::Disabled => "nobody on the node reaches the service",
        };
        writeln!(out, "\n{}: {what}", self.plan.name())?;
        let lists = [
            ("breaks", &self.breaks),
            ("cannot tell", &self.cannot_tell),
            ("falls back to its own identity", &self.falls_back),
        ];
        for (title, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            writeln!(out, "  {title} ({})", list.len())?;
            list.iter().try_for_each(|entry| entry.write(out, show))?;
        }
        // Many, for few reasons.
        if !self.does_not_care.is_empty() {
            writeln!(out, "  does not care ({})", self.does_not_care.len())?;
        }
        let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for entry in &self.does_not_care {
            by_reason.entry(&entry.why).or_default().push(entry.name());
        }
        by_reason.iter().try_for_each(|(why, names)| writeln!(out, "    {why}: {}", names.join(", ")))
    }
}

impl Entry {
    fn name(&self) -> String {
        match &*self.namespace {
            "" => self.workload.clone(),
            namespace => format!("{namespace}/{}", self.workload),
        }
    }

    fn write(&self, out: &mut String, show: Show<'_>) -> fmt::Result {
        writeln!(out, "    {}: {}", self.name(), self.why)?;
        write!(out, "      {} requests", self.requests)?;
        if let Some(last) = self.last_seen {
            write!(out, ", the last at {}", show(last))?;
        }
        if self.pods_count > 1 {
            write!(out, ", {} pods", self.pods_count)?;
        }
        let list = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>().join(", ");
        write!(out, "; for {}", list(&mut self.asked.iter().map(name_of)))?;
        if !self.programs.is_empty() {
            write!(out, "; by {}", list(&mut self.programs.iter().cloned()))?;
        }
        out.push('\n');
        if self.advice.is_empty() { Ok(()) } else { writeln!(out, "      > {}", self.advice) }
    }
}

impl NotCovered {
    fn write(&self, out: &mut String, show: Show<'_>) -> fmt::Result {
        out.push_str("\nnot covered\n");
        for gap in &self.gaps {
            let lost = match gap.records_lost.get("metadata") {
                Some(0) => "no request lost".to_owned(),
                Some(lost) => format!("{lost} records of requests lost"),
                None => "loss unknown".to_owned(),
            };
            writeln!(out, "  {} to {}: {}, {lost}", show(gap.start), show(gap.end), name_of(&gap.cause))?;
        }
        if self.gaps_beyond > 0 {
            writeln!(out, "  and {} gaps more", self.gaps_beyond)?;
        }
        for flood in &self.suppressed {
            let (namespace, workload, last) = (&flood.namespace, &flood.workload, show(flood.last_seen));
            writeln!(
                out,
                "  {namespace}/{workload} made more records than its share, last at {last}: some are missing"
            )?;
        }
        for unknown in &self.unknown {
            writeln!(out, "  {} requests of nobody knows whom: {}", unknown.requests, unknown.why)?;
        }
        if self.unreadable_requests > 0 {
            writeln!(out, "  {} requests that could not be read whole", self.unreadable_requests)?;
        }
        if self.left_out > 0 {
            writeln!(out, "  {} workloads, pods or ways of asking beyond what is kept", self.left_out)?;
        }
        Ok(())
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}
