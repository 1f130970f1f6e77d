//! `sekisho evidence`: a part of the history as a bundle that can be handed over, and the check of one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use agent_core::output::{Change, ObjectKind, ObjectRow, Output};
use agent_core::time::WallNs;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use jiff::Zoned;

use super::asked::Asked;
use super::{Exit, Shape};
use crate::bundle::{Checked, Manifest, Part, Target, verify};
use crate::config::DATA_DIR_DEFAULT;
use crate::history::{Query, Reader};
use crate::lines::{self, LineKind, SCHEMA};

/// Versions of objects in one bundle, at about 3 KiB: 200 MiB. Ten days of a node that has a change every quarter of a minute.
const OBJECTS_MAX: usize = 65_536;

/// Part of the history as a bundle: rows, versions of objects, gaps, and what wrote them, with a manifest of SHA-256 sums. It
/// is made from the history on this node or a copy of it; no agent is needed. Exits with 1 when a part of the history cannot be
/// read, which the manifest says too.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Evidence {
    #[command(subcommand)]
    what: Option<What>,

    #[command(flatten)]
    asked: Asked,

    /// The bundle, as incident.tar.zst; for its owner alone.
    #[arg(short, long, value_name = "FILE", required = true)]
    output: Option<PathBuf>,

    /// Replaces a file of that name.
    #[arg(long)]
    force: bool,

    /// The agent's data directory, or a copy of it.
    #[arg(long, value_name = "DIR", env = "SEKISHO_DATA_DIR", default_value = DATA_DIR_DEFAULT)]
    data_dir: PathBuf,
}

#[derive(Subcommand)]
enum What {
    Verify(Verify),
}

/// Checks a bundle: that each file of it is what the manifest says, that none is missing and none was added. Exits with 1 when
/// something is wrong.
#[derive(Args)]
struct Verify {
    /// The bundle.
    bundle: PathBuf,

    /// The manifest's SHA-256, as it was printed when the bundle was made: without it a bundle that was made anew as a whole
    /// is not found out.
    #[arg(long, value_name = "DIGITS")]
    manifest_sha256: Option<String>,

    /// How it looks.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,
}

impl Evidence {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        match (&self.what, &self.output) {
            (Some(What::Verify(verify)), _) => verify.run(),
            (None, Some(output)) => self.make(&Target::new(output, self.force)?),
            (None, None) => anyhow::bail!("-o FILE is missing"),
        }
    }

    fn make(&self, target: &Target) -> anyhow::Result<Exit> {
        let now = Zoned::now();
        let query = self.asked.query(&now)?;
        if Asked::is_backwards(&query) {
            return Ok(Exit::Usage);
        }
        let mut reader = Reader::open(&self.data_dir)?;
        let node = reader.coverage().node.clone();
        let rows = [LineKind::Flow, LineKind::Metadata, LineKind::Process, LineKind::Finding, LineKind::Capacity];
        let rows =
            lines_of(target, "rows.jsonl", &mut reader, &Query { kinds: rows.to_vec(), ..query.clone() }, &node)?;
        let gaps = Query { kinds: vec![LineKind::Gap], ..query.clone() };
        let gaps = lines_of(target, "gaps.jsonl", &mut reader, &gaps, &node)?;
        let mut part = target.part("objects.jsonl")?;
        for row in objects(&mut reader, &query)? {
            let line = Output::Object(Box::new(row)).to_json(&node);
            part.line(&line).map_err(|error| target.failed(error))?;
        }
        let coverage = reader.coverage();
        let unreadable =
            coverage.unreadable.iter().map(|file| format!("{}: {}", file.path.display(), file.why)).collect();
        let manifest = Manifest {
            schema: SCHEMA.to_owned(),
            kind: "evidence".to_owned(),
            created: WallNs(i64::try_from(now.timestamp().as_nanosecond()).unwrap_or(i64::MAX)),
            tool: format!("sekisho {}", env!("CARGO_PKG_VERSION")),
            kernel: crate::history::kernel(),
            node,
            query: self.asked.record(),
            since: query.since,
            until: query.until,
            unreadable,
            runs: reader.writers(),
            files: Vec::new(),
        };
        let (manifest, sum) = target.write(manifest, vec![rows, part, gaps])?;
        let mut text = String::new();
        for file in &manifest.files {
            // Writing to a string does not fail.
            let _ =
                writeln!(text, "{:<16} {:>9} lines  {:>12} bytes  {}", file.name, file.lines, file.bytes, file.sha256);
        }
        let _ = writeln!(text, "manifest.json, sha256: {sum}");
        text.push_str(
            "keep the manifest's sum apart from the bundle: sekisho evidence verify --manifest-sha256 checks it\n",
        );
        super::print(&text)?;
        for unreadable in &manifest.unreadable {
            eprintln!("sekisho: {unreadable}: it could not be read, and what it holds is missing");
        }
        Ok(if manifest.unreadable.is_empty() { Exit::Fine } else { Exit::Found })
    }
}

/// A file of all rows that a query finds.
fn lines_of(
    target: &Target,
    name: &'static str,
    reader: &mut Reader,
    query: &Query,
    node: &str,
) -> anyhow::Result<Part> {
    let mut part = target.part(name)?;
    let mut result = Ok(());
    reader.each(query, &mut |output| {
        result = part.line(&output.to_json(node));
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    result.map_err(|error| target.failed(error))?;
    Ok(part)
}

/// The versions of objects that were in force in a span: those that stood at its beginning, and all changes within.
fn objects(reader: &mut Reader, query: &Query) -> anyhow::Result<Vec<ObjectRow>> {
    type Key = (ObjectKind, String, String, Option<String>);
    let since = query.since.unwrap_or(WallNs(i64::MIN));
    let (mut standing, mut within) = (BTreeMap::<Key, ObjectRow>::new(), BTreeMap::<(WallNs, Key), ObjectRow>::new());
    let mut beyond = 0_u64;
    reader.objects(query.until.unwrap_or(WallNs(i64::MAX)), &mut |row| {
        if !query.concerns(&row) {
            return;
        }
        let uid = row.uid.as_deref().filter(|_| row.object == ObjectKind::Pod);
        let key = (row.object, row.namespace.to_string(), row.name.to_string(), uid.map(str::to_owned));
        if standing.len() + within.len() >= OBJECTS_MAX {
            beyond += 1;
        } else if row.time >= since {
            within.entry((row.time, key)).or_insert(row);
        } else if standing.get(&key).is_none_or(|known| known.time <= row.time) {
            standing.insert(key, row);
        }
    });
    anyhow::ensure!(
        beyond == 0,
        "there are more than {OBJECTS_MAX} versions of objects: name a pod, or a shorter span by --since and --until"
    );
    // What was gone by then was not in force.
    let standing = standing.into_values().filter(|row| row.change != Change::Gone);
    let mut all: Vec<_> = standing.chain(within.into_values()).collect();
    all.sort_by_key(|row| row.time);
    Ok(all)
}

impl Verify {
    fn run(&self) -> anyhow::Result<Exit> {
        let checked = verify(&self.bundle, self.manifest_sha256.as_deref()).context("verify")?;
        super::print(&match self.output {
            Shape::Json => format!("{}\n", self.json(&checked)),
            Shape::Text => self.text(&checked),
        })?;
        Ok(if checked.problems.is_empty() { Exit::Fine } else { Exit::Found })
    }

    fn json(&self, checked: &Checked) -> String {
        let mut object = serde_json::json!({ "schema": SCHEMA, "kind": "evidence_check", "bundle": self.bundle });
        if let (Some(object), Ok(serde_json::Value::Object(more))) =
            (object.as_object_mut(), serde_json::to_value(checked))
        {
            object.extend(more);
        }
        lines::json(&object)
    }

    fn text(&self, checked: &Checked) -> String {
        let mut out = String::new();
        if let (Some(manifest), Some(sum)) = (&checked.manifest, &checked.manifest_sha256) {
            let Manifest { created, tool, node, files, .. } = manifest;
            let _ = writeln!(out, "made {created} by {tool} of the history of {node}; manifest sha256 {sum}");
            for file in files {
                let _ = writeln!(out, "{:<16} {:>9} lines  {:>12} bytes", file.name, file.lines, file.bytes);
            }
        }
        for problem in &checked.problems {
            let file = if problem.file.is_empty() { "the bundle" } else { &problem.file };
            let _ = writeln!(out, "WRONG  {file}: {}: {}", lines::json(&problem.what).trim_matches('"'), problem.text);
        }
        if checked.problems.is_empty() {
            let given = if self.manifest_sha256.is_some() {
                "and it is the one whose sum was given"
            } else {
                "whether it is the one that was made only its sum can tell (--manifest-sha256)"
            };
            let _ = writeln!(out, "every file is what the manifest says; {given}");
        }
        // Names in a bundle come from whoever made it.
        let mut clean = String::with_capacity(out.len());
        for line in out.lines() {
            lines::clean_into(line, &mut clean);
            clean.push('\n');
        }
        clean
    }
}
