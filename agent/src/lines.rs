//! Outputs as lines, the same for standard output and for the socket.

use std::fmt::Write as _;

use agent_core::output::Output;
/// Version of every JSON object's field names.
pub(crate) use agent_core::output::SCHEMA;
use agent_core::time::WallNs;
use serde::{Deserialize, Serialize};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    /// For people.
    #[default]
    Text,
    /// For programs: one object per line.
    Json,
}

/// The kinds of lines that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LineKind {
    /// Folded connections.
    Flow,
    /// Requests to metadata services.
    Metadata,
    /// Programs that were started.
    Process,
    /// Spans of time that are not covered.
    Gap,
    /// Findings that opened, changed or were resolved.
    Finding,
    /// The node's ceilings.
    Capacity,
    /// Pods, policies and service accounts that came, changed or went.
    Object,
}

/// The kind of an output.
pub(crate) fn kind(output: &Output) -> LineKind {
    match output {
        Output::Flow(_) => LineKind::Flow,
        Output::Metadata(_) => LineKind::Metadata,
        Output::Process(_) => LineKind::Process,
        Output::Gap(_) => LineKind::Gap,
        Output::Finding(_) => LineKind::Finding,
        Output::Capacity(_) => LineKind::Capacity,
        Output::Object(_) => LineKind::Object,
    }
}

/// Appends an output and a line end.
pub(crate) fn write(output: &Output, form: Form, node: &str, out: &mut String) {
    match form {
        Form::Json => out.push_str(&output.to_json(node)),
        Form::Text => clean_into(&output.to_text(), out),
    }
    out.push('\n');
}

/// Appends a line that says how many lines are missing at this place, because the reader was too slow.
pub(crate) fn write_dropped(lines: u64, now: WallNs, form: Form, node: &str, out: &mut String) {
    #[derive(Serialize)]
    struct Dropped<'a> {
        schema: &'static str,
        kind: &'static str,
        time: WallNs,
        node: &'a str,
        lines: u64,
    }
    match form {
        Form::Text => {
            // Writing to a string does not fail.
            let _ = write!(out, "{lines} lines are missing here: this reader is too slow");
        }
        Form::Json => out.push_str(&json(&Dropped { schema: SCHEMA, kind: "dropped", time: now, node, lines })),
    }
    out.push('\n');
}

/// A value as one line of JSON, without a line end.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        // Maps with keys that are no strings are the only values that fail, and no type here has them.
        tracing::error!(%error, "a line could not be written as JSON");
        format!("{{\"schema\":\"{SCHEMA}\",\"kind\":\"error\"}}")
    })
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Appends text without control characters: process names come from whoever runs the process, and must not command
/// the terminal of whoever looks.
pub(crate) fn clean_into(text: &str, out: &mut String) {
    out.extend(text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }));
}

/// Several lines, each cleaned as [`clean_into`] does.
pub(crate) fn clean_lines(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for line in text.lines() {
        clean_into(line, &mut clean);
        clean.push('\n');
    }
    clean
}

/// Objects as lines, for programs.
pub(crate) fn of_objects(objects: &[serde_json::Value]) -> String {
    objects.iter().fold(String::new(), |text, object| text + &object.to_string() + "\n")
}

/// Puts what a line of the agent says where it belongs; one that this version cannot read, as of a newer agent, is counted.
pub(crate) fn put_read<T: serde::de::DeserializeOwned>(
    line: &serde_json::Value,
    unread: &mut usize,
    put: impl FnOnce(T),
) {
    match T::deserialize(line) {
        Ok(read) => put(read),
        Err(_) => *unread += 1,
    }
}

/// Says on standard error how many lines of an answer could not be read, if any.
pub(crate) fn warn_unread(unread: usize) {
    if unread > 0 {
        eprintln!(
            "sekisho: this version cannot read {unread} of the agent's lines; ask by the agent's own version, or with -o json"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, clean_into, write_dropped};
    use agent_core::time::WallNs;

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let mut out = String::new();
        clean_into("a\u{1b}[2Jb\r\n\u{9b}c é", &mut out);
        assert_eq!(out, "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}c é");
    }

    #[test]
    fn missing_lines_are_told_in_both_forms() {
        let mut out = String::new();
        write_dropped(7, WallNs(0), Form::Json, "n", &mut out);
        write_dropped(7, WallNs(0), Form::Text, "n", &mut out);
        assert_eq!(
            out,
            "{\"schema\":\"sekisho/1\",\"kind\":\"dropped\",\"time\":\"1970-01-01T00:00:00.000000Z\",\"node\":\"n\",\
             \"lines\":7}\n7 lines are missing here: this reader is too slow\n"
        );
    }
}
