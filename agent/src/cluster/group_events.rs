//! What the VPC resource controller said about a pod with a branch interface: asked a few times after the pod came, and
//! the answer is kept. Never a watch, for the API server keeps no cache of events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::{ClusterFact, GroupEvent, GroupEventKind, Source};
use agent_core::time::WallNs;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, timeout};

use super::access::{ANSWER_WAIT, Access};
use super::convert::{Conversion, Converted};
use super::kinds::{self, Slim};
use super::pace;
use super::pods::Wanted;
use super::teller::Teller;
use super::trouble::Trouble;
use super::turns::{Turn, Turns};

/// Pauses before the tries: a branch interface takes a few seconds, and minutes when the node's are cooling down.
const TRIES: [Duration; 4] =
    [Duration::from_secs(3), Duration::from_secs(20), Duration::from_secs(90), Duration::from_mins(5)];
/// Events of pods that started longer ago than this are asked for once: API servers drop events after an hour unless told otherwise.
const EVENTS_LIVE: Duration = Duration::from_hours(1);
/// Between any two questions.
const PACE: Duration = Duration::from_millis(500);
/// Events that are looked at: the controller writes two or three a pod.
const EVENTS_MAX: u32 = 50;

/// A pod that is asked about.
struct Entry {
    namespace: Arc<str>,
    tries: usize,
    due: Instant,
}

/// Asks about each pod that has or wants a branch interface, for ever.
pub(super) async fn follow(access: &Access, teller: &Teller, jitter: Duration, wants: Receiver<Arc<Wanted>>) {
    let mut turns = Turns::begin(access, teller, Source::Events, jitter, wants).await;
    // `None`: nothing more to ask.
    let mut entries: BTreeMap<Arc<str>, Option<Entry>> = BTreeMap::new();
    loop {
        let wanted = turns.wanted();
        entries.retain(|uid, _| wanted.branches.contains_key(uid));
        for (uid, (namespace, started)) in &wanted.branches {
            let entry = || first(teller, uid, namespace, *started);
            entries.entry(Arc::clone(uid)).or_insert_with(entry);
        }
        let asked = entries.iter().filter_map(|(uid, entry)| Some((uid, entry.as_ref()?)));
        let asked = asked.map(|(uid, entry)| ((Arc::clone(uid), Arc::clone(&entry.namespace)), entry.due));
        let (uid, namespace) = match turns.next(asked).await {
            Turn::Ask(pod) => pod,
            Turn::Look => continue,
            Turn::End => return,
        };
        match ask(access, teller, &namespace, &uid).await {
            Ok(events) => {
                let decided = events.iter().any(decides);
                if let Some(slot) = entries.get_mut(&uid) {
                    *slot = slot.take().filter(|_| !decided).and_then(after);
                    // An empty answer is told when it is the last one: until then the controller may not have got to it.
                    if decided || slot.is_none() || !events.is_empty() {
                        teller.tell(vec![ClusterFact::GroupEvents { uid, events }]).await;
                    }
                }
                teller.alive(Source::Events).await;
                turns.answered(PACE);
            }
            Err(trouble) => {
                let due = turns.failed(trouble).await;
                // Behind the others that are due: one that is refused does not keep them from being asked about.
                if let Some(Some(entry)) = entries.get_mut(&uid) {
                    entry.due = due;
                }
            }
        }
    }
}

/// The events say which groups the interface was made with.
fn decides(event: &GroupEvent) -> bool {
    matches!(event.kind, GroupEventKind::Groups(_) | GroupEventKind::InstanceGroups)
}

fn first(teller: &Teller, uid: &Arc<str>, namespace: &Arc<str>, started: Option<WallNs>) -> Option<Entry> {
    // Known from before a restart.
    if teller.known(|known| known.events.get(uid).is_some_and(|events| events.iter().any(decides))) {
        return None;
    }
    let age_ns = started.map_or(0, |started| teller.now().0.saturating_sub(started.0));
    let old = u128::try_from(age_ns).is_ok_and(|age| age > EVENTS_LIVE.as_nanos());
    let tries = if old { TRIES.len() - 1 } else { 0 };
    let pause = if old { Duration::ZERO } else { TRIES[0] };
    Some(Entry { namespace: Arc::clone(namespace), tries, due: Instant::now() + pause })
}

/// The next try, unless that was the last.
fn after(entry: Entry) -> Option<Entry> {
    let tries = entry.tries + 1;
    let pause = TRIES.get(tries)?;
    Some(Entry { tries, due: Instant::now() + pace::jittered(*pause), ..entry })
}

async fn ask(access: &Access, teller: &Teller, namespace: &str, uid: &str) -> Result<Vec<GroupEvent>, Trouble> {
    let api: Api<Slim<kinds::Events>> = Api::namespaced(access.client().await?, namespace);
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(EVENTS_MAX);
    let answer = timeout(ANSWER_WAIT, api.list(&params)).await;
    let list =
        answer.map_err(|_| Trouble::passing("no answer to a list of events"))?.map_err(|error| Trouble::of(&error))?;
    let mut events = Vec::new();
    for object in list.items.into_iter().take(EVENTS_MAX as usize) {
        match object.facts(&Conversion::default()) {
            Converted::GroupEvent { uid: about, event } if *about == *uid => events.push(event),
            Converted::Malformed(malformed) => teller.malformed(Source::Events, malformed).await,
            _ => {}
        }
    }
    events.sort_by_key(|event| event.time);
    Ok(events)
}
