//! The table of all keys: what the documentation shows, what the environment may set, and what a value may be.

use std::fmt::Write as _;

use super::Config;

/// Where the agent listens, and where its clients look, when nothing else is said.
pub(crate) const SOCKET_DEFAULT: &str = "/run/sekisho/agent.sock";

/// Where the agent keeps what survives it, and where `sekisho timeline` looks, when nothing else is said.
pub(crate) const DATA_DIR_DEFAULT: &str = "/var/lib/sekisho";

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
        allowed: "a name of up to 253 characters without spaces; empty: `NODE_NAME` of the environment, else the host's name",
        text: "Name of the node in every row, and of its object in the cluster.",
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
        name: "data_dir",
        flag: Some("--data-dir"),
        allowed: "an absolute path",
        text: "Directory of what survives the agent; made with mode 0700. Its files have mode 0600.",
        set: |config, text| put(&mut config.data_dir, text),
        get: |config| config.data_dir.display().to_string(),
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
        name: "history.enabled",
        flag: None,
        allowed: "true or false",
        text: "Keep a history in the data directory, for `sekisho timeline`.",
        set: |config, text| put(&mut config.history.enabled, text),
        get: |config| config.history.enabled.to_string(),
    },
    Key {
        name: "history.max_bytes",
        flag: None,
        allowed: "67108864 (64 MiB) to 1099511627776 (1 TiB)",
        text: "Most bytes of the history on disk; the oldest file goes first. A folded row takes some 50 bytes.",
        set: |config, text| put(&mut config.history.max_bytes, text),
        get: |config| config.history.max_bytes.to_string(),
    },
    Key {
        name: "history.max_days",
        flag: None,
        allowed: "1 to 3650",
        text: "A day of the history goes when it is so many days past.",
        set: |config, text| put(&mut config.history.max_days, text),
        get: |config| config.history.max_days.to_string(),
    },
    Key {
        name: "history.free_percent",
        flag: None,
        allowed: "0 to 90",
        text: "When less than this part of the file system is free, the history does not grow: new rows cost the oldest.",
        set: |config, text| put(&mut config.history.free_percent, text),
        get: |config| config.history.free_percent.to_string(),
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
        name: "findings.waivers",
        flag: None,
        allowed: "a list of up to 1000 waivers, each with a reason and a code or one of namespace, service_account, workload and image (a repository without tag); until is a day or a time",
        text: "Findings that are as they should be: shown as accepted, counted apart, open again after `until`. See below.",
        set: |config, text| put_yaml(&mut config.findings.waivers, text),
        get: |config| yaml_line(&config.findings.waivers),
    },
    Key {
        name: "findings.cluster_security_groups",
        flag: None,
        allowed: "a list of ids like sg-0a1b2c3d",
        text: "Ids of the cluster security group, for `sgp-cluster-group`.",
        set: |config, text| put_yaml(&mut config.findings.cluster_security_groups, text),
        get: |config| yaml_line(&config.findings.cluster_security_groups),
    },
    Key {
        name: "findings.irsa_annotation_prefix",
        flag: None,
        allowed: "a DNS name like eks.amazonaws.com",
        text: "What the annotations of the identity webhook begin with, where it runs with a prefix of its own.",
        set: |config, text| put(&mut config.findings.irsa_annotation_prefix, text),
        get: |config| config.findings.irsa_annotation_prefix.clone(),
    },
    Key {
        name: "findings.max_groups",
        flag: None,
        allowed: "5 to 16",
        text: "Most security groups of an interface: EC2's quota of the account.",
        set: |config, text| put(&mut config.findings.max_groups, text),
        get: |config| config.findings.max_groups.to_string(),
    },
    Key {
        name: "findings.veth_prefix",
        flag: None,
        allowed: "1 to 4 letters or digits, and none of eth, vlan and lo",
        text: "What the names of pods' interfaces on the node begin with: the CNI's AWS_VPC_K8S_CNI_VETHPREFIX.",
        set: |config, text| put(&mut config.findings.veth_prefix, text),
        get: |config| config.findings.veth_prefix.clone(),
    },
    Key {
        name: "cluster.kubeconfig",
        flag: None,
        allowed: "an absolute path; empty: the one that `KUBECONFIG` names, else the pod's service account",
        text: "How the Kubernetes API is reached.",
        set: |config, text| put(&mut config.cluster.kubeconfig, text),
        get: |config| config.cluster.kubeconfig.display().to_string(),
    },
    Key {
        name: "cluster.manifests",
        flag: Some("--manifests"),
        allowed: "an absolute path of a directory, in standalone mode; empty: none",
        text: "Manifests that stand for a cluster: pods of this node, policies, service accounts. Read anew when a file changes.",
        set: |config, text| put(&mut config.cluster.manifests, text),
        get: |config| config.cluster.manifests.display().to_string(),
    },
    Key {
        name: "cluster.start_jitter_seconds",
        flag: None,
        allowed: "0 to 600",
        text: "All but pods is asked of the API within this time after the start, so that a roll-out is not felt there.",
        set: |config, text| put(&mut config.cluster.start_jitter_seconds, text),
        get: |config| config.cluster.start_jitter_seconds.to_string(),
    },
    Key {
        name: "cluster.events",
        flag: None,
        allowed: "true or false",
        text: "Write Kubernetes events on pods whose findings open and end; at most 120 an hour a node.",
        set: |config, text| put(&mut config.cluster.events, text),
        get: |config| config.cluster.events.to_string(),
    },
    Key {
        name: "cluster.remote_lookup",
        flag: None,
        allowed: "true or false",
        text: "Ask the API which pod has the address of a remote peer; one question a second at most, each a look through all pods of the server's cache.",
        set: |config, text| put(&mut config.cluster.remote_lookup, text),
        get: |config| config.cluster.remote_lookup.to_string(),
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
        name: "roots.etc",
        flag: None,
        allowed: "an absolute path",
        text: "Where the host's `/etc` is mounted.",
        set: |config, text| put(&mut config.roots.etc, text),
        get: |config| config.roots.etc.display().to_string(),
    },
    Key {
        name: "roots.run",
        flag: None,
        allowed: "an absolute path",
        text: "Where the host's `/run` is mounted.",
        set: |config, text| put(&mut config.roots.run, text),
        get: |config| config.roots.run.display().to_string(),
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
        name: "capacity.low_percent",
        flag: None,
        allowed: "50 to 98",
        text: "From this part of its limit on a resource is low (`capacity-low`), where running things break without it. Memory from 95 on, unless tasks wait for it, and disks from 90 on.",
        set: |config, text| put(&mut config.capacity.low_percent, text),
        get: |config| config.capacity.low_percent.to_string(),
    },
    Key {
        name: "capacity.low_within_seconds",
        flag: None,
        allowed: "60 to 86400",
        text: "A resource is low as well when it is used up within this time at its present pace.",
        set: |config, text| put(&mut config.capacity.low_within_seconds, text),
        get: |config| config.capacity.low_within_seconds.to_string(),
    },
    Key {
        name: "capacity.pod_cpu_milli",
        flag: None,
        allowed: "0 to 1000000",
        text: "CPU request, thousandths of a core, of the pod of which it is said how many more fit. All four of these 0: what the node's pods usually ask for.",
        set: |config, text| put(&mut config.capacity.pod_cpu_milli, text),
        get: |config| config.capacity.pod_cpu_milli.to_string(),
    },
    Key {
        name: "capacity.pod_memory_mib",
        flag: None,
        allowed: "0 to 67108864",
        text: "Memory request of that pod, MiB.",
        set: |config, text| put(&mut config.capacity.pod_memory_mib, text),
        get: |config| config.capacity.pod_memory_mib.to_string(),
    },
    Key {
        name: "capacity.pod_volumes",
        flag: None,
        allowed: "0 to 128",
        text: "EBS volumes of that pod.",
        set: |config, text| put(&mut config.capacity.pod_volumes, text),
        get: |config| config.capacity.pod_volumes.to_string(),
    },
    Key {
        name: "capacity.pod_branch",
        flag: None,
        allowed: "true or false",
        text: "That pod has security groups of its own, so a branch interface.",
        set: |config, text| put(&mut config.capacity.pod_branch, text),
        get: |config| config.capacity.pod_branch.to_string(),
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
    Key {
        name: "collect.cadence_percent",
        flag: None,
        allowed: "5 to 250",
        text: "Time between two looks at the node's ceilings, in percent of each source's own (10 s to 5 min).",
        set: |config, text| put(&mut config.collect.cadence_percent, text),
        get: |config| config.collect.cadence_percent.to_string(),
    },
    Key {
        name: "collect.ipamd_metrics",
        flag: None,
        allowed: "an address and port on loopback, unix:PATH, or off",
        text: "Where ipamd serves its metrics.",
        set: |config, text| put(&mut config.collect.ipamd_metrics, text),
        get: |config| String::from(config.collect.ipamd_metrics.clone()),
    },
    Key {
        name: "collect.ipamd_introspection",
        flag: None,
        allowed: "an address and port on loopback, unix:PATH, or off",
        text: "Where ipamd serves its introspection.",
        set: |config, text| put(&mut config.collect.ipamd_introspection, text),
        get: |config| String::from(config.collect.ipamd_introspection.clone()),
    },
    Key {
        name: "collect.ebs_metrics",
        flag: None,
        allowed: "an address and port on loopback, unix:PATH, or off",
        text: "Where the node pod of the EBS CSI driver serves its metrics.",
        set: |config, text| put(&mut config.collect.ebs_metrics, text),
        get: |config| String::from(config.collect.ebs_metrics.clone()),
    },
    Key {
        name: "collect.inotify",
        flag: None,
        allowed: "true or false",
        text: "Count inotify instances and watches of each user. Slow: reads what every process has open, and needs `CAP_SYS_PTRACE`.",
        set: |config, text| put(&mut config.collect.inotify, text),
        get: |config| config.collect.inotify.to_string(),
    },
    Key {
        name: "collect.imds",
        flag: None,
        allowed: "true or false",
        text: "Ask the EC2 metadata service, once, for the instance's type where the firmware does not tell it (Xen instances).",
        set: |config, text| put(&mut config.collect.imds, text),
        get: |config| config.collect.imds.to_string(),
    },
    Key {
        name: "collect.container_allotment",
        flag: None,
        allowed: "0 to 4294967295; 0: none",
        text: "Containers a node that a bill includes, for the resource `containers`.",
        set: |config, text| put(&mut config.collect.container_allotment, text),
        get: |config| config.collect.container_allotment.to_string(),
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

/// Lists come as YAML, of which JSON is a part.
fn put_yaml<T: serde::de::DeserializeOwned>(place: &mut T, text: &str) -> bool {
    match serde_yaml_ng::from_str(text) {
        Ok(value) => {
            *place = value;
            true
        }
        Err(_) => false,
    }
}

fn yaml_line<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
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
