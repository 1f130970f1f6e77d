//! How many nodes the cluster has: they share what an account may ask of EC2. A list of one node says how many more there
//! are, and costs the server one small read an hour.

use std::time::Duration;

use agent_core::facts::ClusterFact;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use tokio::time::timeout;

use super::access::{ANSWER_WAIT, Access};
use super::pace;
use super::teller::Teller;
use super::trouble::{Kind, Trouble};

/// Between two looks: this, and up to half as much again. Fleets grow by parts, and calls are far below what EC2 gives.
const LOOK_EVERY: Duration = Duration::from_hours(1);
/// After a failure.
const AGAIN_AFTER: Duration = Duration::from_mins(5);

/// Follows the number of nodes, for ever. What goes by it has a number of its own as long as nobody tells this one, so that
/// it is not told is no trouble of the cluster's.
pub(super) async fn follow(access: &Access, teller: &Teller, jitter: Duration) {
    tokio::time::sleep(pace::up_to(jitter)).await;
    let mut said: Option<Trouble> = None;
    loop {
        match count(access).await {
            Ok(nodes) => {
                said = None;
                teller.tell(vec![ClusterFact::FleetNodes(nodes)]).await;
                tokio::time::sleep(pace::jittered(LOOK_EVERY)).await;
            }
            Err(trouble) => {
                if trouble.kind == Kind::Unauthorized {
                    access.refused();
                }
                if said.as_ref() != Some(&trouble) {
                    tracing::info!(error = trouble.text, "how many nodes share the calls of EC2 is not known");
                    said = Some(trouble);
                }
                tokio::time::sleep(pace::jittered(AGAIN_AFTER)).await;
            }
        }
    }
}

/// Not from the server's cache, which gives all nodes whatever the limit.
async fn count(access: &Access) -> Result<u32, Trouble> {
    let api: Api<Node> = Api::all(access.client().await?);
    let answer = timeout(ANSWER_WAIT, api.list_metadata(&ListParams::default().limit(1))).await;
    let list = answer.map_err(|_| Trouble::passing("no answer to a list of one node"))?;
    let list = list.map_err(|error| Trouble::of(&error))?;
    let more = list.metadata.remaining_item_count.unwrap_or(0);
    let is_whole = list.metadata.continue_.as_deref().is_none_or(str::is_empty);
    let nodes = u32::try_from(more).ok().and_then(|more| more.checked_add(u32::try_from(list.items.len()).ok()?));
    match nodes {
        // This one at least is there.
        Some(nodes) if nodes > 0 && (is_whole || more > 0) => Ok(nodes),
        _ => Err(Trouble::passing("a list of one node does not say how many more there are")),
    }
}
