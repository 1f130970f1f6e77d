//! EC2's instance metadata service and the EKS Pod Identity agent, as far as clients and the agent can tell, with
//! secrets planted in every answer that holds some.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::http::{Reader, Request};
use crate::lab::{IMDS_V4, IMDS_V6, POD_IDENTITY_V4, POD_IDENTITY_V6};
use crate::netns::Namespace;

mod answers;

/// The node's role.
pub const ROLE: &str = "eks-node-role";
/// Access key id of the node role's credentials.
pub const ROLE_KEY: &str = "ASIANODEROLEKEY00001";
/// Access key id of the instance's own identity credentials.
pub const IDENTITY_KEY: &str = "ASIAIDENTITYKEY00002";
/// Access key id of Pod Identity credentials.
pub const POD_KEY: &str = "ASIAPODIDENTITY00003";
/// User data of this size is the largest that EC2 takes, four times over.
const USER_DATA_BYTES: usize = 64 * 1024;

/// How long the server waits before it looks whether it shall stop.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// A client that stays silent for longer is not waited for.
const SILENCE: Duration = Duration::from_mins(2);
/// Between the pieces of an answer.
const PAUSE: Duration = Duration::from_millis(2);

/// How the server behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// Requests without a token get 401.
    pub tokens_required: bool,
    /// A PUT is never answered.
    pub silent_put: bool,
    /// See [`Manner`].
    pub manner: Manner,
    /// Node credentials are sent to whoever connects, and nothing is read before.
    pub unasked: bool,
    /// IP time to live of the answers.
    pub ttl: Option<u32>,
    /// The instance's hop limit: IP time to live of the answer to a request for a token, and of what follows on its
    /// connection. The handshake keeps its own, as EC2's does.
    pub hop_limit: Option<u32>,
}

/// How answers travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Head and body in one write.
    #[default]
    Whole,
    /// Heads come in packets of a few bytes.
    HeadInPieces,
    /// Bodies come in packets of a few bytes.
    SlowBody,
    /// Bodies are sent with chunked transfer encoding.
    Chunked,
}

/// One request, as the server saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Logged {
    /// The service's address.
    pub service: IpAddr,
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Whether it had a token or asked for one.
    pub token: bool,
    /// Status of the answer; `None` when none was given.
    pub status: Option<u16>,
}

/// The services in one namespace, until dropped.
#[derive(Debug)]
pub struct MetadataServer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    behaviour: Behaviour,
    canary: String,
    tokens: AtomicU64,
    log: Mutex<Vec<Logged>>,
    stop: AtomicBool,
}

impl MetadataServer {
    /// Serves on all four addresses, which the namespace must have.
    pub fn start(namespace: &Namespace, behaviour: Behaviour) -> Result<Self> {
        let nonce = std::time::UNIX_EPOCH.elapsed().context("read the clock")?.as_nanos();
        let shared = Arc::new(Shared {
            behaviour,
            canary: format!("CaNaRy{nonce:x}X{:x}", std::process::id()),
            tokens: AtomicU64::new(0),
            log: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let mut server = Self { shared, threads: Vec::new() };
        let ips: [IpAddr; 4] = [IMDS_V4.into(), IMDS_V6.into(), POD_IDENTITY_V4.into(), POD_IDENTITY_V6.into()];
        for ip in ips {
            let address = SocketAddr::from((ip, 80));
            let listener =
                namespace.run(|| TcpListener::bind(address).with_context(|| format!("listen on {address}")))?;
            listener.set_nonblocking(true).context("set a listener non-blocking")?;
            if let Some(ttl) = behaviour.ttl
                && ip.is_ipv4()
            {
                listener.set_ttl(ttl).context("set IP_TTL")?;
            }
            let shared = Arc::clone(&server.shared);
            server.threads.push(std::thread::spawn(move || serve(&shared, &listener, ip)));
        }
        Ok(server)
    }

    /// Every request so far, sorted.
    pub fn log(&self) -> Vec<Logged> {
        let mut log = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        log.sort();
        log
    }

    /// What every planted secret contains, and nothing else does: secret keys, session tokens, IMDS tokens, user data.
    /// Clients put it into their authorization headers.
    pub fn canary(&self) -> &str {
        &self.shared.canary
    }

    /// Stops serving, and gives the log.
    pub fn stop(mut self) -> Result<Vec<Logged>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a metadata server's thread panicked"))??;
        }
        Ok(self.log())
    }
}

impl Drop for MetadataServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(shared: &Arc<Shared>, listener: &TcpListener, service: IpAddr) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut polled = [PollFd::new(listener, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&LOOK)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).context("set a connection blocking")?;
            let shared = Arc::clone(shared);
            // Not joined: a client may hold its connection for as long as it likes.
            std::thread::spawn(move || {
                // A client that breaks off, or speaks no HTTP, is part of the tests.
                let _ = converse(&shared, stream, service);
            });
        }
    }
    Ok(())
}

/// Answers the requests of one connection.
fn converse(shared: &Shared, stream: TcpStream, service: IpAddr) -> Result<()> {
    stream.set_read_timeout(Some(SILENCE)).context("set a read timeout")?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    let mut reader = Reader::new(stream);
    if shared.behaviour.unasked {
        let answer = answers::role_credentials(shared);
        send(&shared.behaviour, reader.stream(), &answer, true)?;
        // Closed with what the client sends unread there would be an RST, which may overtake the answer.
        reader.stream().shutdown(std::net::Shutdown::Write).context("shut down")?;
        reader.rest()?;
        return Ok(());
    }
    loop {
        let request = match reader.request() {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) => {
                send(&shared.behaviour, reader.stream(), &answers::Answer::bare(400), true)?;
                return Err(error);
            }
        };
        let silent = shared.behaviour.silent_put && request.method == "PUT";
        let answer = answers::answer(shared, service, &request);
        log(shared, service, &request, (!silent).then_some(answer.status));
        if silent {
            // Until the client has had enough.
            reader.rest()?;
            return Ok(());
        }
        let close =
            request.old || request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if let Some(hops) = shared.behaviour.hop_limit
            && request.method == "PUT"
            && service.is_ipv4()
        {
            reader.stream().set_ttl(hops).context("set IP_TTL")?;
        }
        send(&shared.behaviour, reader.stream(), &answer, close)?;
        if close {
            return Ok(());
        }
    }
}

fn log(shared: &Shared, service: IpAddr, request: &Request, status: Option<u16>) {
    let token = request.header(answers::TOKEN).is_some() || request.header(answers::TOKEN_TTL).is_some();
    let logged = Logged { service, method: request.method.clone(), path: request.path.clone(), token, status };
    shared.log.lock().unwrap_or_else(PoisonError::into_inner).push(logged);
}

fn send(behaviour: &Behaviour, stream: &mut TcpStream, answer: &answers::Answer, close: bool) -> Result<()> {
    let head = answer.head(behaviour.manner == Manner::Chunked, close);
    match behaviour.manner {
        Manner::Whole => {
            stream.write_all(&[head.as_bytes(), answer.body.as_bytes()].concat()).context("send an answer")
        }
        Manner::HeadInPieces => {
            trickle(stream, head.as_bytes(), 7)?;
            stream.write_all(answer.body.as_bytes()).context("send a body")
        }
        Manner::SlowBody => {
            stream.write_all(head.as_bytes()).context("send a head")?;
            trickle(stream, answer.body.as_bytes(), 97)
        }
        Manner::Chunked => {
            stream.write_all(head.as_bytes()).context("send a head")?;
            for chunk in answer.body.as_bytes().chunks(1000) {
                stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).context("send a chunk's size")?;
                stream.write_all(&[chunk, b"\r\n"].concat()).context("send a chunk")?;
            }
            stream.write_all(b"0\r\n\r\n").context("send the last chunk")
        }
    }
}

fn trickle(stream: &mut TcpStream, bytes: &[u8], size: usize) -> Result<()> {
    for piece in bytes.chunks(size) {
        stream.write_all(piece).context("send")?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
