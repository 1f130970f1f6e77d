//! Documents lead where they say: links resolve, and the promises of SPECIFICATION.md name tests that exist.
//!
//! A promise is an item of an ordered list there. Its tests are links to a Rust file whose text is the test's name in code:
//! ``[`name_of_the_test`](path/to/file.rs)``. A promise without a test says `pending`.

use std::collections::HashSet;

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use super::{Source, Violation, has_extension};

/// The document of promises.
const SPECIFICATION: &str = "SPECIFICATION.md";

/// What a promise without a test says.
const PENDING: &str = "pending";

/// Links between files of the tree lead to a file, a directory, or a heading that exists.
pub(super) fn links_resolve(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in tree.iter().filter(|source| has_extension(&source.path, "md")) {
        for link in links(source) {
            if let Some(why) = broken(tree, source, &link.target) {
                violations.push(Violation::new(source, link.line, format!("the link to `{}` {why}", link.target)));
            }
        }
    }
    violations
}

/// Each promise has a test or is pending, and each test exists.
pub(super) fn promises_have_tests(tree: &[Source]) -> Vec<Violation> {
    let Some(source) = tree.iter().find(|source| source.path == SPECIFICATION) else { return Vec::new() };
    let mut violations = Vec::new();
    for promise in promises(source) {
        if !promise.has_test && !promise.text.contains(PENDING) {
            let text = "a promise names no test: link one as [`its_name`](its/file.rs), or say `pending`";
            violations.push(Violation::new(source, promise.line, text));
        }
    }
    for link in links(source).into_iter().filter(|link| has_extension(&link.target, "rs")) {
        // A file that does not exist is reported as a link.
        let Some(file) = tree.iter().find(|file| file.path == link.target) else { continue };
        if !has_test(&file.text, &link.text) {
            let text = format!("`{}` has no test `{}`", link.target, link.text);
            violations.push(Violation::new(source, link.line, text));
        }
    }
    violations
}

/// An item of an ordered list.
struct Promise {
    text: String,
    has_test: bool,
    line: usize,
}

fn promises(source: &Source) -> Vec<Promise> {
    let mut promises: Vec<Promise> = Vec::new();
    // Whether each list around is ordered.
    let mut lists = Vec::new();
    for (event, range) in Parser::new(&source.text).into_offset_iter() {
        match event {
            Event::Start(Tag::List(first)) => lists.push(first.is_some()),
            Event::End(TagEnd::List(_)) => {
                lists.pop();
            }
            // The outermost list's items; what is nested belongs to them.
            Event::Start(Tag::Item) if lists == [true] => {
                promises.push(Promise { text: String::new(), has_test: false, line: line(source, range.start) });
            }
            _ if lists.is_empty() => {}
            Event::Text(text) | Event::Code(text) => {
                if let Some(promise) = promises.last_mut() {
                    promise.text.push_str(&text);
                }
            }
            Event::Start(Tag::Link { dest_url, .. }) if has_extension(&dest_url, "rs") => {
                if let Some(promise) = promises.last_mut() {
                    promise.has_test = true;
                }
            }
            _ => {}
        }
    }
    promises
}

// === links ===

/// A link of a document.
struct Link {
    target: String,
    /// What is shown.
    text: String,
    line: usize,
}

fn links(source: &Source) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    let mut inside = false;
    // A reference without a definition is plain text to the parser; here it is a link that leads nowhere.
    let undefined = |link: pulldown_cmark::BrokenLink<'_>| {
        link.reference.starts_with(char::is_alphabetic).then(|| (link.reference.into_string().into(), "".into()))
    };
    let options = pulldown_cmark::Options::empty();
    for (event, range) in
        Parser::new_with_broken_link_callback(&source.text, options, Some(undefined)).into_offset_iter()
    {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                let line = line(source, range.start);
                links.push(Link { target: dest_url.into_string(), text: String::new(), line });
                inside = true;
            }
            Event::End(TagEnd::Link | TagEnd::Image) => inside = false,
            Event::Text(text) | Event::Code(text) if inside => {
                if let Some(link) = links.last_mut() {
                    link.text.push_str(&text);
                }
            }
            _ => {}
        }
    }
    links
}

fn line(source: &Source, offset: usize) -> usize {
    source.text.get(..offset).unwrap_or_default().matches('\n').count() + 1
}

/// Why a link leads nowhere, None when it leads somewhere or outside.
fn broken(tree: &[Source], from: &Source, target: &str) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let Some(path) = (if path.is_empty() { Some(from.path.clone()) } else { resolve(&from.path, path) }) else {
        return Some("leaves the repository");
    };
    let Some(file) = tree.iter().find(|source| source.path == path) else {
        let is_directory = path.is_empty() || tree.iter().any(|source| source.path.starts_with(&format!("{path}/")));
        return (!is_directory).then_some("leads to no file");
    };
    let has_anchor = anchor.is_empty() || !has_extension(&file.path, "md") || anchors(file).contains(anchor);
    (!has_anchor).then_some("leads to no heading")
}

/// A path beside a file, from the root; None when it leaves the tree.
fn resolve(from: &str, path: &str) -> Option<String> {
    let mut segments: Vec<_> = from.split('/').collect();
    segments.pop();
    if path.starts_with('/') {
        segments.clear();
    }
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop()?;
            }
            name => segments.push(name),
        }
    }
    Some(segments.join("/"))
}

/// Names of a document's headings as GitHub makes them.
fn anchors(source: &Source) -> HashSet<String> {
    let mut anchors = HashSet::new();
    let mut heading: Option<String> = None;
    for event in Parser::new(&source.text) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let anchor = anchor(&heading.take().unwrap_or_default());
                // A heading that is there before gets a number.
                let numbered = (1_u32..).map(|count| format!("{anchor}-{count}"));
                let free = std::iter::once(anchor.clone()).chain(numbered).find(|name| !anchors.contains(name));
                anchors.extend(free);
            }
            _ => {}
        }
    }
    anchors
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

/// Whether a Rust text has a test function of a name that runs: `fn name(` behind a test attribute and no `#[ignore]`.
fn has_test(text: &str, name: &str) -> bool {
    let function = format!("fn {name}(");
    let (mut is_test, mut is_ignored) = (false, false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= line.contains("test]") || line.contains("test(");
            is_ignored |= line.starts_with("#[ignore");
        } else if line.contains(&function) {
            return is_test && !is_ignored;
        } else if !line.starts_with("//") {
            (is_test, is_ignored) = (false, false);
        }
    }
    false
}

#[cfg(test)]
mod tests;
