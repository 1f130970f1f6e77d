//! The pods of this node as the cgroup tree shows them: their cgroups, their containers' and their processes. Several
//! sources start from them, so one reading serves all that follow shortly after it.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent_core::cgroup::{self, CgroupIdentity};

use super::{Error, Roots, read};

/// Most pods: the largest max-pods of any instance type is 737.
const MAX_PODS: usize = 1_024;
/// Most containers of a pod.
const MAX_CONTAINERS: usize = 64;
/// Most processes of a pod that are looked at.
const MAX_PIDS: usize = 16_384;
/// Most directories looked at in search of pods; `system.slice` has a few hundred units.
const MAX_DIRECTORIES: usize = 16_384;
/// Deepest pod: `kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/…` is the fourth, nested nodes more.
const MAX_DEPTH: usize = 8;
/// Deepest cgroup of a container below its own.
const MAX_NESTED: usize = 6;
/// Longest list of processes of one cgroup: 131,072 numbers of seven digits.
const PROCS_BYTES_MAX: u64 = 1 << 20;
/// A reading serves those who ask within this time. Sources that want pods are due every 10 s and more.
pub(super) const FRESH: Duration = Duration::from_secs(5);

/// What the tree shows.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Pods, by path.
    pub(super) pods: Vec<Pod>,
    /// Slices at the top and above pods, below the root of the tree.
    pub(super) slices: Vec<PathBuf>,
    /// Processes of no pod.
    pub(super) others: Vec<u32>,
}

/// A pod.
#[derive(Debug)]
pub(super) struct Pod {
    /// Its uid as its cgroup tells it.
    pub(super) uid: Arc<str>,
    /// Its cgroup, below the root of the tree.
    pub(super) path: PathBuf,
    /// Its containers' cgroups, below the root of the tree.
    pub(super) containers: Vec<PathBuf>,
    /// Its processes, as this /proc numbers them.
    pub(super) pids: Vec<u32>,
}

/// The latest reading, for all who want it.
pub(super) struct Shared {
    proc: PathBuf,
    cgroup: PathBuf,
    latest: Mutex<Option<(Instant, Arc<Index>)>>,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { proc: roots.proc.clone(), cgroup: roots.cgroup.clone(), latest: Mutex::new(None) }
    }

    /// A reading that is at most a few seconds old.
    pub(super) fn index(&self) -> Result<Arc<Index>, Error> {
        // A reading is put in whole or not at all: a poisoned lock is as good.
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, index)) = &*latest
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(read(&self.proc, &self.cgroup)?);
        *latest = Some((Instant::now(), Arc::clone(&index)));
        Ok(index)
    }
}

/// Reads the tree.
pub(super) fn read(proc: &Path, root: &Path) -> Result<Index, Error> {
    let mut index = Index::default();
    let mut budget = MAX_DIRECTORIES;
    let mut pending = vec![(PathBuf::new(), 0)];
    let mut is_first = true;
    while let Some((path, depth)) = pending.pop() {
        let children = match children(&root.join(&path)) {
            Ok(children) => children,
            Err(error) if is_first => return Err(error),
            // Gone meanwhile, or closed to us: what is beside it counts all the same.
            Err(_) => continue,
        };
        is_first = false;
        for name in children {
            budget = budget.saturating_sub(1);
            if budget == 0 {
                return Err(read::malformed(root, format!("more than {MAX_DIRECTORIES} cgroups above pods")));
            }
            let child = path.join(&name);
            match cgroup::parse(&child.to_string_lossy()) {
                CgroupIdentity::Pod(pod) if index.pods.len() < MAX_PODS => {
                    index.pods.push(Pod::read(root, child, pod.uid.into()));
                }
                CgroupIdentity::Pod(_) | CgroupIdentity::PodWithoutUid | CgroupIdentity::Container(_) => {}
                _ if is_leaf_unit(&name) => {}
                _ => {
                    if depth == 0 || name.to_string_lossy().contains("kubepods") {
                        index.slices.push(child.clone());
                    }
                    if depth + 1 < MAX_DEPTH {
                        pending.push((child, depth + 1));
                    }
                }
            }
        }
    }
    index.pods.sort_by(|a, b| a.path.cmp(&b.path));
    index.slices.sort();
    place_processes(proc, &mut index);
    Ok(index)
}

// === impl Pod ===

impl Pod {
    fn read(root: &Path, path: PathBuf, uid: Arc<str>) -> Self {
        let directory = root.join(&path);
        let mut containers: Vec<PathBuf> =
            children(&directory).unwrap_or_default().iter().take(MAX_CONTAINERS).map(|name| path.join(name)).collect();
        containers.sort();
        let mut pids = Vec::new();
        for container in std::iter::once(&path).chain(&containers) {
            let nested = if *container == path { 0 } else { MAX_NESTED };
            pids_of(&root.join(container), nested, &mut pids);
        }
        Self { uid, path, containers, pids }
    }
}

/// The processes of a cgroup and of those below it. A number of 0 is a process that this process's own namespace of
/// process numbers does not hold.
fn pids_of(directory: &Path, nested: usize, pids: &mut Vec<u32>) {
    // Threaded cgroups refuse the read; their processes are listed above them.
    let list = read::text_of_at_most(&directory.join("cgroup.procs"), PROCS_BYTES_MAX).unwrap_or_default();
    let room = MAX_PIDS.saturating_sub(pids.len());
    pids.extend(list.lines().filter_map(|line| line.parse::<u32>().ok()).take(room));
    if nested == 0 || !has_children(directory) {
        return;
    }
    for name in children(directory).unwrap_or_default() {
        pids_of(&directory.join(name), nested - 1, pids);
    }
}

/// Sorts all processes of /proc into pods and others, where the tree did not tell them: an agent with process numbers of
/// its own reads zeros in `cgroup.procs`, and its /proc is the host's all the same.
fn place_processes(proc: &Path, index: &mut Index) {
    let hidden = index.pods.iter().any(|pod| pod.pids.contains(&0));
    let told: HashSet<u32> = index.pods.iter().flat_map(|pod| pod.pids.iter().copied()).collect();
    let by_uid: HashMap<Arc<str>, usize> =
        index.pods.iter().enumerate().map(|(at, pod)| (Arc::clone(&pod.uid), at)).collect();
    if hidden {
        for pod in &mut index.pods {
            pod.pids.clear();
        }
    }
    for pid in pids_in(proc) {
        if !hidden {
            if !told.contains(&pid) {
                index.others.push(pid);
            }
            continue;
        }
        match pod_of(proc, pid).and_then(|uid| by_uid.get(uid.as_str()).copied()) {
            Some(at) => {
                if let Some(pod) = index.pods.get_mut(at).filter(|pod| pod.pids.len() < MAX_PIDS) {
                    pod.pids.push(pid);
                }
            }
            None => index.others.push(pid),
        }
    }
}

/// The pod's uid in the path that `/proc/PID/cgroup` shows. In a namespace of cgroups the path begins with `/..`, which
/// takes nothing from what follows.
fn pod_of(proc: &Path, pid: u32) -> Option<String> {
    let text = read::text(&proc.join(pid.to_string()).join("cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    match cgroup::parse(path) {
        CgroupIdentity::Pod(pod) => Some(pod.uid),
        _ => None,
    }
}

/// All process numbers of a /proc, in its order.
pub(super) fn pids_in(proc: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_leaf_unit(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    [".service", ".scope", ".socket", ".mount", ".swap"].iter().any(|suffix| name.ends_with(suffix))
}

/// Names of the cgroups in a cgroup.
fn children(directory: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    let entries = fs::read_dir(directory).map_err(|source| Error::Read { path: directory.to_owned(), source })?;
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories.map(|entry| entry.file_name()).collect())
}

/// Whether a cgroup has cgroups in it: a directory has a link from each of its own. Some file systems of fixtures count
/// no links of directories; 1 says nothing.
fn has_children(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|metadata| metadata.nlink() != 2)
}
