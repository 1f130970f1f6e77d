//! The table of all keys: what the documentation shows, what the environment may set, and what a value may be.

use std::fmt::Write as _;

use super::Config;

/// Where the agent listens, and where its clients look, when nothing else is said.
pub(crate) const SOCKET_DEFAULT: &str = "/run/sekisho/agent.sock";

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

/// All keys, in the order of the documentation.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "node_name",
        flag: Some("--node-name"),
        allowed: "a name of up to 253 characters without spaces; empty: the host's name",
        text: "Name of the node in every row.",
        set: |config, text| put(&mut config.node_name, text),
        get: |config| config.node_name.clone(),
    },
    Key {
        name: "standalone",
        flag: Some("--standalone"),
        allowed: "true or false",
        text: "Work without a cluster: workloads are pods as far as cgroup paths tell them, else containers and units.",
        set: |config, text| put(&mut config.standalone, text),
        get: |config| config.standalone.to_string(),
    },
    Key {
        name: "socket",
        flag: Some("--socket"),
        allowed: "an absolute path of up to 107 bytes",
        text: "Unix socket for `sekisho observe` and `sekisho doctor`; mode 0600, its directory is made with mode 0700.",
        set: |config, text| put(&mut config.socket, text),
        get: |config| config.socket.display().to_string(),
    },
    Key {
        name: "fold_seconds",
        flag: None,
        allowed: "1 to 300",
        text: "Connections alike are folded into one row for this long.",
        set: |config, text| put(&mut config.fold_seconds, text),
        get: |config| config.fold_seconds.to_string(),
    },
    Key {
        name: "metrics.listen",
        flag: Some("--metrics-listen"),
        allowed: "a loopback address and port like 127.0.0.1:9847 or [::1]:9847 (port 0: any free one), or off",
        text: "Where `/metrics`, `/healthz` and `/readyz` are served.",
        set: |config, text| put(&mut config.metrics.listen, text),
        get: |config| String::from(config.metrics.listen),
    },
    Key {
        name: "metrics.max_series",
        flag: None,
        allowed: "100 to 100000",
        text: "Most series that carry a workload; what comes beyond goes to `workload=\"other\"` and is counted.",
        set: |config, text| put(&mut config.metrics.max_series, text),
        get: |config| config.metrics.max_series.to_string(),
    },
    Key {
        name: "roots.proc",
        flag: None,
        allowed: "an absolute path",
        text: "Where the host's `/proc` is mounted.",
        set: |config, text| put(&mut config.roots.proc, text),
        get: |config| config.roots.proc.display().to_string(),
    },
    Key {
        name: "roots.sys",
        flag: None,
        allowed: "an absolute path",
        text: "Where the host's `/sys` is mounted.",
        set: |config, text| put(&mut config.roots.sys, text),
        get: |config| config.roots.sys.display().to_string(),
    },
    Key {
        name: "roots.cgroup",
        flag: None,
        allowed: "an absolute path; empty: found in the mount table",
        text: "Where the host's cgroup2 tree is mounted.",
        set: |config, text| put(&mut config.roots.cgroup, text),
        get: |config| config.roots.cgroup.display().to_string(),
    },
    Key {
        name: "processes.arguments",
        flag: None,
        allowed: "true or false",
        text: "Keep the arguments of processes, cut and redacted. Redaction goes by patterns and cannot know every secret.",
        set: |config, text| put(&mut config.processes.arguments, text),
        get: |config| config.processes.arguments.to_string(),
    },
    Key {
        name: "kernel.metadata_ring_bytes",
        flag: None,
        allowed: "a power of two from 4096 to 67108864",
        text: "Ring of metadata requests.",
        set: |config, text| put(&mut config.kernel.metadata_ring_bytes, text),
        get: |config| config.kernel.metadata_ring_bytes.to_string(),
    },
    Key {
        name: "kernel.lifecycle_ring_bytes",
        flag: None,
        allowed: "a power of two from 4096 to 67108864",
        text: "Ring of processes and cgroups.",
        set: |config, text| put(&mut config.kernel.lifecycle_ring_bytes, text),
        get: |config| config.kernel.lifecycle_ring_bytes.to_string(),
    },
    Key {
        name: "kernel.bulk_ring_bytes",
        flag: None,
        allowed: "a power of two from 4096 to 67108864",
        text: "Ring of flows. When it is full, totals go to an account per cgroup: bytes stay exact, peers and processes are lost.",
        set: |config, text| put(&mut config.kernel.bulk_ring_bytes, text),
        get: |config| config.kernel.bulk_ring_bytes.to_string(),
    },
    Key {
        name: "kernel.max_sockets",
        flag: None,
        allowed: "16 to 1048576",
        text: "Most sockets followed at a time; those beyond are counted as untracked.",
        set: |config, text| put(&mut config.kernel.max_sockets, text),
        get: |config| config.kernel.max_sockets.to_string(),
    },
];

impl Key {
    /// Name of the environment variable.
    pub(super) fn variable(&self) -> String {
        format!("SEKISHO_{}", self.name.replace('.', "_").to_uppercase())
    }
}

/// The key of that name.
pub(super) fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

fn put<T: std::str::FromStr>(place: &mut T, text: &str) -> bool {
    match text.parse() {
        Ok(value) => {
            *place = value;
            true
        }
        Err(_) => false,
    }
}

/// The table of `docs/configuration.md`.
pub(crate) fn markdown() -> String {
    let defaults = Config::default();
    let mut out =
        String::from("| key | default | allowed | environment | flag | what it does |\n|---|---|---|---|---|---|\n");
    for key in KEYS {
        let default = (key.get)(&defaults);
        let default = if default.is_empty() { "empty".to_owned() } else { format!("`{default}`") };
        let flag = key.flag.map_or_else(String::new, |flag| format!("`{flag}`"));
        let Key { name, allowed, text, .. } = key;
        // Writing to a string does not fail.
        let _ = writeln!(out, "| `{name}` | {default} | {allowed} | `{}` | {flag} | {text} |", key.variable());
    }
    out
}
