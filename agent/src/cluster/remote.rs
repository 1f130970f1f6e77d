//! Who has an address that is not this node's: asked on demand, rarely, and only when that is switched on. Each question
//! makes the API server look through all pods of its cache.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::{ClusterFact, Phase, PodFacts, RemotePod, RemotePodName};
use kube::Api;
use kube::api::ListParams;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::access::{ANSWER_WAIT, Access};
use super::convert::{Conversion, Converted};
use super::kinds::{self, Slim};
use super::pace::Backoff;
use super::teller::Teller;
use super::trouble::Trouble;

/// Addresses that wait; more are not asked about, and come again with their next flow.
const QUEUE: usize = 64;
/// Answers that are remembered, 40 bytes each.
const REMEMBERED_MAX: usize = 1_024;
/// A name holds for half a minute: a peer that is still spoken with is asked about again before it ends.
const NAME_FOR: Duration = Duration::from_secs(15);
/// An address that no pod has, or two.
const NOBODY_FOR: Duration = Duration::from_mins(5);
/// Between two questions.
const PACE: Duration = Duration::from_secs(1);

/// Asks about addresses.
#[derive(Clone)]
pub(crate) struct Asker(mpsc::Sender<IpAddr>);

impl Asker {
    /// Asks, unless too many questions wait.
    pub(crate) fn ask(&self, address: IpAddr) {
        // Full: the next flow of that peer asks again.
        let _ = self.0.try_send(address);
    }
}

/// A way to ask, and where the questions go.
pub(super) fn queue() -> (Asker, mpsc::Receiver<IpAddr>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Asker(sender), receiver)
}

/// Answers questions until nobody asks any more.
pub(super) async fn answer(access: &Access, teller: &Teller, questions: Option<mpsc::Receiver<IpAddr>>) {
    let Some(mut questions) = questions else { return };
    // Until when.
    let mut remembered: BTreeMap<IpAddr, Instant> = BTreeMap::new();
    let mut backoff = Backoff::new();
    while let Some(ip) = questions.recv().await {
        let now = Instant::now();
        if remembered.get(&ip).is_some_and(|until| now < *until) || is_here(teller, ip) {
            continue;
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, until| now < *until);
        }
        match look_up(access, ip).await {
            Ok(pod) => {
                if remembered.len() < REMEMBERED_MAX {
                    remembered.insert(ip, now + if pod.is_some() { NAME_FOR } else { NOBODY_FOR });
                }
                teller.tell(vec![ClusterFact::RemotePod(RemotePod { ip, pod, at: teller.now() })]).await;
                tokio::time::sleep(PACE).await;
            }
            Err(trouble) => {
                tracing::debug!(error = trouble.text, "could not look up a remote pod");
                tokio::time::sleep_until(backoff.next(trouble.pause())).await;
            }
        }
    }
}

/// A pod of this node has it: rows name it without a question.
fn is_here(teller: &Teller, ip: IpAddr) -> bool {
    teller.known(|known| known.pods.iter().any(|pod| !pod.host_network && pod.ips.contains(&ip)))
}

async fn look_up(access: &Access, ip: IpAddr) -> Result<Option<RemotePodName>, Trouble> {
    let api: Api<Slim<kinds::Pods>> = Api::all(access.client().await?);
    let params = ListParams {
        field_selector: Some(format!("status.podIP={ip}")),
        resource_version: Some("0".to_owned()),
        ..ListParams::default()
    };
    let answer = timeout(ANSWER_WAIT, api.list(&params)).await;
    let list = answer.map_err(|_| Trouble::passing("no answer"))?.map_err(|error| Trouble::of(&error))?;
    let conversion = Conversion::default();
    let pods = list.items.into_iter().filter_map(|object| match object.facts(&conversion) {
        Converted::Pod(pod) => Some(*pod),
        _ => None,
    });
    // An ended pod keeps the address in its status, and pods of the host's network all have their node's.
    let mut having =
        pods.filter(|pod| !pod.host_network && !matches!(pod.phase, Some(Phase::Succeeded | Phase::Failed)));
    let first = having.next();
    Ok(first.filter(|_| having.next().is_none()).map(|PodFacts { namespace, name, .. }| RemotePodName {
        namespace: Arc::clone(&namespace),
        pod: Arc::clone(&name),
    }))
}
