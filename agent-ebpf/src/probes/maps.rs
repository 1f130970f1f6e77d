//! All maps, each with its size, writer, reader and deleter. Sizes marked (*) are set by the agent before loading.

use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, bpf_map_type};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, RingBuf, SkStorage};
use aya_ebpf::macros::btf_map;

use agent_ebpf::shared::{Account, Offsets, PeerKey, Settings, UdpFlow, counter};
use agent_ebpf::wire::{ANCESTORS, Named, Owner};

/// Frozen before the programs are loaded. Writer: agent. Reader: every program.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = {
    // SAFETY: all zero is a valid value of this struct of integers.
    unsafe { core::mem::zeroed() }
};

/// Frozen before the programs are loaded. Writer: agent. Reader: every program.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = {
    // SAFETY: as above.
    unsafe { core::mem::zeroed() }
};

/// Metadata records (*), default 1 MiB. Writer: packets, tcp, attempts. Reader: agent.
#[btf_map]
pub static METADATA: RingBuf<u8, { 1 << 20 }> = RingBuf::new();
/// Process and cgroup records (*), default 1 MiB. Writer: processes, cgroups. Reader: agent.
#[btf_map]
pub static LIFECYCLE: RingBuf<u8, { 1 << 20 }> = RingBuf::new();
/// Flow records and heads of DNS messages (*), default 2 MiB. Writer: tcp, attempts, release, walks, dns. Reader: agent.
#[btf_map]
pub static BULK: RingBuf<u8, { 1 << 22 }> = RingBuf::new();

/// Counters of `agent_ebpf::shared::counter`, 74 x 8 bytes per CPU, in one value: one look-up a run. Writer: every
/// program. Reader: agent.
#[btf_map]
pub static COUNTERS: PerCpuArray<[u64; counter::COUNT as usize], 1> = PerCpuArray::new();

/// Accounts by cgroup id, at most 8,192 of 232 bytes (1.9 MB), allocated as they come. Writer: emit. Reader: agent.
/// Deleter: agent, minutes after the cgroup is gone.
#[btf_map]
pub static ACCOUNTS: HashMap<u64, Account, 8192, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Takes what finds [`ACCOUNTS`] full: one account. Writer: emit. Reader: agent.
#[btf_map]
pub static OVERFLOW: Array<Account, 1> = Array::new();

/// Live entries of [`TCP_SOCKETS`] and [`UDP_SOCKETS`], as far as the CPUs have told. Writer: emit, and the agent when a
/// round of walks finds it far off (sockets of the kernel's own are never released). Reader: emit, agent.
#[btf_map]
pub static LIVE: Array<u64, 1> = Array::new();

/// Number of the agent's present round of walks. Writer: agent. Reader: walks.
#[btf_map]
pub static ROUND: Array<u32, 1> = Array::new();

/// Of new flows one in two to the power of this is told, the others are merged: 0 tells all. Writer: agent. Reader: tcp,
/// datagrams.
#[btf_map]
pub static SAMPLING: Array<u32, 1> = Array::new();

/// Entries made less entries ended on one CPU, not told to [`LIVE`] yet. Writer, reader: emit.
#[btf_map]
pub static LIVE_LOCAL: PerCpuArray<u64, 1> = PerCpuArray::new();

/// TCP sockets; a listener's entry is cloned to what it accepts. Bounded by `Settings::max_sockets`.
/// Writer: attempts, tcp, release, baseline, walks. Deleter: the kernel with the socket.
#[btf_map]
pub static TCP_SOCKETS: CloneStorage<TcpSocket> = CloneStorage::new();

/// UDP sockets and their first flow. Bounded by `Settings::max_sockets`. Writer: datagrams, release, baseline, walks.
/// Deleter: the kernel with the socket.
#[btf_map]
pub static UDP_SOCKETS: SkStorage<UdpFlow> = SkStorage::new();

/// UDP flows beside their socket's first: 65,536 of 160 bytes and 32 of key (16 MB with the table's own at the most),
/// allocated as they come: a resolver's socket makes one of each query, for two rounds of walks. Writer: datagrams. Reader: walks. Deleter: walks, when silent or when the socket is closed.
#[btf_map]
pub static UDP_PEERS: HashMap<PeerKey, UdpFlow, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Closed sockets that have entries in [`UDP_PEERS`], and who closed them: 1,024 cookies. Writer: release. Reader: walks.
/// Deleter: agent, after a walk.
#[btf_map]
pub static CLOSED_SOCKETS: HashMap<u64, Owner, 1024, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Sockets that connect to a metadata service. Writer: attempts. Reader: metadata, tcp. Deleter: the kernel with the
/// socket. Few at a time, and each socket counts in `Settings::max_sockets` already.
#[btf_map]
pub static METADATA_SOCKETS: SkStorage<MetadataSocket> = SkStorage::new();

/// Room to build an exec record, one per CPU. Writer, reader: processes.
#[btf_map]
pub static EXEC_SCRATCH: PerCpuArray<ExecScratch, 1> = PerCpuArray::new();

/// Room to build a cgroup record, one per CPU. Writer, reader: cgroups.
#[btf_map]
pub static CGROUP_SCRATCH: PerCpuArray<CgroupScratch, 1> = PerCpuArray::new();

/// Value of [`TCP_SOCKETS`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct TcpSocket {
    pub cookie: u64,
    pub cgroup_id: u64,
    pub start_ns: u64,
    /// Who connected or listened.
    pub opener: Owner,
    /// Who closed.
    pub closer: Owner,
    /// Payload bytes sent and received, and retransmitted segments, that records have told.
    pub reported: [u64; 3],
    /// Bits of [`tcp_flags`].
    pub flags: u32,
    /// `sk_err` when the connection began.
    pub stale_error: u32,
    /// A walk has shown this connection. Written by walks alone.
    pub shown: u32,
    /// While an attempt waits: where to.
    pub netns: u32,
    pub remote: [u8; 16],
    pub remote_port: u16,
    pub pad: [u8; 6],
}

/// Bits of [`TcpSocket::flags`]. The low half are bits of `wire::flags` and go to the records as they are.
pub mod tcp_flags {
    use agent_ebpf::wire::flags;

    pub const ESTABLISHED: u32 = flags::ESTABLISHED as u32;
    /// Older than the probes: its end is told by the tracepoint.
    pub const PREEXISTING: u32 = flags::PREEXISTING as u32;
    pub const INBOUND: u32 = flags::OPENER_LISTENED as u32;
    /// The entry is in use (a fresh one is all zero, and so is one whose connection ended).
    pub const TRACKED: u32 = 1 << 16;
    pub const LISTENER: u32 = 1 << 17;
    pub const OUTBOUND: u32 = 1 << 18;
    /// connect was called and no SYN was sent yet.
    pub const ATTEMPT: u32 = 1 << 19;
    /// What records carry.
    pub const RECORD: u32 = 0xffff;
}

/// Value of [`METADATA_SOCKETS`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct MetadataSocket {
    pub process: Named,
    pub ancestors: [Named; ANCESTORS],
}

/// Value of [`EXEC_SCRATCH`]: an exec record with all the room it may need.
#[repr(C)]
pub struct ExecScratch {
    pub fixed: agent_ebpf::wire::Exec,
    pub data: [u8; agent_ebpf::wire::EXE_PATH_BYTES + agent_ebpf::wire::ARGS_BYTES],
}

/// Value of [`CGROUP_SCRATCH`]: a cgroup record with all the room it may need.
#[repr(C)]
pub struct CgroupScratch {
    pub fixed: agent_ebpf::wire::CgroupMkdir,
    pub path: [u8; agent_ebpf::wire::CGROUP_PATH_BYTES],
}

/// Socket storage that the kernel copies from a listener to the sockets it accepts. aya's type lacks the flag.
#[repr(C)]
pub struct CloneStorage<T> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the pointers are placeholders for the loader and never dereferenced.
unsafe impl<T> Sync for CloneStorage<T> {}

impl<T> CloneStorage<T> {
    pub const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }
}
