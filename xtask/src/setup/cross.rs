//! Rust's standard library for arm64, for machines that boot arm64 kernels without being arm64.

use std::env::consts::ARCH;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Need;
use crate::{build, process};

pub(super) fn missing(needs: &[Need]) -> Option<String> {
    if !needs.contains(&Need::VmArm64) || ARCH == "aarch64" {
        return None;
    }
    let target = build::ARM64.target;
    let sysroot = process::capture(Command::new("rustc").args(["--print", "sysroot"])).unwrap_or_default();
    let library = Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib");
    (!library.is_dir()).then(|| format!("the standard library for {target}"))
}

pub(super) fn install(_: &[Need]) -> Result<()> {
    let target = build::ARM64.target;
    let rustup = process::find("rustup")
        .with_context(|| format!("rustup is not installed: install it, or a standard library for {target} by hand"))?;
    process::run(Command::new(rustup).args(["target", "add", target]))
}
