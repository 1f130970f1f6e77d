//! A collector for tests: takes OTLP by the official messages over real HTTP, and fails as it is told.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What it does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// Takes it.
    Takes,
    /// Answers this status, with these headers and this body.
    Answers(u16, Vec<(&'static str, String)>, String),
    /// Answers nothing, ever.
    Hangs,
    /// Closes the connection.
    Breaks,
    /// Takes it, and closes the connection before it says so.
    TakesAndBreaks,
    /// Takes all but rows with this in their body, and says this.
    TakesAllBut(&'static str, String),
    /// Takes requests of at most so many rows.
    TakesAtMost(usize),
    /// Calls requests wrong that hold this.
    CallsWrong(&'static str),
}

/// A log record as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Arrived {
    /// `sekisho.id`.
    pub(crate) id: String,
    /// `sekisho.kind`.
    pub(crate) kind: String,
    /// All of it.
    pub(crate) log: LogRecord,
}

#[derive(Debug, Default)]
struct State {
    manner: Option<Manner>,
    arrived: Vec<Arrived>,
    requests: u64,
    headers: BTreeMap<String, String>,
    path: String,
    resource: BTreeMap<String, String>,
}

/// See the module's documentation.
pub(crate) struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: Option<JoinHandle<()>>,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

impl Receiver {
    /// One that takes everything.
    pub(crate) async fn start() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut receiver = Self { address, state: Arc::default(), accepting: None, tls: None };
        receiver.up().await;
        receiver
    }

    /// One with TLS, and its certificate (PEM), which nobody else signed.
    pub(crate) async fn start_tls() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a configuration");
        let mut receiver = Self::start().await;
        receiver.down().await;
        receiver.tls = Some(Arc::new(config).into());
        receiver.up().await;
        (receiver, made.cert.pem())
    }

    /// Listens, where it did before.
    pub(crate) async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("binds");
        self.address = listener.local_addr().expect("an address");
        let (state, tls) = (Arc::clone(&self.state), self.tls.clone());
        self.accepting = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&state), tls.clone());
                let serve = hyper::service::service_fn(move |request| answer(Arc::clone(&state), request));
                let http = hyper::server::conn::http1::Builder::new();
                connections.spawn(async move {
                    // What ends a connection is the client's business.
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), serve).await),
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            drop(http.serve_connection(TokioIo::new(stream), serve).await);
                        }
                    }
                });
            }
        }));
    }

    /// Refuses connections, and ends those there are.
    pub(crate) async fn down(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub(crate) fn behaves(&self, manner: Manner) {
        lock(&self.state).manner = Some(manner);
    }

    /// Requests that came, whatever became of them.
    pub(crate) fn requests(&self) -> u64 {
        lock(&self.state).requests
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        lock(&self.state).arrived.clone()
    }

    /// A header of the last request.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        lock(&self.state).headers.get(name).cloned()
    }

    /// Path of the last request.
    pub(crate) fn path(&self) -> String {
        lock(&self.state).path.clone()
    }

    /// Attributes of the last request's resource.
    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        lock(&self.state).resource.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
struct Closed;

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("gzip");
    let message = ExportLogsServiceRequest::decode(&plain[..]).expect("an OTLP request");
    let [of_node] = &message.resource_logs[..] else { panic!("one resource: {message:?}") };
    let [logs] = &of_node.scope_logs[..] else { panic!("one scope: {message:?}") };
    let logs: Vec<Arrived> = logs.log_records.iter().cloned().map(arrived).collect();
    let manner = {
        let mut state = lock(&state);
        state.requests += 1;
        state.path = head.uri.path().to_owned();
        state.headers =
            head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        let resource = of_node.resource.clone().unwrap_or_default();
        state.resource = resource.attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref()))).collect();
        state.manner.clone().unwrap_or(Manner::Takes)
    };
    let holds = |text: &str| logs.iter().any(|log| format!("{:?}", log.log.body).contains(text));
    let mut taken = logs.clone();
    let mut reply = ExportLogsServiceResponse::default();
    match &manner {
        Manner::TakesAtMost(rows) if logs.len() > *rows => return Ok(status(413, &[], "too large".to_owned())),
        Manner::CallsWrong(text) if holds(text) => {
            let protobuf = [("content-type", "application/x-protobuf".to_owned())];
            return Ok(status(400, &protobuf, String::new()));
        }
        Manner::Takes | Manner::TakesAtMost(_) | Manner::CallsWrong(_) => {}
        Manner::Answers(code, headers, body) => return Ok(status(*code, headers, body.clone())),
        Manner::Hangs => std::future::pending().await,
        Manner::Breaks => return Err(Closed),
        Manner::TakesAndBreaks => {
            lock(&state).arrived.extend(taken);
            return Err(Closed);
        }
        Manner::TakesAllBut(text, why) => {
            taken.retain(|log| !format!("{:?}", log.log.body).contains(text));
            let rejected_log_records = i64::try_from(logs.len() - taken.len()).unwrap();
            let error_message = why.clone();
            reply.partial_success = Some(ExportLogsPartialSuccess { rejected_log_records, error_message });
        }
    }
    lock(&state).arrived.extend(taken);
    Ok(Response::new(Full::new(Bytes::from(reply.encode_to_vec()))))
}

fn status(code: u16, headers: &[(&'static str, String)], body: String) -> Response<Full<Bytes>> {
    let response =
        headers.iter().fold(Response::builder().status(code), |response, (name, value)| response.header(*name, value));
    response.body(Full::new(Bytes::from(body))).expect("a response")
}

fn arrived(log: LogRecord) -> Arrived {
    let attribute = |key: &str| {
        let pair = log.attributes.iter().find(|pair| pair.key == key);
        text(pair.and_then(|pair| pair.value.as_ref()))
    };
    Arrived { id: attribute("sekisho.id"), kind: attribute("sekisho.kind"), log }
}

fn text(value: Option<&opentelemetry_proto::tonic::common::v1::AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}
