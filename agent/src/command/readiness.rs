//! `sekisho readiness`: who would break by a change, as the history on this node tells.

use std::ops::ControlFlow;
use std::path::PathBuf;

use agent_core::output::{Output, Window};
use agent_core::readiness::{Plan, Readiness as Gathered, Report};
use agent_core::time::WallNs;
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use jiff::Zoned;
use serde::Serialize;

use super::timeline::{When, zoned};
use super::{Exit, Shape};
use crate::config::DATA_DIR_DEFAULT;
use crate::history::{Query, Reader};
use crate::lines::{self, LineKind, SCHEMA};

/// Who would break by a change that is planned, from the history on this node or a copy of it.
#[derive(Args)]
pub(super) struct Readiness {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Imds(Imds),
}

/// Before the hop limit of the instance metadata service is set to 1, tokens are required, or pods are kept from it: which
/// workloads on this node break, which fall back to an identity of their own, and which do not care; with the window that
/// was watched and what it does not cover. No agent is needed. Exits with 1 when a workload breaks or that cannot be told.
#[derive(Args)]
struct Imds {
    /// Only this change; may be repeated.
    #[arg(long, value_enum, value_delimiter = ',')]
    plan: Vec<Change>,

    /// From then on: 90m, 7d, 14:30, 2026-11-22, or RFC 3339. All that the history holds, unless it is given.
    #[arg(long, value_name = "TIME")]
    since: Option<When>,

    /// Up to then, in the same forms.
    #[arg(long, value_name = "TIME")]
    until: Option<When>,

    /// How it looks.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,

    /// The agent's data directory, or a copy of it.
    #[arg(long, value_name = "DIR", env = "SEKISHO_DATA_DIR", default_value = DATA_DIR_DEFAULT)]
    data_dir: PathBuf,
}

/// See [`Plan`].
#[derive(Clone, Copy, ValueEnum)]
enum Change {
    /// The hop limit is 1.
    #[value(name = "hop-limit-1")]
    HopLimit1,
    /// Tokens are required (version 2 only).
    TokensRequired,
    /// Pods with a network of their own do not reach the service.
    BlockedForPods,
    /// The service is disabled.
    Disabled,
}

/// The report with what every object carries.
#[derive(Serialize)]
struct Envelope<'a> {
    schema: &'static str,
    kind: &'static str,
    time: WallNs,
    node: &'a str,
    #[serde(flatten)]
    report: &'a Report,
}

impl Readiness {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let What::Imds(imds) = self.what;
        imds.run()
    }
}

impl Imds {
    fn run(self) -> anyhow::Result<Exit> {
        let now = Zoned::now();
        let at = |when: &Option<When>| when.as_ref().map(|when| when.at(&now)).transpose();
        let (since, until) = (at(&self.since).context("--since")?, at(&self.until).context("--until")?);
        if let (Some(since), Some(until)) = (since, until)
            && since > until
        {
            eprintln!("error: --since ({since}) is later than --until ({until})");
            return Ok(Exit::Usage);
        }
        let mut reader = Reader::open(&self.data_dir)?;
        let Some((first, last)) = reader.coverage().span() else {
            anyhow::bail!("the history in {} is empty: let the agent watch first", self.data_dir.display());
        };
        let asked = Window { start: since.unwrap_or(first), end: until.unwrap_or(last) };
        let gathered = gather(&mut reader, asked);
        let plans: Vec<Plan> = match &self.plan[..] {
            [] => Plan::ALL.to_vec(),
            plans => plans.iter().map(|plan| plan.plan()).collect(),
        };
        let coverage = reader.coverage();
        let watched: Vec<Window> = coverage.runs.iter().map(|run| Window { start: run.from, end: run.to }).collect();
        let report = gathered.report(asked, &watched, &plans);
        let time = WallNs(i64::try_from(now.timestamp().as_nanosecond()).unwrap_or(i64::MAX));
        super::print(&match self.output {
            Shape::Json => {
                let (kind, node) = ("readiness", &*coverage.node);
                format!("{}\n", lines::json(&Envelope { schema: SCHEMA, kind, time, node, report: &report }))
            }
            Shape::Text => text(&report, &coverage.node, &now),
        })?;
        for file in &coverage.unreadable {
            eprintln!("sekisho: {} could not be read, and what it holds is missing: {}", file.path.display(), file.why);
        }
        let is_fine = report.is_clear() && coverage.unreadable.is_empty();
        Ok(if is_fine { Exit::Fine } else { Exit::Found })
    }
}

fn gather(reader: &mut Reader, asked: Window) -> Gathered {
    let mut gathered = Gathered::default();
    reader.objects(asked.end, &mut |row| gathered.object(&row));
    let span = Query { since: Some(asked.start), until: Some(asked.end), ..Query::default() };
    let requests = Query { kinds: vec![LineKind::Metadata], ..span.clone() };
    reader.each(&requests, &mut |output| {
        if let Output::Metadata(row) = &output {
            gathered.survey(row);
        }
        ControlFlow::Continue(())
    });
    let rows = Query { kinds: vec![LineKind::Metadata, LineKind::Gap, LineKind::Finding], ..span };
    reader.each(&rows, &mut |output| {
        gathered.row(&output);
        ControlFlow::Continue(())
    });
    gathered
}

fn text(report: &Report, node: &str, now: &Zoned) -> String {
    let show = |time: WallNs| zoned(time, now).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let mut out = format!("node        {node}  (times are {})\n", now.strftime("%Z, %:z"));
    // Names and programs come from workloads: no escape sequence of theirs reaches a terminal.
    for line in report.text(&show).lines() {
        lines::clean_into(line, &mut out);
        out.push('\n');
    }
    out
}

impl Change {
    fn plan(self) -> Plan {
        match self {
            Self::HopLimit1 => Plan::HopLimit1,
            Self::TokensRequired => Plan::TokensRequired,
            Self::BlockedForPods => Plan::BlockedForPods,
            Self::Disabled => Plan::Disabled,
        }
    }
}
