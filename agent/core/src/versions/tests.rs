//! Which facts make a version, and which do not.

use std::sync::Arc;

use super::Known;
use crate::cluster::Cluster;
use crate::facts::{ClusterFact, NetworkPolicyFacts, Phase, PodFacts, ServiceAccountFacts};
use crate::output::{Change, ObjectFacts, ObjectKind, ObjectRow, Output};
use crate::papers::testing::{account, at, container, equal, node, pod, policy};
use crate::time::BootNs;

#[derive(Default)]
struct Bench {
    cluster: Cluster,
}

impl Bench {
    fn tell(&mut self, fact: ClusterFact) -> Vec<ObjectRow> {
        let mut outputs = Vec::new();
        let known = Known::before(&self.cluster, &fact);
        self.cluster.learn(fact, BootNs(1));
        known.tell(&self.cluster, at(300), &mut outputs);
        let rows = outputs.into_iter().map(|output| match output {
            Output::Object(row) => *row,
            other => panic!("{other:?}"),
        });
        rows.collect()
    }
}

fn shape(rows: &[ObjectRow]) -> Vec<(ObjectKind, &str, Change, Vec<&str>)> {
    rows.iter()
        .map(|row| (row.object, &*row.name, row.change, row.changed.iter().map(String::as_str).collect()))
        .collect()
}

fn other(name: &str) -> PodFacts {
    PodFacts { name: name.into(), uid: Some(format!("uid-of-{name}").into()), ..pod() }
}

#[test]
fn a_pod_has_a_version_for_each_thing_that_matters_and_none_for_readiness() {
    let mut bench = Bench::default();
    let pending = PodFacts { phase: Some(Phase::Pending), ips: Vec::new(), ..pod() };
    let seen = bench.tell(ClusterFact::Pod(Arc::new(pending.clone())));
    assert_eq!(shape(&seen), [(ObjectKind::Pod, "cart-0", Change::Seen, vec![])]);
    assert_eq!((seen[0].time, &*seen[0].workload, seen[0].uid.clone()), (at(300), "cart", pending.uid.clone()));
    assert_eq!(seen[0].facts, Some(ObjectFacts::Pod(Arc::new(pending))));

    let running = bench.tell(ClusterFact::Pod(Arc::new(pod())));
    assert_eq!(shape(&running), [(ObjectKind::Pod, "cart-0", Change::Changed, vec!["ips", "phase"])]);
    assert_ne!(running[0].digest, seen[0].digest);

    let mut ready = PodFacts { ready: true, ..pod() };
    (ready.containers[0].running, ready.containers[0].started) = (true, true);
    assert_eq!(bench.tell(ClusterFact::Pod(Arc::new(ready))), []);
    assert_eq!(bench.tell(ClusterFact::Pod(Arc::new(pod()))), []);

    let gone = bench.tell(ClusterFact::PodGone { uid: pod().uid.unwrap() });
    assert_eq!(shape(&gone), [(ObjectKind::Pod, "cart-0", Change::Gone, vec![])]);
    assert_eq!((gone[0].facts.clone(), &*gone[0].workload), (None, "cart"));
    assert_eq!(bench.tell(ClusterFact::PodGone { uid: pod().uid.unwrap() }), []);
}

#[test]
fn a_list_tells_who_is_gone_and_leaves_out_what_the_cluster_leaves_out() {
    let mut bench = Bench::default();
    bench.tell(ClusterFact::Node(Arc::new(node(None))));
    let elsewhere = PodFacts { node: Some("node-2".into()), ..other("elsewhere") };
    let unborn = PodFacts { uid: None, ..other("unborn") };
    let list = |pods: Vec<PodFacts>| ClusterFact::PodsReplaced(pods.into_iter().map(Arc::new).collect());
    let rows = bench.tell(list(vec![pod(), other("a"), elsewhere, unborn]));
    assert_eq!(
        shape(&rows),
        [(ObjectKind::Pod, "a", Change::Seen, vec![]), (ObjectKind::Pod, "cart-0", Change::Seen, vec![])]
    );
    let mut labelled = other("a");
    labelled.labels.insert("tier".to_owned(), "front".to_owned());
    let again = PodFacts { uid: Some("another".into()), ..pod() };
    let rows = bench.tell(list(vec![labelled, again]));
    let mut told = shape(&rows);
    told.sort();
    let wanted = [
        (ObjectKind::Pod, "a", Change::Changed, vec!["labels"]),
        // The same name, another pod.
        (ObjectKind::Pod, "cart-0", Change::Seen, vec![]),
        (ObjectKind::Pod, "cart-0", Change::Gone, vec![]),
    ];
    assert_eq!(told, wanted);
}

#[test]
fn policies_and_accounts_have_versions_too() {
    let mut bench = Bench::default();
    let policies = |policies: Vec<_>| ClusterFact::PoliciesReplaced {
        policies: policies.into_iter().map(Arc::new).collect(),
        installed: true,
    };
    let kind = ObjectKind::SecurityGroupPolicy;
    let rows = bench.tell(policies(vec![policy("a", &["sg-1"]), policy("b", &["sg-2"])]));
    assert_eq!(shape(&rows), [(kind, "a", Change::Seen, vec![]), (kind, "b", Change::Seen, vec![])]);
    let rows = bench.tell(policies(vec![policy("a", &["sg-1", "sg-3"])]));
    assert_eq!(shape(&rows), [(kind, "a", Change::Changed, vec!["groups"]), (kind, "b", Change::Gone, vec![])]);

    let network = |label| NetworkPolicyFacts {
        made_of: None,
        namespace: "shop".into(),
        name: "deny".into(),
        pod_selector: equal(&[("app", label)]),
        ingress_only: false,
        egress_only: false,
    };
    let told = |label| ClusterFact::NetworkPoliciesReplaced(vec![Arc::new(network(label))]);
    let kind = ObjectKind::NetworkPolicy;
    assert_eq!(shape(&bench.tell(told("cart"))), [(kind, "deny", Change::Seen, vec![])]);
    assert_eq!(bench.tell(told("cart")), []);
    assert_eq!(shape(&bench.tell(told("till"))), [(kind, "deny", Change::Changed, vec!["pod_selector"])]);

    let told = |role| ClusterFact::ServiceAccount(Arc::new(account(role)));
    let kind = ObjectKind::ServiceAccount;
    assert_eq!(shape(&bench.tell(told(None))), [(kind, "cart", Change::Seen, vec![])]);
    assert_eq!(bench.tell(told(None)), []);
    let role = Some("arn:aws:iam::111122223333:role/cart");
    assert_eq!(shape(&bench.tell(told(role))), [(kind, "cart", Change::Changed, vec!["role_arn"])]);
    let gone = ClusterFact::ServiceAccountGone { namespace: "shop".into(), name: "cart".into() };
    assert_eq!(shape(&bench.tell(gone)), [(kind, "cart", Change::Gone, vec![])]);
}

#[test]
fn facts_come_back_from_json_with_the_same_digest() {
    let mut whole = crate::papers::testing::branch_pod();
    whole.containers.push(container("sidecar"));
    let all = [
        ObjectFacts::Pod(Arc::new(whole)),
        ObjectFacts::SecurityGroupPolicy(Arc::new(policy("a", &["sg-1"]))),
        ObjectFacts::NetworkPolicy(Arc::default()),
        ObjectFacts::ServiceAccount(Arc::new(ServiceAccountFacts { uid: Some("u".into()), ..account(Some("role")) })),
    ];
    for facts in all {
        let json = serde_json::to_string(&facts).unwrap();
        let back = ObjectFacts::from_json(facts.object(), &json).unwrap();
        assert_eq!(back, facts);
        assert_eq!(super::digest(&back), super::digest(&facts));
    }
    assert!(ObjectFacts::from_json(ObjectKind::Pod, "{}").is_err());
}
