//! The library source that `-Z build-std=core` compiles: rustup's component, else Debian's compiler that comes with it.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Need, debian};
use crate::{process, toolchain};

/// Debian's current compiler and its library source, kept up to date in stable releases for browsers.
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

pub(super) fn missing(needs: &[Need]) -> Option<String> {
    if !needs.contains(&Need::Build) {
        return None;
    }
    let refused = toolchain::compiler().err()?;
    Some(format!("the library source of a compiler ({})", refused.join("; ")))
}

pub(super) fn install(_: &[Need]) -> Result<()> {
    let by_rustup = by_rustup();
    if by_rustup.is_ok() && toolchain::compiler().is_ok() {
        return Ok(());
    }
    if let Err(error) = by_rustup {
        eprintln!("setup: {error:#}; trying Debian's packages");
    }
    if !DEBIAN_PACKAGES.into_iter().all(debian::is_available) {
        bail!(
            "rustup could not add it and this machine's package lists have no {}: install rustup and run \
             `rustup component add rust-src`",
            DEBIAN_PACKAGES.join(" and ")
        );
    }
    debian::install_packages(&DEBIAN_PACKAGES)
}

fn by_rustup() -> Result<()> {
    let rustup = process::find("rustup").context("rustup is not installed")?;
    process::run(Command::new(rustup).args(["component", "add", "rust-src"]))
}
