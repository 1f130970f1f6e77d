//! The tree is the same wherever it is cloned: no path of one machine, no package source but the public ones.

use super::{Source, Violation};

/// Where `Cargo.lock` may take packages from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Paths of one machine's user or workplace, each in two halves so that this file does not hold one.
const LOCAL_PATHS: [(&str, &str); 3] = [("/wo", "rk/"), ("/ro", "ot/."), ("/Us", "ers/")];

/// No local path and no foreign package source.
pub(super) fn nothing_local(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in tree {
        for (number, line) in source.text.lines().enumerate() {
            let at = number + 1;
            for path in LOCAL_PATHS.map(|(first, second)| format!("{first}{second}")) {
                if names_path(line, &path) {
                    violations.push(Violation::new(source, at, format!("names a path of one machine ({path}…)")));
                }
            }
            if source.path.ends_with("Cargo.lock") && is_foreign_source(line) {
                violations.push(Violation::new(source, at, "takes a package from elsewhere than crates.io"));
            }
        }
        if is_cargo_config(&source.path) && source.text.contains("[source") {
            violations.push(Violation::new(source, 0, "replaces package sources for everyone: that belongs to a user"));
        }
    }
    violations
}

/// Whether a line holds an absolute path. Behind a letter the text is the rest of a longer path or of an address.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|c| c.is_whitespace() || "\"'`=:(<[{,".contains(c))
    })
}

fn is_foreign_source(line: &str) -> bool {
    line.strip_prefix("source = \"").is_some_and(|source| source.trim_end_matches('"') != REGISTRY)
}

fn is_cargo_config(path: &str) -> bool {
    path.ends_with(".cargo/config.toml") || path.ends_with(".cargo/config")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{shown, tree};
    use super::*;

    #[test]
    fn paths_of_one_machine_are_found() {
        let (first, second) = LOCAL_PATHS[0];
        let path = format!("{first}{second}");
        for wrong in [format!("see {path}notes.md"), format!("A=\"{path}x\""), path.clone()] {
            assert_eq!(nothing_local(&tree(&[("a.md", &wrong)])).len(), 1, "{wrong}");
        }
        for right in [format!("https://example.com{path}x"), format!("/var/lib{path}x")] {
            assert_eq!(shown(&nothing_local(&tree(&[("a.md", &right)]))), [""; 0]);
        }
    }

    #[test]
    fn packages_come_from_the_public_registry() {
        let lock = |source: &str| nothing_local(&tree(&[("Cargo.lock", &format!("source = \"{source}\"\n"))])).len();
        assert_eq!(lock(REGISTRY), 0);
        assert_eq!(lock("registry+https://mirror.example/index"), 1);
        assert_eq!(lock("git+https://github.com/a/b#c"), 1);
    }

    #[test]
    fn package_sources_are_not_replaced() {
        let text = "[source.crates-io]\nreplace-with = \"mirror\"\n";
        assert_eq!(nothing_local(&tree(&[(".cargo/config.toml", text)])).len(), 1);
        assert!(nothing_local(&tree(&[(".cargo/config.toml", "[alias]\n")])).is_empty());
    }
}
