//! The Unix socket behind `sekisho observe` and `sekisho doctor`.
//!
//! A client sends one [`protocol::Request`] as a line of JSON. The agent answers with one [`protocol::Answer`] line and,
//! when that says ok, with lines: outputs for `observe`, one object for `status`. [`feed`] holds what was said lately
//! and who listens; [`listen`] owns the socket's file; [`serve`] speaks to clients; [`client`] is the other side.

pub(crate) mod client;
pub(crate) mod feed;
pub(crate) mod listen;
pub(crate) mod protocol;
pub(crate) mod serve;
#[cfg(test)]
mod tests;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// A listener that accepts nobody for this long is stuck, not dead.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// Connects, and does not wait for ever when nobody accepts.
fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // connect(2) of a Unix socket waits for room in the backlog as long as the send time-out says.
    set_socket_timeout(&socket, Timeout::Send, Some(CONNECT_WAIT))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}
