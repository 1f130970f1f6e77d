//! What a scrape shows: names, units, labels, the budget, the expiry, and the page that documents it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use agent_core::engine::{Engine, EngineConfig};
use agent_core::facts::{ClusterFact, Ec2Call, Ec2Fact, Source};
use agent_core::finding::{Code, Settings, Severity};
use agent_core::input::{
    Category, Ends, GapCause, ImdsVersion, Input, KernelTotals, MetadataFact, MetadataOutcome, Method, RequestFact,
    ResponseFact,
};
use agent_core::output::{
    ActualPeer, FlowRow, GapRow, Identity, Local, MetadataRow, Output, Peer, PeerClass, Protocol, RttHistogram, Who,
    Window,
};
use agent_core::papers::waivers::Waiver;
use agent_core::time::{BootNs, WallNs};
use agent_ebpf::shared::{FATES, KINDS};

mod cardinality;
mod dns;
mod node;

use super::series::IDLE_NS;
use super::{Exposition, catalogue, labels, new};

fn who(namespace: &str, workload: &str) -> Who {
    let identity = Identity { namespace: namespace.to_owned(), workload: workload.to_owned(), ..Identity::default() };
    Who { identity: Arc::new(identity), process: None }
}

fn flow(workload: &str) -> FlowRow {
    let mut rtt = RttHistogram::default();
    for rtt_us in [600, 900, 20_000_000] {
        rtt.observe(rtt_us);
    }
    FlowRow {
        who: who("shop", workload),
        window: Window { start: WallNs(0), end: WallNs(10) },
        direction: "outbound",
        protocol: Some(Protocol::Tcp),
        local: Local { ip: Some("10.0.0.1".to_owned()) },
        peer: Peer {
            ip: Some("192.0.2.77".to_owned()),
            class: PeerClass::Internet,
            name: None,
            namespace: None,
            pod: None,
        },
        actual_peer: None,
        via: None,
        service_port: Some(44_321),
        outcome: Some("established"),
        connections: 3,
        open: 0,
        processes: 1,
        bytes_sent: 100,
        bytes_received: 2_000,
        retransmits: Some(4),
        rtt_us: Some(900),
        rtt,
        records: agent_core::books::Records::default(),
        merged: false,
        preexisting: false,
        sg: None,
    }
}

fn metadata() -> MetadataRow {
    MetadataRow {
        time: WallNs(0),
        who: who("shop", "web"),
        service: "imds",
        version: ImdsVersion::V1,
        method: Some(Method::Get),
        category: Some(Category::RoleCredentials),
        role: Some("node-role".to_owned()),
        access_key_id: Some("ASIAEXAMPLE".to_owned()),
        forwarded_for: None,
        status: Some(200),
        response_ttl: Some(1),
        response_bytes: Some(10),
        outcome: MetadataOutcome::Ok,
        latency_us: Some(300),
        local: Local { ip: Some("10.0.0.1".to_owned()) },
        origin: None,
    }
}

fn output(row: FlowRow) -> Output {
    Output::Flow(Box::new(row))
}

fn gap(end_s: i64, cause: GapCause) -> Output {
    let end = WallNs(end_s * 1_000_000_000);
    Output::Gap(GapRow { start: WallNs(0), end, cause, records_lost: BTreeMap::new() })
}

/// Sample line without its value, to value.
fn samples(exposition: &Exposition) -> BTreeMap<String, f64> {
    let text = exposition.render().expect("renders");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            (series.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn a_flow_is_counted_once_by_workload() {
    let (telemetry, exposition) = new(100);
    telemetry.observe(&output(flow("web")), BootNs(1));
    telemetry.observe(&output(flow("web")), BootNs(2));
    let open = FlowRow { outcome: None, connections: 0, open: 1, rtt: RttHistogram::default(), ..flow("web") };
    telemetry.observe(&output(open), BootNs(3));
    let samples = samples(&exposition);
    let web = r#"namespace="shop",workload="web""#;
    let value = |series: &str| samples.get(series).copied();
    assert_eq!(
        value(&format!(
            r#"sekisho_connections_total{{{web},direction="outbound",peer_class="internet",outcome="established"}}"#
        )),
        Some(6.0)
    );
    let bytes = |direction| {
        value(&format!(r#"sekisho_connection_bytes_total{{{web},peer_class="internet",direction="{direction}"}}"#))
    };
    assert_eq!(bytes("egress"), Some(300.0));
    assert_eq!(bytes("ingress"), Some(6_000.0));
    assert_eq!(value(&format!(r#"sekisho_tcp_retransmits_total{{{web},peer_class="internet"}}"#)), Some(12.0));
    assert_eq!(value(r#"sekisho_tcp_rtt_seconds_count{peer_class="internet"}"#), Some(6.0));
    assert_eq!(value(r#"sekisho_tcp_rtt_seconds_bucket{le="0.0005",peer_class="internet"}"#), Some(0.0));
    assert_eq!(value(r#"sekisho_tcp_rtt_seconds_bucket{le="0.001",peer_class="internet"}"#), Some(4.0));
    assert_eq!(value(r#"sekisho_tcp_rtt_seconds_bucket{le="10.0",peer_class="internet"}"#), Some(4.0));
    assert_eq!(value(r#"sekisho_tcp_rtt_seconds_bucket{le="+Inf",peer_class="internet"}"#), Some(6.0));
    assert_eq!(value(r#"sekisho_tcp_rtt_seconds_sum{peer_class="internet"}"#), Some(40.003));
    let addresses = samples.keys().filter(|series| series.contains("192.0.2.77") || series.contains("44321"));
    assert_eq!(addresses.count(), 0, "addresses and ports are no labels");
}

#[test]
fn a_datagram_flow_has_no_retransmits() {
    let (telemetry, exposition) = new(100);
    let row = FlowRow { protocol: Some(Protocol::Udp), outcome: Some("one_way"), retransmits: None, ..flow("dns") };
    telemetry.observe(&output(row), BootNs(1));
    let samples = samples(&exposition);
    assert!(samples.keys().any(|series| series.contains("connections_total") && series.contains("one_way")));
    assert!(!samples.keys().any(|series| series.starts_with("sekisho_tcp_retransmits")));
}

#[test]
fn a_metadata_request_is_counted_without_its_names() {
    let (telemetry, exposition) = new(100);
    telemetry.observe(&Output::Metadata(Box::new(metadata())), BootNs(1));
    let unseen = MetadataRow { category: None, outcome: MetadataOutcome::Blocked, who: who("", ""), ..metadata() };
    telemetry.observe(&Output::Metadata(Box::new(unseen)), BootNs(1));
    let samples = samples(&exposition);
    let value = |series: &str| samples.get(series).copied();
    assert_eq!(
        value(
            r#"sekisho_metadata_requests_total{namespace="shop",workload="web",service="imds",version="v1",category="role_credentials",outcome="ok"}"#
        ),
        Some(1.0)
    );
    assert_eq!(
        value(
            r#"sekisho_metadata_requests_total{namespace="",workload="unknown",service="imds",version="v1",category="unknown",outcome="blocked"}"#
        ),
        Some(1.0)
    );
    assert!(!exposition.render().expect("renders").contains("ASIAEXAMPLE"));
    assert!(!exposition.render().expect("renders").contains("node-role"));
}

/// Whatever comes, no more series than the budget, none lost: the sum over workloads stays right.
#[test]
fn the_budget_holds_and_nothing_is_lost() {
    const MAX: u32 = 100;
    let (telemetry, exposition) = new(MAX);
    for number in 0..1_000 {
        telemetry.observe(&output(flow(&format!("w{number}"))), BootNs(1));
    }
    assert_eq!(telemetry.budget.used(), MAX as usize);
    let samples = samples(&exposition);
    let named = samples.keys().filter(|series| series.contains("workload=\"w"));
    assert_eq!(named.count(), MAX as usize);
    let sum = |prefix: &str, part: &str| -> f64 {
        samples.iter().filter(|(series, _)| series.starts_with(prefix) && series.contains(part)).map(|(_, v)| v).sum()
    };
    assert_eq!(Some(sum("sekisho_connections_total", "")), Some(3_000.0));
    assert_eq!(Some(sum("sekisho_connection_bytes_total", "egress")), Some(100_000.0));
    assert_eq!(Some(sum("sekisho_tcp_retransmits_total", "")), Some(4_000.0));
    // Each row updates four series; a hundred of the 4,000 updates found room.
    assert_eq!(Some(sum("sekisho_series_suppressed_total", "")), Some(3_900.0));
    assert!(sum("sekisho_connections_total", "namespace=\"\",workload=\"other\"") > 0.0);
}

#[test]
fn silent_series_go_and_make_room() {
    let (telemetry, exposition) = new(100);
    telemetry.observe(&output(flow("old")), BootNs(1));
    telemetry.observe(&output(flow("busy")), BootNs(1));
    telemetry.observe(&output(flow("busy")), BootNs(IDLE_NS));
    telemetry.expire(BootNs(IDLE_NS));
    assert_eq!(telemetry.budget.used(), 8, "one nanosecond is missing");
    telemetry.expire(BootNs(IDLE_NS + 1));
    assert_eq!(telemetry.budget.used(), 4);
    let text = exposition.render().expect("renders");
    assert!(!text.contains("\"old\"") && text.contains("\"busy\""), "{text}");
}

#[test]
fn silent_series_of_the_living_stay() {
    let (telemetry, exposition) = new(100);
    telemetry.observe(&output(flow("dead")), BootNs(1));
    telemetry.observe(&output(flow("quiet")), BootNs(1));
    telemetry.keep([Identity::clone(&who("shop", "quiet").identity)].into_iter(), BootNs(IDLE_NS));
    telemetry.expire(BootNs(IDLE_NS + 1));
    let text = exposition.render().expect("renders");
    assert!(!text.contains("\"dead\"") && text.contains("\"quiet\""), "{text}");
    telemetry.expire(BootNs(2 * IDLE_NS));
    assert_eq!(telemetry.budget.used(), 0);
}

#[test]
fn the_overflow_series_stay() {
    let (telemetry, exposition) = new(4);
    telemetry.observe(&output(flow("a")), BootNs(1));
    telemetry.observe(&output(flow("b")), BootNs(1));
    telemetry.expire(BootNs(10 * IDLE_NS));
    assert_eq!(telemetry.budget.used(), 0);
    assert!(exposition.render().expect("renders").contains("workload=\"other\""));
}

#[test]
fn totals_are_taken_over_and_never_fall() {
    let (telemetry, exposition) = new(4);
    let totals = |sockets| KernelTotals {
        records: [[0; FATES]; KINDS],
        untracked_sockets: sockets,
        untracked_attempts: 1,
        untracked_peers: 2,
        overflow_accounts: 3,
        unreadable_packets: 4,
        ..KernelTotals::default()
    };
    telemetry.kernel_totals(&totals(7));
    telemetry.kernel_totals(&totals(6));
    telemetry.records("tcp_end", "stored", 5);
    telemetry.records("tcp_end", "stored", 8);
    telemetry.probe("tcp", true);
    telemetry.probe("owners", false);
    telemetry.history(40, 2, 4_096, false);
    let samples = samples(&exposition);
    for (series, value) in [
        (r#"sekisho_untracked_total{what="sockets"}"#, 7.0),
        (r#"sekisho_history_rows_total{fate="stored"}"#, 40.0),
        (r#"sekisho_history_rows_total{fate="lost"}"#, 2.0),
        ("sekisho_history_size_bytes", 4_096.0),
        ("sekisho_history_writable", 0.0),
        (r#"sekisho_untracked_total{what="attempts"}"#, 1.0),
        (r#"sekisho_untracked_total{what="peers"}"#, 2.0),
        (r#"sekisho_untracked_total{what="accounts"}"#, 3.0),
        (r#"sekisho_untracked_total{what="unreadable_packets"}"#, 4.0),
        (r#"sekisho_records_total{kind="tcp_end",fate="stored"}"#, 8.0),
        (r#"sekisho_probe_attached{probe="tcp"}"#, 1.0),
        (r#"sekisho_probe_attached{probe="owners"}"#, 0.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
}

#[test]
fn closed_sets_start_at_zero() {
    let (_telemetry, exposition) = new(4);
    let samples = samples(&exposition);
    for class in labels::PEER_CLASSES {
        let series = format!("sekisho_tcp_rtt_seconds_count{{peer_class=\"{}\"}}", labels::peer_class(*class));
        assert_eq!(samples.get(&series), Some(&0.0), "{series}");
    }
    for metric in catalogue::WITH_WORKLOAD {
        let series = format!("sekisho_series_suppressed_total{{metric=\"{}\"}}", metric.sample);
        assert_eq!(samples.get(&series), Some(&0.0), "{series}");
    }
    assert_eq!(samples.get(r#"sekisho_untracked_total{what="sockets"}"#), Some(&0.0));
    let version = format!("sekisho_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(samples.get(&version), Some(&1.0));
}

#[test]
fn names_come_through_whatever_they_hold() {
    let (telemetry, exposition) = new(100);
    telemetry.observe(&output(flow("a\"b\\c\nd} 1")), BootNs(1));
    let text = exposition.render().expect("renders");
    assert!(text.contains(r#"workload="a\"b\\c\nd} 1""#), "{text}");
    samples(&exposition);
}

/// Names of labels are the JSON form's names.
#[test]
fn labels_and_json_agree() {
    fn name<T: serde::Serialize>(value: T) -> String {
        serde_json::to_value(value).expect("a value").as_str().expect("a name").to_owned()
    }
    for class in labels::PEER_CLASSES {
        assert_eq!(labels::peer_class(*class), name(class));
    }
    for version in [ImdsVersion::V1, ImdsVersion::V2, ImdsVersion::None] {
        assert_eq!(labels::imds_version(version), name(version));
    }
    for category in [
        Category::Token,
        Category::RoleList,
        Category::RoleCredentials,
        Category::RoleInfo,
        Category::IdentityCredentials,
        Category::UserData,
        Category::IdentityDocument,
        Category::Metadata,
        Category::PodIdentityCredentials,
        Category::OtherCloud,
        Category::Other,
    ] {
        assert_eq!(labels::category(category), name(category));
    }
    for outcome in [
        MetadataOutcome::Ok,
        MetadataOutcome::Unauthorized,
        MetadataOutcome::Forbidden,
        MetadataOutcome::NotFound,
        MetadataOutcome::Error,
        MetadataOutcome::Unanswered,
        MetadataOutcome::Blocked,
        MetadataOutcome::Failed,
        MetadataOutcome::Idle,
        MetadataOutcome::Unparsed,
        MetadataOutcome::Truncated,
    ] {
        assert_eq!(labels::metadata_outcome(outcome), name(outcome));
    }
    for cause in [
        GapCause::NotRunning,
        GapCause::Stopped,
        GapCause::Crashed,
        GapCause::Suspended,
        GapCause::ClockJump,
        GapCause::RingFull,
        GapCause::ProbeMissing,
    ] {
        assert_eq!(labels::gap_cause(cause), name(cause));
    }
}

/// The rules of OpenMetrics and of naming, over a scrape in which every metric has a series; and the catalogue says
/// what the scrape shows.
#[test]
fn a_scrape_keeps_the_rules_and_the_catalogue() {
    let (telemetry, exposition) = new(100);
    telemetry.observe(&output(flow("web")), BootNs(1));
    telemetry.observe(&Output::Metadata(Box::new(metadata())), BootNs(1));
    dns::told(&telemetry);
    telemetry.records("tcp_end", "stored", 1);
    telemetry.history(1, 2, 3, true);
    telemetry.export("otlp", [("shipped", 1), ("refused", 2), ("lost", 3)], std::time::Duration::from_secs(4), true);
    telemetry.probe("tcp", true);
    telemetry.observe(&gap(1, GapCause::Crashed), BootNs(1));
    node::told(&telemetry);
    let engine = engine();
    telemetry.findings(engine.ledger(), BootNs(1));
    telemetry.cluster(engine.cluster(), WallNs(8_000_000_000));
    telemetry.kubernetes_events([("written", 3), ("failed", 0)]);
    telemetry.ec2(engine.ec2(), WallNs(8_000_000_000));
    let text = exposition.render().expect("renders");
    assert!(text.ends_with("\n# EOF\n"));
    assert_eq!(text.matches("# EOF").count(), 1);

    let mut families: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut seen: BTreeMap<String, BTreeSet<Vec<String>>> = BTreeMap::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", family, help] => {
                assert!(helped.insert(family.to_owned()), "{family} twice");
                assert!(help.ends_with('.') && !help.ends_with(".."), "{help}");
            }
            ["#", "TYPE", family, kind] => {
                let old = families.insert(family.to_owned(), (kind.to_owned(), String::new()));
                assert!(old.is_none(), "{family} twice");
            }
            ["#", "UNIT", family, unit] => {
                assert!(family.ends_with(&format!("_{unit}")), "{family} {unit}");
                families.get_mut(family).expect("TYPE stands before UNIT").1 = unit.to_owned();
            }
            _ => {
                assert!(!line.starts_with('#'), "{line}");
                let (series, _) = line.rsplit_once(' ').expect("a value");
                let (name, rest) = series.split_once('{').unwrap_or((series, ""));
                let keys = rest.split("=\"").map(|part| part.rsplit(['{', ',']).next().unwrap_or(part).to_owned());
                let mut keys: Vec<String> = keys.collect();
                keys.pop();
                keys.retain(|key| key != "le");
                seen.entry(name.to_owned()).or_default().insert(keys);
            }
        }
    }
    for metric in catalogue::ALL {
        let family = match metric.kind {
            "counter" => metric.sample.strip_suffix("_total").expect("counters end in _total"),
            "info" => metric.sample.strip_suffix("_info").expect("infos end in _info"),
            _ => metric.sample,
        };
        assert!(family.starts_with("sekisho_"), "{family}");
        let found = families.remove(family);
        assert_eq!(found, Some((metric.kind.to_owned(), metric.unit().to_owned())), "{family}");
        let samples: &[String] = &match metric.kind {
            "histogram" => ["bucket", "sum", "count"].map(|suffix| format!("{family}_{suffix}")).to_vec(),
            _ => vec![metric.sample.to_owned()],
        };
        let expected: BTreeSet<Vec<String>> = [metric.labels.iter().map(|label| (*label).to_owned()).collect()].into();
        for sample in samples {
            assert_eq!(seen.remove(sample).as_ref(), Some(&expected), "{sample}");
        }
    }
    assert_eq!(families, BTreeMap::new(), "families that the catalogue does not know");
    assert_eq!(seen, BTreeMap::new(), "samples that the catalogue does not know");
}

#[test]
fn the_last_gap_of_each_cause_is_told_by_its_end() {
    let (telemetry, exposition) = new(100);
    let of = |cause: &str| format!("sekisho_last_gap_end_timestamp_seconds{{cause=\"{cause}\"}}");
    assert!(!samples(&exposition).contains_key(&of("crashed")), "there was none");
    for (end_s, cause) in
        [(1_700_000_000, GapCause::Crashed), (1_600_000_000, GapCause::Crashed), (5, GapCause::RingFull)]
    {
        telemetry.observe(&gap(end_s, cause), BootNs(1));
    }
    let samples = samples(&exposition);
    assert_eq!(samples.get(&of("crashed")), Some(&1_700_000_000.0));
    assert_eq!(samples.get(&of("ring_full")), Some(&5.0));
    assert_eq!(samples.get(&of("stopped")), None);
}

#[test]
fn documentation_shows_the_catalogue() {
    crate::golden::compare_section(Path::new("../docs/metrics.md"), &super::markdown());
}

/// An Engine with a finding that stands and one that a waiver accepts.
fn engine() -> Engine {
    let waiver = Waiver { code: Some(Code::MetadataV1Used), reason: "moves soon".to_owned(), ..Waiver::default() };
    let findings = Settings { waivers: vec![waiver], ..Settings::default() };
    let mut engine = Engine::new(EngineConfig { findings, ..EngineConfig::default() });
    let fact = MetadataFact {
        time: BootNs(1),
        cgroup_id: 7,
        cookie: 1,
        process: None,
        ancestors: Vec::new(),
        sender_only: false,
        ends: Ends {
            local: [10, 0, 0, 1].into(),
            local_port: 1,
            remote: [169, 254, 169, 254].into(),
            remote_port: 80,
            netns: 1,
        },
        service: agent_ebpf::wire::Service::Imds,
        request: Some(RequestFact {
            method: Method::Get,
            category: Category::UserData,
            role: None,
            version: ImdsVersion::V1,
            forwarded_for: None,
        }),
        response: Some(ResponseFact { status: 200, ttl: 64, bytes: 1, access_key_id: None }),
        outcome: MetadataOutcome::Ok,
        latency_ns: None,
        origin: None,
    };
    let path = format!("/kubepods/pod6f0d2c1e-8a52-4b7e-9d0c-1a2b3c4d5e6f/{}", "a".repeat(64));
    let call = |call, fresh_at, error| Ec2Fact::Source { call, fresh_at, error, denied: false };
    let subnets = call(Ec2Call::Subnets, Some(WallNs(1_000_000_000)), None);
    let vpcs = call(Ec2Call::Vpcs, None, Some("broke".to_owned()));
    let pods = ClusterFact::Source { source: Source::Pods, fresh_at: Some(WallNs(3_000_000_000)), error: None };
    for input in [
        Input::Tick { boot: BootNs(1), wall: WallNs(1) },
        Input::CgroupPresent { id: 7, path },
        Input::Metadata(Box::new(fact)),
        Input::Cluster(Box::new(pods)),
        Input::Ec2(Box::new(subnets)),
        Input::Ec2(Box::new(vpcs)),
    ] {
        engine.handle(input, &mut Vec::new());
    }
    engine
}

#[test]
fn findings_show_by_workload_and_those_accepted_apart() {
    let (telemetry, exposition) = new(100);
    let engine = engine();
    telemetry.findings(engine.ledger(), BootNs(1));
    telemetry.cluster(engine.cluster(), WallNs(8_000_000_000));
    telemetry.ec2(engine.ec2(), WallNs(8_000_000_000));
    let samples = samples(&exposition);
    let workload = "namespace=\"\",workload=\"pod-6f0d2c1e-8a52-4b7e-9d0c-1a2b3c4d5e6f\"";
    let value = |name: String| samples.get(&name).copied();
    let of = |code: &str, severity: &str| format!("code=\"{code}\",severity=\"{severity}\",{workload}");
    assert_eq!(value(format!("sekisho_findings_open{{{}}}", of("user-data-read", "medium"))), Some(1.0));
    assert_eq!(value(format!("sekisho_findings_accepted{{{}}}", of("metadata-v1-used", "low"))), Some(1.0));
    assert_eq!(
        value("sekisho_findings_total{code=\"user-data-read\",severity=\"medium\",namespace=\"\"}".to_owned()),
        Some(1.0)
    );
    assert_eq!(value("sekisho_verdicts_total{code=\"user-data-read\",verdict=\"violated\"}".to_owned()), Some(1.0));
    assert_eq!(value("sekisho_verdicts_total{code=\"sgp-stale\",verdict=\"cannot_tell\"}".to_owned()), Some(0.0));
    assert_eq!(value("sekisho_cluster_age_seconds{source=\"pods\"}".to_owned()), Some(5.0));
    assert_eq!(value("sekisho_ec2_age_seconds{call=\"subnets\"}".to_owned()), Some(7.0));
    assert_eq!(value("sekisho_ec2_age_seconds{call=\"vpcs\"}".to_owned()), None);
    assert_eq!(value("sekisho_ec2_success{call=\"subnets\"}".to_owned()), Some(1.0));
    assert_eq!(value("sekisho_ec2_success{call=\"vpcs\"}".to_owned()), Some(0.0));
}

#[test]
fn a_finding_shows_0_before_it_goes_and_gives_its_room_back() {
    use super::findings::{FindingGauges, FindingLabels};
    let labels = |workload: &str| FindingLabels {
        code: Code::UserDataRead,
        severity: Severity::Medium,
        workload: labels::Workload::named("shop", workload),
    };
    let gauges = FindingGauges::default();
    let budget = super::series::Budget::new(2);
    let set =
        |names: &[&str], now| gauges.set(names.iter().map(|name| (labels(name), 1)).collect(), BootNs(now), &budget);
    assert_eq!(set(&["a", "b"], 0), 0);
    assert_eq!((set(&["a", "b", "c"], 1), budget.used()), (1, 2));
    assert_eq!(gauges.value(&labels("a")), Some(1));
    set(&[], 2);
    assert_eq!((gauges.value(&labels("a")), budget.used()), (Some(0), 2));
    set(&[], IDLE_NS + 1);
    assert_eq!(gauges.value(&labels("a")), Some(0));
    set(&[], IDLE_NS + 2);
    assert_eq!((gauges.value(&labels("a")), budget.used()), (None, 0));
}

#[test]
fn what_a_pod_says_to_itself_is_no_traffic() {
    let (metrics, exposition) = new(100);
    let to = |ip: &str, class| {
        let mut row = flow("inner-voice");
        (row.peer.ip, row.peer.class) = (Some(ip.to_owned()), class);
        Output::Flow(Box::new(row))
    };
    for ip in ["127.0.0.1", "127.0.0.6", "::1", "10.0.0.1"] {
        metrics.observe(&to(ip, PeerClass::ClusterPod), BootNs(1));
    }
    // Asked for somebody else, and turned to the proxy beside it.
    let mut row = flow("inner-voice");
    row.actual_peer = Some(ActualPeer { ip: IpAddr::from([127, 0, 0, 1]), port: 15_001 });
    metrics.observe(&Output::Flow(Box::new(row)), BootNs(1));
    assert!(!exposition.render().expect("renders").contains("inner-voice"));
    metrics.observe(&to("127.0.0.1", PeerClass::NodeLocal), BootNs(1));
    assert!(
        exposition.render().expect("renders").contains("inner-voice"),
        "on the node's own network it is the node's"
    );
}
