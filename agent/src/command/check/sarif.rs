//! The review as SARIF 2.1.0, for code scanning.
//!
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>. Only what is used is here: rules, results with a
//! place and a fingerprint, and what could not be read as notifications of an invocation that did not succeed.

use agent_core::check::{CheckReport, Finding, Place};
use agent_core::finding::{Code, Severity};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

const VERSION: &str = "2.1.0";
const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// What may not stand in the path of an address.
const NOT_IN_PATHS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'[')
    .add(b']')
    .add(b'\\')
    .add(b'^')
    .add(b'|')
    .add(b':');
/// Standard input has no place in a tree of files; results need one to be shown.
const STANDARD_INPUT: &str = "stdin";

#[derive(Serialize)]
pub(super) struct Log<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run<'a> {
    tool: Tool,
    column_kind: &'static str,
    invocations: [Invocation<'a>; 1],
    results: Vec<Found<'a>>,
}

#[derive(Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    semantic_version: &'static str,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: &'static str,
    short_description: Text<'static>,
    full_description: Text<'static>,
    help: Text<'static>,
    default_configuration: Configuration,
    properties: RuleProperties,
}

#[derive(Serialize)]
struct Configuration {
    level: &'static str,
}

#[derive(Serialize)]
struct RuleProperties {
    tags: [&'static str; 2],
    /// GitHub's scale: over 9 critical, over 7 high, over 4 medium, else low.
    #[serde(rename = "security-severity")]
    security_severity: &'static str,
}

#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation<'a> {
    execution_successful: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_execution_notifications: Vec<Notification<'a>>,
}

#[derive(Serialize)]
struct Notification<'a> {
    level: &'static str,
    message: Text<'a>,
    locations: [Location; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found<'a> {
    rule_id: &'static str,
    rule_index: usize,
    level: &'static str,
    message: Text<'a>,
    locations: [Location; 1],
    partial_fingerprints: Fingerprints,
    /// Not empty: accepted, by a waiver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    suppressions: Vec<Suppression<'a>>,
    properties: Properties<'a>,
}

#[derive(Serialize)]
struct Suppression<'a> {
    /// Not in the manifest itself: in the configuration, or built in.
    kind: &'static str,
    status: &'static str,
    justification: &'a str,
}

#[derive(Serialize)]
struct Fingerprints {
    /// The same finding about the same object keeps it, wherever the object moves to.
    #[serde(rename = "findingAndObject/v1")]
    finding_and_object: String,
}

#[derive(Serialize)]
struct Properties<'a> {
    cause: &'a str,
    severity: Severity,
    object: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Region>,
}

#[derive(Serialize)]
struct ArtifactLocation {
    uri: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u64,
}

/// What a review can find.
const RULES: [Code; 9] = [
    Code::SgpNotEnforced,
    Code::SgpStale,
    Code::SgpOrphaned,
    Code::SgpInvalid,
    Code::SgpClusterGroup,
    Code::IrsaNotInjected,
    Code::IdentityConflict,
    Code::StaticCredentials,
    Code::PodIdentityUnreachable,
];

/// The whole answer.
pub(super) fn log(report: &CheckReport) -> Log<'_> {
    let rules = RULES.iter().map(|code| {
        let entry = code.entry();
        let worst = entry.severities.last().copied().unwrap_or(Severity::Info);
        Rule {
            id: code.name(),
            short_description: Text { text: entry.title },
            full_description: Text { text: entry.about },
            help: Text { text: entry.advice },
            default_configuration: Configuration { level: level(worst) },
            properties: RuleProperties { tags: ["security", "kubernetes"], security_severity: score(worst) },
        }
    });
    let notifications = report.errors.iter().map(|problem| Notification {
        level: "error",
        message: Text { text: &problem.text },
        locations: [location(&problem.place)],
    });
    let driver = Driver { name: "sekisho", semantic_version: env!("CARGO_PKG_VERSION"), rules: rules.collect() };
    let invocation = Invocation {
        execution_successful: report.errors.is_empty(),
        tool_execution_notifications: notifications.collect(),
    };
    let results = report.findings.iter().filter_map(result).collect();
    let run = Run { tool: Tool { driver }, column_kind: "unicodeCodePoints", invocations: [invocation], results };
    Log { schema: SCHEMA, version: VERSION, runs: [run] }
}

fn result(finding: &Finding) -> Option<Found<'_>> {
    let Finding { code, severity, text, cause, object, place, subject, accepted_reason, .. } = finding;
    let rule_index = RULES.iter().position(|rule| rule == code)?;
    Some(Found {
        rule_id: code.name(),
        rule_index,
        level: level(*severity),
        message: Text { text },
        locations: [location(place)],
        partial_fingerprints: Fingerprints {
            finding_and_object: format!("{} {object} {}", code.name(), subject.container).trim_end().to_owned(),
        },
        suppressions: accepted_reason.as_deref().map(Suppression::by_waiver).into_iter().collect(),
        properties: Properties { cause, severity: *severity, object },
    })
}

impl<'a> Suppression<'a> {
    fn by_waiver(justification: &'a str) -> Self {
        Self { kind: "external", status: "accepted", justification }
    }
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium | Severity::Warning | Severity::Low => "warning",
        Severity::Info => "note",
    }
}

fn score(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "9.5",
        Severity::High => "8.0",
        Severity::Medium | Severity::Warning => "5.5",
        Severity::Low => "3.0",
        Severity::Info => "1.0",
    }
}

fn location(place: &Place) -> Location {
    let uri = match &*place.file {
        "-" => STANDARD_INPUT.to_owned(),
        file => {
            let path = utf8_percent_encode(file.strip_prefix("./").unwrap_or(file), NOT_IN_PATHS);
            if file.starts_with('/') { format!("file://{path}") } else { path.to_string() }
        }
    };
    let region = (place.line > 0).then_some(Region { start_line: place.line });
    Location { physical_location: PhysicalLocation { artifact_location: ArtifactLocation { uri }, region } }
}

#[cfg(test)]
mod tests;
