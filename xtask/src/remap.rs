//! Keeps the paths of one machine out of what is built, so that two machines build the same.
//!
//! Sources are named in panics, in debug information and in the probes' BTF. cargo's own switch for this (`trim-paths`) is
//! not stable, so the compiler is told.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{process, workspace};

/// What the workspace is called in programs.
const WORKSPACE: &str = "/sekisho";
/// What the directory of a package index is called; its name holds a hash of where packages come from.
const REGISTRY: &str = "/registry";

/// Options of rustc, in the order in which it wants them: the last that fits is taken.
pub(crate) fn flags() -> Vec<String> {
    let mut prefixes = Vec::new();
    if let Some(home) = workspace::cargo_home() {
        let indexes = std::fs::read_dir(home.join("registry/src")).into_iter().flatten().flatten();
        let mut indexes: Vec<_> = indexes.map(|entry| entry.path()).collect();
        indexes.sort();
        prefixes.push((home, "/cargo".to_owned()));
        prefixes.extend(indexes.into_iter().map(|index| (index, REGISTRY.to_owned())));
    }
    prefixes.extend(library());
    prefixes.push((workspace::root().to_owned(), WORKSPACE.to_owned()));
    prefixes.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect()
}

/// Makes a cargo command build so. The flags join those of a user's configuration. Where he sets RUSTFLAGS, cargo takes
/// nothing else: then they are added there.
pub(crate) fn apply(command: &mut Command) {
    let flags = flags();
    match env::var("RUSTFLAGS") {
        Ok(present) if !present.is_empty() => {
            command.env("RUSTFLAGS", format!("{present} {}", flags.join(" ")));
        }
        _ => {
            let list = flags.iter().map(|flag| format!("{flag:?}")).collect::<Vec<_>>().join(", ");
            command.args(["--config", &format!("target.'cfg(all())'.rustflags=[{list}]")]);
        }
    }
}

/// Paths of this machine that no program may name.
pub(crate) fn of_this_machine() -> Vec<PathBuf> {
    let mut paths = vec![workspace::root().to_owned()];
    paths.extend(workspace::cargo_home());
    paths.extend(library().map(|(path, _)| path));
    paths
}

/// The library's source, which the compiler names by its own place where it has one, and else as it is named here.
fn library() -> Option<(PathBuf, String)> {
    let ask = |arguments: &[&str]| process::capture(Command::new("rustc").args(arguments)).ok();
    let sysroot = ask(&["--print", "sysroot"])?;
    let version = ask(&["--verbose", "--version"])?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: "))?;
    Some((Path::new(sysroot.trim()).join("lib/rustlib/src/rust"), format!("/rustc/{commit}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_has_another_name_and_is_told_last() {
        let flags = flags();
        let root = workspace::root().display();
        assert_eq!(flags.last().map(String::as_str), Some(format!("--remap-path-prefix={root}={WORKSPACE}").as_str()));
        assert!(flags.iter().any(|flag| flag.ends_with(&format!("={REGISTRY}"))), "{flags:?}");
    }
}
