//! Answers to questions about what the Engine knows, as lines of JSON.

use std::collections::BTreeMap;

use agent_core::engine::Engine;
use agent_core::output::{Output, SCHEMA};
use agent_core::time::WallNs;
use serde::Serialize;

use crate::lines;

/// A row with what every line carries.
#[derive(Serialize)]
struct Line<'a, T> {
    schema: &'static str,
    kind: &'static str,
    time: WallNs,
    node: &'a str,
    #[serde(flatten)]
    row: &'a T,
}

/// What could not be told.
#[derive(Serialize)]
struct Doubt<'a> {
    schema: &'static str,
    kind: &'static str,
    time: WallNs,
    node: &'a str,
    #[serde(flatten)]
    row: agent_core::finding::ledger::CannotTellRow,
}

/// What the answers rest on.
#[derive(Serialize)]
struct Basis<'a> {
    schema: &'static str,
    kind: &'static str,
    time: WallNs,
    node: &'a str,
    /// Whether anybody tells pods.
    watched: bool,
    /// Sources of the cluster that answered or failed.
    sources: Vec<Source>,
    /// Objects left out, by reason.
    left_out: BTreeMap<&'static str, u64>,
    /// Findings, pods of them and doubts that found no room.
    refused: u64,
}

#[derive(Serialize)]
struct Source {
    #[serde(rename = "source")]
    name: agent_core::facts::Source,
    fresh_at: Option<WallNs>,
    error: Option<String>,
    malformed: u64,
}

/// Findings, what could not be told, and what both rest on.
pub(super) fn findings(engine: &Engine, node: &str, now: WallNs) -> Vec<String> {
    let ledger = engine.ledger();
    let mut answer: Vec<_> = ledger.rows().map(|row| Output::Finding(Box::new(row)).to_json(node)).collect();
    let doubts = ledger.doubts();
    answer.extend(doubts.map(|row| lines::json(&Doubt { schema: SCHEMA, kind: "cannot_tell", time: now, node, row })));
    let cluster = engine.cluster();
    let sources = cluster.sources().map(|(name, standing)| Source {
        name,
        fresh_at: standing.fresh_at,
        error: standing.error.clone(),
        malformed: standing.malformed,
    });
    answer.push(lines::json(&Basis {
        schema: SCHEMA,
        kind: "basis",
        time: now,
        node,
        watched: cluster.is_watched(),
        sources: sources.collect(),
        left_out: cluster.counts().by_reason().into_iter().collect(),
        refused: ledger.refused(),
    }));
    answer
}

/// Policies, groups, and what pods used of them; then what that rests on.
pub(super) fn audit(engine: &Engine, node: &str, now: WallNs) -> Vec<String> {
    let audit = engine.audit();
    let policies = audit.policies.iter().map(|row| line("sg_policy", row, node, now));
    let groups = audit.groups.iter().map(|row| line("sg_group", row, node, now));
    let pods = audit.pods.iter().map(|row| line("sg_pod", row, node, now));
    policies.chain(groups).chain(pods).chain([line("sg_basis", &audit.basis, node, now)]).collect()
}

/// Tokens for the Kubernetes API.
pub(super) fn tokens(engine: &Engine, node: &str, now: WallNs) -> Vec<String> {
    engine.tokens().iter().map(|row| line("token", row, node, now)).collect()
}

/// Who sent and received how much, then what that rests on.
pub(super) fn traffic(engine: &Engine, node: &str, now: WallNs) -> Vec<String> {
    let (rows, basis) = engine.traffic();
    let rows = rows.iter().map(|row| line("traffic", row, node, now));
    rows.chain([line("traffic_basis", &basis, node, now)]).collect()
}

fn line<T: Serialize>(kind: &'static str, row: &T, node: &str, time: WallNs) -> String {
    lines::json(&Line { schema: SCHEMA, kind, time, node, row })
}
