//! Processes from /proc: all of them, for the start, and the program of one.
//!
//! /proc gives a process's start in clock ticks of ten milliseconds since boot, the kernel's own `start_boottime` cut to
//! ticks; the probes give it in nanoseconds. The starts made here are whole ticks in nanoseconds, and the process table
//! compares ticks. In a time namespace with its own boot clock /proc shifts the starts, so that they would match nothing:
//! the agent belongs in the node's.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use agent_core::decode::text;
use agent_core::input::{Input, NamedProcess, ProcessFact};
use agent_core::redact;
use agent_ebpf::wire::Owner;
use procfs::process::{Process, Stat, all_processes_with_root};
use procfs::{ProcError, ProcessCGroup};

use super::cgroups::{by_process, id_of};

/// Most processes read: the greatest useful `pid_max` of a node, 2^17, is beyond the pods that fit on it.
const MAX_PROCESSES: usize = 131_072;
/// Most arguments kept of one process, and most bytes read for them.
const MAX_ARGS: usize = 64;
const MAX_ARGS_BYTES: u64 = 4096;
/// Inode of the node's cgroup namespace, `PROC_CGROUP_INIT_INO` of the kernel.
const INITIAL_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;
/// Version 1 hierarchies in the order in which their paths are asked for: a container is in all of them, a service
/// perhaps only in systemd's own.
const HIERARCHIES: [&str; 5] = ["name=systemd", "pids", "memory", "cpu", "cpuset"];

/// All processes as [`Input::ProcessSeen`], older ones first, so that parents come before children. A process that is in
/// the root of cgroup2 but in a version 1 hierarchy is followed by its [`Input::ProcessCgroupV1`]. Arguments are read,
/// cut and redacted only when `keep_args` says so.
pub(crate) fn processes(proc_root: &Path, cgroup_root: &Path, keep_args: bool) -> Vec<Input> {
    let reader = Reader {
        members: by_process(cgroup_root),
        cgroup_root,
        root_id: id_of(cgroup_root),
        paths_are_absolute: in_initial_cgroup_namespace(proc_root),
        keep_args,
    };
    let listed = match all_processes_with_root(proc_root) {
        Ok(listed) => listed,
        Err(error) => {
            tracing::warn!(%error, "cannot list processes: those older than the agent have no names");
            return Vec::new();
        }
    };
    // What vanished while it was read is left out: its exit is nobody's news.
    let mut seen: Vec<Seen> =
        listed.flatten().take(MAX_PROCESSES).filter_map(|process| reader.read(&process).ok()).collect();
    seen.sort_by_key(|seen| (seen.owner.start_ns, seen.owner.tgid));
    let starts: HashMap<u32, u64> = seen.iter().map(|seen| (seen.owner.tgid, seen.owner.start_ns)).collect();
    seen.into_iter().flat_map(|seen| seen.into_inputs(&starts)).collect()
}

/// The path behind `/proc/PID/exe` of this very process; `None` when it is gone, is a kernel thread, or may not be read.
///
/// The directory is opened first, which pins the process: should it end, reads fail, and a later process with the same
/// number is never read instead. The start then tells whether the number was still the same process's at that moment.
pub(crate) fn exe_of(proc_root: &Path, owner: Owner) -> Option<String> {
    let process = Process::new_with_root(proc_root.join(owner.tgid.to_string())).ok()?;
    let started = start_ns(&process.stat().ok()?);
    let tick = tick_ns();
    (started / tick == owner.start_ns / tick).then(|| exe(&process)).flatten()
}

/// What is read of one process.
struct Seen {
    owner: Owner,
    parent: Option<u32>,
    comm: String,
    exe: Option<String>,
    args: Vec<String>,
    cgroup_id: Option<u64>,
    cgroup_v1: Option<String>,
}

// === impl Seen ===

impl Seen {
    fn into_inputs(self, starts: &HashMap<u32, u64>) -> impl Iterator<Item = Input> + use<> {
        // A parent is older. One that is younger took the number of the real one.
        let parent = self.parent.and_then(|tgid| {
            let start_ns = starts.get(&tgid).copied().filter(|start| *start <= self.owner.start_ns)?;
            Some(Owner { start_ns, tgid, pad: 0 })
        });
        let process = NamedProcess { owner: self.owner, comm: self.comm };
        let fact = ProcessFact { process, parent, cgroup_id: self.cgroup_id, exe: self.exe, args: self.args };
        let v1 = self.cgroup_v1.map(|path| Input::ProcessCgroupV1 { process: self.owner, path });
        std::iter::once(Input::ProcessSeen(fact)).chain(v1)
    }
}

struct Reader<'a> {
    /// Cgroup ids by process id.
    members: HashMap<u32, u64>,
    cgroup_root: &'a Path,
    root_id: Option<u64>,
    /// `/proc/PID/cgroup` gives paths below the root of the tree.
    paths_are_absolute: bool,
    keep_args: bool,
}

// === impl Reader ===

impl Reader<'_> {
    fn read(&self, process: &Process) -> Result<Seen, ProcError> {
        let stat = process.stat()?;
        let tgid = u32::try_from(stat.pid).map_err(|_| ProcError::Other("a negative process id".to_owned()))?;
        let cgroups = process.cgroups().map(|cgroups| cgroups.0).unwrap_or_default();
        let cgroup_id = self.members.get(&tgid).copied().or_else(|| self.by_path(&cgroups));
        let is_at_root = cgroup_id.is_none() || cgroup_id == self.root_id;
        Ok(Seen {
            owner: Owner { start_ns: start_ns(&stat), tgid, pad: 0 },
            parent: u32::try_from(stat.ppid).ok().filter(|ppid| *ppid != 0),
            comm: text(stat.comm.as_bytes()),
            exe: exe(process),
            args: if self.keep_args { args(process) } else { Vec::new() },
            cgroup_id,
            cgroup_v1: is_at_root.then(|| path_v1(&cgroups)).flatten(),
        })
    }

    /// The cgroup by its path, for processes made since the tree was read.
    fn by_path(&self, cgroups: &[ProcessCGroup]) -> Option<u64> {
        let path = &cgroups.iter().find(|cgroup| cgroup.hierarchy == 0)?.pathname;
        let below = Path::new(path.strip_prefix('/')?);
        let is_plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        (self.paths_are_absolute && is_plain).then(|| id_of(&self.cgroup_root.join(below))).flatten()
    }
}

/// The path of a process in the first version 1 hierarchy where it is not at the root.
fn path_v1(cgroups: &[ProcessCGroup]) -> Option<String> {
    let rank = |cgroup: &ProcessCGroup| {
        HIERARCHIES.iter().position(|name| cgroup.controllers.iter().any(|controller| controller == name))
    };
    cgroups
        .iter()
        .filter(|cgroup| cgroup.hierarchy != 0 && cgroup.pathname != "/")
        .min_by_key(|cgroup| rank(cgroup).unwrap_or(HIERARCHIES.len()))
        .map(|cgroup| text(cgroup.pathname.as_bytes()))
}

fn exe(process: &Process) -> Option<String> {
    process.exe().ok().map(|path| text(path.as_os_str().as_bytes()))
}

fn args(process: &Process) -> Vec<String> {
    let mut raw = Vec::new();
    match process.open_relative("cmdline").map(|file| file.take(MAX_ARGS_BYTES).read_to_end(&mut raw)) {
        Ok(Ok(_)) => redact::args(&raw, MAX_ARGS),
        _ => Vec::new(),
    }
}

/// The start of a process, a whole number of ticks.
fn start_ns(stat: &Stat) -> u64 {
    stat.starttime.saturating_mul(tick_ns())
}

fn tick_ns() -> u64 {
    1_000_000_000 / procfs::ticks_per_second().max(1)
}

fn in_initial_cgroup_namespace(proc_root: &Path) -> bool {
    std::fs::metadata(proc_root.join("self/ns/cgroup")).is_ok_and(|link| link.ino() == INITIAL_CGROUP_NAMESPACE)
}
