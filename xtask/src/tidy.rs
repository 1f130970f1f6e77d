//! `cargo xtask tidy`: rules of the tree that compiler and clippy do not know. A rule is a function from files to what is
//! wrong with them, so that it is tested on small texts; a new one is a line in [`RULES`].

mod alerts;
mod documents;
mod files;
mod layers;
mod paths;
mod probes;
mod words;

use std::fmt;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// A file of the tree.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// From the workspace's root, with `/`.
    pub(crate) path: String,
    /// What it holds. Files that are not UTF-8 have no text, only a path.
    pub(crate) text: String,
}

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The file, from the workspace's root.
    pub(crate) path: String,
    /// Its line, from 1; 0 for the file as a whole.
    pub(crate) line: usize,
    /// What is wrong and what to do.
    pub(crate) text: String,
}

impl Violation {
    fn new(source: &Source, line: usize, text: impl Into<String>) -> Self {
        Self { path: source.path.clone(), line, text: text.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.text),
            line => write!(f, "{}:{line}: {}", self.path, self.text),
        }
    }
}

/// A rule: a name and what finds its violations.
type Rule = (&'static str, fn(&[Source]) -> Vec<Violation>);

/// All rules.
const RULES: [Rule; 11] = [
    ("sources can be read", paths::readable),
    ("the agent's parts know each other in one direction", layers::direction),
    ("one part names each foreign world", layers::foreign_worlds),
    ("the core decides and does nothing else", layers::core_is_pure),
    ("cgroup programs always allow", probes::cgroup_programs_allow),
    ("files say what they are and stay small", files::headed_and_small),
    ("exceptions are needed", files::exceptions_are_needed),
    ("nothing of one workplace is in the tree", words::nothing_local),
    ("links in documents lead somewhere", documents::links_resolve),
    ("promises have tests", documents::promises_have_tests),
    ("alerts have tests and runbooks", alerts::belong_together),
];

/// The command.
pub(crate) fn run() -> Result<()> {
    let tree = read_tree()?;
    let mut count = 0_usize;
    for (name, rule) in RULES {
        let violations = rule(&tree);
        if !violations.is_empty() {
            eprintln!("{name}:");
        }
        for violation in &violations {
            eprintln!("  {violation}");
        }
        count += violations.len();
    }
    if count > 0 {
        bail!("the tree breaks a rule in {count} places");
    }
    eprintln!("{} files hold {} rules", tree.len(), RULES.len());
    Ok(())
}

/// All files that git knows or would add.
fn read_tree() -> Result<Vec<Source>> {
    let mut git = std::process::Command::new("git");
    git.current_dir(workspace::root());
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
    let names = process::capture(&mut git).context("list the tree's files")?;
    let mut tree = Vec::new();
    for path in names.split_terminator('\0') {
        let file = workspace::root().join(path);
        // A file that is deleted but not yet staged is listed all the same; a link leads to a file listed by itself.
        if fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file()) {
            let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            tree.push(Source { path: path.to_owned(), text: String::from_utf8(bytes).unwrap_or_default() });
        }
    }
    Ok(tree)
}

/// The Rust files of a tree.
fn rust(tree: &[Source]) -> impl Iterator<Item = &Source> {
    tree.iter().filter(|source| has_extension(&source.path, "rs"))
}

fn has_extension(path: &str, extension: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, found)| found == extension)
}

/// Whether a Rust file is there for tests alone.
fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

#[cfg(test)]
mod fixture {
    use super::*;

    /// A tree of files with a path and a text each.
    pub(super) fn tree(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|&(path, text)| Source { path: path.to_owned(), text: text.to_owned() }).collect()
    }

    /// Violations as people see them.
    pub(super) fn shown(violations: &[Violation]) -> Vec<String> {
        violations.iter().map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_files_are_told_by_their_place() {
        assert!(is_test_file("tests/src/lib.rs"));
        assert!(is_test_file("agent/core/src/decode/tests.rs"));
        assert!(is_test_file("agent/tests/config.rs"));
        assert!(!is_test_file("agent/src/kernel/testing.rs"));
    }
}
