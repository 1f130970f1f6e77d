//! Who runs here: processes, told apart by number and start, with their parents, also dead ones.
//!
//! The kernel's records give a process's start to the nanosecond, /proc in ticks of ten milliseconds. A number cannot
//! come back within a tick, so number and tick are the key, and an exact start is adopted when one shows up.

mod view;

use std::collections::VecDeque;
use std::sync::Arc;

use agent_ebpf::wire::Owner;

pub use self::view::ANCESTORS;
use crate::cgroup::CgroupIdentity;
use crate::fast::{FastMap, FastSet};
use crate::input::{ExecFact, ForkFact, NamedProcess, ProcessFact};
use crate::time::BootNs;

/// Most live processes kept. A node of 110 pods runs a few thousand; an entry is about 200 bytes, its strings are
/// shared with its parent's: 8 MiB at most.
pub const MAX_LIVE: usize = 32_768;
/// Most dead processes kept, the longest dead going first: 100 processes a second for [`REMEMBER_DEAD_NS`], 8 MiB.
pub const MAX_DEAD: usize = 32_768;
/// How long the dead are remembered at least (if [`MAX_DEAD`] allows): records come late, and children ask for their
/// ancestors. Five minutes. A dead ancestor of a live process is kept longer.
pub const REMEMBER_DEAD_NS: u64 = 300 * 1_000_000_000;
/// How often the dead are looked through.
const SWEEP_NS: u64 = 60 * 1_000_000_000;
/// Clock tick of /proc: `USER_HZ` is 100 on every platform that the agent runs on.
const TICK_NS: u64 = 10_000_000;
/// Share of the live that goes when [`MAX_LIVE`] is reached: exits were missed, and the ones not heard of for longest
/// are the likeliest dead.
const EVICT_SHARE: usize = 8;

/// Processes by number and start.
#[derive(Debug, Default)]
pub struct ProcessTable {
    processes: FastMap<Key, Process>,
    /// Start tick of the latest process known by a number.
    current: FastMap<u32, u64>,
    /// The dead in the order of their death. Entries of processes already forgotten are no-ops.
    dead: VecDeque<Key>,
    dead_count: usize,
    swept: BootNs,
    evicted: Evicted,
}

/// Processes forgotten before their time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Dead ones, because [`MAX_DEAD`] was reached.
    pub dead: u64,
    /// Live ones, because [`MAX_LIVE`] was reached.
    pub live: u64,
}

/// What is known of a process.
#[derive(Clone, Debug)]
pub struct Process {
    start_ns: u64,
    comm: Arc<str>,
    exe: Option<Arc<str>>,
    exe_resolved: Option<Arc<str>>,
    args: Arc<[String]>,
    parent: Option<Owner>,
    v1: Option<Arc<CgroupIdentity>>,
    exited: bool,
    exited_at: BootNs,
    touched: BootNs,
}

impl Process {
    /// Path of its program as given to `execve`, or as /proc shows it.
    pub fn exe(&self) -> Option<&Arc<str>> {
        self.exe.as_ref()
    }

    /// What its version 1 cgroup is, where told.
    pub fn v1(&self) -> Option<&Arc<CgroupIdentity>> {
        self.v1.as_ref()
    }

    fn is_exact(&self) -> bool {
        is_exact(self.start_ns)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    tgid: u32,
    tick: u64,
}

impl From<Owner> for Key {
    fn from(owner: Owner) -> Self {
        Self { tgid: owner.tgid, tick: owner.start_ns / TICK_NS }
    }
}

/// A start read from /proc is a whole number of ticks. (One exact start in ten million is, too, and then is matched to
/// the tick only.)
fn is_exact(start_ns: u64) -> bool {
    !start_ns.is_multiple_of(TICK_NS)
}

impl ProcessTable {
    /// A process that /proc shows, at start or later. Fills in what is not known; what records told stays.
    pub fn seen(&mut self, fact: &ProcessFact, now: BootNs) {
        let process = self.entry(&fact.process, now);
        let path = fact.exe.as_deref().map(Arc::<str>::from);
        process.exe = process.exe.take().or_else(|| path.clone());
        process.exe_resolved = process.exe_resolved.take().or(path);
        process.parent = process.parent.or(fact.parent);
        if process.args.is_empty() && !fact.args.is_empty() {
            process.args = Arc::from(fact.args.as_slice());
        }
    }

    /// A process replaced its program.
    pub fn exec(&mut self, fact: &ExecFact) {
        let process = self.entry(&fact.process, fact.time);
        if *process.comm != *fact.process.comm {
            process.comm = Arc::from(fact.process.comm.as_str());
        }
        process.exe = Some(Arc::from(fact.path.as_str()));
        process.exe_resolved = None;
        process.args = Arc::from(fact.args.as_slice());
        // The first parent known is the true one: later the kernel tells who adopted it.
        process.parent = process.parent.or(fact.parent);
    }

    /// A process was made. It runs its parent's program until it says otherwise, and cannot leave its parent's
    /// container (while a host process's child may be on its way into one).
    pub fn fork(&mut self, fact: &ForkFact) {
        let parent = self.touch(fact.parent, fact.time).cloned();
        let process = self.entry(&fact.child, fact.time);
        process.parent = Some(fact.parent);
        let Some(parent) = parent else { return };
        process.exe = process.exe.take().or(parent.exe);
        process.exe_resolved = process.exe_resolved.take().or(parent.exe_resolved);
        if process.args.is_empty() {
            process.args = parent.args;
        }
        process.v1 = process.v1.take().or(parent.v1.filter(|cgroup| {
            matches!(**cgroup, CgroupIdentity::Pod(_) | CgroupIdentity::PodWithoutUid | CgroupIdentity::Container(_))
        }));
    }

    /// A process ended. It is remembered.
    pub fn exit(&mut self, owner: Owner, time: BootNs) {
        if self.touch(owner, time).is_some() {
            self.bury(Key::from(owner), time);
        }
    }

    /// The program behind `/proc/PID/exe`.
    pub fn exe_resolved(&mut self, owner: Owner, path: &str) {
        if let Some(process) = self.find_mut(owner) {
            process.exe_resolved = Some(Arc::from(path));
        }
    }

    /// The version 1 cgroup of a process.
    pub fn cgroup_v1(&mut self, owner: Owner, cgroup: Arc<CgroupIdentity>) {
        if let Some(process) = self.find_mut(owner) {
            process.v1 = Some(cgroup);
        }
    }

    /// A process by its owner mark.
    pub fn get(&self, owner: Owner) -> Option<&Process> {
        let process = self.processes.get(&owner.into())?;
        same_start(process.start_ns, owner.start_ns).then_some(process)
    }

    /// A process that a record just spoke of; adopts an exact start.
    pub fn touch(&mut self, owner: Owner, time: BootNs) -> Option<&Process> {
        let process = self.find_mut(owner)?;
        process.touched = process.touched.max(time);
        if !process.is_exact() {
            process.start_ns = owner.start_ns;
        }
        Some(process)
    }

    /// Forgets the dead whose time has passed, except ancestors of the living.
    pub fn expire(&mut self, now: BootNs) {
        if now.since(self.swept) < SWEEP_NS {
            return;
        }
        self.swept = now;
        let ancestors = self.ancestors_of_the_living();
        let current = &mut self.current;
        let dead_count = &mut self.dead_count;
        self.processes.retain(|key, process| {
            let keep = !process.exited || now.since(process.exited_at) <= REMEMBER_DEAD_NS || ancestors.contains(key);
            if !keep {
                *dead_count = dead_count.saturating_sub(1);
                if current.get(&key.tgid) == Some(&key.tick) {
                    current.remove(&key.tgid);
                }
            }
            keep
        });
        self.drop_no_ops();
    }

    /// Processes known, dead ones included.
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Processes forgotten for lack of room.
    pub fn evicted(&self) -> Evicted {
        self.evicted
    }

    // === helpers ===

    fn find_mut(&mut self, owner: Owner) -> Option<&mut Process> {
        let process = self.processes.get_mut(&owner.into())?;
        same_start(process.start_ns, owner.start_ns).then_some(process)
    }

    /// The process, made when it is not known. Whoever had its number before is dead.
    fn entry(&mut self, named: &NamedProcess, time: BootNs) -> &mut Process {
        let key = Key::from(named.owner);
        let known = self.processes.get(&key).map(|process| same_start(process.start_ns, named.owner.start_ns));
        if known == Some(false) {
            self.forget(key);
        }
        if known != Some(true) {
            if self.processes.len().saturating_sub(self.dead_count) >= MAX_LIVE {
                self.evict_silent();
            }
            let latest = self.current.get(&key.tgid).copied();
            if latest.is_none_or(|tick| tick < key.tick) {
                self.current.insert(key.tgid, key.tick);
            }
            self.processes.insert(key, Process::new(named, time));
            match latest {
                Some(tick) if tick < key.tick => self.bury(Key { tgid: key.tgid, tick }, time),
                Some(tick) if tick > key.tick => self.bury(key, time),
                _ => {}
            }
        }
        let process = self.processes.entry(key).or_insert_with(|| Process::new(named, time));
        process.touched = process.touched.max(time);
        if !process.is_exact() {
            process.start_ns = named.owner.start_ns;
        }
        if process.comm.is_empty() {
            process.comm = Arc::from(named.comm.as_str());
        }
        process
    }

    fn bury(&mut self, key: Key, time: BootNs) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        if process.exited {
            return;
        }
        process.exited = true;
        process.exited_at = time;
        self.dead.push_back(key);
        self.dead_count += 1;
        while self.dead.len() > MAX_DEAD {
            let Some(oldest) = self.dead.pop_front() else { return };
            if self.processes.get(&oldest).is_some_and(|process| process.exited) {
                self.forget(oldest);
                self.evicted.dead += 1;
            }
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some(process) = self.processes.remove(&key) {
            self.dead_count = self.dead_count.saturating_sub(usize::from(process.exited));
            if self.current.get(&key.tgid) == Some(&key.tick) {
                self.current.remove(&key.tgid);
            }
        }
    }

    fn evict_silent(&mut self) {
        let mut live: Vec<_> =
            self.processes.iter().filter(|(_, p)| !p.exited).map(|(key, p)| (p.touched, *key)).collect();
        let share = live.len() / EVICT_SHARE;
        live.select_nth_unstable(share);
        for (_, key) in live.into_iter().take(share) {
            self.forget(key);
            self.evicted.live += 1;
        }
    }

    fn ancestors_of_the_living(&self) -> FastSet<Key> {
        let mut ancestors = FastSet::default();
        for process in self.processes.values().filter(|process| !process.exited) {
            let mut next = process.parent;
            for _ in 0..ANCESTORS {
                let Some(parent) = next.and_then(|owner| self.get(owner).map(|p| (Key::from(owner), p))) else { break };
                ancestors.insert(parent.0);
                next = parent.1.parent;
            }
        }
        ancestors
    }

    /// Drops queue entries of processes that are forgotten, or whose key a later process took over while alive.
    fn drop_no_ops(&mut self) {
        let processes = &self.processes;
        self.dead.retain(|key| processes.get(key).is_some_and(|process| process.exited));
    }
}

impl Process {
    fn new(named: &NamedProcess, time: BootNs) -> Self {
        Self {
            start_ns: named.owner.start_ns,
            comm: Arc::from(named.comm.as_str()),
            exe: None,
            exe_resolved: None,
            args: Arc::default(),
            parent: None,
            v1: None,
            exited: false,
            exited_at: BootNs(0),
            touched: time,
        }
    }
}

/// Starts within one tick are the same unless both are exact and differ.
fn same_start(known_ns: u64, asked_ns: u64) -> bool {
    known_ns == asked_ns || !is_exact(known_ns) || !is_exact(asked_ns)
}

#[cfg(test)]
mod tests;
