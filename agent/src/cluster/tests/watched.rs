//! Lists and watches that go wrong.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_core::facts::{ClusterFact, Source};
use serde_json::json;
use tokio::sync::mpsc;

use super::server::{
    Answer, BREAK, Quiet, Script, Seen, World, bookmark, empty, event, list, pod, status, status_value,
};

const PODS: &str = "/api/v1/pods";

/// Answers about pods by two scripts, everything else as an empty cluster does; a script that is over goes on quietly.
async fn world(lists: Vec<Answer>, watches: Vec<Answer>) -> World {
    let (mut lists, mut watches, mut quiet) = (Script::new(lists), Script::new(watches), Quiet::default());
    World::new(move |seen| match (seen.path == PODS, seen.is_watch()) {
        (true, true) => watches.next().unwrap_or_else(|| quiet.watch()),
        (true, false) => lists.next().unwrap_or_else(|| list(&[], "9999")),
        _ => empty(seen, &mut quiet),
    })
    .await
}

/// A watch and the way to speak in it.
fn watch() -> (mpsc::UnboundedSender<String>, Answer) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Answer::Stream(receiver))
}

fn is_pod(name: &str) -> impl Fn(&ClusterFact) -> bool {
    move |fact| matches!(fact, ClusterFact::Pod(pod) if &*pod.name == name)
}

fn replaced(fact: &ClusterFact) -> Option<Vec<String>> {
    match fact {
        ClusterFact::PodsReplaced(pods) => Some(pods.iter().map(|pod| pod.name.to_string()).collect()),
        _ => None,
    }
}

fn troubled(source: Source) -> impl Fn(&ClusterFact) -> bool {
    move |fact| matches!(fact, ClusterFact::Source { source: of, error: Some(_), .. } if *of == source)
}

fn well(source: Source) -> impl Fn(&ClusterFact) -> bool {
    move |fact| matches!(fact, ClusterFact::Source { source: of, error: None, fresh_at: Some(_) } if *of == source)
}

fn watches(seen: &[Seen]) -> Vec<Seen> {
    seen.iter().filter(|seen| seen.path == PODS && seen.is_watch()).cloned().collect()
}

#[tokio::test]
async fn pods_are_listed_from_the_cache_then_watched() {
    let (say, first) = watch();
    let mut world = world(vec![list(&[pod("a", "3")], "5")], vec![first]).await;
    let told = world.until(|fact| replaced(fact).is_some()).await;
    assert_eq!(replaced(told.last().unwrap()), Some(vec!["a".to_owned()]));
    world.until(well(Source::Pods)).await;

    say.send(event("ADDED", &pod("b", "6"))).unwrap();
    world.until(is_pod("b")).await;
    let mut same = pod("b", "7");
    same["metadata"]["annotations"] = json!({"seen": "by nobody"});
    say.send(event("MODIFIED", &same)).unwrap();
    say.send(event("DELETED", &pod("a", "8"))).unwrap();
    let told = world.until(|fact| matches!(fact, ClusterFact::PodGone { uid } if &**uid == "uid-a")).await;
    assert!(!told.iter().any(is_pod("b")), "what says nothing new is not told: {told:?}");
    // The server moves on, and ends the watch as it does every few minutes.
    say.send(bookmark("20")).unwrap();
    drop(say);
    let seen = world.until_seen(|seen| watches(seen).len() == 2).await;

    let listed = &world.of(PODS)[0];
    assert_eq!(listed.parameter("fieldSelector").as_deref(), Some("spec.nodeName=n1"));
    assert_eq!(listed.parameter("resourceVersion").as_deref(), Some("0"));
    assert_eq!(listed.parameter("limit"), None, "with a limit the server would ask etcd");
    let watches = watches(&seen);
    assert_eq!(watches[0].parameter("resourceVersion").as_deref(), Some("5"));
    assert_eq!(watches[0].parameter("allowWatchBookmarks").as_deref(), Some("true"));
    assert_eq!(watches[0].parameter("fieldSelector").as_deref(), Some("spec.nodeName=n1"));
    assert_eq!(watches[1].parameter("resourceVersion").as_deref(), Some("20"));
    assert_eq!(world.of(PODS).iter().filter(|seen| !seen.is_watch()).count(), 1, "listed once");
}

#[tokio::test]
async fn a_stream_cut_in_the_middle_goes_on_where_it_was() {
    let (say, first) = watch();
    let (again, second) = watch();
    let mut world = world(vec![list(&[], "5")], vec![first, second]).await;
    world.until(well(Source::Pods)).await;
    say.send(event("ADDED", &pod("a", "6"))).unwrap();
    world.until(is_pod("a")).await;
    let line = event("ADDED", &pod("b", "7"));
    say.send(line[..line.len() / 2].to_owned()).unwrap();
    say.send(BREAK.to_owned()).unwrap();
    let seen = world.until_seen(|seen| watches(seen).len() == 2).await;
    assert_eq!(watches(&seen)[1].parameter("resourceVersion").as_deref(), Some("6"));
    again.send(line).unwrap();
    world.until(is_pod("b")).await;
}

#[tokio::test]
async fn slow_answers_are_put_together() {
    let (say, first) = watch();
    let mut world = world(vec![list(&[], "5")], vec![first]).await;
    world.until(well(Source::Pods)).await;
    for piece in event("ADDED", &pod("slow", "6")).as_bytes().chunks(7) {
        say.send(String::from_utf8(piece.to_vec()).unwrap()).unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.until(is_pod("slow")).await;
}

#[tokio::test]
async fn a_malformed_object_is_named_and_the_others_are_right() {
    let (say, first) = watch();
    let mut broken = pod("broken", "3");
    broken["spec"]["containers"] = json!("none");
    let objects = [pod("a", "2"), broken.clone(), json!(7), json!({"metadata": "odd"}), pod("b", "4")];
    let mut world = world(vec![list(&objects, "5"), list(&[pod("c", "8")], "9")], vec![first]).await;
    let told = world.until(|fact| replaced(fact).is_some()).await;
    assert_eq!(replaced(told.last().unwrap()), Some(vec!["a".to_owned(), "b".to_owned()]));
    let malformed = |fact: &ClusterFact| match fact {
        ClusterFact::Malformed { source: Source::Pods, object, why } => Some((object.clone(), why.clone())),
        _ => None,
    };
    let named: Vec<_> = told.iter().filter_map(malformed).collect();
    assert_eq!(named.len(), 3, "{named:?}");
    assert_eq!(named[0], ("shop/broken".to_owned(), "spec.containers: expected a sequence".to_owned()));

    world.until(well(Source::Pods)).await;
    broken["metadata"]["resourceVersion"] = json!("6");
    say.send(event("MODIFIED", &broken)).unwrap();
    say.send(event("ADDED", &pod("d", "7"))).unwrap();
    let told = world.until(is_pod("d")).await;
    assert_eq!(told.iter().filter_map(malformed).count(), 1);
    // Something was said that nobody can read: all is listed anew, as fresh as what was known.
    say.send("{\"type\":\"ADDED\",\"object\":\n".to_owned()).unwrap();
    say.send("no JSON at all\n".to_owned()).unwrap();
    let told = world.until(|fact| replaced(fact).is_some()).await;
    assert_eq!(replaced(told.last().unwrap()), Some(vec!["c".to_owned()]));
    let lists: Vec<_> = world.of(PODS).into_iter().filter(|seen| !seen.is_watch()).collect();
    assert_eq!(lists.len(), 2);
    assert_eq!(lists[1].parameter("resourceVersion").as_deref(), Some("7"));
    assert_eq!(lists[1].parameter("resourceVersionMatch").as_deref(), Some("NotOlderThan"));
}

#[tokio::test]
async fn what_is_too_old_is_listed_anew_and_replaces() {
    let (say, first) = watch();
    // The first relist is behind, so the second asks the quorum.
    let behind = Answer::Json(
        504,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "Too large resource version: 6, current: 2",
            "reason": "Timeout", "code": 504, "details": {"causes": [{"reason": "ResourceVersionTooLarge", "message": "x"}], "retryAfterSeconds": 1}}),
    );
    let lists = vec![list(&[pod("a", "2"), pod("b", "3")], "5"), behind, list(&[pod("b", "30")], "40")];
    let mut world = world(lists, vec![first]).await;
    world.until(well(Source::Pods)).await;
    say.send(event("ADDED", &pod("c", "6"))).unwrap();
    world.until(is_pod("c")).await;
    say.send(event("ERROR", &status_value(410, "Expired"))).unwrap();
    world.until(troubled(Source::Pods)).await;
    let told = world.until(|fact| replaced(fact).is_some()).await;
    assert_eq!(replaced(told.last().unwrap()), Some(vec!["b".to_owned()]));
    world.until(well(Source::Pods)).await;
    let lists: Vec<_> = world.of(PODS).into_iter().filter(|seen| !seen.is_watch()).collect();
    let versions: Vec<_> = lists.iter().map(|seen| seen.parameter("resourceVersion")).collect();
    assert_eq!(versions, [Some("0".to_owned()), Some("6".to_owned()), None]);
}

#[tokio::test]
async fn pages_are_put_together() {
    let page = |name: &str, version: &str, next: &str| {
        Answer::Json(
            200,
            json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version, "continue": next}, "items": [pod(name, "2")]}),
        )
    };
    let mut world = world(vec![page("a", "5", "more"), page("b", "5", "")], Vec::new()).await;
    let told = world.until(|fact| replaced(fact).is_some()).await;
    assert_eq!(replaced(told.last().unwrap()), Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(world.of(PODS)[1].parameter("continue").as_deref(), Some("more"));
}

#[tokio::test]
async fn what_is_no_answer_of_an_api_server_is_asked_again_slowly() {
    let page = || Answer::Raw {
        status: 200,
        content_type: "text/html",
        headers: Vec::new(),
        body: "<html>sign in with canary</html>".to_owned(),
    };
    let none = || Answer::Json(200, json!({"hello": "world"}));
    let mut world = world(vec![page(), none(), list(&[pod("a", "2")], "5")], Vec::new()).await;
    let told = world.until(|fact| replaced(fact).is_some()).await;
    let errors: Vec<_> = told
        .iter()
        .filter_map(|fact| match fact {
            ClusterFact::Source { source: Source::Pods, error: Some(error), .. } => Some(error.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(!errors.iter().any(|error| error.contains("canary")), "{errors:?}");
    let lists: Vec<_> = world.of(PODS).into_iter().filter(|seen| !seen.is_watch()).collect();
    assert_eq!(lists.len(), 3);
    assert!(lists.windows(2).all(|two| two[1].at - two[0].at >= Duration::from_secs(1)), "{lists:?}");
}

#[tokio::test]
async fn watches_that_end_at_once_are_not_begun_in_a_hurry() {
    let ended = || {
        let (_, answer) = watch();
        answer
    };
    let mut world = world(vec![list(&[], "5")], vec![ended(), ended(), ended()]).await;
    let seen = world.until_seen(|seen| watches(seen).len() >= 3).await;
    let watches = watches(&seen);
    assert!(watches.windows(2).all(|two| two[1].at - two[0].at >= Duration::from_secs(1)), "{watches:?}");
}

#[tokio::test]
async fn a_refused_token_is_read_again() {
    let mut quiet = Quiet::default();
    let token: Arc<Mutex<String>> = Arc::new(Mutex::new("old".to_owned()));
    let accepted = Arc::clone(&token);
    let mut world = World::new(move |seen| {
        if seen.token != *accepted.lock().unwrap() {
            return status(401, "Unauthorized");
        }
        if seen.path == PODS && !seen.is_watch() { list(&[pod("a", "2")], "5") } else { empty(seen, &mut quiet) }
    })
    .await;
    world.until(well(Source::Pods)).await;
    // The old token expires before kube would look at the file by itself, which is after a minute.
    std::fs::write(world.directory.path().join("token"), "new").unwrap();
    *token.lock().unwrap() = "new".to_owned();
    World::pass(Duration::from_secs(320)).await;
    world.until(troubled(Source::Pods)).await;
    world.until(well(Source::Pods)).await;
    let refused = world.of(PODS).iter().filter(|seen| seen.token == "old").count();
    assert!(refused <= 5, "{refused} requests with the old token");
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it() {
    let later = Answer::Raw {
        status: 429,
        content_type: "text/plain",
        headers: vec![("Retry-After", "3".to_owned())],
        body: "Too many requests, please try again later.\n".to_owned(),
    };
    let mut world = world(vec![later, list(&[pod("a", "2")], "5")], Vec::new()).await;
    world.until(troubled(Source::Pods)).await;
    world.until(|fact| replaced(fact).is_some()).await;
    let lists: Vec<_> = world.of(PODS).into_iter().filter(|seen| !seen.is_watch()).collect();
    assert_eq!(lists.len(), 2);
    assert!(lists[1].at - lists[0].at >= Duration::from_millis(2_900), "{:?}", lists[1].at - lists[0].at);
}

#[tokio::test]
async fn who_may_not_list_asks_rarely() {
    let mut world = world(vec![status(403, "pods is forbidden"), list(&[], "5")], Vec::new()).await;
    let told = world.until(troubled(Source::Pods)).await;
    let Some(ClusterFact::Source { error: Some(error), fresh_at: None, .. }) = told.last() else { panic!("{told:?}") };
    assert_eq!(error, "403 pods is forbidden");
    World::pass(Duration::from_secs(20)).await;
    assert_eq!(world.of(PODS).len(), 1);
    World::pass(Duration::from_mins(1)).await;
    world.until(well(Source::Pods)).await;
}

#[tokio::test]
async fn pods_beyond_the_bound_are_counted() {
    let many: Vec<_> = (0..2_003).map(|n| pod(&format!("p{n}"), "3")).collect();
    let (say, first) = watch();
    let mut world = world(vec![list(&many, "5")], vec![first]).await;
    let no_room = |fact: &ClusterFact| match fact {
        ClusterFact::NoRoom { source: Source::Pods, objects } => Some(*objects),
        _ => None,
    };
    let told = world.until(|fact| no_room(fact).is_some()).await;
    assert_eq!(told.last().and_then(no_room), Some(3));
    assert_eq!(told.iter().find_map(replaced).map(|pods| pods.len()), Some(2_000));
    say.send(event("ADDED", &pod("more", "6"))).unwrap();
    let told = world.until(|fact| no_room(fact).is_some()).await;
    assert!(told.last().and_then(no_room) == Some(1) && !told.iter().any(is_pod("more")), "{told:?}");
    // One that is known may still change, and one that goes makes room.
    let mut changed = pod("p1", "7");
    changed["metadata"]["labels"] = json!({"app": "other"});
    say.send(event("MODIFIED", &changed)).unwrap();
    world.until(is_pod("p1")).await;
    say.send(event("DELETED", &pod("p0", "8"))).unwrap();
    say.send(event("ADDED", &pod("more", "9"))).unwrap();
    world.until(is_pod("more")).await;
}
