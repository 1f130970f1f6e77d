//! Keys of what leaves the node.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::key::{Key, put, put_yaml, yaml_line};
use crate::lines::LineKind;

/// Rows that leave the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Export {
    /// Kinds of rows; none: all.
    pub(crate) kinds: Vec<LineKind>,
    /// See [`ExportFile`].
    pub(crate) file: ExportFile,
    /// See [`Otlp`].
    pub(crate) otlp: Otlp,
}

/// JSON lines in a rotated file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExportFile {
    /// The file; empty: none.
    pub(crate) path: PathBuf,
    /// Most bytes of one file.
    pub(crate) max_bytes: u64,
    /// Earlier files that are kept.
    pub(crate) files: u32,
}

/// Log records to an OpenTelemetry collector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Otlp {
    /// The collector's HTTP endpoint; empty: none.
    pub(crate) endpoint: String,
    /// Name of the environment variable with headers.
    pub(crate) headers_env: String,
    /// Certificates that are trusted besides the system's; empty: none.
    pub(crate) ca_file: PathBuf,
    /// Rows are looked for this often.
    pub(crate) interval_seconds: u32,
    /// Begin with the oldest row of the history, not with the next one.
    pub(crate) backfill: bool,
}

/// A chunk of lines is 64 KiB.
pub(super) const FILE_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;
pub(super) const FILES: RangeInclusive<u32> = 1..=100;
pub(super) const INTERVAL_SECONDS: RangeInclusive<u32> = 1..=3_600;

// === impl ExportFile ===

impl Default for ExportFile {
    fn default() -> Self {
        Self { path: PathBuf::new(), max_bytes: 64 << 20, files: 4 }
    }
}

// === impl Otlp ===

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            headers_env: "OTEL_EXPORTER_OTLP_HEADERS".to_owned(),
            ca_file: PathBuf::new(),
            interval_seconds: 5,
            backfill: false,
        }
    }
}

impl Otlp {
    /// It can be asked, and what names it holds no user: that would be shown.
    pub(super) fn endpoint_is_good(&self) -> bool {
        let Some((scheme, rest)) = self.endpoint.split_once("://") else { return self.endpoint.is_empty() };
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        let is_plain = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#');
        ["http", "https"].contains(&scheme) && !host.is_empty() && !host.contains('@') && is_plain(rest)
    }

    /// Without a user, who is refused and whose password is nobody's business.
    fn shown_endpoint(&self) -> String {
        match self.endpoint.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
            Some((scheme, Some((_, host)))) => format!("{scheme}://...@{host}"),
            _ => self.endpoint.clone(),
        }
    }

    /// As POSIX has names of variables.
    pub(super) fn headers_env_is_good(&self) -> bool {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        self.headers_env.bytes().all(is_letter) && !self.headers_env.starts_with(|c: char| c.is_ascii_digit())
    }
}

/// The keys, in the order of the documentation.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "export.kinds",
        flag: None,
        allowed: "a list of flow, metadata, process, gap, finding and capacity; empty: all of them",
        text: "Kinds of rows that leave the node, by a file and to a collector.",
        set: |config, text| put_yaml(&mut config.export.kinds, text),
        get: |config| yaml_line(&config.export.kinds),
    },
    Key {
        name: "export.file.path",
        flag: None,
        allowed: "an absolute path in a directory that is there; empty: none",
        text: "Rows as JSON lines in this file, as `-o json` prints them. Whoever moves it away gets a new one.",
        set: |config, text| put(&mut config.export.file.path, text),
        get: |config| config.export.file.path.display().to_string(),
    },
    Key {
        name: "export.file.max_bytes",
        flag: None,
        allowed: "1048576 to 1099511627776",
        text: "A file of this size becomes `PATH.1`, and so on, by renaming.",
        set: |config, text| put(&mut config.export.file.max_bytes, text),
        get: |config| config.export.file.max_bytes.to_string(),
    },
    Key {
        name: "export.file.files",
        flag: None,
        allowed: "1 to 100",
        text: "Earlier files that are kept beside the one that is written.",
        set: |config, text| put(&mut config.export.file.files, text),
        get: |config| config.export.file.files.to_string(),
    },
    Key {
        name: "export.otlp.endpoint",
        flag: None,
        allowed: "http:// or https://, a host and a port, and a path unless that is /v1/logs; with history.enabled; empty: none",
        text: "An OpenTelemetry collector that gets rows as log records (OTLP over HTTP), out of the history, each at least once.",
        set: |config, text| put(&mut config.export.otlp.endpoint, text),
        get: |config| config.export.otlp.shown_endpoint(),
    },
    Key {
        name: "export.otlp.headers_env",
        flag: None,
        allowed: "the name of an environment variable; empty: none",
        text: "That variable holds headers for the collector, `name=value,name=value`, tokens among them.",
        set: |config, text| put(&mut config.export.otlp.headers_env, text),
        get: |config| config.export.otlp.headers_env.clone(),
    },
    Key {
        name: "export.otlp.ca_file",
        flag: None,
        allowed: "an absolute path; empty: none",
        text: "Certificates (PEM) that are trusted besides the system's.",
        set: |config, text| put(&mut config.export.otlp.ca_file, text),
        get: |config| config.export.otlp.ca_file.display().to_string(),
    },
    Key {
        name: "export.otlp.interval_seconds",
        flag: None,
        allowed: "1 to 3600",
        text: "New rows are looked for this often.",
        set: |config, text| put(&mut config.export.otlp.interval_seconds, text),
        get: |config| config.export.otlp.interval_seconds.to_string(),
    },
    Key {
        name: "export.otlp.backfill",
        flag: None,
        allowed: "true or false",
        text: "The first time, ship what the history holds already; else begin with the next row.",
        set: |config, text| put(&mut config.export.otlp.backfill, text),
        get: |config| config.export.otlp.backfill.to_string(),
    },
];
