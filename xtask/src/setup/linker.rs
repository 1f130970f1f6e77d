//! bpf-linker, built against Debian's LLVM.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Need, debian};
use crate::{process, toolchain, workspace};

pub(super) fn missing(needs: &[Need]) -> Option<String> {
    let wanted = needs.contains(&Need::Build) && toolchain::linker().is_none();
    wanted.then(|| format!("bpf-linker {} (takes about a minute)", toolchain::LINKER_VERSION))
}

pub(super) fn install(_: &[Need]) -> Result<()> {
    let llvm = llvm_prefix();
    let complete = llvm.join("bin/llvm-config").is_file() && llvm.join("lib/libPolly.a").is_file();
    if !complete {
        let packages = debian::llvm_packages();
        debian::install_packages(&packages.each_ref().map(String::as_str)).with_context(|| {
            format!(
                "install LLVM {}; where it cannot be had, put a bpf-linker {} into PATH or {}",
                toolchain::LLVM,
                toolchain::LINKER_VERSION,
                workspace::cargo_bin().unwrap_or_default().display()
            )
        })?;
    }
    process::run(
        process::cargo()
            .args(["install", "bpf-linker", "--locked", "--force", "--no-default-features", "--root"])
            .arg(workspace::tools()?)
            .args(["--version", &format!("^{}", toolchain::LINKER_VERSION)])
            .args(["--features", &format!("llvm-{}", toolchain::LLVM)])
            .env(format!("LLVM_SYS_{}1_PREFIX", toolchain::LLVM), &llvm)
            .env("PATH", path_with(&llvm.join("bin"))?),
    )
}

fn llvm_prefix() -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{}", toolchain::LLVM))
}

/// PATH with a directory in front, so that its `llvm-config` is the one that is found.
fn path_with(first: &Path) -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(first.to_owned()).chain(env::split_paths(&path)))
        .context("put LLVM's programs into PATH")
}
