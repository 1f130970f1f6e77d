//! Rows as JSON objects of schema `sekisho/1`: what every object carries, then the row's own fields.

use serde::Serialize;

use super::Output;
use crate::time::WallNs;

/// Name and version of the documented form. Fields may be added within a version, never renamed or taken away.
pub const SCHEMA: &str = "sekisho/1";

/// A row with what every object carries; serializes to one JSON object.
#[derive(Debug, Serialize)]
pub struct Envelope<'a> {
    schema: &'static str,
    kind: &'static str,
    time: WallNs,
    node: &'a str,
    #[serde(flatten)]
    row: Row<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Row<'a> {
    Flow(&'a super::FlowRow),
    Metadata(&'a super::MetadataRow),
    Process(&'a super::ProcessRow),
    Gap(&'a super::GapRow),
    Finding(&'a super::FindingRow),
    Capacity(&'a super::CapacityRow),
    Object(&'a super::ObjectRow),
}

impl Output {
    /// Kind as in the field `kind`: `flow`, `metadata`, `process`, `gap`, `finding`, `capacity` or `object`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Flow(_) => "flow",
            Self::Metadata(_) => "metadata",
            Self::Process(_) => "process",
            Self::Gap(_) => "gap",
            Self::Finding(_) => "finding",
            Self::Capacity(_) => "capacity",
            Self::Object(_) => "object",
        }
    }

    /// When: of the event, or the end of the span that the row covers.
    pub fn time(&self) -> WallNs {
        match self {
            Self::Flow(row) => row.window.end,
            Self::Metadata(row) => row.time,
            Self::Process(row) => row.time,
            Self::Gap(row) => row.end,
            Self::Finding(row) => row.time,
            Self::Capacity(row) => row.time,
            Self::Object(row) => row.time,
        }
    }

    /// The row as an object for any serializer.
    pub fn envelope<'a>(&'a self, node: &'a str) -> Envelope<'a> {
        let row = match self {
            Self::Flow(row) => Row::Flow(row),
            Self::Metadata(row) => Row::Metadata(row),
            Self::Process(row) => Row::Process(row),
            Self::Gap(row) => Row::Gap(row),
            Self::Finding(row) => Row::Finding(row),
            Self::Capacity(row) => Row::Capacity(row),
            Self::Object(row) => Row::Object(row),
        };
        Envelope { schema: SCHEMA, kind: self.kind(), time: self.time(), node, row }
    }

    /// The row as one line of JSON, without the line's end.
    pub fn to_json(&self, node: &str) -> String {
        // Serializing strings and integers into memory fails only if a row gains a field that JSON cannot hold; a
        // reader then gets an object that says so instead of a line less.
        serde_json::to_string(&self.envelope(node)).unwrap_or_else(|error| {
            serde_json::json!({ "schema": SCHEMA, "kind": "error", "text": error.to_string() }).to_string()
        })
    }
}
