//! The server beyond loopback: TLS, `/metrics` for those who are let through, bounds for each address, and counts of what
//! became of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::HeaderMap;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::callers::Callers;
use super::gate::bearer;
use super::{Admission, Error, Gate, Source, Tls, accept, connection};

#[cfg(test)]
mod tests;

/// Connections at a time, 40 KiB each at the most. Neighbours may be many, and each has a part of these alone.
const CONNECTIONS_MAX: usize = 64;
/// From accept to the end of the handshake.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);

/// A server that listens.
pub(crate) struct Secure {
    listener: TcpListener,
    tls: Arc<Tls>,
    ends: Arc<Ends>,
}

/// What became of connections and of requests for `/metrics`, since the start.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    served: AtomicU64,
    unauthenticated: AtomicU64,
    forbidden: AtomicU64,
    cannot_tell: AtomicU64,
    turned_away: AtomicU64,
    no_handshake: AtomicU64,
}

/// Asks before `/metrics` is shown.
pub(super) struct Guard {
    gate: Arc<dyn Gate>,
    ends: Arc<Ends>,
}

/// Why it is not shown.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

// === impl Secure ===

impl Secure {
    /// With what was bound.
    pub(crate) fn new(listener: TcpListener, tls: Tls) -> Self {
        Self { listener, tls: Arc::new(tls), ends: Arc::default() }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// What it shows.
    pub(crate) fn tls(&self) -> Arc<Tls> {
        Arc::clone(&self.tls)
    }

    /// What it counts.
    pub(crate) fn ends(&self) -> Arc<Ends> {
        Arc::clone(&self.ends)
    }

    /// Serves until it is dropped, and looks after its certificate.
    pub(crate) async fn serve(self, source: Arc<dyn Source>, gate: Arc<dyn Gate>) {
        let Self { listener, tls, ends } = self;
        let callers = Callers::default();
        let acceptor = TlsAcceptor::from(tls.config());
        let guard = Arc::new(Guard { gate, ends: Arc::clone(&ends) });
        let served = accept(listener, CONNECTIONS_MAX, |stream, peer| {
            let Some(visit) = callers.enter(peer.ip(), Instant::now()) else {
                count(&ends.turned_away);
                return None;
            };
            let (acceptor, source, guard) = (acceptor.clone(), Arc::clone(&source), Arc::clone(&guard));
            Some(async move {
                let _visit = visit;
                match tokio::time::timeout(HANDSHAKE_WAIT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, source, Some(guard)).await,
                    Ok(Err(error)) => {
                        count(&guard.ends.no_handshake);
                        tracing::debug!(%error, "a TLS handshake broke off");
                    }
                    Err(_) => count(&guard.ends.no_handshake),
                }
            })
        });
        tokio::select! {
            () = served => {}
            () = tls.keep() => {}
        }
    }
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure").field("listener", &self.listener).finish_non_exhaustive()
    }
}

// === impl Ends ===

impl Ends {
    /// By what became of them.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 6] {
        let Self { served, unauthenticated, forbidden, cannot_tell, turned_away, no_handshake } = self;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("served", read(served)),
            ("unauthenticated", read(unauthenticated)),
            ("forbidden", read(forbidden)),
            ("cannot_tell", read(cannot_tell)),
            ("turned_away", read(turned_away)),
            ("no_handshake", read(no_handshake)),
        ]
    }
}

fn count(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

// === impl Guard ===

impl Guard {
    /// Whether a request for `/metrics` is answered.
    pub(super) async fn pass(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let ends = &self.ends;
        let (end, status, text) = match bearer(headers) {
            None => (
                &ends.unauthenticated,
                StatusCode::UNAUTHORIZED,
                "/metrics is for those who show a bearer token of this cluster\n".to_owned(),
            ),
            Some(token) => match self.gate.admit(token).await {
                Admission::Admitted => {
                    count(&ends.served);
                    return Ok(());
                }
                Admission::Unknown => (
                    &ends.unauthenticated,
                    StatusCode::UNAUTHORIZED,
                    "the Kubernetes API does not know this token, or not any more\n".to_owned(),
                ),
                Admission::Forbidden(name) => (
                    &ends.forbidden,
                    StatusCode::FORBIDDEN,
                    format!(
                        "{name} may not read this: it needs a ClusterRole with the non-resource URL /metrics and the verb get\n"
                    ),
                ),
                Admission::CannotTell => (
                    &ends.cannot_tell,
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the Kubernetes API could not be asked about this token: see the agent's log, and try again\n"
                        .to_owned(),
                ),
            },
        };
        count(end);
        Err(Refusal { status, text })
    }
}

impl From<super::tls::Error> for Error {
    fn from(error: super::tls::Error) -> Self {
        Self::Tls(error)
    }
}
