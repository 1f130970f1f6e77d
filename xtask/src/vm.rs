//! `cargo xtask vm-test`: the kernel tests on Debian's cloud kernels, the ones closest to what EKS nodes run. QEMU without
//! hardware support boots each with a small file system in memory that holds the program, the tests and nothing else.

mod emulator;
mod initramfs;
mod kernel;
mod machine;
mod modules;
mod programs;

use std::num::NonZero;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::apt::Apt;
use crate::setup::{self, Need};
use crate::workspace;

/// The kernel series of EKS nodes that Debian ships: 6.1 up to Kubernetes 1.32, 6.12 from 1.33 on.
pub(crate) const SERIES: [&str; 2] = ["6.1", "6.12"];

/// What `cargo xtask vm-test` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Architecture of the machine; this one's by default
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Kernel series; all by default
    #[arg(long, value_parser = SERIES)]
    kernel: Vec<String>,
    /// Keep the file system that is booted, under target/vm
    #[arg(long)]
    keep: bool,
    /// Passed on to the test program, for example a part of a test's name
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Architecture of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// x86-64.
    Amd64,
    /// `AArch64`.
    Arm64,
}

impl Arch {
    /// This machine's.
    pub(crate) fn host() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("no machine is known for the architecture {other}: choose one with --arch"),
        }
    }

    /// Debian's name.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Debian's packages for it, unpacked into the user's cache.
    fn apt(self) -> Result<Apt> {
        Ok(Apt::new(self.debian(), workspace::cache()?.join("vm").join(self.debian())))
    }

    /// Rust's name.
    pub(crate) fn rust(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let host = Arch::host()?;
    let arch = arguments.arch.unwrap_or(host);
    let needs: &[Need] = match (host, arch) {
        (Arch::Arm64, Arch::Amd64) => bail!("amd64 kernels are tested on amd64 machines only: leave out --arch"),
        (_, Arch::Amd64) => &[Need::Build, Need::Vm],
        (_, Arch::Arm64) => &[Need::Build, Need::Vm, Need::VmArm64],
    };
    setup::ensure(needs)?;
    let programs = programs::build(arch, host)?;
    let chosen =
        if arguments.kernel.is_empty() { SERIES.map(str::to_owned).to_vec() } else { arguments.kernel.clone() };
    let machines = chosen.iter().map(|series| Machine::prepare(arch, host, series, &programs, &arguments.filter));
    let machines = machines.collect::<Result<Vec<_>>>()?;
    let results = boot_all(&machines);
    if !arguments.keep {
        machines.iter().try_for_each(|machine| initramfs::remove(&machine.directory))?;
    }
    results.into_iter().collect()
}

/// All kernel tests on all kernel series and this machine's architecture.
pub(crate) fn run_all() -> Result<()> {
    run(&Arguments { arch: None, kernel: Vec::new(), keep: false, filter: Vec::new() })
}

/// One thread emulates a machine, so as many as there are CPUs run side by side.
fn boot_all(machines: &[Machine]) -> Vec<Result<()>> {
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut results = Vec::with_capacity(machines.len());
    for some in machines.chunks(at_once) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|machine| scope.spawn(|| machine.test())).collect();
            results.extend(threads.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }));
        });
    }
    results
}

/// A kernel and the file system that it boots.
struct Machine {
    arch: Arch,
    host: Arch,
    kernel: kernel::Kernel,
    directory: PathBuf,
    initramfs: PathBuf,
}

impl Machine {
    fn prepare(arch: Arch, host: Arch, series: &str, programs: &programs::Programs, filter: &[String]) -> Result<Self> {
        let kernel = kernel::fetch(arch, series)?;
        let directory = workspace::target().join("vm").join(format!("{}-{series}", arch.debian()));
        let started = Instant::now();
        let initramfs = initramfs::pack(&directory, &kernel, programs, filter)?;
        eprintln!("linux {} on {}: packed in {}", kernel.release, arch.debian(), seconds(started.elapsed()));
        Ok(Self { arch, host, kernel, directory, initramfs })
    }

    /// Boots it and runs the tests.
    fn test(&self) -> Result<()> {
        let mut report = self.boot();
        // Once: it says nothing of the tests, and a kernel that really breaks does it again.
        if let Err(error) = &report
            && error.is::<machine::EmulatorFault>()
        {
            eprintln!("{error}; once more");
            report = self.boot();
        }
        let report = report?;
        eprintln!(
            "linux {} on {}: tests passed; booted in {}, ended after {}",
            self.kernel.release,
            self.arch.debian(),
            seconds(report.booted),
            seconds(report.ended)
        );
        Ok(())
    }

    fn boot(&self) -> Result<machine::Report> {
        let qemu = emulator::qemu(self.arch, self.host)?;
        machine::boot(qemu, self.arch, &self.kernel, &self.initramfs, &self.directory.join("serial.log"))
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
