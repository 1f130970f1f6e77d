//! `cargo xtask build`: the probes for the BPF machine, then the program `sekisho` with their object inside.
//!
//! The object is copied to `target/probes/<architecture>/probes` and only when it changed: cargo itself puts an older object
//! in place (a hard link, its time unchanged) when features go back and forth, which a build script cannot notice.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{self, Executable};
use crate::remap;
use crate::toolchain::{self, Compiler};
use crate::workspace;

/// The machine that the probes are built for: little endian, as both amd64 and arm64 are.
const BPF_TARGET: &str = "bpfel-unknown-none";

/// Instruction set of the probes. v3 (kernel 5.12) has atomic operations that return the old value, and 32-bit jumps.
const BPF_CPU: &str = "v3";

/// Programs of `agent-ebpf` for the BPF machine: the probes, and the empty ones that `cargo xtask bench` compares them with.
pub(crate) const PROBES: &str = "probes";
/// See [`PROBES`].
pub(crate) const EMPTY: &str = "empty";

/// What `cargo xtask build` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Optimise the program (the probes always are)
    #[arg(long)]
    release: bool,
    /// Let the probes write log lines; for debugging by hand
    #[arg(long)]
    probe_log: bool,
}

/// How the program is built.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// Optimised.
    pub(crate) release: bool,
    /// Shows what the probes log.
    pub(crate) probe_log: bool,
    /// For another architecture than this machine's.
    pub(crate) cross: Option<Cross>,
}

/// Another architecture to build programs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cross {
    /// Rust's name of it.
    pub(crate) target: &'static str,
    /// The C compiler that links for it.
    pub(crate) linker: &'static str,
}

/// arm64 nodes.
pub(crate) const ARM64: Cross = Cross { target: "aarch64-unknown-linux-gnu", linker: "aarch64-linux-gnu-gcc" };

impl Cross {
    /// Makes a cargo command build for the architecture.
    pub(crate) fn apply(self, command: &mut Command) {
        let variable = self.target.to_ascii_uppercase().replace('-', "_");
        command.args(["--target", self.target]).env(format!("CARGO_TARGET_{variable}_LINKER"), self.linker);
    }
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    probes(ARCH, arguments.probe_log)?;
    let options = Options { release: arguments.release, probe_log: arguments.probe_log, cross: None };
    eprintln!("built {}", agent(options)?.display());
    Ok(())
}

/// Builds the probes for nodes of an architecture and returns their object.
pub(crate) fn probes(architecture: &str, log: bool) -> Result<PathBuf> {
    let mut command = probes_command("build", architecture, &[PROBES])?;
    if log {
        command.args(["--features", "probe-log"]);
    }
    let built = process::cargo_build(&mut command).context("build the probes")?;
    let object = workspace::object(architecture);
    copy_if_changed(&executable(built, PROBES)?, &object)?;
    Ok(object)
}

/// Builds the empty programs and returns their object.
pub(crate) fn empty(architecture: &str) -> Result<PathBuf> {
    let mut command = probes_command("build", architecture, &[EMPTY])?;
    executable(process::cargo_build(&mut command).context("build the empty programs")?, EMPTY)
}

/// `cargo build` or `cargo clippy` for programs of the BPF machine.
pub(crate) fn probes_command(subcommand: &str, architecture: &str, programs: &[&str]) -> Result<Command> {
    let (compiler, linker) = toolchain::require()?;
    let mut command = process::cargo();
    command
        .arg(subcommand)
        .args(["--release", "-Z", "build-std=core", "--package", "agent-ebpf"])
        .args(programs.iter().flat_map(|&program| ["--bin", program]))
        .args(["--target", BPF_TARGET, "--target-dir"])
        .arg(workspace::target().join("bpf").join(architecture))
        // The stable compiler builds `core` from source only when told that this is meant.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(architecture, &linker).join("\u{1f}"))
        .env_remove("RUSTFLAGS");
    let Compiler { rustc, in_use } = compiler;
    if !in_use {
        command.env("RUSTC", rustc);
    }
    Ok(command)
}

fn flags(architecture: &str, linker: &Path) -> Vec<String> {
    let mut flags = vec![
        "--cfg".to_owned(),
        format!("bpf_target_arch=\"{architecture}\""),
        // BTF comes from debug information; without it the loader finds no map definitions.
        "-Cdebuginfo=2".to_owned(),
        // rustc hands it on to bpf-linker, which takes it only once.
        format!("-Ctarget-cpu={BPF_CPU}"),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        // Else zeroing a record becomes a loop of byte stores.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
    ];
    flags.extend(remap::flags());
    flags
}

/// Builds the program with the object that [`probes`] left, and returns its path.
pub(crate) fn agent(options: Options) -> Result<PathBuf> {
    let mut command = process::cargo();
    command.args(["build", "--package", "sekisho", "--bin", "sekisho"]);
    if options.release {
        command.arg("--release");
        remap::apply(&mut command);
    }
    if options.probe_log {
        command.args(["--features", "probe-log"]);
    }
    if let Some(cross) = options.cross {
        cross.apply(&mut command);
    }
    executable(process::cargo_build(&mut command)?, "sekisho")
}

fn executable(built: Vec<Executable>, name: &str) -> Result<PathBuf> {
    built
        .into_iter()
        .find(|executable| executable.name == name)
        .map(|executable| executable.path)
        .with_context(|| format!("cargo built no executable `{name}`"))
}

/// Copies a file unless the copy is the same already, so that what depends on the copy stays as it is.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let wanted = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == wanted) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    fs::write(to, wanted).with_context(|| format!("write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let directory = workspace::target().join("tmp").join(format!("copy-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (from, to) = (directory.join("from"), directory.join("to/probes"));
        fs::write(&from, "one").unwrap();
        copy_if_changed(&from, &to).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        fs::File::open(&to).unwrap().set_modified(long_ago).unwrap();

        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), long_ago);

        fs::write(&from, "two").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
        assert!(fs::metadata(&to).unwrap().modified().unwrap() > long_ago);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn the_node_s_architecture_reaches_the_compiler() {
        let flags = flags("aarch64", Path::new("/bin/bpf-linker"));
        assert!(flags.contains(&"bpf_target_arch=\"aarch64\"".to_owned()));
        assert!(flags.contains(&"-Clinker=/bin/bpf-linker".to_owned()));
    }
}
