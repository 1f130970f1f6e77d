//! Control groups that look like a container of a pod, made by hand below the cgroup2 mount.
//!
//! The container's id carries the id of the process that made it, so that what a killed test left behind is told apart
//! from what a running test needs, and removed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::actor::Actor;
use crate::netns::Namespace;

/// First group of the UIDs that tests give their pods.
const MARK: &str = "5ec15400";
/// Begin of the ids of their containers.
const CONTAINER_MARK: &str = "5ec154005ec15400";
/// Below the cgroup2 root, as the kubelet's systemd driver has it.
const SLICE: &str = "kubepods.slice/kubepods-burstable.slice";
/// For the exit of killed processes; it takes milliseconds.
const EXIT_DEADLINE: Duration = Duration::from_secs(20);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A container of a pod of its own: a control group and what it is called.
#[derive(Debug)]
pub struct Pod {
    /// UID of the pod, with dashes.
    pub uid: String,
    /// Container id.
    pub container: String,
    /// Cgroup id: the inode of the container's directory.
    pub cgroup_id: u64,
    directory: PathBuf,
}

impl Pod {
    /// A pod with one container, both with unique names.
    pub fn new() -> Result<Self> {
        let (pid, count, start_ns) = unique()?;
        let uid = format!("{MARK}-{:04x}-{:04x}-{:04x}-{start_ns:012x}", pid >> 16, pid & 0xffff, count & 0xffff);
        Self::make(uid, pid, count, start_ns)
    }

    /// A pod with one container and the UID that an API server gave it.
    pub fn with_uid(uid: &str) -> Result<Self> {
        let (pid, count, start_ns) = unique()?;
        Self::make(uid.to_owned(), pid, count, start_ns)
    }

    fn make(uid: String, pid: u32, count: u32, start_ns: u128) -> Result<Self> {
        let container = format!("{CONTAINER_MARK}{start_ns:016x}{pid:016x}{count:016x}");
        if count == 0 {
            remove_leftovers()?;
        }
        let directory = mount_point()?.join(SLICE).join(pod_directory(&uid)).join(container_directory(&container));
        create(&directory)?;
        let cgroup_id = fs::metadata(&directory).with_context(|| format!("stat {}", directory.display()))?.ino();
        Ok(Self { uid, container, cgroup_id, directory })
    }

    /// Starts an actor in this container and a network namespace.
    pub fn actor(&self, namespace: &Namespace) -> Result<Actor> {
        Actor::start(&self.directory, namespace)
    }

    /// A program to be run in this container and a network namespace.
    pub fn command(&self, namespace: &Namespace, program: &Path) -> Result<Command> {
        crate::actor::command(&self.directory, namespace, program)
    }

    /// The container's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.directory) {
            eprintln!("{error:#}");
        }
    }
}

/// Where the cgroup2 hierarchy is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on hybrid machines.
pub fn mount_point() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    text.lines()
        .find_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            filesystem.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
        })
        .context("no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup")
}

fn pod_directory(uid: &str) -> String {
    // The systemd driver writes dashes of the UID as underscores, since a dash means nesting there.
    format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"))
}

fn container_directory(id: &str) -> String {
    format!("cri-containerd-{id}.scope")
}

/// Creates a directory and its parents, which another test's removal may take away in between.
fn create(directory: &Path) -> Result<()> {
    let deadline = Instant::now() + EXIT_DEADLINE;
    loop {
        match fs::create_dir_all(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && Instant::now() < deadline => {}
            Err(error) => return Err(error).with_context(|| format!("create cgroup {}", directory.display())),
        }
    }
}

/// Ends the processes of a container and removes it, its pod, and the slices above when they are empty.
fn remove(container: &Path) -> Result<()> {
    match fs::write(container.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        other => other.with_context(|| format!("kill what is left in {}", container.display()))?,
    }
    let deadline = Instant::now() + EXIT_DEADLINE;
    loop {
        match fs::remove_dir(container) {
            Ok(()) => break,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            // Busy until the last process is gone.
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("remove cgroup {}", container.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    for parent in container.ancestors().skip(1).take(3) {
        if fs::remove_dir(parent).is_err() {
            break;
        }
    }
    Ok(())
}

/// This process, a number of its own, and the time.
fn unique() -> Result<(u32, u32, u128)> {
    let start_ns = std::time::UNIX_EPOCH.elapsed().context("read the clock")?.as_nanos() & 0xffff_ffff_ffff;
    Ok((std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed), start_ns))
}

/// Removes the pods of tests that are not running any more.
fn remove_leftovers() -> Result<()> {
    let slice = mount_point()?.join(SLICE);
    let Ok(pods) = fs::read_dir(&slice) else { return Ok(()) };
    let containers = pods.filter_map(Result::ok).filter_map(|pod| fs::read_dir(pod.path()).ok()).flatten();
    for container in containers.filter_map(Result::ok) {
        let Some(maker) = maker(&container.file_name().to_string_lossy()) else { continue };
        if !Path::new("/proc").join(maker.to_string()).exists() {
            remove(&container.path())?;
        }
    }
    Ok(())
}

/// The process that made a container of this directory name, when it is a test's.
fn maker(name: &str) -> Option<u32> {
    let id = name.strip_prefix("cri-containerd-")?.strip_suffix(".scope")?;
    let numbers = id.strip_prefix(CONTAINER_MARK)?;
    u32::from_str_radix(numbers.get(16..32)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_tells_its_maker_and_vanishes() {
        let pod = Pod::new().expect("make a pod; needs root");
        let directory = pod.directory().to_owned();
        assert_eq!(maker(&container_directory(&pod.container)), Some(std::process::id()));
        assert_eq!(pod.container.len(), 64);
        assert_eq!(pod.uid.len(), 36);
        assert!(directory.join("cgroup.procs").exists());
        drop(pod);
        assert!(!directory.exists());
    }

    #[test]
    fn a_pod_may_have_another_ones_uid() {
        let uid = "0f5a7c6e-1111-2222-3333-444455556666";
        let pod = Pod::with_uid(uid).expect("make a pod; needs root");
        assert_eq!(pod.uid, uid);
        assert!(pod.directory().parent().expect("a parent").ends_with(pod_directory(uid)));
    }

    #[test]
    fn containers_of_others_have_no_maker() {
        assert_eq!(maker(&container_directory(&"0f5a7c6e".repeat(8))), None);
        assert_eq!(maker("cgroup.procs"), None);
    }
}
