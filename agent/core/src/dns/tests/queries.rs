//! How queries are paired with answers and counted.

use agent_ebpf::shared::{Account, FATES, KINDS};

use super::*;
use crate::dns::queries::MAX_WAITING_OF_ONE;

fn feed(dns: &mut Dns, facts: impl IntoIterator<Item = DnsFact>) {
    for fact in facts {
        dns.message(&fact, || Some(Asker::Cgroup(CGROUP)));
    }
}

/// The kernel's totals, with so many lost records of a cgroup.
fn totals(dns: &mut Dns, second: u64, lost: &[(u64, u64)]) {
    let account = |lost: u64| {
        // What is merged of flows says nothing of DNS messages.
        let ring_full = [0, 0, 7 * lost + 1];
        Account { ring_full, dns_over_budget: lost / 2, dns_ring_full: lost - lost / 2, ..Account::default() }
    };
    let accounts = lost.iter().map(|(cgroup_id, lost)| (*cgroup_id, account(*lost))).collect();
    let totals = KernelTotals { records: [[0; FATES]; KINDS], accounts, ..KernelTotals::default() };
    dns.totals(&totals, BootNs(second * SECOND));
}

fn taken(dns: &mut Dns) -> Tally {
    let mut sum = Tally::default();
    for (_, tally) in dns.take() {
        sum.add(tally);
    }
    sum
}

#[test]
fn each_query_is_counted_once_by_what_came_of_it() {
    let mut dns = Dns::default();
    let codes = [DnsCode::NoError, DnsCode::NxDomain, DnsCode::ServFail, DnsCode::Other];
    for (cookie, code) in codes.into_iter().enumerate() {
        let cookie = cookie as u64;
        feed(&mut dns, [query(1, cookie, "a.example"), answer(2, cookie, "a.example", code, &[])]);
    }
    feed(&mut dns, [query(1, 10, "a.example"), answer(2, 10, "a.example", DnsCode::NoError, &[("192.0.2.1", 5)])]);
    let mut cut = answer(2, 11, "a.example", DnsCode::NoError, &[("192.0.2.2", 5)]);
    cut.message.as_mut().and_then(|message| message.answer.as_mut()).expect("an answer").truncated = true;
    feed(&mut dns, [query(1, 11, "a.example"), cut]);
    // Sent again, and by two servers answered.
    feed(&mut dns, [query(1, 12, "a.example"), query(3, 12, "a.example")]);
    feed(&mut dns, (4..6).map(|second| answer(second, 12, "a.example", DnsCode::NoError, &[("192.0.2.3", 5)])));
    let tally = taken(&mut dns);
    for (outcome, count) in [
        (Outcome::NxDomain, 1),
        (Outcome::ServFail, 1),
        (Outcome::Error, 1),
        (Outcome::Answered, 3),
        (Outcome::Truncated, 1),
        (Outcome::Unanswered, 0),
        (Outcome::Unknown, 0),
    ] {
        assert_eq!(tally.of(outcome), count, "{outcome:?}");
    }
    assert_eq!(dns.counts(), Counts { unmatched: 1, ..Counts::default() });
    assert_eq!(dns.names().len(), 2, "the answer that was cut names nothing");
    assert_eq!(taken(&mut dns), Tally::default(), "taken");
}

#[test]
fn answers_that_nobody_asked_for_name_nothing() {
    let mut dns = Dns::default();
    let forged = [("192.0.2.66", 5)];
    feed(&mut dns, [answer(1, 1, "bank.example", DnsCode::NoError, &forged)]);
    feed(&mut dns, [query(1, 2, "a.example"), answer(1, 2, "bank.example", DnsCode::NoError, &forged)]);
    feed(&mut dns, [query(1, 3, "a.example"), answer(1, 4, "a.example", DnsCode::NoError, &forged)]);
    let mut other_id = answer(1, 3, "a.example", DnsCode::NoError, &forged);
    other_id.message.as_mut().expect("a message").id = 8;
    feed(&mut dns, [other_id]);
    assert_eq!((dns.names().len(), dns.counts().unmatched), (0, 4));
}

#[test]
fn addresses_that_no_client_would_take_name_nothing() {
    let mut dns = Dns::default();
    let told = [("192.0.2.1", 5)];
    let of_type = |record_type: u16, mut fact: DnsFact| {
        fact.message.as_mut().expect("a message").record_type = record_type;
        fact
    };
    // A name that is not there, and addresses beside a text.
    feed(&mut dns, [query(1, 1, "a.example"), answer(1, 1, "a.example", DnsCode::NxDomain, &told)]);
    let text = [query(1, 2, "a.example"), answer(1, 2, "a.example", DnsCode::NoError, &told)];
    feed(&mut dns, text.map(|fact| of_type(16, fact)));
    assert_eq!((dns.names().len(), dns.counts().unmatched), (0, 0));
    let all = [query(1, 3, "a.example"), answer(1, 3, "a.example", DnsCode::NoError, &told)];
    feed(&mut dns, all.map(|fact| of_type(255, fact)));
    assert_eq!(dns.names().len(), 1);
}

#[test]
fn silence_is_told_after_five_seconds_unless_an_answer_may_have_been_lost() {
    let mut dns = Dns::default();
    feed(&mut dns, [query(10, 1, "a.example")]);
    totals(&mut dns, 14, &[(CGROUP, 0)]);
    assert_eq!(taken(&mut dns), Tally::default(), "it may still come");
    totals(&mut dns, 15, &[(CGROUP, 0)]);
    assert_eq!(taken(&mut dns).of(Outcome::Unanswered), 1);
    // Too late is unanswered, whenever the counters are read, and names all the same: the program may have waited.
    feed(&mut dns, [query(20, 2, "a.example"), answer(26, 2, "a.example", DnsCode::NoError, &[("192.0.2.1", 5)])]);
    assert_eq!(taken(&mut dns).of(Outcome::Unanswered), 1);
    assert_eq!(dns.names().len(), 1);
    // A record of this cgroup was lost.
    feed(&mut dns, [query(30, 3, "a.example")]);
    totals(&mut dns, 31, &[(CGROUP, 3)]);
    totals(&mut dns, 36, &[(CGROUP, 3)]);
    assert_eq!((taken(&mut dns).of(Outcome::Unknown), dns.queries.waiting()), (1, 0));
    // That was before this query; another cgroup's losses are not this one's.
    feed(&mut dns, [query(40, 4, "a.example")]);
    totals(&mut dns, 46, &[(CGROUP, 3), (CGROUP + 1, 9)]);
    assert_eq!(taken(&mut dns).of(Outcome::Unanswered), 1);
    // The clock moves by ticks: totals that were read after a query may be told by the tick before it.
    feed(&mut dns, [query(48, 6, "a.example")]);
    totals(&mut dns, 47, &[(CGROUP, 4)]);
    totals(&mut dns, 53, &[(CGROUP, 4)]);
    assert_eq!((taken(&mut dns).of(Outcome::Unknown), dns.queries.waiting()), (1, 0));
    // What found no account may be anybody's.
    feed(&mut dns, [query(54, 5, "a.example")]);
    totals(&mut dns, 60, &[(CGROUP, 4), (agent_ebpf::shared::OVERFLOW_ACCOUNT, 1)]);
    assert_eq!(taken(&mut dns).of(Outcome::Unknown), 1);
}

#[test]
fn a_cgroup_that_asks_into_silence_leaves_room_for_others() {
    let mut dns = Dns::default();
    let asked = u64::from(MAX_WAITING_OF_ONE) + 100;
    feed(&mut dns, (0..asked).map(|cookie| query(1, cookie, "a.example")));
    assert_eq!(taken(&mut dns).of(Outcome::Unknown), 100);
    let other = |fact: DnsFact| DnsFact { cgroup_id: CGROUP + 1, ..fact };
    feed(
        &mut dns,
        [other(query(1, 1 << 40, "a.example")), other(answer(1, 1 << 40, "a.example", DnsCode::NxDomain, &[]))],
    );
    assert_eq!(taken(&mut dns).of(Outcome::NxDomain), 1);
    totals(&mut dns, 10, &[]);
    assert_eq!(taken(&mut dns).of(Outcome::Unanswered), u64::from(MAX_WAITING_OF_ONE));
    feed(&mut dns, [query(11, 1, "a.example")]);
    assert_eq!(dns.queries.waiting(), 1, "there is room again");
}

#[test]
fn search_domains_tried_in_vain_count_when_the_name_itself_is_found() {
    let mut dns = Dns::default();
    let tried = |dns: &mut Dns, second, names: &[&str], found: &[(&str, u32)]| {
        let (last, before) = names.split_last().expect("names");
        for (cookie, name) in before.iter().enumerate() {
            let cookie = cookie as u64;
            feed(dns, [query(second, cookie, name), answer(second, cookie, name, DnsCode::NxDomain, &[])]);
        }
        feed(dns, [query(second, 99, last), answer(second, 99, last, DnsCode::NoError, found)]);
        taken(dns).search_waste
    };
    let list = ["api.example.com.shop.svc.cluster.local", "api.example.com.svc.cluster.local", "api.example.com"];
    assert_eq!(tried(&mut dns, 1, &list, &[("192.0.2.1", 5)]), 2);
    assert_eq!(tried(&mut dns, 2, &list[2..], &[("192.0.2.1", 5)]), 0, "counted once");
    assert_eq!(tried(&mut dns, 10, &["other.example.org", "example.org"], &[("192.0.2.1", 5)]), 0, "no search domain");
    assert_eq!(tried(&mut dns, 20, &["a.example.b.local", "a.example"], &[]), 0, "not found either");
    feed(&mut dns, [query(30, 1, "x.example.local"), answer(30, 1, "x.example.local", DnsCode::NxDomain, &[])]);
    assert_eq!(tried(&mut dns, 36, &["x.example"], &[("192.0.2.1", 5)]), 0, "long ago");
}

#[test]
fn the_busiest_second_is_told_not_the_average() {
    use crate::capacity::Scope;
    let mut linklocal = Linklocal::default();
    let eni = Scope::Interface("eni-1".into());
    for n in 0..2_000_u64 {
        linklocal.packet(&eni, BootNs(5 * SECOND + n));
    }
    linklocal.packet(&eni, BootNs(9 * SECOND));
    linklocal.packet(&Scope::Node, BootNs(9 * SECOND));
    assert_eq!(linklocal.peaks(BootNs(10 * SECOND)), [(Scope::Node, 1), (eni.clone(), 2_000)]);
    assert_eq!(linklocal.peaks(BootNs(20 * SECOND)), [(Scope::Node, 0), (eni.clone(), 0)]);
    assert_eq!(linklocal.peaks(BootNs(200 * SECOND)), []);
    for n in 0..2 * MAX_SCOPES {
        linklocal.packet(&Scope::Interface(format!("eni-{n}").into()), BootNs(201 * SECOND));
    }
    assert_eq!(linklocal.peaks(BootNs(202 * SECOND)).len(), MAX_SCOPES);
}
