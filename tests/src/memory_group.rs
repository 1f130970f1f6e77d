//! A memory cgroup of an agent's own: what it and the kernel on its behalf may take, and what they took.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A memory cgroup, removed with its guard; whoever is in it must have ended by then.
#[derive(Debug)]
pub struct MemoryGroup {
    directory: PathBuf,
    version: Version,
}

/// Of the cgroup hierarchy that has the memory controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy of its own.
    One,
    /// The unified one.
    Two,
}

impl MemoryGroup {
    /// Makes one.
    pub fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        let (root, version) = controller(&mounts).context("no memory controller: this test needs one")?;
        let directory = root.join(format!("sekisho-test-{}-{name}", std::process::id()));
        fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
        Ok(Self { directory, version })
    }

    /// A line of shell that moves the shell into it.
    pub fn entry(&self) -> String {
        format!("echo $$ > '{}'", self.directory.join("cgroup.procs").display())
    }

    /// From now on so many bytes and no more: processes, their page cache, and what the kernel holds for them.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        let name = if self.version == Version::One { "memory.limit_in_bytes" } else { "memory.max" };
        let path = self.directory.join(name);
        fs::write(&path, bytes.to_string()).with_context(|| format!("write {bytes} to {}", path.display()))
    }

    /// Bytes charged to it now.
    pub fn usage(&self) -> Result<u64> {
        self.number(if self.version == Version::One { "memory.usage_in_bytes" } else { "memory.current" })
    }

    /// The most bytes that were charged to it.
    pub fn peak(&self) -> Result<u64> {
        self.number(if self.version == Version::One { "memory.max_usage_in_bytes" } else { "memory.peak" })
    }

    /// Processes in it that were killed for want of memory.
    pub fn killed(&self) -> Result<u64> {
        let name = if self.version == Version::One { "memory.oom_control" } else { "memory.events" };
        let text = self.read(name)?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")).with_context(|| format!("in {name}"))?;
        line.parse().with_context(|| format!("read {line:?}"))
    }

    fn number(&self, name: &str) -> Result<u64> {
        let text = self.read(name)?;
        text.trim().parse().with_context(|| format!("read {text:?} of {name}"))
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.directory.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that was killed leaves it a moment after it was waited for.
        for _ in 0..100 {
            match fs::remove_dir(&self.directory) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                Err(error) => return eprintln!("remove {}: {error}", self.directory.display()),
                Ok(()) => return,
            }
        }
        eprintln!("{} is still in use", self.directory.display());
    }
}

/// Where a memory cgroup can be made, by the text of a `mountinfo` file.
pub fn controller(mounts: &str) -> Option<(PathBuf, Version)> {
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let root = PathBuf::from(mount.split(' ').nth(4)?);
        let mut words = filesystem.split(' ');
        match words.next()? {
            "cgroup" if words.nth(1)?.split(',').any(|option| option == "memory") => Some((root, Version::One)),
            "cgroup2" if has_memory(&root) => Some((root, Version::Two)),
            _ => None,
        }
    })
}

/// Whether cgroups right below a cgroup2 directory have the controller.
fn has_memory(root: &Path) -> bool {
    let controllers = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
    controllers.split_whitespace().any(|controller| controller == "memory")
}
