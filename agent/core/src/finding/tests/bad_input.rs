//! Objects that nobody should write, and clocks that jump: counted, named, never a false finding.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::bench::{Bench, EPOCH, enforced, links};
use crate::facts::{
    Branch, ClusterFact, ContainerFacts, Expression, PodFacts, PolicyFacts, Selector, ServiceAccountFacts, Source,
};
use crate::finding::Code;
use crate::input::Input;
use crate::output::State;
use crate::testing::{SECOND, cluster, pod, pods};
use crate::time::{BootNs, WallNs};

fn policy() -> PolicyFacts {
    PolicyFacts {
        namespace: "shop".into(),
        name: "all".into(),
        pod_selector: Some(Selector::default()),
        groups: vec!["sg-1".into()],
        ..PolicyFacts::default()
    }
}

fn with_policy(pod: PodFacts) -> Bench {
    let mut bench = Bench::with_pods([pod]);
    bench.feed(cluster(ClusterFact::PoliciesReplaced { policies: vec![Arc::new(policy())], installed: true }));
    bench.host(links(&[]));
    bench
}

#[test]
fn an_annotation_that_cannot_be_read_and_a_pod_without_status_are_cannot_tell() {
    let malformed = PodFacts { branch: Branch::Malformed("10,000 entries".to_owned()), ..pod(1) };
    let mut bench = with_policy(malformed);
    bench.evaluate_twice();
    assert_eq!((bench.open(), bench.doubts(Code::SgpNotEnforced)), (vec![], vec!["annotation_unreadable".to_owned()]));
    let mut bench = with_policy(PodFacts { phase: None, containers: Vec::new(), ..pod(1) });
    bench.evaluate_twice();
    assert_eq!((bench.open(), bench.doubts(Code::SgpNotEnforced)), (vec![], vec!["no_status".to_owned()]));
}

#[test]
fn labels_and_names_at_their_limits_are_only_long() {
    let labels: BTreeMap<_, _> = (0..2_000).map(|n| (format!("{}/{n:063}", "a".repeat(253)), "v".repeat(63))).collect();
    let long = PodFacts {
        labels,
        namespace: "n".repeat(63).into(),
        name: "p".repeat(253).into(),
        containers: (0..200)
            .map(|n| ContainerFacts { name: format!("c{n:0>60}").into(), ..ContainerFacts::default() })
            .collect(),
        ..pod(1)
    };
    let selector = Selector {
        match_labels: BTreeMap::new(),
        match_expressions: (0..1_000)
            .map(|n| Expression { key: n.to_string(), operator: "Sometimes".to_owned(), values: Vec::new() })
            .collect(),
    };
    let mut bench = Bench::with_pods([long]);
    let odd = PolicyFacts { namespace: "n".repeat(63).into(), pod_selector: Some(selector), ..policy() };
    bench.feed(cluster(ClusterFact::PoliciesReplaced { policies: vec![Arc::new(odd)], installed: true }));
    bench.evaluate_twice();
    let codes: Vec<_> = bench.open().into_iter().map(|(code, ..)| code).collect();
    assert_eq!(codes, [Code::SgpInvalid], "the selector is none, and nothing else is wrong");
}

#[test]
fn malformed_objects_are_counted_by_source() {
    let mut bench = Bench::with_pods([pod(1)]);
    for n in 0..3 {
        let object = format!("shop/odd-{n}");
        bench.feed(cluster(ClusterFact::Malformed { source: Source::Pods, object, why: "no JSON".to_owned() }));
    }
    bench.evaluate_twice();
    let sources: Vec<_> =
        bench.engine.cluster().sources().map(|(source, standing)| (source, standing.malformed)).collect();
    assert_eq!((sources, bench.engine.cluster().counts().malformed), (vec![(Source::Pods, 3)], 3));
    assert_eq!(bench.open(), []);
}

/// Ticks with a wall clock of their own; boot time goes on.
fn jump(bench: &mut Bench, from: u64, wall_seconds: &[i64]) {
    for (n, wall) in (from..).step_by(10).zip(wall_seconds) {
        bench.feed(Input::Tick { boot: BootNs(n * SECOND), wall: WallNs((EPOCH + wall) * 1_000_000_000) });
    }
}

#[test]
fn clocks_that_jump_open_and_end_nothing() {
    let decade = 315_360_000;
    let walls = [0, decade, -decade, 10, -decade, decade, 20];
    // All is well, and stays so.
    let mut bench = with_policy(enforced(1));
    bench.host(links(&[(1, true)]));
    jump(&mut bench, 100, &walls);
    assert_eq!(bench.told, []);
    // All is not well, and stays so.
    let mut bench = with_policy(pod(1));
    bench.evaluate_twice();
    let before = bench.open();
    assert_eq!(before.len(), 1);
    bench.told.clear();
    jump(&mut bench, 100, &walls);
    assert_eq!((bench.open(), bench.told.len()), (before, 0));
}

fn any_fact() -> impl Strategy<Value = ClusterFact> {
    let number = 0_u32..4;
    let innocent = |n: u32| Arc::new(pod(n));
    let twin = |n: u32| Arc::new(PodFacts { name: format!("twin-{n}").into(), ..pod(n) });
    let account = |n: u32| {
        Arc::new(ServiceAccountFacts {
            namespace: "shop".into(),
            name: "cart".into(),
            labels: [("n".to_owned(), n.to_string())].into(),
            ..ServiceAccountFacts::default()
        })
    };
    prop_oneof![
        proptest::collection::vec(number.clone(), 0..6)
            .prop_map(move |list| ClusterFact::PodsReplaced(list.into_iter().map(innocent).collect())),
        number.clone().prop_map(move |n| ClusterFact::Pod(innocent(n))),
        number.clone().prop_map(move |n| ClusterFact::Pod(twin(n))),
        number.clone().prop_map(|n| ClusterFact::PodGone { uid: crate::testing::uid(n).into() }),
        number.clone().prop_map(move |n| ClusterFact::ServiceAccount(account(n))),
        Just(ClusterFact::ServiceAccountGone { namespace: "shop".into(), name: "cart".into() }),
        any::<bool>().prop_map(|installed| ClusterFact::PoliciesReplaced { policies: Vec::new(), installed }),
        number.prop_map(|n| ClusterFact::GroupEvents { uid: crate::testing::uid(n).into(), events: Vec::new() }),
        Just(ClusterFact::CniNode(None)),
        any::<Option<i64>>().prop_map(|fresh_at| ClusterFact::Source {
            source: Source::Pods,
            fresh_at: fresh_at.map(WallNs),
            error: None
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever order facts about innocent pods come in, and whatever the clocks do: nothing is found, nothing panics.
    #[test]
    fn innocent_pods_in_any_order_give_no_finding(
        facts in proptest::collection::vec((any_fact(), 0_u64..15, any::<i64>()), 0..40)
    ) {
        let mut bench = Bench::with_pods([pod(0)]);
        let mut second = 10;
        for (fact, wait, wall) in facts {
            second += wait;
            bench.feed(Input::Tick { boot: BootNs(second * SECOND), wall: WallNs(wall) });
            bench.feed(cluster(fact));
        }
        bench.feed(pods([]));
        bench.feed(Input::Stop);
        prop_assert!(bench.told.iter().all(|row| row.state == State::Resolved), "{:?}", bench.told);
        prop_assert_eq!(bench.told.len(), 0);
    }
}
