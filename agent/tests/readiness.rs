//! `sekisho readiness` without a history, and with wrong arguments. Nothing here needs root.

#![expect(clippy::expect_used, reason = "a test ends where it cannot go on")]

use std::process::{Command, Output};

fn readiness(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEKISHO_")) {
        command.env_remove(name);
    }
    command.arg("readiness").args(arguments).output().expect("the binary starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn wrong_arguments_are_errors_of_usage() {
    for arguments in [
        &["imds", "--plan", "no-such-plan"][..],
        &["imds", "--since", "soon"],
        &["imds", "--since", "1h", "--until", "2h"],
        &["s3"],
    ] {
        let output = readiness(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn without_a_history_it_says_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("UTF-8");
    let output = readiness(&["imds", "--data-dir", path]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("--data-dir") && text.lines().count() == 1, "{text}");
}
