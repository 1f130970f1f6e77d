//! The harness against the server: what the other tests count on is so.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::kube::{Server, manifests};
use system_tests::scale;

/// The version of a list.
fn version(list: &Value) -> Result<String> {
    Ok(list["metadata"]["resourceVersion"].as_str().context("a list without version")?.to_owned())
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

#[test]
fn a_list_and_a_watch_of_a_nodes_pods() -> Result<()> {
    let mut server = Server::take()?;
    let namespace = server.namespace("watched")?;
    let pods = format!("/api/v1/namespaces/{namespace}/pods?fieldSelector=spec.nodeName%3Dhere");
    server.admin.create_all(vec![
        manifests::pod(&namespace, "mine", "here"),
        manifests::pod(&namespace, "others", "elsewhere"),
    ])?;

    let list = server.admin.get(&pods)?;
    assert_eq!(names(&list), ["mine"]);

    let mine = format!("/api/v1/namespaces/{namespace}/pods/mine");
    server.admin.patch_status_of_all(vec![(mine.clone(), manifests::running("10.0.0.1", "c1"))])?;
    server.admin.delete(&mine)?;
    let events = server.admin.watch(&pods, &version(&list)?)?;
    let mut kinds: Vec<_> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    // A server may say first that a pod is about to go.
    kinds.dedup();
    ensure!(kinds.starts_with(&["MODIFIED", "DELETED"]), "{kinds:?}");
    assert_eq!(events[0]["object"]["status"]["podIP"], "10.0.0.1");
    Ok(())
}

#[test]
fn versions_that_were_compacted_are_gone() -> Result<()> {
    let mut server = Server::take()?;
    let namespace = server.namespace("compacted")?;
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let old = version(&server.admin.get(&pods)?)?;
    server.admin.create_all((0..3).map(|n| manifests::pod(&namespace, &format!("p{n}"), "here")).collect())?;

    let exact = format!("{pods}?resourceVersion={old}&resourceVersionMatch=Exact&limit=1");
    assert_eq!(server.admin.try_get(&exact)?.status, 200);
    server.compact()?;
    assert_eq!(server.admin.try_get(&exact)?.status, 410);
    assert_eq!(names(&server.admin.get(&pods)?), ["p0", "p1", "p2"]);

    // The server's memory of changes begins anew with it, and etcd has none to give either.
    server.kill()?;
    ensure!(server.admin.try_get(&pods).is_err(), "a killed server answers");
    server.restart()?;
    let events = server.admin.watch(&pods, &old)?;
    ensure!(events.iter().any(|event| event["type"] == "ERROR" && event["object"]["code"] == 410), "{events:#?}");
    Ok(())
}

#[test]
fn a_token_ends_when_it_should() -> Result<()> {
    let mut server = Server::take()?;
    let namespace = server.namespace("tokens")?;
    let account = server.make_account(&namespace, "somebody")?;
    let path = "/api/v1/namespaces/default/pods";

    let lasting = server.client(&server.token(&account)?)?;
    let short = server.client(&server.short_token(&account, 5)?)?;
    // Known, and without a role.
    assert_eq!(lasting.try_get(path)?.status, 403);
    assert_eq!(short.try_get(path)?.status, 403);

    // The server remembers a good token for ten seconds.
    let end = Instant::now() + scale::deadline();
    while short.try_get(path)?.status != 401 {
        ensure!(Instant::now() < end, "a token of five seconds is still good");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(lasting.try_get(path)?.status, 403);
    Ok(())
}

#[test]
fn definitions_hold_objects_to_their_form() -> Result<()> {
    let mut server = Server::take()?;
    let namespace = server.namespace("defined")?;
    server.forget_aws_objects()?;
    let policies = format!("/apis/vpcresources.k8s.aws/v1beta1/namespaces/{namespace}/securitygrouppolicies");
    assert_eq!(server.admin.try_get(&policies)?.status, 404);

    server.define_aws_objects()?;
    server.admin.apply(&manifests::security_group_policy(&namespace, "good", "web", &["sg-1", "sg-2"]))?;
    assert_eq!(names(&server.admin.get(&policies)?), ["good"]);
    let empty = manifests::security_group_policy(&namespace, "empty", "web", &[]);
    assert_eq!(server.admin.try_post(&policies, &empty)?.status, 422);
    let mut unknown = json!({
        "apiVersion": "vpcresources.k8s.aws/v1alpha1",
        "kind": "CNINode",
        "metadata": { "name": "here" },
        "spec": { "features": [{ "name": "SecurityGroupsForPods" }] },
    });
    server.admin.apply(&unknown)?;
    unknown["spec"]["features"][0]["name"] = json!("Teleportation");
    ensure!(server.admin.apply(&unknown).is_err(), "a node may have any feature");
    Ok(())
}

#[test]
fn thousands_of_pods_are_made_and_selected() -> Result<()> {
    let mut server = Server::take()?;
    let namespace = server.namespace("many")?;
    let (all, here) = (5_000, 110);
    let started = Instant::now();
    let node = |n| if n < here { "crowded".to_owned() } else { format!("other-{}", n % 100) };
    server.admin.create_all((0..all).map(|n| manifests::pod(&namespace, &format!("p{n}"), &node(n))).collect())?;
    println!("{all} pods made in {:?}", started.elapsed());

    let selected = "/api/v1/pods?fieldSelector=spec.nodeName%3Dcrowded&resourceVersion=0";
    let end = Instant::now() + scale::deadline();
    while names(&server.admin.get(selected)?).len() != here {
        ensure!(Instant::now() < end, "the watch cache does not know all pods of the node");
        std::thread::sleep(scale::LOOK);
    }
    assert_eq!(names(&server.admin.get(&format!("/api/v1/namespaces/{namespace}/pods"))?).len(), all);
    server.admin.delete(&format!("/api/v1/namespaces/{namespace}"))
}

/// Whether a process is there and is no zombie.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

fn wait_until_gone(what: &str, mut is_there: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + scale::deadline();
    while is_there() {
        ensure!(Instant::now() < end, "{what} is still there");
        std::thread::sleep(scale::LOOK);
    }
    Ok(())
}

#[test]
fn nothing_outlives_a_control_plane() -> Result<()> {
    let home = tempfile::tempdir()?;
    let directory = home.path().join("plane");
    let mut server = Server::start(&directory)?;
    let pids = server.pids()?;
    ensure!(pids.len() == 4 && pids.iter().all(|&pid| runs(pid)), "{pids:?} do not all run");
    server.kill_runner()?;
    wait_until_gone("a program of a killed control plane", || pids.iter().any(|&pid| runs(pid)))?;
    ensure!(directory.exists(), "a killed control plane cannot remove its directory");

    // The next one takes over what is left; it ends with its owner's end of the pipe.
    let mut server = Server::start(&directory)?;
    let pids = server.pids()?;
    drop(server);
    wait_until_gone("a program of an ended control plane", || pids.iter().any(|&pid| runs(pid)))?;
    ensure!(!directory.exists(), "the directory of an ended control plane is still there");
    Ok(())
}
