//! Connections of pods with security groups of their own.

use std::sync::Arc;

use agent_ebpf::shared::Account;
use agent_ebpf::wire::Outcome;

use super::bench::{Bench, enforced, links, with_probe};
use crate::facts::{ClusterFact, HostFact, NetworkPolicyFacts, PodFacts, PolicyFacts, ProbeKind, Selector, Source};
use crate::finding::rules::why;
use crate::finding::{Code, Severity};
use crate::input::{Input, KernelTotals, TcpFact, UdpFact};
use crate::testing::{CGROUP, cluster, ends, pod, pod_cgroup, tcp, udp};

pub(super) const DB: (&str, u16) = ("10.0.5.5", 5432);

pub(super) fn attempt(cgroup_id: u64, peer: (&str, u16), outcome: Outcome) -> TcpFact {
    let established = outcome == Outcome::Established;
    TcpFact {
        cgroup_id,
        outcome,
        established,
        retransmits: if established { 0 } else { 3 },
        srtt_us: established.then_some(300),
        bytes_sent: 0,
        bytes_received: 0,
        ends: ends("10.0.9.1", 40_000, peer.0, peer.1),
        ..tcp(1)
    }
}

/// A pod with groups of its own, one without, and an evaluation.
pub(super) fn strict() -> Bench {
    let mut bench = Bench::with_pods([enforced(1), pod(2)]);
    bench.host(links(&[(1, true)]));
    bench.wait(10);
    bench
}

/// Attempts of a fold each, ten seconds apart.
pub(super) fn tries(bench: &mut Bench, n: u32, times: u32, peer: (&str, u16), outcome: Outcome) {
    for _ in 0..times {
        bench.feed(Input::Tcp(attempt(pod_cgroup(n), peer, outcome)));
        bench.wait(10);
    }
}

pub(super) fn codes(bench: &Bench) -> Vec<Code> {
    bench.open().into_iter().map(|(code, ..)| code).collect()
}

// === sgp-blocked-flow ===

#[test]
fn a_peer_that_never_answers_is_found_after_three_attempts_over_half_a_minute() {
    let mut bench = strict();
    tries(&mut bench, 1, 3, DB, Outcome::TimedOut);
    assert_eq!(bench.open(), [], "over 20 s");
    tries(&mut bench, 1, 1, DB, Outcome::TimedOut);
    assert_eq!(bench.open(), [(Code::SgpBlockedFlow, Severity::Medium, "unanswered".to_owned())]);
    let row = bench.row(Code::SgpBlockedFlow);
    assert_eq!((&*row.subject.peer, row.count, &*row.subject.pod), ("10.0.5.5:5432/tcp", 4, "cart-1"));
    assert!(row.text.contains("Network policies are not known"), "{}", row.text);
    tries(&mut bench, 1, 1, DB, Outcome::TimedOut);
    assert_eq!(bench.row(Code::SgpBlockedFlow).count, 5);
    tries(&mut bench, 1, 1, DB, Outcome::Established);
    assert_eq!(bench.open(), []);
    // A success once: from now on it is a fail-over, or a dead host.
    tries(&mut bench, 1, 8, DB, Outcome::TimedOut);
    assert_eq!(bench.open(), []);
}

#[test]
fn answers_that_were_summed_up_are_not_said_to_be_none() {
    let summed_up = |direction: usize, outcome: Outcome| {
        let mut account = Account::default();
        account.merged_connections[direction][outcome.index()] = 3;
        let accounts = vec![(pod_cgroup(1), account)];
        Input::KernelTotals(Box::new(KernelTotals { accounts, ..KernelTotals::default() }))
    };
    for (direction, outcome, hides) in [
        (0, Outcome::Established, true),
        (0, Outcome::Refused, true),
        (0, Outcome::TimedOut, false),
        (1, Outcome::Established, false),
    ] {
        let mut bench = strict();
        bench.feed(summed_up(direction, outcome));
        tries(&mut bench, 1, 4, DB, Outcome::TimedOut);
        assert_eq!(bench.open().is_empty(), hides, "{direction} {outcome:?}");
        assert_eq!(
            bench.doubts(Code::SgpBlockedFlow).iter().any(|doubt| doubt == why::FORGOTTEN),
            hides,
            "{direction} {outcome:?}"
        );
    }
}

#[test]
fn others_that_get_answers_make_it_this_pods_and_others_that_do_not_make_it_the_peers() {
    let mut bench = strict();
    tries(&mut bench, 1, 2, DB, Outcome::TimedOut);
    tries(&mut bench, 2, 1, DB, Outcome::Established);
    tries(&mut bench, 1, 2, DB, Outcome::TimedOut);
    assert_eq!(bench.open(), [(Code::SgpBlockedFlow, Severity::Medium, "only_this_pod".to_owned())]);
    let mut bench = strict();
    tries(&mut bench, 1, 2, DB, Outcome::TimedOut);
    tries(&mut bench, 2, 1, DB, Outcome::TimedOut);
    tries(&mut bench, 1, 2, DB, Outcome::TimedOut);
    assert_eq!((bench.open(), bench.doubts(Code::SgpBlockedFlow)), (vec![], vec!["peer_answers_nobody".to_owned()]));
}

#[test]
fn answers_other_peers_and_pods_without_groups_are_no_blocked_flow() {
    let mut bench = strict();
    // Somebody refused: that is an answer.
    tries(&mut bench, 1, 5, DB, Outcome::Refused);
    tries(&mut bench, 1, 5, ("10.0.5.6", 1), Outcome::Unreachable);
    // Two to each of several peers.
    for port in 1..6 {
        tries(&mut bench, 1, 2, ("10.0.5.7", port), Outcome::TimedOut);
    }
    // Not enforced: its groups drop nothing.
    tries(&mut bench, 2, 6, DB, Outcome::TimedOut);
    // A caller that gives up before the SYN was sent again.
    for _ in 0..6 {
        let hasty = TcpFact { retransmits: 0, ..attempt(pod_cgroup(1), ("10.0.5.8", 1), Outcome::Aborted) };
        bench.feed(Input::Tcp(hasty));
        bench.wait(10);
    }
    assert_eq!(bench.open(), []);
    // One that gives up after it was.
    tries(&mut bench, 1, 4, ("10.0.5.9", 1), Outcome::Aborted);
    assert_eq!(codes(&bench), [Code::SgpBlockedFlow]);
}

#[test]
fn many_attempts_in_a_moment_are_one_odd_moment() {
    let mut bench = strict();
    for _ in 0..50 {
        bench.feed(Input::Tcp(attempt(pod_cgroup(1), DB, Outcome::TimedOut)));
    }
    bench.wait(120);
    assert_eq!(bench.open(), []);
}

#[test]
fn a_network_policy_is_about_its_direction() {
    let of = |ingress_only, egress_only| NetworkPolicyFacts {
        namespace: "shop".into(),
        name: "deny".into(),
        ingress_only,
        egress_only,
        ..NetworkPolicyFacts::default()
    };
    for (policy, is_kept_back) in [(of(true, false), false), (of(false, true), true), (of(false, false), true)] {
        let mut bench = strict();
        bench.feed(cluster(ClusterFact::NetworkPoliciesReplaced(vec![Arc::new(policy.clone())])));
        tries(&mut bench, 1, 6, DB, Outcome::TimedOut);
        assert_eq!(bench.open().is_empty(), is_kept_back, "{policy:?}");
    }
    // What enters the peer, where that is a pod of this node.
    let mut bench = Bench::with_pods([enforced(1), enforced(2)]);
    bench.host(links(&[(1, true), (2, true)]));
    bench.wait(10);
    bench.feed(cluster(ClusterFact::NetworkPoliciesReplaced(vec![Arc::new(of(true, false))])));
    tries(&mut bench, 1, 6, ("10.0.9.2", 5_432), Outcome::TimedOut);
    assert_eq!(bench.doubts(Code::SgpBlockedFlow), ["network_policy_selects_pod"]);
}

#[test]
fn a_network_policy_that_selects_the_pod_may_be_what_drops() {
    let policy = |selector: Selector| NetworkPolicyFacts {
        namespace: "shop".into(),
        name: "deny".into(),
        pod_selector: selector,
        ..NetworkPolicyFacts::default()
    };
    let mut bench = strict();
    bench.feed(cluster(ClusterFact::NetworkPoliciesReplaced(vec![Arc::new(policy(Selector::default()))])));
    tries(&mut bench, 1, 6, DB, Outcome::TimedOut);
    assert_eq!(bench.open(), []);
    assert_eq!(bench.doubts(Code::SgpBlockedFlow), ["network_policy_selects_pod"]);
    let named = bench.engine.ledger().doubts().flat_map(|row| row.objects).collect::<Vec<_>>();
    assert_eq!(named, [Arc::from("NetworkPolicy shop/deny")]);
    // Of what people wrote and what AWS's controller made of it the first is named; the second alone is named as well.
    let made = NetworkPolicyFacts { name: "a-x1".into(), made_of: Some("deny".into()), ..policy(Selector::default()) };
    for (all, named) in [
        (vec![made.clone(), policy(Selector::default())], "NetworkPolicy shop/deny"),
        (vec![made.clone()], "PolicyEndpoint shop/a-x1"),
    ] {
        let mut bench = strict();
        let all = all.into_iter().map(Arc::new).collect();
        bench.feed(cluster(ClusterFact::NetworkPoliciesReplaced(all)));
        tries(&mut bench, 1, 6, DB, Outcome::TimedOut);
        assert_eq!(bench.open(), []);
        let objects = bench.engine.ledger().doubts().flat_map(|row| row.objects).collect::<Vec<_>>();
        assert_eq!(objects, [Arc::from(named)]);
    }
    // One that selects others.
    let other = Selector { match_labels: [("app".to_owned(), "till".to_owned())].into(), ..Selector::default() };
    let mut bench = strict();
    bench.feed(cluster(ClusterFact::NetworkPoliciesReplaced(vec![Arc::new(policy(other))])));
    tries(&mut bench, 1, 6, DB, Outcome::TimedOut);
    assert_eq!(codes(&bench), [Code::SgpBlockedFlow]);
    let text = bench.row(Code::SgpBlockedFlow).text;
    assert!(!text.contains("etwork polic"), "{text}");
}

#[test]
fn network_policies_that_cannot_be_read_just_now_are_a_doubt_in_the_text() {
    let mut bench = strict();
    bench.feed(cluster(ClusterFact::NetworkPoliciesReplaced(Vec::new())));
    bench.feed(cluster(ClusterFact::Source {
        source: Source::NetworkPolicies,
        fresh_at: None,
        error: Some("403 networkpolicies is forbidden".to_owned()),
    }));
    tries(&mut bench, 1, 6, DB, Outcome::TimedOut);
    let text = bench.row(Code::SgpBlockedFlow).text;
    assert!(text.contains("Network policies cannot be read just now"), "{text}");
}

// === sgp-dns-blocked ===

pub(super) fn query(n: u32, resolver: &str, answered: bool) -> Input {
    let (outcome, bytes_received) = if answered { (Outcome::Established, 100) } else { (Outcome::OneWay, 0) };
    Input::Udp(UdpFact {
        cgroup_id: pod_cgroup(n),
        outcome,
        bytes_received,
        ends: ends("10.0.9.1", 40_000, resolver, 53),
        ..udp(1)
    })
}

#[test]
fn dns_is_blocked_when_others_get_answers_from_the_same_resolver() {
    let ask = |bench: &mut Bench, others: Option<bool>, times: u32| {
        for _ in 0..times {
            bench.feed(query(1, "172.20.0.10", false));
            if let Some(answered) = others {
                bench.feed(query(2, "172.20.0.10", answered));
            }
            bench.wait(10);
        }
    };
    let mut bench = strict();
    ask(&mut bench, Some(true), 4);
    assert_eq!(bench.open(), [(Code::SgpDnsBlocked, Severity::Medium, "groups".to_owned())]);
    bench.feed(query(1, "172.20.0.10", true));
    bench.wait(10);
    assert_eq!(bench.open(), []);
    // A resolver that is down for all, and one that nobody else asks.
    for others in [Some(false), None] {
        let mut bench = strict();
        ask(&mut bench, others, 6);
        assert_eq!((bench.open(), bench.doubts(Code::SgpDnsBlocked)), (vec![], vec!["peer_answers_nobody".to_owned()]));
    }
    // Another resolver answers others: that says nothing of this one.
    let mut bench = strict();
    for _ in 0..6 {
        bench.feed(query(1, "172.20.0.10", false));
        bench.feed(query(2, "10.0.0.2", true));
        bench.wait(10);
    }
    assert_eq!(bench.open(), []);
}

#[test]
fn a_network_policy_beside_the_groups_is_named_where_names_do_not_resolve() {
    let ask = |bench: &mut Bench| {
        for _ in 0..4 {
            bench.feed(query(1, "172.20.0.10", false));
            bench.feed(query(2, "172.20.0.10", true));
            bench.wait(10);
        }
        bench.row(Code::SgpDnsBlocked)
    };
    let deny = NetworkPolicyFacts { namespace: "shop".into(), name: "deny".into(), ..NetworkPolicyFacts::default() };
    let mut bench = strict();
    bench.feed(cluster(ClusterFact::NetworkPoliciesReplaced(vec![Arc::new(deny.clone())])));
    let row = ask(&mut bench);
    assert_eq!(row.cause, "groups_or_network_policy");
    assert!(row.text.contains("NetworkPolicy shop/deny") && row.advice.contains("NetworkPolicy"), "{row:?}");
    // One of another namespace, and one that nobody knows of.
    let other = NetworkPolicyFacts { namespace: "till".into(), ..deny };
    let mut bench = strict();
    bench.feed(cluster(ClusterFact::NetworkPoliciesReplaced(vec![Arc::new(other)])));
    let row = ask(&mut bench);
    assert!(row.cause == "groups" && !row.text.contains("etwork polic"), "{row:?}");
    let row = ask(&mut strict());
    assert!(row.cause == "groups" && row.text.contains("Network policies are not known"), "{row:?}");
}

#[test]
fn node_local_dns_is_out_of_reach_in_strict_mode() {
    let mut bench = strict();
    for _ in 0..4 {
        bench.feed(query(1, "169.254.20.10", false));
        bench.wait(10);
    }
    assert_eq!(bench.open(), [(Code::SgpDnsBlocked, Severity::Medium, "node_local_dns".to_owned())]);
    // In standard mode it is within reach, and no group judges the way to it.
    let mut bench = Bench::with_pods([enforced(1), pod(2)]);
    bench.host(links(&[(1, false)]));
    bench.wait(10);
    for _ in 0..6 {
        bench.feed(query(1, "169.254.20.10", false));
        bench.wait(10);
    }
    assert_eq!(bench.open(), []);
}

// === sgp-probe-blocked ===

/// The kubelet probes the pod's address.
pub(super) fn probes(bench: &mut Bench, port: u16, outcome: Outcome, times: u32) {
    bench.feed(Input::CgroupPresent { id: CGROUP, path: "/runtime.slice/kubelet.service".to_owned() });
    for _ in 0..times {
        bench.feed(Input::Tcp(TcpFact { retransmits: 0, ..attempt(CGROUP, ("10.0.9.1", port), outcome) }));
        bench.wait(10);
    }
}

pub(super) fn probed(kind: ProbeKind, early_demux: Option<bool>) -> Bench {
    let mut bench = Bench::with_pods([with_probe(enforced(1), kind, 8080)]);
    bench.host(links(&[(1, true)]));
    bench.host(HostFact::TcpEarlyDemux(early_demux));
    bench.wait(10);
    bench
}

#[test]
fn probes_that_time_out_are_found_with_their_cause() {
    for (early_demux, cause) in [(Some(true), "early_demux"), (Some(false), "node_group_ingress"), (None, "unknown")] {
        let mut bench = probed(ProbeKind::Http, early_demux);
        probes(&mut bench, 8080, Outcome::Aborted, 3);
        assert_eq!(bench.open(), []);
        probes(&mut bench, 8080, Outcome::Aborted, 1);
        assert_eq!(bench.open(), [(Code::SgpProbeBlocked, Severity::Medium, cause.to_owned())]);
        assert_eq!(&*bench.row(Code::SgpProbeBlocked).subject.pod, "cart-1");
        probes(&mut bench, 8080, Outcome::Established, 1);
        assert_eq!(bench.open(), []);
    }
    let mut ambient = with_probe(enforced(1), ProbeKind::Tcp, 8080);
    ambient.labels.insert("istio.io/dataplane-mode".to_owned(), "ambient".to_owned());
    let mut bench = Bench::with_pods([ambient]);
    bench.host(links(&[(1, true)]));
    bench.wait(10);
    probes(&mut bench, 8080, Outcome::TimedOut, 4);
    assert_eq!(bench.open()[0].2, "ambient_mesh");
}

#[test]
fn other_ports_exec_probes_and_containers_that_do_not_run_are_no_probes() {
    let mut bench = probed(ProbeKind::Exec, Some(true));
    probes(&mut bench, 8080, Outcome::TimedOut, 5);
    assert_eq!(bench.open(), []);
    let mut bench = probed(ProbeKind::Http, Some(true));
    probes(&mut bench, 9090, Outcome::TimedOut, 5);
    probes(&mut bench, 8080, Outcome::Refused, 5);
    assert_eq!(bench.open(), []);
    let mut waiting = with_probe(enforced(1), ProbeKind::Http, 8080);
    waiting.containers[0].running = false;
    let mut bench = Bench::with_pods([waiting]);
    bench.host(links(&[(1, true)]));
    bench.wait(10);
    probes(&mut bench, 8080, Outcome::TimedOut, 5);
    assert_eq!(bench.open(), []);
    // Not the kubelet: another process of the node, whose connections to a pod are nobody's probes.
    let mut bench = probed(ProbeKind::Http, Some(true));
    bench.feed(Input::CgroupPresent { id: CGROUP + 1, path: "/system.slice/scraper.service".to_owned() });
    for _ in 0..5 {
        bench.feed(Input::Tcp(attempt(CGROUP + 1, ("10.0.9.1", 8080), Outcome::TimedOut)));
        bench.wait(10);
    }
    assert_eq!(bench.open(), []);
}

// === strict mode and the Pod Identity agent; groups past by ===

#[test]
fn strict_mode_is_named_as_the_cause_of_an_unreachable_agent() {
    use super::bench::Request;
    use crate::input::MetadataOutcome;
    let mut bench = strict();
    for _ in 0..4 {
        bench.request(1, Request::agent(None, MetadataOutcome::Blocked));
        bench.wait(20);
    }
    assert_eq!(bench.open(), [(Code::PodIdentityUnreachable, Severity::Medium, "strict_mode".to_owned())]);
}

#[test]
fn connections_past_the_groups_are_counted_and_not_found() {
    let mut bench = Bench::with_pods([enforced(1)]);
    bench.host(links(&[(1, false)]));
    bench.wait(10);
    tries(&mut bench, 1, 3, ("93.184.216.34", 443), Outcome::Established);
    assert_eq!(bench.open(), []);
    let counts = bench.engine.ledger().verdicts().find(|(code, _)| *code == Code::SgpUnfilteredFlow).unwrap().1;
    assert_eq!(counts, [0, 0, 3]);
    assert_eq!(bench.doubts(Code::SgpUnfilteredFlow), ["rules_of_groups_unknown"]);
    // Within the VPC, as far as anybody knows; and in strict mode.
    tries(&mut bench, 1, 1, ("10.0.5.5", 443), Outcome::Established);
    bench.host(links(&[(1, true)]));
    bench.wait(10);
    tries(&mut bench, 1, 1, ("93.184.216.34", 443), Outcome::Established);
    let counts = bench.engine.ledger().verdicts().find(|(code, _)| *code == Code::SgpUnfilteredFlow).unwrap().1;
    assert_eq!(counts, [0, 0, 3]);
}

// === state, by the Engine ===

fn policy() -> PolicyFacts {
    PolicyFacts {
        namespace: "shop".into(),
        name: "cart".into(),
        generation: Some(3),
        pod_selector: Some(Selector::default()),
        groups: vec!["sg-1".into()],
        ..PolicyFacts::default()
    }
}

#[test]
fn a_pod_without_its_groups_is_critical_once_it_made_flows_that_they_should_have_judged() {
    let mut bench = Bench::with_pods([pod(1)]);
    bench.feed(cluster(ClusterFact::PoliciesReplaced { policies: vec![Arc::new(policy())], installed: true }));
    bench.host(links(&[]));
    bench.wait(10);
    assert_eq!(bench.open(), [], "one evaluation");
    bench.wait(10);
    let open = bench.open();
    assert_eq!((open.len(), open[0].0, open[0].1), (1, Code::SgpNotEnforced, Severity::High));
    let row = bench.row(Code::SgpNotEnforced);
    assert!(row.evidence.iter().any(|says| says.generation == Some(3)), "{:?}", row.evidence);
    // To the node itself: no group of the pod would have judged that.
    tries(&mut bench, 1, 2, ("127.0.0.1", 80), Outcome::Established);
    assert_eq!(bench.open()[0].1, Severity::High);
    tries(&mut bench, 1, 2, DB, Outcome::Established);
    assert_eq!(bench.open()[0].1, Severity::Critical);
    // Made anew with its interface.
    bench.feed(crate::testing::pods([enforced(2)]));
    bench.feed(Input::CgroupGone { id: pod_cgroup(1), time: bench.now() });
    bench.host(links(&[(2, true)]));
    bench.evaluate_twice();
    assert_eq!(codes(&bench), []);
}

#[test]
fn a_deployment_without_its_groups_is_one_finding() {
    let mut bench = Bench::with_pods((0..5).map(pod));
    bench.feed(cluster(ClusterFact::PoliciesReplaced { policies: vec![Arc::new(policy())], installed: true }));
    bench.host(links(&[]));
    bench.evaluate_twice();
    assert_eq!(bench.row(Code::SgpNotEnforced).pods_count, 5);
    assert_eq!(bench.told.iter().filter(|row| row.code == Code::SgpNotEnforced).count(), 1);
}

#[test]
fn nothing_is_judged_before_pods_were_listed_and_without_policies_nobody_can_tell() {
    let mut bench = Bench::new(crate::engine::EngineConfig::default());
    bench.feed(cluster(ClusterFact::Pod(Arc::new(pod(1)))));
    bench.evaluate_twice();
    assert_eq!(bench.engine.ledger().verdicts().map(|(_, counts)| counts.iter().sum::<u64>()).sum::<u64>(), 0);
    let mut bench = Bench::with_pods([pod(1)]);
    bench.evaluate_twice();
    assert_eq!(bench.open(), []);
    assert_eq!(bench.doubts(Code::SgpNotEnforced), ["policies_unknown"]);
}

#[test]
fn a_pod_whose_uid_two_claim_is_not_judged() {
    let twin = PodFacts { name: "impostor".into(), ..pod(1) };
    let mut bench = Bench::with_pods([pod(1), twin]);
    bench.feed(cluster(ClusterFact::PoliciesReplaced { policies: vec![Arc::new(policy())], installed: true }));
    bench.host(links(&[]));
    bench.evaluate_twice();
    assert_eq!(bench.open(), []);
}
