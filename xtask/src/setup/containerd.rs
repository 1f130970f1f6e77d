//! Debian's containerd and runc, in which the image is tried. They are unpacked into the user's cache and not installed: a
//! machine may have others of its own.

use std::path::PathBuf;

use anyhow::Result;

use super::Need;
use crate::apt::Apt;
use crate::vm::Arch;
use crate::{process, workspace};

/// The library is the only one that they ask for beside the C library, and that few machines lack.
const PACKAGES: [&str; 3] = ["containerd", "runc", "libseccomp2"];

/// Where the packages are unpacked.
pub(crate) fn directory() -> Result<PathBuf> {
    Ok(cache()?.join("containerd"))
}

fn cache() -> Result<PathBuf> {
    Ok(workspace::cache()?.join("containers"))
}

pub(super) fn missing(needs: &[Need]) -> Option<String> {
    let is_there = || directory().is_ok_and(|directory| process::is_executable(&directory.join("usr/bin/containerd")));
    (needs.contains(&Need::Image) && !is_there()).then(|| "containerd and runc for the tests".to_owned())
}

pub(super) fn install(_: &[Need]) -> Result<()> {
    let apt = Apt::new(Arch::host()?.debian(), cache()?);
    apt.cached("containerd", |directory| apt.unpack(&PACKAGES, directory)).map(drop)
}
