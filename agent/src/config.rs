//! The configuration: one struct, filled from defaults, a YAML file, the environment and flags (the later wins), and
//! checked as a whole before anything starts. [`keys`] is the table of all keys that the documentation shows.

use std::path::{Path, PathBuf};

use agent_core::finding::Settings;
use agent_core::papers;
use agent_core::papers::waivers::Waiver;
use serde::{Deserialize, Serialize};

mod aws;
mod capacity;
#[cfg(test)]
mod chart;
mod check;
mod collect;
mod export;
mod key;
mod keys;
mod layers;
mod metrics;
#[cfg(test)]
mod tests;

pub(crate) use aws::{Aws, Mode as AwsMode};
pub(crate) use capacity::Capacity;
pub(crate) use collect::{Collect, Endpoint};
pub(crate) use export::{Export, Otlp};
pub(crate) use key::markdown;
pub(crate) use keys::{DATA_DIR_DEFAULT, PIN_DEFAULT, SOCKET_DEFAULT};
pub(crate) use layers::Sources;
pub(crate) use metrics::{Listen, Metrics};

/// Everything that may be set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Name of the node in every row; empty: the host's name.
    pub(crate) node_name: String,
    /// Work without a cluster: workloads are pods as far as cgroup paths tell them, else containers and units.
    pub(crate) standalone: bool,
    /// Where the agent keeps what must survive a restart.
    pub(crate) data_dir: PathBuf,
    /// The Unix socket of `sekisho observe` and `sekisho doctor`.
    pub(crate) socket: PathBuf,
    /// Length of a fold of flows.
    pub(crate) fold_seconds: u32,
    /// See [`History`].
    pub(crate) history: History,
    /// See [`Metrics`].
    pub(crate) metrics: Metrics,
    /// See [`Findings`].
    pub(crate) findings: Findings,
    /// See [`Cluster`].
    pub(crate) cluster: Cluster,
    /// See [`Aws`].
    pub(crate) aws: Aws,
    /// See [`Roots`].
    pub(crate) roots: Roots,
    /// See [`Processes`].
    pub(crate) processes: Processes,
    /// See [`Capacity`].
    pub(crate) capacity: Capacity,
    /// See [`Kernel`].
    pub(crate) kernel: Kernel,
    /// See [`Collect`].
    pub(crate) collect: Collect,
    /// See [`Export`].
    pub(crate) export: Export,
}

/// What the rules are told, and which findings are as they should be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Findings {
    /// Findings that are shown as accepted.
    pub(crate) waivers: Vec<Waiver>,
    /// Ids of the cluster security group.
    pub(crate) cluster_security_groups: Vec<String>,
    /// What the annotations and labels of the identity webhook begin with.
    pub(crate) irsa_annotation_prefix: String,
    /// Most security groups that an interface may have.
    pub(crate) max_groups: u32,
    /// What the CNI's host veths begin with.
    pub(crate) veth_prefix: String,
    /// How long a token must stay unused, hours.
    pub(crate) token_window_hours: u32,
}

/// What is remembered on the node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct History {
    /// Keep a history in the data directory.
    pub(crate) enabled: bool,
    /// Most bytes of it.
    pub(crate) max_bytes: u64,
    /// Whole days that are kept beside the last one.
    pub(crate) max_days: u32,
    /// Percent of the file system that are left to others.
    pub(crate) free_percent: u8,
}

/// The Kubernetes API, and what stands for it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cluster {
    /// A kubeconfig; empty: the one that `KUBECONFIG` names, else the pod's service account.
    pub(crate) kubeconfig: PathBuf,
    /// A directory of manifests instead of the API, in standalone mode; empty: none.
    pub(crate) manifests: PathBuf,
    /// All but pods is asked for within this time after the start.
    pub(crate) start_jitter_seconds: u32,
    /// Write Kubernetes events on pods whose findings open and end.
    pub(crate) events: bool,
    /// Ask the API who has the address of a remote peer.
    pub(crate) remote_lookup: bool,
}

/// Where the node's own trees are mounted, for an agent in a container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Roots {
    /// The host's `/proc`.
    pub(crate) proc: PathBuf,
    /// The host's `/sys`.
    pub(crate) sys: PathBuf,
    /// The cgroup2 mount; empty: found in the mount table.
    pub(crate) cgroup: PathBuf,
    /// The host's `/etc`.
    pub(crate) etc: PathBuf,
    /// The host's `/run`.
    pub(crate) run: PathBuf,
}

/// What is kept of processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Processes {
    /// Keep arguments, cut and redacted.
    pub(crate) arguments: bool,
}

/// Sizes of what lives in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Kernel {
    /// Ring of metadata requests.
    pub(crate) metadata_ring_bytes: u32,
    /// Ring of processes and cgroups.
    pub(crate) lifecycle_ring_bytes: u32,
    /// Ring of flows.
    pub(crate) bulk_ring_bytes: u32,
    /// Most sockets followed at a time.
    pub(crate) max_sockets: u32,
    /// The agent's budget of CPU, percent of one processor; 0: none.
    pub(crate) cpu_percent: u32,
    /// Where the probes are pinned.
    pub(crate) pin: Pin,
}

/// Whether the probes outlive the agent: `off`, `on`, or a directory of a BPF file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Pin {
    /// They end with it.
    #[default]
    Off,
    /// They go on, by their names in this directory.
    At(PathBuf),
}

/// Why a configuration is refused. Every text names the key or the file, and what is allowed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file could not be read.
    #[error("could not read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what a configuration looks like.
    #[error("configuration {}: {what}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Key, expectation and line.
        what: String,
    },
    /// A value that cannot be used.
    #[error("{key} = {value} ({origin}): allowed: {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value as it was given.
        value: String,
        /// Where it was given.
        origin: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            standalone: false,
            socket: PathBuf::from(SOCKET_DEFAULT),
            data_dir: PathBuf::from(DATA_DIR_DEFAULT),
            fold_seconds: 10,
            history: History::default(),
            metrics: Metrics::default(),
            findings: Findings::default(),
            cluster: Cluster::default(),
            aws: Aws::default(),
            roots: Roots::default(),
            processes: Processes::default(),
            capacity: Capacity::default(),
            kernel: Kernel::default(),
            collect: Collect::default(),
            export: Export::default(),
        }
    }
}

impl Config {
    /// Defaults, then the file, then the environment, then the flags; checked.
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        layers::load(sources)
    }

    /// The cgroup2 mount, when it was set.
    pub(crate) fn cgroup_root(&self) -> Option<&Path> {
        (!self.roots.cgroup.as_os_str().is_empty()).then_some(self.roots.cgroup.as_path())
    }

    /// The node's name: as set, else the host's.
    pub(crate) fn node(&self) -> String {
        if self.node_name.is_empty() {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            self.node_name.clone()
        }
    }
}

// === impl Findings ===

impl Default for Findings {
    fn default() -> Self {
        Self {
            waivers: Vec::new(),
            cluster_security_groups: Vec::new(),
            irsa_annotation_prefix: "eks.amazonaws.com".to_owned(),
            max_groups: 5,
            veth_prefix: papers::Settings::VETH_PREFIX_DEFAULT.to_owned(),
            token_window_hours: 24,
        }
    }
}

impl Findings {
    /// As the core takes it.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            papers: papers::Settings {
                cluster_groups: self.cluster_security_groups.iter().map(|group| group.as_str().into()).collect(),
                max_groups: usize::try_from(self.max_groups).unwrap_or(papers::Settings::MAX_GROUPS_MOST),
                veth_prefix: self.veth_prefix.clone(),
            },
            waivers: self.waivers.clone(),
            own_pid: None,
            token_window_ns: u64::from(self.token_window_hours) * 3_600 * 1_000_000_000,
        }
    }
}

// === impl History ===

impl Default for History {
    fn default() -> Self {
        // 512 MiB are some ten million folded rows: two days of a busy node, weeks of a quiet one.
        Self { enabled: true, max_bytes: 512 << 20, max_days: 7, free_percent: 5 }
    }
}

// === impl Cluster ===

impl Default for Cluster {
    fn default() -> Self {
        Self {
            kubeconfig: PathBuf::new(),
            manifests: PathBuf::new(),
            start_jitter_seconds: 60,
            events: true,
            remote_lookup: false,
        }
    }
}

// === impl Roots ===

impl Default for Roots {
    fn default() -> Self {
        Self {
            proc: PathBuf::from("/proc"),
            sys: PathBuf::from("/sys"),
            cgroup: PathBuf::new(),
            etc: PathBuf::from("/etc"),
            run: PathBuf::from("/run"),
        }
    }
}

// === impl Kernel ===

impl Default for Kernel {
    fn default() -> Self {
        Self {
            // A burst of 1,000 metadata packets of up to 1 KiB before the decoder, which is woken at once, has run.
            metadata_ring_bytes: 1 << 20,
            // 100 ms of 50,000 process records a second of about 200 bytes.
            lifecycle_ring_bytes: 1 << 20,
            // 100 ms of 100,000 connections a second of 160 bytes (152 and the ring's own 8) fit.
            bulk_ring_bytes: 1 << 21,
            // 20,000 live flows, both ends on this node, and half as many again.
            max_sockets: 1 << 16,
            // A budget makes all pods pay for one: only where CPU matters more than who spoke to whom.
            cpu_percent: 0,
            pin: Pin::Off,
        }
    }
}

// === impl Pin ===

impl Pin {
    /// The directory, if there is one.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Off => None,
            Self::At(directory) => Some(directory),
        }
    }
}

impl std::str::FromStr for Pin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "on" => Ok(Self::At(PathBuf::from(PIN_DEFAULT))),
            path if path.starts_with('/') => Ok(Self::At(PathBuf::from(path))),
            _ => Err("expected off, on, or an absolute path in a BPF file system"),
        }
    }
}

impl TryFrom<String> for Pin {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> Self {
        match pin {
            Pin::Off => "off".to_owned(),
            Pin::At(directory) => directory.display().to_string(),
        }
    }
}
