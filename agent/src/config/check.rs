//! Ranges, and what two keys must agree on.

use std::ops::RangeInclusive;
use std::path::Path;

use agent_core::papers::waivers::MAX_WAIVERS;

use super::aws::{FLEET_NODES, REFRESH_SECONDS, is_region};
use super::capacity::{LOW_PERCENT, LOW_WITHIN_SECONDS, POD_CPU_MILLI, POD_MEMORY_MIB, POD_VOLUMES};
use super::export::{FILE_BYTES, FILES, INTERVAL_SECONDS};
use super::key::key;
use super::layers::Origins;
use super::{Config, Error, Listen};

/// `sun_path` of `unix(7)` is 108 bytes with its NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Longest name of a node in Kubernetes (a DNS subdomain).
const NODE_NAME_CHARS_MAX: usize = 253;
/// EC2's default quota of groups per interface, and what it can be raised to.
const GROUPS: RangeInclusive<u32> = 5..=16;
const TOKEN_HOURS: RangeInclusive<u32> = 24..=720;
const FOLD_SECONDS: RangeInclusive<u32> = 1..=300;
/// Files of a sixteenth of 64 MiB still take transactions of some size.
const HISTORY_BYTES: RangeInclusive<u64> = 1 << 26..=1 << 40;
const HISTORY_DAYS: RangeInclusive<u32> = 1..=3_650;
const START_JITTER: RangeInclusive<u32> = 0..=600;
const SERIES: RangeInclusive<u32> = 100..=100_000;
/// One page to 64 MiB; the kernel takes powers of two only.
const RING_BYTES: RangeInclusive<u32> = 4_096..=67_108_864;
/// What the core takes for fresh rests on the greatest: 75 s and 750 s between looks at sources of 30 s and five minutes.
const CADENCE_PERCENT: RangeInclusive<u32> = 5..=250;
const SOCKETS: RangeInclusive<u32> = 16..=1_048_576;
/// More than any node has processors.
const CPU_PERCENT: RangeInclusive<u32> = 0..=6_400;

/// The first key whose value cannot be used.
pub(super) fn check(config: &Config, origins: &Origins) -> Result<(), Error> {
    let Config {
        node_name,
        standalone,
        data_dir,
        socket,
        fold_seconds,
        history,
        metrics,
        findings,
        cluster,
        aws,
        roots,
        processes: _,
        capacity,
        kernel,
        collect,
        export,
    } = config;
    let unset_or_absolute = |path: &Path| path.as_os_str().is_empty() || absolute(path);
    let is_set = |path: &Path| !path.as_os_str().is_empty();
    let ring = |bytes: u32| bytes.is_power_of_two() && RING_BYTES.contains(&bytes);
    let loopback = match metrics.listen {
        Listen::Off => true,
        Listen::At(address) => address.ip().to_canonical().is_loopback(),
    };
    let found = [
        ("node_name", node_name.chars().count() <= NODE_NAME_CHARS_MAX && !node_name.contains(unprintable)),
        ("data_dir", absolute(data_dir)),
        ("socket", absolute(socket) && socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX),
        ("history.max_bytes", HISTORY_BYTES.contains(&history.max_bytes)),
        ("history.max_days", HISTORY_DAYS.contains(&history.max_days)),
        ("history.free_percent", history.free_percent <= 90),
        ("fold_seconds", FOLD_SECONDS.contains(fold_seconds)),
        ("metrics.listen", loopback),
        ("metrics.secure_listen", !*standalone || metrics.secure_listen == Listen::Off),
        ("metrics.tls_cert_file", unset_or_absolute(&metrics.tls_cert_file)),
        (
            "metrics.tls_key_file",
            unset_or_absolute(&metrics.tls_key_file) && is_set(&metrics.tls_cert_file) == is_set(&metrics.tls_key_file),
        ),
        ("metrics.max_series", SERIES.contains(&metrics.max_series)),
        (
            "findings.waivers",
            findings.waivers.len() <= MAX_WAIVERS && findings.waivers.iter().all(|one| one.check().is_ok()),
        ),
        ("findings.cluster_security_groups", findings.cluster_security_groups.iter().all(|group| is_group(group))),
        ("findings.irsa_annotation_prefix", is_prefix(&findings.irsa_annotation_prefix)),
        ("findings.token_window_hours", TOKEN_HOURS.contains(&findings.token_window_hours)),
        ("findings.max_groups", GROUPS.contains(&findings.max_groups)),
        ("findings.veth_prefix", is_veth_prefix(&findings.veth_prefix)),
        ("cluster.kubeconfig", unset_or_absolute(&cluster.kubeconfig)),
        (
            "cluster.manifests",
            unset_or_absolute(&cluster.manifests) && (*standalone || cluster.manifests.as_os_str().is_empty()),
        ),
        ("cluster.start_jitter_seconds", START_JITTER.contains(&cluster.start_jitter_seconds)),
        ("aws.region", aws.region.is_empty() || is_region(&aws.region)),
        ("aws.endpoint", aws.endpoint_is_good()),
        ("aws.fleet_nodes", FLEET_NODES.contains(&aws.fleet_nodes)),
        ("aws.refresh_seconds", REFRESH_SECONDS.contains(&aws.refresh_seconds)),
        ("roots.proc", absolute(&roots.proc)),
        ("roots.sys", absolute(&roots.sys)),
        ("roots.cgroup", unset_or_absolute(&roots.cgroup)),
        ("roots.etc", absolute(&roots.etc)),
        ("roots.run", absolute(&roots.run)),
        ("capacity.low_percent", LOW_PERCENT.contains(&capacity.low_percent)),
        ("capacity.low_within_seconds", LOW_WITHIN_SECONDS.contains(&capacity.low_within_seconds)),
        ("capacity.pod_cpu_milli", POD_CPU_MILLI.contains(&capacity.pod_cpu_milli)),
        ("capacity.pod_memory_mib", POD_MEMORY_MIB.contains(&capacity.pod_memory_mib)),
        ("capacity.pod_volumes", POD_VOLUMES.contains(&capacity.pod_volumes)),
        ("kernel.metadata_ring_bytes", ring(kernel.metadata_ring_bytes)),
        ("kernel.lifecycle_ring_bytes", ring(kernel.lifecycle_ring_bytes)),
        ("kernel.bulk_ring_bytes", ring(kernel.bulk_ring_bytes)),
        ("kernel.max_sockets", SOCKETS.contains(&kernel.max_sockets)),
        ("kernel.cpu_percent", CPU_PERCENT.contains(&kernel.cpu_percent)),
        ("collect.cadence_percent", CADENCE_PERCENT.contains(&collect.cadence_percent)),
        ("collect.ipamd_metrics", collect.ipamd_metrics.is_local()),
        ("collect.ipamd_introspection", collect.ipamd_introspection.is_local()),
        ("collect.ebs_metrics", collect.ebs_metrics.is_local()),
        ("export.file.path", unset_or_absolute(&export.file.path)),
        ("export.file.max_bytes", FILE_BYTES.contains(&export.file.max_bytes)),
        ("export.file.files", FILES.contains(&export.file.files)),
        (
            "export.otlp.endpoint",
            export.otlp.endpoint_is_good() && (history.enabled || export.otlp.endpoint.is_empty()),
        ),
        ("export.otlp.headers_env", export.otlp.headers_env_is_good()),
        ("export.otlp.ca_file", unset_or_absolute(&export.otlp.ca_file)),
        ("export.otlp.interval_seconds", INTERVAL_SECONDS.contains(&export.otlp.interval_seconds)),
    ];
    match found.into_iter().find(|(_, good)| !good) {
        None => Ok(()),
        Some((name, _)) => Err(refused(name, config, origins)),
    }
}

fn refused(name: &'static str, config: &Config, origins: &Origins) -> Error {
    let (value, allowed) = key(name).map_or((String::new(), ""), |key| ((key.get)(config), key.allowed));
    let origin = origins.get(name).cloned().unwrap_or_else(|| "default".to_owned());
    Error::Value { key: name, value, origin, allowed }
}

/// `sg-` and hexadecimal digits.
fn is_group(id: &str) -> bool {
    id.strip_prefix("sg-")
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A DNS subdomain, as prefixes of annotations are.
fn is_prefix(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !text.is_empty() && text.len() <= NODE_NAME_CHARS_MAX && text.bytes().all(is_letter)
}

/// As the CNI takes it: `getEniVethPrefix` of aws/amazon-vpc-cni-k8s refuses what other interfaces are called.
fn is_veth_prefix(text: &str) -> bool {
    (1..=4).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && !["eth", "vlan", "lo"].contains(&text)
}

fn absolute(path: &Path) -> bool {
    path.is_absolute()
}

fn unprintable(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}
