//! Servers on threads and in forked workers, and the clients that load them. All of them count every payload byte.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::event::{PollFd, PollFlags, Timespec};
use system_tests::http::Reader;
use system_tests::protocol::{Load, Prefork};

use crate::{raw, udp};

/// How long a server waits before it looks whether it shall stop.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// A test's client that takes longer than this for one step is broken.
const STUCK: Duration = Duration::from_mins(5);

/// What serves, until it is stopped.
#[derive(Default)]
pub(crate) struct Servers {
    running: Vec<Server>,
}

enum Server {
    Threads { stop: Arc<AtomicBool>, threads: Vec<JoinHandle<Result<Load>>> },
    Workers { stop: PipeWriter, workers: Vec<(u32, PipeReader)> },
}

impl Servers {
    pub(crate) fn http(&mut self, address: SocketAddr, threads: usize) -> Result<SocketAddr> {
        let listener = listen(address)?;
        let address = listener.local_addr().context("getsockname")?;
        let listener = Arc::new(listener);
        self.start((0..threads).map(|_| {
            let listener = Arc::clone(&listener);
            move |stop: &AtomicBool| accept_until(stop, &listener, answer_and_close)
        }));
        Ok(address)
    }

    pub(crate) fn holding(&mut self, address: SocketAddr) -> Result<SocketAddr> {
        let listener = listen(address)?;
        let address = listener.local_addr().context("getsockname")?;
        self.start(std::iter::once(move |stop: &AtomicBool| {
            let mut held = Vec::new();
            accept_until(stop, &listener, |stream| {
                let mut reader = Reader::new(stream);
                let load = answer(&mut reader)?;
                held.push(reader.into_stream());
                Ok(load)
            })
        }));
        Ok(address)
    }

    pub(crate) fn udp(&mut self, address: SocketAddr, sockets: usize) -> Result<Vec<SocketAddr>> {
        let sockets = (0..sockets)
            .map(|_| UdpSocket::bind(address).with_context(|| format!("bind {address}")))
            .collect::<Result<Vec<_>>>()?;
        let addresses =
            sockets.iter().map(|socket| socket.local_addr().context("getsockname")).collect::<Result<_>>()?;
        self.start(std::iter::once(move |stop: &AtomicBool| udp::echo_until(stop, &sockets)));
        Ok(addresses)
    }

    pub(crate) fn prefork(&mut self, address: SocketAddr, workers: usize) -> Result<Prefork> {
        ensure!(self.running.is_empty(), "only a process without threads may fork");
        let listener = listen(address)?;
        let address = listener.local_addr().context("getsockname")?;
        let (stopped, stop) = std::io::pipe().context("make a pipe")?;
        let mut running = Vec::new();
        for _ in 0..workers {
            let (report, mut told) = std::io::pipe().context("make a pipe")?;
            if let Some(pid) = raw::fork().context("fork")? {
                running.push((pid, report));
                continue;
            }
            drop(stop);
            let load = work(&listener, &stopped);
            let line = load.and_then(|load| serde_json::to_string(&load).context("encode a load"));
            let told = line.is_ok_and(|line| told.write_all(line.as_bytes()).is_ok());
            raw::exit(i32::from(!told));
        }
        let pids = running.iter().map(|&(pid, _)| pid).collect();
        self.running.push(Server::Workers { stop, workers: running });
        Ok(Prefork { address, workers: pids })
    }

    pub(crate) fn stop(&mut self) -> Result<Vec<Load>> {
        let mut loads = Vec::new();
        for server in self.running.drain(..) {
            match server {
                Server::Threads { stop, threads } => {
                    stop.store(true, Ordering::Relaxed);
                    let mut total = Load::default();
                    for thread in threads {
                        total += thread.join().map_err(|_| anyhow!("a serving thread panicked"))??;
                    }
                    loads.push(total);
                }
                Server::Workers { stop, workers } => {
                    drop(stop);
                    for (pid, mut report) in workers {
                        let mut line = String::new();
                        report.read_to_string(&mut line).context("read a worker's report")?;
                        loads.push(serde_json::from_str(&line).with_context(|| format!("worker {pid} said {line:?}"))?);
                        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).context("a pid of 0")?;
                        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).context("wait")?;
                    }
                }
            }
        }
        Ok(loads)
    }

    fn start<W>(&mut self, works: impl Iterator<Item = W>)
    where
        W: FnOnce(&AtomicBool) -> Result<Load> + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = works
            .map(|work| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || work(&stop))
            })
            .collect();
        self.running.push(Server::Threads { stop, threads });
    }
}

/// Makes HTTP requests, each on its own connection, `in_flight` at a time.
pub(crate) fn load(server: SocketAddr, connections: usize, in_flight: usize) -> Result<Load> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let client = || -> Result<Load> {
            let mut load = Load::default();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= connections {
                    return Ok(load);
                }
                let stream = TcpStream::connect(server).with_context(|| format!("connect to {server}"))?;
                let mut reader = Reader::new(stream);
                load += request(&mut reader, index)?;
                // The server closes first, with its answer complete.
                ensure!(reader.rest()? == 0, "the server sent more than its answer");
            }
        };
        let clients: Vec<_> = (0..in_flight).map(|_| scope.spawn(client)).collect();
        let mut total = Load::default();
        for client in clients {
            total += client.join().map_err(|_| anyhow!("a client thread panicked"))??;
        }
        Ok(total)
    })
}

/// Makes one request and reads its answer. Sizes differ by index, so that a row too many and one too few do not cancel.
pub(crate) fn request(reader: &mut Reader<TcpStream>, index: usize) -> Result<Load> {
    reader.stream().set_read_timeout(Some(STUCK)).context("set a read timeout")?;
    let body = vec![b'q'; index % 1009];
    let mut message =
        format!("POST /{index} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    message.extend_from_slice(&body);
    reader.stream().write_all(&message).context("send a request")?;
    let (status, received) = reader.response()?;
    ensure!(status == 200, "the server answered {status}");
    Ok(Load { connections: 1, sent: message.len() as u64, received, ..Load::default() })
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    // The standard library's backlog is -1 or 4096, according to its version: enough for every test.
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    listener.set_nonblocking(true).context("set a listener non-blocking")?;
    Ok(listener)
}

fn accept_until(
    stop: &AtomicBool,
    listener: &TcpListener,
    mut serve: impl FnMut(TcpStream) -> Result<Load>,
) -> Result<Load> {
    let mut load = Load::default();
    while !stop.load(Ordering::Relaxed) {
        wait_readable(&mut [PollFd::new(listener, PollFlags::IN)])?;
        while let Some(stream) = accept(listener)? {
            load += serve(stream)?;
        }
    }
    Ok(load)
}

/// A worker's life: serves until the parent closes its end of the pipe.
fn work(listener: &TcpListener, stopped: &PipeReader) -> Result<Load> {
    let mut load = Load::default();
    loop {
        let mut polled =
            [PollFd::new(listener, PollFlags::IN), PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN)];
        wait_readable(&mut polled)?;
        let stop = !polled[1].revents().is_empty();
        while let Some(stream) = accept(listener)? {
            load += answer_and_close(stream)?;
        }
        if stop {
            return Ok(load);
        }
    }
}

fn accept(listener: &TcpListener) -> Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(false).context("set a connection blocking")?;
            Ok(Some(stream))
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("accept"),
    }
}

fn wait_readable(polled: &mut [PollFd<'_>]) -> Result<()> {
    match rustix::event::poll(polled, Some(&LOOK)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno).context("poll"),
    }
}

fn answer_and_close(stream: TcpStream) -> Result<Load> {
    answer(&mut Reader::new(stream))
}

fn answer(reader: &mut Reader<TcpStream>) -> Result<Load> {
    reader.stream().set_read_timeout(Some(STUCK)).context("set a read timeout")?;
    let request = reader.request()?.context("a client closed without a request")?;
    let body = vec![b'a'; request.body_bytes * 7 % 5003];
    let mut message = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    message.extend_from_slice(&body);
    reader.stream().write_all(&message).context("send an answer")?;
    Ok(Load { connections: 1, sent: message.len() as u64, received: request.bytes, ..Load::default() })
}
