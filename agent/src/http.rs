//! `/healthz`, `/readyz` and `/metrics` over HTTP/1.1, each connection with one request and a deadline for all of it: on
//! loopback for whoever is there, and elsewhere by TLS, where `/metrics` is for those alone who are let through, and health
//! is told without its reasons.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, VARY, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

mod accept;
mod callers;
mod gate;
mod secure;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use accept::Format;
pub(crate) use gate::{Admission, Gate};
pub(crate) use secure::{Ends, Secure};
pub(crate) use tls::{Files, Tls};

/// Connections at a time; others wait in the backlog. A scraper, two health probes and some curious people.
const CONNECTIONS_MAX: usize = 16;
/// From accept to the last byte of the answer: twice the time-out that scrapers have by default.
const CONNECTION_WAIT: Duration = Duration::from_secs(20);
/// From accept to the end of the request's head.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// Request head: a scraper sends below 1 KiB, and one to two more with its token. hyper takes no less than 8 KiB.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 32;
/// After a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const PLAIN: &str = "text/plain; charset=utf-8";

/// What is served.
pub(crate) trait Source: Send + Sync + 'static {
    /// Whether the agent works; else why not.
    fn healthy(&self) -> Result<(), String>;
    /// Whether the agent sees what it should; else what is missing.
    fn ready(&self) -> Result<(), String>;
    /// A scrape in a form, with its content type.
    fn metrics(&self, format: Format) -> Result<(&'static str, String), String>;
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Somebody else has the port.
    #[error("port {} on {} is in use; choose another by {keys}, or `off`", address.port(), address.ip())]
    InUse {
        /// Where.
        address: SocketAddr,
        /// What says so.
        keys: &'static str,
    },
    /// Another reason.
    #[error("could not listen on {address}; choose another address by {keys}, or `off`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What says so.
        keys: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// No certificate to show.
    #[error("could not serve metrics by TLS")]
    Tls(#[source] tls::Error),
}

/// Listens where these keys of the configuration say.
pub(crate) async fn bind(address: SocketAddr, keys: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::InUse { address, keys },
        _ => Error::Listen { address, keys, source },
    })
}

/// Serves whoever can connect, until it is dropped.
pub(crate) async fn serve(listener: TcpListener, source: Arc<dyn Source>) {
    accept(listener, CONNECTIONS_MAX, |stream, _| Some(connection(stream, Arc::clone(&source), None))).await;
}

/// Takes connections for ever; those for which `serve` gives nothing are closed.
async fn accept<F>(listener: TcpListener, places: usize, mut serve: impl FnMut(TcpStream, SocketAddr) -> Option<F>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(places));
    let mut connections = tokio::task::JoinSet::new();
    let mut is_failing = false;
    loop {
        while connections.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                is_failing = false;
                let Some(served) = serve(stream, peer) else { continue };
                connections.spawn(async move {
                    let _place = place;
                    if tokio::time::timeout(CONNECTION_WAIT, served).await.is_err() {
                        tracing::debug!("an HTTP connection took too long");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely, and for a while: said once.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "could not accept an HTTP connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who is asked before `/metrics` is shown, and what is counted.
type Guard = Arc<secure::Guard>;

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, source: Arc<dyn Source>, guard: Option<Guard>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (source, guard) = (Arc::clone(&source), guard.clone());
        async move { Ok::<_, Infallible>(answer(request.into_parts().0, &*source, guard.as_deref()).await) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection broke");
    }
}

async fn answer(request: Parts, source: &dyn Source, guard: Option<&secure::Guard>) -> Response<Full<Bytes>> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        let mut response = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET and HEAD only\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // Reasons name probes, pods and what servers said: nothing for whoever comes along.
    let shown = |state: Result<(), String>, instead: &str| match guard {
        Some(_) => state.map_err(|_| instead.to_owned()),
        None => state,
    };
    match request.uri.path() {
        "/healthz" => state(shown(source.healthy(), "not healthy")),
        "/readyz" => state(shown(source.ready(), "not ready")),
        "/metrics" => {
            if let Some(guard) = guard
                && let Err(refusal) = guard.pass(&request.headers).await
            {
                return refused(refusal);
            }
            match source.metrics(accept::preferred(&request.headers)) {
                Ok((kind, text)) => vary(response(StatusCode::OK, kind, text)),
                Err(why) => response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{why}\n")),
            }
        }
        _ => response(StatusCode::NOT_FOUND, PLAIN, "/healthz, /readyz and /metrics are served here\n".to_owned()),
    }
}

/// Says that the answer depends on what was asked for.
fn vary(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

fn refused(secure::Refusal { status, text }: secure::Refusal) -> Response<Full<Bytes>> {
    let mut response = response(status, PLAIN, text);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn state(state: Result<(), String>) -> Response<Full<Bytes>> {
    match state {
        Ok(()) => response(StatusCode::OK, PLAIN, "ok\n".to_owned()),
        Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
    }
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
