//! Readings and objects that come late: nothing is decided before them.

use std::sync::Arc;

use super::bench::{Bench, Request, enforced, links};
use crate::capacity::{Collector, Counter, CounterName, Scope};
use crate::facts::{ClusterFact, HostFact, NodeFacts, Phase, PodFacts, PolicyFacts, Selector};
use crate::finding::{Code, Severity};
use crate::input::{Category, Input, Method};
use crate::testing::{CGROUP, cluster, pod, pod_present, pods};

// === metadata-unanswered ===

fn count(bench: &mut Bench, name: CounterName, value: u64) {
    let scope = if name == CounterName::LinklocalExceeded { Scope::Interface("eth0".into()) } else { Scope::Node };
    bench.host(HostFact::Counters { collector: Collector::Ena, counters: vec![Counter { name, scope, value }] });
}

/// A process of the node gets a token: the hop limit.
fn hop_limit(bench: &mut Bench, ttl: u8) {
    bench.feed(Input::CgroupPresent { id: CGROUP, path: "/system.slice/agent.service".to_owned() });
    let token = Request { method: Method::Put, ttl, ..Request::new(Category::Token) };
    let fact = token.fact(CGROUP, bench.now());
    bench.feed(Input::Metadata(Box::new(fact)));
}

fn cause(bench: &Bench) -> Vec<String> {
    bench.open().into_iter().map(|(_, _, cause)| cause).collect()
}

#[test]
fn throttling_is_named_although_its_counter_is_read_last() {
    for hops in [None, Some(1), Some(2)] {
        let mut bench = Bench::with_pods([pod(1)]);
        if let Some(hops) = hops {
            hop_limit(&mut bench, hops);
        }
        count(&mut bench, CounterName::LinklocalExceeded, 1);
        count(&mut bench, CounterName::IcmpTimeExceeded, 1);
        bench.wait(1);
        bench.request(1, Request::unanswered_token());
        bench.wait(5);
        count(&mut bench, CounterName::IcmpTimeExceeded, 1);
        bench.wait(20);
        assert_eq!((cause(&bench), bench.doubts(Code::MetadataUnanswered)), (vec![], vec![]), "{hops:?}");
        count(&mut bench, CounterName::LinklocalExceeded, 7);
        bench.wait(1);
        assert_eq!(cause(&bench), ["link_local_throttled"], "{hops:?}");
    }
}

#[test]
fn a_counter_that_is_not_read_any_more_is_not_waited_for_longer_than_two_minutes() {
    let mut bench = Bench::with_pods([pod(1)]);
    hop_limit(&mut bench, 1);
    count(&mut bench, CounterName::LinklocalExceeded, 1);
    bench.wait(1);
    bench.request(1, Request::unanswered_token());
    bench.wait(119);
    assert_eq!(bench.open(), []);
    bench.wait(5);
    assert_eq!(cause(&bench), ["hop_limit"]);
}

#[test]
fn a_hop_limit_that_was_lowered_since_is_seen_by_what_dies_on_the_node() {
    let mut bench = Bench::with_pods([pod(1)]);
    hop_limit(&mut bench, 2);
    count(&mut bench, CounterName::IcmpTimeExceeded, 3);
    bench.wait(1);
    bench.request(1, Request::unanswered_token());
    bench.wait(5);
    count(&mut bench, CounterName::IcmpTimeExceeded, 5);
    bench.wait(1);
    assert_eq!(bench.open(), [(Code::MetadataUnanswered, Severity::Low, "hop_limit".to_owned())]);
    let text = bench.row(Code::MetadataUnanswered).text;
    assert!(text.contains("ran out of hops") && !text.contains("hop limit is 2"), "{text}");
    // It stood still: the limit suffices, and something else lost the answer.
    let mut bench = Bench::with_pods([pod(1)]);
    hop_limit(&mut bench, 2);
    count(&mut bench, CounterName::IcmpTimeExceeded, 3);
    bench.wait(1);
    bench.request(1, Request::unanswered_token());
    bench.wait(5);
    count(&mut bench, CounterName::IcmpTimeExceeded, 3);
    bench.wait(1);
    assert_eq!((bench.open(), bench.doubts(Code::MetadataUnanswered)), (vec![], vec!["not_the_hop_limit".to_owned()]));
}

// === sgp-not-enforced ===

fn policies() -> Input {
    let policy = PolicyFacts {
        namespace: "shop".into(),
        name: "cart".into(),
        pod_selector: Some(Selector::default()),
        groups: vec!["sg-1".into()],
        ..PolicyFacts::default()
    };
    cluster(ClusterFact::PoliciesReplaced { policies: vec![Arc::new(policy)], installed: true })
}

#[test]
fn one_look_at_the_interfaces_from_before_the_pod_ran_proves_nothing() {
    let mut bench = Bench::with_pods([]);
    bench.feed(policies());
    bench.feed(cluster(ClusterFact::Pod(Arc::new(PodFacts { phase: Some(Phase::Pending), ..enforced(1) }))));
    bench.host(links(&[]));
    bench.wait(7);
    bench.feed(cluster(ClusterFact::Pod(Arc::new(enforced(1)))));
    bench.wait(40);
    let doubts = bench.doubts(Code::SgpNotEnforced);
    assert_eq!((bench.open(), doubts), (vec![], vec!["interfaces_older_than_pod".to_owned()]));
    // The next look shows what the CNI had made meanwhile.
    bench.host(links(&[(1, true)]));
    bench.evaluate_twice();
    assert_eq!((bench.open(), bench.doubts(Code::SgpNotEnforced)), (vec![], vec![]));
    // Or that it had not.
    bench.host(links(&[]));
    bench.evaluate_twice();
    assert_eq!(bench.open(), [(Code::SgpNotEnforced, Severity::High, "cni_ignored".to_owned())]);
}

#[test]
fn policies_are_not_judged_on_nodes_with_a_mechanism_of_their_own() {
    let none = PolicyFacts { namespace: "shop".into(), name: "none".into(), ..PolicyFacts::default() };
    let mut bench = Bench::with_pods([pod(1)]);
    let node = NodeFacts { compute_type: Some("auto".into()), ..NodeFacts::default() };
    bench.feed(cluster(ClusterFact::Node(Arc::new(node))));
    bench.feed(cluster(ClusterFact::PoliciesReplaced { policies: vec![Arc::new(none)], installed: true }));
    bench.evaluate_twice();
    assert_eq!((bench.open(), bench.doubts(Code::SgpInvalid)), (vec![], vec!["auto_mode".to_owned()]));
}

// === credentials ===

#[test]
fn an_account_that_was_not_read_is_not_taken_for_one_without_a_role() {
    let mut bench = Bench::new(crate::engine::EngineConfig::default());
    bench.feed(pod_present(1));
    bench.feed(pods([pod(1)]));
    bench.request(1, Request::new(Category::RoleCredentials));
    assert_eq!(bench.open(), [(Code::NodeCredentialsTaken, Severity::High, "unknown_identity".to_owned())]);
    // It is gone: what it named cannot be known any more.
    let mut bench = Bench::with_pods([pod(1)]);
    bench.feed(cluster(ClusterFact::ServiceAccountGone { namespace: "shop".into(), name: "cart".into() }));
    bench.request(1, Request::new(Category::RoleCredentials));
    assert_eq!(cause(&bench), ["unknown_identity"]);
    // A container that the webhook leaves alone has none, whatever the account says.
    let skipped = PodFacts { skip_containers: vec!["app".to_owned()], ..pod(1) };
    let mut bench = Bench::with_pods([skipped]);
    bench.feed(cluster(ClusterFact::ServiceAccountGone { namespace: "shop".into(), name: "cart".into() }));
    bench.request(1, Request::new(Category::RoleCredentials));
    assert_eq!(cause(&bench), ["no_identity"]);
}

#[test]
fn an_answer_of_which_the_key_was_not_seen_may_have_held_credentials() {
    let mut bench = Bench::with_pods([pod(1)]);
    let unseen = Request { key: false, ..Request::new(Category::IdentityCredentials) };
    bench.request(1, unseen.clone());
    assert_eq!((bench.open(), bench.doubts(Code::IdentityCredentialsTaken)), (vec![], vec!["key_not_seen".to_owned()]));
    let mut bench = Bench::with_pods([pod(1)]);
    bench.request(1, unseen.status(404));
    assert_eq!((bench.open(), bench.doubts(Code::IdentityCredentialsTaken)), (vec![], vec![]));
}
