//! Every code is explained, and the pages say what the program says.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

#[test]
fn every_code_is_explained() {
    for code in Code::ALL {
        let entry = code.entry();
        assert_eq!(entry.code, *code);
        assert_eq!(Code::by_name(code.name()), Some(*code));
        for text in [entry.title, entry.about, entry.holds, entry.advice] {
            assert!(!text.is_empty(), "{}", code.name());
        }
        assert!(!entry.severities.is_empty() && entry.severities.is_sorted(), "{}", code.name());
        assert!(!entry.causes.is_empty() && !entry.commands.is_empty(), "{}", code.name());
        assert!(!entry.title.ends_with('.'), "{}", code.name());
        let causes: BTreeSet<_> = entry.causes.iter().map(|(name, _)| name).collect();
        assert_eq!(causes.len(), entry.causes.len(), "{}: a cause twice", code.name());
        for (name, link) in entry.links {
            assert!(link.starts_with("https://") && !name.is_empty(), "{link}");
        }
    }
    assert_eq!(Code::by_name("no-such-code"), None);
}

#[test]
fn every_cause_that_a_rule_about_papers_gives_is_explained() {
    for code in Code::ALL {
        for cause in crate::papers::causes(*code) {
            assert!(code.entry().causes.iter().any(|(name, _)| name == cause), "{}: {cause}", code.name());
        }
    }
}

#[test]
fn text_fits_a_terminal_but_for_commands_and_links() {
    for code in Code::ALL {
        let text = code.text(80);
        let (commands, links) = (code.entry().commands, code.entry().links);
        let commands: Vec<_> = commands.iter().chain(links).flat_map(|(what, command)| [*what, *command]).collect();
        for line in text.lines().filter(|line| !line.contains("https://") && line.chars().count() > 80) {
            assert!(commands.iter().any(|command| line.contains(command)) || line == code.entry().title, "{line}");
        }
    }
}

#[test]
fn pages_are_up_to_date() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/findings");
    let intro = "# Findings\n\nWhat each code means, when it holds, what keeps it silent, and what to do. `sekisho explain CODE` shows the same.\nThese pages are generated: `SEKISHO_UPDATE_DOCS=1 cargo test -p agent-core pages_are_up_to_date`.\n\n";
    let mut pages = vec![("README.md".to_owned(), format!("{intro}{}", index()))];
    pages.extend(Code::ALL.iter().map(|code| (format!("{}.md", code.name()), code.page())));
    let update = std::env::var_os("SEKISHO_UPDATE_DOCS").is_some();
    if update {
        std::fs::create_dir_all(&directory).unwrap();
    }
    for (name, expected) in &pages {
        let path = directory.join(name);
        if update {
            std::fs::write(&path, expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(&found, expected, "{name} is out of date: run this test once with SEKISHO_UPDATE_DOCS=1");
    }
    let names: BTreeSet<_> = pages.iter().map(|(name, _)| name.clone()).collect();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(names.contains(&name), "{name} is the page of no code");
    }
}
