//! Metrics of DNS.

use agent_core::dns::{Counts, Outcome, Tally};
use agent_core::time::BootNs;

use super::{samples, who};
use crate::telemetry::{Telemetry, new, series::IDLE_NS};

fn tally(answered: u64, search_waste: u64) -> Tally {
    let mut tally = Tally { search_waste, ..Tally::default() };
    tally.queries[Outcome::Answered as usize] = answered;
    tally.queries[Outcome::NxDomain as usize] = 4 * search_waste;
    tally
}

/// Every metric of DNS has a series.
pub(super) fn told(telemetry: &Telemetry) {
    telemetry.dns(&who("shop", "web").identity, &tally(1, 1), BootNs(1));
    telemetry.dns_counts(Counts::default(), 1);
}

const WEB: &str = r#"namespace="shop",workload="web""#;

#[test]
fn queries_are_counted_by_workload_and_outcome() {
    let (telemetry, exposition) = new(100);
    for second in 1..3 {
        telemetry.dns(&who("shop", "web").identity, &tally(5, 1), BootNs(second));
    }
    telemetry.dns_counts(Counts { unreadable: 1, unmatched: 2, names_let_go: 3 }, 40);
    let samples = samples(&exposition);
    let value = |series: &str| samples.get(series).copied();
    assert_eq!(value(&format!(r#"sekisho_dns_queries_total{{{WEB},outcome="answered"}}"#)), Some(10.0));
    assert_eq!(value(&format!(r#"sekisho_dns_queries_total{{{WEB},outcome="nxdomain"}}"#)), Some(8.0));
    assert_eq!(value(&format!(r#"sekisho_dns_queries_total{{{WEB},outcome="servfail"}}"#)), None, "there was none");
    assert_eq!(value(&format!("sekisho_dns_search_waste_total{{{WEB}}}")), Some(2.0));
    assert_eq!(value("sekisho_dns_unreadable_messages_total"), Some(1.0));
    assert_eq!(value("sekisho_dns_unmatched_answers_total"), Some(2.0));
    assert_eq!(value("sekisho_dns_names_dropped_total"), Some(3.0));
    assert_eq!(value("sekisho_dns_names"), Some(40.0));
}

#[test]
fn series_of_queries_share_the_budget_and_go_with_their_workload() {
    let (telemetry, exposition) = new(3);
    telemetry.dns(&who("shop", "web").identity, &tally(1, 1), BootNs(1));
    telemetry.dns(&who("shop", "cart").identity, &tally(7, 1), BootNs(1));
    let found = samples(&exposition);
    let value = |series: &str| found.get(series).copied();
    let other = r#"namespace="",workload="other""#;
    assert_eq!(value(&format!(r#"sekisho_dns_queries_total{{{other},outcome="answered"}}"#)), Some(7.0));
    assert_eq!(value(&format!("sekisho_dns_search_waste_total{{{other}}}")), Some(1.0));
    assert_eq!(value(r#"sekisho_series_suppressed_total{metric="sekisho_dns_queries_total"}"#), Some(2.0));
    assert_eq!(value(r#"sekisho_series_suppressed_total{metric="sekisho_dns_search_waste_total"}"#), Some(1.0));
    telemetry.expire(BootNs(1 + IDLE_NS));
    assert!(!samples(&exposition).keys().any(|series| series.contains(WEB)));
}
