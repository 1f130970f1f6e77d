//! What a test may ask of an actor: one JSON object per line to its standard input, one answer per line from its
//! standard output. Operations on single sockets name them; load operations report what they did, as ground truth.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A socket's name within its actor, chosen by the test.
pub type Name = String;

/// One line to the actor.
#[expect(missing_docs, reason = "the text of a variant says what its fields mean")]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Binds and listens on TCP; answers the bound [`SocketAddr`].
    Listen { socket: Name, address: SocketAddr },
    /// Accepts one connection; answers the peer's [`SocketAddr`].
    Accept { listener: Name, socket: Name },
    /// Connects, on the socket of that name if it exists; answers [`Connected`]. With `give_up_ms` the attempt is made
    /// without blocking and the socket is closed when there is no answer in that time.
    Connect { socket: Name, address: SocketAddr, bind: Option<SocketAddr>, give_up_ms: Option<u32> },
    /// Connects with data in the SYN (`MSG_FASTOPEN`); answers [`Connected`].
    FastOpen { socket: Name, address: SocketAddr, bytes: usize },
    /// Sends all of `bytes` bytes; answers [`Moved`].
    Send { socket: Name, bytes: usize },
    /// Receives exactly `bytes` bytes; answers [`Moved`].
    Receive { socket: Name, bytes: usize },
    /// Receives until the peer's end of file or an error; answers [`Moved`].
    ReceiveToEnd { socket: Name },
    /// Shuts the sending side down; answers `null`.
    Shutdown { socket: Name },
    /// Closes; answers `null`.
    Close { socket: Name },
    /// Closes with linger 0, so that the peer gets an RST; answers `null`.
    Abort { socket: Name },
    /// `connect(AF_UNSPEC)`: the socket is free for another connection; answers `null`.
    Disconnect { socket: Name },
    /// Forks a child that inherits the socket, closes it here, and lets the child send `bytes` and close it by its
    /// exit; answers the child's pid.
    ForkAndClose { socket: Name, bytes: usize },
    /// Binds a UDP socket; answers the bound [`SocketAddr`].
    UdpBind { socket: Name, address: SocketAddr },
    /// Connects a UDP socket, bound by this when new; answers the local [`SocketAddr`].
    UdpConnect { socket: Name, address: SocketAddr },
    /// Sends datagrams (`segment`: one system call that the kernel cuts into datagrams of that size); to the connected
    /// peer when `to` is `None`; answers [`Moved`].
    SendDatagram { socket: Name, to: Option<SocketAddr>, bytes: usize, segment: Option<u16> },
    /// Sends this text to the connected peer, as one datagram or one packet; answers [`Moved`].
    SendText { socket: Name, text: String },
    /// Receives one datagram; answers [`Datagram`].
    ReceiveDatagram { socket: Name },
    /// Opens a raw IPv4 socket of an IP protocol number, which then gets a copy of every such packet; answers `null`.
    OpenRaw { socket: Name, protocol: u32 },
    /// Opens a packet socket that sees every packet of the namespace; answers `null`.
    OpenPacket { socket: Name },
    /// Runs another process of this program that makes one connection and ends after 5 ms; answers its [`OneShot`].
    RunOneShot { server: SocketAddr },
    /// Sends the pieces to a server, each in a packet of its own, and reads the answer; answers [`Exchanged`].
    Exchange { server: SocketAddr, pieces: Vec<String>, deadline_ms: u32 },
    /// Sends one payload many times, each on a connection of its own, reading every answer; answers the number of
    /// answers that were not empty.
    ExchangeMany { server: SocketAddr, payload: String, times: u32 },

    /// Serves HTTP on threads until [`Op::StopServing`]; answers the bound [`SocketAddr`].
    ServeHttp { address: SocketAddr, threads: usize },
    /// As [`Op::ServeHttp`], but this process listens and forked workers accept; answers [`Prefork`].
    ServePrefork { address: SocketAddr, workers: usize },
    /// Makes HTTP requests, each on a connection of its own; answers [`Load`].
    LoadHttp { server: SocketAddr, connections: usize, in_flight: usize },
    /// Accepts connections, answers one request on each, and holds them until [`Op::StopServing`]; answers the bound
    /// [`SocketAddr`].
    ServeHolding { address: SocketAddr },
    /// Opens connections and makes one exchange on each, all held; answers [`Load`].
    OpenMany { server: SocketAddr, connections: usize },
    /// Closes what [`Op::OpenMany`] opened; answers `null`.
    CloseMany,
    /// Echoes datagrams, on one socket for each of `sockets` ports, until [`Op::StopServing`]; answers the
    /// [`SocketAddr`]s.
    ServeUdp { address: SocketAddr, sockets: usize },
    /// Opens sockets, socket `i` for peer `i % peers.len()`, connected or not, and makes `rounds` exchanges on each:
    /// round robin over all of them when `interleaved`, else each is done and closed before the next; answers [`Load`].
    LoadUdp { peers: Vec<SocketAddr>, sockets: usize, rounds: usize, interleaved: bool, connected: bool },
    /// Stops what serving operations started and closes their sockets; answers a list of [`Load`], one for each operation,
    /// for a prefork server one for each worker.
    StopServing,
}

/// What a connect came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connected {
    /// Local address, when one was given.
    pub local: Option<SocketAddr>,
    /// `errno` of the failure; `EINPROGRESS` when the attempt was given up.
    pub errno: Option<i32>,
}

/// What a send or receive came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Payload bytes.
    pub bytes: u64,
    /// `errno` of what ended it before its goal.
    pub errno: Option<i32>,
}

/// A received datagram.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Datagram {
    /// Sender.
    pub from: SocketAddr,
    /// Payload bytes.
    pub bytes: u64,
}

/// A process that made one connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct OneShot {
    /// Its process id.
    pub pid: u32,
}

/// An exchange with a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exchanged {
    /// What the server said, lossy UTF-8.
    pub answer: String,
    /// `errno` of what went wrong; `ETIMEDOUT` past the deadline.
    pub errno: Option<i32>,
}

/// A prefork server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prefork {
    /// Where it listens.
    pub address: SocketAddr,
    /// Process ids of the workers.
    pub workers: Vec<u32>,
}

/// What a load operation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Connections, or UDP flows.
    pub connections: u64,
    /// Payload bytes sent.
    pub sent: u64,
    /// Payload bytes received.
    pub received: u64,
    /// Datagrams sent; 0 for TCP.
    pub datagrams_sent: u64,
    /// Datagrams received; 0 for TCP.
    pub datagrams_received: u64,
}

impl Load {
    /// The same seen from the other end.
    #[must_use]
    pub fn mirrored(self) -> Self {
        Self {
            connections: self.connections,
            sent: self.received,
            received: self.sent,
            datagrams_sent: self.datagrams_received,
            datagrams_received: self.datagrams_sent,
        }
    }
}

impl std::ops::AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        let Self { connections, sent, received, datagrams_sent, datagrams_received } = other;
        self.connections += connections;
        self.sent += sent;
        self.received += received;
        self.datagrams_sent += datagrams_sent;
        self.datagrams_received += datagrams_received;
    }
}

/// One line from the actor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The operation's answer.
    Ok(serde_json::Value),
    /// The operation could not be done as asked: the test's own machinery is at fault.
    Error(String),
}
