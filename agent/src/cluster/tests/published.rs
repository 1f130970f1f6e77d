//! Events written to a server that refuses what a real one refuses.

use std::collections::BTreeSet;

use agent_core::facts::ClusterFact;
use agent_core::time::WallNs;
use serde_json::Value;

use super::super::Note;
use super::asked::world;
use super::server::{Answer, empty, pod, status};

/// One evaluation opens two findings of a pod: both have its time.
#[tokio::test]
async fn two_events_of_one_moment_have_names_of_their_own() {
    let mut names = BTreeSet::new();
    let (mut world, _say) = world(vec![pod("a", "2")], move |seen, quiet| match &seen.body["metadata"]["name"] {
        Value::String(name) if seen.method == "POST" => {
            let is_new = names.insert(name.clone());
            if is_new { Answer::Json(201, seen.body.clone()) } else { status(409, "AlreadyExists") }
        }
        _ => empty(seen, quiet),
    })
    .await;
    world.until(|fact| matches!(fact, ClusterFact::PodsReplaced(_))).await;
    let publisher = world.publisher.clone().unwrap();
    for reason in ["NodeCredentialsTaken", "MetadataV1Used"] {
        publisher.publish(Note {
            namespace: "shop".into(),
            pod: "a".into(),
            uid: None,
            reason: reason.to_owned(),
            action: "Opened",
            text: String::new(),
            warning: true,
            at: WallNs(1_700_000_000_000_000_000),
        });
    }
    let posted = |seen: &[super::server::Seen]| {
        let names = seen.iter().filter(|seen| seen.method == "POST").map(|seen| seen.body["metadata"]["name"].clone());
        names.filter_map(|name| Some(name.as_str()?.to_owned())).collect::<Vec<_>>()
    };
    let seen = world.until_seen(|seen| posted(seen).len() >= 2).await;
    let names = posted(&seen);
    assert_ne!(names[0], names[1]);
    for name in &names {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        assert!(name.len() <= 253 && name.bytes().all(allowed) && !name.contains(".."), "{name}");
    }
    let dropped =
        publisher.ends().into_iter().filter(|(end, _)| ["queue_full", "rate_limited", "failed"].contains(end));
    assert_eq!(dropped.map(|(_, notes)| notes).sum::<u64>(), 0);
}
