//! A BPF file system of a test's own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// Mounted while it lives; what is pinned in it goes with it.
#[derive(Debug)]
pub struct BpfFs {
    directory: TempDir,
}

impl BpfFs {
    /// Mounts one at a new directory.
    pub fn mount() -> Result<Self> {
        let directory = tempfile::tempdir().context("make a directory")?;
        mount("bpf", directory.path(), "bpf", MountFlags::empty(), c"").context("mount a BPF file system")?;
        Ok(Self { directory })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A directory in it that nobody made yet.
    pub fn pins(&self) -> PathBuf {
        self.directory.path().join("sekisho")
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // Whoever still uses it keeps it until then.
        let _ = unmount(self.directory.path(), UnmountFlags::DETACH);
    }
}
