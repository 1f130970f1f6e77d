//! Every source says at its top where the reader is, and is short enough to be read.

use super::{Source, Violation, is_test_file, rust};

/// Most files here fit in 300 lines; this is where one has to be split.
const MAX_LINES: usize = 450;

/// Tests are read one at a time, so their files may be longer.
const MAX_TEST_LINES: usize = 900;

/// Files that may be longer, up to how many lines, and why.
const EXCEPTIONS: [(&str, usize, &str); 3] = [
    ("agent-ebpf/src/wire.rs", 550, "the records that kernel and user space agree on are read side by side"),
    ("agent/core/src/capacity/instances/table.rs", 1600, "a row an instance type, written by `cargo xtask instances`"),
    ("agent/core/src/input.rs", 550, "the one closed enum of what comes in is read as a whole"),
];

/// A `//!` at the top, and not too many lines.
pub(super) fn headed_and_small(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in rust(tree) {
        if !source.text.starts_with("//! ") {
            violations.push(Violation::new(source, 1, "does not begin with `//!` and what the file is"));
        }
        let (limit, is_exception) = limit(&source.path, &EXCEPTIONS);
        let lines = source.text.lines().count();
        if lines > limit {
            let text = format!("has {lines} lines, more than {limit}: split it by what it is about");
            violations.push(Violation::new(source, 0, text));
        } else if is_exception && lines <= usual_limit(&source.path) {
            violations.push(Violation::new(source, 0, "needs no exception from the limit any more: take it out"));
        }
    }
    violations
}

fn usual_limit(path: &str) -> usize {
    if is_test_file(path) { MAX_TEST_LINES } else { MAX_LINES }
}

fn limit(path: &str, exceptions: &[(&str, usize, &str)]) -> (usize, bool) {
    match exceptions.iter().find(|(exception, ..)| *exception == path) {
        Some((_, lines, _)) => (*lines, true),
        None => (usual_limit(path), false),
    }
}

/// Exceptions are for files that exist.
pub(super) fn exceptions_are_needed(tree: &[Source]) -> Vec<Violation> {
    without_file(tree, &EXCEPTIONS)
}

fn without_file(tree: &[Source], exceptions: &[(&str, usize, &str)]) -> Vec<Violation> {
    exceptions
        .iter()
        .filter(|(path, ..)| !tree.iter().any(|source| source.path == *path))
        .map(|(path, ..)| Violation {
            path: (*path).to_owned(),
            line: 0,
            text: "does not exist, yet is an exception from the limit of lines".to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{shown, tree};
    use super::*;

    #[test]
    fn a_source_without_a_head_is_found() {
        let found =
            headed_and_small(&tree(&[("a.rs", "use b;\n"), ("b.rs", "//! B.\n"), ("c.md", "# C\n"), ("d.rs", "")]));
        let paths: Vec<_> = found.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(paths, ["a.rs", "d.rs"]);
    }

    #[test]
    fn a_long_source_is_found_and_tests_may_be_longer() {
        let long = format!("//! Long.\n{}", "//\n".repeat(MAX_LINES));
        let found = headed_and_small(&tree(&[("a.rs", &long), ("a/tests.rs", &long), ("tests/tests/b.rs", &long)]));
        assert_eq!(shown(&found), ["a.rs: has 451 lines, more than 450: split it by what it is about"]);
    }

    #[test]
    fn exceptions_apply_and_do_not_outlive_their_file() {
        let exceptions = [("a.rs", 500, "why")];
        assert_eq!(limit("a.rs", &exceptions), (500, true));
        assert_eq!(limit("b.rs", &exceptions), (MAX_LINES, false));
        assert_eq!(without_file(&tree(&[("b.rs", "")]), &exceptions).len(), 1);
        assert!(without_file(&tree(&[("a.rs", "")]), &exceptions).is_empty());
    }
}
