//! An API server made of answers that a test chooses, on loopback: what a real one does only now and then.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_core::facts::ClusterFact;
use agent_core::input::Input;
use agent_core::time::WallNs;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::convert::Conversion;
use super::super::{Options, new};
use crate::cluster::{Asker, Publisher, Reviewer};

/// Nothing here takes a tenth of this; only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_mins(1);

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) token: String,
    pub(super) accept: String,
    pub(super) body: Value,
    pub(super) at: Instant,
}

impl Seen {
    pub(super) fn is_watch(&self) -> bool {
        self.query.contains("watch=true")
    }

    /// A parameter, decoded as far as these tests need it.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let value = self.query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")))?;
        Some(value.replace("%3D", "=").replace("%3A", ":"))
    }
}

/// An answer.
pub(super) enum Answer {
    Json(u16, Value),
    Raw {
        status: u16,
        content_type: &'static str,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// A watch: what is sent here arrives, and its end is the connection's.
    Stream(mpsc::UnboundedReceiver<String>),
}

type Handler = dyn FnMut(&Seen) -> Answer + Send;

/// The server and the part that asks it.
pub(super) struct World {
    pub(super) directory: tempfile::TempDir,
    pub(super) asker: Option<Asker>,
    pub(super) publisher: Option<Publisher>,
    pub(super) reviewer: Option<Reviewer>,
    seen: Arc<Mutex<Vec<Seen>>>,
    facts: mpsc::Receiver<Vec<Input>>,
    told: Vec<ClusterFact>,
    tasks: Vec<JoinHandle<()>>,
}

impl World {
    /// A server that answers as the handler says, and the part.
    pub(super) async fn new(handler: impl FnMut(&Seen) -> Answer + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::in_directory(directory, handler).await
    }

    /// The same with what an earlier one left behind.
    pub(super) async fn in_directory(
        directory: tempfile::TempDir,
        handler: impl FnMut(&Seen) -> Answer + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let server = tokio::spawn(serve(listener, Arc::new(Mutex::new(handler)), Arc::clone(&seen)));
        Self::against(directory, address, seen, vec![server])
    }

    /// The part alone, with nobody at the address.
    pub(super) async fn alone(directory: tempfile::TempDir) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        Self::against(directory, address, Arc::default(), Vec::new())
    }

    fn against(
        directory: tempfile::TempDir,
        address: SocketAddr,
        seen: Arc<Mutex<Vec<Seen>>>,
        mut tasks: Vec<JoinHandle<()>>,
    ) -> Self {
        let token = directory.path().join("token");
        if !token.exists() {
            std::fs::write(&token, "old").unwrap();
        }
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, kubeconfig_of(address, &token)).unwrap();
        let options = Options {
            node: "n1".into(),
            kubeconfig: Some(kubeconfig),
            facts_file: Some(directory.path().join("facts.json")),
            start_jitter: Duration::ZERO,
            conversion: Conversion::default(),
            events: true,
            remote_lookup: true,
            reviews: true,
            now: || WallNs(1_000_000_000),
        };
        let (tell, facts) = mpsc::channel(16);
        let cluster = new(options, tell);
        tasks.push(tokio::spawn(cluster.work));
        let (asker, publisher, reviewer) = (cluster.asker, cluster.publisher, cluster.reviewer);
        Self { directory, asker, publisher, reviewer, seen, facts, told: Vec::new(), tasks }
    }

    /// Takes facts until one is wanted; all that were told from the last call on.
    pub(super) async fn until(&mut self, mut wanted: impl FnMut(&ClusterFact) -> bool) -> Vec<ClusterFact> {
        let mut told = Vec::new();
        let wait = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut found = false;
            while !found && !self.told.is_empty() {
                let fact = self.told.remove(0);
                found = wanted(&fact);
                told.push(fact);
            }
            if found {
                return told;
            }
            match tokio::time::timeout_at(wait, self.facts.recv()).await {
                Ok(Some(batch)) => self.told.extend(batch.into_iter().map(|input| match input {
                    Input::Cluster(fact) => *fact,
                    other => panic!("no fact of the cluster: {other:?}"),
                })),
                Ok(None) => panic!("the part ended; told: {told:#?}"),
                Err(late) => panic!("not told in time ({late}): {told:#?}\nrequests: {:#?}", self.seen()),
            }
        }
    }

    /// Waits until the server saw something.
    pub(super) async fn until_seen(&mut self, wanted: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let wait = Instant::now() + PATIENCE;
        while !wanted(&self.seen()) {
            assert!(Instant::now() < wait, "not seen in time: {:#?}", self.seen());
            self.take();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.seen()
    }

    /// Takes what was told so far: facts must not block the part.
    fn take(&mut self) {
        while let Ok(batch) = self.facts.try_recv() {
            self.told.extend(batch.into_iter().filter_map(|input| match input {
                Input::Cluster(fact) => Some(*fact),
                _ => None,
            }));
        }
    }

    /// Lets minutes pass, one after the other, until the server saw something.
    pub(super) async fn pass_until(&mut self, wanted: impl Fn(&[Seen]) -> bool) {
        let wait = Instant::now() + PATIENCE;
        while !wanted(&self.seen()) {
            assert!(Instant::now() < wait, "not seen in time: {:#?}", self.seen());
            self.take();
            tokio::time::sleep(Duration::from_millis(5)).await;
            Self::pass(Duration::from_mins(1)).await;
        }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Requests for this path.
    pub(super) fn of(&self, path: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path == path).collect()
    }

    /// Lets hours pass for the part, while nothing is under way.
    pub(super) async fn pass(time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    /// Ends the part; what it left behind stays.
    pub(super) fn end(self) -> tempfile::TempDir {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.directory
    }
}

fn kubeconfig_of(address: SocketAddr, token: &std::path::Path) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": format!("http://{address}")}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "users": [{"name": "u", "user": {"tokenFile": PathBuf::from(token)}}],
    })
    .to_string()
}

async fn serve(listener: TcpListener, handler: Arc<Mutex<Handler>>, seen: Arc<Mutex<Vec<Seen>>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &handler, &seen));
            // A connection that the other side gives up is no failure here.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    handler: &Mutex<Handler>,
    seen: &Mutex<Vec<Seen>>,
) -> Result<Response<BoxBody<Bytes, std::io::Error>>, Infallible> {
    let (parts, body) = request.into_parts();
    let header =
        |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let one = Seen {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        token: header("authorization").trim_start_matches("Bearer ").to_owned(),
        accept: header("accept"),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        at: Instant::now(),
    };
    seen.lock().unwrap().push(one.clone());
    let answer = (handler.lock().unwrap())(&one);
    let full = |body: String| Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
    Ok(match answer {
        Answer::Json(status, value) => Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(full(value.to_string()))
            .unwrap(),
        Answer::Raw { status, content_type, headers, body } => {
            let mut response = Response::builder().status(status).header("content-type", content_type);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(full(body)).unwrap()
        }
        Answer::Stream(receiver) => {
            let pieces = stream::unfold(receiver, |mut receiver| async {
                let piece = receiver.recv().await?;
                // A test's way to break the connection.
                let frame = if piece == BREAK {
                    Err(std::io::Error::other("broken"))
                } else {
                    Ok(Frame::data(Bytes::from(piece)))
                };
                Some((frame, receiver))
            });
            Response::builder()
                .header("content-type", "application/json")
                .body(StreamBody::new(pieces).boxed())
                .unwrap()
        }
    })
}

/// Sent into a watch, it breaks the connection in the middle of whatever it says.
pub(super) const BREAK: &str = "\0";

/// A watch that says nothing. Its sender must be kept, for its end ends the watch.
#[derive(Default)]
pub(super) struct Quiet(Vec<mpsc::UnboundedSender<String>>);

impl Quiet {
    pub(super) fn watch(&mut self) -> Answer {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.push(sender);
        Answer::Stream(receiver)
    }
}

/// Answers to one path, one after the other.
#[derive(Default)]
pub(super) struct Script(VecDeque<Answer>);

impl Script {
    pub(super) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self(answers.into_iter().collect())
    }

    pub(super) fn next(&mut self) -> Option<Answer> {
        self.0.pop_front()
    }
}

/// What a cluster without anything in it answers.
pub(super) fn empty(seen: &Seen, quiet: &mut Quiet) -> Answer {
    if seen.path.contains("/events") && seen.method != "GET" {
        return Answer::Json(201, seen.body.clone());
    }
    if seen.path.contains("securitygrouppolicies") || seen.path.contains("cninodes") {
        return not_found();
    }
    if seen.path.contains("/serviceaccounts/") {
        return status(404, "NotFound");
    }
    if seen.is_watch() { quiet.watch() } else { list(&[], "1") }
}

pub(super) fn not_found() -> Answer {
    Answer::Raw {
        status: 404,
        content_type: "text/plain",
        headers: Vec::new(),
        body: "404 page not found\n".to_owned(),
    }
}

pub(super) fn status(code: u16, reason: &str) -> Answer {
    Answer::Json(code, status_value(code, reason))
}

pub(super) fn status_value(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason, "reason": reason, "code": code})
}

pub(super) fn list(items: &[Value], version: &str) -> Answer {
    Answer::Json(
        200,
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
    )
}

/// An event of a watch, with its line's end.
pub(super) fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

pub(super) fn bookmark(version: &str) -> String {
    event(
        "BOOKMARK",
        &json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": version, "creationTimestamp": null}}),
    )
}

/// A pod of this node.
pub(super) fn pod(name: &str, version: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": version},
        "spec": {"nodeName": "n1", "serviceAccountName": "cart"}, "status": {"phase": "Running"}})
}
