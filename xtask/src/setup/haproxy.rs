//! `HAProxy`, to which a test turns connections as a mesh does: the machine's own, or Debian's, unpacked into the user's cache.
//! It is not installed: its package would start a server on the machine.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Need;
use crate::apt::Apt;
use crate::vm::Arch;
use crate::{process, workspace};

/// With those of its libraries that few machines have.
const PACKAGES: [&str; 4] = ["haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"];
const PROGRAM: &str = "usr/sbin/haproxy";

/// The root of a file system that has the program, and its libraries where others do not.
pub(crate) fn directory() -> Result<PathBuf> {
    let installed = PathBuf::from("/");
    if process::is_executable(&installed.join(PROGRAM)) { Ok(installed) } else { Ok(cache()?.join("haproxy")) }
}

fn cache() -> Result<PathBuf> {
    Ok(workspace::cache()?.join("mesh"))
}

pub(super) fn missing(needs: &[Need]) -> Option<String> {
    let is_there = || directory().is_ok_and(|directory| process::is_executable(&directory.join(PROGRAM)));
    (needs.contains(&Need::Test) && !is_there()).then(|| "HAProxy for the tests".to_owned())
}

pub(super) fn install(_: &[Need]) -> Result<()> {
    let apt = Apt::new(Arch::host()?.debian(), cache()?);
    let unpacked = apt.cached("haproxy", |directory| apt.unpack(&PACKAGES, directory));
    unpacked.map(drop).context("get HAProxy; where Debian's packages cannot be had, install haproxy by hand")
}
