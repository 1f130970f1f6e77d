//! Rows as log records to an OpenTelemetry collector: OTLP over HTTP/1.1 with binary protobuf, compressed by gzip.
//!
//! # Decisions
//!
//! **HTTP, not gRPC**: every collector takes both on ports of their own, and HTTP needs no more than what is here already.
//!
//! **The official messages, not the official exporter**: that one keeps what it could not send in memory and drops it there.
//! Here rows stand in the history until a collector took them, and whoever calls this decides when to try again.
//!
//! **What is tried again**: everything but what the protocol calls final for a request (400 by a collector, 413 of a single row,
//! and rows of a partial success). It also names answers like 401 and 404 final; but they speak of the configuration and not of
//! the rows, and the rows are safe where they are.
//!
//! The protocol: <https://opentelemetry.io/docs/specs/otlp/#otlphttp>.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

mod encode;
#[cfg(test)]
pub(crate) mod receiver;
#[cfg(test)]
mod tests;

pub(crate) use self::encode::{Record, Source};

/// An exchange that is not through after this long failed; what OpenTelemetry's exporters wait.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Longest answer: an empty message, or the reason of a partial success.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Longest wait that a collector may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);
/// Longest text of a collector that is shown, characters.
const TEXT_CHARS_MAX: usize = 200;
/// Most headers, as there are in requests to vendors: a token or two.
const HEADERS_MAX: usize = 32;
const AGENT: &str = concat!("sekisho/", env!("CARGO_PKG_VERSION"));
const PROTOBUF: &str = "application/x-protobuf";
/// Where a collector takes logs, for an endpoint without a path.
const LOGS_PATH: &str = "/v1/logs";

/// Where rows go.
pub(crate) struct Options {
    /// `http://` or `https://`, host, port, and the path unless it is [`LOGS_PATH`].
    pub(crate) endpoint: String,
    /// `key=value`, separated by commas, values percent-encoded, as in `OTEL_EXPORTER_OTLP_HEADERS`. A secret.
    pub(crate) headers: Option<String>,
    /// Certificates (PEM) that are trusted besides the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

/// A collector.
pub(crate) struct Client {
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    source: Source,
    wait: Duration,
}

/// A collector took rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Rows that it refused for good.
    pub(crate) refused: u64,
    /// What it says to that; empty for nothing.
    pub(crate) text: String,
}

/// A collector did not take rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// It may take them later.
    #[error("{why}")]
    Later {
        /// What happened.
        why: String,
        /// It asked to be left alone for so long.
        after: Option<Duration>,
    },
    /// They are too many at a time.
    #[error("the collector calls {0} bytes too large")]
    TooLarge(usize),
    /// It will never take these.
    #[error("the collector calls the rows wrong (400)")]
    Never,
}

/// Why nothing can be sent at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The endpoint.
    #[error("export.otlp.endpoint cannot be used: {0}")]
    Endpoint(String),
    /// The headers; their values are not shown.
    #[error(
        "header {0} of the variable that export.otlp.headers_env names cannot be used; allowed: name=value,name=value"
    )]
    Header(usize),
    /// Certificates.
    #[error("could not read certificates from {}", .0.display())]
    Certificates(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// No TLS.
    #[error("could not set up TLS")]
    Tls(#[source] rustls::Error),
}

impl Client {
    /// Does not connect.
    pub(crate) fn new(options: &Options, source: Source) -> Result<Self, SetupError> {
        let uri = uri(&options.endpoint)?;
        let headers = headers(options.headers.as_deref().unwrap_or_default())?;
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(SetupError::Tls)?
            .with_root_certificates(roots(options.ca_file.as_deref(), uri.scheme_str() == Some("https"))?)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = HttpClient::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Ok(Self { http, uri, headers, source, wait: ANSWER_WAIT })
    }

    /// A client with less patience.
    #[cfg(test)]
    pub(crate) fn waiting(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Sends rows in one request.
    pub(crate) async fn send(&self, records: &[Record]) -> Result<Taken, Trouble> {
        let body = gzip(&encode::request(&self.source, records).encode_to_vec());
        let later = |why: String| Trouble::Later { why, after: None };
        let length = body.len();
        let mut request =
            Request::builder().method(Method::POST).uri(self.uri.clone()).body(Full::new(Bytes::from(body)));
        if let Ok(request) = &mut request {
            let set = request.headers_mut();
            set.extend(self.headers.clone());
            set.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
            set.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            set.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        }
        let request = request.map_err(|error| later(format!("no request can be made: {error}")))?;
        let exchange = async {
            let answer = self.http.request(request).await.map_err(|error| later(crate::lines::chain(&error)))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            Ok((head, body.map(http_body_util::Collected::to_bytes)))
        };
        let late = || later(format!("no answer in {} s", self.wait.as_secs_f64()));
        let (head, body) = tokio::time::timeout(self.wait, exchange).await.map_err(|_| late())??;
        match head.status {
            status if status.is_success() => {
                let body = body.map_err(|error| later(format!("its answer broke off: {error}")))?;
                Ok(self.taken(&body, records.len() as u64))
            }
            // Said by a collector, and not by what listens where a collector should.
            StatusCode::BAD_REQUEST if is_protobuf(&head.headers) => Err(Trouble::Never),
            StatusCode::PAYLOAD_TOO_LARGE => Err(Trouble::TooLarge(length)),
            // What it says besides may repeat what it was sent, a token among that.
            status => Err(Trouble::Later { why: format!("it answers {status}"), after: retry_after(&head.headers) }),
        }
    }

    /// An answer that cannot be read is one of success all the same: its status says so.
    fn taken(&self, body: &[u8], records: u64) -> Taken {
        let partial = ExportLogsServiceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
        let Some(partial) = partial else { return Taken::default() };
        let refused = u64::try_from(partial.rejected_log_records).unwrap_or(0).min(records);
        let mut text = String::new();
        let is_told = self.headers.values().any(|value| {
            value.to_str().is_ok_and(|value| {
                value.split(' ').any(|part| !part.is_empty() && partial.error_message.contains(part))
            })
        });
        if !is_told {
            let cut: String = partial.error_message.chars().take(TEXT_CHARS_MAX).collect();
            crate::lines::clean_into(&cut, &mut text);
        }
        Taken { refused, text }
    }
}

fn uri(endpoint: &str) -> Result<Uri, SetupError> {
    let wrong = |why: &str| SetupError::Endpoint(why.to_owned());
    let uri: Uri = endpoint.parse().map_err(|error: hyper::http::uri::InvalidUri| wrong(&error.to_string()))?;
    let mut parts = uri.into_parts();
    if !parts.scheme.as_ref().is_some_and(|scheme| ["http", "https"].contains(&scheme.as_str())) {
        return Err(wrong("it begins with neither http:// nor https://"));
    }
    match &parts.authority {
        Some(authority) if authority.as_str().contains('@') => {
            return Err(wrong("it holds a user; name the variable with headers by export.otlp.headers_env instead"));
        }
        Some(authority) if !authority.host().is_empty() => {}
        _ => return Err(wrong("it names no host")),
    }
    match parts.path_and_query.as_ref().map_or("/", |path| path.as_str()) {
        "" | "/" => parts.path_and_query = Some(hyper::http::uri::PathAndQuery::from_static(LOGS_PATH)),
        _ => {}
    }
    Uri::from_parts(parts).map_err(|error| wrong(&error.to_string()))
}

/// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/#specifying-headers-via-environment-variables>
fn headers(text: &str) -> Result<HeaderMap, SetupError> {
    let mut headers = HeaderMap::new();
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    for (index, pair) in pairs.enumerate() {
        let wrong = || SetupError::Header(index + 1);
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        let value = percent_encoding::percent_decode_str(value.trim()).collect::<Vec<u8>>();
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| wrong())?;
        // Shown by nobody.
        value.set_sensitive(true);
        if index >= HEADERS_MAX {
            return Err(wrong());
        }
        headers.append(name, value);
    }
    Ok(headers)
}

fn roots(ca_file: Option<&Path>, is_needed: bool) -> Result<rustls::RootCertStore, SetupError> {
    let mut roots = rustls::RootCertStore::empty();
    if is_needed {
        let native = rustls_native_certs::load_native_certs();
        if let Some(error) = native.errors.first() {
            tracing::warn!(%error, "some of the system's certificates cannot be read");
        }
        roots.add_parsable_certificates(native.certs);
    }
    if let Some(path) = ca_file {
        let wrong = |error: Box<dyn std::error::Error + Send + Sync>| SetupError::Certificates(path.to_owned(), error);
        let pem = std::fs::read(path).map_err(|error| wrong(error.into()))?;
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| wrong(error.to_string().into()))?;
            roots.add(certificate).map_err(|error| wrong(error.into()))?;
        }
        if roots.len() == before {
            return Err(wrong("no certificate stands in it".into()));
        }
    }
    Ok(roots)
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(PROTOBUF.as_bytes()))
}

/// Seconds; the other form, a date, is not worth a clock here.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing into memory does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}
