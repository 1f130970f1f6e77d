//! Open files: of each process against its own soft `RLIMIT_NOFILE`. A pod is as near to its end as the worst of its
//! processes; `fs.file-max` says nothing, for systemd sets it beyond all numbers.
//!
//! Since Linux 6.2 the size of `/proc/PID/fd` is the number of descriptors, and asking takes no privilege. Before, the
//! directory has to be listed, which takes `CAP_SYS_PTRACE` for processes of others.
//!
//! Limits hardly ever change, and reading them costs ten times what the count does. So they are remembered, and read anew
//! in turn, and always before a process is called more than half full.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_core::capacity::{Collector, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;

use super::pods::{Index, Shared};
use super::{Error, Look, Roots, read};

/// Most processes looked at; the same as are read at the start.
const MAX_PROCESSES: usize = 131_072;
/// Every limit is read anew once in so many looks: after 5 minutes of looks each 30 s.
const LOOKS_PER_TURN: u32 = 10;
/// `f_type` of procfs, `PROC_SUPER_MAGIC` of the kernel.
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Looks at open files.
pub(super) struct OpenFiles {
    proc: PathBuf,
    pods: Arc<Shared>,
    looks: u32,
    /// Soft limits by process, as of the last look.
    limits: HashMap<u32, Limit>,
}

/// How the files of a process are counted.
#[derive(Clone, Copy)]
enum Count {
    /// The directory's size is their number.
    Size,
    /// The directory has to be listed.
    List,
}

/// The fullest process of some.
#[derive(Clone, Copy)]
struct Worst {
    pid: u32,
    used: u64,
    limit: Limit,
}

/// One look at one process.
struct Looker<'a> {
    proc: &'a Path,
    count: Count,
    looks: u32,
    before: &'a HashMap<u32, Limit>,
    now: HashMap<u32, Limit>,
    denied: Option<Error>,
}

// === impl OpenFiles ===

impl OpenFiles {
    pub(super) fn new(roots: &Roots, pods: Arc<Shared>) -> Self {
        Self { proc: roots.proc.clone(), pods, looks: 0, limits: HashMap::new() }
    }
}

impl Look for OpenFiles {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let index = self.pods.index()?;
        self.looks = self.looks.wrapping_add(1);
        let mut looker = Looker {
            proc: &self.proc,
            count: Count::of(&self.proc),
            looks: self.looks,
            before: &self.limits,
            now: HashMap::with_capacity(self.limits.len()),
            denied: None,
        };
        let samples = samples(&index, &mut looker);
        let Looker { now, denied, .. } = looker;
        self.limits = now;
        facts.push(HostFact::Samples { collector: Collector::OpenFiles, samples });
        denied.map_or(Ok(()), Err)
    }
}

fn samples(index: &Index, looker: &mut Looker<'_>) -> Vec<Sample> {
    let mut samples = Vec::new();
    let pods = index.pods.iter().map(|pod| (Scope::Pod(Arc::clone(&pod.uid)), &pod.pids));
    for (scope, pids) in pods.chain([(Scope::Node, &index.others)]) {
        let mut worst: Option<Worst> = None;
        for pid in pids {
            if let Some(seen) = looker.process(*pid)
                && worst.is_none_or(|worst| seen.is_fuller(worst))
            {
                worst = Some(seen);
            }
        }
        let Some(Worst { pid, used, limit }) = worst else { continue };
        let comm = read::text(&looker.proc.join(pid.to_string()).join("comm")).unwrap_or_default();
        let source = format!("/proc/{pid}/fd ({})", agent_core::decode::text(comm.trim_end().as_bytes()));
        samples.push(Sample { resource: Resource::OpenFiles, scope, used: Some(used), limit, source: source.into() });
    }
    samples
}

// === impl Looker ===

impl Looker<'_> {
    /// `None`: it is gone, is a thread of the kernel, or may not be looked at, which is kept.
    fn process(&mut self, pid: u32) -> Option<Worst> {
        if self.now.len() >= MAX_PROCESSES {
            return None;
        }
        let directory = self.proc.join(pid.to_string());
        let used = match self.count.files(&directory.join("fd")) {
            Ok(used) => used,
            Err(error) => {
                if !read::is_gone(&error) {
                    self.denied.get_or_insert(error);
                }
                return None;
            }
        };
        let due = pid % LOOKS_PER_TURN == self.looks % LOOKS_PER_TURN;
        let known = self.before.get(&pid).copied().filter(|limit| !due && !is_half_full(used, *limit));
        let limit = match known {
            Some(limit) => limit,
            None => soft_limit(&directory.join("limits"))
                .inspect_err(|error| {
                    if !read::is_gone(error) {
                        tracing::debug!(pid, error = %error.chain(), "no limit of open files");
                    }
                })
                .ok()?,
        };
        self.now.insert(pid, limit);
        Some(Worst { pid, used, limit })
    }
}

// === impl Count ===

impl Count {
    fn of(proc: &Path) -> Self {
        let is_procfs = rustix::fs::statfs(proc).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC);
        // This process has open files for sure.
        let counts = fs::metadata(proc.join("self/fd")).is_ok_and(|own| own.size() > 0);
        if is_procfs && counts { Self::Size } else { Self::List }
    }

    fn files(self, path: &Path) -> Result<u64, Error> {
        let counted = match self {
            Self::Size => fs::metadata(path).map(|metadata| metadata.size()),
            Self::List => fs::read_dir(path).map(|entries| entries.count() as u64),
        };
        counted.map_err(|source| Error::Read { path: path.to_owned(), source })
    }
}

// === impl Worst ===

impl Worst {
    /// By what is used of the limit; without limits, by number.
    fn is_fuller(self, other: Self) -> bool {
        match (self.limit, other.limit) {
            (Limit::Of(own), Limit::Of(others)) => {
                u128::from(self.used) * u128::from(others) > u128::from(other.used) * u128::from(own)
            }
            (Limit::Of(_), _) => true,
            (_, Limit::Of(_)) => false,
            _ => self.used > other.used,
        }
    }
}

fn is_half_full(used: u64, limit: Limit) -> bool {
    matches!(limit, Limit::Of(limit) if used > limit / 2)
}

/// The soft limit of open files. Only its line is parsed: this is read for every process of the node.
fn soft_limit(path: &Path) -> Result<Limit, Error> {
    let text = read::text(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    match line.and_then(|line| line.split_whitespace().next()) {
        None => Err(read::malformed(path, "no line of open files")),
        Some("unlimited") => Ok(Limit::Unlimited),
        Some(number) => read::parse(path, number).map(Limit::Of),
    }
}
