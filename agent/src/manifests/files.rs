//! The manifests below a directory.

use std::path::{Path, PathBuf};

use super::{Place, Problem};

/// Directories within directories; nobody nests manifests deeper.
const DEPTH_MAX: usize = 32;
/// Endings of manifests, as kubectl takes them.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Walks a directory. See [`Files::below`].
pub(crate) struct Files;

impl Files {
    /// All manifests below a directory, sorted, at most `max`. Names that begin with a dot are passed over: a mounted
    /// `ConfigMap` holds each file twice, once in such a directory. Links to files are followed, links to directories are not.
    pub(crate) fn below(directory: &Path, max: usize) -> Vec<Result<PathBuf, Problem>> {
        let mut found = Vec::new();
        walk(directory, 0, max, &mut found);
        found
    }
}

fn walk(directory: &Path, depth: usize, max: usize, found: &mut Vec<Result<PathBuf, Problem>>) {
    if depth > DEPTH_MAX {
        return found.push(Err(wrong(directory, format!("is more than {DEPTH_MAX} directories deep"))));
    }
    let entries = match std::fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(entries) => entries,
        Err(error) => return found.push(Err(wrong(directory, format!("could not be listed: {error}")))),
    };
    let mut entries: Vec<_> = entries.into_iter().filter(|entry| !hidden(entry)).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, depth + 1, max, found);
        } else if is_manifest(&path) && path.is_file() {
            if found.len() >= max {
                return found.push(Err(wrong(&path, format!("is left out: more than {max} files"))));
            }
            found.push(Ok(path));
        }
    }
}

fn hidden(entry: &std::fs::DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

fn wrong(path: &Path, text: String) -> Problem {
    Problem { place: Place { file: path.display().to_string().into(), document: 0, line: 0 }, text }
}
