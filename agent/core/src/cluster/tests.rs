//! What is kept of the cluster, what is left out, and what may not be concluded.

use super::*;
use crate::capacity::{Collector, Counter, CounterName, Scope};
use crate::facts::{HostFact, PodFacts, RemotePod, RemotePodName};
use crate::testing::{SECOND, pod, uid};
use crate::time::Moment;

const NOW: BootNs = BootNs(100 * SECOND);

fn told(pods: impl IntoIterator<Item = PodFacts>) -> ClusterFact {
    ClusterFact::PodsReplaced(pods.into_iter().map(Arc::new).collect())
}

fn name<'a>(cluster: &'a Cluster, uid: &str) -> Option<&'a str> {
    cluster.pods().of_cgroup(uid).map(|pod| &*pod.facts.name)
}

fn present(cluster: &Cluster) -> Vec<&str> {
    let mut names: Vec<_> = cluster.pods().present().map(|pod| &*pod.facts.name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_list_replaces_and_the_gone_keep_their_names_for_minutes() {
    let mut cluster = Cluster::default();
    assert!(!cluster.is_watched() && !cluster.pods().is_told());
    cluster.learn(told([pod(1), pod(2)]), NOW);
    cluster.learn(told([pod(2), pod(3)]), NOW);
    assert_eq!(present(&cluster), ["cart-2", "cart-3"]);
    assert_eq!(name(&cluster, &uid(1)), Some("cart-1"));
    cluster.learn(ClusterFact::PodGone { uid: uid(2).into() }, BootNs(NOW.0 + SECOND));
    let later = BootNs(NOW.0 + REMEMBER_GONE_NS + SECOND / 2);
    // One that came back is not forgotten with the others.
    cluster.learn(ClusterFact::Pod(Arc::new(pod(1))), later);
    cluster.expire(later);
    assert_eq!((name(&cluster, &uid(1)), name(&cluster, &uid(2))), (Some("cart-1"), Some("cart-2")));
    cluster.expire(BootNs(later.0 + SECOND));
    assert_eq!((name(&cluster, &uid(2)), cluster.pods().len()), (None, 2));
}

#[test]
fn a_uid_that_two_pods_claim_names_neither() {
    let mut cluster = Cluster::default();
    let twin = PodFacts { name: "impostor".into(), ..pod(1) };
    cluster.learn(told([pod(1), twin.clone(), pod(2)]), NOW);
    assert_eq!((name(&cluster, &uid(1)), name(&cluster, &uid(2))), (None, Some("cart-2")));
    assert_eq!(cluster.counts().contradicted, 1);
    // A list in which it is one pod's settles it; a single later claim unsettles it again.
    cluster.learn(told([pod(1)]), NOW);
    assert_eq!(name(&cluster, &uid(1)), Some("cart-1"));
    cluster.learn(ClusterFact::Pod(Arc::new(twin.clone())), NOW);
    assert_eq!(name(&cluster, &uid(1)), None);
    cluster.learn(told([twin]), NOW);
    assert_eq!(name(&cluster, &uid(1)), Some("impostor"));
}

#[test]
fn static_pods_are_found_by_their_hash() {
    let hash = "0123456789abcdef0123456789abcdef";
    let mirror = |n| PodFacts { config_hash: Some(hash.into()), ..pod(n) };
    let mut cluster = Cluster::default();
    cluster.learn(told([mirror(1)]), NOW);
    assert_eq!(name(&cluster, hash), Some("cart-1"));
    // The mirror is made anew with another uid: the latest counts.
    cluster.learn(told([mirror(2)]), NOW);
    assert_eq!(name(&cluster, hash), Some("cart-2"));
    // Two at a time: somebody lies.
    cluster.learn(told([mirror(2), mirror(3)]), NOW);
    assert_eq!(name(&cluster, hash), None);
    cluster.learn(told([]), NOW);
    assert!(name(&cluster, hash).is_some(), "gone, and not forgotten");
    cluster.expire(BootNs(NOW.0 + REMEMBER_GONE_NS + 1));
    assert_eq!((name(&cluster, hash), cluster.pods().len()), (None, 0));
}

#[test]
fn pods_of_other_nodes_and_without_uid_are_left_out() {
    let mut cluster = Cluster::default();
    let here = PodFacts { node: Some("node-1".into()), ..pod(1) };
    let there = PodFacts { node: Some("node-2".into()), ..pod(2) };
    let template = PodFacts { uid: None, ..pod(3) };
    cluster.learn(told([here, there.clone(), template]), NOW);
    assert_eq!(present(&cluster), ["cart-1", "cart-2"], "the node's name is not known yet");
    cluster.learn(ClusterFact::Node(Arc::new(NodeFacts { name: "node-1".into(), ..NodeFacts::default() })), NOW);
    assert_eq!(present(&cluster), ["cart-1"]);
    cluster.learn(ClusterFact::Pod(Arc::new(there)), NOW);
    assert_eq!(present(&cluster), ["cart-1"]);
    assert_eq!((cluster.counts().other_node, cluster.counts().without_uid), (2, 1));
}

#[test]
fn what_nobody_told_is_not_known() {
    let mut cluster = Cluster::default();
    let (namespace, name): (Arc<str>, Arc<str>) = ("shop".into(), "cart".into());
    assert_eq!((cluster.policies(), cluster.policies_installed()), (None, None));
    assert_eq!((cluster.account(&namespace, &name), cluster.cni_node(), cluster.events("x")), (None, None, None));
    cluster.learn(ClusterFact::PoliciesReplaced { policies: Vec::new(), installed: false }, NOW);
    assert_eq!((cluster.policies(), cluster.policies_installed()), (Some(vec![]), Some(false)));
    let gone = ClusterFact::ServiceAccountGone { namespace: namespace.clone(), name: name.clone() };
    cluster.learn(gone, NOW);
    assert_eq!(cluster.account(&namespace, &name), Some(&Found::Absent));
    cluster.learn(ClusterFact::CniNode(None), NOW);
    assert_eq!(cluster.cni_node(), Some(&Found::Absent));
    // Events of a pod that nobody knows are not kept.
    cluster.learn(ClusterFact::GroupEvents { uid: "x".into(), events: Vec::new() }, NOW);
    assert_eq!(cluster.events("x"), None);
}

#[test]
fn policies_by_namespace_and_name() {
    let policy = |namespace: &str, name: &str| {
        Arc::new(PolicyFacts { namespace: namespace.into(), name: name.into(), ..PolicyFacts::default() })
    };
    let mut cluster = Cluster::default();
    let policies = vec![policy("shop", "b"), policy("shops", "x"), policy("sho", "y"), policy("shop", "a")];
    cluster.learn(ClusterFact::PoliciesReplaced { policies, installed: true }, NOW);
    let names = |cluster: &Cluster| -> Vec<String> {
        let policies = cluster.policies().unwrap();
        policies.iter().map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect()
    };
    assert_eq!(names(&cluster), ["sho/y", "shop/a", "shop/b", "shops/x"]);
    cluster.learn(ClusterFact::PolicyGone { namespace: "shop".into(), name: "a".into() }, NOW);
    cluster.learn(ClusterFact::Policy(policy("shop", "c")), NOW);
    assert_eq!(names(&cluster), ["sho/y", "shop/b", "shop/c", "shops/x"]);
}

#[test]
fn tables_are_bounded_and_say_so() {
    let mut cluster = Cluster::default();
    let many = u32::try_from(MAX_PODS).unwrap() + 10;
    cluster.learn(told((0..many).map(pod)), NOW);
    assert_eq!((cluster.pods().len(), cluster.counts().no_room), (MAX_PODS, 10));
    // The gone make room.
    cluster.learn(told([]), NOW);
    cluster.learn(told([pod(many + 1)]), NOW);
    assert_eq!(present(&cluster), [format!("cart-{}", many + 1)]);
    assert_eq!(cluster.pods().len(), MAX_PODS);
    for n in 0..MAX_POLICIES + 5 {
        let policy = PolicyFacts { namespace: "shop".into(), name: n.to_string().into(), ..PolicyFacts::default() };
        cluster.learn(ClusterFact::Policy(Arc::new(policy)), NOW);
    }
    assert_eq!(cluster.counts().no_room, 15);
    for n in 0..MAX_ACCOUNTS + 5 {
        cluster.learn(ClusterFact::ServiceAccountGone { namespace: "other".into(), name: n.to_string().into() }, NOW);
    }
    assert!(cluster.account(&"other".into(), &(MAX_ACCOUNTS + 4).to_string().into()).is_some());
    assert!(cluster.account(&"other".into(), &"0".into()).is_none(), "no pod uses it");
}

#[test]
fn a_look_up_holds_for_its_time() {
    let ip: std::net::IpAddr = "10.0.9.9".parse().unwrap();
    let found = |name: &str| {
        let pod = RemotePodName { namespace: "db".into(), pod: name.into() };
        ClusterFact::RemotePod(RemotePod { ip, pod: Some(pod), at: WallNs(0) })
    };
    let mut cluster = Cluster::default();
    cluster.learn(found("pg-0"), NOW);
    let later = |ns| BootNs(NOW.0 + ns);
    assert_eq!(&*cluster.remote(ip, later(REMOTE_VALID_NS)).unwrap().pod, "pg-0");
    assert_eq!(cluster.remote(ip, later(REMOTE_VALID_NS + 1)), None);
    cluster.learn(found("pg-1"), later(SECOND));
    cluster.expire(later(REMOTE_VALID_NS + 1));
    assert_eq!(&*cluster.remote(ip, later(REMOTE_VALID_NS + 1)).unwrap().pod, "pg-1");
    // Nobody, or several: no name any more.
    cluster.learn(ClusterFact::RemotePod(RemotePod { ip, pod: None, at: WallNs(0) }), later(2 * SECOND));
    assert_eq!(cluster.remote(ip, later(3 * SECOND)), None);
}

#[test]
fn counters_tell_a_rise_only_between_readings_that_enclose_it() {
    let mut host = HostSide::default();
    let mut read = |second: u64, value| {
        let counters = vec![Counter { name: CounterName::IcmpTimeExceeded, scope: Scope::Node, value }];
        let now = Moment { boot: BootNs(second * SECOND), wall: WallNs(0) };
        host.learn(&HostFact::Counters { collector: Collector::Links, counters }, now);
        let rose = |from: u64, to: u64| host.time_exceeded().rose(BootNs(from * SECOND), BootNs(to * SECOND));
        (rose(5, 12), rose(15, 18))
    };
    assert_eq!(read(0, 7), (None, None));
    assert_eq!(read(10, 7), (None, None));
    assert_eq!(read(20, 9), (Some(true), Some(true)));
    // Began anew: nothing before is comparable.
    assert_eq!(read(30, 1), (None, None));
}
