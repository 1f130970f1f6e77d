//! One key of the configuration, how its value is taken, and the page that shows all of them.

use std::fmt::Write as _;

use super::keys::{self, KEYS};
use super::{Config, export};

/// One key.
pub(super) struct Key {
    /// Dotted name, as in the file.
    pub(super) name: &'static str,
    /// Flag of `sekisho run`, if there is one.
    pub(super) flag: Option<&'static str>,
    /// What a value may be; ends up in errors.
    pub(super) allowed: &'static str,
    /// What it does.
    pub(super) text: &'static str,
    /// Puts a value given as text; false when it has the wrong form.
    pub(super) set: fn(&mut Config, &str) -> bool,
    /// The value as text.
    pub(super) get: fn(&Config) -> String,
}

impl Key {
    /// Name of the environment variable.
    pub(super) fn variable(&self) -> String {
        format!("SEKISHO_{}", self.name.replace('.', "_").to_uppercase())
    }
}

/// All keys, in the order of the documentation.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().chain(keys::node::KEYS).chain(export::KEYS)
}

/// The key of that name.
pub(super) fn key(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

pub(super) fn put<T: std::str::FromStr>(place: &mut T, text: &str) -> bool {
    match text.parse() {
        Ok(value) => {
            *place = value;
            true
        }
        Err(_) => false,
    }
}

/// Lists come as YAML, of which JSON is a part.
pub(super) fn put_yaml<T: serde::de::DeserializeOwned>(place: &mut T, text: &str) -> bool {
    match serde_yaml_ng::from_str(text) {
        Ok(value) => {
            *place = value;
            true
        }
        Err(_) => false,
    }
}

pub(super) fn yaml_line<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The table of `docs/configuration.md`.
pub(crate) fn markdown() -> String {
    let defaults = Config::default();
    let mut out =
        String::from("| key | default | allowed | environment | flag | what it does |\n|---|---|---|---|---|---|\n");
    for key in all() {
        let default = (key.get)(&defaults);
        let default = if default.is_empty() { "empty".to_owned() } else { format!("`{default}`") };
        let flag = key.flag.map_or_else(String::new, |flag| format!("`{flag}`"));
        let Key { name, allowed, text, .. } = key;
        // Writing to a string does not fail.
        let _ = writeln!(out, "| `{name}` | {default} | {allowed} | `{}` | {flag} | {text} |", key.variable());
    }
    out
}
