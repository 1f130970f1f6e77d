//! The way out: facts that say something new go to the pump, and how each source stands goes with them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_core::facts::{ClusterFact, Source};
use agent_core::input::Input;
use agent_core::time::WallNs;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::convert::Malformed;
use super::known::Known;
use super::trouble::Trouble;

/// While all is well a source says so this often: nothing that judges ages needs it more exactly.
const SAY_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Tells the pump.
pub(super) struct Teller {
    tell: mpsc::Sender<Vec<Input>>,
    now: fn() -> WallNs,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Known,
    standing: BTreeMap<Source, Standing>,
    /// Counts what was new, so that the disk knows.
    news: u64,
}

struct Standing {
    error: Option<String>,
    said: Instant,
}

// === impl Teller ===

impl Teller {
    pub(super) fn new(tell: mpsc::Sender<Vec<Input>>, now: fn() -> WallNs) -> Self {
        Self { tell, now, state: Mutex::default() }
    }

    /// Facts in order; those that say nothing new are left out.
    pub(super) async fn tell(&self, facts: Vec<ClusterFact>) {
        let facts: Vec<Input> = {
            let mut state = self.state();
            let mut told = Vec::new();
            for fact in facts {
                let new = state.known.take(&fact);
                let passing = matches!(
                    fact,
                    ClusterFact::Source { .. }
                        | ClusterFact::RemotePod(_)
                        | ClusterFact::Malformed { .. }
                        | ClusterFact::NoRoom { .. }
                        // A list is a replace, and says also that it was asked.
                        | ClusterFact::PodsReplaced(_)
                        | ClusterFact::PoliciesReplaced { .. }
                );
                state.news += u64::from(new);
                if new || passing {
                    told.push(Input::Cluster(Box::new(fact)));
                }
            }
            told
        };
        if !facts.is_empty() {
            // The pump is gone only when the agent stops.
            let _ = self.tell.send(facts).await;
        }
    }

    /// Facts from disk: old, and told as such.
    pub(super) async fn restore(&self, known: Known) {
        let mut facts = known.facts();
        let sources = known.fresh_at.iter();
        facts.extend(sources.map(|(source, at)| ClusterFact::Source {
            source: *source,
            fresh_at: Some(*at),
            error: Some("not answered yet; this is what was known before the start".to_owned()),
        }));
        self.tell(facts).await;
    }

    /// A source is known to be current.
    pub(super) async fn alive(&self, source: Source) {
        self.fresh(source, (self.now)()).await;
    }

    /// A source answers, and what it told was current at that moment.
    pub(super) async fn fresh(&self, source: Source, at: WallNs) {
        let now = Instant::now();
        {
            let mut state = self.state();
            let before = state.standing.get(&source);
            let well = before.is_some_and(|before| before.error.is_none());
            if well && before.is_some_and(|before| now.saturating_duration_since(before.said) < SAY_ALIVE_EVERY) {
                return;
            }
            if !well {
                tracing::info!(?source, "the cluster answers");
            }
            state.standing.insert(source, Standing { error: None, said: now });
        }
        self.tell(vec![ClusterFact::Source { source, fresh_at: Some(at), error: None }]).await;
    }

    /// A source does not answer, or refuses.
    pub(super) async fn trouble(&self, source: Source, trouble: Trouble) {
        let fresh_at = {
            let mut state = self.state();
            let before = state.standing.get(&source).and_then(|before| before.error.as_ref());
            if before != Some(&trouble.text) {
                tracing::warn!(?source, error = trouble.text, "the cluster does not answer");
            }
            state.standing.insert(source, Standing { error: Some(trouble.text.clone()), said: Instant::now() });
            state.known.fresh_at.get(&source).copied()
        };
        self.tell(vec![ClusterFact::Source { source, fresh_at, error: Some(trouble.text) }]).await;
    }

    /// An object that could not be read.
    pub(super) async fn malformed(&self, source: Source, malformed: Malformed) {
        let Malformed { kind, object, why } = malformed;
        tracing::warn!(%kind, %object, %why, "an object of the cluster cannot be read");
        self.tell(vec![ClusterFact::Malformed { source, object, why }]).await;
    }

    /// Objects for which there is no room, if any.
    pub(super) async fn no_room(&self, source: Source, objects: usize) {
        if objects > 0 {
            tracing::warn!(?source, objects, "objects of the cluster are left out: there are more than are kept");
            self.tell(vec![ClusterFact::NoRoom { source, objects: objects as u64 }]).await;
        }
    }

    /// Looks at what is known.
    pub(super) fn known<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.state().known)
    }

    /// How much was new so far.
    pub(super) fn news(&self) -> u64 {
        self.state().news
    }

    pub(super) fn now(&self) -> WallNs {
        (self.now)()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
