//! What builds eBPF: a compiler that has its library's source (for `-Z build-std=core`), and bpf-linker.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// LLVM's major version in bpf-linker. It reads the bitcode of compilers with the same or an older LLVM.
pub(crate) const LLVM: u32 = 22;

/// Version of bpf-linker, as `cargo install` takes it.
pub(crate) const LINKER_VERSION: &str = "0.13";

/// Debian's compiler, which finds its library's source when the package rust-web-src is there.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that can build `core` from source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// The program.
    pub(crate) rustc: PathBuf,
    /// It is the one that cargo uses anyway, so clippy fits it too.
    pub(crate) in_use: bool,
}

/// The first compiler that has its library's source, with why the others will not do.
pub(crate) fn compiler() -> Result<Compiler, Vec<String>> {
    let in_use = env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    let mut refused = Vec::new();
    for (rustc, in_use) in [(in_use, true), (PathBuf::from(DEBIAN_RUSTC), false)] {
        match refusal(&rustc) {
            None => return Ok(Compiler { rustc, in_use }),
            Some(why) => refused.push(format!("{}: {why}", rustc.display())),
        }
    }
    Err(refused)
}

/// Why a compiler cannot build the probes, or None when it can.
fn refusal(rustc: &Path) -> Option<String> {
    let ask = |argument: &[&str]| process::capture(Command::new(rustc).args(argument)).ok();
    let Some(sysroot) = ask(&["--print", "sysroot"]) else { return Some("not installed".to_owned()) };
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if !library.is_file() {
        return Some(format!("has no library source ({} is missing)", library.display()));
    }
    match llvm_major(&ask(&["--verbose", "--version"]).unwrap_or_default()) {
        Some(major) if major > LLVM => Some(format!("is built on LLVM {major}, bpf-linker reads LLVM {LLVM} at most")),
        _ => None,
    }
}

fn llvm_major(version: &str) -> Option<u32> {
    version.lines().find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.parse().ok())
}

/// A bpf-linker of the right version: the one that set-up built, one of cargo's directory, or one from PATH.
pub(crate) fn linker() -> Option<PathBuf> {
    let built = workspace::tools().ok().map(|tools| tools.join("bin/bpf-linker"));
    let installed = workspace::cargo_bin().ok().map(|directory| directory.join("bpf-linker"));
    built
        .into_iter()
        .chain(installed)
        .filter(|path| process::is_executable(path))
        .chain(process::find("bpf-linker"))
        .find(|path| {
            process::capture(Command::new(path).arg("--version")).is_ok_and(|version| fits(&version, LINKER_VERSION))
        })
}

/// Whether `name x.y.z …` is a release of the wanted `x.y`.
fn fits(version: &str, wanted: &str) -> bool {
    let found = version.split_whitespace().nth(1).unwrap_or_default();
    found.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.'))
}

/// Compiler and linker for a build, or what to do when one is missing.
pub(crate) fn require() -> Result<(Compiler, PathBuf)> {
    let compiler = compiler()
        .map_err(|refused| anyhow::anyhow!("{}", refused.join("; ")))
        .context("no compiler can build the probes: run `cargo xtask setup`")?;
    let linker =
        linker().with_context(|| format!("bpf-linker {LINKER_VERSION} is missing: run `cargo xtask setup`"))?;
    Ok((compiler, linker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_fits_by_its_first_two_numbers() {
        assert!(fits("bpf-linker 0.13.1\n", "0.13"));
        assert!(!fits("bpf-linker 0.130.1\n", "0.13"));
        assert!(!fits("bpf-linker 0.9.2\n", "0.13"));
        assert!(!fits("", "0.13"));
    }

    #[test]
    fn the_version_of_llvm_is_read() {
        assert_eq!(llvm_major("rustc 1.95.0\nLLVM version: 22.1.2\n"), Some(22));
        assert_eq!(llvm_major("rustc 1.95.0\n"), None);
    }

    #[test]
    fn a_compiler_that_is_not_there_is_refused_with_a_reason() {
        assert_eq!(refusal(Path::new("/nonexistent/rustc")), Some("not installed".to_owned()));
    }
}
