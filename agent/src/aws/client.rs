//! One call of EC2's Query API: signed, sent, and its answer read, within bounds of time and size. Every call is counted
//! against this node's share.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Connector, proxy::ProxyConfig};
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt as _, Limited};
use tokio::time::{Instant, timeout};

use super::Options;
use super::access::{Access, Place};
use super::form::Form;
use super::pace::Bucket;
use super::trouble::{Kind, Trouble};

/// A call that has had no answer after this long gets none.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Longest answer: a page of 500 rules of about 2 KB each is 1 MB, one of 100 interfaces with 50 addresses each 2 MB.
const ANSWER_BYTES_MAX: usize = 8 << 20;
const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";
const USER_AGENT: &str = concat!("sekisho/", env!("CARGO_PKG_VERSION"));

/// Makes calls, one at a time.
pub(super) struct Client {
    access: Access,
    /// Made with the first call: it reads the system's certificates.
    http: Option<Connector>,
    bucket: Bucket,
}

// === impl Client ===

impl Client {
    pub(super) fn new(options: &Options) -> Self {
        let bucket = Bucket::new(options.nodes(None), Instant::now());
        Self { access: Access::new(options), http: None, bucket }
    }

    /// With the credentials of a test.
    #[cfg(test)]
    pub(super) fn with(access: Access) -> Self {
        Self { access, http: None, bucket: Bucket::new(1, Instant::now()) }
    }

    /// What may still be asked.
    pub(super) fn bucket(&mut self) -> &mut Bucket {
        &mut self.bucket
    }

    /// Where EC2 is, for people.
    pub(super) async fn place(&mut self) -> Result<(String, String), Trouble> {
        let (place, _) = self.access.get().await?;
        Ok((place.region, place.endpoint))
    }

    /// The answer's body.
    pub(super) async fn call(&mut self, form: &Form) -> Result<Vec<u8>, Trouble> {
        let (place, credentials) = self.access.get().await?;
        let request = signed(form, &place, &credentials, SystemTime::now())?;
        self.bucket.spend(Instant::now());
        let http = self.http.get_or_insert_with(connector);
        let answer = timeout(ANSWER_WAIT, exchange(http, request)).await;
        let late = || Trouble::new(Kind::Passing, format!("no answer within {} s", ANSWER_WAIT.as_secs()));
        let (status, body) = answer.map_err(|_| late())??;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let secrets = [credentials.secret_access_key(), credentials.session_token().unwrap_or_default()];
        let secrets: Vec<&str> = secrets.into_iter().filter(|secret| !secret.is_empty()).collect();
        let trouble = Trouble::of_answer(status, &body, &secrets);
        if trouble.kind == Kind::Credentials {
            self.access.refused();
        }
        Err(trouble)
    }
}

fn connector() -> Connector {
    // As the AWS CLI does, so that nodes behind a proxy can ask.
    let proxy = ProxyConfig::from_env();
    let tls = tls::Provider::Rustls(CryptoMode::Ring);
    Connector::builder().proxy_config(proxy).tls_provider(tls).build()
}

/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>
fn signed(form: &Form, place: &Place, credentials: &Credentials, at: SystemTime) -> Result<HttpRequest, Trouble> {
    let local = |what: &str| Trouble::new(Kind::Refused, format!("a request to {} cannot be {what}", place.endpoint));
    let uri = format!("{}/", place.endpoint);
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&place.region)
        .name("ec2")
        .time(at)
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| local("signed"))?
        .into();
    let headers = [("content-type", CONTENT_TYPE)];
    let signable =
        SignableRequest::new("POST", uri.as_str(), headers.into_iter(), SignableBody::Bytes(form.body().as_bytes()));
    let signable = signable.map_err(|_| local("signed"))?;
    let (instructions, _) = sign(signable, &parameters).map_err(|_| local("signed"))?.into_parts();
    let mut request = HttpRequest::new(SdkBody::from(form.body()));
    request.set_method("POST").map_err(|_| local("made"))?;
    request.set_uri(uri).map_err(|_| local("made"))?;
    let to_all = headers.into_iter().chain([("user-agent", USER_AGENT)]);
    for (name, value) in to_all.chain(instructions.headers()) {
        let set = request.headers_mut().try_insert(name.to_owned(), value.to_owned());
        set.map_err(|_| local("made"))?;
    }
    Ok(request)
}

/// Status and body.
async fn exchange(http: &Connector, request: HttpRequest) -> Result<(u16, Vec<u8>), Trouble> {
    let response = http.call(request).await.map_err(|error| {
        let why = if error.is_timeout() { "timed out" } else { "failed" };
        Trouble::new(Kind::Passing, format!("the connection {why}: {}", innermost(&error)))
    })?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            Trouble::new(Kind::Refused, format!("an answer of more than {ANSWER_BYTES_MAX} bytes"))
        } else {
            Trouble::new(Kind::Passing, "the answer broke off")
        }
    })?;
    Ok((status, body.to_bytes().to_vec()))
}

/// What the system says of a connection, as `Connection refused`; those around it repeat it.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
