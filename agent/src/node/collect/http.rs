//! Asks servers of this node, by HTTP: briefly, and with an end to everything. Whoever asks waits, on a thread that may.

use std::fmt;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Error;
use crate::config::Endpoint;

/// From the first packet to the last byte. Local servers answer in milliseconds.
const WAIT: Duration = Duration::from_secs(2);
/// Longest answer: ipamd tells some 600 bytes for each of up to 3,000 addresses.
const BODY_BYTES_MAX: usize = 8 << 20;

/// Who is asked.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    endpoint: Endpoint,
    /// As people know it.
    name: &'static str,
}

/// What it answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

// === impl Peer ===

impl Peer {
    pub(super) fn new(endpoint: &Endpoint, name: &'static str) -> Self {
        Self { endpoint: endpoint.clone(), name }
    }

    /// Nobody is to be asked.
    pub(super) fn is_off(&self) -> bool {
        self.endpoint == Endpoint::Off
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, String::from(self.endpoint.clone()))
    }
}

/// The body of a page. Nobody at the address is [`Error::Absent`]; any status but 200 is an error.
pub(super) fn get(peer: &Peer, path: &str) -> Result<Bytes, Error> {
    let Answer { status, body } = ask(peer, Method::GET, path, &[])?;
    if status != 200 {
        return Err(Error::Malformed { what: format!("{peer}{path}"), why: format!("answered with status {status}") });
    }
    Ok(body)
}

/// Any request without a body.
pub(super) fn ask(peer: &Peer, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Error> {
    let failed = |source| Error::Kernel { what: format!("ask {peer}"), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::new()).map_err(|error| failed(io::Error::other(error)))?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(WAIT, exchange(&peer.endpoint, request)).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no whole answer in {} s", WAIT.as_secs())))
        })
    });
    answer.map_err(|source| match source.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            Error::Absent(format!("nobody answers: {peer} ({source})"))
        }
        _ => failed(source),
    })
}

async fn exchange(endpoint: &Endpoint, request: Request<Empty<Bytes>>) -> io::Result<Answer> {
    match endpoint {
        Endpoint::Off => Err(io::Error::new(io::ErrorKind::NotFound, "switched off")),
        Endpoint::Tcp(address) => over(TcpStream::connect(address).await?, request).await,
        Endpoint::Unix(path) => over(UnixStream::connect(path).await?, request).await,
    }
}

async fn over<S>(stream: S, request: Request<Empty<Bytes>>) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends with the runtime at the latest.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map_err(io::Error::other)?;
    Ok(Answer { status, body: body.to_bytes() })
}
