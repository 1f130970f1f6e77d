//! Operations on single sockets, each exactly the system calls that it is named after.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, ipproto, socket_with, sockopt,
};
use system_tests::protocol::{Connected, Datagram, Exchanged, Moved, Name};

use crate::raw;

/// Largest buffer of one system call.
const CHUNK: usize = 64 * 1024;

/// The sockets of an actor, by name.
#[derive(Default)]
pub(crate) struct Sockets {
    open: HashMap<Name, OwnedFd>,
}

impl Sockets {
    pub(crate) fn listen(&mut self, name: Name, address: SocketAddr) -> Result<SocketAddr> {
        let socket = tcp(address)?;
        sockopt::set_socket_reuseaddr(&socket, true).context("set SO_REUSEADDR")?;
        rustix::net::bind(&socket, &address).with_context(|| format!("bind {address}"))?;
        rustix::net::listen(&socket, 128).context("listen")?;
        let address = local(&socket)?;
        self.open.insert(name, socket);
        Ok(address)
    }

    pub(crate) fn accept(&mut self, listener: &str, name: Name) -> Result<SocketAddr> {
        let (socket, peer) =
            rustix::net::acceptfrom_with(self.get(listener)?, SocketFlags::CLOEXEC).context("accept")?;
        self.open.insert(name, socket);
        inet(peer.context("an accepted socket has no peer")?)
    }

    pub(crate) fn connect(
        &mut self,
        name: Name,
        address: SocketAddr,
        bind: Option<SocketAddr>,
        give_up_ms: Option<u32>,
    ) -> Result<Connected> {
        let socket = match self.open.remove(&name) {
            Some(socket) => socket,
            None => tcp(address)?,
        };
        if let Some(bind) = bind {
            sockopt::set_socket_reuseaddr(&socket, true).context("set SO_REUSEADDR")?;
            rustix::net::bind(&socket, &bind).with_context(|| format!("bind {bind}"))?;
        }
        let result = match give_up_ms {
            None => rustix::net::connect(&socket, &address),
            Some(ms) => connect_within(&socket, address, ms),
        };
        let connected = Connected { local: local(&socket).ok(), errno: result.err().map(Errno::raw_os_error) };
        if connected.errno != Some(Errno::INPROGRESS.raw_os_error()) {
            self.open.insert(name, socket);
        }
        Ok(connected)
    }

    pub(crate) fn fast_open(&mut self, name: Name, address: SocketAddr, bytes: usize) -> Result<Connected> {
        let socket = tcp(address)?;
        let flags = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned());
        let sent = rustix::net::sendto(&socket, &vec![b'f'; bytes], flags, &address).context("send with fast open")?;
        if sent != bytes {
            bail!("fast open sent {sent} of {bytes} bytes");
        }
        let local = local(&socket)?;
        self.open.insert(name, socket);
        Ok(Connected { local: Some(local), errno: None })
    }

    pub(crate) fn send(&mut self, name: &str, bytes: usize) -> Result<Moved> {
        let socket = self.get(name)?;
        let chunk = vec![b's'; bytes.min(CHUNK)];
        let mut moved = 0;
        while moved < bytes {
            match rustix::io::write(socket, &chunk[..chunk.len().min(bytes - moved)]) {
                Ok(length) => moved += length,
                Err(Errno::INTR) => {}
                Err(errno) => return Ok(Moved { bytes: moved as u64, errno: Some(errno.raw_os_error()) }),
            }
        }
        Ok(Moved { bytes: moved as u64, errno: None })
    }

    pub(crate) fn receive(&mut self, name: &str, bytes: usize) -> Result<Moved> {
        Ok(receive(self.get(name)?, bytes as u64))
    }

    pub(crate) fn receive_to_end(&mut self, name: &str) -> Result<Moved> {
        Ok(receive(self.get(name)?, u64::MAX))
    }

    pub(crate) fn shutdown(&mut self, name: &str) -> Result<()> {
        rustix::net::shutdown(self.get(name)?, Shutdown::Write).context("shut down")
    }

    pub(crate) fn close(&mut self, name: &str) -> Result<()> {
        self.open.remove(name).with_context(|| format!("no socket {name}"))?;
        Ok(())
    }

    pub(crate) fn abort(&mut self, name: &str) -> Result<()> {
        let socket = self.open.remove(name).with_context(|| format!("no socket {name}"))?;
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).context("set SO_LINGER")
    }

    pub(crate) fn disconnect(&mut self, name: &str) -> Result<()> {
        rustix::net::connect_unspec(self.get(name)?).context("connect to AF_UNSPEC")
    }

    pub(crate) fn fork_and_close(&mut self, name: &str, bytes: usize) -> Result<u32> {
        let Some(child) = raw::fork().context("fork")? else {
            let sent = self.send(name, bytes);
            raw::exit(i32::from(!sent.is_ok_and(|moved| moved.bytes == bytes as u64)));
        };
        self.close(name)?;
        let pid = rustix::process::Pid::from_raw(child.cast_signed()).context("fork gave no pid")?;
        let ended = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).context("wait")?;
        match ended.and_then(|(_, status)| status.exit_status()) {
            Some(0) => Ok(child),
            other => bail!("the forked child ended with {other:?}"),
        }
    }

    pub(crate) fn udp_bind(&mut self, name: Name, address: SocketAddr) -> Result<SocketAddr> {
        let socket = udp(address)?;
        rustix::net::bind(&socket, &address).with_context(|| format!("bind {address}"))?;
        let address = local(&socket)?;
        self.open.insert(name, socket);
        Ok(address)
    }

    pub(crate) fn udp_connect(&mut self, name: Name, address: SocketAddr) -> Result<SocketAddr> {
        let socket = match self.open.remove(&name) {
            Some(socket) => socket,
            None => udp(address)?,
        };
        rustix::net::connect(&socket, &address).with_context(|| format!("connect to {address}"))?;
        let address = local(&socket)?;
        self.open.insert(name, socket);
        Ok(address)
    }

    pub(crate) fn send_datagram(
        &mut self,
        name: &str,
        to: Option<SocketAddr>,
        bytes: usize,
        segment: Option<u16>,
    ) -> Result<Moved> {
        let socket = self.get(name)?;
        raw::set_udp_segment(socket.as_fd(), segment.unwrap_or(0)).context("set UDP_SEGMENT")?;
        let payload = vec![b'd'; bytes];
        let result = match to {
            None => rustix::net::send(socket, &payload, SendFlags::empty()),
            Some(to) => rustix::net::sendto(socket, &payload, SendFlags::empty(), &to),
        };
        Ok(match result {
            Ok(length) => Moved { bytes: length as u64, errno: None },
            Err(errno) => Moved { bytes: 0, errno: Some(errno.raw_os_error()) },
        })
    }

    pub(crate) fn send_text(&mut self, name: &str, text: &str) -> Result<Moved> {
        let length = rustix::net::send(self.get(name)?, text.as_bytes(), SendFlags::empty()).context("send a text")?;
        Ok(Moved { bytes: length as u64, errno: None })
    }

    pub(crate) fn receive_datagram(&mut self, name: &str) -> Result<Datagram> {
        let mut buffer = vec![0; CHUNK];
        let (length, _, from) =
            rustix::net::recvfrom(self.get(name)?, &mut buffer[..], RecvFlags::empty()).context("receive")?;
        let from = inet(from.context("a datagram has no sender")?)?;
        Ok(Datagram { from, bytes: length as u64 })
    }

    pub(crate) fn open_raw(&mut self, name: Name, protocol: u32) -> Result<()> {
        let protocol = Protocol::from_raw(NonZeroU32::new(protocol).context("protocol 0 is not one")?);
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))
            .context("open a raw socket")?;
        self.open.insert(name, socket);
        Ok(())
    }

    pub(crate) fn open_packet(&mut self, name: Name) -> Result<()> {
        let every = Some(rustix::net::eth::ALL);
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, every)
            .context("open a packet socket")?;
        self.open.insert(name, socket);
        Ok(())
    }

    fn get(&self, name: &str) -> Result<&OwnedFd> {
        self.open.get(name).with_context(|| format!("no socket {name}"))
    }
}

/// One exchange over TCP: every piece in a packet of its own, then what the server says until it closes.
pub(crate) fn exchange(server: SocketAddr, pieces: &[String], deadline_ms: u32) -> Result<Exchanged> {
    let deadline = Instant::now() + Duration::from_millis(deadline_ms.into());
    let mut answer = Vec::new();
    let errno = match exchange_into(server, pieces, deadline, &mut answer) {
        Ok(()) => None,
        // What SO_RCVTIMEO says at the deadline.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(Errno::TIMEDOUT.raw_os_error()),
        Err(error) if error.kind() == ErrorKind::TimedOut => Some(Errno::TIMEDOUT.raw_os_error()),
        Err(error) => Some(error.raw_os_error().with_context(|| format!("exchange with {server}: {error}"))?),
    };
    Ok(Exchanged { answer: String::from_utf8_lossy(&answer).into_owned(), errno })
}

fn exchange_into(server: SocketAddr, pieces: &[String], deadline: Instant, answer: &mut Vec<u8>) -> io::Result<()> {
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&server, left())?;
    stream.set_nodelay(true)?;
    for piece in pieces {
        stream.write_all(piece.as_bytes())?;
        // Acknowledged before the next is written, so that no two share a packet.
        while raw::unacknowledged(stream.as_fd())? > 0 {
            if Instant::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    let mut buffer = vec![0; CHUNK];
    loop {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => answer.extend_from_slice(&buffer[..length]),
        }
    }
}

pub(crate) fn exchange_many(server: SocketAddr, payload: &str, times: u32) -> Result<u64> {
    let mut answered = 0;
    for _ in 0..times {
        let mut stream = TcpStream::connect(server).with_context(|| format!("connect to {server}"))?;
        stream.write_all(payload.as_bytes()).context("send")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("receive")?;
        answered += u64::from(!answer.is_empty());
    }
    Ok(answered)
}

// === helpers ===

fn tcp(address: SocketAddr) -> Result<OwnedFd> {
    let socket = socket_with(family(address), SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP));
    socket.context("open a TCP socket")
}

fn udp(address: SocketAddr) -> Result<OwnedFd> {
    let socket = socket_with(family(address), SocketType::DGRAM, SocketFlags::CLOEXEC, Some(ipproto::UDP));
    socket.context("open a UDP socket")
}

/// v4-mapped addresses are IPv6 ones here: the socket is an IPv6 socket that talks IPv4.
fn family(address: SocketAddr) -> AddressFamily {
    match address.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    }
}

fn local(socket: &OwnedFd) -> Result<SocketAddr> {
    inet(rustix::net::getsockname(socket).context("getsockname")?)
}

fn inet(address: rustix::net::SocketAddrAny) -> Result<SocketAddr> {
    SocketAddr::try_from(address).context("an address is not an IP address")
}

fn connect_within(socket: &OwnedFd, address: SocketAddr, ms: u32) -> Result<(), Errno> {
    rustix::io::ioctl_fionbio(socket, true)?;
    match rustix::net::connect(socket, &address) {
        Err(Errno::INPROGRESS) => {}
        other => return other,
    }
    let mut poll = [PollFd::new(socket, PollFlags::OUT)];
    let timeout = Timespec { tv_sec: i64::from(ms / 1000), tv_nsec: i64::from(ms % 1000) * 1_000_000 };
    if rustix::event::poll(&mut poll, Some(&timeout))? == 0 {
        return Err(Errno::INPROGRESS);
    }
    rustix::io::ioctl_fionbio(socket, false)?;
    sockopt::socket_error(socket)?
}

/// Receives up to `goal` bytes; fewer at end of file or error.
fn receive(socket: &OwnedFd, goal: u64) -> Moved {
    let mut buffer = vec![0; CHUNK];
    let mut moved = 0;
    while moved < goal {
        let room = usize::try_from(goal - moved).unwrap_or(usize::MAX).min(CHUNK);
        match rustix::io::read(socket, &mut buffer[..room]) {
            Ok(0) => break,
            Ok(length) => moved += length as u64,
            Err(Errno::INTR) => {}
            Err(errno) => return Moved { bytes: moved, errno: Some(errno.raw_os_error()) },
        }
    }
    Moved { bytes: moved, errno: None }
}
