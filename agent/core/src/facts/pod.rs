//! A pod, as the API server or a manifest shows it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::IdentityEnv;
use crate::capacity::CniEnvironment;
use crate::time::WallNs;

/// What is kept of a pod.
#[expect(clippy::struct_excessive_bools, reason = "marks of an object, independent of each other")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodFacts {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name; of a template without one, what the workload's pods would be called, up to the random part.
    pub name: Arc<str>,
    /// `metadata.uid`; `None`: not admitted yet, as in a manifest.
    pub uid: Option<Arc<str>>,
    /// `kubernetes.io/config.hash` of a mirror pod: what a static pod's cgroup carries instead of the uid.
    pub config_hash: Option<Arc<str>>,
    /// `metadata.creationTimestamp`.
    pub created: Option<WallNs>,
    /// When the labels were last written by somebody other than at creation, from `managedFields`; `None` when they do not tell.
    pub labels_changed: Option<WallNs>,
    /// A deletion is under way.
    pub deleting: bool,
    /// `status.phase`; `None` without a status.
    pub phase: Option<Phase>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `spec.nodeName`.
    pub node: Option<Arc<str>>,
    /// `status.podIPs`, else `status.podIP`; addresses that are none are left out.
    pub ips: Vec<IpAddr>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.serviceAccountName`; `default` when absent.
    pub service_account: Arc<str>,
    /// Who owns it.
    pub workload: WorkloadRef,
    /// Containers in the order of the object: init (with sidecars), then the others, then ephemeral ones.
    pub containers: Vec<ContainerFacts>,
    /// Annotation `vpc.amazonaws.com/pod-eni`.
    pub branch: Branch,
    /// Sum of `vpc.amazonaws.com/pod-eni` over the limits of all containers, as the controller counts.
    pub branch_limit: u32,
    /// The first container's limits ask for a branch interface, as the CNI looks.
    pub first_container_branch_limit: bool,
    /// Label `eks.amazonaws.com/fargate-profile`.
    pub fargate: bool,
    /// The node selector asks for Windows.
    pub windows: bool,
    /// Annotation `eks.amazonaws.com/skip-containers`.
    pub skip_containers: Vec<String>,
    /// Label `eks.amazonaws.com/skip-pod-identity-webhook`.
    pub skip_identity_webhook: bool,
    /// Label `eks.amazonaws.com/pod-identity` is `enabled`.
    pub pod_identity_label: bool,
    /// Has the projected volume `aws-iam-token`.
    pub irsa_volume: bool,
    /// Has the projected volume `eks-pod-identity-token`.
    pub pod_identity_volume: bool,
    /// A service account token is mounted (`automountServiceAccountToken`, or a projected token for the API server).
    pub api_token_mounted: bool,
    /// How that token gets there; `None`: there is none, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_token: Option<TokenMount>,
    /// What the scheduler counts.
    pub requests: Requests,
    /// `status.startTime`.
    pub started: Option<WallNs>,
    /// Condition `Ready` is true.
    pub ready: bool,
    /// Runs inside a virtual machine or another sandbox of its own (`runtimeClassName` is set): its traffic is not its
    /// sockets' traffic.
    pub runtime_class: Option<String>,
    /// Annotation `ambient.istio.io/redirection` is `enabled`: Istio's CNI has turned the pod's TCP to the node's proxy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ambient: bool,
    /// Who resolves its names.
    #[serde(default)]
    pub dns: Dns,
    /// What the VPC CNI on this node is set to; `None`: this is not its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni: Option<Box<CniEnvironment>>,
}

/// Who resolves a pod's names: `spec.dnsPolicy` and `spec.dnsConfig`
/// (<https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-dns-policy>).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dns {
    /// Not told, or by a policy that nobody knows.
    #[default]
    Unknown,
    /// The cluster's: `ClusterFirst` of a pod with a network of its own, `ClusterFirstWithHostNet`.
    Cluster,
    /// The node's: `Default`, and `ClusterFirst` on the node's network.
    Node,
    /// These, as `None` names them; three at the most.
    Named(Vec<IpAddr>),
}

/// How a token for the API server gets into a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenMount {
    /// By admission, which nobody told not to: `automountServiceAccountToken`.
    Automounted,
    /// By a projected volume that the pod asks for itself.
    Projected,
    /// From a Secret that never ends, where clients look for a token.
    Secret,
}

impl TokenMount {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Automounted => "mounted by admission",
            Self::Projected => "a projected volume of the pod",
            Self::Secret => "a token of a Secret, which does not expire",
        }
    }
}

/// Owner of a pod as people name it: the Deployment behind a `ReplicaSet`, the `CronJob` behind a Job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkloadRef {
    /// Kind, as `Deployment`; `Pod` for a pod without an owner; `Node` for a static pod.
    pub kind: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// See `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not all containers run yet.
    Pending,
    /// Bound, and containers were started.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, one of them badly.
    Failed,
    /// The node was not heard of, or a phase that nobody knows.
    Unknown,
}

/// A container of a pod.
#[expect(clippy::struct_excessive_bools, reason = "marks of an object, independent of each other")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFacts {
    /// Name.
    pub name: Arc<str>,
    /// Which list it stands in.
    pub kind: ContainerKind,
    /// `image` as the spec names it.
    pub image: Arc<str>,
    /// Ids of `status.containerID` and `lastState.terminated.containerID`, without the runtime's prefix.
    pub ids: Vec<Arc<str>>,
    /// It runs.
    pub running: bool,
    /// Startup probe passed, or none was asked for (`status.started`).
    pub started: bool,
    /// What its environment says about AWS credentials.
    pub identity: IdentityEnv,
    /// Its probes.
    pub probes: Vec<ProbeFacts>,
    /// Mounts the projected volume `aws-iam-token`.
    pub irsa_mount: bool,
    /// Mounts the projected volume `eks-pod-identity-token`.
    pub pod_identity_mount: bool,
}

/// Which list of the pod a container stands in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerKind {
    /// `spec.containers`.
    #[default]
    App,
    /// `spec.initContainers`.
    Init,
    /// `spec.initContainers` with `restartPolicy: Always`.
    Sidecar,
    /// `spec.ephemeralContainers`.
    Ephemeral,
}

/// A probe that the kubelet makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFacts {
    /// How.
    pub kind: ProbeKind,
    /// Port, names resolved; `None` for exec, and when the name stands for no port.
    pub port: Option<u16>,
    /// `timeoutSeconds`, default 1.
    pub timeout_s: u32,
    /// `periodSeconds`, default 10.
    pub period_s: u32,
}

/// How the kubelet probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// By HTTP or HTTPS.
    Http,
    /// By a TCP connection.
    Tcp,
    /// By gRPC's health protocol.
    Grpc,
    /// By a program in the container: no traffic.
    Exec,
}

/// The annotation `vpc.amazonaws.com/pod-eni`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Branch {
    /// Not there.
    #[default]
    Absent,
    /// There, and not what the controller writes: why.
    Malformed(String),
    /// Branch interfaces, at most [`Branch::MAX`].
    Interfaces(Vec<BranchInterface>),
}

impl Branch {
    /// More interfaces than this make an annotation malformed: a pod has one, with several network cards one a card.
    pub const MAX: usize = 16;
}

/// A branch interface as the controller wrote it into the annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchInterface {
    /// `eniId`.
    pub id: Arc<str>,
    /// `ifAddress`, lower case.
    pub mac: Arc<str>,
    /// `privateIp`.
    pub ipv4: Option<IpAddr>,
    /// `ipv6Addr`.
    pub ipv6: Option<IpAddr>,
    /// `vlanId`.
    pub vlan_id: u16,
    /// `subnetCidr`.
    pub subnet: Option<String>,
}

/// What the scheduler counts for a pod: the greater of the sum over app and sidecar containers and the greatest init
/// container, plus overhead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// CPU, thousandths of a core.
    pub cpu_milli: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Volumes by a persistent volume claim (ephemeral ones included).
    pub claims: u32,
}
