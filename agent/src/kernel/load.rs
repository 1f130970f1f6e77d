//! Loads and attaches the probes, one by one: a refused optional one degrades what it gives, and is named.

use std::error::Error as _;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use agent_ebpf::shared::{RINGS, Settings};
use agent_ebpf::wire::Ring;
use aya::maps::Map;
use aya::programs::cgroup_skb::CgroupSkbAttachType;
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSock, CgroupSockAddr, Iter, ProgramError, SockOps,
};
use aya::{Btf, Ebpf, EbpfLoader};
use zerocopy::IntoBytes;

use super::iterators::Walk;
use super::object::OBJECT;
use super::{Error, Options, btf};

/// The running kernel's type information.
pub(super) const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// Share of a ring that a cgroup may always write per window: 1/512 of it, so that 256 cgroups have a place in the half
/// that nobody may take beyond his share; but at least four records of the largest kind.
fn guaranteed_bytes(ring: Ring, ring_bytes: u32) -> u32 {
    let least = match ring {
        Ring::Metadata => 4 * 4_400,
        Ring::Lifecycle => 4 * 896,
        Ring::Bulk => 4 * 160,
    };
    (ring_bytes / 512).max(least)
}

/// A probe and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbeStatus {
    /// Name of the program.
    pub(crate) name: &'static str,
    /// What it gives.
    pub(crate) gives: &'static str,
    /// Whether nothing works without it.
    pub(crate) required: bool,
    /// What became of it.
    pub(crate) state: ProbeState,
}

/// See [`ProbeStatus::state`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeState {
    /// Attached.
    Attached,
    /// Refused, in the kernel's words.
    Refused(String),
}

/// Loaded probes.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) probes: Vec<ProbeStatus>,
    pub(super) walks: Walks,
}

/// Walks over what is open; `None` where the kernel refused.
#[derive(Default)]
pub(super) struct Walks {
    pub(super) tcp: Option<Walk>,
    pub(super) udp: Option<Walk>,
    pub(super) peers: Option<Walk>,
}

#[derive(Clone, Copy)]
enum Hook {
    SockOps,
    Sock,
    SockAddr,
    Skb(CgroupSkbAttachType),
    Tracepoint(&'static str),
}

struct Probe {
    name: &'static str,
    gives: &'static str,
    required: bool,
    hook: Hook,
}

/// In the order of attachment: processes and cgroups before what is attributed to them, releases before what they end.
const PROBES: &[Probe] = &[
    probe("tcp", "connections: outcome, bytes, retransmits, round trip time", true, Hook::SockOps),
    probe("cgroup_mkdir", "containers that start", false, Hook::Tracepoint("cgroup_mkdir")),
    probe("cgroup_rmdir", "containers that end", false, Hook::Tracepoint("cgroup_rmdir")),
    probe("exec", "programs of processes", false, Hook::Tracepoint("sched_process_exec")),
    probe("fork", "parents of processes", false, Hook::Tracepoint("sched_process_fork")),
    probe("exit", "ends of processes", false, Hook::Tracepoint("sched_process_exit")),
    probe("release", "who closed; unreachable destinations; ends of UDP flows", false, Hook::Sock),
    probe("connect4", "who connected, IPv4; denied attempts", false, Hook::SockAddr),
    probe("connect6", "who connected, IPv6; denied attempts", false, Hook::SockAddr),
    probe("egress", "UDP sent; metadata requests", false, Hook::Skb(CgroupSkbAttachType::Egress)),
    probe("ingress", "UDP received; metadata answers", false, Hook::Skb(CgroupSkbAttachType::Ingress)),
    probe("preexisting", "ends of connections older than the agent", false, Hook::Tracepoint("inet_sock_set_state")),
];

const fn probe(name: &'static str, gives: &'static str, required: bool, hook: Hook) -> Probe {
    Probe { name, gives, required, hook }
}

/// Loads and attaches everything, and takes the baseline of open sockets.
pub(super) fn load(options: &Options) -> Result<Loaded, Error> {
    if OBJECT.is_empty() {
        return Err(Error::NoObject);
    }
    let cgroup = open_cgroup2(&options.cgroup_root)
        .map_err(|source| Error::Cgroup { path: options.cgroup_root.clone(), source })?;
    let mut ebpf = load_object(options)?;
    let mut probes = Vec::with_capacity(PROBES.len() + 4);
    let mut types = None;
    for probe in PROBES {
        let result = attach(&mut ebpf, probe, &cgroup, &mut types);
        let state = match result {
            Ok(()) => {
                verified(&ebpf, probe.name);
                ProbeState::Attached
            }
            Err(reason) if probe.required => return Err(Error::Required { probe: probe.name, reason }),
            Err(reason) => ProbeState::Refused(reason),
        };
        probes.push(ProbeStatus { name: probe.name, gives: probe.gives, required: probe.required, state });
    }
    let mut walks = Walks::default();
    let mut walk = |name, gives, iterator, map| {
        let (walk, state) = match bind(&mut ebpf, name, iterator, map, &mut types) {
            Ok(walk) => (Some(walk), ProbeState::Attached),
            Err(reason) => (None, ProbeState::Refused(reason)),
        };
        probes.push(ProbeStatus { name, gives, required: false, state });
        walk
    };
    let baseline = walk("baseline", "sockets older than the agent, and their owners", "task_file", None);
    walks.tcp = walk("walk_tcp", "news of open connections", "bpf_sk_storage_map", Some("TCP_SOCKETS"));
    walks.udp = walk("walk_udp", "news and ends of silent UDP flows", "bpf_sk_storage_map", Some("UDP_SOCKETS"));
    walks.peers = walk("walk_peers", "UDP sockets with many peers", "bpf_map_elem", Some("UDP_PEERS"));
    if let Some(baseline) = baseline
        && let Err(error) = baseline.run()
    {
        tracing::warn!("sockets older than the agent stay unknown: {error}");
    }
    Ok(Loaded { ebpf, probes, walks })
}

/// Opens a directory and makes sure that it is of cgroup2: the kernel's answer to another one says nothing.
fn open_cgroup2(path: &Path) -> io::Result<File> {
    /// `CGROUP2_SUPER_MAGIC` of `include/uapi/linux/magic.h`.
    const CGROUP2: u64 = 0x6367_7270;
    let directory = File::open(path)?;
    if rustix::fs::fstatfs(&directory)?.f_type.cast_unsigned() == CGROUP2 {
        Ok(directory)
    } else {
        Err(io::Error::other("not a cgroup2 directory"))
    }
}

fn load_object(options: &Options) -> Result<Ebpf, Error> {
    let offsets = btf::offsets(Path::new(BTF_PATH))?;
    let ring_bytes = [options.metadata_ring_bytes, options.lifecycle_ring_bytes, options.bulk_ring_bytes];
    let rings = [Ring::Metadata, Ring::Lifecycle, Ring::Bulk];
    let mut guaranteed = [0; RINGS];
    for ((share, ring), bytes) in guaranteed.iter_mut().zip(rings).zip(ring_bytes) {
        *share = guaranteed_bytes(ring, bytes);
    }
    let settings = Settings {
        ring_bytes: ring_bytes.map(u64::from),
        guaranteed_bytes: guaranteed,
        max_sockets: options.max_sockets,
        keep_args: u32::from(options.keep_args),
        pad: 0,
    };
    let mut loader = EbpfLoader::new();
    // The probes have no relocations against the kernel's types: their offsets come in by OFFSETS.
    loader
        .btf(None)
        .override_global("OFFSETS", offsets.as_bytes(), true)
        .override_global("SETTINGS", settings.as_bytes(), true)
        .map_max_entries("METADATA", options.metadata_ring_bytes)
        .map_max_entries("LIFECYCLE", options.lifecycle_ring_bytes)
        .map_max_entries("BULK", options.bulk_ring_bytes);
    loader.load(OBJECT).map_err(|source| Error::Load { source: Box::new(source) })
}

/// Loads and attaches one program; the error is the kernel's reason in one line.
fn attach(ebpf: &mut Ebpf, probe: &Probe, cgroup: &File, types: &mut Option<Btf>) -> Result<(), String> {
    let program = ebpf.program_mut(probe.name).ok_or_else(|| "not in the object".to_owned())?;
    // Links of cgroup programs are always beside those of others: the plain mode is right.
    let mode = CgroupAttachMode::Single;
    let attached: Result<(), ProgramError> = (|| {
        match probe.hook {
            Hook::SockOps => {
                let program: &mut SockOps = program.try_into()?;
                program.load()?;
                program.attach(cgroup, mode)?;
            }
            Hook::Sock => {
                let program: &mut CgroupSock = program.try_into()?;
                program.load()?;
                program.attach(cgroup, mode)?;
            }
            Hook::SockAddr => {
                let program: &mut CgroupSockAddr = program.try_into()?;
                program.load()?;
                program.attach(cgroup, mode)?;
            }
            Hook::Skb(direction) => {
                let program: &mut CgroupSkb = program.try_into()?;
                program.load()?;
                program.attach(cgroup, direction, mode)?;
            }
            Hook::Tracepoint(name) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(name, kernel_types(types)?)?;
                program.attach()?;
            }
        }
        Ok(())
    })();
    attached.map_err(|error| reason(&error))
}

/// Notes how much the verifier had to look at: its limit is a million instructions, and older kernels need more.
fn verified(ebpf: &Ebpf, name: &str) {
    if let Some(program) = ebpf.program(name)
        && let Ok(info) = program.info()
    {
        tracing::debug!(
            "probe {name}: {:?} instructions verified, {:?} bytes",
            info.verified_instruction_count(),
            info.size_translated()
        );
    }
}

/// Loads an iterator and binds it to its map.
fn bind(
    ebpf: &mut Ebpf,
    name: &str,
    iterator: &str,
    map: Option<&str>,
    types: &mut Option<Btf>,
) -> Result<Walk, String> {
    let program = ebpf.program_mut(name).ok_or_else(|| "not in the object".to_owned())?;
    let program: &mut Iter = program.try_into().map_err(|error| reason(&error))?;
    let types = kernel_types(types).map_err(|error| reason(&error))?;
    program.load(iterator, types).map_err(|error| reason(&error))?;
    let program_fd =
        program.fd().and_then(|fd| Ok(fd.as_fd().try_clone_to_owned()?)).map_err(|error| reason(&error))?;
    let map_fd = match map {
        None => None,
        Some(map) => Some(map_fd(ebpf, map).ok_or_else(|| format!("no map {map}"))?),
    };
    Walk::new(program_fd.as_fd(), map_fd.as_ref().map(AsFd::as_fd)).map_err(|error| error.to_string())
}

fn map_fd(ebpf: &Ebpf, name: &str) -> Option<std::os::fd::OwnedFd> {
    let (Map::SkStorage(data) | Map::HashMap(data)) = ebpf.map(name)? else { return None };
    data.fd().as_fd().try_clone_to_owned().ok()
}

/// The kernel's types, read once and when the first program needs them.
fn kernel_types(types: &mut Option<Btf>) -> Result<&Btf, ProgramError> {
    match types {
        Some(types) => Ok(types),
        None => Ok(types.insert(Btf::from_sys_fs()?)),
    }
}

/// An error and its sources in one line, without the verifier's log (which goes to the debug log).
fn reason(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        tracing::debug!("verifier log: {verifier_log}");
        return format!("{io_error}");
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
