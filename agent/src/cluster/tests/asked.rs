//! What is asked because of this node's pods, and what is told back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_core::facts::{ClusterFact, GroupEventKind, Source};
use agent_core::time::WallNs;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::Note;
use super::server::{Answer, Quiet, Seen, World, empty, event, list, not_found, pod, status};

const PODS: &str = "/api/v1/pods";
const POLICIES: &str = "/apis/vpcresources.k8s.aws/v1beta1/securitygrouppolicies";

fn policy(namespace: &str, name: &str, version: &str) -> Value {
    json!({"apiVersion": "vpcresources.k8s.aws/v1beta1", "kind": "SecurityGroupPolicy",
        "metadata": {"namespace": namespace, "name": name, "resourceVersion": version},
        "spec": {"podSelector": {}, "securityGroups": {"groupIds": ["sg-1"]}}})
}

/// A world whose pods are these, with a way to speak in their watch; everything else is up to the handler.
pub(super) async fn world(
    pods: Vec<Value>,
    mut other: impl FnMut(&Seen, &mut Quiet) -> Answer + Send + 'static,
) -> (World, mpsc::UnboundedSender<String>) {
    let (say, stream) = mpsc::unbounded_channel();
    let (mut stream, mut quiet) = (Some(stream), Quiet::default());
    let world = World::new(move |seen| match (seen.path == PODS && !seen.query.contains("podIP"), seen.is_watch()) {
        (true, true) => stream.take().map_or_else(|| quiet.watch(), Answer::Stream),
        (true, false) => list(&pods, "5"),
        _ => other(seen, &mut quiet),
    })
    .await;
    (world, say)
}

#[tokio::test]
async fn policies_are_kept_only_of_namespaces_with_pods_here() {
    let (say_policies, stream) = mpsc::unbounded_channel();
    let mut stream = Some(stream);
    let (mut world, say) = world(vec![pod("a", "2")], move |seen, quiet| match seen.path.as_str() {
        POLICIES if seen.is_watch() => stream.take().map_or_else(|| quiet.watch(), Answer::Stream),
        POLICIES => list(&[policy("shop", "one", "2"), policy("far", "away", "3")], "5"),
        "/apis/vpcresources.k8s.aws/v1beta1/namespaces/new/securitygrouppolicies" => {
            list(&[policy("new", "three", "4")], "9")
        }
        _ => empty(seen, quiet),
    })
    .await;
    // Whichever of pods and policies is there first, in the end the policies of the pod's namespace are known.
    let mut names = std::collections::BTreeSet::new();
    let mut take = |fact: &ClusterFact| {
        match fact {
            ClusterFact::PoliciesReplaced { policies, installed } => {
                assert!(*installed);
                names = policies.iter().map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect();
            }
            ClusterFact::Policy(policy) => {
                names.insert(format!("{}/{}", policy.namespace, policy.name));
            }
            ClusterFact::PolicyGone { namespace, name } => {
                names.remove(&format!("{namespace}/{name}"));
            }
            _ => {}
        }
        names.iter().cloned().collect::<Vec<_>>().join(" ")
    };
    // Without the pod's namespace known the first list is empty, and its namespace is listed by itself.
    world.until(|fact| take(fact) == "shop/one" || matches!(fact, ClusterFact::PoliciesReplaced { .. })).await;
    say_policies.send(event("ADDED", &policy("shop", "two", "6"))).unwrap();
    say_policies.send(event("ADDED", &policy("far", "further", "7"))).unwrap();
    let told = world.until(|fact| take(fact).contains("shop/two")).await;
    assert!(!format!("{told:?}").contains("further"));

    let mut other = pod("b", "6");
    other["metadata"]["namespace"] = json!("new");
    say.send(event("ADDED", &other)).unwrap();
    world.until(|fact| take(fact).contains("new/three")).await;
    other["metadata"]["resourceVersion"] = json!("7");
    say.send(event("DELETED", &other)).unwrap();
    world.until(|fact| !take(fact).contains("new/three")).await;
    assert!(world.of("/apis/vpcresources.k8s.aws/v1beta1/namespaces/far/securitygrouppolicies").is_empty());
}

#[tokio::test]
async fn policies_beyond_the_bound_are_counted_and_those_that_are_known_go_on() {
    let many: Vec<_> = (0..2_001).map(|n| policy("shop", &format!("p{n}"), "2")).collect();
    let (say, stream) = mpsc::unbounded_channel();
    let mut stream = Some(stream);
    let of_namespace = "/apis/vpcresources.k8s.aws/v1beta1/namespaces/shop/securitygrouppolicies";
    let (mut world, _pods) = world(vec![pod("a", "2")], move |seen, quiet| match seen.path.as_str() {
        POLICIES if seen.is_watch() => stream.take().map_or_else(|| quiet.watch(), Answer::Stream),
        // Whichever of pods and policies is there first.
        POLICIES => list(&many, "5"),
        path if path == of_namespace => list(&many, "5"),
        _ => empty(seen, quiet),
    })
    .await;
    let no_room = |fact: &ClusterFact| match fact {
        ClusterFact::NoRoom { source: Source::Policies, objects } => Some(*objects),
        _ => None,
    };
    let told = world.until(|fact| no_room(fact).is_some()).await;
    assert_eq!(told.last().and_then(no_room), Some(1));
    say.send(event("ADDED", &policy("shop", "more", "6"))).unwrap();
    let told = world.until(|fact| no_room(fact).is_some()).await;
    assert_eq!(told.last().and_then(no_room), Some(1));
    let mut changed = policy("shop", "p7", "7");
    changed["spec"]["securityGroups"]["groupIds"] = json!(["sg-2"]);
    say.send(event("MODIFIED", &changed)).unwrap();
    world.until(|fact| matches!(fact, ClusterFact::Policy(policy) if &*policy.name == "p7")).await;
}

#[tokio::test]
async fn a_kind_that_is_not_there_is_an_answer_and_one_that_comes_is_noticed() {
    let installed = Arc::new(Mutex::new(false));
    let there = Arc::clone(&installed);
    let (mut world, _say) = world(vec![pod("a", "2")], move |seen, quiet| match seen.path.as_str() {
        POLICIES if !*there.lock().unwrap() => not_found(),
        POLICIES if !seen.is_watch() => list(&[policy("shop", "one", "2")], "5"),
        POLICIES => quiet.watch(),
        _ => empty(seen, quiet),
    })
    .await;
    let (mut policies, mut node, mut source) = (false, false, false);
    let told = world
        .until(|fact| {
            match fact {
                ClusterFact::PoliciesReplaced { policies: none, installed: false } => policies = none.is_empty(),
                ClusterFact::CniNode(None) => node = true,
                ClusterFact::Source { source: Source::Policies, error: None, .. } => source = true,
                _ => {}
            }
            policies && node && source
        })
        .await;
    let troubled =
        |fact: &ClusterFact| matches!(fact, ClusterFact::Source { source: Source::Policies, error: Some(_), .. });
    assert!(!told.iter().any(troubled), "{told:?}");
    *installed.lock().unwrap() = true;
    let before = world.of(POLICIES).len();
    World::pass(Duration::from_secs(100)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.of(POLICIES).len(), before, "not asked again so soon");
    World::pass(Duration::from_secs(200)).await;
    world
        .until(
            |fact| matches!(fact, ClusterFact::PoliciesReplaced { policies, installed: true } if policies.len() == 1),
        )
        .await;
}

#[tokio::test]
async fn accounts_are_read_when_a_pod_names_them() {
    const ACCOUNT: &str = "/api/v1/namespaces/shop/serviceaccounts/cart";
    let (mut world, say) = world(vec![pod("a", "2")], |seen, quiet| match seen.path.as_str() {
        // The cache does not have it yet.
        ACCOUNT if seen.query.contains("resourceVersion=0") => status(404, "NotFound"),
        ACCOUNT => Answer::Json(
            200,
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"name": "cart", "namespace": "shop", "uid": "s", "labels": {"team": "x"},
                    "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/cart"}}}),
        ),
        _ => empty(seen, quiet),
    })
    .await;
    let told = world.until(|fact| matches!(fact, ClusterFact::ServiceAccount(_))).await;
    let Some(ClusterFact::ServiceAccount(account)) = told.last() else { panic!("{told:?}") };
    assert_eq!((&*account.name, account.role_arn.as_deref()), ("cart", Some("arn:aws:iam::1:role/cart")));
    let asked = world.of(ACCOUNT);
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|seen| seen.accept.contains("PartialObjectMetadata")), "{asked:?}");

    let mut other = pod("b", "6");
    other["spec"]["serviceAccountName"] = json!("nobody");
    say.send(event("ADDED", &other)).unwrap();
    world.until(|fact| matches!(fact, ClusterFact::ServiceAccountGone { name, .. } if &**name == "nobody")).await;
    // Two pods of one account make one question.
    say.send(event("ADDED", &pod("c", "7"))).unwrap();
    world.until(|fact| matches!(fact, ClusterFact::Pod(pod) if &*pod.name == "c")).await;
    assert_eq!(world.of(ACCOUNT).len(), 2);
    World::pass(Duration::from_secs(700)).await;
    world.until_seen(|seen| seen.iter().filter(|seen| seen.path == ACCOUNT).count() >= 4).await;
}

fn branch_pod() -> Value {
    let mut pod = pod("a", "2");
    pod["metadata"]["annotations"] = json!({"vpc.amazonaws.com/pod-eni":
        "[{\"eniId\":\"eni-1\",\"ifAddress\":\"02:00:00:00:00:01\",\"privateIp\":\"10.0.0.1\",\"vlanId\":1}]"});
    pod
}

const EVENTS: &str = "/api/v1/namespaces/shop/events";

#[tokio::test]
async fn the_controllers_events_are_asked_for_until_they_say_the_groups_and_kept() {
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let groups = json!({"metadata": {"name": "e", "namespace": "shop"}, "involvedObject": {"kind": "Pod", "uid": "uid-a"},
        "reason": "SecurityGroupRequested", "type": "Normal", "source": {"component": "vpc-resource-controller"},
        "message": "Pod will get the following Security Groups [sg-1 sg-2]", "lastTimestamp": "1970-01-01T00:00:00Z"});
    let (mut world, _say) = world(vec![branch_pod(), pod("plain", "3")], move |seen, quiet| {
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
    let Some(ClusterFact::GroupEvents { uid, events }) = told.last() else { panic!("{told:?}") };
    assert_eq!((&**uid, events.len()), ("uid-a", 1));
    assert_eq!(events[0].kind, GroupEventKind::Groups(vec!["sg-1".into(), "sg-2".into()]));
    assert!(!told.iter().any(|fact| matches!(fact, ClusterFact::GroupEvents { events, .. } if events.is_empty())));
    assert_eq!(world.of(EVENTS)[0].parameter("fieldSelector").as_deref(), Some("involvedObject.uid=uid-a"));

    // Kept over a restart: the facts on disk are told before the server is asked, and nobody asks about the pod again.
    let facts = world.directory.path().join("facts.json");
    for _ in 0..2 {
        World::pass(Duration::from_secs(50)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.until_seen(|_| facts.exists()).await;
    let directory = world.end();
    let mut quiet = Quiet::default();
    let mut world = World::in_directory(directory, move |seen| match seen.path.as_str() {
        PODS if !seen.is_watch() => list(&[branch_pod()], "9"),
        _ => empty(seen, &mut quiet),
    })
    .await;
    let told = world.until(|fact| matches!(fact, ClusterFact::GroupEvents { .. })).await;
    assert!(told.iter().any(|fact| matches!(fact, ClusterFact::PodsReplaced(pods) if pods.len() == 2)));
    world.until(|fact| matches!(fact, ClusterFact::Source { source: Source::Pods, error: None, .. })).await;
    for _ in 0..3 {
        World::pass(Duration::from_secs(100)).await;
    }
    assert!(world.of(EVENTS).is_empty());
}

#[tokio::test]
async fn without_a_server_the_last_facts_are_told_as_old() {
    let directory = tempfile::tempdir().unwrap();
    let known = json!({"version": 1, "node": "n1", "known": {
        "pods": [serde_json::to_value(agent_core::facts::PodFacts { name: "a".into(), uid: Some("u".into()), ..Default::default() }).unwrap()],
        "policies": [], "policies_installed": true, "accounts": [], "node": null, "cni_node": null, "csi_node": null, "events": {},
        "fresh_at": {"pods": "1970-01-01T00:00:00.5Z"}}});
    std::fs::write(directory.path().join("facts.json"), known.to_string()).unwrap();
    let mut world = World::alone(directory).await;
    let told =
        world.until(|fact| matches!(fact, ClusterFact::Source { source: Source::Pods, error: Some(_), .. })).await;
    assert!(matches!(&told[0], ClusterFact::PodsReplaced(pods) if pods.len() == 1), "{told:?}");
    // And so it stays while nobody answers, with the reason.
    let told = world
        .until(|fact| matches!(fact, ClusterFact::Source { source: Source::Pods, error: Some(error), .. } if error.contains("onnect")))
        .await;
    let Some(ClusterFact::Source { fresh_at, .. }) = told.last() else { panic!("{told:?}") };
    assert_eq!(*fresh_at, Some(WallNs(500_000_000)));
    assert!(!told.iter().any(|fact| matches!(fact, ClusterFact::PodGone { .. } | ClusterFact::PodsReplaced(_))));
}

#[tokio::test]
async fn a_remote_address_is_looked_up_once() {
    let (mut world, _say) = world(Vec::new(), |seen, quiet| {
        let hosted = json!({"metadata": {"name": "agent", "namespace": "kube-system"}, "spec": {"hostNetwork": true}});
        let ended = json!({"metadata": {"name": "job", "namespace": "shop"}, "status": {"phase": "Succeeded"}});
        match seen.parameter("fieldSelector").as_deref() {
            Some("status.podIP=10.0.0.7") => list(&[hosted, ended, pod("far", "3")], "5"),
            Some("status.podIP=10.0.0.8") => list(&[pod("x", "3"), pod("y", "3")], "5"),
            _ => empty(seen, quiet),
        }
    })
    .await;
    let asker = world.asker.clone().unwrap();
    for _ in 0..5 {
        asker.ask("10.0.0.7".parse().unwrap());
    }
    asker.ask("10.0.0.8".parse().unwrap());
    let remote = |fact: &ClusterFact| match fact {
        ClusterFact::RemotePod(remote) => {
            Some((remote.ip.to_string(), remote.pod.as_ref().map(|pod| pod.pod.to_string())))
        }
        _ => None,
    };
    let told = world.until(|fact| remote(fact).is_some()).await;
    assert_eq!(remote(told.last().unwrap()), Some(("10.0.0.7".to_owned(), Some("far".to_owned()))));
    let told = world.until(|fact| remote(fact).is_some()).await;
    assert_eq!(remote(told.last().unwrap()), Some(("10.0.0.8".to_owned(), None)), "two have it: nobody knows");
    let asked = world.seen().into_iter().filter(|seen| seen.query.contains("podIP")).collect::<Vec<_>>();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(1));
}

#[tokio::test]
async fn findings_become_events_at_a_bounded_rate() {
    let (mut world, _say) = world(vec![pod("a", "2")], empty).await;
    world.until(|fact| matches!(fact, ClusterFact::PodsReplaced(_))).await;
    let publisher = world.publisher.clone().unwrap();
    let note = |pod: &str, text: String| Note {
        namespace: "shop".into(),
        pod: pod.into(),
        uid: None,
        reason: "SgpNotEnforced".to_owned(),
        action: "Opened",
        text,
        warning: true,
        at: WallNs(1_000_000_000),
    };
    publisher.publish(note("gone", String::new()));
    publisher.publish(note("a", "x".repeat(5_000)));
    publisher.publish(note("a", "x".repeat(5_000)));
    for n in 0..20 {
        publisher.publish(note("a", n.to_string()));
    }
    let written = |seen: &[Seen]| seen.iter().filter(|seen| seen.method == "POST").cloned().collect::<Vec<_>>();
    let seen = world.until_seen(|seen| written(seen).len() >= 5).await;
    let first = &written(&seen)[0];
    assert_eq!(first.path, "/apis/events.k8s.io/v1/namespaces/shop/events");
    assert_eq!(first.body["regarding"]["uid"], "uid-a");
    assert_eq!((&first.body["type"], &first.body["reason"]), (&json!("Warning"), &json!("SgpNotEnforced")));
    assert_eq!(first.body["note"].as_str().unwrap().len(), 1_024);
    let of = |outcome: &str| publisher.ends().into_iter().find(|(name, _)| *name == outcome).unwrap().1;
    world.until_seen(|_| of("rate_limited") == 16).await;
    // 23 notes, each in one place.
    let ended =
        [("written", 5), ("repeated", 1), ("pod_gone", 1), ("queue_full", 0), ("rate_limited", 16), ("failed", 0)];
    assert_eq!(publisher.ends(), ended);
    assert_eq!(written(&world.seen()).len(), 5, "a burst of five on one pod");
}
