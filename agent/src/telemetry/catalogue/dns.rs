//! Metrics of DNS.

use super::Metric;

pub(in crate::telemetry) const DNS_QUERIES: Metric = Metric {
    base: "dns_queries",
    sample: "sekisho_dns_queries_total",
    kind: "counter",
    unit: None,
    labels: &["namespace", "workload", "outcome"],
    help: "DNS queries by UDP to port 53: answered (NOERROR), nxdomain, servfail, error (another code), truncated (asked again by TCP, which is not seen), unanswered (for 5 s), or unknown (cannot tell, for records were lost)",
};
pub(in crate::telemetry) const DNS_SEARCH_WASTE: Metric = Metric {
    base: "dns_search_waste",
    sample: "sekisho_dns_search_waste_total",
    kind: "counter",
    unit: None,
    labels: &["namespace", "workload"],
    help: "DNS queries that ndots and the search list cost: names with a search domain behind them that do not exist, asked within 5 s before the name itself was found; nxdomain counts them too",
};
pub(in crate::telemetry) const DNS_UNMATCHED: Metric = Metric {
    base: "dns_unmatched_answers",
    sample: "sekisho_dns_unmatched_answers_total",
    kind: "counter",
    unit: None,
    labels: &[],
    help: "DNS answers that no query waited for: late, a second server's, or forged; they name no peer",
};
pub(in crate::telemetry) const DNS_UNREADABLE: Metric = Metric {
    base: "dns_unreadable_messages",
    sample: "sekisho_dns_unreadable_messages_total",
    kind: "counter",
    unit: None,
    labels: &[],
    help: "Datagrams to or from port 53 that are no DNS query with one question and no answer to one",
};
pub(in crate::telemetry) const DNS_NAMES: Metric = Metric {
    base: "dns_names",
    sample: "sekisho_dns_names",
    kind: "gauge",
    unit: None,
    labels: &[],
    help: "Names of addresses that pods were told, held to name peers; at most 16,384",
};
pub(in crate::telemetry) const DNS_NAMES_DROPPED: Metric = Metric {
    base: "dns_names_dropped",
    sample: "sekisho_dns_names_dropped_total",
    kind: "counter",
    unit: None,
    labels: &[],
    help: "Names of addresses given up for want of room: their peers may stay without a name",
};
