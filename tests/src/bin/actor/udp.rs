//! UDP: an echo server on many sockets, and a client with many.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use system_tests::protocol::Load;

/// How long the server waits before it looks whether it shall stop.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// A datagram that takes longer was lost, which must not happen on this machine's own interfaces.
const LOST: Duration = Duration::from_mins(1);

/// Answers every datagram with one of about half its size, until it is told to stop.
pub(crate) fn echo_until(stop: &AtomicBool, sockets: &[UdpSocket]) -> Result<Load> {
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC).context("make an epoll")?;
    for (index, socket) in sockets.iter().enumerate() {
        socket.set_nonblocking(true).context("set a socket non-blocking")?;
        epoll::add(&queue, socket, EventData::new_u64(index as u64), EventFlags::IN).context("watch a socket")?;
    }
    let mut load = Load::default();
    let mut flows = HashSet::new();
    let mut events = [MaybeUninit::uninit(); 64];
    while !stop.load(Ordering::Relaxed) {
        let (ready, _) = match epoll::wait(&queue, &mut events[..], Some(&LOOK)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.context("wait for datagrams")?,
        };
        for event in ready.iter() {
            let index = usize::try_from(event.data.u64()).context("an index")?;
            let mut buffer = [0; 2048];
            match sockets[index].recv_from(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("receive"),
                Ok((length, peer)) => {
                    let answer = length / 2 + 1;
                    sockets[index].send_to(&buffer[..answer], peer).context("send")?;
                    flows.insert((index, peer));
                    load += exchange(answer, length);
                }
            }
        }
    }
    load.connections = flows.len() as u64;
    Ok(load)
}

/// Opens `count` sockets and makes `rounds` exchanges on each.
pub(crate) fn load(
    peers: &[SocketAddr],
    count: usize,
    rounds: usize,
    interleaved: bool,
    connected: bool,
) -> Result<Load> {
    ensure!(!peers.is_empty(), "no peers");
    let mut load = Load::default();
    let open = |index: usize| open(peers[index % peers.len()], connected);
    if interleaved {
        let sockets = (0..count).map(open).collect::<Result<Vec<_>>>()?;
        for _ in 0..rounds {
            for (index, socket) in sockets.iter().enumerate() {
                load += ping(socket, peers[index % peers.len()], connected, index)?;
            }
        }
    } else {
        for index in 0..count {
            let socket = open(index)?;
            for _ in 0..rounds {
                load += ping(&socket, peers[index % peers.len()], connected, index)?;
            }
        }
    }
    load.connections = count as u64;
    Ok(load)
}

fn open(peer: SocketAddr, connected: bool) -> Result<UdpSocket> {
    let any = match peer {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).context("bind")?;
    if connected {
        socket.connect(peer).with_context(|| format!("connect to {peer}"))?;
    }
    socket.set_read_timeout(Some(LOST)).context("set a read timeout")?;
    Ok(socket)
}

fn ping(socket: &UdpSocket, peer: SocketAddr, connected: bool, index: usize) -> Result<Load> {
    let payload = vec![b'u'; 20 + index % 503];
    if connected { socket.send(&payload) } else { socket.send_to(&payload, peer) }.context("send")?;
    let received = socket.recv(&mut [0; 2048]).with_context(|| format!("receive from {peer}"))?;
    Ok(exchange(payload.len(), received))
}

fn exchange(sent: usize, received: usize) -> Load {
    Load { connections: 0, sent: sent as u64, received: received as u64, datagrams_sent: 1, datagrams_received: 1 }
}
