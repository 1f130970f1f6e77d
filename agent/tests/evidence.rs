//! `sekisho evidence` with wrong arguments, without a history, and on what is no bundle. Nothing here needs root.

#![expect(clippy::expect_used, reason = "a test ends where it cannot go on")]

use std::process::{Command, Output};

fn evidence(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEKISHO_")) {
        command.env_remove(name);
    }
    command.arg("evidence").args(arguments).output().expect("the binary starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn wrong_arguments_are_errors_of_usage() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.tar.zst");
    let path = path.to_str().expect("UTF-8");
    for arguments in [
        &["--pod", "shop/cart-0"][..],
        &["--pod", "no-namespace", "-o", path],
        &["--since", "1h", "--until", "2h", "-o", path],
        &["verify"],
    ] {
        let output = evidence(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    assert_eq!(std::fs::read_dir(directory.path()).expect("lists").count(), 0);
}

#[test]
fn without_a_history_nothing_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let (data, path) = (directory.path().join("data"), directory.path().join("x.tar.zst"));
    std::fs::create_dir(&data).expect("makes");
    let arguments = ["-o", path.to_str().expect("UTF-8"), "--data-dir", data.to_str().expect("UTF-8")];
    let output = evidence(&arguments);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("--data-dir") && !path.exists());
    std::fs::write(&path, "mine").expect("writes");
    assert!(stderr(&evidence(&arguments)).contains("--force"));
    assert_eq!(std::fs::read_to_string(&path).expect("reads"), "mine");
}

#[test]
fn what_is_no_bundle_is_found_out_and_what_is_not_there_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.tar.zst");
    let path = path.to_str().expect("UTF-8");
    let output = evidence(&["verify", path]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    std::fs::write(path, "this is text").expect("writes");
    let output = evidence(&["verify", path, "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("\"kind\":\"evidence_check\"") && text.contains("\"no_manifest\""), "{text}");
}
