//! What the Engine is told: a closed enum, free of secrets, so that a recorded log of it may be kept and replayed.
//!
//! Inputs from the rings are made by the decoder alone. Inputs about the node (processes and cgroups that are older
//! than the agent, the node's addresses) are made at the edge by whoever read them.

use std::net::{IpAddr, Ipv6Addr};

use agent_ebpf::shared::{Account, FATES, KINDS};
use agent_ebpf::wire::{Direction, Kind, Outcome, Owner, Service, Tuple};

use serde::{Deserialize, Serialize};

use crate::continuity::{Adopted, Losses, Origin, Place};
use crate::dns::DnsFact;
use crate::facts::{ClusterFact, Ec2Fact, HostFact};
use crate::time::{BootNs, WallNs};

/// One thing that the Engine is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// Time passes: drives folding, expiry and the mapping between the two clocks. About once a second.
    Tick {
        /// Now, boot time.
        boot: BootNs,
        /// Now, wall time.
        wall: WallNs,
    },
    /// A TCP connection ended or goes on.
    Tcp(TcpFact),
    /// A UDP flow ended or goes on.
    Udp(UdpFact),
    /// A connect that never became a connection.
    Attempt(AttemptFact),
    /// A DNS message.
    Dns(Box<DnsFact>),
    /// A process started another program.
    Exec(ExecFact),
    /// A process was made.
    Fork(ForkFact),
    /// A process ended.
    Exit {
        /// When.
        time: BootNs,
        /// Which.
        process: Owner,
    },
    /// A cgroup appeared, or existed before the agent.
    CgroupPresent {
        /// Inode of its directory.
        id: u64,
        /// Path below the cgroup2 root, with a leading slash. In a hybrid node without its own cgroup2 tree the path
        /// of a version 1 hierarchy, given for a process by [`Input::ProcessCgroupV1`] instead.
        path: String,
    },
    /// A cgroup vanished.
    CgroupGone {
        /// Inode of its directory.
        id: u64,
        /// When.
        time: BootNs,
    },
    /// A metadata exchange, complete or as complete as it will get.
    Metadata(Box<MetadataFact>),
    /// A process that existed before the agent, read from /proc; or more about one, read later.
    ProcessSeen(ProcessFact),
    /// The path behind `/proc/PID/exe` of a live process, read soon after its exec.
    ExeResolved {
        /// Which.
        process: Owner,
        /// Absolute path; for a script the interpreter.
        path: String,
    },
    /// A version 1 cgroup path of a process whose cgroup2 is the root (hybrid nodes).
    ProcessCgroupV1 {
        /// Which.
        process: Owner,
        /// Path below the hierarchy's root.
        path: String,
    },
    /// The node's own addresses, all of them, replacing those told before.
    NodeAddresses(Vec<IpAddr>),
    /// The kernel's counters and accounts, read together.
    KernelTotals(Box<KernelTotals>),
    /// Records of the kinds whose inputs do not tell how many records made them: one metadata exchange takes several, and
    /// cgroups are also found by the edge. Comes with, or before, what the records said.
    Decoded {
        /// Metadata segments and ends.
        metadata: u64,
        /// Cgroups made and removed.
        cgroups: u64,
    },
    /// A record that the decoder refused. It is not among those of [`Input::Decoded`].
    Undecodable {
        /// Its kind, when that much could be read.
        kind: Option<Kind>,
        /// Why.
        why: DecodeError,
    },
    /// A span of time is not covered.
    Gap {
        /// Last moment known to be covered.
        start: WallNs,
        /// First moment covered again.
        end: WallNs,
        /// Why.
        cause: GapCause,
        /// Records lost; `None` when nobody can tell.
        lost: Option<Losses>,
    },
    /// The cluster tells something.
    Cluster(Box<ClusterFact>),
    /// A look at the node tells something.
    Host(Box<HostFact>),
    /// The EC2 API tells something.
    Ec2(Box<Ec2Fact>),
    /// The kernel's side went on while the agent was away. Comes before all records and totals.
    Adopted(Box<Adopted>),
    /// What stands before this in the metadata ring was told in the inputs so far.
    Told(Place),
    /// The agent stops: everything held is put out.
    Stop,
}

/// Why a span of time is not covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// The agent was not running; of the time before the history told stops and crashes apart.
    NotRunning,
    /// The agent was stopped, and started again.
    Stopped,
    /// The agent ended without a stop: it was killed, or the machine went down.
    Crashed,
    /// The machine slept. Nobody ran, so nothing is lost.
    Suspended,
    /// Somebody set the wall clock: this span of it was left out, or told twice. Nothing is lost.
    ClockJump,
    /// A ring overflowed.
    RingFull,
    /// A program was refused or detached.
    ProbeMissing,
}

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than its header, its fixed part or the lengths that it states.
    #[error("record is shorter than it says")]
    Short,
    /// Written by probes of another version.
    #[error("record has another wire version")]
    Version,
    /// No such kind.
    #[error("record has an unknown kind")]
    Kind,
    /// A kind that does not travel in the ring it came from.
    #[error("record came by the wrong ring")]
    Ring,
    /// A field holds a value that no probe writes.
    #[error("record has an impossible field")]
    Field,
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ends {
    /// This socket's address.
    pub local: IpAddr,
    /// This socket's port; 0 when not known.
    pub local_port: u16,
    /// The peer's address.
    pub remote: IpAddr,
    /// The peer's port.
    pub remote_port: u16,
    /// Inode of the network namespace; 0 when not known.
    pub netns: u32,
}

impl From<&Tuple> for Ends {
    fn from(tuple: &Tuple) -> Self {
        // v4-mapped addresses are IPv4 on the wire, whatever family the socket has.
        Self {
            local: Ipv6Addr::from(tuple.local).to_canonical(),
            local_port: tuple.local_port,
            remote: Ipv6Addr::from(tuple.remote).to_canonical(),
            remote_port: tuple.remote_port,
            netns: tuple.netns,
        }
    }
}

/// A TCP connection's end, or a snapshot of it. Bytes and retransmits count since the connection's last record.
#[expect(clippy::struct_excessive_bools, reason = "facts of a record, independent of each other")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TcpFact {
    /// When the record was written.
    pub time: BootNs,
    /// Cgroup of the socket.
    pub cgroup_id: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// When the connection began, if known.
    pub start: Option<BootNs>,
    /// Still open: no outcome yet, counts no connection.
    pub open: bool,
    /// This is the connection's first record.
    pub first: bool,
    /// The handshake completed.
    pub established: bool,
    /// The socket is older than the probes.
    pub preexisting: bool,
    /// Who began it, seen from this socket.
    pub direction: Direction,
    /// How it ended; `Established` for an open one.
    pub outcome: Outcome,
    /// Payload bytes.
    pub bytes_sent: u64,
    /// Payload bytes.
    pub bytes_received: u64,
    /// Segments.
    pub retransmits: u32,
    /// Smoothed round trip time; `None` when not measured.
    pub srtt_us: Option<u32>,
    /// Who connected (outbound).
    pub connected: Option<Owner>,
    /// Who listened (inbound).
    pub listened: Option<Owner>,
    /// Who closed or shut down.
    pub closed: Option<Owner>,
    /// Addresses and ports.
    pub ends: Ends,
}

/// A UDP flow's end, or a snapshot of it. Counts are since the flow's last record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UdpFact {
    /// When the record was written.
    pub time: BootNs,
    /// Cgroup of the socket.
    pub cgroup_id: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// First datagram, if known.
    pub start: Option<BootNs>,
    /// Still open.
    pub open: bool,
    /// The socket is older than the probes.
    pub preexisting: bool,
    /// The socket has many peers, and those beside the first stand in the peers map.
    pub many_peers: bool,
    /// Who sent first.
    pub direction: Direction,
    /// `Established` (both directions seen) or `OneWay`.
    pub outcome: Outcome,
    /// Payload bytes.
    pub bytes_sent: u64,
    /// Payload bytes.
    pub bytes_received: u64,
    /// Datagrams.
    pub packets_sent: u64,
    /// Datagrams.
    pub packets_received: u64,
    /// Who sent the first datagram (outbound).
    pub sent: Option<Owner>,
    /// Who closed the socket.
    pub closed: Option<Owner>,
    /// Addresses and ports.
    pub ends: Ends,
}

/// A connect that never became a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptFact {
    /// When the record was written.
    pub time: BootNs,
    /// When connect was called.
    pub start: BootNs,
    /// Cgroup of the socket.
    pub cgroup_id: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// `Denied` or `Unreachable`.
    pub outcome: Outcome,
    /// Who called connect.
    pub connected: Option<Owner>,
    /// Addresses and ports; the local end is not known.
    pub ends: Ends,
}

/// A process and the name it gave itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedProcess {
    /// Which.
    pub owner: Owner,
    /// `comm`, lossy UTF-8.
    pub comm: String,
}

/// A process started another program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecFact {
    /// When.
    pub time: BootNs,
    /// Its cgroup.
    pub cgroup_id: u64,
    /// The process.
    pub process: NamedProcess,
    /// Its parent.
    pub parent: Option<Owner>,
    /// Path as given to `execve`.
    pub path: String,
    /// The path was cut to [`agent_ebpf::wire::EXE_PATH_BYTES`].
    pub path_cut: bool,
    /// Arguments, already cut and redacted; empty unless arguments are switched on.
    pub args: Vec<String>,
    /// Real user id.
    pub uid: u32,
}

/// A process was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForkFact {
    /// When.
    pub time: BootNs,
    /// The child's cgroup.
    pub cgroup_id: u64,
    /// The child.
    pub child: NamedProcess,
    /// Who forked.
    pub parent: Owner,
}

/// A process as /proc shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessFact {
    /// Which.
    pub process: NamedProcess,
    /// Its parent, when that was still there.
    pub parent: Option<Owner>,
    /// Cgroup id, when it could be found.
    pub cgroup_id: Option<u64>,
    /// Path behind `/proc/PID/exe`; `None` for kernel threads and without permission.
    pub exe: Option<String>,
    /// Arguments, already cut and redacted; empty unless arguments are switched on.
    pub args: Vec<String>,
}

/// A request to a metadata service and what came of it. Holds nothing secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetadataFact {
    /// First byte of the request; of the answer or the connection's start when no request was seen.
    pub time: BootNs,
    /// Cgroup of the client's socket.
    pub cgroup_id: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// Who opened the connection.
    pub process: Option<NamedProcess>,
    /// Parent, its parent, and so on, as the record carried them.
    pub ancestors: Vec<NamedProcess>,
    /// The process is the sender seen at the packet, for no connect was seen.
    pub sender_only: bool,
    /// Addresses and ports; the remote one is the service.
    pub ends: Ends,
    /// Which service.
    pub service: Service,
    /// The request; `None` when only its answer was seen, or nothing was sent.
    pub request: Option<RequestFact>,
    /// The answer; `None` when none came.
    pub response: Option<ResponseFact>,
    /// What came of it.
    pub outcome: MetadataOutcome,
    /// From the request's first byte to the answer's first byte.
    pub latency_ns: Option<u64>,
    /// Where in the ring it began; `None` when the rings do not outlive the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// What came of a metadata request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetadataOutcome {
    /// An answer with status below 400.
    Ok,
    /// An answer with status 401.
    Unauthorized,
    /// An answer with status 403.
    Forbidden,
    /// An answer with status 404.
    NotFound,
    /// An answer with another status of 400 and above.
    Error,
    /// A request was sent, and no byte came back before the connection ended or the wait was over.
    Unanswered,
    /// The SYN stayed unanswered: something drops the packets.
    Blocked,
    /// The connection was refused, unreachable, denied or aborted before establishment.
    Failed,
    /// Established and ended without a byte of payload.
    Idle,
    /// Payload that is not HTTP, or lost its thread.
    Unparsed,
    /// The request's head was seen in part only.
    Truncated,
}

/// What is kept of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFact {
    /// Method.
    pub method: Method,
    /// Class of the path.
    pub category: Category,
    /// Role named in the path of a credentials request.
    pub role: Option<String>,
    /// How the request authenticated itself.
    pub version: ImdsVersion,
    /// The addresses of its X-Forwarded-For headers, separated by `, `; `unparsed` when they hold anything else, which is not
    /// kept; `None` without such a header.
    pub forwarded_for: Option<String>,
}

/// What is kept of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseFact {
    /// Status code.
    pub status: u16,
    /// IP time to live or hop limit of the packet that began the answer.
    pub ttl: u8,
    /// Bytes of the body, as far as stated or seen.
    pub bytes: u64,
    /// The access key id of a credentials answer. Not a secret; `CloudTrail` shows it with every call.
    pub access_key_id: Option<String>,
}

/// HTTP methods, as far as they matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// PUT.
    Put,
    /// POST.
    Post,
    /// Any other.
    Other,
}

/// Version of the metadata protocol a request spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImdsVersion {
    /// Without a token.
    V1,
    /// With a token, or asking for one.
    V2,
    /// Not a matter of versions: Pod Identity, other clouds' paths, requests not seen.
    None,
}

/// Class of a metadata path. facts: EC2 user guide, instance metadata categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// `api/token`.
    Token,
    /// `meta-data/iam/security-credentials/`: the names of roles.
    RoleList,
    /// `meta-data/iam/security-credentials/ROLE`: the node role's credentials.
    RoleCredentials,
    /// `meta-data/iam/info`.
    RoleInfo,
    /// `meta-data/identity-credentials/…`: the instance's own identity credentials.
    IdentityCredentials,
    /// `user-data`.
    UserData,
    /// `dynamic/instance-identity/…`.
    IdentityDocument,
    /// Any other path of EC2's metadata.
    Metadata,
    /// `v1/credentials` of the EKS Pod Identity agent.
    PodIdentityCredentials,
    /// Paths of other clouds on the same address.
    OtherCloud,
    /// Anything else.
    Other,
}

/// The kernel's counters, summed over CPUs, and accounts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelTotals {
    /// Records by kind and fate, see `agent_ebpf::shared::Fate`.
    pub records: [[u64; FATES]; KINDS],
    /// Sockets not tracked: the storage cap was reached.
    pub untracked_sockets: u64,
    /// Attempts not followed.
    pub untracked_attempts: u64,
    /// UDP peers not tracked.
    pub untracked_peers: u64,
    /// Records accounted to the overflow account.
    pub overflow_accounts: u64,
    /// Metadata packets whose payload could not be read.
    pub unreadable_packets: u64,
    /// Of the merged TCP records, those that spared the agent's CPU.
    #[serde(default)]
    pub sampled_tcp: u64,
    /// Of the merged UDP records, likewise.
    #[serde(default)]
    pub sampled_udp: u64,
    /// Accounts by cgroup id, totals since the probes were loaded; the budget windows in them mean nothing here.
    pub accounts: Vec<(u64, Account)>,
}
