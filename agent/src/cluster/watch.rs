//! List, then watch, for ever.
//!
//! kube's own watcher does the same for controllers, but hides bookmarks and reconnections, which are what tells here how
//! old the facts are, treats every refusal alike, and sends `resourceVersion=0` only without a page size, which it has by
//! default: then every start of every agent would be a read of etcd's quorum.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use kube::api::{ListParams, VersionMatch, WatchParams};
use kube::core::WatchEvent;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use super::access::{ANSWER_WAIT, Access};
use super::kinds::{Kind, Slim};
use super::pace::Backoff;
use super::trouble::{Kind as TroubleKind, Trouble};

/// A watch is asked for this long, and up to 50 s less, so that those of many nodes do not end together. kube allows
/// less than 295 s.
const WATCH_SECONDS: u32 = 290;
/// A watch that says nothing this much longer than it was asked for is dead.
const WATCH_MARGIN: Duration = Duration::from_secs(10);
/// A watch that ends sooner than this ended badly, and waits before the next.
const WATCH_SHORT: Duration = Duration::from_secs(5);

/// What a watch tells.
pub(super) enum Change<K> {
    /// All objects there are; those told before and not among them are gone.
    All(Vec<Slim<K>>),
    /// One came or changed.
    Applied(Slim<K>),
    /// One is gone.
    Gone(Slim<K>),
    /// What was told is still current.
    Alive,
    /// It is not known to be current any more.
    Trouble(Trouble),
}

/// One kind of object, followed.
pub(super) struct Watch<K> {
    access: Access,
    api: fn(Client) -> Api<Slim<K>>,
    selector: Option<String>,
    state: State<K>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

enum State<K> {
    /// Lists next: not older than this version, or (`None`) anything for a first look.
    List {
        at_least: Option<String>,
        quorum: bool,
    },
    /// Watches next, from this version.
    Listed {
        version: String,
    },
    Watching {
        version: String,
        stream: Events<K>,
        since: Instant,
        seconds: u32,
    },
}

type Events<K> = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Slim<K>>>> + Send>>;

// === impl Watch ===

impl<K: Kind> Watch<K> {
    /// Follows what `api` shows, by a field selector.
    pub(super) fn new(access: &Access, selector: Option<String>, api: fn(Client) -> Api<Slim<K>>) -> Self {
        Self {
            access: access.clone(),
            api,
            selector,
            state: State::List { at_least: None, quorum: false },
            backoff: Backoff::new(),
            not_before: None,
        }
    }

    /// The next thing it tells. May be dropped and called again: nothing is lost but an answer that was under way.
    pub(super) async fn next(&mut self) -> Change<K> {
        loop {
            if let Some(at) = self.not_before {
                tokio::time::sleep_until(at).await;
                self.not_before = None;
            }
            let told = match &mut self.state {
                State::List { .. } => Some(self.list().await),
                State::Listed { .. } => Some(self.begin().await),
                State::Watching { .. } => self.event().await,
            };
            if let Some(change) = told {
                return change;
            }
        }
    }

    async fn list(&mut self) -> Change<K> {
        let State::List { at_least, quorum } = &self.state else { return Change::Alive };
        let params = ListParams {
            field_selector: self.selector.clone(),
            resource_version: (!quorum).then(|| at_least.clone().unwrap_or_else(|| "0".to_owned())),
            version_match: (!quorum).then_some(VersionMatch::NotOlderThan),
            ..ListParams::default()
        };
        let client = match self.access.client().await {
            Ok(client) => client,
            Err(trouble) => return self.failed(trouble),
        };
        let mut params = params;
        let mut objects = Vec::new();
        loop {
            let answer = timeout(ANSWER_WAIT, (self.api)(client.clone()).list(&params)).await;
            let page = match answer {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => return self.failed(Trouble::of(&error)),
                Err(_) => {
                    return self.failed(Trouble::passing(format!("no answer within {} s", ANSWER_WAIT.as_secs())));
                }
            };
            objects.extend(page.items);
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            if next.is_some() {
                params = ListParams { continue_token: next, resource_version: None, version_match: None, ..params };
                continue;
            }
            let Some(version) = page.metadata.resource_version.filter(|version| !version.is_empty()) else {
                return self.failed(Trouble::passing("the list has no resource version: is it an API server?"));
            };
            self.state = State::Listed { version };
            return Change::All(objects);
        }
    }

    async fn begin(&mut self) -> Change<K> {
        let State::Listed { version } = &self.state else { return Change::Alive };
        let version = version.clone();
        let seconds = WATCH_SECONDS - fastrand::u32(0..50);
        let params =
            WatchParams { field_selector: self.selector.clone(), timeout: Some(seconds), ..WatchParams::default() };
        let client = match self.access.client().await {
            Ok(client) => client,
            Err(trouble) => return self.failed(trouble),
        };
        match timeout(ANSWER_WAIT, (self.api)(client).watch(&params, &version)).await {
            Ok(Ok(stream)) => {
                self.state = State::Watching { version, stream: Box::pin(stream), since: Instant::now(), seconds };
                Change::Alive
            }
            Ok(Err(error)) => self.failed(Trouble::of(&error)),
            Err(_) => self.failed(Trouble::passing(format!("no answer within {} s", ANSWER_WAIT.as_secs()))),
        }
    }

    async fn event(&mut self) -> Option<Change<K>> {
        let State::Watching { version, stream, since, seconds } = &mut self.state else { return None };
        let wait = Duration::from_secs(u64::from(*seconds)) + WATCH_MARGIN;
        match timeout(wait, stream.next()).await {
            Ok(Some(Ok(event))) => {
                let (change, newer) = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        let newer = object.version().map(ToOwned::to_owned);
                        (Change::Applied(object), newer)
                    }
                    WatchEvent::Deleted(object) => {
                        let newer = object.version().map(ToOwned::to_owned);
                        (Change::Gone(object), newer)
                    }
                    WatchEvent::Bookmark(bookmark) => (Change::Alive, Some(bookmark.metadata.resource_version)),
                    WatchEvent::Error(status) => return Some(self.failed(Trouble::of_status(&status))),
                };
                match newer {
                    Some(newer) => {
                        *version = newer;
                        Some(change)
                    }
                    None => Some(self.lost("an object has no resource version")),
                }
            }
            // One event was not read, and nobody knows of which object: all are listed anew.
            Ok(Some(Err(kube::Error::SerdeError(_)))) => Some(self.lost("an event of the watch is not JSON")),
            Ok(Some(Err(error))) => Some(self.failed(Trouble::of(&error))),
            Ok(None) => {
                // Its time is over, or the server ended: goes on from here, at once if it was a while.
                let short = since.elapsed() < WATCH_SHORT;
                self.state = State::Listed { version: std::mem::take(version) };
                if short {
                    let trouble = Trouble::passing("the server ends watches at once");
                    return Some(self.failed(trouble));
                }
                None
            }
            Err(_) => Some(self.failed(Trouble::passing("the watch fell silent"))),
        }
    }

    /// What is known may be wrong: list, as fresh as what was known, after a pause.
    fn lost(&mut self, text: &str) -> Change<K> {
        self.failed(Trouble { kind: TroubleKind::Expired, text: text.to_owned() })
    }

    fn failed(&mut self, trouble: Trouble) -> Change<K> {
        self.state = match std::mem::replace(&mut self.state, State::List { at_least: None, quorum: true }) {
            // A list that is too old for what was known is asked of the quorum.
            State::List { at_least, quorum } => {
                State::List { at_least, quorum: quorum || trouble.kind == TroubleKind::Expired }
            }
            State::Listed { version } | State::Watching { version, .. } => match trouble.kind {
                // Not older than what was known: a server that is behind must not bring back what is gone.
                TroubleKind::Expired => State::List { at_least: Some(version), quorum: false },
                // The kind is gone, with its objects: what comes next has versions of its own.
                TroubleKind::Absent => State::List { at_least: None, quorum: false },
                _ => State::Listed { version },
            },
        };
        if trouble.kind == TroubleKind::Unauthorized {
            self.access.refused();
        }
        self.not_before = Some(self.backoff.next(trouble.pause()));
        Change::Trouble(trouble)
    }
}
