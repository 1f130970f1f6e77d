//! QEMU: the machine's own, or Debian's, unpacked into the user's cache. It is not installed: its package would replace
//! programs of other versions that a machine has for its own purposes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Arch;
use crate::process;

/// Where libraries lie below a root, in Debian 12 and in releases that have /usr alone.
const LIBRARIES: [&str; 4] = ["lib", "lib/{}", "usr/lib", "usr/lib/{}"];

/// The QEMU of an architecture, ready for arguments.
pub(super) fn qemu(arch: Arch, host: Arch) -> Result<Command> {
    let (program, package) = match arch {
        Arch::Amd64 => ("qemu-system-x86_64", "qemu-system-x86"),
        Arch::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
    };
    if let Some(path) = process::find(program) {
        return Ok(Command::new(path));
    }
    let root = host
        .apt()?
        .with_needs(package, &[package])
        .with_context(|| format!("get QEMU; where Debian's packages cannot be had, install {program} by hand"))?;
    Ok(unpacked(&root, program, host))
}

/// A program below a root, started with the loader, libraries and data that lie there too.
fn unpacked(root: &Path, program: &str, host: Arch) -> Command {
    let (loader, triple) = match host {
        Arch::Amd64 => ("lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu"),
        Arch::Arm64 => ("lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu"),
    };
    let libraries: Vec<OsString> =
        LIBRARIES.iter().map(|directory| root.join(directory.replace("{}", triple)).into_os_string()).collect();
    let mut command = Command::new(root.join(loader));
    command.arg("--library-path").arg(libraries.join(OsString::from(":").as_os_str()));
    command.arg(root.join("usr/bin").join(program));
    command.env("QEMU_MODULE_DIR", root.join("usr/lib").join(triple).join("qemu"));
    for data in data_directories(root) {
        command.arg("-L").arg(data);
    }
    command
}

/// Firmware and option ROMs.
fn data_directories(root: &Path) -> [PathBuf; 3] {
    ["qemu", "seabios", "ipxe"].map(|name| root.join("usr/share").join(name))
}
