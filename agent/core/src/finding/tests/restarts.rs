//! What was found before a restart, and what is not known any more after it.

use agent_ebpf::wire::Outcome;

use super::bench::{Bench, EPOCH, Request, enforced, links, with_probe};
use super::flows::{DB, attempt, codes, probes, query, strict, tries};
use super::traffic::{SPAN, seen, span, watched};
use crate::capacity::{Collector, Limit, Resource, Sample, Scope};
use crate::engine::EngineConfig;
use crate::facts::{ClusterFact, HostFact, PodFacts, ProbeKind, Source};
use crate::finding::{Code, Severity};
use crate::input::{Category, Input};
use crate::output::State;
use crate::testing::{CGROUP, cluster, pod, pod_cgroup, pod_present, pods};
use crate::time::WallNs;

/// The agent is made anew, with what it had found.
fn restarted(before: &Bench) -> Bench {
    let mut bench = Bench::new(EngineConfig::default());
    bench.engine.restore(before.engine.ledger().snapshot(), true).unwrap();
    bench
}

fn strict_again(before: &Bench) -> Bench {
    let mut bench = restarted(before);
    bench.know([with_probe(enforced(1), ProbeKind::Http, 8080), pod(2)]);
    bench.host(links(&[(1, true)]));
    bench.wait(20);
    bench
}

#[test]
fn a_success_after_a_restart_ends_what_was_blocked_before() {
    let mut before = Bench::with_pods([with_probe(enforced(1), ProbeKind::Http, 8080), pod(2)]);
    before.host(links(&[(1, true)]));
    before.wait(10);
    before.feed(Input::CgroupPresent { id: CGROUP, path: "/runtime.slice/kubelet.service".to_owned() });
    for _ in 0..5 {
        before.feed(query(1, "172.20.0.10", false));
        before.feed(query(2, "172.20.0.10", true));
        before.feed(Input::Tcp(attempt(pod_cgroup(1), DB, Outcome::TimedOut)));
        before.feed(Input::Tcp(attempt(CGROUP, ("10.0.9.1", 8080), Outcome::TimedOut)));
        before.wait(10);
    }
    let all = [Code::SgpBlockedFlow, Code::SgpDnsBlocked, Code::SgpProbeBlocked];
    assert_eq!(codes(&before), all);
    let mut bench = strict_again(&before);
    assert_eq!(codes(&bench), all);
    tries(&mut bench, 1, 1, DB, Outcome::Established);
    assert_eq!(codes(&bench), all[1..]);
    bench.feed(query(1, "172.20.0.10", true));
    bench.wait(10);
    assert_eq!(codes(&bench), all[2..]);
    probes(&mut bench, 8080, Outcome::Established, 1);
    assert_eq!(codes(&bench), []);
    // Also when it failed again since.
    let mut bench = strict_again(&before);
    tries(&mut bench, 1, 1, DB, Outcome::TimedOut);
    tries(&mut bench, 1, 1, DB, Outcome::Established);
    assert_eq!(codes(&bench), all[1..]);
}

// === what was so before the watch ===

fn made_at(second: i64) -> Bench {
    let created = Some(WallNs((EPOCH + second) * 1_000_000_000));
    let mut bench = Bench::with_pods([PodFacts { created, ..enforced(1) }, pod(2)]);
    bench.host(links(&[(1, true)]));
    bench.wait(10);
    bench
}

#[test]
fn a_pod_older_than_the_watch_may_have_had_answers_before() {
    let mut bench = made_at(-100);
    tries(&mut bench, 1, 5, DB, Outcome::TimedOut);
    assert_eq!((bench.open(), bench.doubts(Code::SgpBlockedFlow)), (vec![], vec!["pod_older_than_watch".to_owned()]));
    // Others get answers meanwhile: no fail-over. What is not known is not said.
    let mut bench = made_at(-100);
    for _ in 0..5 {
        bench.feed(Input::Tcp(attempt(pod_cgroup(2), DB, Outcome::Established)));
        tries(&mut bench, 1, 1, DB, Outcome::TimedOut);
    }
    assert_eq!(bench.open(), [(Code::SgpBlockedFlow, Severity::Medium, "only_this_pod".to_owned())]);
    let text = bench.row(Code::SgpBlockedFlow).text;
    assert!(text.contains("none answered since the agent watches"), "{text}");
    // Watched from its first moment on.
    let mut bench = made_at(1);
    bench.wait(10);
    bench.host(links(&[(1, true)]));
    bench.wait(10);
    tries(&mut bench, 1, 5, DB, Outcome::TimedOut);
    assert_eq!(codes(&bench), [Code::SgpBlockedFlow]);
    assert!(bench.row(Code::SgpBlockedFlow).text.contains("none ever answered"));
}

#[test]
fn what_was_found_before_a_restart_goes_on_being_counted() {
    let mut before = strict();
    tries(&mut before, 1, 4, DB, Outcome::TimedOut);
    let count = before.row(Code::SgpBlockedFlow).count;
    let mut bench = restarted(&before);
    let created = Some(WallNs((EPOCH - 100) * 1_000_000_000));
    bench.know([PodFacts { created, ..enforced(1) }, pod(2)]);
    bench.host(links(&[(1, true)]));
    bench.wait(20);
    tries(&mut bench, 1, 5, DB, Outcome::TimedOut);
    assert_eq!(codes(&bench), [Code::SgpBlockedFlow]);
    assert!(bench.row(Code::SgpBlockedFlow).count > count);
}

// === state that takes long to prove ===

#[test]
fn an_interface_that_moved_too_much_stays_found_until_a_span_proves_otherwise() {
    let excess = (20_000_000, 15_000);
    let (mut before, mut total) = watched();
    (0..2).for_each(|_| span(&mut before, 1_000_000, &mut total, excess, 0));
    assert_eq!(codes(&before), [Code::TrafficUnaccounted]);
    let mut bench = restarted(&before);
    bench.know([pod(1), pod(2)]);
    bench.host(HostFact::Pods(vec![seen(1, Some(0)), seen(2, Some(0))]));
    bench.wait(SPAN);
    assert_eq!(codes(&bench), [Code::TrafficUnaccounted], "no interface was read yet");
    bench.host(HostFact::Links(vec![super::traffic::link(1, total.0, total.1)]));
    bench.evaluate_twice();
    span(&mut bench, 1_000_000, &mut total, excess, 0);
    assert_eq!(codes(&bench), [Code::TrafficUnaccounted], "one span exceeds");
    span(&mut bench, 20_000_000, &mut total, excess, 0);
    assert_eq!(codes(&bench), []);
}

fn threads(used: u64) -> HostFact {
    let sample = Sample {
        resource: Resource::Threads,
        scope: Scope::Node,
        used: Some(used),
        limit: Limit::Of(1_000),
        source: "/proc/loadavg".into(),
    };
    HostFact::Samples { collector: Collector::Threads, samples: vec![sample] }
}

#[test]
fn a_ceiling_that_nobody_reads_after_a_restart_stays_as_it_was_found() {
    let mut before = Bench::with_pods([]);
    for _ in 0..12 {
        before.host(threads(990));
        before.wait(10);
    }
    let found = codes(&before);
    assert_eq!(found, [Code::CapacityExhausted]);
    let mut bench = restarted(&before);
    bench.know([]);
    bench.wait(600);
    assert_eq!((codes(&bench), bench.doubts(Code::CapacityExhausted).len()), (found, 1));
    for _ in 0..12 {
        bench.host(threads(10));
        bench.wait(10);
    }
    assert_eq!((codes(&bench), bench.doubts(Code::CapacityExhausted).len()), (vec![], 0));
}

// === pods that are not told again yet ===

/// A pod of the CNI's own agent.
fn aws_node() -> PodFacts {
    let mut pod = PodFacts { namespace: "kube-system".into(), service_account: "aws-node".into(), ..pod(1) };
    pod.containers[0].image = "602401143452.dkr.ecr.eu-west-1.amazonaws.com/amazon-k8s-cni:v1.20.0".into();
    pod
}

fn no_api(bench: &mut Bench) {
    let error = Some("connection refused".to_owned());
    bench.feed(cluster(ClusterFact::Source { source: Source::Pods, fresh_at: None, error }));
}

#[test]
fn an_accepted_finding_stays_accepted_until_its_pod_is_told() {
    let mut before = Bench::with_pods([aws_node()]);
    before.request(1, Request::new(Category::RoleCredentials));
    assert_eq!(before.row(Code::NodeCredentialsTaken).state, State::Accepted);
    for waits in [false, true] {
        let mut bench = restarted(&before);
        bench.feed(pod_present(1));
        if waits {
            no_api(&mut bench);
        }
        bench.wait(120);
        bench.request(1, Request::new(Category::RoleCredentials));
        bench.wait(10);
        let restored = bench.engine.ledger().rows().find(|row| !row.subject.namespace.is_empty()).unwrap();
        assert_eq!(restored.state, State::Accepted);
        assert!(bench.told.iter().all(|row| row.id != restored.id || row.state == State::Accepted), "{:?}", bench.told);
        // It is told, with another image under the same name: no waiver holds.
        let mut other = aws_node();
        other.containers[0].image = "registry.example/other:1".into();
        bench.know([other]);
        bench.wait(20);
        let states: Vec<_> = bench.engine.ledger().rows().filter(|row| row.id == restored.id).collect();
        assert_eq!(states.iter().map(|row| row.state).collect::<Vec<_>>(), [State::Open]);
    }
}

#[test]
fn a_static_pod_is_not_over_because_nobody_told_it_again_yet() {
    let hash = "11112222333344445555666677778888";
    let fixed = PodFacts { config_hash: Some(hash.into()), ..pod(1) };
    let cgroup = || Input::CgroupPresent {
        id: 4_321,
        path: format!("/kubepods/burstable/pod{hash}/{}", crate::testing::container_id(1)),
    };
    let mut before = Bench::with_pods([fixed.clone()]);
    before.feed(cgroup());
    let fact = Request::new(Category::UserData).fact(4_321, before.now());
    before.feed(Input::Metadata(Box::new(fact)));
    assert_eq!(codes(&before), [Code::UserDataRead]);
    let mut bench = restarted(&before);
    bench.feed(cgroup());
    no_api(&mut bench);
    bench.wait(600);
    assert_eq!(codes(&bench), [Code::UserDataRead]);
    bench.know([fixed]);
    bench.wait(20);
    assert_eq!(codes(&bench), [Code::UserDataRead]);
    // Gone, object and cgroup.
    bench.feed(pods([]));
    for id in [4_321, pod_cgroup(1)] {
        bench.feed(Input::CgroupGone { id, time: bench.now() });
    }
    bench.wait(20);
    assert_eq!(codes(&bench), []);
}
