//! The machine that something was measured on, as far as figures depend on it.

use anyhow::{Context, Result};
use serde::Serialize;

/// Stands beside what was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub cpus: usize,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Release of the kernel, up to its second number: `6.18`.
    pub kernel: String,
    /// As Rust calls it: `x86_64`.
    pub architecture: &'static str,
}

impl Machine {
    /// This one.
    pub fn this() -> Result<Self> {
        let cpus = std::thread::available_parallelism().context("count processors")?.get();
        let memory = std::fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
        let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("no MemTotal")?;
        let kilobytes: u64 = total.trim().trim_end_matches(" kB").parse().context("parse MemTotal")?;
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let kernel = release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        Ok(Self { cpus, memory_bytes: kilobytes * 1024, kernel, architecture: std::env::consts::ARCH })
    }
}
