//! Manifests: files, directories and texts to objects of Kubernetes as JSON, each with where it stands. Knows YAML and JSON
//! and nothing of what the objects mean.
//!
//! A broken document is told with its file, number and line, and the next one is read all the same. What a document may
//! grow to by aliases is bounded, beside the size of its file.

mod files;
#[cfg(test)]
mod tests;
mod tree;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeSeed as _;
use serde_json::Value;

pub(crate) use self::files::Files;
use self::tree::{Budget, Tree};

/// What is read at the most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of one file. The pods of a cluster of 5,000, as `kubectl get pods -A -o yaml` prints them, take 60 MB.
    pub(crate) file_bytes: u64,
    /// Values in one document, aliases followed: a pod has 300 to 800.
    pub(crate) values: usize,
    /// Bytes of text in one document, aliases followed.
    pub(crate) text_bytes: usize,
    /// Files below one directory.
    pub(crate) files: usize,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The file as it was named or found; `-` for standard input.
    pub(crate) file: Arc<str>,
    /// Number of the document in its file, from 1; 0: the file as a whole.
    pub(crate) document: usize,
    /// Line in the file, from 1; 0: not known. Of an object the line where its document begins.
    pub(crate) line: usize,
}

/// An object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Object {
    /// Where it stands.
    pub(crate) place: Place,
    /// The object. Lists have been taken apart.
    pub(crate) value: Value,
}

/// What could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where.
    pub(crate) place: Place,
    /// What is wrong; names no value of the document.
    pub(crate) text: String,
}

/// Takes what is read, in order.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Result<Object, Problem>);

/// Lists within lists are none that the API knows; this is for those who try.
const LIST_DEPTH_MAX: usize = 4;
/// The reader of YAML visits all open brackets at each token, long before it finds that they are too deep (128): 4 MiB of
/// them would keep it busy for hours. Texts in a document may hold brackets that do not close, but not so many.
const BRACKETS_MAX: usize = 1_000;

// === impl Limits ===

impl Limits {
    /// For a command that runs once.
    pub(crate) const COMMAND: Self =
        Self { file_bytes: 128 << 20, values: 8 << 20, text_bytes: 128 << 20, files: 50_000 };
    /// For the agent, which has 32 MiB for everything: the pods of one node are some 2 MB.
    pub(crate) const AGENT: Self = Self { file_bytes: 4 << 20, values: 1 << 17, text_bytes: 4 << 20, files: 1_000 };

    /// Reads a file, or all manifests below a directory.
    pub(crate) fn path(self, path: &Path, sink: Sink<'_>) {
        if path.is_dir() {
            for found in Files::below(path, self.files) {
                match found {
                    Ok(file) => self.file(&file, sink),
                    Err(problem) => sink(Err(problem)),
                }
            }
        } else {
            self.file(path, sink);
        }
    }

    /// Reads one file.
    pub(crate) fn file(self, path: &Path, sink: Sink<'_>) {
        match std::fs::File::open(path) {
            Ok(file) => self.reader(&path.display().to_string(), file, sink),
            Err(error) => sink(Err(problem(&path.display().to_string(), &format!("could not be opened: {error}")))),
        }
    }

    /// Reads all of a reader; `name` stands for it in places, and its ending tells JSON from YAML.
    pub(crate) fn reader(self, name: &str, reader: impl Read, sink: Sink<'_>) {
        let mut bytes = Vec::new();
        if let Err(error) = reader.take(self.file_bytes + 1).read_to_end(&mut bytes) {
            return sink(Err(problem(name, &format!("could not be read: {error}"))));
        }
        if bytes.len() as u64 > self.file_bytes {
            return sink(Err(problem(name, &format!("is longer than {} bytes", self.file_bytes))));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.text(name, text.strip_prefix('\u{feff}').unwrap_or(text), sink),
            Err(error) => {
                let line = 1 + lines(&String::from_utf8_lossy(&bytes[..error.valid_up_to()]));
                let place = Place { line, ..place(name) };
                sink(Err(Problem { place, text: "is not UTF-8".to_owned() }));
            }
        }
    }

    fn text(self, name: &str, text: &str, sink: Sink<'_>) {
        let file: Arc<str> = name.into();
        let json = Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        // As kubectl does: what begins with a brace is JSON. Only YAML's flow style may begin so as well.
        let braces = text.trim_start().starts_with('{');
        if json
            || (braces
                && serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>().all(|d| d.is_ok()))
        {
            self.json(&file, text, sink);
        } else {
            self.yaml(&file, text, sink);
        }
    }

    /// One or more JSON documents in a row.
    fn json(self, file: &Arc<str>, text: &str, sink: Sink<'_>) {
        let mut rest = text;
        let mut line = 1;
        let mut document = 0;
        loop {
            let trimmed = rest.trim_start();
            line += lines(&rest[..rest.len() - trimmed.len()]);
            if trimmed.is_empty() {
                return;
            }
            document += 1;
            let place = Place { file: Arc::clone(file), document, line };
            let mut stream =
                serde_json::Deserializer::from_str(trimmed).into_iter::<Box<serde_json::value::RawValue>>();
            let raw = match stream.next() {
                Some(Ok(raw)) => raw,
                Some(Err(error)) => {
                    let place = Place { line: line + error.line().saturating_sub(1), ..place };
                    // After a fault nobody knows where the next document begins.
                    return sink(Err(Problem { place, text: format!("is not JSON, at column {}", error.column()) }));
                }
                None => return,
            };
            let mut reader = serde_json::Deserializer::from_str(raw.get());
            match Tree(&mut Budget::new(self)).deserialize(&mut reader) {
                Ok(value) => objects(&place, value, LIST_DEPTH_MAX, sink),
                Err(error) => {
                    let at = line + error.line().saturating_sub(1);
                    sink(Err(Problem { place: Place { line: at, ..place }, text: tree::describe(&error.to_string()) }));
                }
            }
            let read = stream.byte_offset();
            line += lines(&trimmed[..read]);
            rest = &trimmed[read..];
        }
    }

    fn yaml(self, file: &Arc<str>, text: &str, sink: Sink<'_>) {
        for (document, (line, text)) in (1..).zip(documents(text)) {
            let place = Place { file: Arc::clone(file), document, line };
            if brackets_open(text) > BRACKETS_MAX {
                sink(Err(Problem { place, text: format!("opens more than {BRACKETS_MAX} brackets within brackets") }));
                continue;
            }
            match Tree(&mut Budget::new(self)).deserialize(serde_yaml_ng::Deserializer::from_str(text)) {
                Ok(Value::Null) => {}
                Ok(value) => objects(&place, value, LIST_DEPTH_MAX, sink),
                Err(error) => {
                    let at = error.location().map_or(line, |location| line + location.line().saturating_sub(1));
                    sink(Err(Problem { place: Place { line: at, ..place }, text: tree::describe(&error.to_string()) }));
                }
            }
        }
    }
}

/// The documents of a stream, each with its first line from 1. A line that begins with `---` at its first column begins a
/// document whatever stands around it, and `...` ends one (YAML 1.2, 9.1.2), so a fault in one harms no other.
fn documents(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut starts = vec![(1, 0)];
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        if bare == "---" || line.starts_with("--- ") || line.starts_with("---\t") {
            starts.push((index + 1, offset));
        } else if bare == "..." {
            starts.push((index + 2, offset + line.len()));
        }
        offset += line.len();
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|(_, at)| *at).chain([text.len()]).collect();
    starts.into_iter().zip(ends).map(|((line, from), to)| (line, &text[from..to.max(from)])).filter(|(_, text)| {
        let says = |line: &str| !(line.is_empty() || line.starts_with(['#', '%']) || line == "---" || line == "...");
        text.lines().any(|line| says(line.trim()))
    })
}

/// Most brackets that are open at a time, those in texts and comments counted as well.
fn brackets_open(text: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => continue,
        }
        most = open.max(most);
    }
    most
}

fn lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// Takes lists apart: `List`, and `PodList` and the like as the API server answers them, whose items do not tell their kind.
fn objects(place: &Place, value: Value, depth: usize, sink: Sink<'_>) {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    let is_list = kind.ends_with("List") && value.get("items").is_some_and(Value::is_array);
    if !is_list || depth == 0 {
        return sink(Ok(Object { place: place.clone(), value }));
    }
    let item_kind = kind.trim_end_matches("List").to_owned();
    let version = value.get("apiVersion").cloned();
    let Value::Object(mut members) = value else { return };
    let Some(Value::Array(items)) = members.remove("items") else { return };
    for mut item in items {
        if let Value::Object(members) = &mut item
            && !item_kind.is_empty()
        {
            members.entry("kind").or_insert_with(|| Value::String(item_kind.clone()));
            if let Some(version) = &version {
                members.entry("apiVersion").or_insert_with(|| version.clone());
            }
        }
        objects(place, item, depth - 1, sink);
    }
}

fn place(name: &str) -> Place {
    Place { file: name.into(), document: 0, line: 0 }
}

fn problem(name: &str, text: &str) -> Problem {
    Problem { place: place(name), text: text.to_owned() }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, document, line } = self;
        match (document, line) {
            (0, 0) => write!(f, "{file}"),
            (0, line) => write!(f, "{file}, line {line}"),
            (document, line) => write!(f, "{file}, document {document}, line {line}"),
        }
    }
}
