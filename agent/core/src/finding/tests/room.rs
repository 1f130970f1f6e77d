//! What finds no room in the rules is counted.

use agent_ebpf::wire::Outcome;

use super::bench::{Bench, Request};
use super::flows::{DB, attempt};
use crate::engine::EngineConfig;
use crate::input::{Input, MetadataOutcome};
use crate::testing::{pod, pod_cgroup, pod_present};

fn refused(bench: &Bench) -> u64 {
    bench.engine.ledger().refused()
}

#[test]
fn unanswered_requests_that_are_given_up_are_counted() {
    let mut bench = Bench::with_pods([pod(1)]);
    (0..256).for_each(|_| bench.request(1, Request::unanswered_token()));
    assert_eq!(refused(&bench), 0);
    (0..3).for_each(|_| bench.request(1, Request::unanswered_token()));
    assert_eq!(refused(&bench), 3);
}

#[test]
fn runs_of_failures_that_are_not_followed_are_counted() {
    let mut bench = Bench::new(EngineConfig::default());
    for n in 0..1_026 {
        bench.feed(pod_present(n));
        bench.request(n, Request::agent(None, MetadataOutcome::Failed));
    }
    assert_eq!(refused(&bench), 2);
}

#[test]
fn pods_whose_flows_are_not_noted_are_counted() {
    let mut bench = Bench::new(EngineConfig::default());
    for n in 0..2_050 {
        bench.feed(pod_present(n));
        bench.feed(Input::Tcp(attempt(pod_cgroup(n), DB, Outcome::Established)));
    }
    bench.wait(10);
    assert_eq!(refused(&bench), 2);
}
