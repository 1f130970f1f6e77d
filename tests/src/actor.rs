//! A process in a pod that does what the test says: the test's side of [`crate::protocol`].

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::netns::Namespace;
use crate::protocol::{Answer, Connected, Datagram, Exchanged, Load, Moved, OneShot, Op, Prefork};

/// Names the actor's program where it does not stand beside the test's.
const PROGRAM: &str = "SEKISHO_ACTOR";

/// A process in a pod, ended with its guard.
#[derive(Debug)]
pub struct Actor {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts an actor in a control group and a network namespace.
    pub(crate) fn start(cgroup: &Path, namespace: &Namespace) -> Result<Self> {
        Self::start_program(&program()?, cgroup, namespace)
    }

    /// As [`Actor::start`], by a copy of the actor's program with a name of its own.
    pub(crate) fn start_program(program: &Path, cgroup: &Path, namespace: &Namespace) -> Result<Self> {
        let mut child = command(cgroup, namespace, program)?
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("the actor has no output")?);
        let mut actor = Self { child, stdin, stdout };
        let hello: String = actor.answer().context("wait for the actor")?;
        anyhow::ensure!(hello == "ready", "the actor says {hello:?} instead of ready");
        Ok(actor)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has an operation done and waits for its answer.
    pub fn ask<T: DeserializeOwned>(&mut self, op: &Op) -> Result<T> {
        self.tell(op)?;
        self.answer().with_context(|| format!("have an actor do {op:?}"))
    }

    /// Has an operation begun; [`Actor::answer`] waits for it.
    pub fn tell(&mut self, op: &Op) -> Result<()> {
        let mut line = serde_json::to_string(op).context("encode an operation")?;
        line.push('\n');
        let stdin = self.stdin.as_mut().context("the actor was told to end")?;
        stdin.write_all(line.as_bytes()).with_context(|| format!("tell an actor {op:?}"))
    }

    /// Waits for the answer to the operation begun first.
    pub fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        let length = self.stdout.read_line(&mut line).context("read from an actor")?;
        if length == 0 {
            bail!("the actor ended");
        }
        match serde_json::from_str(&line).with_context(|| format!("decode an actor's answer {line:?}"))? {
            Answer::Ok(value) => serde_json::from_value(value).context("decode an actor's answer"),
            Answer::Error(error) => bail!("{error}"),
        }
    }

    /// Lets it end by itself, and waits.
    pub fn end(mut self) -> Result<()> {
        self.stdin = None;
        let status = self.child.wait().context("wait for an actor")?;
        anyhow::ensure!(status.success(), "an actor ended with {status}");
        Ok(())
    }

    /// Kills it with SIGKILL, and waits.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("kill an actor")?;
        self.child.wait().context("wait for an actor")?;
        Ok(())
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === operations, one method each ===

impl Actor {
    /// See [`Op::Listen`].
    pub fn listen(&mut self, socket: &str, address: SocketAddr) -> Result<SocketAddr> {
        self.ask(&Op::Listen { socket: socket.into(), address })
    }

    /// See [`Op::Accept`].
    pub fn accept(&mut self, listener: &str, socket: &str) -> Result<SocketAddr> {
        self.ask(&Op::Accept { listener: listener.into(), socket: socket.into() })
    }

    /// See [`Op::Connect`]; whatever comes of it.
    pub fn try_connect(&mut self, socket: &str, address: SocketAddr) -> Result<Connected> {
        self.ask(&Op::Connect { socket: socket.into(), address, bind: None, give_up_ms: None })
    }

    /// See [`Op::Connect`]; must succeed. Answers the local address.
    pub fn connect(&mut self, socket: &str, address: SocketAddr) -> Result<SocketAddr> {
        match self.try_connect(socket, address)? {
            Connected { local: Some(local), errno: None } => Ok(local),
            other => bail!("connect to {address}: {other:?}"),
        }
    }

    /// See [`Op::Connect`]; gives up after a while.
    pub fn connect_and_give_up(&mut self, socket: &str, address: SocketAddr, after_ms: u32) -> Result<Connected> {
        self.ask(&Op::Connect { socket: socket.into(), address, bind: None, give_up_ms: Some(after_ms) })
    }

    /// See [`Op::Connect`]; from a bound address.
    pub fn connect_from(&mut self, socket: &str, bind: SocketAddr, address: SocketAddr) -> Result<Connected> {
        self.ask(&Op::Connect { socket: socket.into(), address, bind: Some(bind), give_up_ms: None })
    }

    /// See [`Op::Send`]; must send all.
    pub fn send(&mut self, socket: &str, bytes: usize) -> Result<u64> {
        self.moved(bytes, &Op::Send { socket: socket.into(), bytes })
    }

    /// See [`Op::SendText`]; for all of it.
    pub fn send_text(&mut self, socket: &str, text: &str) -> Result<u64> {
        self.moved(text.len(), &Op::SendText { socket: socket.to_owned(), text: text.to_owned() })
    }

    /// See [`Op::Receive`]; must receive all.
    pub fn receive(&mut self, socket: &str, bytes: usize) -> Result<u64> {
        self.moved(bytes, &Op::Receive { socket: socket.into(), bytes })
    }

    /// See [`Op::ReceiveToEnd`]; whatever comes of it.
    pub fn receive_to_end(&mut self, socket: &str) -> Result<Moved> {
        self.ask(&Op::ReceiveToEnd { socket: socket.into() })
    }

    /// See [`Op::Shutdown`].
    pub fn shutdown(&mut self, socket: &str) -> Result<()> {
        self.ask(&Op::Shutdown { socket: socket.into() })
    }

    /// See [`Op::Close`].
    pub fn close(&mut self, socket: &str) -> Result<()> {
        self.ask(&Op::Close { socket: socket.into() })
    }

    /// See [`Op::Abort`].
    pub fn abort(&mut self, socket: &str) -> Result<()> {
        self.ask(&Op::Abort { socket: socket.into() })
    }

    /// See [`Op::SendDatagram`]; must send all.
    pub fn send_datagram(&mut self, socket: &str, to: Option<SocketAddr>, bytes: usize) -> Result<u64> {
        self.moved(bytes, &Op::SendDatagram { socket: socket.into(), to, bytes, segment: None })
    }

    /// See [`Op::ReceiveDatagram`].
    pub fn receive_datagram(&mut self, socket: &str) -> Result<Datagram> {
        self.ask(&Op::ReceiveDatagram { socket: socket.into() })
    }

    /// See [`Op::RunOneShot`].
    pub fn run_one_shot(&mut self, server: SocketAddr) -> Result<OneShot> {
        self.ask(&Op::RunOneShot { server })
    }

    /// See [`Op::Exchange`].
    pub fn exchange(&mut self, server: SocketAddr, pieces: &[&str]) -> Result<Exchanged> {
        let deadline_ms = u32::try_from(crate::scale::deadline().as_millis()).context("a deadline in milliseconds")?;
        self.exchange_within(server, pieces, deadline_ms)
    }

    /// See [`Op::Exchange`].
    pub fn exchange_within(&mut self, server: SocketAddr, pieces: &[&str], deadline_ms: u32) -> Result<Exchanged> {
        let pieces = pieces.iter().map(|&piece| piece.to_owned()).collect();
        self.ask(&Op::Exchange { server, pieces, deadline_ms })
    }

    /// See [`Op::ServeHttp`].
    pub fn serve_http(&mut self, address: SocketAddr) -> Result<SocketAddr> {
        self.ask(&Op::ServeHttp { address, threads: 8 })
    }

    /// See [`Op::ServePrefork`].
    pub fn serve_prefork(&mut self, address: SocketAddr, workers: usize) -> Result<Prefork> {
        self.ask(&Op::ServePrefork { address, workers })
    }

    /// See [`Op::LoadHttp`].
    pub fn load_http(&mut self, server: SocketAddr, connections: usize, in_flight: usize) -> Result<Load> {
        self.ask(&Op::LoadHttp { server, connections, in_flight })
    }

    /// See [`Op::StopServing`]; for one process.
    pub fn stop_serving(&mut self) -> Result<Load> {
        let loads: Vec<Load> = self.ask(&Op::StopServing)?;
        let mut total = Load::default();
        for load in loads {
            total += load;
        }
        Ok(total)
    }

    fn moved(&mut self, goal: usize, op: &Op) -> Result<u64> {
        let moved: Moved = self.ask(op)?;
        anyhow::ensure!(moved.errno.is_none() && moved.bytes == goal as u64, "{op:?} came to {moved:?}");
        Ok(moved.bytes)
    }
}

/// A program to be run in a control group and a network namespace, as a container runtime does it: the process joins
/// both, and then becomes the program.
pub(crate) fn command(cgroup: &Path, namespace: &Namespace, program: &Path) -> Result<Command> {
    let mut command = Command::new(self::program()?);
    command.arg("enter").arg(cgroup).arg(namespace.path()).arg(program);
    Ok(command)
}

/// Path of the actor's program.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(PROGRAM) {
        return Ok(path.into());
    }
    let test = std::env::current_exe().context("find the test's own program")?;
    test.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("actor"))
        .find(|path| path.exists())
        .with_context(|| format!("no actor beside {}: build the package whole, or set {PROGRAM}", test.display()))
}
