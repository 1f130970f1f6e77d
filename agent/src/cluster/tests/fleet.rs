//! How many nodes the cluster has.

use std::sync::{Arc, Mutex};

use agent_core::facts::ClusterFact;
use serde_json::json;

use super::server::{Answer, Quiet, Seen, World, empty, status};

const NODES: &str = "/api/v1/nodes";

fn is_count(seen: &Seen) -> bool {
    seen.path == NODES && seen.parameter("limit").is_some()
}

/// One node, and so many more.
fn one_of(more: Option<u64>) -> Answer {
    let mut metadata = json!({"resourceVersion": "1"});
    if let Some(more) = more {
        metadata["remainingItemCount"] = json!(more);
        metadata["continue"] = json!("next");
    }
    let node = json!({"metadata": {"name": "n1", "uid": "u1"}});
    Answer::Json(
        200,
        json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "items": [node]}),
    )
}

#[tokio::test]
async fn a_list_of_one_node_says_how_many_there_are() {
    // What the server says by now; `None`: that the agent may not ask.
    let says: Arc<Mutex<Option<Option<u64>>>> = Arc::default();
    let (server, mut quiet) = (Arc::clone(&says), Quiet::default());
    let mut world = World::new(move |seen| match (is_count(seen), *server.lock().unwrap()) {
        (true, Some(more)) => one_of(more),
        (true, None) => status(403, "Forbidden"),
        (false, _) => empty(seen, &mut quiet),
    })
    .await;
    let counted = |seen: &[Seen]| seen.iter().filter(|seen| is_count(seen)).count();
    world.until_seen(|seen| counted(seen) == 1).await;
    for (more, expected) in [(Some(2_999), 3_000), (None, 1)] {
        *says.lock().unwrap() = Some(more);
        // It is asked again after minutes, and then after hours.
        let asked = counted(&world.seen());
        world.pass_until(|seen| counted(seen) >= asked + 2).await;
        world.until(|fact| matches!(fact, ClusterFact::FleetNodes(nodes) if *nodes == expected)).await;
    }
    let seen: Vec<Seen> = world.seen().into_iter().filter(is_count).collect();
    assert!(seen.iter().all(|seen| seen.parameter("limit").as_deref() == Some("1")), "{seen:?}");
    assert!(seen.iter().all(|seen| seen.parameter("resourceVersion").is_none()), "a cache gives all of them: {seen:?}");
    assert!(seen.iter().all(|seen| seen.accept.contains("PartialObjectMetadata")), "{seen:?}");
}
