//! What the Engine says: rows for people and programs. The JSON form is the documented one, schema `sekisho/1`.

mod finding;
mod json;
mod object;
mod rtt;
mod sg;
mod text;

use std::net::IpAddr;
use std::sync::Arc;

use agent_ebpf::wire::{Direction, Outcome, Service};
use serde::{Deserialize, Serialize};

pub use self::finding::{CapacityRow, Exhaustion, FindingRow, PoolAdvice, PoolRow, ResourceRow, State};
pub use self::json::{Envelope, SCHEMA};
pub use self::object::{Change, ObjectFacts, ObjectKind, ObjectRow};
pub use self::rtt::{RTT_BOUNDS_US, RttHistogram};
pub use self::sg::{JudgedBy, SgRow, SgVerdict, SgWhy};

use crate::books::Records;
use crate::input::{Category, GapCause, ImdsVersion, MetadataOutcome, Method};
use crate::time::WallNs;

/// One thing that the Engine says.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A folded row of connections.
    Flow(Box<FlowRow>),
    /// A metadata request.
    Metadata(Box<MetadataRow>),
    /// A process started a program.
    Process(Box<ProcessRow>),
    /// A span of time that is not covered.
    Gap(GapRow),
    /// A finding opened, was accepted, changed or was resolved.
    Finding(Box<FindingRow>),
    /// The node's ceilings.
    Capacity(Box<CapacityRow>),
    /// An object of the cluster came, changed or went.
    Object(Box<ObjectRow>),
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Who {
    /// Pod, container or unit.
    #[serde(flatten)]
    pub identity: Arc<Identity>,
    /// The process, when known.
    pub process: Option<Arc<ProcessView>>,
}

/// What a cgroup belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Identity {
    /// `pod`, `container` (outside Kubernetes), `host` (a process outside any container) or `unknown`.
    pub attribution: AttributionKind,
    /// Why it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// Namespace; empty when not known.
    pub namespace: String,
    /// Pod name; empty when not known or no pod.
    pub pod: String,
    /// Pod UID as the cgroup path tells it; empty when no pod.
    pub uid: String,
    /// Container id (or name, once known); empty on the host.
    pub container: String,
    /// Owner of the pod; in standalone mode the unit or the container.
    pub workload: String,
}

/// See [`Identity::attribution`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttributionKind {
    /// A container of a pod.
    Pod,
    /// A container outside Kubernetes.
    Container,
    /// A process outside any container.
    Host,
    /// Cannot tell.
    #[default]
    Unknown,
}

/// A process as rows show it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ProcessView {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Path as given to `execve` (or as /proc shows it for processes older than the agent); `None` when not known.
    pub exe: Option<String>,
    /// Path behind `/proc/PID/exe`: absolute, links resolved, for a script the interpreter. `None` when it was gone too soon.
    pub exe_resolved: Option<String>,
    /// The name it gave itself.
    pub comm: String,
    /// Arguments, redacted; absent unless switched on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Parent first.
    pub ancestors: Vec<Ancestor>,
    /// How the process was tied to the socket.
    pub by: By,
}

/// An ancestor of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Ancestor {
    /// Process id.
    pub pid: u32,
    /// The name it gave itself.
    pub comm: String,
    /// Path of its program, when known.
    pub exe: Option<String>,
}

/// How a process was tied to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// It called connect.
    Connect,
    /// It closed the socket, or shut it down.
    Close,
    /// It called listen (in a prefork server the parent).
    Listen,
    /// It sent the (first) datagram or request.
    Send,
    /// It is the subject of the row itself.
    Exec,
    /// It held the socket when the agent started; who made it is not known.
    Hold,
}

/// A span of wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// First moment.
    pub start: WallNs,
    /// Last moment.
    pub end: WallNs,
}

/// An address of this node or pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Local {
    /// Address; `None` where the connection never got one, and in rows that merge many.
    pub ip: Option<String>,
}

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Peer {
    /// Address; `None` in rows that merge many peers.
    pub ip: Option<String>,
    /// Bounded class.
    pub class: PeerClass,
    /// DNS name, when known; of a service's address `SERVICE.NAMESPACE.svc`.
    pub name: Option<String>,
    /// Namespace of the peer pod or service.
    pub namespace: Option<String>,
    /// Name of a peer pod, or container or unit, on this node.
    pub pod: Option<String>,
}

/// Who answers behind a service address: the packets' real destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActualPeer {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
}

/// What carries a flow of an application that asked for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// A proxy in the pod, to which the pod's connections are redirected.
    Sidecar,
    /// A proxy of the node.
    Ambient,
}

/// Kind of peer; a wrong class is worse than `unknown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerClass {
    /// EC2 instance metadata.
    Imds,
    /// EKS Pod Identity agent.
    PodIdentity,
    /// The Kubernetes API.
    KubeApi,
    /// An address of this node, loopback included.
    NodeLocal,
    /// A pod of this cluster.
    ClusterPod,
    /// A Kubernetes service address.
    Service,
    /// Inside the VPC's CIDRs.
    Vpc,
    /// A published address of an AWS service.
    AwsService,
    /// A public address that is nothing of the above.
    Internet,
    /// Cannot tell.
    #[default]
    Unknown,
}

/// `tcp` or `udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A folded row of connections: one per container, executable, direction, local address, peer address, service port,
/// protocol and outcome, every ten seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowRow {
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// The fold.
    pub window: Window,
    /// `outbound`, `inbound` or `unknown` (a socket older than the agent).
    pub direction: &'static str,
    /// TCP or UDP; `None` in rows of kernel totals, which do not tell them apart.
    pub protocol: Option<Protocol>,
    /// This end.
    pub local: Local,
    /// The other end.
    pub peer: Peer,
    /// The backend behind a service address, or the proxy in the pod to which the connections were turned (a loopback
    /// address); `None` where the peer is neither, or who answers is not known for certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual_peer: Option<ActualPeer>,
    /// What of a mesh carries it: the flow is the proxy's own, or of a pod whose TCP the node's proxy carries; `None`: nothing,
    /// as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// The listening side's port; `None` when the direction is unknown or the row merges many.
    pub service_port: Option<u16>,
    /// How the connections ended; `None` in rows of connections that are still open.
    pub outcome: Option<&'static str>,
    /// Connections that ended in this fold with this outcome.
    pub connections: u64,
    /// Connections that were reported open in this fold and did not end in it.
    pub open: u64,
    /// Distinct processes; `who.process` is the first. A lower bound in a fold that sees more of them than
    /// [`crate::flow::MAX_PROCESSES`].
    pub processes: u64,
    /// Payload bytes sent in this fold.
    pub bytes_sent: u64,
    /// Payload bytes received in this fold.
    pub bytes_received: u64,
    /// Retransmitted segments; `None` for UDP.
    pub retransmits: Option<u64>,
    /// Greatest smoothed round trip time of the row's connections, microseconds; `None` when not measured.
    pub rtt_us: Option<u32>,
    /// The row holds totals that found the ring full, the pod over its budget or the fold full of rows: exact, without
    /// peer and process. In rows of kernel totals `outbound` includes connections of unknown direction, and the bytes
    /// stand in a row of their own, of unknown direction and without outcome.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub merged: bool,
    /// Some of its sockets are older than the agent: bytes count from the agent's start.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preexisting: bool,
    /// What security groups say of it; `None`: no policy is about the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sg: Option<Box<SgRow>>,
    /// Round trip times of the row's connections that ended, one observation each.
    #[serde(skip)]
    pub rtt: RttHistogram,
    /// Records that the row was made from, for the books.
    #[serde(skip)]
    pub records: Records,
}

impl FlowRow {
    /// Whether it is of a pod with a network of its own that talks to itself: an application and its sidecar, say, whether it
    /// was asked for the sidecar or turned to it. That is no traffic. (A process of the node talks to the node, whose class
    /// tells.)
    pub fn is_within_pod(&self) -> bool {
        if self.is_redirected() {
            return true;
        }
        let Some(peer) = self.peer.ip.as_deref() else { return false };
        let local = self.local.ip.as_deref();
        // Where connections are turned to a proxy, it has a loopback address, and the pod's own one is the peer's.
        let is_loopback = |ip: &str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let is_inside = || local == Some(peer) || is_loopback(peer) || local.is_some_and(is_loopback);
        self.peer.class == PeerClass::ClusterPod && is_inside()
    }

    /// Whether its connections were turned to a proxy in their own network namespace, who makes others in their place.
    pub fn is_redirected(&self) -> bool {
        self.actual_peer.is_some_and(|actual| actual.ip.is_loopback())
    }
}

/// A metadata request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetadataRow {
    /// When it was sent.
    #[serde(skip)]
    pub time: WallNs,
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// `imds` or `pod_identity`.
    pub service: &'static str,
    /// `v1`, `v2` or `none`.
    pub version: ImdsVersion,
    /// Method; `None` when no request was seen.
    pub method: Option<Method>,
    /// Class of the path; `None` when no request was seen.
    pub category: Option<Category>,
    /// Role named in the path.
    pub role: Option<String>,
    /// Access key id of a credentials answer.
    pub access_key_id: Option<String>,
    /// X-Forwarded-For.
    pub forwarded_for: Option<String>,
    /// HTTP status.
    pub status: Option<u16>,
    /// Time to live of the answer's first packet.
    pub response_ttl: Option<u8>,
    /// Body bytes of the answer.
    pub response_bytes: Option<u64>,
    /// What came of it.
    pub outcome: MetadataOutcome,
    /// Request's first byte to answer's first byte.
    pub latency_us: Option<u64>,
    /// The client's address.
    pub local: Local,
    /// Where in the ring it began; not shown.
    #[serde(skip)]
    pub origin: Option<crate::continuity::Origin>,
}

/// A process started a program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessRow {
    /// When.
    #[serde(skip)]
    pub time: WallNs,
    /// Who, the process included.
    #[serde(flatten)]
    pub who: Who,
    /// Real user id.
    pub uid_number: u32,
}

/// A span of time that is not covered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GapRow {
    /// First moment not covered.
    pub start: WallNs,
    /// First moment covered again.
    pub end: WallNs,
    /// Why.
    pub cause: GapCause,
    /// Records known to be lost, by kind; absent kinds are unknown.
    pub records_lost: std::collections::BTreeMap<&'static str, u64>,
}

/// Name of a direction in rows and labels.
pub fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Unknown => "unknown",
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
    }
}

/// Name of an outcome in rows and labels.
pub fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Established => "established",
        Outcome::Refused => "refused",
        Outcome::TimedOut => "timed_out",
        Outcome::Reset => "reset",
        Outcome::Unreachable => "unreachable",
        Outcome::Denied => "denied",
        Outcome::Aborted => "aborted",
        Outcome::OneWay => "one_way",
    }
}

/// Name of a metadata service in rows and labels.
pub fn service_name(service: Service) -> &'static str {
    match service {
        Service::Imds => "imds",
        Service::PodIdentity => "pod_identity",
    }
}

/// The name that a field-less variant has in JSON.
pub(crate) fn name_of(value: &impl Serialize) -> String {
    serde_json::to_string(value).map(|name| name.trim_matches('"').to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
