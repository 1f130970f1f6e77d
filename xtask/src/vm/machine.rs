//! A virtual machine: boots, prints to a serial line, says how the tests ended, and is gone.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Arch;
use super::initramfs::{RESULT, STARTED};
use super::kernel::Kernel;

/// A machine that runs longer hangs. The tests take some six minutes on two CPUs that one thread emulates, and other
/// machines may run beside it.
const TIME_OUT: Duration = Duration::from_mins(20);

/// Emulated memory: the file system with its programs (about 100 MB, held twice while it is unpacked) and the tests.
const MEMORY_MB: &str = "2048";

/// How much of the log a failure shows.
const TAIL_LINES: usize = 60;

/// What the kernel prints when it meets the breakpoint by which it was rewriting its own code on another CPU. A real CPU never
/// shows that to it; QEMU's emulation with a thread for each CPU did, so it has one for all.
const TORN_CODE: &str = "Oops: int3: 0000";

/// The emulator tripped, and the tests said nothing about it.
#[derive(Debug)]
pub(super) struct EmulatorFault(String);

impl std::fmt::Display for EmulatorFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EmulatorFault {}

/// How a machine's life went.
pub(super) struct Report {
    /// From power-on to the tests' start.
    pub(super) booted: Duration,
    /// From power-on to power-off.
    pub(super) ended: Duration,
}

/// Boots a machine and waits for its end. What the tests print is shown while they run; all goes to `log`.
pub(super) fn boot(mut qemu: Command, arch: Arch, kernel: &Kernel, initramfs: &Path, log: &Path) -> Result<Report> {
    let command = configure(&mut qemu, arch);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let started = Instant::now();
    let text = crate::process::line(command);
    let mut child = command.spawn().with_context(|| format!("run `{text}`"))?;
    let watched = watch(&mut child, &kernel.release, log, started);
    let ended = watched.as_ref().is_ok_and(|watched| !matches!(watched.result, Some(Outcome::TimedOut)));
    if !ended {
        child.kill().context("stop QEMU")?;
    }
    let status = child.wait().context("wait for QEMU")?;
    let Watched { booted, result, torn, tail } = watched?;
    let machine = format!("linux {} on {}", kernel.release, arch.debian());
    if torn && result.is_none() {
        let text = format!(
            "{machine}: the emulator showed the kernel half-written code ({TORN_CODE}); log: {}",
            log.display()
        );
        return Err(EmulatorFault(text).into());
    }
    let failed = match (booted, result) {
        (Some(booted), Some(Outcome::Tests(code))) if code == "0" => {
            return Ok(Report { booted, ended: started.elapsed() });
        }
        // What they printed was shown.
        (Some(_), Some(Outcome::Tests(code))) => {
            bail!("{machine}: the tests ended with {code}; log: {}", log.display())
        }
        (_, Some(Outcome::TimedOut)) => format!("did not end within {} minutes", TIME_OUT.as_secs() / 60),
        (None, Some(Outcome::Tests(why))) => format!("never reached the tests: {why}"),
        (None, None) => format!("never reached the tests (QEMU: {status})"),
        (Some(_), None) => format!("stopped in the middle of the tests (QEMU: {status})"),
    };
    bail!("{machine} {failed}; the end of {}:\n{}", log.display(), tail.join("\n"));
}

fn configure(qemu: &mut Command, arch: Arch) -> &mut Command {
    let (machine, console) = match arch {
        Arch::Amd64 => ("q35", "ttyS0"),
        Arch::Arm64 => ("virt", "ttyAMA0"),
    };
    // A panic ends the machine (-1: at once; -no-reboot: for good).
    let kernel_line = format!("console={console} quiet panic=-1 oops=panic");
    qemu.args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", MEMORY_MB, "-M", machine]).args([
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
        "-append",
        &kernel_line,
    ])
}

/// How a machine ended, if it said so.
enum Outcome {
    Tests(String),
    TimedOut,
}

struct Watched {
    booted: Option<Duration>,
    result: Option<Outcome>,
    /// See [`TORN_CODE`].
    torn: bool,
    tail: Vec<String>,
}

/// Follows the serial line to its end or to the time-out.
fn watch(child: &mut Child, release: &str, log: &Path, started: Instant) -> Result<Watched> {
    let serial = child.stdout.take().context("QEMU has no serial line")?;
    let (sender, lines) = mpsc::channel();
    // Ends with the machine: the line is closed then.
    std::thread::spawn(move || {
        for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let mut file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let mut watched = Watched { booted: None, result: None, torn: false, tail: Vec::new() };
    loop {
        match lines.recv_timeout(TIME_OUT.saturating_sub(started.elapsed())) {
            Ok(line) => {
                writeln!(file, "{line}").with_context(|| format!("write {}", log.display()))?;
                if watched.read(line, started) {
                    eprintln!("    {release}  {}", watched.tail.last().map_or("", String::as_str));
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(watched),
            Err(RecvTimeoutError::Timeout) => {
                watched.result = Some(Outcome::TimedOut);
                return Ok(watched);
            }
        }
    }
}

impl Watched {
    /// Takes a line; whether it is one that the tests printed.
    fn read(&mut self, line: String, started: Instant) -> bool {
        let mut of_tests = false;
        self.torn |= line.contains(TORN_CODE);
        // A line of the kernel may stand before a marker without a line break between them.
        if line.ends_with(STARTED) {
            self.booted = Some(started.elapsed());
        } else if let Some((_, code)) = line.split_once(RESULT) {
            self.result = Some(Outcome::Tests(code.trim().to_owned()));
        } else if self.booted.is_some() && self.result.is_none() {
            of_tests = true;
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.remove(0);
        }
        self.tail.push(line);
        of_tests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Watched {
        let mut watched = Watched { booted: None, result: None, torn: false, tail: Vec::new() };
        for line in lines {
            watched.read((*line).to_owned(), Instant::now());
        }
        watched
    }

    #[test]
    fn the_tests_exit_code_is_read() {
        let watched = read(&["[    1.0] random: crng", STARTED, "running 1 test", &format!("{RESULT}101")]);
        assert!(watched.booted.is_some());
        assert!(matches!(watched.result, Some(Outcome::Tests(code)) if code == "101"));
    }

    #[test]
    fn a_machine_that_panics_has_no_result() {
        let watched = read(&[STARTED, "Kernel panic - not syncing"]);
        assert!(watched.booted.is_some() && watched.result.is_none());
    }

    #[test]
    fn a_fault_of_the_emulator_is_told_from_others() {
        let torn = "test metadata::several_requests ... [  209.503058] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI";
        assert!(read(&[STARTED, torn, "Kernel panic - not syncing: Fatal exception in interrupt"]).torn);
        assert!(!read(&[STARTED, "[  9.5] Oops: general protection fault, 0000 [#1]", "Kernel panic"]).torn);
    }

    #[test]
    fn the_tail_is_bounded() {
        let lines = vec!["x"; 3 * TAIL_LINES];
        assert_eq!(read(&lines).tail.len(), TAIL_LINES);
    }
}
