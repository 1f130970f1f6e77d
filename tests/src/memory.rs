//! What a process keeps resident: its own memory told apart by kind, and what it has the kernel hold.
//!
//! The rings are mapped twice, so that a record never wraps, and the kernel counts each mapped page as the process's: they
//! are taken out of the process's memory and counted once, as the kernel's.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::memory_group::{Version, controller};

/// Bytes resident for an agent.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Heap and stacks.
    pub anonymous: u64,
    /// Files: the program, its libraries, and the rings (twice).
    pub file: u64,
    /// Shared memory.
    pub shared: u64,
    /// As much of `file` as is mapped rings.
    pub mapped_rings: u64,
    /// Maps as the kernel states their sizes, without what it allocates per socket.
    pub maps: u64,
    /// All kernel memory charged to the agent's memory cgroup: maps, programs, what hangs on sockets, page tables. None
    /// where the machine has no memory controller.
    pub kernel: Option<u64>,
}

impl Memory {
    /// Looks at a process.
    pub fn of(pid: u32, charged: Option<&Charged>) -> Result<Self> {
        let status = read(&format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
            kilobytes(line)
        };
        Ok(Self {
            anonymous: field("RssAnon:")?,
            file: field("RssFile:")?,
            shared: field("RssShmem:")?,
            mapped_rings: mapped_rings(&read(&format!("/proc/{pid}/smaps"))?)?,
            maps: maps(pid)?,
            kernel: charged.map(Charged::kernel).transpose()?,
        })
    }

    /// Everything once: the process, and the kernel's part (as charged, else as stated).
    pub fn whole(&self) -> u64 {
        self.anonymous + self.file + self.shared - self.mapped_rings + self.kernel.unwrap_or(self.maps)
    }
}

/// Resident part of mapped BPF maps, by the text of a `smaps` file.
fn mapped_rings(smaps: &str) -> Result<u64> {
    let mut total = 0;
    let mut is_map = false;
    for line in smaps.lines() {
        if let Some(resident) = line.strip_prefix("Rss:") {
            total += if is_map { kilobytes(resident)? } else { 0 };
        } else if !line.split(' ').next().is_some_and(|word| word.ends_with(':')) {
            // The head of a mapping: addresses and, at its end, what is mapped.
            is_map = line.ends_with("bpf-map");
        }
    }
    Ok(total)
}

/// Bytes of all maps that a process holds, each once.
fn maps(pid: u32) -> Result<u64> {
    let mut maps = BTreeMap::new();
    let directory = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&directory).with_context(|| format!("list {directory}"))? {
        // A descriptor may be closed between the listing and the reading.
        let Ok(text) = fs::read_to_string(entry.context("list descriptors")?.path()) else { continue };
        let number = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse::<u64>().ok()
        };
        if let Some((id, bytes)) = number("map_id:").zip(number("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum())
}

fn kilobytes(text: &str) -> Result<u64> {
    let number = text.trim().strip_suffix(" kB").context("not in kB")?;
    Ok(number.parse::<u64>().with_context(|| format!("read {text:?}"))? * 1024)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

/// A memory cgroup of an agent's own, removed with its guard.
#[derive(Debug)]
pub struct Charged {
    directory: PathBuf,
    version: Version,
}

impl Charged {
    /// Puts a process that just started into a memory cgroup, where there is a memory controller.
    pub fn of(pid: u32) -> Result<Option<Self>> {
        let Some((root, version)) = controller(&read("/proc/self/mountinfo")?) else { return Ok(None) };
        let this = Self { directory: root.join(format!("sekisho-bench-{}-{pid}", std::process::id())), version };
        fs::create_dir(&this.directory).with_context(|| format!("create {}", this.directory.display()))?;
        let procs = this.directory.join("cgroup.procs");
        fs::write(&procs, pid.to_string()).with_context(|| format!("write {}", procs.display()))?;
        Ok(Some(this))
    }

    fn kernel(&self) -> Result<u64> {
        let name = if self.version == Version::One { "memory.kmem.usage_in_bytes" } else { "memory.stat" };
        let path = self.directory.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let number = match self.version {
            Version::One => Some(text.trim()),
            Version::Two => text.lines().find_map(|line| line.strip_prefix("kernel ")),
        };
        number.and_then(|number| number.parse().ok()).with_context(|| format!("no kernel bytes in {}", path.display()))
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.directory) {
            eprintln!("remove {}: {error}", self.directory.display());
        }
    }
}
