//! Network policies: listed by namespace, told as a whole.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_core::facts::{ClusterFact, Source};
use serde_json::{Value, json};

use super::asked::world;
use super::server::{Seen, World, empty, event, list, not_found, pod, status};

fn path(namespace: &str) -> String {
    format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")
}

fn policy(namespace: &str, name: &str) -> Value {
    // Items of lists name no kind.
    json!({"metadata": {"namespace": namespace, "name": name, "resourceVersion": "2"},
        "spec": {"podSelector": {"matchLabels": {"app": "cart"}}, "policyTypes": ["Egress"], "egress": []}})
}

fn pod_in(namespace: &str, name: &str, version: &str) -> Value {
    let mut pod = pod(name, version);
    pod["metadata"]["namespace"] = json!(namespace);
    pod
}

/// The policies, if the fact is that of all.
fn all(fact: &ClusterFact) -> Option<String> {
    let ClusterFact::NetworkPoliciesReplaced(policies) = fact else { return None };
    let names: Vec<_> = policies.iter().map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect();
    Some(names.join(" "))
}

fn well(fact: &ClusterFact) -> bool {
    matches!(fact, ClusterFact::Source { source: Source::NetworkPolicies, error: None, fresh_at: Some(_) })
}

fn troubled(fact: &ClusterFact) -> bool {
    matches!(fact, ClusterFact::Source { source: Source::NetworkPolicies, error: Some(_), .. })
}

fn asked(seen: &[Seen], namespace: &str) -> usize {
    seen.iter().filter(|seen| seen.path == path(namespace)).count()
}

#[tokio::test]
async fn network_policies_follow_the_namespaces_with_pods_here() {
    let deny = Arc::new(Mutex::new(vec![policy("shop", "b"), policy("shop", "a")]));
    let shop = Arc::clone(&deny);
    let (mut world, say) = world(vec![pod("a", "2")], move |seen, quiet| match seen.path.as_str() {
        of if of == path("shop") => list(&shop.lock().unwrap(), "5"),
        of if of == path("new") => list(&[policy("new", "c")], "5"),
        _ => empty(seen, quiet),
    })
    .await;
    let told = world.until(|fact| all(fact).is_some()).await;
    assert_eq!(all(told.last().unwrap()).unwrap(), "shop/a shop/b");
    let Some(ClusterFact::NetworkPoliciesReplaced(policies)) = told.last() else { panic!("{told:?}") };
    assert_eq!(policies[0].pod_selector.match_labels, [("app".to_owned(), "cart".to_owned())].into());
    world.until(well).await;
    let first = &world.of(&path("shop"))[0];
    assert_eq!(first.parameter("resourceVersion").as_deref(), Some("0"), "from the server's cache");

    say.send(event("ADDED", &pod_in("new", "b", "6"))).unwrap();
    world.until(|fact| all(fact).is_some_and(|all| all == "new/c shop/a shop/b")).await;
    assert_eq!(asked(&world.seen(), "shop"), 1, "a new namespace makes no other one be read");
    say.send(event("DELETED", &pod_in("new", "b", "7"))).unwrap();
    world.until(|fact| all(fact).is_some_and(|all| all == "shop/a shop/b")).await;

    // Again within ten minutes, and not before some seven.
    deny.lock().unwrap().pop();
    World::pass(Duration::from_secs(390)).await;
    assert_eq!(asked(&world.seen(), "shop"), 1);
    World::pass(Duration::from_secs(220)).await;
    world.until(|fact| all(fact).is_some_and(|all| all == "shop/b")).await;
    assert!(world.seen().iter().all(|seen| !seen.path.ends_with("/v1/networkpolicies")), "never of the whole cluster");
}

#[tokio::test]
async fn a_refused_namespace_keeps_the_whole_back_and_no_other_from_being_read() {
    let refuse = Arc::new(Mutex::new(true));
    let refused = Arc::clone(&refuse);
    let pods = vec![pod_in("a", "x", "2"), pod_in("b", "y", "3")];
    let (mut world, _say) = world(pods, move |seen, quiet| match seen.path.as_str() {
        of if of == path("a") && *refused.lock().unwrap() => status(403, "networkpolicies is forbidden"),
        of if of == path("a") => list(&[policy("a", "p")], "5"),
        // A server that does not have the kind.
        of if of == path("b") => not_found(),
        _ => empty(seen, quiet),
    })
    .await;
    let mut told = world.until(troubled).await;
    let Some(ClusterFact::Source { error: Some(error), .. }) = told.last() else { panic!("{told:?}") };
    assert_eq!(error, "403 networkpolicies is forbidden");
    World::pass(Duration::from_secs(20)).await;
    assert_eq!((asked(&world.seen(), "a"), asked(&world.seen(), "b")), (1, 0), "who may not list asks rarely");
    World::pass(Duration::from_secs(50)).await;
    world.until_seen(|seen| asked(seen, "b") == 1).await;
    World::pass(Duration::from_mins(1)).await;
    told.extend(world.until(troubled).await);
    assert!(!told.iter().any(|fact| all(fact).is_some() || well(fact)), "{told:?}");

    *refuse.lock().unwrap() = false;
    World::pass(Duration::from_mins(2)).await;
    told = world.until(|fact| all(fact).is_some()).await;
    assert_eq!(all(told.last().unwrap()).unwrap(), "a/p");
    world.until(well).await;
}

#[tokio::test]
async fn more_network_policies_than_there_is_room_for_are_told_as_left_out() {
    let many: Vec<_> = (0..2_003).map(|n| policy("shop", &format!("p{n:04}"))).collect();
    let (mut world, _say) = world(vec![pod("a", "2")], move |seen, quiet| match seen.path.as_str() {
        of if of == path("shop") => list(&many, "5"),
        _ => empty(seen, quiet),
    })
    .await;
    let told = world.until(troubled).await;
    let Some(ClusterFact::Source { error: Some(error), .. }) = told.last() else { panic!("{told:?}") };
    assert!(error.starts_with("3 network policies are left out"), "{error}");
    let kept = told.iter().find_map(|fact| match fact {
        ClusterFact::NetworkPoliciesReplaced(policies) => Some(policies.len()),
        _ => None,
    });
    assert_eq!(kept, Some(2_000));
}

fn endpoints_path(namespace: &str) -> String {
    format!("/apis/networking.k8s.aws/v1alpha1/namespaces/{namespace}/policyendpoints")
}

/// As AWS's controller makes it of a policy.
fn endpoint(namespace: &str, name: &str, of: &str, isolation: &[&str]) -> Value {
    let pods = json!([{"hostIP": "10.0.0.1", "podIP": "10.0.0.2", "name": "cart-1", "namespace": namespace}]);
    json!({"metadata": {"namespace": namespace, "name": name, "resourceVersion": "2"},
        "spec": {"podSelector": {"matchLabels": {"app": "cart"}}, "policyRef": {"name": of, "namespace": namespace},
            "podIsolation": isolation, "podSelectorEndpoints": pods, "egress": [{"cidr": "10.0.0.0/8"}]}})
}

#[tokio::test]
async fn policy_endpoints_tell_what_no_network_policy_tells() {
    let (mut world, _say) = world(vec![pod("a", "2")], move |seen, quiet| match seen.path.as_str() {
        of if of == path("shop") => list(&[policy("shop", "a")], "5"),
        of if of == endpoints_path("shop") => list(
            &[
                // Twice what the policy says, of a policy that is gone, and in another direction than the policy.
                endpoint("shop", "a-x1", "a", &["Egress"]),
                endpoint("shop", "a-x2", "a", &["Egress"]),
                endpoint("shop", "gone-y1", "gone", &["Ingress"]),
                endpoint("shop", "a-z1", "a", &[]),
            ],
            "5",
        ),
        _ => empty(seen, quiet),
    })
    .await;
    let told = world.until(|fact| all(fact).is_some()).await;
    assert_eq!(all(told.last().unwrap()).unwrap(), "shop/a shop/a-z1 shop/gone-y1");
    let Some(ClusterFact::NetworkPoliciesReplaced(policies)) = told.last() else { panic!("{told:?}") };
    let told: Vec<_> = policies
        .iter()
        .map(|policy| {
            (policy.made_of.as_deref(), policy.ingress_only, policy.egress_only, policy.pod_selector.match_labels.len())
        })
        .collect();
    assert_eq!(told, [(None, false, true, 1), (Some("a"), false, false, 1), (Some("gone"), true, false, 1)]);
    world.until(well).await;
    let first = &world.of(&endpoints_path("shop"))[0];
    assert_eq!(first.parameter("resourceVersion").as_deref(), Some("0"), "from the server's cache");
}

#[tokio::test]
async fn a_server_without_policy_endpoints_is_asked_for_them_rarely() {
    let pods = vec![pod_in("a", "x", "2"), pod_in("b", "y", "3"), pod_in("c", "z", "4")];
    let (mut world, _say) = world(pods, move |seen, quiet| match seen.path.as_str() {
        of if of.starts_with("/apis/networking.k8s.aws/") => not_found(),
        of if of.ends_with("/networkpolicies") => list(&[], "5"),
        _ => empty(seen, quiet),
    })
    .await;
    world.until(well).await;
    let of_endpoints = |seen: &[Seen]| seen.iter().filter(|seen| seen.path.ends_with("/policyendpoints")).count();
    assert_eq!(of_endpoints(&world.seen()), 1, "of three namespaces");
    World::pass(Duration::from_secs(620)).await;
    world.until_seen(|seen| of_endpoints(seen) == 2).await;
}

#[tokio::test]
async fn policy_endpoints_that_are_refused_keep_the_whole_back() {
    let (mut world, _say) = world(vec![pod("a", "2")], move |seen, quiet| match seen.path.as_str() {
        of if of == path("shop") => list(&[policy("shop", "a")], "5"),
        of if of == endpoints_path("shop") => status(403, "policyendpoints is forbidden"),
        _ => empty(seen, quiet),
    })
    .await;
    let told = world.until(troubled).await;
    let Some(ClusterFact::Source { error: Some(error), .. }) = told.last() else { panic!("{told:?}") };
    assert_eq!(error, "403 policyendpoints is forbidden");
    assert!(!told.iter().any(|fact| all(fact).is_some()), "{told:?}");
}
