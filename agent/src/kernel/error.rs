//! What can keep the probes from running, with the cure.

use std::io;
use std::path::PathBuf;

/// Why the probes do not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Built by plain cargo.
    #[error("this binary was built without its probes: build it with `cargo xtask build`")]
    NoObject,
    /// Something that every probe needs is missing.
    #[error("missing {what}: {cure}")]
    Missing {
        /// What.
        what: String,
        /// What to do.
        cure: String,
    },
    /// The running kernel's type information lacks a field that the probes read.
    #[error("the kernel's type information has no {field}: this kernel is not supported, please report its version")]
    NoField {
        /// Struct and member.
        field: String,
    },
    /// The kernel's type information cannot be read.
    #[error(
        "cannot read the kernel's type information from {path}: the kernel must be built with CONFIG_DEBUG_INFO_BTF"
    )]
    Btf {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cgroup2 root cannot be opened.
    #[error("cannot open the cgroup2 root {path}: mount cgroup2 there, or set roots.cgroup in the configuration")]
    Cgroup {
        /// Directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object or a map was refused. A missing capability was told before.
    #[error(
        "cannot load the probes' maps, though no capability is missing: see whether a seccomp profile or a security \
         module refuses bpf(2), and whether the limit of memory is too low"
    )]
    Load {
        /// Why.
        source: Box<aya::EbpfError>,
    },
    /// A program that nothing works without was refused.
    #[error("the kernel refused the probe {probe}: {reason}")]
    Required {
        /// Which.
        probe: &'static str,
        /// The kernel's words.
        reason: String,
    },
    /// A map is not what it should be.
    #[error("cannot open the probes' map {map}")]
    Map {
        /// Which.
        map: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
    /// A ring cannot be mapped into memory, or waited for.
    #[error("cannot read the probes' ring {map}")]
    Ring {
        /// Which.
        map: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The pins cannot be made.
    #[error("cannot pin the probes at {path}: see kernel.pin in the configuration")]
    Pins {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start the ring thread: raise the limit of processes (pids.max, RLIMIT_NPROC)")]
    Thread {
        /// Why.
        source: io::Error,
    },
}
