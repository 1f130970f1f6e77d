//! A program of a control plane: started so that it never outlives who started it, with its output in a file.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};

/// First argument of `control-plane` when it is to become another program.
pub const BECOME: &str = "become";

/// Between two looks at something that must come.
const LOOK: Duration = Duration::from_millis(50);

/// For a program to end by itself. etcd and the API server need a second, and then SIGKILL does no harm.
const STOP: Duration = Duration::from_secs(10);

/// As many lines of its output tell why a program ended.
const LAST_LINES: usize = 8;

/// A running program, ended with its guard.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output appended to a file.
    pub(super) fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("open {}", log.display()))?;
        let own = std::env::current_exe().context("find the own program")?;
        let mut command = Command::new(own);
        command.arg(BECOME).arg(std::process::id().to_string()).arg(program).args(arguments);
        // etcd 3.4 wants to be told that this architecture is meant.
        command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        command.stdin(Stdio::null()).stdout(output.try_clone().context("share a log")?).stderr(output);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it answers, and fails with its last lines when it ends before.
    pub(super) fn wait_for(&mut self, deadline: Duration, mut answers: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + deadline;
        while !answers() {
            if let Some(status) = self.child.try_wait().with_context(|| format!("look at {}", self.name))? {
                bail!("{} ended with {status}: {}", self.name, last_lines(&self.log));
            }
            ensure!(Instant::now() < end, "{} did not answer in {deadline:?}: {}", self.name, last_lines(&self.log));
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Kills it with SIGKILL.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait().with_context(|| format!("wait for {}", self.name)).map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What fails here fails because it has ended already.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
            && matches!(self.child.try_wait(), Ok(None))
        {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Becomes another program that the kernel kills when its parent is gone.
pub fn become_program(parent: &str, program: &str, arguments: &[&str]) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("be killed along with the parent")?;
    // From here on the signal comes; the parent may have been gone before.
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().to_string());
    ensure!(now.as_deref() == Some(parent), "the process that started {program} is gone");
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("become {program}"))
}

/// The end of a log; empty when there is none.
pub(super) fn last_lines(log: &Path) -> String {
    let text = match fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => format!("{} cannot be read: {error}", log.display()),
    };
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n")
}
