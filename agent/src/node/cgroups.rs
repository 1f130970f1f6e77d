//! The cgroup2 tree: where it is mounted, which cgroups are in it, which processes are in them.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agent_core::decode::text;
use agent_core::input::Input;
use procfs::FromRead;
use procfs::process::MountInfos;

/// Most cgroups read. A node of 110 pods has about a thousand.
const MAX_CGROUPS: usize = 65_536;
/// Deepest cgroup read below the root; kubepods paths have six levels, nested containers some more.
const MAX_DEPTH: usize = 32;
/// Longest list of one cgroup's processes: 1 MiB holds 131,072 of seven digits.
const MAX_PROCS_BYTES: u64 = 1024 * 1024;
/// Inode of the root of every cgroup2 tree (the id of a kernfs root).
const ROOT_ID: u64 = 1;

/// Where cgroup2 is mounted, seen from this process: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on hybrid nodes.
///
/// A container may see several mounts: its own part of the tree, and the node's whole tree, which has the root's inode
/// and is preferred.
pub(crate) fn cgroup2_mount(proc_root: &Path) -> Option<PathBuf> {
    let mounts = MountInfos::from_file(proc_root.join("self/mountinfo"))
        .inspect_err(|error| tracing::warn!(%error, "cannot read the mounts: the cgroup tree is not found"))
        .ok()?;
    let cgroup2 = || mounts.iter().filter(|mount| mount.fs_type == "cgroup2").map(|mount| mount.mount_point.as_path());
    let is_whole = |path: &&Path| fs::metadata(path).is_ok_and(|root| root.ino() == ROOT_ID);
    cgroup2().find(is_whole).or_else(|| cgroup2().next()).map(Path::to_path_buf)
}

/// Every cgroup below and including the root as [`Input::CgroupPresent`], parents before children.
pub(crate) fn cgroups(cgroup_root: &Path) -> Vec<Input> {
    let mut inputs = Vec::new();
    walk(cgroup_root, |cgroup| inputs.push(Input::CgroupPresent { id: cgroup.id, path: cgroup.path.to_owned() }));
    inputs
}

/// The cgroup of every process, by process id, as this process numbers them.
///
/// Taken from the tree and not from `/proc/PID/cgroup`, whose paths are relative to the reader's cgroup namespace and so
/// mean nothing in a container with a namespace of its own.
pub(super) fn by_process(cgroup_root: &Path) -> HashMap<u32, u64> {
    let mut members = HashMap::new();
    walk(cgroup_root, |cgroup| {
        // Threaded cgroups refuse the read; their processes are listed above them.
        let Ok(file) = fs::File::open(cgroup.directory.join("cgroup.procs")) else { return };
        let mut list = String::new();
        if file.take(MAX_PROCS_BYTES).read_to_string(&mut list).is_ok() {
            members.extend(list.lines().filter_map(|line| Some((line.parse::<u32>().ok()?, cgroup.id))));
        }
    });
    // Processes outside of this pid namespace have no number in it.
    members.remove(&0);
    members
}

/// The id of a cgroup directory.
pub(super) fn id_of(directory: &Path) -> Option<u64> {
    fs::metadata(directory).ok().filter(fs::Metadata::is_dir).map(|metadata| metadata.ino())
}

struct Cgroup<'a> {
    id: u64,
    /// Below the root, with a leading slash.
    path: &'a str,
    directory: &'a Path,
}

/// Visits every cgroup, breadth first. Those that vanish meanwhile are left out.
fn walk(root: &Path, mut visit: impl FnMut(Cgroup<'_>)) {
    let mut level = vec![(root.to_path_buf(), String::from("/"))];
    let mut visited = 0;
    for _ in 0..=MAX_DEPTH {
        let mut next = Vec::new();
        for (directory, path) in &level {
            let Some(id) = id_of(directory) else { continue };
            if visited == MAX_CGROUPS {
                tracing::warn!(MAX_CGROUPS, "more cgroups than are read: processes in the rest are not known");
                return;
            }
            visited += 1;
            visit(Cgroup { id, path, directory });
            let Ok(entries) = fs::read_dir(directory) else { continue };
            for entry in entries.flatten() {
                // The type of the entry itself: links are not followed.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let parent = path.trim_end_matches('/');
                    let name = text(entry.file_name().as_bytes());
                    next.push((entry.path(), format!("{parent}/{name}")));
                }
            }
        }
        level = next;
    }
}
