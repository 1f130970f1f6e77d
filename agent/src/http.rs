//! `/healthz`, `/readyz` and `/metrics`: three fixed answers over HTTP/1.1, each connection with one request and a
//! deadline for all of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, VARY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

mod accept;
#[cfg(test)]
mod tests;

pub(crate) use accept::Format;

/// Connections at a time; others wait in the backlog. A scraper, two health probes and some curious people.
const CONNECTIONS_MAX: usize = 16;
/// From accept to the last byte of the answer: twice the time-out that scrapers have by default.
const CONNECTION_WAIT: Duration = Duration::from_secs(20);
/// From accept to the end of the request's head.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// Request head: a scraper sends below 1 KiB. hyper takes no less than 8 KiB.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 32;
/// After a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

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
    #[error("port {} on {} is in use; choose another by --metrics-listen or metrics.listen, or `off`", .0.port(), .0.ip())]
    InUse(SocketAddr),
    /// Another reason.
    #[error("could not listen on {address}; choose another address by --metrics-listen or metrics.listen, or `off`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Listens.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::InUse(address),
        _ => Error::Listen { address, source },
    })
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, source: Arc<dyn Source>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = Arc::clone(&source);
                connections.spawn(async move {
                    let _place = place;
                    if tokio::time::timeout(CONNECTION_WAIT, connection(stream, source)).await.is_err() {
                        tracing::debug!("an HTTP connection took too long");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, source: Arc<dyn Source>) {
    let service = service_fn(|request| {
        let response = answer(&request, &*source);
        async move { Ok::<_, Infallible>(response) }
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

fn answer(request: &Request<Incoming>, source: &dyn Source) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET and HEAD only\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => state(source.healthy(), PLAIN),
        "/readyz" => state(source.ready(), PLAIN),
        "/metrics" => match source.metrics(accept::preferred(request.headers())) {
            Ok((kind, text)) => vary(response(StatusCode::OK, kind, text)),
            Err(why) => response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{why}\n")),
        },
        _ => response(StatusCode::NOT_FOUND, PLAIN, "/healthz, /readyz and /metrics are served here\n".to_owned()),
    }
}

/// Says that the answer depends on what was asked for.
fn vary(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

fn state(state: Result<(), String>, kind: &'static str) -> Response<Full<Bytes>> {
    match state {
        Ok(()) => response(StatusCode::OK, kind, "ok\n".to_owned()),
        Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, kind, format!("{why}\n")),
    }
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
