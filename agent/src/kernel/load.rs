//! Loads and attaches the probes, one by one: a refused optional one degrades what it gives, and is named.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use agent_core::continuity::Adopted;
use agent_ebpf::shared::{Offsets, RINGS, Settings};
use agent_ebpf::wire::Ring;
use aya::maps::Map;
use aya::programs::cgroup_skb::CgroupSkbAttachType;
use aya::programs::links::{FdLink, LinkError};
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSock, CgroupSockAddr, Iter, ProgramError, SockOps,
};
use aya::{Btf, Ebpf, EbpfLoader};
use zerocopy::IntoBytes;

use super::adopt::{Home, Settled};
use super::iterators::Walk;
use super::object::OBJECT;
use super::pins::Pins;
use super::taken::{Stored, Taken};
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
    /// What keeps the probes attached, unless pins do.
    pub(super) links: Vec<FdLink>,
    pub(super) probes: Vec<ProbeStatus>,
    pub(super) walks: Walks,
    pub(super) taken: Taken,
    pub(super) stored: Stored,
    /// When the rings were made, if they outlive the agent; boot time.
    pub(super) pins: Option<u64>,
    /// What an earlier run left; without what the history knows of it.
    pub(super) adopted: Option<Adopted>,
    /// Rings of programs that these replaced, in the order of [`Ring`].
    pub(super) left: Vec<super::ring::Ring>,
}

/// Walks over what is open; `None` where the kernel refused.
#[derive(Default)]
pub(super) struct Walks {
    pub(super) tcp: Option<Walk>,
    pub(super) udp: Option<Walk>,
    pub(super) peers: Option<Walk>,
}

/// The maps that outlive the agent with the programs: all but what is frozen into them.
const PINNED_MAPS: &[&str] = &[
    "METADATA",
    "LIFECYCLE",
    "BULK",
    "COUNTERS",
    "ACCOUNTS",
    "OVERFLOW",
    "LIVE",
    "ROUND",
    "SAMPLING",
    "LIVE_LOCAL",
    "TCP_SOCKETS",
    "UDP_SOCKETS",
    "UDP_PEERS",
    "CLOSED_SOCKETS",
    "METADATA_SOCKETS",
    "EXEC_SCRATCH",
    "CGROUP_SCRATCH",
];

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
    probe("egress", "UDP sent; DNS and metadata requests", false, Hook::Skb(CgroupSkbAttachType::Egress)),
    probe("ingress", "UDP received; DNS and metadata answers", false, Hook::Skb(CgroupSkbAttachType::Ingress)),
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
    let frozen = freeze(options)?;
    let (home, refused) = Home::open(options, frozen.build(&cgroup));
    let mut ebpf = load_object(options, &frozen, home.as_ref().map(|home| &home.pins))?;
    let mut probes = Vec::with_capacity(PROBES.len() + 5);
    let (mut types, mut links) = (None, Vec::new());
    for probe in PROBES {
        let result = match &home {
            Some(home) if home.pins.has_link(probe.name) => Ok(()),
            Some(home) => {
                attach(&mut ebpf, probe, &cgroup, &mut types).and_then(|link| home.pins.pin_link(probe.name, link))
            }
            None => attach(&mut ebpf, probe, &cgroup, &mut types).map(|link| links.push(link)),
        };
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
    let is_adopted = home.as_ref().is_some_and(Home::is_adopted);
    if let Some(baseline) = baseline
        // The probes have watched since another baseline.
        && !is_adopted
        && let Err(error) = baseline.run()
    {
        tracing::warn!("sockets older than the agent stay unknown: {error}");
    }
    if options.pin.is_some() {
        let state = refused.map_or(ProbeState::Attached, ProbeState::Refused);
        probes.push(ProbeStatus {
            name: "pins",
            gives: "what happens while the agent is away",
            required: false,
            state,
        });
    }
    let Some(home) = home else {
        let taken = Taken::nowhere();
        return Ok(Loaded {
            ebpf,
            links,
            probes,
            walks,
            taken,
            stored: Stored::default(),
            pins: None,
            adopted: None,
            left: Vec::new(),
        });
    };
    let Settled { taken, stored, pins, adopted, left } = home.settle(&ebpf)?;
    Ok(Loaded { ebpf, links, probes, walks, taken, stored, pins: Some(pins), adopted, left })
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

/// What is frozen into the programs.
struct Frozen {
    offsets: Offsets,
    settings: Settings,
}

impl Frozen {
    /// Tells programs that do the same from others: by their code, what is frozen into them, and where they are attached.
    fn build(&self, cgroup: &File) -> u64 {
        let cgroup = rustix::fs::fstat(cgroup).map_or(0, |stat| stat.st_ino);
        let parts = [OBJECT, self.offsets.as_bytes(), self.settings.as_bytes(), &cgroup.to_ne_bytes()];
        // FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/: nobody chooses its input to collide.
        parts
            .iter()
            .flat_map(|part| part.iter())
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

fn freeze(options: &Options) -> Result<Frozen, Error> {
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
    Ok(Frozen { offsets, settings })
}

fn load_object(options: &Options, frozen: &Frozen, pins: Option<&Pins>) -> Result<Ebpf, Error> {
    let Frozen { offsets, settings } = frozen;
    let mut loader = EbpfLoader::new();
    if let Some(pins) = pins {
        for map in PINNED_MAPS {
            loader.map_pin_path(map, pins.map(map));
        }
    }
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
fn attach(ebpf: &mut Ebpf, probe: &Probe, cgroup: &File, types: &mut Option<Btf>) -> Result<FdLink, String> {
    let program = ebpf.program_mut(probe.name).ok_or_else(|| "not in the object".to_owned())?;
    // Links of cgroup programs are always beside those of others: the plain mode is right.
    let mode = CgroupAttachMode::Single;
    let attached: Result<FdLink, ProgramError> = (|| {
        Ok(match probe.hook {
            Hook::SockOps => {
                let program: &mut SockOps = program.try_into()?;
                program.load()?;
                let link = program.attach(cgroup, mode)?;
                fd_link(program.take_link(link)?)?
            }
            Hook::Sock => {
                let program: &mut CgroupSock = program.try_into()?;
                program.load()?;
                let link = program.attach(cgroup, mode)?;
                fd_link(program.take_link(link)?)?
            }
            Hook::SockAddr => {
                let program: &mut CgroupSockAddr = program.try_into()?;
                program.load()?;
                let link = program.attach(cgroup, mode)?;
                fd_link(program.take_link(link)?)?
            }
            Hook::Skb(direction) => {
                let program: &mut CgroupSkb = program.try_into()?;
                program.load()?;
                let link = program.attach(cgroup, direction, mode)?;
                fd_link(program.take_link(link)?)?
            }
            Hook::Tracepoint(name) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(name, kernel_types(types)?)?;
                let link = program.attach()?;
                program.take_link(link)?.into()
            }
        })
    })();
    attached.map_err(|error| reason(&error))
}

/// The link as what may be pinned. Before Linux 5.7 there were others, and none that the agent runs on has them.
fn fd_link(link: impl TryInto<FdLink, Error = LinkError>) -> Result<FdLink, ProgramError> {
    link.try_into().map_err(|error| ProgramError::IOError(io::Error::other(error)))
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
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(ProgramError::LoadError { io_error, verifier_log }) = error.downcast_ref() {
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
