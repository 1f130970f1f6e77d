//! The program `control-plane`: runs etcd, kube-apiserver and kube-controller-manager in a directory of its own, until its
//! standard input ends or, when it is to stay, a signal comes. Then it ends them and removes the directory.
//!
//! A test program that is killed closes the pipe, and a control plane that is killed takes its programs along
//! ([`super::process`]), so nothing stays behind.

mod programs;

use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::protocol::Answer;
use programs::ControlPlane;

/// Held as long as the control plane runs; names a directory that is a control plane's.
pub const LOCK: &str = "lock";

/// Its process id, for whoever wants to end one that stays.
pub const PID: &str = "pid";

/// The administrator's kubeconfig.
pub const KUBECONFIG: &str = "kubeconfig";

/// Issuer of tokens of service accounts, who is also their audience.
pub const ISSUER: &str = "https://kubernetes.default.svc";

/// What a control plane is asked, as a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Kill the API server with SIGKILL.
    Kill,
    /// Start the API server again, at the same address.
    Restart,
    /// Have etcd forget all versions but the newest.
    Compact,
    /// The API server's process id.
    Pid,
    /// The process ids of all programs that run.
    Pids,
}

/// Where a control plane is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Address of the API server.
    pub server: SocketAddr,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Certificate of the authority that signed the server's.
    pub authority: PathBuf,
    /// Key that signs tokens of service accounts.
    pub token_key: PathBuf,
}

/// What `control-plane` does with its arguments.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where etcd, etcdctl, kube-apiserver and kube-controller-manager are.
    pub programs: PathBuf,
    /// Where everything of this run lies; removed at the end.
    pub directory: PathBuf,
    /// Runs until a signal comes instead of until standard input ends.
    pub stay: bool,
}

/// Runs a control plane, and tells standard output when it is ready, or why not.
pub fn run(options: &Options) -> Result<()> {
    // Before any thread, so that all of them leave the terminal.
    if options.stay {
        // Fails when this process leads a group, and then no terminal's signals reach it by accident either.
        let _ = rustix::process::setsid();
    }
    let (events, incoming) = channel();
    end_by_signal(events.clone())?;
    let result = take(&options.directory).and_then(|lock| {
        let result = serve(options, events, &incoming);
        let removed = fs::remove_dir_all(&options.directory);
        drop(lock);
        result.and(removed.with_context(|| format!("remove {}", options.directory.display())))
    });
    if let Err(error) = &result {
        say(&Answer::Error(format!("{error:#}")))?;
    }
    result
}

enum Event {
    Line(String),
    End,
}

fn serve(options: &Options, events: Sender<Event>, incoming: &Receiver<Event>) -> Result<()> {
    let mut plane = ControlPlane::start(&options.programs, &options.directory)?;
    say(&Answer::Ok(serde_json::to_value(&plane.place).context("encode a place")?))?;
    if options.stay {
        let nowhere = File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
        rustix::stdio::dup2_stdin(&nowhere).context("let go of standard input")?;
        rustix::stdio::dup2_stdout(&nowhere).context("let go of standard output")?;
        rustix::stdio::dup2_stderr(&nowhere).context("let go of standard error")?;
    } else {
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if events.send(Event::Line(line)).is_err() {
                    return;
                }
            }
            // The main thread is gone if nobody hears it.
            let _ = events.send(Event::End);
        });
    }
    while let Ok(Event::Line(line)) = incoming.recv() {
        let request = serde_json::from_str(&line).with_context(|| format!("decode the request {line:?}"))?;
        match plane.obey(&request) {
            Ok(value) => say(&Answer::Ok(value))?,
            Err(error) => say(&Answer::Error(format!("{error:#}")))?,
        }
    }
    Ok(())
}

fn say(answer: &Answer) -> Result<()> {
    let line = serde_json::to_string(answer).context("encode an answer")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("write an answer")
}

/// Ends the run on the signals that end programs.
fn end_by_signal(events: Sender<Event>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("build a runtime")?;
    let guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    drop(guard);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        let _ = events.send(Event::End);
    });
    Ok(())
}

/// Makes a directory this control plane's own. One that a killed control plane left is emptied.
fn take(directory: &Path) -> Result<File> {
    let shown = directory.display();
    fs::create_dir_all(directory).with_context(|| format!("create {shown}"))?;
    let lock = directory.join(LOCK);
    let mut entries = fs::read_dir(directory).with_context(|| format!("list {shown}"))?;
    ensure!(
        lock.exists() || entries.next().is_none(),
        "{shown} holds something else than a control plane: choose another directory"
    );
    let file = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
    ensure!(file.try_lock().is_ok(), "a control plane runs in {shown} already");
    for entry in fs::read_dir(directory).with_context(|| format!("list {shown}"))? {
        let path = entry.with_context(|| format!("list {shown}"))?.path();
        if path == lock {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).with_context(|| format!("protect {shown}"))?;
    let pid = directory.join(PID);
    fs::write(&pid, std::process::id().to_string()).with_context(|| format!("write {}", pid.display()))?;
    Ok(file)
}
