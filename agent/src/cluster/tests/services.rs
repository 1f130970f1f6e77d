//! Services: all of them by one watch; the API server's endpoints by a read now and then.

use std::time::Duration;

use agent_core::facts::{ClusterFact, Source};
use serde_json::{Value, json};

use super::asked::world;
use super::server::{Answer, Seen, World, empty, event, list, pod, status};

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn service(namespace: &str, name: &str, ip: &str, version: &str) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name, "resourceVersion": version},
        "spec": {"clusterIP": ip, "ports": [{"port": 80}]}})
}

fn slice(ip: &str) -> Value {
    json!({"metadata": {"namespace": "default", "name": "kubernetes", "resourceVersion": "3"},
        "addressType": "IPv4", "endpoints": [{"addresses": [ip]}], "ports": [{"port": 443}]})
}

fn named(fact: &ClusterFact) -> Option<String> {
    match fact {
        ClusterFact::ServicesReplaced(services) => {
            Some(services.iter().map(|service| &*service.name).collect::<Vec<_>>().join(" "))
        }
        ClusterFact::Service(service) => Some(format!("+{}", service.name)),
        ClusterFact::ServiceGone { name, .. } => Some(format!("-{name}")),
        _ => None,
    }
}

fn well(source: Source) -> impl Fn(&ClusterFact) -> bool {
    move |fact| matches!(fact, ClusterFact::Source { source: of, error: None, .. } if *of == source)
}

#[tokio::test]
async fn services_are_told_by_one_watch_and_those_without_addresses_are_not() {
    let (say, events) = tokio::sync::mpsc::unbounded_channel();
    let mut events = Some(events);
    let (mut world, _pods) = world(vec![pod("a", "2")], move |seen: &Seen, quiet| match seen.path.as_str() {
        SERVICES if seen.is_watch() => match events.take() {
            Some(events) => Answer::Stream(events),
            None => empty(seen, quiet),
        },
        SERVICES => list(&[service("shop", "web", "172.20.0.9", "2"), service("shop", "headless", "None", "2")], "5"),
        _ => empty(seen, quiet),
    })
    .await;
    let told = world.until(|fact| named(fact).is_some()).await;
    assert_eq!(named(told.last().unwrap()).unwrap(), "web");
    world.until(well(Source::Services)).await;
    let first = &world.of(SERVICES)[0];
    assert_eq!(first.parameter("resourceVersion").as_deref(), Some("0"), "from the server's cache");

    let of = |kind: &str, object: &Value| {
        let mut object = object.clone();
        (object["apiVersion"], object["kind"]) = (json!("v1"), json!("Service"));
        say.send(event(kind, &object)).unwrap();
    };
    of("ADDED", &service("shop", "api", "172.20.0.10", "6"));
    of("ADDED", &service("shop", "nobody", "None", "7"));
    of("MODIFIED", &service("shop", "web", "None", "8"));
    of("DELETED", &service("shop", "api", "172.20.0.10", "9"));
    let mut names = Vec::new();
    for _ in 0..3 {
        let told = world.until(|fact| named(fact).is_some()).await;
        names.extend(told.last().and_then(named));
    }
    assert_eq!(names, ["+api", "-web", "-api"]);
}

#[tokio::test]
async fn the_api_servers_endpoints_are_read_again_after_some_minutes() {
    let mut asked = 0;
    let (mut world, _pods) = world(vec![pod("a", "2")], move |seen: &Seen, quiet| match seen.path.as_str() {
        SLICES => {
            asked += 1;
            match asked {
                1 => status(403, "endpointslices is forbidden"),
                2 => list(&[slice("10.0.1.1"), slice("10.0.1.1")], "5"),
                _ => list(&[slice("10.0.1.2")], "6"),
            }
        }
        _ => empty(seen, quiet),
    })
    .await;
    let is_refused = |fact: &ClusterFact| {
        matches!(fact, ClusterFact::Source { source: Source::ApiEndpoints, error: Some(error), .. }
            if error == "403 endpointslices is forbidden")
    };
    world.until(is_refused).await;
    let endpoints = |ip: &str| {
        let all = vec![format!("{ip}:443").parse().unwrap()];
        move |fact: &ClusterFact| *fact == ClusterFact::ApiEndpoints(all.clone())
    };
    World::pass(Duration::from_mins(2)).await;
    world.until(endpoints("10.0.1.1")).await;
    world.until(well(Source::ApiEndpoints)).await;
    let question = &world.of(SLICES)[0];
    assert_eq!(
        question.parameter("labelSelector").as_deref(),
        Some("kubernetes.io/service-name=kubernetes".replace('/', "%2F").as_str())
    );
    let before = world.of(SLICES).len();
    World::pass(Duration::from_secs(390)).await;
    assert_eq!(world.of(SLICES).len(), before);
    World::pass(Duration::from_secs(220)).await;
    world.until(endpoints("10.0.1.2")).await;
}
