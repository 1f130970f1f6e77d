//! Who is asked when: one that fails keeps no other back, and nothing that is under way is begun anew.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_core::facts::{ClusterFact, GroupEventKind};
use serde_json::json;
use tokio::sync::mpsc;

use super::asked::world;
use super::server::{Answer, World, empty, event, list, pod, status};

const POLICIES: &str = "/apis/vpcresources.k8s.aws/v1beta1/securitygrouppolicies";

fn account(name: &str) -> Answer {
    Answer::Json(
        200,
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"name": name, "namespace": "shop", "uid": name}}),
    )
}

#[tokio::test]
async fn an_account_that_is_refused_keeps_no_other_from_being_read() {
    let (mut first, mut second) = (pod("a", "2"), pod("b", "3"));
    first["spec"]["serviceAccountName"] = json!("a-broken");
    second["spec"]["serviceAccountName"] = json!("b-well");
    let (mut world, _say) = world(vec![first, second], |seen, quiet| {
        if seen.path.ends_with("/serviceaccounts/a-broken") {
            status(500, "InternalError")
        } else if seen.path.ends_with("/serviceaccounts/b-well") {
            account("b-well")
        } else {
            empty(seen, quiet)
        }
    })
    .await;
    let broken = |world: &World| world.of("/api/v1/namespaces/shop/serviceaccounts/a-broken").len();
    world.until_seen(|seen| seen.iter().any(|seen| seen.path.ends_with("a-broken"))).await;
    // Pauses grow up to a minute; the other one is due after the first of them.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        World::pass(Duration::from_secs(61)).await;
    }
    world.until(|fact| matches!(fact, ClusterFact::ServiceAccount(account) if &*account.name == "b-well")).await;
    assert!(broken(&world) >= 1);
}

/// It waited for 70 minutes for a node with a free branch interface; the controller begins with it just now.
#[tokio::test]
async fn a_pod_that_waited_long_for_a_node_is_asked_about_as_a_new_one() {
    const EVENTS: &str = "/api/v1/namespaces/shop/events";
    let mut waited = pod("a", "2");
    waited["metadata"]["creationTimestamp"] = json!("1969-12-31T22:50:00Z");
    waited["status"]["startTime"] = json!("1970-01-01T00:00:00Z");
    waited["metadata"]["annotations"] = json!({"vpc.amazonaws.com/pod-eni":
        "[{\"eniId\":\"eni-1\",\"ifAddress\":\"02:00:00:00:00:01\",\"privateIp\":\"10.0.0.1\",\"vlanId\":1}]"});
    let groups = json!({"metadata": {"name": "e", "namespace": "shop"}, "involvedObject": {"kind": "Pod", "uid": "uid-a"},
        "reason": "SecurityGroupRequested", "type": "Normal", "source": {"component": "vpc-resource-controller"},
        "message": "Pod will get the following Security Groups [sg-1]", "lastTimestamp": "1970-01-01T00:00:00Z"});
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let (mut world, _say) = world(vec![waited], move |seen, quiet| {
        if seen.path != EVENTS {
            return empty(seen, quiet);
        }
        *count.lock().unwrap() += 1;
        if *count.lock().unwrap() == 1 { list(&[], "7") } else { list(std::slice::from_ref(&groups), "8") }
    })
    .await;
    world.until(|fact| matches!(fact, ClusterFact::PodsReplaced(_))).await;
    World::pass(Duration::from_secs(5)).await;
    world.until_seen(|seen| seen.iter().any(|seen| seen.path == EVENTS)).await;
    World::pass(Duration::from_secs(40)).await;
    let told = world.until(|fact| matches!(fact, ClusterFact::GroupEvents { .. })).await;
    let Some(ClusterFact::GroupEvents { events, .. }) = told.last() else { panic!("{told:?}") };
    assert_eq!(
        events.iter().map(|event| event.kind.clone()).collect::<Vec<_>>(),
        [GroupEventKind::Groups(vec!["sg-1".into()])]
    );
}

/// An API server that is slower with its list than pods come, as at the start of a node.
#[tokio::test]
async fn a_list_of_policies_under_way_is_not_begun_anew_with_each_pod() {
    let (finish, body) = mpsc::unbounded_channel();
    let mut body = Some(body);
    let (mut world, say) = world(vec![pod("a", "2")], move |seen, quiet| match seen.path.as_str() {
        POLICIES if seen.is_watch() => quiet.watch(),
        POLICIES => body.take().map_or_else(|| list(&[], "5"), Answer::Stream),
        _ => empty(seen, quiet),
    })
    .await;
    world.until_seen(|seen| seen.iter().any(|seen| seen.path == POLICIES)).await;
    for number in 0..5 {
        let mut other = pod(&format!("p{number}"), "6");
        other["metadata"]["namespace"] = json!(format!("n{number}"));
        say.send(event("ADDED", &other)).unwrap();
        let name = format!("p{number}");
        world.until(|fact| matches!(fact, ClusterFact::Pod(pod) if *pod.name == *name)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let policy = json!({"apiVersion": "vpcresources.k8s.aws/v1beta1", "kind": "SecurityGroupPolicy",
        "metadata": {"namespace": "n4", "name": "one", "resourceVersion": "2"},
        "spec": {"podSelector": {}, "securityGroups": {"groupIds": ["sg-1"]}}});
    let all = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": [policy]});
    finish.send(all.to_string()).unwrap();
    drop(finish);
    world
        .until(|fact| {
            matches!(fact, ClusterFact::PoliciesReplaced { policies, .. }
                if policies.iter().any(|policy| &*policy.namespace == "n4"))
        })
        .await;
    let lists = world.of(POLICIES).into_iter().filter(|seen| !seen.is_watch()).count();
    assert_eq!(lists, 1, "one list for all");
}

#[tokio::test]
async fn a_peer_that_is_still_spoken_with_keeps_its_name() {
    let mut here = pod("a", "2");
    here["status"]["podIP"] = json!("10.0.0.9");
    let (mut world, _say) = world(vec![here], |seen, quiet| match seen.parameter("fieldSelector").as_deref() {
        Some("status.podIP=10.0.0.7") => list(&[pod("far", "3")], "5"),
        _ => empty(seen, quiet),
    })
    .await;
    world.until(|fact| matches!(fact, ClusterFact::PodsReplaced(_))).await;
    let asker = world.asker.clone().unwrap();
    let lookups = |seen: &[super::server::Seen], ip: &str| {
        seen.iter().filter(|seen| seen.query.contains("podIP") && seen.query.contains(ip)).count()
    };
    for turn in 1..=3 {
        for ip in ["10.0.0.7", "10.0.0.8", "10.0.0.9"] {
            asker.ask(ip.parse().unwrap());
        }
        // Sooner than a name ends.
        world.until_seen(|seen| lookups(seen, "10.0.0.7") >= turn && lookups(seen, "10.0.0.8") == 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        World::pass(Duration::from_secs(20)).await;
    }
    let seen = world.seen();
    assert_eq!((lookups(&seen, "10.0.0.7"), lookups(&seen, "10.0.0.8")), (3, 1));
    assert_eq!(lookups(&seen, "10.0.0.9"), 0, "it is a pod of this node");
}
