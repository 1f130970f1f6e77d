//! A client of the API server that speaks in paths and JSON: a test sees exactly what it asks, and what it is told.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::paths;
use crate::scale;

/// Requests in flight when there are many; the server answers some thousand a second.
const IN_FLIGHT: usize = 32;

/// Who owns the fields that tests apply.
const MANAGER: &str = "system-tests";

/// Somebody's access to an API server.
pub struct Client {
    runtime: Runtime,
    client: kube::Client,
}

/// What the server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub text: String,
}

/// A change to an object, as a method and a form of body.
#[derive(Clone, Copy, Debug)]
enum Form {
    Json,
    MergePatch,
    Apply,
}

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MergePatch => "application/merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

impl Client {
    /// Whoever a kubeconfig says.
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("build a runtime")?;
        let client = runtime.block_on(async {
            let file = Kubeconfig::read_from(kubeconfig)?;
            let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            Ok::<_, anyhow::Error>(kube::Client::try_from(config)?)
        });
        let client = client.with_context(|| format!("make a client of {}", kubeconfig.display()))?;
        Ok(Self { runtime, client })
    }

    /// Asks for a path; whatever the answer.
    pub fn try_get(&self, path: &str) -> Result<Answer> {
        self.runtime.block_on(exchange(&self.client, Method::GET, path, None))
    }

    /// Deletes a path; whatever the answer.
    pub fn try_delete(&self, path: &str) -> Result<Answer> {
        self.runtime.block_on(exchange(&self.client, Method::DELETE, path, None))
    }

    /// Posts to a path; whatever the answer.
    pub fn try_post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.runtime.block_on(exchange(&self.client, Method::POST, path, Some((Form::Json, body))))
    }

    /// Patches a path (JSON merge patch); whatever the answer.
    pub fn try_patch(&self, path: &str, body: &Value) -> Result<Answer> {
        self.runtime.block_on(exchange(&self.client, Method::PATCH, path, Some((Form::MergePatch, body))))
    }

    /// Asks for a path.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.try_get(path)?.object(path)
    }

    /// Posts to a path.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.try_post(path, body)?.object(path)
    }

    /// Patches a path (JSON merge patch).
    pub fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        self.try_patch(path, body)?.object(path)
    }

    /// Deletes a path at once, without the time that a node has to end a pod.
    pub fn delete(&self, path: &str) -> Result<()> {
        let now = format!("{path}?gracePeriodSeconds=0");
        self.try_delete(&now)?.object(&now).map(drop)
    }

    /// Makes an object be as its manifest says (server-side apply).
    pub fn apply(&self, manifest: &Value) -> Result<Value> {
        let path = format!("{}?fieldManager={MANAGER}&force=true", paths::of_object(manifest)?);
        let answer =
            self.runtime.block_on(exchange(&self.client, Method::PATCH, &path, Some((Form::Apply, manifest))))?;
        answer.object(&path)
    }

    /// Has the server check what applying a manifest would make of it, and change nothing.
    pub fn dry_run(&self, manifest: &Value) -> Result<Answer> {
        let path = format!("{}?fieldManager={MANAGER}&force=true&dryRun=All", paths::of_object(manifest)?);
        self.runtime.block_on(exchange(&self.client, Method::PATCH, &path, Some((Form::Apply, manifest))))
    }

    /// Creates objects, many at a time and in any order.
    pub fn create_all(&self, manifests: Vec<Value>) -> Result<()> {
        let mut requests = Vec::new();
        for manifest in manifests {
            requests.push((paths::of_kind(&manifest)?, Method::POST, Form::Json, manifest));
        }
        self.all(requests).map(drop)
    }

    /// Patches the status of objects, many at a time and in any order.
    pub fn patch_status_of_all(&self, statuses: Vec<(String, Value)>) -> Result<()> {
        let patch =
            |(path, status)| (format!("{path}/status"), Method::PATCH, Form::MergePatch, json!({ "status": status }));
        self.all(statuses.into_iter().map(patch).collect()).map(drop)
    }

    /// Deletes paths at once, many at a time and in any order.
    pub fn delete_all(&self, paths: Vec<String>) -> Result<()> {
        let now = json!({ "gracePeriodSeconds": 0 });
        let delete = |path| (path, Method::DELETE, Form::Json, now.clone());
        self.all(paths.into_iter().map(delete).collect()).map(drop)
    }

    /// Posts bodies to a path, many at a time and in any order; the answers come in the order of the bodies.
    pub fn post_all(&self, path: &str, bodies: Vec<Value>) -> Result<Vec<Value>> {
        self.all(bodies.into_iter().map(|body| (path.to_owned(), Method::POST, Form::Json, body)).collect())
    }

    /// What happens to objects from a version on, for a second: `path` with the parameters of a list.
    pub fn watch(&self, path: &str, version: &str) -> Result<Vec<Value>> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path =
            format!("{path}{separator}watch=true&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={version}");
        let answer = self.try_get(&path)?;
        ensure!(answer.status == 200, "GET {path} answered {}: {}", answer.status, answer.text);
        answer.text.lines().map(|line| serde_json::from_str(line).context("decode an event")).collect()
    }

    /// Waits until a path answers as the test wants.
    pub fn wait_for(&self, path: &str, mut wanted: impl FnMut(&Answer) -> bool) -> Result<Answer> {
        let end = Instant::now() + scale::deadline();
        loop {
            let answer = self.try_get(path);
            match answer {
                Ok(answer) if wanted(&answer) => return Ok(answer),
                _ => ensure!(Instant::now() < end, "{path} stayed {answer:?} for {:?}", scale::deadline()),
            }
            std::thread::sleep(scale::LOOK);
        }
    }

    fn all(&self, requests: Vec<(String, Method, Form, Value)>) -> Result<Vec<Value>> {
        let mut answers = vec![Value::Null; requests.len()];
        let mut waiting = requests.into_iter().enumerate();
        self.runtime.block_on(async {
            let mut flying = JoinSet::new();
            loop {
                while flying.len() < IN_FLIGHT
                    && let Some((index, (path, method, form, body))) = waiting.next()
                {
                    let client = self.client.clone();
                    flying.spawn(async move {
                        let answer = exchange(&client, method, &path, Some((form, &body))).await?;
                        Ok::<_, anyhow::Error>((index, answer.object(&path)?))
                    });
                }
                let Some(done) = flying.join_next().await else { return Ok(answers) };
                let (index, answer) = done.context("a request panicked")??;
                if let Some(place) = answers.get_mut(index) {
                    *place = answer;
                }
            }
        })
    }
}

impl Answer {
    /// The object; an error when the server refused.
    pub fn object(&self, path: &str) -> Result<Value> {
        ensure!((200..300).contains(&self.status), "{path} answered {}: {}", self.status, self.text);
        serde_json::from_str(&self.text).with_context(|| format!("{path} answered no JSON: {}", self.text))
    }
}

async fn exchange(client: &kube::Client, method: Method, path: &str, body: Option<(Form, &Value)>) -> Result<Answer> {
    let said = || format!("{method} {path}");
    let mut request = Request::builder().method(&method).uri(path);
    let mut bytes = Vec::new();
    if let Some((form, body)) = body {
        request = request.header(http::header::CONTENT_TYPE, form.content_type());
        bytes = body.to_string().into_bytes();
    }
    let request = request.body(Body::from(bytes)).with_context(said)?;
    let response = client.send(request).await.with_context(said)?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.with_context(said)?.to_bytes();
    Ok(Answer { status, text: String::from_utf8_lossy(&body).into_owned() })
}
