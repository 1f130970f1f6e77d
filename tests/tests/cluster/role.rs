//! The shipped role at a real server: what it lists is allowed, and nothing else, of everything that the server knows.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::kube::server::Account;
use system_tests::kube::{Client, Server, manifests};

/// What the agent may do in any namespace: group, resource, verbs.
const EVERYWHERE: [(&str, &str, &[&str]); 15] = [
    ("", "pods", &["get", "list", "watch"]),
    ("", "serviceaccounts", &["get"]),
    ("", "nodes", &["get", "list", "watch"]),
    ("", "services", &["get", "list", "watch"]),
    ("discovery.k8s.io", "endpointslices", &["get", "list", "watch"]),
    ("vpcresources.k8s.aws", "securitygrouppolicies", &["get", "list", "watch"]),
    ("vpcresources.k8s.aws", "cninodes", &["get", "list", "watch"]),
    ("crd.k8s.amazonaws.com", "eniconfigs", &["get", "list", "watch"]),
    ("storage.k8s.io", "csinodes", &["get", "list", "watch"]),
    ("networking.k8s.io", "networkpolicies", &["get", "list", "watch"]),
    ("networking.k8s.aws", "policyendpoints", &["get", "list", "watch"]),
    ("", "events", &["get", "list", "create", "patch"]),
    ("events.k8s.io", "events", &["get", "list", "create", "patch"]),
    ("authentication.k8s.io", "tokenreviews", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"]),
];

/// Verbs of resources, with those that only authorization knows.
const VERBS: [&str; 15] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "impersonate",
    "bind",
    "escalate",
    "approve",
    "sign",
    "use",
    "proxy",
];

/// Subjects of impersonation and policies, which the server lists nowhere.
const NOT_LISTED: [(&str, &str); 4] =
    [("", "users"), ("", "groups"), ("policy", "podsecuritypolicies"), ("certificates.k8s.io", "signers")];

/// A request, as an authorizer sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Action {
    verb: String,
    group: String,
    resource: String,
    subresource: String,
}

/// Every verb on every resource and subresource that the server serves.
fn everything(admin: &Client) -> Result<BTreeSet<Action>> {
    let mut versions = vec![(String::new(), "/api/v1".to_owned())];
    let groups = admin.get("/apis")?;
    for group in groups["groups"].as_array().context("no groups")? {
        let name = group["name"].as_str().context("a group without name")?;
        for version in group["versions"].as_array().context("no versions")? {
            let version = version["groupVersion"].as_str().context("a version without name")?;
            versions.push((name.to_owned(), format!("/apis/{version}")));
        }
    }
    let mut resources: BTreeSet<_> =
        NOT_LISTED.iter().map(|&(group, name)| (group.to_owned(), name.to_owned())).collect();
    for (group, path) in versions {
        let list = admin.get(&path)?;
        for resource in list["resources"].as_array().context("no resources")? {
            let name = resource["name"].as_str().context("a resource without name")?;
            resources.insert((group.clone(), name.to_owned()));
        }
    }
    let mut actions = BTreeSet::new();
    for (group, name) in resources {
        let (resource, subresource) = name.split_once('/').unwrap_or((&name, ""));
        for verb in VERBS {
            actions.insert(action(verb, &group, resource, subresource));
        }
    }
    Ok(actions)
}

fn action(verb: &str, group: &str, resource: &str, subresource: &str) -> Action {
    Action { verb: verb.into(), group: group.into(), resource: resource.into(), subresource: subresource.into() }
}

/// What the server would allow an account, on an object of a namespace; on all objects without a name.
fn allowed(server: &Server, account: &Account, namespace: &str, name: &str) -> Result<BTreeSet<Action>> {
    let actions = everything(&server.admin)?;
    let of_namespace = format!("system:serviceaccounts:{}", account.namespace);
    let groups = ["system:serviceaccounts", &of_namespace, "system:authenticated"];
    let review = |action: &Action| {
        json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": account.user(),
                "groups": groups,
                "resourceAttributes": {
                    "namespace": namespace,
                    "verb": action.verb,
                    "group": action.group,
                    "resource": action.resource,
                    "subresource": action.subresource,
                    "name": name,
                },
            },
        })
    };
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answers = server.admin.post_all(path, actions.iter().map(review).collect())?;
    let mut allowed = BTreeSet::new();
    for (action, answer) in actions.into_iter().zip(answers) {
        if answer["status"]["allowed"].as_bool().context("no answer to a review")? {
            allowed.insert(action);
        }
    }
    Ok(allowed)
}

/// What the table says.
fn wanted() -> BTreeSet<Action> {
    let actions = |&(group, resource, verbs): &(&str, &str, &[&str])| -> Vec<_> {
        verbs.iter().map(|verb| action(verb, group, resource, "")).collect()
    };
    EVERYWHERE.iter().flat_map(actions).collect()
}

#[test]
fn the_role_allows_what_its_table_says_and_nothing_else() -> Result<()> {
    let mut server = Server::take()?;
    server.define_aws_objects()?;
    let account = server.install_role()?;
    let namespace = server.namespace("role")?;
    let bare = server.make_account(&namespace, "bare")?;
    // What everybody may whom the server knows.
    let everybodys = allowed(&server, &bare, &namespace, "")?;
    let checked = everything(&server.admin)?.len();
    ensure!(checked > 1_500, "only {checked} actions were checked");

    for (namespace, name) in [(namespace.as_str(), ""), ("kube-system", ""), ("", "")] {
        let more: BTreeSet<_> = allowed(&server, &account, namespace, name)?.difference(&everybodys).cloned().collect();
        assert_eq!(more, wanted(), "in namespace {namespace:?}");
    }
    // One configuration map of kube-system, and no map of that name elsewhere.
    let maps: BTreeSet<_> = ["get", "list", "watch"].map(|verb| action(verb, "", "configmaps", "")).into();
    for (namespace, name, extra) in [
        ("kube-system", "amazon-vpc-cni", maps),
        ("kube-system", "extension-apiserver-authentication", BTreeSet::new()),
        (namespace.as_str(), "amazon-vpc-cni", BTreeSet::new()),
    ] {
        let more: BTreeSet<_> = allowed(&server, &account, namespace, name)?.difference(&everybodys).cloned().collect();
        let wanted: BTreeSet<_> = wanted().union(&extra).cloned().collect();
        assert_eq!(more, wanted, "on {name} in {namespace}");
    }
    Ok(())
}

#[test]
fn what_the_agent_asks_is_answered() -> Result<()> {
    let mut server = Server::take()?;
    server.define_aws_objects()?;
    let account = server.install_role()?;
    let namespace = server.namespace("asked")?;
    server.admin.apply(&manifests::node("asked-node"))?;
    let pod = server.admin.apply(&manifests::pod(&namespace, "web", "asked-node"))?;
    server.admin.apply(&manifests::security_group_policy(&namespace, "web", "web", &["sg-1"]))?;
    server.admin.apply(&json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "namespace": "kube-system", "name": "amazon-vpc-cni" },
        "data": { "branch-eni-cooldown": "60" },
    }))?;

    let client = server.client(&server.token(&account)?)?;
    let uid = pod["metadata"]["uid"].as_str().context("a pod without uid")?;
    for path in [
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dasked-node&resourceVersion=0".to_owned(),
        format!("/api/v1/namespaces/{namespace}/pods/web"),
        "/api/v1/pods?fieldSelector=status.podIP%3D10.0.0.1".to_owned(),
        format!("/api/v1/namespaces/{namespace}/serviceaccounts/default"),
        "/api/v1/nodes?fieldSelector=metadata.name%3Dasked-node".to_owned(),
        "/api/v1/nodes?limit=1".to_owned(),
        "/api/v1/services?resourceVersion=0".to_owned(),
        "/apis/discovery.k8s.io/v1beta1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes&resourceVersion=0".to_owned(),
        "/apis/vpcresources.k8s.aws/v1beta1/securitygrouppolicies?resourceVersion=0".to_owned(),
        "/apis/vpcresources.k8s.aws/v1alpha1/cninodes?fieldSelector=metadata.name%3Dasked-node".to_owned(),
        "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs".to_owned(),
        "/apis/storage.k8s.io/v1/csinodes?fieldSelector=metadata.name%3Dasked-node".to_owned(),
        "/apis/networking.k8s.io/v1/networkpolicies".to_owned(),
        format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies?resourceVersion=0"),
        format!("/apis/networking.k8s.aws/v1alpha1/namespaces/{namespace}/policyendpoints?resourceVersion=0"),
        "/api/v1/namespaces/kube-system/configmaps/amazon-vpc-cni".to_owned(),
        "/api/v1/namespaces/kube-system/configmaps?fieldSelector=metadata.name%3Damazon-vpc-cni".to_owned(),
        format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.uid%3D{uid}"),
    ] {
        client.get(&path)?;
    }
    for path in [
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dasked-node",
        "/apis/vpcresources.k8s.aws/v1beta1/securitygrouppolicies",
        "/api/v1/services",
        "/api/v1/nodes?fieldSelector=metadata.name%3Dasked-node",
        "/api/v1/namespaces/kube-system/configmaps?fieldSelector=metadata.name%3Damazon-vpc-cni",
    ] {
        client.watch(path, "0")?;
    }
    tell_an_event(&client, &namespace, &pod)?;
    review_a_scraper(&server, &client, &account)?;

    for path in [
        "/api/v1/secrets".to_owned(),
        "/api/v1/namespaces/kube-system/configmaps".to_owned(),
        format!("/api/v1/namespaces/{namespace}/configmaps/amazon-vpc-cni"),
        format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
        "/apis/apps/v1/deployments".to_owned(),
    ] {
        assert_eq!(client.try_get(&path)?.status, 403, "GET {path}");
    }
    let web = format!("/api/v1/namespaces/{namespace}/pods/web");
    assert_eq!(client.try_delete(&web)?.status, 403);
    assert_eq!(client.try_patch(&web, &json!({ "metadata": { "labels": { "a": "b" } } }))?.status, 403);
    assert_eq!(client.try_post(&format!("{web}/exec?command=id"), &json!({}))?.status, 403);
    assert_eq!(client.try_post(&format!("{}/token", account.path()), &json!({}))?.status, 403);
    Ok(())
}

/// Both APIs of events.
fn tell_an_event(client: &Client, namespace: &str, pod: &Value) -> Result<()> {
    let metadata = &pod["metadata"];
    let about = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    });
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    client.post(
        &path,
        &json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": { "namespace": namespace, "name": "web.1" },
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "type": "Warning",
            "reason": "NodeCredentialsTaken",
            "action": "Observe",
            "note": "a test",
            "reportingController": "sekisho",
            "reportingInstance": "sekisho-x",
            "regarding": about,
        }),
    )?;
    let series = json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z" } });
    client.patch(&format!("{path}/web.1"), &series)?;
    client.post(
        &format!("/api/v1/namespaces/{namespace}/events"),
        &json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "namespace": namespace, "name": "web.2" },
            "type": "Warning",
            "reason": "NodeCredentialsTaken",
            "message": "a test",
            "involvedObject": about,
        }),
    )?;
    Ok(())
}

/// Who has a token, and whether he may read /metrics.
fn review_a_scraper(server: &Server, client: &Client, scraper: &Account) -> Result<()> {
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": { "token": server.token(scraper)? },
    });
    let answer = client.post("/apis/authentication.k8s.io/v1/tokenreviews", &review)?;
    assert_eq!(answer["status"]["user"]["username"], scraper.user());
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": { "user": scraper.user(), "nonResourceAttributes": { "path": "/metrics", "verb": "get" } },
    });
    let answer = client.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)?;
    assert_eq!(answer["status"]["allowed"], false);
    Ok(())
}
