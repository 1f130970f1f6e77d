//! Requests to metadata services.

use super::bench::{Bench, Request, with_irsa};
use crate::capacity::{Collector, Counter, CounterName, Scope};
use crate::engine::EngineConfig;
use crate::facts::{ClusterFact, HostFact, PodFacts};
use crate::finding::{Code, Settings, Severity};
use crate::input::{Category, ImdsVersion, Input, MetadataOutcome, Method};
use crate::output::State;
use crate::papers::waivers::Waiver;
use crate::testing::{CGROUP, cluster, container_id, pod, pod_cgroup, pods, uid};
use crate::time::BootNs;

const ALL_STATUSES: [u16; 5] = [400, 401, 403, 404, 503];

fn codes(bench: &Bench) -> Vec<Code> {
    bench.open().into_iter().map(|(code, ..)| code).collect()
}

// === node-credentials-taken ===

#[test]
fn credentials_of_the_node_are_critical_for_whoever_has_its_own() {
    let mut bench = Bench::with_pods([pod(1), with_irsa(pod(2))]);
    bench.request(1, Request::new(Category::RoleCredentials));
    assert_eq!(bench.open(), [(Code::NodeCredentialsTaken, Severity::High, "no_identity".to_owned())]);
    let row = bench.row(Code::NodeCredentialsTaken);
    assert_eq!((&*row.subject.pod, &*row.subject.container, &*row.subject.uid), ("cart-1", "app", &*uid(1)));
    assert!(row.text.contains("node-role") && row.text.contains("container app of shop/cart-1"), "{}", row.text);
    let key = row.evidence.iter().find(|evidence| evidence.field == "access_key_id").unwrap();
    assert_eq!(key.value, "ASIAEXAMPLEEXAMPLE00");
    assert!(row.evidence.iter().any(|evidence| evidence.object == "process" && evidence.value.contains("aws[10]")));
    bench.request(2, Request::new(Category::RoleCredentials));
    assert_eq!(bench.open(), [(Code::NodeCredentialsTaken, Severity::Critical, "own_identity".to_owned())]);
    assert_eq!(bench.row(Code::NodeCredentialsTaken).pods_count, 2);
}

#[test]
fn a_list_of_roles_and_refusals_are_no_credentials() {
    let mut bench = Bench::with_pods([pod(1)]);
    bench.request(1, Request::new(Category::RoleList));
    for status in ALL_STATUSES {
        bench.request(1, Request::new(Category::RoleCredentials).status(status));
    }
    bench.request(1, Request { status: None, ..Request::new(Category::RoleCredentials) });
    bench.evaluate_twice();
    assert_eq!(bench.open(), []);
}

#[test]
fn containers_without_an_identity_beside_one_with_it_are_judged_by_themselves() {
    let mut two = with_irsa(pod(1));
    let skipped = PodFacts::clone(&pod(3)).containers.remove(0);
    two.containers.push(crate::facts::ContainerFacts { name: "skipped".into(), ..skipped });
    two.skip_containers = vec!["skipped".to_owned()];
    let mut bench = Bench::with_pods([two.clone()]);
    bench.feed(Input::CgroupPresent {
        id: pod_cgroup(3),
        path: format!("/kubepods/burstable/pod{}/{}", uid(1), container_id(3)),
    });
    bench.request(3, Request::new(Category::RoleCredentials));
    assert_eq!(bench.open()[0].1, Severity::High);
    assert_eq!(&*bench.row(Code::NodeCredentialsTaken).subject.container, "skipped");
    // A container that the status does not name: the containers differ, so it is not known.
    let unnamed = 9;
    bench.feed(Input::CgroupPresent {
        id: pod_cgroup(unnamed),
        path: format!("/kubepods/burstable/pod{}/{}", uid(1), container_id(unnamed)),
    });
    let mut bench = Bench::with_pods([two]);
    bench.feed(Input::CgroupPresent {
        id: pod_cgroup(unnamed),
        path: format!("/kubepods/burstable/pod{}/{}", uid(1), container_id(unnamed)),
    });
    bench.request(unnamed, Request::new(Category::RoleCredentials));
    assert_eq!(bench.open(), [(Code::NodeCredentialsTaken, Severity::High, "unknown_identity".to_owned())]);
    assert_eq!(&*bench.row(Code::NodeCredentialsTaken).subject.container, "");
}

#[test]
fn the_nodes_own_services_may_have_the_nodes_role() {
    let mut bench = Bench::with_pods([pod(1)]);
    bench.feed(Input::CgroupPresent { id: CGROUP, path: "/runtime.slice/kubelet.service".to_owned() });
    for cgroup_id in [CGROUP, crate::cgroup::ROOT_ID, 4_711] {
        let fact = Request::new(Category::RoleCredentials).fact(cgroup_id, bench.now());
        bench.feed(Input::Metadata(Box::new(fact)));
    }
    bench.evaluate_twice();
    assert_eq!(bench.open(), []);
}

#[test]
fn agents_of_aws_are_accepted_by_namespace_account_and_image_together() {
    let agent = |image: &str| {
        let mut agent = PodFacts { namespace: "kube-system".into(), service_account: "aws-node".into(), ..pod(1) };
        agent.host_network = true;
        agent.containers[0].image = image.into();
        agent
    };
    let image = "602401143452.dkr.ecr.eu-west-1.amazonaws.com/amazon-k8s-cni:v1.20.0";
    let mut bench = Bench::with_pods([agent(image)]);
    bench.request(1, Request::new(Category::RoleCredentials));
    assert_eq!(bench.open(), []);
    let row = bench.row(Code::NodeCredentialsTaken);
    assert!(row.state == State::Accepted && row.accepted_reason.is_some());
    // The same names with another image, and another pod on the host's network.
    let mut bench = Bench::with_pods([agent("registry.example/amazon-k8s-cni:v1.20.0")]);
    bench.request(1, Request::new(Category::RoleCredentials));
    assert_eq!(codes(&bench), [Code::NodeCredentialsTaken]);
    let mut bench = Bench::with_pods([PodFacts { host_network: true, ..pod(1) }]);
    bench.request(1, Request::new(Category::RoleCredentials));
    assert_eq!(codes(&bench), [Code::NodeCredentialsTaken]);
}

#[test]
fn a_waiver_of_the_configuration_accepts_until_its_end() {
    let until = crate::time::WallNs((super::bench::EPOCH + 100) * 1_000_000_000);
    let waiver = Waiver {
        code: Some(Code::NodeCredentialsTaken),
        namespace: Some("shop".to_owned()),
        reason: "moves next week".to_owned(),
        until: Some(until),
        ..Waiver::default()
    };
    let settings = Settings { waivers: vec![waiver], ..Settings::default() };
    let mut bench = Bench::new(EngineConfig { findings: settings, ..EngineConfig::default() });
    bench.know([pod(1)]);
    bench.request(1, Request::new(Category::RoleCredentials));
    bench.request(1, Request::new(Category::UserData));
    assert_eq!(codes(&bench), [Code::UserDataRead]);
    bench.wait(120);
    assert_eq!(codes(&bench), [Code::NodeCredentialsTaken, Code::UserDataRead]);
    let states: Vec<_> =
        bench.told.iter().filter(|row| row.code == Code::NodeCredentialsTaken).map(|row| row.state).collect();
    assert_eq!(states, [State::Accepted, State::Open]);
}

#[test]
fn what_the_agent_s_own_process_asks_is_no_finding() {
    for (own_pid, expected) in [(Some(10), vec![]), (Some(11), vec![Code::NodeCredentialsTaken])] {
        let settings = Settings { own_pid, ..Settings::default() };
        let mut bench = Bench::new(EngineConfig { findings: settings, ..EngineConfig::default() });
        bench.know([pod(1)]);
        bench.request(1, Request::new(Category::RoleCredentials));
        assert_eq!(codes(&bench), expected);
    }
}

#[test]
fn the_proxy_of_a_mesh_is_named() {
    let mut bench = Bench::with_pods([pod(1)]);
    bench.request(1, Request { program: "envoy", ..Request::new(Category::RoleCredentials) });
    assert!(bench.row(Code::NodeCredentialsTaken).text.contains("proxy of its mesh"));
}

#[test]
fn a_pod_without_a_name_is_found_and_goes_on_under_its_name() {
    let mut bench = Bench::new(EngineConfig::default());
    bench.feed(crate::testing::pod_present(1));
    bench.request(1, Request::new(Category::RoleCredentials));
    let before = bench.row(Code::NodeCredentialsTaken);
    assert_eq!((&*before.subject.namespace, &*before.subject.workload), ("", &*format!("pod-{}", uid(1))));
    bench.feed(pods([pod(1)]));
    bench.wait(10);
    let open: Vec<_> = bench.engine.ledger().rows().filter(|row| row.state == State::Open).collect();
    assert_eq!((open.len(), &*open[0].subject.pod, open[0].first_seen), (1, "cart-1", before.first_seen));
}

#[test]
fn it_stands_until_the_pod_is_gone_or_a_day_has_passed() {
    let mut bench = Bench::with_pods([pod(1)]);
    bench.request(1, Request::new(Category::RoleCredentials));
    bench.feed(cluster(ClusterFact::PodGone { uid: uid(1).into() }));
    bench.wait(20);
    assert_eq!(codes(&bench).len(), 1, "its cgroup is still there");
    bench.feed(Input::CgroupGone { id: pod_cgroup(1), time: bench.now() });
    bench.wait(10);
    assert_eq!(bench.open(), []);
    assert_eq!(bench.row(Code::NodeCredentialsTaken).state, State::Resolved);
}

// === other requests ===

#[test]
fn identity_credentials_and_user_data_are_found_when_they_were_given() {
    let mut bench = Bench::with_pods([pod(1)]);
    for status in ALL_STATUSES {
        bench.request(1, Request::new(Category::IdentityCredentials).status(status));
        bench.request(1, Request::new(Category::UserData).status(status));
    }
    // The account number beside the credentials.
    bench.request(1, Request { key: false, ..Request::new(Category::IdentityCredentials) });
    assert_eq!(bench.open(), []);
    bench.request(1, Request::new(Category::IdentityCredentials));
    bench.request(1, Request::new(Category::UserData));
    let expected = [
        (Code::IdentityCredentialsTaken, Severity::Medium, "taken".to_owned()),
        (Code::UserDataRead, Severity::Medium, "read".to_owned()),
    ];
    assert_eq!(bench.open(), expected);
}

#[test]
fn version_1_is_found_when_it_was_answered_and_meant_ec2() {
    let v1 = |category| Request { version: ImdsVersion::V1, ..Request::new(category) };
    let mut bench = Bench::with_pods([pod(1), pod(2)]);
    bench.request(1, v1(Category::Metadata).status(401));
    bench.request(1, v1(Category::OtherCloud));
    bench.request(1, v1(Category::Other));
    bench.request(1, Request::new(Category::Metadata));
    assert_eq!(bench.open(), []);
    bench.request(1, v1(Category::Metadata));
    bench.request(2, v1(Category::IdentityDocument));
    assert_eq!(bench.open(), [(Code::MetadataV1Used, Severity::Low, "no_token".to_owned())]);
    let row = bench.row(Code::MetadataV1Used);
    assert_eq!((row.pods_count, row.count), (2, 2), "one workload, one finding");
}

#[test]
fn forwarded_requests_are_found_whatever_came_back() {
    let mut bench = Bench::with_pods([pod(1)]);
    bench.request(1, Request { forwarded: true, ..Request::new(Category::Token).status(403) });
    assert_eq!(bench.open(), [(Code::MetadataForwarded, Severity::Medium, "forwarded".to_owned())]);
    let from = bench.row(Code::MetadataForwarded).evidence.into_iter().find(|says| says.field == "X-Forwarded-For");
    assert_eq!(from.unwrap().value, "10.9.9.9");
    // To the Pod Identity agent that is nobody's concern.
    let mut bench = Bench::with_pods([pod(1)]);
    bench.request(1, Request { forwarded: true, ..Request::agent(Some(200), MetadataOutcome::Ok) });
    assert_eq!(bench.open(), []);
}

// === metadata-unanswered ===

fn counter(bench: &mut Bench, name: CounterName, value: u64) {
    let scope = if name == CounterName::LinklocalExceeded { Scope::Interface("eth0".into()) } else { Scope::Node };
    let counters = vec![Counter { name, scope, value }];
    bench.host(HostFact::Counters { collector: Collector::Ena, counters });
}

/// A token is asked for between two readings of a counter.
fn between(bench: &mut Bench, n: u32, name: CounterName, before: u64, after: u64) {
    counter(bench, name, before);
    bench.wait(1);
    let fact = Request::unanswered_token().fact(pod_cgroup(n), bench.now());
    bench.wait(5);
    bench.feed(Input::Metadata(Box::new(fact)));
    bench.wait(1);
    counter(bench, name, after);
    bench.wait(1);
}

#[test]
fn an_unanswered_token_is_found_when_answers_died_on_the_node_meanwhile() {
    let mut bench = Bench::with_pods([pod(1)]);
    between(&mut bench, 1, CounterName::IcmpTimeExceeded, 3, 3);
    assert_eq!(bench.open(), []);
    assert_eq!(bench.doubts(Code::MetadataUnanswered), ["not_the_hop_limit"]);
    between(&mut bench, 1, CounterName::IcmpTimeExceeded, 3, 5);
    assert_eq!(bench.open(), [(Code::MetadataUnanswered, Severity::Low, "hop_limit".to_owned())]);
    let mut bench = Bench::with_pods([with_irsa(pod(1))]);
    between(&mut bench, 1, CounterName::IcmpTimeExceeded, 3, 5);
    assert_eq!(bench.open()[0].1, Severity::Info);
}

#[test]
fn throttling_is_named_instead() {
    let mut bench = Bench::with_pods([pod(1)]);
    counter(&mut bench, CounterName::LinklocalExceeded, 1);
    counter(&mut bench, CounterName::IcmpTimeExceeded, 1);
    let fact = Request::unanswered_token().fact(pod_cgroup(1), bench.now());
    bench.wait(5);
    bench.feed(Input::Metadata(Box::new(fact)));
    counter(&mut bench, CounterName::LinklocalExceeded, 2);
    counter(&mut bench, CounterName::IcmpTimeExceeded, 2);
    bench.wait(1);
    assert_eq!(bench.open()[0].2, "link_local_throttled");
}

#[test]
fn a_hop_limit_seen_by_the_node_suffices() {
    let token = |ttl| Request { method: Method::Put, ttl, ..Request::new(Category::Token) };
    let by_node = |bench: &mut Bench, ttl| {
        bench.feed(Input::CgroupPresent { id: CGROUP, path: "/system.slice/agent.service".to_owned() });
        let fact = token(ttl).fact(CGROUP, bench.now());
        bench.feed(Input::Metadata(Box::new(fact)));
    };
    let mut bench = Bench::with_pods([pod(1)]);
    by_node(&mut bench, 1);
    bench.request(1, Request::unanswered_token());
    bench.wait(1);
    assert_eq!(bench.open(), [(Code::MetadataUnanswered, Severity::Low, "hop_limit".to_owned())]);
    assert!(bench.row(Code::MetadataUnanswered).text.contains("hop limit is 1"));
    // One that suffices: something else lost the answer.
    let mut bench = Bench::with_pods([pod(1)]);
    by_node(&mut bench, 2);
    bench.request(1, Request::unanswered_token());
    bench.wait(1);
    assert_eq!((bench.open(), bench.doubts(Code::MetadataUnanswered)), (vec![], vec!["not_the_hop_limit".to_owned()]));
    // What a pod receives has crossed the node already: no measure of the limit.
    let mut bench = Bench::with_pods([pod(1)]);
    bench.request(1, token(1));
    bench.request(1, Request::unanswered_token());
    bench.wait(1);
    assert_eq!(bench.open(), []);
}

#[test]
fn without_counter_and_hop_limit_nobody_can_tell() {
    let mut bench = Bench::with_pods([pod(1)]);
    bench.request(1, Request::unanswered_token());
    bench.wait(130);
    assert_eq!(bench.open(), []);
    assert_eq!(bench.doubts(Code::MetadataUnanswered), ["no_counter_of_time_exceeded"]);
}

#[test]
fn dropped_syns_and_other_requests_are_not_unanswered_tokens() {
    let mut bench = Bench::with_pods([pod(1)]);
    let blocked = Request { outcome: Some(MetadataOutcome::Blocked), ..Request::unanswered_token() };
    let get = Request { method: Method::Get, category: Category::Metadata, ..Request::unanswered_token() };
    counter(&mut bench, CounterName::IcmpTimeExceeded, 1);
    bench.request(1, blocked);
    bench.request(1, get);
    bench.wait(5);
    counter(&mut bench, CounterName::IcmpTimeExceeded, 9);
    bench.wait(130);
    assert_eq!((bench.open(), bench.doubts(Code::MetadataUnanswered)), (vec![], vec![]));
}

// === Pod Identity ===

fn failing(bench: &mut Bench, seconds: &[u64], outcome: MetadataOutcome) {
    for wait in seconds {
        bench.wait(*wait);
        bench.request(1, Request::agent(None, outcome));
    }
}

#[test]
fn the_agent_is_unreachable_after_three_failures_over_a_minute() {
    let mut bench = Bench::with_pods([pod(1)]);
    failing(&mut bench, &[0, 20, 20, 19], MetadataOutcome::Failed);
    assert_eq!(bench.open(), [], "four failures in 59 s");
    failing(&mut bench, &[1], MetadataOutcome::Failed);
    assert_eq!(bench.open(), [(Code::PodIdentityUnreachable, Severity::Medium, "refused".to_owned())]);
    assert_eq!(bench.row(Code::PodIdentityUnreachable).count, 5);
    failing(&mut bench, &[1], MetadataOutcome::Blocked);
    let row = bench.row(Code::PodIdentityUnreachable);
    assert_eq!((row.count, &*row.cause), (6, "unanswered"));
    bench.request(1, Request::agent(Some(200), MetadataOutcome::Ok));
    assert_eq!(bench.open(), []);
}

#[test]
fn two_failures_far_apart_or_a_success_between_are_no_outage() {
    let mut bench = Bench::with_pods([pod(1)]);
    failing(&mut bench, &[0, 100], MetadataOutcome::Failed);
    bench.request(1, Request::agent(Some(200), MetadataOutcome::Ok));
    failing(&mut bench, &[1, 100], MetadataOutcome::Failed);
    // A refusal is an answer: the agent was reached.
    bench.request(1, Request::agent(Some(403), MetadataOutcome::Forbidden));
    failing(&mut bench, &[1, 100], MetadataOutcome::Failed);
    // Hours apart: another story.
    failing(&mut bench, &[4_000, 1], MetadataOutcome::Failed);
    assert_eq!(bench.open(), []);
}

#[test]
fn the_agent_refuses_after_three_refusals_without_a_success() {
    let refuse = |bench: &mut Bench, status| bench.request(1, Request::agent(Some(status), MetadataOutcome::Forbidden));
    let mut bench = Bench::with_pods([pod(1)]);
    refuse(&mut bench, 403);
    refuse(&mut bench, 403);
    bench.request(1, Request::agent(Some(200), MetadataOutcome::Ok));
    refuse(&mut bench, 403);
    refuse(&mut bench, 400);
    assert_eq!(bench.open(), []);
    refuse(&mut bench, 403);
    assert_eq!(bench.open(), [(Code::PodIdentityRefused, Severity::Medium, "denied".to_owned())]);
    refuse(&mut bench, 500);
    let row = bench.row(Code::PodIdentityRefused);
    assert_eq!((row.count, &*row.cause), (4, "failed"));
    bench.request(1, Request::agent(Some(200), MetadataOutcome::Ok));
    assert_eq!(bench.open(), []);
}

#[test]
fn since_when_a_pod_was_watched_is_told() {
    let created = crate::time::WallNs((super::bench::EPOCH + 3_000) * 1_000_000_000);
    let mut bench = Bench::with_pods([pod(1), PodFacts { created: Some(created), ..pod(2) }]);
    bench.request(1, Request::new(Category::UserData));
    let since_start = crate::time::WallNs((super::bench::EPOCH + 1) * 1_000_000_000);
    assert_eq!(bench.row(Code::UserDataRead).watched_since, since_start);
    assert_eq!(bench.now(), BootNs(1_000_000_000));
    let mut bench = Bench::with_pods([PodFacts { created: Some(created), ..pod(2) }]);
    bench.request(2, Request::new(Category::UserData));
    assert_eq!(bench.row(Code::UserDataRead).watched_since, created);
}
