//! Every command that a document shows is one that the program takes.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;

use super::Cli;

/// Documents of people, in any depth.
const PLACES: [&str; 8] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "SPECIFICATION.md",
    "docs",
    "deploy",
];

#[test]
fn every_command_in_the_documents_is_understood() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("reads");
        for (line, command) in commands(&text) {
            seen += 1;
            let words = shlex::split(command).unwrap_or_default();
            match Cli::try_parse_from(words) {
                Ok(_) => {}
                Err(error) if error.exit_code() == 0 => {} // --help, --version
                Err(error) => wrong.push(format!("{}:{line}: {command}\n{error}", page.display())),
            }
        }
    }
    assert!(seen > 30, "{seen} commands");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_is_told_from_a_synopsis() {
    let page = "text sekisho nothing\n\n    sekisho run [--config FILE]\n    $ sekisho findings -o json | jq .  # all\n\
                ```sh\nkubectl exec -n sekisho pod -- sekisho doctor --books\n```\n    sekisho check PATH… x\n    \
                sekisho: not a command\n";
    let found: Vec<_> = commands(page).collect();
    assert_eq!(found, [(4, "sekisho findings -o json"), (6, "sekisho doctor --books")]);
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut pages = Vec::new();
    let mut todo: Vec<_> = PLACES.iter().map(|place| root.join(place)).collect();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(path).expect("lists").map(|entry| entry.expect("lists").path()));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages
}

/// The program's commands in blocks of code, with their lines; forms with brackets or an ellipsis are descriptions.
fn commands(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        let code = fenced || line.starts_with("    ");
        let line = line.trim();
        let line = line.strip_prefix("$ ").unwrap_or(line);
        let line = if line.starts_with("kubectl exec") { line.split_once(" -- ")?.1 } else { line };
        let line = line.split([';', '|', '>', '#']).next()?.trim();
        let shown = code && line.starts_with("sekisho ") && !line.contains(['[', '…']) && !line.contains("...");
        shown.then_some((number + 1, line))
    })
}
