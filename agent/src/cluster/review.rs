//! Who has a token, and whether he may read metrics: the API server is asked, by a `TokenReview` and a
//! `SubjectAccessReview`, and its answers hold for a while. A token is in memory for its question alone; what is kept is a
//! hash of it.

mod answers;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Request, StatusCode};
use kube::Client;
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout};

use self::answers::{Answers, Leave};
use super::access::Access;
use super::trouble::{Kind, Trouble};

/// Both questions, and the wait for others' before them: less than the ten seconds that scrapers wait.
const WAIT: Duration = Duration::from_secs(8);
/// Longest answer: it repeats the token (8 KiB) and names the account's groups.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Longest name of a user that is kept and shown, characters. That of a service account has up to 340.
const NAME_CHARS_MAX: usize = 512;
const TOKENS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// What the API server says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Review {
    /// Whoever has it may.
    Allowed,
    /// It belongs to nobody.
    Unknown,
    /// It belongs to this user, who may not.
    Denied(Arc<str>),
}

/// Asks the API server about tokens.
pub(crate) struct Reviewer {
    access: Access,
    answers: Mutex<Answers>,
    /// One question at a time about tokens that were good before, and one about others: strangers never stand in the way.
    lanes: [tokio::sync::Mutex<()>; 2],
}

/// Who has a token, as the API server says it and is told it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Subject {
    #[serde(alias = "username", rename(serialize = "user"))]
    user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// An answer; the question that it repeats is not read.
#[derive(Deserialize)]
struct Answer<T> {
    status: T,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenStatus {
    authenticated: bool,
    user: Subject,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AccessStatus {
    allowed: bool,
    denied: bool,
}

// === impl Reviewer ===

impl Reviewer {
    pub(super) fn new(access: Access) -> Self {
        Self { access, answers: Mutex::default(), lanes: Default::default() }
    }

    /// Whether who has a token may `get` the non-resource URL `/metrics`; an error says why that cannot be told.
    pub(crate) async fn review(&self, token: &str) -> Result<Review, String> {
        let key: [u8; 32] = Sha256::digest(token).into();
        let leave = match self.answers().look(&key, Instant::now()) {
            Leave::Known(review) => return Ok(review),
            Leave::TooMany => return Err("too many unknown tokens were shown lately".to_owned()),
            leave => leave,
        };
        let asked = timeout(WAIT, async {
            let _lane = self.lanes[usize::from(leave == Leave::Renew)].lock().await;
            // Whoever was before may have asked about the same.
            if let Some(review) = self.answers().known(&key, Instant::now()) {
                return Ok(review);
            }
            let review = self.ask(token).await?;
            self.answers().keep(key, review.clone(), Instant::now());
            Ok(review)
        });
        let asked = asked.await.unwrap_or_else(|_| Err(Trouble::passing(format!("no answer in {} s", WAIT.as_secs()))));
        asked.map_err(|trouble| {
            if trouble.kind == Kind::Unauthorized {
                self.access.refused();
            }
            trouble.text
        })
    }

    async fn ask(&self, token: &str) -> Result<Review, Trouble> {
        let client = self.access.client().await?;
        let question = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token },
        });
        let TokenStatus { authenticated, user } = post(&client, TOKENS, "tokenreviews", &question).await?;
        if !authenticated || user.user.is_empty() {
            return Ok(Review::Unknown);
        }
        let name = user.user.chars().take(NAME_CHARS_MAX).collect::<String>();
        let mut spec = serde_json::to_value(user).map_err(|error| Trouble::local(error.to_string()))?;
        spec["nonResourceAttributes"] = json!({ "path": "/metrics", "verb": "get" });
        let question = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": spec,
        });
        let AccessStatus { allowed, denied } = post(&client, ACCESS, "subjectaccessreviews", &question).await?;
        Ok(if allowed && !denied { Review::Allowed } else { Review::Denied(name.into()) })
    }

    /// Nothing panics while it holds the lock.
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviewer").finish_non_exhaustive()
    }
}

/// Asks. Not by kube's own methods, which log an answer that they cannot read: this one repeats the token.
async fn post<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    resource: &str,
    question: &Value,
) -> Result<T, Trouble> {
    const JSON: &str = "application/json";
    let request = Request::post(path)
        .header(CONTENT_TYPE, JSON)
        .header(ACCEPT, JSON)
        .body(Body::from(question.to_string().into_bytes()))
        .map_err(|error| Trouble::local(error.to_string()))?;
    let (head, body) = client.send(request).await.map_err(|error| Trouble::of(&error))?.into_parts();
    match head.status {
        status if status.is_success() => {}
        StatusCode::UNAUTHORIZED => {
            let text = "401: the server does not know the agent's own token".to_owned();
            return Err(Trouble { kind: Kind::Unauthorized, text });
        }
        StatusCode::FORBIDDEN => {
            let text =
                format!("403: the agent may not create {resource}; see the role in deploy/kustomize/base/rbac.yaml");
            return Err(Trouble { kind: Kind::Forbidden, text });
        }
        status => return Err(Trouble::passing(format!("{} by {path}", status.as_u16()))),
    }
    // Causes are not told: they may quote the answer.
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|_| Trouble::passing(format!("the answer of {path} broke off or is too long")))?;
    let answer: Answer<T> = serde_json::from_slice(&body.to_bytes())
        .map_err(|_| Trouble::passing(format!("the answer of {path} is not what the API has")))?;
    Ok(answer.status)
}
