//! Who may know whom. In `agent/src` each folder is one of the parts that meet in `tasks` through the core's types, and one
//! part alone names each foreign world; `agent/core` names none, and no clock, file or socket either.

use super::paths::{Named, named};
use super::{Source, Violation, is_test_file, rust};

/// The parts that never name each other.
const PARTS: [&str; 10] =
    ["kernel", "cluster", "aws", "node", "history", "telemetry", "export", "recording", "api", "http"];

/// What is above the parts; each may name what stands before it. All other modules of the agent are helpers of anyone, and
/// so may name neither a part nor one of these.
const ABOVE: [&str; 3] = ["tasks", "command", "main"];

/// Crates of foreign worlds, by prefix, and the part that may name them.
const FOREIGN: [(&str, &[&str]); 7] = [
    ("kernel", &["aya", "libbpf_rs"]),
    ("cluster", &["kube", "k8s_openapi"]),
    ("telemetry", &["prometheus"]),
    ("history", &["redb", "rusqlite", "fjall", "heed", "sled"]),
    ("aws", &["aws_"]),
    ("export", &["opentelemetry", "prost"]),
    ("command", &["ratatui", "crossterm"]),
];

/// Crates that the core may not depend on, by prefix.
const NOT_IN_CORE: [&str; 12] = [
    "tokio",
    "kube",
    "k8s-openapi",
    "aya",
    "prometheus",
    "aws-",
    "axum",
    "hyper",
    "redb",
    "rusqlite",
    "procfs",
    "rustix",
];

/// What the core may not name: clocks, files, sockets, and everything else of the world around it.
const NOT_IN_CORE_SOURCES: [&[&str]; 14] = [
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["std", "fs"],
    &["std", "net", "TcpStream"],
    &["std", "net", "TcpListener"],
    &["std", "net", "UdpSocket"],
    &["std", "net", "ToSocketAddrs"],
    &["std", "os"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["jiff", "Timestamp", "now"],
    &["jiff", "Zoned", "now"],
    &["jiff", "tz", "TimeZone", "system"],
];

/// The parts do not name each other, nor anything above them.
pub(super) fn direction(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (source, module) in agent(tree) {
        let own = module.first().map_or("main", String::as_str);
        for path in named(source) {
            let Some(target) = absolute(&path, &module) else { continue };
            let Some(other) = target.first() else { continue };
            let why = match (rank(own), rank(other)) {
                _ if own == other => continue,
                _ if other == "*" => "names everything in the crate at once: name what is meant",
                (Rank::Part, Rank::Part) => {
                    "parts never name each other: let them meet in `tasks` through core's types"
                }
                (Rank::Part, Rank::Above(_)) => "a part does not name what is above it",
                (Rank::Helper, Rank::Part | Rank::Above(_)) => "a helper of anyone names no part and nothing above",
                (Rank::Above(own), Rank::Above(other)) if other > own => "is above it",
                _ => continue,
            };
            violations.push(Violation::new(source, path.line, format!("`{own}` names `{other}`: {why}")));
        }
    }
    violations
}

/// Foreign crates are named by their part alone. Tests are no exception: what they need, the part can give.
pub(super) fn foreign_worlds(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (source, module) in agent(tree) {
        let own = module.first().map_or("main", String::as_str);
        for path in named(source) {
            let Some(name) = path.segments.first() else { continue };
            let owner = FOREIGN.iter().find(|(_, crates)| crates.iter().any(|prefix| is_crate(name, prefix)));
            if let Some((owner, _)) = owner.filter(|(owner, _)| *owner != own) {
                let text = format!("`{own}` names the crate `{name}`: only `{owner}` does");
                violations.push(Violation::new(source, path.line, text));
            }
        }
    }
    violations
}

/// The core has no foreign world, clock, file or socket. Tests may read fixtures.
pub(super) fn core_is_pure(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in tree.iter().filter(|source| source.path == "agent/core/Cargo.toml") {
        violations.extend(dependencies(source));
    }
    for source in rust(tree).filter(|source| source.path.starts_with("agent/core/src/") && !is_test_file(&source.path))
    {
        for path in named(source).into_iter().filter(|path| !path.in_test) {
            let forbidden = NOT_IN_CORE_SOURCES.iter().find(|forbidden| overlaps(&path.segments, forbidden));
            if let Some(forbidden) = forbidden {
                let (named, forbidden) = (path.segments.join("::"), forbidden.join("::"));
                let text = format!("names `{named}`: the core has no {forbidden}; take what it gives as an argument");
                violations.push(Violation::new(source, path.line, text));
            }
        }
    }
    violations
}

fn dependencies(manifest: &Source) -> Vec<Violation> {
    let table: toml::Table = match manifest.text.parse() {
        Ok(table) => table,
        Err(error) => return vec![Violation::new(manifest, 0, format!("is no TOML: {error}"))],
    };
    let names = table.get("dependencies").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
    names
        .filter(|name| NOT_IN_CORE.iter().any(|prefix| is_crate(name, prefix)))
        .map(|name| Violation::new(manifest, 0, format!("the core does not depend on `{name}`")))
        .collect()
}

/// The sources of the program with their module path.
fn agent(tree: &[Source]) -> impl Iterator<Item = (&Source, Vec<String>)> {
    rust(tree).filter_map(|source| Some((source, module(source.path.strip_prefix("agent/src/")?))))
}

/// `kernel::rings` of `kernel/rings.rs`; `main.rs` is the crate itself.
fn module(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "main" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// A path's place in the crate, None when it does not start from `crate`, `self` or `super`. Without a start it may also be
/// a module of the crate in `main.rs`.
fn absolute(path: &Named, module: &[String]) -> Option<Vec<String>> {
    let mut here = module.to_vec();
    here.extend(path.within.iter().cloned());
    let mut segments = path.segments.iter().peekable();
    match segments.peek().map(|segment| segment.as_str()) {
        Some("crate") => {
            segments.next();
            here.clear();
        }
        Some("self" | "super") => {
            while segments.next_if(|segment| *segment == "self").is_some() {}
            while segments.next_if(|segment| *segment == "super").is_some() {
                here.pop();
            }
        }
        _ if here.is_empty() => {}
        _ => return None,
    }
    here.extend(segments.cloned());
    Some(here)
}

#[derive(Clone, Copy)]
enum Rank {
    Helper,
    Part,
    Above(usize),
}

fn rank(module: &str) -> Rank {
    if PARTS.contains(&module) {
        return Rank::Part;
    }
    ABOVE.iter().position(|above| *above == module).map_or(Rank::Helper, Rank::Above)
}

/// Whether a crate's name is a prefix or continues it (`aya`, `aya_log`; not `ayala`).
fn is_crate(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with(['_', '-']) || rest.starts_with(['_', '-']))
}

/// Whether one path contains what the other means: `std::fs::read` is in `std::fs`, an import of the module `std::time`
/// brings `Instant`, and `Timestamp::now` is the clock after an import of `jiff::Timestamp`.
fn overlaps(path: &[String], forbidden: &[&str]) -> bool {
    let path: Vec<_> = path.iter().map(String::as_str).collect();
    let (path, everything) = match path.split_last() {
        Some((&"*", rest)) => (rest, true),
        _ => (&path[..], false),
    };
    let is_module = path.last().is_some_and(|last| last.starts_with(char::is_lowercase));
    // A crate's name alone says nothing, unless all of it is taken.
    let brings = everything || (is_module && path.len() > 1);
    let shortened = forbidden.get(1..).filter(|short| short.len() > 1);
    path.starts_with(forbidden)
        || (brings && forbidden.starts_with(path))
        || shortened.is_some_and(|short| path.starts_with(short))
}

#[cfg(test)]
mod tests;
