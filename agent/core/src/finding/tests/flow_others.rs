//! What others get from a peer, compared with when they got it, and who counts as another.

use agent_ebpf::wire::Outcome;

use super::bench::{Bench, EPOCH, enforced, links};
use super::flows::{DB, attempt, codes, query, strict, tries};
use crate::facts::PodFacts;
use crate::finding::Code;
use crate::input::{Input, TcpFact};
use crate::testing::{pod, pod_cgroup, pod_present};
use crate::time::WallNs;

const RESOLVER: &str = "172.20.0.10";

fn causes(bench: &Bench) -> Vec<String> {
    bench.open().into_iter().map(|(_, _, cause)| cause).collect()
}

#[test]
fn a_resolver_that_was_down_for_all_and_comes_back_is_nobodys_groups() {
    let mut bench = strict();
    for back in [false, false, false, true] {
        bench.feed(query(1, RESOLVER, false));
        bench.feed(query(2, RESOLVER, false));
        if back {
            bench.feed(query(2, RESOLVER, true));
        }
        bench.wait(10);
    }
    assert_eq!((bench.open(), bench.doubts(Code::SgpDnsBlocked)), (vec![], vec!["peer_answers_nobody".to_owned()]));
}

#[test]
fn an_answer_in_the_fold_in_which_it_began_or_in_the_latest_proves_nothing() {
    // Answered before the outage, which began in the middle of the fold.
    let mut bench = strict();
    for n in 0..5 {
        bench.feed(query(1, RESOLVER, false));
        if n == 0 {
            bench.feed(query(2, RESOLVER, true));
        }
        bench.wait(10);
    }
    assert_eq!((bench.open(), bench.doubts(Code::SgpDnsBlocked)), (vec![], vec!["peer_answers_nobody".to_owned()]));
    // Answered after it, at the end of the latest fold.
    let mut bench = strict();
    for n in 0..4 {
        bench.feed(query(1, RESOLVER, false));
        if n == 3 {
            bench.feed(query(2, RESOLVER, true));
        }
        bench.wait(10);
    }
    assert_eq!(bench.open(), []);
    // It goes on being unanswered, and others are not: now it is this pod's.
    bench.feed(query(1, RESOLVER, false));
    bench.wait(10);
    assert_eq!(codes(&bench), [Code::SgpDnsBlocked]);
}

#[test]
fn others_that_got_answers_while_this_pod_did_not_are_proof() {
    let mut bench = strict();
    for n in 0..4 {
        bench.feed(query(1, RESOLVER, false));
        if n == 2 {
            bench.feed(query(2, RESOLVER, true));
        }
        bench.wait(10);
    }
    assert_eq!(codes(&bench), [Code::SgpDnsBlocked]);
    // One datagram of hundreds that is lost makes no outage.
    let mut bench = strict();
    for _ in 0..4 {
        bench.feed(query(1, RESOLVER, false));
        bench.feed(query(2, RESOLVER, false));
        (0..50).for_each(|_| bench.feed(query(2, RESOLVER, true)));
        bench.wait(10);
    }
    assert_eq!(codes(&bench), [Code::SgpDnsBlocked]);
}

#[test]
fn an_outage_of_all_that_is_long_over_does_not_excuse_what_goes_on() {
    let mut bench = strict();
    for n in 0..9 {
        bench.feed(query(1, RESOLVER, false));
        bench.feed(query(2, RESOLVER, n > 2));
        bench.wait(10);
        assert_eq!(codes(&bench).is_empty(), n < 5, "half a minute after the others' last failure: {n}");
    }
}

#[test]
fn old_connections_of_others_that_hang_are_no_answers() {
    let open =
        TcpFact { open: true, cookie: 2, srtt_us: Some(300), ..attempt(pod_cgroup(2), DB, Outcome::Established) };
    let given_up = TcpFact { cookie: 2, srtt_us: Some(300), ..attempt(pod_cgroup(2), DB, Outcome::TimedOut) };
    for hanging in [open, given_up] {
        let mut bench = strict();
        for _ in 0..5 {
            bench.feed(Input::Tcp(hanging.clone()));
            tries(&mut bench, 1, 1, DB, Outcome::TimedOut);
        }
        assert_eq!(causes(&bench), ["unanswered"]);
        // What comes in over them is an answer.
        let mut bench = strict();
        for _ in 0..5 {
            bench.feed(Input::Tcp(TcpFact { bytes_received: 10, ..hanging.clone() }));
            tries(&mut bench, 1, 1, DB, Outcome::TimedOut);
        }
        assert_eq!(causes(&bench), ["only_this_pod"]);
    }
}

#[test]
fn a_replica_of_which_it_is_not_known_yet_whether_it_has_the_groups_is_no_other() {
    let later = WallNs((EPOCH + 10_000) * 1_000_000_000);
    // The interfaces are older than it; it is about to get its interface; nobody knows it.
    let starting = PodFacts { created: Some(later), ..enforced(3) };
    let asked_for = PodFacts { branch_limit: 1, ..pod(4) };
    let mut bench = Bench::with_pods([enforced(1), pod(2), starting, asked_for]);
    bench.feed(pod_present(5));
    bench.host(links(&[(1, true)]));
    bench.wait(10);
    for n in [3, 4, 5] {
        tries(&mut bench, 1, 1, DB, Outcome::TimedOut);
        tries(&mut bench, n, 1, DB, Outcome::TimedOut);
    }
    tries(&mut bench, 1, 1, DB, Outcome::TimedOut);
    assert_eq!((causes(&bench), bench.doubts(Code::SgpBlockedFlow)), (vec!["unanswered".to_owned()], vec![]));
}
