//! Kubernetes events on pods whose findings open and end, so that `kubectl describe pod` tells the tenant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_core::time::WallNs;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::access::{ANSWER_WAIT, Access};
use super::pace::Backoff;
use super::teller::Teller;
use super::trouble::{Kind, Trouble};

/// Who writes.
const CONTROLLER: &str = "sekisho.dev/agent";
/// Notes that wait; more are dropped and counted.
const QUEUE: usize = 64;
/// Events of a node: this many at once, and then one in so long. A node that is wrong through and through writes 120 an hour.
const NODE_BURST: u32 = 20;
const NODE_EVERY: Duration = Duration::from_secs(30);
/// Events of a pod: this many at once, and then one in so long.
const POD_BURST: u32 = 5;
const POD_EVERY: Duration = Duration::from_mins(10);
/// Events that are counted up instead of written again, and for how long; 200 bytes each. API servers drop events after an
/// hour.
const WRITTEN_MAX: usize = 512;
const WRITTEN_FOR: Duration = Duration::from_mins(50);
/// The same event is counted up at most this often.
const REPEAT_EVERY: Duration = Duration::from_mins(10);
/// How often it is said that some were left out.
const SAY_DROPPED_EVERY: Duration = Duration::from_mins(10);
/// Longest note that the API takes, bytes.
const NOTE_BYTES_MAX: usize = 1_024;
/// How much of the pod's name begins the event's: 253 bytes are allowed, and two numbers with their dots take up to 34.
const POD_NAME_BYTES_MAX: usize = 200;

/// Where notes end: written (a repeat counts its event up), left out for a repeat within [`REPEAT_EVERY`], about a pod that
/// is gone, or dropped: too many waited, the node or the pod had its share, the API refused or gave no answer.
const OUTCOMES: [&str; 6] = ["written", "repeated", "pod_gone", "queue_full", "rate_limited", "failed"];

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// Namespace of the pod.
    pub(crate) namespace: Arc<str>,
    /// Name of the pod.
    pub(crate) pod: Arc<str>,
    /// `metadata.uid` of the pod; `None`: the one of this node that has the name.
    pub(crate) uid: Option<Arc<str>>,
    /// The finding's code as a reason: `CamelCase`, up to 128 characters.
    pub(crate) reason: String,
    /// What happened to it, as `Opened` or `Resolved`.
    pub(crate) action: &'static str,
    /// What it says; cut to what the API takes.
    pub(crate) text: String,
    /// A warning, not for information.
    pub(crate) warning: bool,
    /// The wall clock now.
    pub(crate) at: WallNs,
}

/// Takes notes.
#[derive(Clone)]
pub(crate) struct Publisher {
    sender: mpsc::Sender<Note>,
    ends: Arc<Ends>,
}

/// How many notes ended where. Each ends in one place.
#[derive(Debug, Default)]
struct Ends {
    written: AtomicU64,
    repeated: AtomicU64,
    pod_gone: AtomicU64,
    queue_full: AtomicU64,
    rate_limited: AtomicU64,
    failed: AtomicU64,
}

impl Publisher {
    /// Takes a note, unless too many wait.
    pub(crate) fn publish(&self, note: Note) {
        if self.sender.try_send(note).is_err() {
            count(&self.ends.queue_full);
        }
    }

    /// Notes by where they ended, for `sekisho_kubernetes_events_total`.
    pub(crate) fn ends(&self) -> [(&'static str, u64); 6] {
        let Ends { written, repeated, pod_gone, queue_full, rate_limited, failed } = &*self.ends;
        let all = [written, repeated, pod_gone, queue_full, rate_limited, failed];
        let mut all = all.into_iter().map(|ended| ended.load(Ordering::Relaxed));
        OUTCOMES.map(|outcome| (outcome, all.next().unwrap_or(0)))
    }
}

impl Ends {
    /// Notes that ought to have been written.
    fn dropped(&self) -> u64 {
        [&self.queue_full, &self.rate_limited, &self.failed].map(|ended| ended.load(Ordering::Relaxed)).iter().sum()
    }
}

fn count(ended: &AtomicU64) {
    ended.fetch_add(1, Ordering::Relaxed);
}

/// Where notes come out.
pub(super) struct Notes {
    receiver: mpsc::Receiver<Note>,
    ends: Arc<Ends>,
}

/// A way to write events, and where they come out.
pub(super) fn queue() -> (Publisher, Notes) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let ends = Arc::new(Ends::default());
    (Publisher { sender, ends: Arc::clone(&ends) }, Notes { receiver, ends })
}

/// A bucket of tokens.
struct Bucket {
    tokens: u32,
    burst: u32,
    every: Duration,
    filled: Instant,
}

/// An event that was written.
struct Written {
    name: String,
    count: i32,
    at: Instant,
}

/// What makes two notes one event that is counted up.
type Key = (Arc<str>, String, &'static str, String);

/// Writes events until nobody has any more.
pub(super) async fn publish(access: &Access, teller: &Teller, node: &str, notes: Option<Notes>) {
    let Some(mut notes) = notes else { return };
    let mut of_node = Bucket::new(NODE_BURST, NODE_EVERY);
    let mut of_pods: BTreeMap<Arc<str>, Bucket> = BTreeMap::new();
    let mut written: BTreeMap<Key, Written> = BTreeMap::new();
    let mut backoff = Backoff::new();
    let mut said = (0, Instant::now());
    let mut number = 0_u64;
    while let Some(note) = notes.receiver.recv().await {
        let dropped = notes.ends.dropped();
        if dropped > said.0 && said.1.elapsed() >= SAY_DROPPED_EVERY {
            tracing::warn!(
                dropped,
                "Kubernetes events were left out: the node or a pod had too many, or the API refused"
            );
            said = (dropped, Instant::now());
        }
        written.retain(|_, event| event.at.elapsed() < WRITTEN_FOR);
        of_pods.retain(|_, bucket| !bucket.is_full());
        // A pod that is gone needs no event: nobody can describe it.
        let Some(uid) = note.uid.clone().or_else(|| uid(teller, &note)) else {
            count(&notes.ends.pod_gone);
            continue;
        };
        let key = (Arc::clone(&uid), note.reason.clone(), note.action, note.text.clone());
        if written.get(&key).is_some_and(|event| event.at.elapsed() < REPEAT_EVERY) {
            count(&notes.ends.repeated);
            continue;
        }
        let pod = of_pods.entry(Arc::clone(&uid)).or_insert_with(|| Bucket::new(POD_BURST, POD_EVERY));
        if !(pod.take() && of_node.take()) {
            count(&notes.ends.rate_limited);
            continue;
        }
        number += 1;
        match write(access, &note, written.get(&key), event(node, &note, &uid, number)).await {
            Ok(event) => {
                count(&notes.ends.written);
                if written.len() < WRITTEN_MAX {
                    written.insert(key, event);
                }
            }
            Err(trouble) => {
                count(&notes.ends.failed);
                written.remove(&key);
                if trouble.kind == Kind::Unauthorized {
                    access.refused();
                }
                tracing::warn!(error = trouble.text, namespace = %note.namespace, pod = %note.pod, "could not write a Kubernetes event");
                tokio::time::sleep_until(backoff.next(trouble.pause())).await;
            }
        }
    }
}

/// Counts up what was written before, or writes it.
async fn write(
    access: &Access,
    note: &Note,
    before: Option<&Written>,
    event: serde_json::Value,
) -> Result<Written, Trouble> {
    let api: Api<Event> = Api::namespaced(access.client().await?, &note.namespace);
    let late = || Trouble::passing("no answer");
    if let Some(before) = before {
        let count = before.count.saturating_add(1);
        let series = json!({"series": {"count": count, "lastObservedTime": note.at}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(series));
        match timeout(ANSWER_WAIT, api.patch(&before.name, &params, &patch)).await.map_err(|_| late())? {
            Ok(_) => return Ok(Written { name: before.name.clone(), count, at: Instant::now() }),
            // It is gone already: written anew.
            Err(error) if Trouble::of(&error).kind == Kind::Absent => {}
            Err(error) => return Err(Trouble::of(&error)),
        }
    }
    let event: Event = serde_json::from_value(event).map_err(|error| Trouble::local(error.to_string()))?;
    let name = event.metadata.name.clone().unwrap_or_default();
    let request = timeout(ANSWER_WAIT, api.create(&PostParams::default(), &event)).await;
    request.map_err(|_| late())?.map_err(|error| Trouble::of(&error))?;
    Ok(Written { name, count: 1, at: Instant::now() })
}

/// The uid of this node's pod of that name.
fn uid(teller: &Teller, note: &Note) -> Option<Arc<str>> {
    teller.known(|known| {
        let pod = known.pods.iter().find(|pod| pod.namespace == note.namespace && pod.name == note.pod);
        pod.and_then(|pod| pod.uid.clone())
    })
}

/// The event as the API takes it. Findings of one evaluation have one time, so the name ends with the event's number in this
/// run of the agent.
fn event(node: &str, note: &Note, uid: &str, number: u64) -> serde_json::Value {
    let Note { namespace, pod, uid: _, reason, action, text, warning, at } = note;
    let pod_part = &pod[..pod.floor_char_boundary(POD_NAME_BYTES_MAX)];
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "name": format!("{pod_part}.{:x}.{number:x}", at.0)},
        "eventTime": at,
        "reportingController": CONTROLLER,
        "reportingInstance": format!("sekisho-{}", &node[..node.floor_char_boundary(100)]),
        "action": action,
        "reason": reason,
        "type": if *warning { "Warning" } else { "Normal" },
        "note": text[..text.floor_char_boundary(NOTE_BYTES_MAX)],
        "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod, "uid": uid},
    })
}

// === impl Bucket ===

impl Bucket {
    fn new(burst: u32, every: Duration) -> Self {
        Self { tokens: burst, burst, every, filled: Instant::now() }
    }

    fn take(&mut self) -> bool {
        self.fill();
        let taken = self.tokens.checked_sub(1);
        self.tokens = taken.unwrap_or(0);
        taken.is_some()
    }

    fn is_full(&mut self) -> bool {
        self.fill();
        self.tokens == self.burst
    }

    fn fill(&mut self) {
        while self.filled.elapsed() >= self.every {
            if self.tokens >= self.burst {
                self.filled = Instant::now();
                return;
            }
            self.tokens += 1;
            self.filled += self.every;
        }
    }
}
