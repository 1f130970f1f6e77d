//! What was found before a restart, and what is not known any more after it.

use agent_ebpf::wire::Outcome;

use super::bench::{Bench, enforced, links, with_probe};
use super::flows::{DB, attempt, codes, probes, query, tries};
use crate::engine::EngineConfig;
use crate::facts::ProbeKind;
use crate::finding::Code;
use crate::input::Input;
use crate::testing::{CGROUP, pod, pod_cgroup};

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
