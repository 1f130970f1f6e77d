//! What stands behind services' addresses: asked of the node's connection tracking for a fold that is about to close, on a
//! thread that may wait, and told to the pump like any other look at the node.

use std::time::Instant;

use agent_core::backends::Connection;
use agent_core::capacity::Collector;
use agent_core::facts::HostFact;
use agent_core::input::Input;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::node::collect::{self, Error};

/// Questions that wait: a fold asks one, and asks no other before it is closed.
const QUESTIONS: usize = 1;

/// Takes questions; nobody answers in a pump without one.
#[derive(Debug, Default)]
pub(super) struct Asker(Option<mpsc::Sender<Vec<Connection>>>);

/// The part, running.
pub(super) struct Backends {
    /// Ends when it is aborted.
    pub(super) work: JoinHandle<()>,
    /// The way to it.
    pub(super) asker: Asker,
}

/// Starts to answer.
pub(super) fn start(tell: mpsc::Sender<Vec<Input>>) -> Backends {
    let (ask, questions) = mpsc::channel(QUESTIONS);
    Backends { work: tokio::spawn(answer(questions, tell)), asker: Asker(Some(ask)) }
}

async fn answer(mut questions: mpsc::Receiver<Vec<Connection>>, tell: mpsc::Sender<Vec<Input>>) {
    while let Some(connections) = questions.recv().await {
        let begun = Instant::now();
        let asked = tokio::task::spawn_blocking(move || collect::backends(&connections)).await;
        let duration_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let (backends, error) = match asked {
            Ok(Ok(backends)) => (backends, None),
            Ok(Err(error)) => (Vec::new(), Some(Error::chain(&error))),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let standing = HostFact::Collector { collector: Collector::Backends, error, absent: false, duration_ns };
        // An empty answer too: a fold waits for it. The pump is gone only when the agent stops.
        let facts = [HostFact::Backends(backends), standing];
        let _ = tell.send(facts.into_iter().map(|fact| Input::Host(Box::new(fact))).collect()).await;
    }
}

// === impl Asker ===

impl Asker {
    /// Asks; while an earlier question is not answered, this one is dropped, and its fold closes without.
    pub(super) fn ask(&self, connections: Vec<Connection>) {
        if let Some(ask) = &self.0 {
            let _ = ask.try_send(connections);
        }
    }
}
