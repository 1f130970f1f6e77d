//! Peers that no group judges, or that the groups of a pod in standard mode never see.

use agent_ebpf::wire::Outcome;

use super::bench::{Bench, enforced, links, with_probe};
use super::flows::{DB, attempt, codes, probes, query, strict, tries};
use crate::facts::{HostFact, Phase, PodFacts, ProbeKind};
use crate::finding::{Code, Severity};
use crate::input::Input;
use crate::testing::{CGROUP, pod, pod_cgroup};

/// Of a peer on the internet.
const OUTSIDE: (&str, u16) = ("93.184.216.34", 443);

/// How pod 1 was made, as far as its interfaces tell.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Made {
    Strict,
    Standard,
    /// Its host veth is not there.
    Unknown,
}

fn made(how: Made) -> HostFact {
    match (how, links(&[(1, how == Made::Strict)])) {
        (Made::Unknown, HostFact::Links(mut all)) => {
            all.retain(|link| !link.name.starts_with("eni"));
            HostFact::Links(all)
        }
        (_, all) => all,
    }
}

/// Pod 1 with groups, pod 2 without and at `10.0.9.2`.
fn two(how: Made) -> Bench {
    let other = PodFacts { ips: vec!["10.0.9.2".parse().unwrap()], ..pod(2) };
    let mut bench = Bench::with_pods([enforced(1), other]);
    bench.host(made(how));
    bench.wait(10);
    bench
}

#[test]
fn services_that_no_group_judges_are_no_blocked_flow() {
    for how in [Made::Strict, Made::Standard] {
        for peer in [
            ("169.254.169.254", 80),
            ("169.254.170.23", 80),
            ("169.254.169.123", 123),
            ("fd00:ec2::254", 80),
            ("fd00:ec2::23", 80),
            ("fe80::1", 443),
            ("127.0.0.1", 8080),
            ("::1", 8080),
        ] {
            let mut bench = two(how);
            for _ in 0..5 {
                bench.feed(Input::Tcp(attempt(pod_cgroup(2), peer, Outcome::Established)));
                tries(&mut bench, 1, 1, peer, Outcome::TimedOut);
            }
            let doubts = bench.doubts(Code::SgpBlockedFlow);
            assert_eq!((bench.open(), doubts), (vec![], vec![]), "{peer:?} {how:?}");
        }
    }
}

#[test]
fn the_vpcs_resolver_is_judged_by_no_group() {
    for resolver in ["169.254.169.253", "fd00:ec2::253"] {
        let mut bench = strict();
        for _ in 0..5 {
            bench.feed(query(1, resolver, false));
            bench.feed(query(2, resolver, true));
            bench.wait(10);
        }
        assert_eq!((bench.open(), bench.doubts(Code::SgpDnsBlocked)), (vec![], vec![]), "{resolver}");
    }
}

#[test]
fn what_standard_mode_does_not_filter_is_not_the_groups_fault() {
    for (peer, why) in [(OUTSIDE, "not_filtered_in_standard_mode"), (("10.0.9.2", 8080), "no_group_judges_it")] {
        let mut bench = two(Made::Standard);
        tries(&mut bench, 1, 5, peer, Outcome::TimedOut);
        let doubts = bench.doubts(Code::SgpBlockedFlow);
        assert_eq!((bench.open(), doubts), (vec![], vec![why.to_owned()]), "{peer:?}");
        let mut bench = two(Made::Unknown);
        tries(&mut bench, 1, 5, peer, Outcome::TimedOut);
        let doubts = bench.doubts(Code::SgpBlockedFlow);
        assert_eq!((bench.open(), doubts), (vec![], vec!["mode_unknown".to_owned()]), "{peer:?}");
        // In strict mode everything goes through the groups.
        let mut bench = two(Made::Strict);
        tries(&mut bench, 1, 5, peer, Outcome::TimedOut);
        assert_eq!(codes(&bench), [Code::SgpBlockedFlow], "{peer:?}");
    }
    // Inside the VPC, as far as anybody knows.
    for how in [Made::Standard, Made::Unknown] {
        let mut bench = two(how);
        tries(&mut bench, 1, 5, DB, Outcome::TimedOut);
        assert_eq!(codes(&bench), [Code::SgpBlockedFlow], "{how:?}");
    }
}

#[test]
fn a_resolver_that_standard_mode_does_not_filter_is_not_the_groups_fault() {
    for (resolver, how, why) in [
        ("10.0.9.2", Made::Standard, "no_group_judges_it"),
        ("169.254.20.10", Made::Standard, "no_group_judges_it"),
        ("8.8.8.8", Made::Standard, "not_filtered_in_standard_mode"),
        ("10.0.9.2", Made::Unknown, "mode_unknown"),
        ("169.254.20.10", Made::Unknown, "mode_unknown"),
    ] {
        let mut bench = two(how);
        for _ in 0..5 {
            bench.feed(query(1, resolver, false));
            bench.feed(query(2, resolver, true));
            bench.wait(10);
        }
        let doubts = bench.doubts(Code::SgpDnsBlocked);
        assert_eq!((bench.open(), doubts), (vec![], vec![why.to_owned()]), "{resolver} {how:?}");
    }
}

#[test]
fn probes_of_a_pod_in_standard_mode_pass_no_group() {
    for (how, doubts) in [(Made::Standard, vec![]), (Made::Unknown, vec!["mode_unknown".to_owned()])] {
        for early_demux in [Some(true), Some(false), None] {
            let mut bench = Bench::with_pods([with_probe(enforced(1), ProbeKind::Http, 8080)]);
            bench.host(made(how));
            bench.host(HostFact::TcpEarlyDemux(early_demux));
            bench.wait(10);
            probes(&mut bench, 8080, Outcome::TimedOut, 5);
            assert_eq!((bench.open(), bench.doubts(Code::SgpProbeBlocked)), (vec![], doubts.clone()), "{how:?}");
        }
    }
}

#[test]
fn a_finished_pod_does_not_keep_the_address_that_another_has_now() {
    let finished = (2..10).map(|n| PodFacts {
        ips: vec!["10.0.9.1".parse().unwrap()],
        phase: Some(if n % 2 == 0 { Phase::Succeeded } else { Phase::Failed }),
        ..pod(n)
    });
    let mut bench = Bench::with_pods(std::iter::once(with_probe(enforced(1), ProbeKind::Http, 8080)).chain(finished));
    bench.host(links(&[(1, true)]));
    bench.host(HostFact::TcpEarlyDemux(Some(true)));
    bench.wait(10);
    probes(&mut bench, 8080, Outcome::TimedOut, 5);
    assert_eq!(bench.open(), [(Code::SgpProbeBlocked, Severity::Medium, "early_demux".to_owned())]);
    bench.feed(Input::Tcp(attempt(CGROUP, ("10.0.9.1", 8080), Outcome::Established)));
    bench.wait(10);
    assert_eq!(bench.open(), []);
}
