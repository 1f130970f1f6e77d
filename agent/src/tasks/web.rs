//! The HTTP servers in the running agent: where they listen, who decides about scrapers, and how the second one stands.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::api::protocol::SecureStatus;
use crate::cluster::{Review, Reviewer};
use crate::config::{Config, Listen};
use crate::http::{self, Admission, Ends, Files, Gate, Secure, Source, Tls};

/// What cannot be told is in the log this often at the most: scrapers try again and again.
const WARN_PAUSE: Duration = Duration::from_mins(1);

/// What listens.
pub(super) struct Web {
    plain: Option<TcpListener>,
    secure: Option<Secure>,
}

/// How the server beyond loopback stands, for whoever asks.
pub(super) struct Standing {
    address: String,
    tls: Arc<Tls>,
    ends: Arc<Ends>,
}

/// Asks the cluster about scrapers.
struct Scrapers {
    reviewer: Reviewer,
    warned: Mutex<Option<Instant>>,
}

// === impl Web ===

impl Web {
    /// Listens where the configuration says.
    pub(super) async fn bind(config: &Config, node: &str) -> Result<Self, http::Error> {
        let keys = &config.metrics;
        let plain = match keys.listen {
            Listen::Off => None,
            Listen::At(address) => Some(http::bind(address, "--metrics-listen or metrics.listen").await?),
        };
        let secure = match keys.secure_listen {
            Listen::Off => None,
            Listen::At(address) => {
                let files = (!keys.tls_cert_file.as_os_str().is_empty())
                    .then(|| Files { certificate: keys.tls_cert_file.clone(), key: keys.tls_key_file.clone() });
                let tls = match files {
                    Some(files) => Tls::of_files(files)?,
                    None => Tls::self_signed(&[node], address.ip())?,
                };
                Some(Secure::new(http::bind(address, "metrics.secure_listen").await?, tls))
            }
        };
        Ok(Self { plain, secure })
    }

    /// How the second server stands; `None` when there is none.
    pub(super) fn standing(&self) -> Option<Standing> {
        let secure = self.secure.as_ref()?;
        let address = secure.address().map_or_else(|error| error.to_string(), |address| address.to_string());
        Some(Standing { address, tls: secure.tls(), ends: secure.ends() })
    }

    /// Serves.
    pub(super) fn start(self, source: &Arc<dyn Source>, reviewer: Option<Reviewer>) -> Vec<JoinHandle<()>> {
        let mut work = Vec::new();
        if let Some(listener) = self.plain {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "serving /metrics, /healthz and /readyz");
            }
            work.push(tokio::spawn(http::serve(listener, Arc::clone(source))));
        }
        // The configuration has no second server without a cluster.
        if let Some((secure, reviewer)) = self.secure.zip(reviewer) {
            if let Ok(address) = secure.address() {
                tracing::info!(%address, tls = secure.tls().origin(), "serving /metrics to those who may read it");
            }
            let gate = Arc::new(Scrapers { reviewer, warned: Mutex::default() });
            work.push(tokio::spawn(secure.serve(Arc::clone(source), gate)));
        }
        work
    }
}

// === impl Standing ===

impl Standing {
    /// As it is now.
    pub(super) fn status(&self) -> SecureStatus {
        SecureStatus {
            address: self.address.clone(),
            tls: self.tls.origin(),
            failing: self.tls.failing(),
            requests: self.ends.counts().into_iter().map(|(end, count)| (end.to_owned(), count)).collect(),
        }
    }
}

// === impl Scrapers ===

impl Scrapers {
    fn warn(&self, why: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_PAUSE) {
            *warned = Some(Instant::now());
            tracing::warn!(why, "the Kubernetes API could not be asked who scrapes, so nobody is let through");
        }
    }
}

impl Gate for Scrapers {
    fn admit<'a>(&'a self, token: &'a str) -> Pin<Box<dyn Future<Output = Admission> + Send + 'a>> {
        Box::pin(async move {
            match self.reviewer.review(token).await {
                Ok(Review::Allowed) => Admission::Admitted,
                Ok(Review::Unknown) => Admission::Unknown,
                Ok(Review::Denied(name)) => {
                    // A name comes from the cluster's own records, but goes to whoever asked: one line.
                    let mut clean = String::new();
                    crate::lines::clean_into(&name, &mut clean);
                    Admission::Forbidden(clean)
                }
                Err(why) => {
                    self.warn(&why);
                    Admission::CannotTell
                }
            }
        })
    }
}
