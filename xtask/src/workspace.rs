//! Where things lie: the workspace, its target directory, the user's cache.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The workspace's root, that is the parent of this package.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Where generated things go that only xtask and the agent's build script know. Not moved by `CARGO_TARGET_DIR`, so that
/// both find it without asking cargo.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// The probes' object for one architecture; `agent/build.rs` looks here.
pub(crate) fn object(architecture: &str) -> PathBuf {
    target().join("probes").join(architecture).join("probes")
}

/// What is expensive to fetch and the same for every clone: the user's cache directory.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => home()?.join(".cache"),
    };
    Ok(base.join("sekisho"))
}

/// Programs that set-up builds, so that a user's own of the same name stay as they are.
pub(crate) fn tools() -> Result<PathBuf> {
    Ok(cache()?.join("tools"))
}

/// Where cargo installs programs.
pub(crate) fn cargo_bin() -> Result<PathBuf> {
    cargo_home().map(|home| home.join("bin")).context("HOME is not set: set it to your home directory")
}

/// Where cargo keeps what it installs and downloads.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
        _ => home().ok().map(|home| home.join(".cargo")),
    }
}

fn home() -> Result<PathBuf> {
    env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
        .context("HOME is not set: set it to your home directory")
}
