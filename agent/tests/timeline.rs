//! `sekisho timeline` where there is no history, or no whole one: usage, errors, exit codes. Nothing here needs root.

#![expect(clippy::expect_used, reason = "a test ends where it cannot go on")]

use std::path::Path;
use std::process::{Command, Output};

fn timeline(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEKISHO_")) {
        command.env_remove(name);
    }
    command.args(["timeline", "--data-dir"]).arg(directory).args(arguments).output().expect("the binary starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn wrong_values_are_errors_of_usage() {
    for arguments in [
        &["--pod", "no-namespace"][..],
        &["--ip", "example.com"],
        &["--cidr", "10.0.0.0/33"],
        &["--since", "soon"],
        &["--until", "2026-13-01"],
        &["--kind", "no-such-kind"],
        &["-o", "table"],
    ] {
        let output = timeline(Path::new("/nowhere"), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn no_history_is_said_with_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    for (path, part) in [(directory.path().join("nowhere"), "nowhere"), (directory.path().to_owned(), "--data-dir")] {
        let output = timeline(&path, &[]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.starts_with("sekisho: ") && text.lines().count() == 1 && text.contains(part), "{text}");
    }
}

#[test]
fn a_span_that_ends_before_it_begins_is_refused() {
    let output = timeline(Path::new("/nowhere"), &["--since", "1h", "--until", "2h"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("later than --until"), "{}", stderr(&output));
}

#[test]
fn a_file_that_is_no_history_is_named_and_exits_with_1() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("history-2026-11-22-000001.db");
    for content in [&b"this is text and no database at all, however long it may be"[..], b""] {
        std::fs::write(&path, content).expect("writes");
        let output = timeline(directory.path(), &["-o", "json"]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("000001.db") && text.contains("missing"), "{text}");
        assert!(output.stdout.is_empty());
    }
}
