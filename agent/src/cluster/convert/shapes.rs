//! The fields that are read, named as the API names them. Everything else of an object is passed over.

use std::collections::BTreeMap;

use agent_core::time::WallNs;
use serde::Deserialize;
use serde_json::Value;

use super::{Converted, Malformed};

/// Texts by name.
pub(super) type Texts = BTreeMap<String, String>;

/// What an object says of itself before anything else is known of it.
pub(super) struct Head {
    pub(super) group: String,
    pub(super) kind: String,
    object: String,
}

/// Any object with metadata.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Object<S> {
    pub(super) metadata: Meta,
    pub(super) spec: S,
}

/// `metadata`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) generate_name: String,
    pub(super) namespace: String,
    pub(super) uid: Option<String>,
    pub(super) generation: Option<i64>,
    pub(super) creation_timestamp: Option<WallNs>,
    pub(super) deletion_timestamp: Option<WallNs>,
    pub(super) labels: Texts,
    pub(super) annotations: Texts,
    pub(super) owner_references: Vec<Owner>,
    pub(super) managed_fields: Vec<Managed>,
}

/// One of `metadata.ownerReferences`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) controller: bool,
}

/// One of `metadata.managedFields`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Managed {
    pub(super) time: Option<WallNs>,
    #[serde(rename = "fieldsV1")]
    pub(super) fields: Value,
    pub(super) subresource: String,
}

/// `Pod`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Pod {
    pub(super) metadata: Meta,
    pub(super) spec: PodSpec,
    pub(super) status: PodStatus,
}

/// `spec` of a pod or a template.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: Option<String>,
    pub(super) host_network: bool,
    pub(super) node_selector: Texts,
    pub(super) service_account_name: String,
    /// The old name of the same field, which the API server still fills in and still reads.
    pub(super) service_account: String,
    pub(super) automount_service_account_token: Option<bool>,
    pub(super) runtime_class_name: Option<String>,
    pub(super) overhead: BTreeMap<String, Value>,
    pub(super) resources: Resources,
    pub(super) containers: Vec<Container>,
    pub(super) init_containers: Vec<Container>,
    pub(super) ephemeral_containers: Vec<Container>,
    pub(super) volumes: Vec<Volume>,
    pub(super) dns_policy: String,
    pub(super) dns_config: DnsConfig,
}

/// `spec.dnsConfig`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct DnsConfig {
    pub(super) nameservers: Vec<String>,
}

/// A container.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) restart_policy: String,
    pub(super) env: Vec<Variable>,
    pub(super) env_from: Vec<Value>,
    pub(super) ports: Vec<Port>,
    pub(super) resources: Resources,
    pub(super) volume_mounts: Vec<Mount>,
    pub(super) liveness_probe: Option<Probe>,
    pub(super) readiness_probe: Option<Probe>,
    pub(super) startup_probe: Option<Probe>,
}

/// One of `env`. Its value goes no further than [`super::container`], which keeps what the SDKs look at, and
/// [`super::cni`], which keeps the settings of the VPC CNI.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) value_from: Option<Present>,
}

/// Something of which only the presence matters.
#[derive(Default, Deserialize)]
pub(super) struct Present {}

/// One of `ports`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) container_port: u16,
}

/// `resources`. Quantities may be texts or numbers.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Resources {
    pub(super) limits: BTreeMap<String, Value>,
    pub(super) requests: BTreeMap<String, Value>,
}

/// One of `volumeMounts`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) name: String,
    pub(super) mount_path: String,
}

/// A probe of the kubelet.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Probe {
    pub(super) http_get: Option<ProbePort>,
    pub(super) tcp_socket: Option<ProbePort>,
    pub(super) grpc: Option<ProbePort>,
    pub(super) exec: Option<Present>,
    pub(super) timeout_seconds: Option<u32>,
    pub(super) period_seconds: Option<u32>,
}

/// Where a probe goes: a number or the name of a port.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ProbePort {
    pub(super) port: Value,
}

/// One of `volumes`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) projected: Option<Projected>,
    pub(super) secret: Option<Present>,
    pub(super) persistent_volume_claim: Option<Present>,
    pub(super) ephemeral: Option<Present>,
}

/// A projected volume.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Projected {
    pub(super) sources: Vec<ProjectedSource>,
}

/// One source of a projected volume.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ProjectedSource {
    pub(super) service_account_token: Option<Token>,
}

/// A projected token.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Token {
    pub(super) audience: String,
}

/// `status` of a pod.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) phase: Option<String>,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: String,
    #[serde(rename = "podIPs")]
    pub(super) pod_ips: Vec<PodIp>,
    pub(super) start_time: Option<WallNs>,
    pub(super) conditions: Vec<Condition>,
    pub(super) container_statuses: Vec<ContainerStatus>,
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    pub(super) ephemeral_container_statuses: Vec<ContainerStatus>,
}

/// One of `status.podIPs`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct PodIp {
    pub(super) ip: String,
}

/// One of `status.conditions`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
}

/// One of `status.containerStatuses`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    #[serde(rename = "containerID")]
    pub(super) container_id: String,
    pub(super) started: Option<bool>,
    pub(super) state: ContainerState,
    pub(super) last_state: ContainerState,
}

/// State of a container.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerState {
    pub(super) running: Option<Present>,
    pub(super) terminated: Option<Terminated>,
}

/// How a container ended.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Terminated {
    #[serde(rename = "containerID")]
    pub(super) container_id: String,
}

// === impl Head ===

impl Head {
    /// Reads what can be read: this never fails.
    pub(super) fn of(object: &Value) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let version = text(object.get("apiVersion"));
        let group = version.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
        let metadata = object.get("metadata");
        let part = |name: &str| text(metadata.and_then(|metadata| metadata.get(name)));
        let (namespace, mut name) = (part("namespace"), part("name"));
        if name.is_empty() {
            name = part("generateName");
        }
        let kind = text(object.get("kind"));
        let object = if namespace.is_empty() { name } else { format!("{namespace}/{name}") };
        Self { group, kind, object }
    }

    /// An object that says nothing here.
    pub(super) fn skipped(&self) -> Converted {
        if self.kind.is_empty() {
            return Converted::Malformed(self.malformed("kind: expected the name of a kind".to_owned()));
        }
        let kind = if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) };
        Converted::Skipped { kind: super::cut(&kind) }
    }

    /// An object that cannot be read.
    #[expect(clippy::needless_pass_by_value, reason = "fits the error it is made of")]
    pub(super) fn malformed(&self, why: String) -> Malformed {
        Malformed::new(&self.kind, &self.object, &why)
    }
}
