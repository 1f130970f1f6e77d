//! Debian's kernels, and the shell and C library that they boot with, in the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Arch;
use crate::{apt, process};

/// What the file system holds besides the kernel's modules and the programs of this workspace.
const USERLAND: [&str; 3] = ["busybox-static", "libc6", "libgcc-s1"];

/// A kernel that can be booted.
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) release: String,
    /// What QEMU loads.
    pub(super) image: PathBuf,
    /// Its modules with `modules.dep` and `modules.builtin`.
    pub(super) modules: PathBuf,
    /// A shell and the C library, unpacked.
    pub(super) userland: PathBuf,
}

/// Takes a kernel from the cache, or downloads the newest of its series into it.
pub(super) fn fetch(arch: Arch, series: &str) -> Result<Kernel> {
    let apt = arch.apt()?;
    let userland = apt.with_needs("userland", &USERLAND)?;
    let unpacked = apt.cached(&format!("linux-{series}"), |directory| {
        let prefix = format!("linux-image-{series}.");
        let suffix = format!("-cloud-{}", arch.debian());
        let package = newest(&apt.names(&prefix)?, &prefix, &suffix).with_context(|| {
            format!("the package lists hold no {prefix}*{suffix}: such kernels come from Debian 12")
        })?;
        apt.unpack(&[&package], directory)?;
        process::run(Command::new(apt::program("depmod")?).arg("-b").arg(directory).arg(release(directory)?))
    })?;
    let release = release(&unpacked)?;
    Ok(Kernel {
        image: unpacked.join("boot").join(format!("vmlinuz-{release}")),
        modules: unpacked.join("lib/modules").join(&release),
        userland,
        release,
    })
}

/// The only release whose modules were unpacked. Newer Debian releases keep them in /usr/lib alone; then /lib is linked.
fn release(unpacked: &Path) -> Result<String> {
    let modules = unpacked.join("lib/modules");
    let mut entries = fs::read_dir(&modules).with_context(|| format!("list {}", modules.display()))?;
    let entry =
        entries.next().with_context(|| format!("{} is empty: delete it and try again", modules.display()))??;
    entry.file_name().into_string().ok().context("a kernel's release is not UTF-8")
}

/// The name with the highest numbers among those with a prefix and a suffix.
fn newest(names: &str, prefix: &str, suffix: &str) -> Option<String> {
    names
        .lines()
        .filter(|name| name.starts_with(prefix) && name.ends_with(suffix))
        .max_by_key(|name| numbers(name))
        .map(str::to_owned)
}

fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_chosen_by_number_not_by_letter() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
                     linux-image-6.1.0-57-amd64\nlinux-image-6.1.0-58-cloud-amd64-dbg\nlinux-image-6.12.1-cloud-amd64\n";
        let found = newest(names, "linux-image-6.1.", "-cloud-amd64");
        assert_eq!(found.as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(names, "linux-image-6.6.", "-cloud-amd64"), None);
    }
}
