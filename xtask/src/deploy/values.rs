//! The table of the chart's values in `deploy/README.md`, from `values.yaml`: a comment that begins with `--` is the line of
//! the key below it.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

use super::{Files, read};

const VALUES: &str = "deploy/chart/values.yaml";
const PAGE: &str = "deploy/README.md";
const BEGIN: &str = "<!-- generated: begin -->\n";
const END: &str = "<!-- generated: end -->\n";
/// Begins the description of a key.
const MARK: &str = "# -- ";

/// A key and what is said of it.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    key: String,
    default: String,
    text: String,
}

/// The page with its table as it has to be.
pub(super) fn page() -> Result<Files> {
    let page = read(PAGE)?;
    let (head, rest) = page.split_once(BEGIN).with_context(|| format!("{PAGE} has no begin marker"))?;
    let (_, tail) = rest.split_once(END).with_context(|| format!("{PAGE} has no end marker"))?;
    let mut table = "| value | default | what it is |\n|---|---|---|\n".to_owned();
    for Row { key, default, text } in rows(&read(VALUES)?)? {
        let default = default.replace('|', "\\|");
        // Writing to a string does not fail.
        let _ = writeln!(table, "| `{key}` | `{default}` | {text} |");
    }
    Ok([(PAGE.to_owned(), format!("{head}{BEGIN}{table}{END}{tail}"))].into())
}

/// Reads the form that `values.yaml` keeps: two spaces a level, and a described key has its default on its own line, or as
/// lines below it that are put on one.
fn rows(values: &str) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    // Names of the levels above, with their indentation.
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut text: Option<String> = None;
    // Indentation of a described key whose default stands below it.
    let mut open: Option<usize> = None;
    for (number, line) in values.lines().enumerate() {
        let (bare, number) = (line.trim_start(), number + 1);
        let indentation = line.len() - bare.len();
        if bare.is_empty() {
            continue;
        }
        if let Some(begun) = bare.strip_prefix(MARK) {
            text = Some(begun.to_owned());
            open = None;
        } else if let Some(more) = bare.strip_prefix('#') {
            if let Some(text) = &mut text {
                text.push_str(more);
            }
        } else if let Some(row) = rows.last_mut().filter(|_| open.is_some_and(|above| indentation > above)) {
            let separator = if row.default.is_empty() { "" } else { ", " };
            let _ = write!(row.default, "{separator}{}", bare.trim_start_matches("- "));
        } else {
            open = None;
            let Some((name, value)) = bare.split_once(':') else { bail!("{VALUES}:{number} is no key: {line}") };
            let value = value.trim();
            above.retain(|&(level, _)| level < indentation);
            if let Some(text) = text.take() {
                let levels: Vec<&str> = above.iter().map(|&(_, name)| name).chain([name]).collect();
                rows.push(Row { key: levels.join("."), default: value.to_owned(), text });
                open = value.is_empty().then_some(indentation);
            } else if !value.is_empty() {
                bail!("{VALUES}:{number}: {name} is described by no comment that begins with `{MARK}`");
            } else {
                above.push((indentation, name));
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, default: &str, text: &str) -> Row {
        Row { key: key.to_owned(), default: default.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn keys_have_their_defaults_and_lines() {
        let values = "# About the file.\n\na:\n  # -- First\n  # and more.\n  b: 1\n  c:\n    # -- Deep.\n    d: {x: y}\n# -- A list.\ne:\n  - f: g\n# -- Last.\nh: \"\"\n";
        let expected = [
            row("a.b", "1", "First and more."),
            row("a.c.d", "{x: y}", "Deep."),
            row("e", "f: g", "A list."),
            row("h", "\"\"", "Last."),
        ];
        assert_eq!(rows(values).unwrap(), expected);
    }

    #[test]
    fn a_key_without_a_line_is_refused() {
        let error = rows("a:\n  b: 1\n").unwrap_err().to_string();
        assert!(error.contains("values.yaml:2") && error.contains('b'), "{error}");
    }
}
