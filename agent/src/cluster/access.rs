//! The client of the API server: found, made anew when the server no longer knows it, and held back when the server asks.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::Limited;
use hyper::header::RETRY_AFTER;
use hyper::{Response, StatusCode};
use kube::client::{ClientBuilder, DynBody};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::time::Instant;
use tower::util::MapResponseLayer;

use super::trouble::Trouble;

/// A request that has had no answer after this long gets none. Watches end by themselves and are watched over.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Longest answer, and most that one watch may bring before it is begun anew. An object has up to 1.5 MB (etcd's limit), a
/// usual pod 15 KB, and a node up to some hundred of them.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The longest a server may hold us back: it may say anything.
const QUIET_MAX: Duration = Duration::from_mins(5);
/// A client that was refused is made anew, which reads tokens and certificates again, at most this often.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// Hands out clients.
#[derive(Clone)]
pub(super) struct Access {
    kubeconfig: Option<PathBuf>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    client: Option<Client>,
    renewed: Option<Instant>,
    quiet_until: Option<Instant>,
}

// === impl Access ===

impl Access {
    pub(super) fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self { kubeconfig, state: Arc::default() }
    }

    /// The client, as soon as the server wants to be asked again.
    pub(super) async fn client(&self) -> Result<Client, Trouble> {
        let quiet_until = self.state().quiet_until;
        if let Some(until) = quiet_until {
            tokio::time::sleep_until(until).await;
        }
        let known = self.state().client.clone();
        match known {
            Some(client) => Ok(client),
            None => self.make().await,
        }
    }

    /// The server refused what the client said of itself: the next one reads its token anew.
    pub(super) fn refused(&self) {
        let mut state = self.state();
        let now = Instant::now();
        if state.renewed.is_none_or(|at| now.saturating_duration_since(at) >= RENEWAL_PAUSE) {
            state.client = None;
        }
    }

    async fn make(&self) -> Result<Client, Trouble> {
        let mut config = self.config().await?;
        // Retries and their pauses are each follower's own: kube's would begin with 5 ms, on every node at a time.
        config.default_retry = false;
        let shared = Arc::clone(&self.state);
        let layer = MapResponseLayer::new(move |response: Response<Box<DynBody>>| {
            heed(&shared, &response);
            response.map(|body| Limited::new(body, ANSWER_BYTES_MAX))
        });
        let builder = ClientBuilder::try_from(config).map_err(|error| Trouble::of(&error))?;
        let client = builder.with_layer(&layer).build();
        let mut state = self.state();
        state.client = Some(client.clone());
        state.renewed = Some(Instant::now());
        Ok(client)
    }

    async fn config(&self) -> Result<Config, Trouble> {
        let options = KubeConfigOptions::default();
        if let Some(path) = &self.kubeconfig {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| {
                Trouble::local(format!("could not read the kubeconfig {}: {}", path.display(), kind_of(&error)))
            })?;
            return Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| {
                Trouble::local(format!("could not use the kubeconfig {}: {}", path.display(), kind_of(&error)))
            });
        }
        // Not ~/.kube/config: an agent that runs as root must not find a cluster that nobody named.
        if std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) {
            return Config::from_kubeconfig(&options).await.map_err(|error| {
                Trouble::local(format!("could not use the kubeconfig that KUBECONFIG names: {}", kind_of(&error)))
            });
        }
        Config::incluster().map_err(|error| {
            Trouble::local(format!(
                "no cluster: {error}; run as a pod with a service account, or name a kubeconfig by cluster.kubeconfig or \
                 KUBECONFIG, or start with --standalone"
            ))
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong with a kubeconfig, without what stands in it: the parser's errors may quote lines with tokens.
fn kind_of(error: &kube::config::KubeconfigError) -> String {
    use kube::config::KubeconfigError as E;
    match error {
        E::ReadConfig(source, _) => source.to_string(),
        E::Parse(_) | E::KindMismatch | E::ApiVersionMismatch => "it is not the YAML of a kubeconfig".to_owned(),
        E::CurrentContextNotSet => "it has no current context".to_owned(),
        E::LoadContext(name) => format!("it has no context {name}"),
        E::LoadClusterOfContext(name) => format!("it has no cluster {name}"),
        E::MissingClusterUrl => "its cluster has no server".to_owned(),
        _ => "a certificate, a key or an address in it cannot be used".to_owned(),
    }
}

/// A server that is asked too much says so, and for how long.
fn heed<B>(state: &Mutex<State>, response: &Response<B>) {
    if !matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return;
    }
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    if let Some(seconds) = seconds {
        let until = Instant::now() + Duration::from_secs(seconds).min(QUIET_MAX);
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.quiet_until = state.quiet_until.max(Some(until));
    }
}
