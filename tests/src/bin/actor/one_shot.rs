//! A process that lives for 5 ms and makes one connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use system_tests::protocol::OneShot;

/// How long it lives, as far as the machine is fast enough.
const LIFE: Duration = Duration::from_millis(5);
/// What it sends.
const BYTES: usize = 64;

/// Runs such a process to its end.
pub(crate) fn start(server: SocketAddr) -> Result<OneShot> {
    let program = std::env::current_exe().context("find this program")?;
    let mut child = Command::new(program).arg("once").arg(server.to_string()).spawn().context("start a process")?;
    let pid = child.id();
    let status = child.wait().context("wait for a process")?;
    ensure!(status.success(), "the process ended with {status}");
    Ok(OneShot { pid })
}

/// Is such a process.
pub(crate) fn run(server: SocketAddr) -> Result<()> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(server).with_context(|| format!("connect to {server}"))?;
    stream.write_all(&[b'x'; BYTES]).context("send")?;
    stream.shutdown(Shutdown::Write).context("shut down")?;
    stream.read_to_end(&mut Vec::new()).context("receive")?;
    std::thread::sleep(LIFE.saturating_sub(start.elapsed()));
    Ok(())
}
