//! The same words as text for a terminal and as a page.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Code, Entry, advice};
use crate::finding::Severity;

/// `sekisho explain -o json`.
#[derive(Debug, Serialize)]
pub struct Explanation {
    schema: &'static str,
    kind: &'static str,
    code: Code,
    severities: &'static [Severity],
    title: &'static str,
    about: &'static str,
    holds: &'static str,
    silent: &'static [&'static str],
    ends: String,
    causes: Vec<Named>,
    advice: &'static str,
    /// Where a cause needs another advice.
    advice_by_cause: Vec<Named>,
    commands: Vec<Named>,
    links: Vec<Named>,
}

#[derive(Debug, Serialize)]
struct Named {
    name: &'static str,
    text: &'static str,
}

impl Code {
    /// All that is to be said, for programs.
    pub fn explanation(self) -> Explanation {
        let Entry { code, severities, title, about, holds, silent, ends: _, causes, advice, commands, links } =
            self.entry();
        let named =
            |pairs: &[(&'static str, &'static str)]| pairs.iter().map(|&(name, text)| Named { name, text }).collect();
        Explanation {
            schema: crate::output::SCHEMA,
            kind: "explanation",
            code: *code,
            severities,
            title,
            about,
            holds,
            silent,
            ends: ends(self),
            causes: named(causes),
            advice,
            advice_by_cause: advice::of_code(self).map(|(name, text)| Named { name, text }).collect(),
            commands: named(commands),
            links: named(links),
        }
    }

    /// All that is to be said, as Markdown: the page below `docs/findings`.
    pub fn page(self) -> String {
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_page(&mut page);
        page
    }

    /// All that is to be said, for people at a terminal; lines of at most `width` characters where words allow.
    pub fn text(self, width: usize) -> String {
        let mut text = String::new();
        let _ = self.write_text(&mut text, width);
        text
    }

    fn write_page(self, out: &mut String) -> std::fmt::Result {
        let entry = self.entry();
        writeln!(out, "# {}\n\n**{}** · severity: {}\n", self.name(), entry.title, severities(entry))?;
        writeln!(out, "{}\n\n## When it holds\n\n{}\n", entry.about, entry.holds)?;
        if !entry.silent.is_empty() {
            writeln!(out, "## What keeps it silent\n")?;
            for silent in entry.silent {
                writeln!(out, "- {silent}")?;
            }
            out.push('\n');
        }
        writeln!(out, "## Causes\n\n| cause | meaning |\n|---|---|")?;
        for (name, text) in entry.causes {
            writeln!(out, "| `{name}` | {text} |")?;
        }
        writeln!(out, "\n## What to do\n\n{}\n", entry.advice)?;
        for (cause, advice) in advice::of_code(self) {
            writeln!(out, "- `{cause}`: {advice}\n")?;
        }
        for (what, command) in entry.commands {
            writeln!(out, "- {what}:\n\n      {command}\n")?;
        }
        writeln!(out, "## How it ends\n\n{}", ends(self))?;
        if !entry.links.is_empty() {
            writeln!(out, "\n## Further reading\n")?;
            for (name, link) in entry.links {
                writeln!(out, "- [{name}]({link})")?;
            }
        }
        Ok(())
    }

    fn write_text(self, out: &mut String, width: usize) -> std::fmt::Result {
        let entry = self.entry();
        writeln!(out, "{} ({})", self.name(), severities(entry))?;
        writeln!(out, "{}\n", entry.title)?;
        wrap(out, entry.about, "", "", width)?;
        writeln!(out, "\nWHEN IT HOLDS")?;
        wrap(out, entry.holds, "  ", "  ", width)?;
        if !entry.silent.is_empty() {
            writeln!(out, "\nWHAT KEEPS IT SILENT")?;
            for silent in entry.silent {
                wrap(out, silent, "  - ", "    ", width)?;
            }
        }
        writeln!(out, "\nCAUSES")?;
        for (name, text) in entry.causes {
            wrap(out, &format!("{name}: {text}"), "  - ", "    ", width)?;
        }
        writeln!(out, "\nWHAT TO DO")?;
        wrap(out, entry.advice, "  ", "  ", width)?;
        for (cause, advice) in advice::of_code(self) {
            wrap(out, &format!("{cause}: {advice}"), "  - ", "    ", width)?;
        }
        for (what, command) in entry.commands {
            // Commands are for copying: never wrapped.
            writeln!(out, "\n  # {what}\n  {command}")?;
        }
        writeln!(out, "\nHOW IT ENDS")?;
        wrap(out, &ends(self), "  ", "  ", width)?;
        if !entry.links.is_empty() {
            writeln!(out, "\nFURTHER READING")?;
            for (name, link) in entry.links {
                writeln!(out, "  {name}\n    {link}")?;
            }
        }
        Ok(())
    }
}

fn severities(entry: &Entry) -> String {
    entry.severities.iter().map(|severity| severity.name()).collect::<Vec<_>>().join(" or ")
}

fn ends(code: Code) -> String {
    let entry = code.entry();
    let lasts = code.lasts().text();
    if entry.ends.is_empty() { lasts.to_owned() } else { format!("{lasts} {}", entry.ends) }
}

fn wrap(out: &mut String, text: &str, first: &str, next: &str, width: usize) -> std::fmt::Result {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
            writeln!(out, "{line}")?;
            next.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    writeln!(out, "{line}")
}

/// All codes with their titles, a line each.
pub fn list() -> String {
    let mut list = String::new();
    for code in Code::ALL {
        let _ = writeln!(list, "{:<28} {}", code.name(), code.entry().title);
    }
    list
}

/// The table of all codes: `docs/findings/README.md`.
pub fn index() -> String {
    let mut page = String::from("| code | severity | what it says |\n|---|---|---|\n");
    for code in Code::ALL {
        let entry = code.entry();
        let _ = writeln!(page, "| [{name}]({name}.md) | {} | {} |", severities(entry), entry.title, name = code.name());
    }
    page
}
