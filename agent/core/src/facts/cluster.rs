//! The cluster: what a watch, a read or a directory of manifests tells.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{NetworkPolicyFacts, PodFacts, PolicyFacts, ServiceFacts};
use crate::time::WallNs;

/// One thing that the cluster tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClusterFact {
    /// All pods of this node; those told before and not among them are gone.
    PodsReplaced(Vec<Arc<PodFacts>>),
    /// A pod came or changed.
    Pod(Arc<PodFacts>),
    /// A pod is gone.
    PodGone {
        /// Its `metadata.uid`.
        uid: Arc<str>,
    },
    /// All policies of the namespaces that matter; an empty list also when their CRD is not installed.
    PoliciesReplaced {
        /// The policies.
        policies: Vec<Arc<PolicyFacts>>,
        /// The CRD is installed.
        installed: bool,
    },
    /// A policy came or changed.
    Policy(Arc<PolicyFacts>),
    /// A policy is gone.
    PolicyGone {
        /// Namespace.
        namespace: Arc<str>,
        /// Name.
        name: Arc<str>,
    },
    /// All `NetworkPolicy` objects of the namespaces that matter, replacing those told before.
    NetworkPoliciesReplaced(Vec<Arc<NetworkPolicyFacts>>),
    /// All services that have addresses; those told before and not among them are gone.
    ServicesReplaced(Vec<Arc<ServiceFacts>>),
    /// A service came or changed.
    Service(Arc<ServiceFacts>),
    /// A service is gone, or has no addresses any more.
    ServiceGone {
        /// Namespace.
        namespace: Arc<str>,
        /// Name.
        name: Arc<str>,
    },
    /// Where the API server listens, by the endpoints of its own service: all of them.
    ApiEndpoints(Vec<SocketAddr>),
    /// A service account was read.
    ServiceAccount(Arc<ServiceAccountFacts>),
    /// A service account is not there.
    ServiceAccountGone {
        /// Namespace.
        namespace: Arc<str>,
        /// Name.
        name: Arc<str>,
    },
    /// This node.
    Node(Arc<NodeFacts>),
    /// How many nodes the cluster has: they share what an account may ask of EC2.
    FleetNodes(u32),
    /// This node's `CNINode`; `None`: there is none.
    CniNode(Option<CniNodeFacts>),
    /// This node's `CSINode`; `None`: there is none.
    CsiNode(Option<CsiNodeFacts>),
    /// What the controller's events about a pod said; asked once per new pod with a branch interface.
    GroupEvents {
        /// The pod's `metadata.uid`.
        uid: Arc<str>,
        /// What was found; empty: none (any more).
        events: Vec<GroupEvent>,
    },
    /// Who has an address that is not this node's, as of a look-up.
    RemotePod(RemotePod),
    /// How a source stands.
    Source {
        /// Which.
        source: Source,
        /// The last moment at which what it told was known to be current: now while a watch stands. `None`: it never answered.
        fresh_at: Option<WallNs>,
        /// Why it does not answer; `None` while it does.
        error: Option<String>,
    },
    /// An object that could not be read: counted, named, left out.
    Malformed {
        /// Which source.
        source: Source,
        /// `namespace/name` as far as known.
        object: String,
        /// What is wrong.
        why: String,
    },
    /// Objects beyond a bound of whoever reads them: counted, left out.
    NoRoom {
        /// Which source.
        source: Source,
        /// How many.
        objects: u64,
    },
}

/// Where cluster facts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Pods of this node.
    Pods,
    /// `SecurityGroupPolicy` objects.
    Policies,
    /// `NetworkPolicy` objects.
    NetworkPolicies,
    /// Service accounts.
    ServiceAccounts,
    /// This node.
    Node,
    /// This node's `CNINode`.
    CniNode,
    /// This node's `CSINode`.
    CsiNode,
    /// Events of the controller.
    Events,
    /// Services.
    Services,
    /// Endpoints of the API server.
    ApiEndpoints,
}

/// What is kept of a service account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAccountFacts {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// `metadata.uid`; `None` in a manifest.
    pub uid: Option<Arc<str>>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Annotation `eks.amazonaws.com/role-arn` (its prefix can be configured).
    pub role_arn: Option<Arc<str>>,
    /// When that annotation was last written, from `managedFields`; `None` when they do not tell.
    pub role_changed: Option<WallNs>,
    /// `metadata.creationTimestamp`.
    pub created: Option<WallNs>,
}

/// What is kept of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Name.
    pub name: Arc<str>,
    /// `node.kubernetes.io/instance-type`.
    pub instance_type: Option<Arc<str>>,
    /// `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// `eks.amazonaws.com/compute-type`: `auto`, `fargate`, `hybrid`; absent on managed and self-managed nodes.
    pub compute_type: Option<Arc<str>>,
    /// `vpc.amazonaws.com/has-trunk-attached`.
    pub trunk_label: Option<Arc<str>>,
    /// `status.addresses` that are addresses.
    pub addresses: Vec<IpAddr>,
    /// `status.allocatable["vpc.amazonaws.com/pod-eni"]`; `None`: absent.
    pub branch_interfaces: Option<u32>,
    /// `status.allocatable.pods`.
    pub pods: Option<u32>,
    /// `status.allocatable.cpu`, thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// `status.allocatable.memory`.
    pub memory_bytes: Option<u64>,
    /// Sum of `status.images[].sizeBytes`.
    pub image_bytes: Option<u64>,
    /// `status.volumesAttached` of the EBS CSI driver: volumes of pods. `None`: not told.
    pub ebs_attached: Option<u32>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
}

/// What is kept of this node's `CNINode`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniNodeFacts {
    /// Has the feature `SecurityGroupsForPods`.
    pub security_groups_for_pods: bool,
    /// Value of the feature `CustomNetworking`: name of an `ENIConfig`.
    pub custom_networking: Option<Arc<str>>,
}

/// What is kept of this node's `CSINode`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsiNodeFacts {
    /// `spec.drivers[name=ebs.csi.aws.com].allocatable.count`; `None`: the driver is not there or names no limit.
    pub ebs_volumes: Option<u32>,
}

/// An event of the VPC resource controller about a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEvent {
    /// What it says.
    pub kind: GroupEventKind,
    /// `lastTimestamp`, else `eventTime`, else `firstTimestamp`.
    pub time: Option<WallNs>,
}

/// What an event of the controller says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupEventKind {
    /// Normal `SecurityGroupRequested`: the pod gets these groups.
    Groups(Vec<Arc<str>>),
    /// Warning `SecurityGroupRequested`: no policy matched any more, the instance's groups are used.
    InstanceGroups,
    /// `ResourceAllocated`.
    Allocated,
    /// `BranchAllocationFailed` or `BranchENIAnnotationFailed`: the message, cut to 256 bytes.
    Failed(String),
}

/// Who had a remote address when it was looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemotePod {
    /// The address.
    pub ip: IpAddr,
    /// The pod, `None`: no pod had it, or more than one.
    pub pod: Option<RemotePodName>,
    /// When it was looked up.
    pub at: WallNs,
}

/// Name of a remote pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemotePodName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub pod: Arc<str>,
}
