//! A program on a terminal: a pseudo terminal of its own, and what a person would see on it.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::scale;

/// Gives a program a session whose terminal is its standard input, so that it hears of a new size.
const SETSID: &str = "/usr/bin/setsid";
const LOOK: Duration = Duration::from_millis(20);

/// A program on its terminal, ended with its guard.
pub struct Screen {
    child: Child,
    /// The side of whoever types and looks.
    master: File,
    /// The program's side, kept to see how it leaves it.
    slave: OwnedFd,
    before: Termios,
    terminal: Arc<Mutex<vt100::Parser>>,
}

impl Screen {
    /// Starts a program on a terminal of so many rows and columns.
    pub fn start(program: &Path, arguments: &[&str], size: (u16, u16)) -> Result<Self> {
        ensure!(Path::new(SETSID).exists(), "{SETSID} is not there: it belongs to util-linux");
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .context("open a pseudo terminal")?;
        rustix::pty::unlockpt(&master).context("unlock a pseudo terminal")?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).context("open a pseudo terminal's other side")?;
        tcsetwinsize(&master, winsize(size)).context("size a pseudo terminal")?;
        let before = tcgetattr(&slave).context("look at a pseudo terminal")?;
        let side = || slave.try_clone().context("share a pseudo terminal");
        let child = Command::new(SETSID)
            .arg("--ctty")
            .arg(program)
            .args(arguments)
            .env("TERM", "xterm-256color")
            .stdin(side()?)
            .stdout(side()?)
            .stderr(side()?)
            .spawn()
            .with_context(|| format!("start {} on a terminal", program.display()))?;
        let master = File::from(master);
        let (rows, columns) = nonzero(size)?;
        let terminal = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (mut reader, shown) = (master.try_clone().context("share a pseudo terminal")?, Arc::clone(&terminal));
        // Ends with the last one who has the other side open.
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                shown.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..count]);
            }
        });
        Ok(Self { child, master, slave, before, terminal })
    }

    /// Types.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.master.write_all(keys.as_bytes()).context("type")
    }

    /// Gives the terminal another size.
    pub fn resize(&self, size: (u16, u16)) -> Result<()> {
        let (rows, columns) = nonzero(size)?;
        self.terminal().screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.master, winsize(size)).context("size a pseudo terminal")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("a pid of 0")?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("send {signal:?}"))
    }

    /// The lines on the screen.
    pub fn lines(&self) -> Vec<String> {
        let terminal = self.terminal();
        let (_, columns) = terminal.screen().size();
        terminal.screen().rows(0, columns.get()).map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits until the screen is as the test wants it.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Result<()> {
        let deadline = Instant::now() + scale::deadline();
        while !wanted(&self.lines()) {
            if let Some(status) = self.child.try_wait().context("look at the program")? {
                anyhow::bail!("it ended with {status} before {what}: {}", self.lines().join("\n"));
            }
            let late = Instant::now() >= deadline;
            ensure!(!late, "{what} did not come in {:?}:\n{}", scale::deadline(), self.lines().join("\n"));
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits for its end, and sees that the terminal is as it was before: its settings, the first of its two screens, and
    /// the cursor.
    pub fn end(mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + scale::deadline();
        let status = loop {
            if let Some(status) = self.child.try_wait().context("wait for the program")? {
                break status;
            }
            ensure!(Instant::now() < deadline, "it did not end in {:?}", scale::deadline());
            std::thread::sleep(LOOK);
        };
        let after = tcgetattr(&self.slave).context("look at the terminal")?;
        ensure!(modes(&after) == modes(&self.before), "the terminal is left as {after:?}, was {:?}", self.before);
        // The last bytes may still be on their way to the reader.
        loop {
            let is_back = {
                let terminal = self.terminal();
                !terminal.screen().alternate_screen() && !terminal.screen().hide_cursor()
            };
            if is_back {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "the other screen or the hidden cursor stays:\n{}",
                self.lines().join("\n")
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Whether the program has taken the terminal: keys come at once and without an echo, on the second screen.
    pub fn is_taken(&self) -> Result<bool> {
        let now = tcgetattr(&self.slave).context("look at the terminal")?;
        Ok(modes(&now) != modes(&self.before) && self.terminal().screen().alternate_screen())
    }

    fn terminal(&self) -> MutexGuard<'_, vt100::Parser> {
        self.terminal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nonzero((rows, columns): (u16, u16)) -> Result<(NonZero<u16>, NonZero<u16>)> {
    let size = |figure| NonZero::new(figure).context("a terminal without a size");
    Ok((size(rows)?, size(columns)?))
}

fn winsize((rows, columns): (u16, u16)) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn modes(termios: &Termios) -> [u64; 4] {
    let Termios { input_modes, output_modes, control_modes, local_modes, .. } = termios;
    [input_modes.bits(), output_modes.bits(), control_modes.bits(), local_modes.bits()].map(u64::from)
}
