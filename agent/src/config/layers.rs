//! Lays the sources over one another: defaults, file, environment, flags.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::key::{all, key};
use super::{Config, Error, check};

/// Longest configuration file: all keys with a comment each take about 4 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The usual name of the variable that tells a pod its node.
const NODE_NAME: &str = "NODE_NAME";

/// Where values come from.
pub(crate) struct Sources<'a> {
    /// The file, if one was named.
    pub(crate) file: Option<PathBuf>,
    /// The environment.
    pub(crate) environment: &'a dyn Fn(&str) -> Option<String>,
    /// Flags that were given: key and value.
    pub(crate) flags: Vec<(&'static str, String)>,
}

/// Where each key got its value, for errors; keys that are absent have their default.
pub(super) type Origins = BTreeMap<&'static str, String>;

pub(super) fn load(sources: &Sources<'_>) -> Result<Config, Error> {
    let mut origins = Origins::new();
    let mut config = match &sources.file {
        Some(path) => from_file(path, &mut origins)?,
        None => Config::default(),
    };
    for key in all() {
        let variable = key.variable();
        if let Some(value) = (sources.environment)(&variable) {
            set(&mut config, key.name, &value, format!("environment variable {variable}"), &mut origins)?;
        }
    }
    for (name, value) in &sources.flags {
        let flag = key(name).and_then(|key| key.flag).unwrap_or(name);
        set(&mut config, name, value, format!("flag {flag}"), &mut origins)?;
    }
    // What a DaemonSet's downward API sets for any agent; a name that was given to this one comes before it.
    if config.node_name.is_empty()
        && let Some(name) = (sources.environment)(NODE_NAME).filter(|name| !name.is_empty())
    {
        set(&mut config, "node_name", &name, format!("environment variable {NODE_NAME}"), &mut origins)?;
    }
    check::check(&config, &origins)?;
    Ok(config)
}

fn set(config: &mut Config, name: &str, value: &str, origin: String, origins: &mut Origins) -> Result<(), Error> {
    // Only names of the table come here, by the table itself or by flags, which a test compares with the table.
    let Some(key) = key(name) else { return Ok(()) };
    if !(key.set)(config, value) {
        return Err(Error::Value { key: key.name, value: value.to_owned(), origin, allowed: key.allowed });
    }
    origins.insert(key.name, origin);
    Ok(())
}

fn from_file(path: &Path, origins: &mut Origins) -> Result<Config, Error> {
    let parse_error = |what| Error::Parse { path: path.to_owned(), what };
    let text = read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let tree: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).map_err(|error| parse_error(error.to_string()))?;
    if tree.is_null() {
        return Ok(Config::default());
    }
    let config = serde_path_to_error::deserialize(serde_yaml_ng::Deserializer::from_str(&text))
        .map_err(|error| parse_error(describe(&error)))?;
    for key in all() {
        if key.name.split('.').try_fold(&tree, |tree, part| tree.get(part)).is_some() {
            origins.insert(key.name, format!("configuration {}", path.display()));
        }
    }
    Ok(config)
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("the file is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// `path: expectation at line L column C`, with the path once and the line always.
fn describe(error: &serde_path_to_error::Error<serde_yaml_ng::Error>) -> String {
    let path = error.path().to_string();
    let inner = error.inner();
    let mut text = inner.to_string();
    if path != "." && !text.starts_with(&path) {
        text = format!("{path}: {text}");
    }
    match inner.location() {
        Some(at) if !text.contains(" at line ") => format!("{text} at line {} column {}", at.line(), at.column()),
        _ => text,
    }
}
