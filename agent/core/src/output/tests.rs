//! The exact forms that programs and people get.

use std::collections::BTreeMap;

use super::*;
use crate::time::WallNs;

const UID: &str = "6f0d2c1e-8a52-4b7e-9d0c-1a2b3c4d5e6f";
/// 2026-01-02T03:04:05.678901Z.
const TIME: WallNs = WallNs(1_767_323_045_678_901_234);

fn subject(by: By) -> Who {
    let identity = Identity {
        attribution: AttributionKind::Pod,
        why: None,
        namespace: "shop".into(),
        pod: "cart-7d9-x".into(),
        uid: UID.into(),
        container: "ab".repeat(32),
        workload: "cart".into(),
    };
    let process = ProcessView {
        pid: 4711,
        exe: Some("/usr/bin/curl".into()),
        exe_resolved: None,
        comm: "curl".into(),
        args: Vec::new(),
        ancestors: vec![Ancestor { pid: 4700, comm: "sh".into(), exe: Some("/bin/sh".into()) }],
        by,
    };
    Who { identity: Arc::new(identity), process: Some(Arc::new(process)) }
}

/// `who` as it stands in every row's JSON.
fn who_json(by: &str) -> String {
    let container = "ab".repeat(32);
    format!(
        r#""attribution":"pod","namespace":"shop","pod":"cart-7d9-x","uid":"{UID}","container":"{container}","workload":"cart","process":{{"pid":4711,"exe":"/usr/bin/curl","exe_resolved":null,"comm":"curl","ancestors":[{{"pid":4700,"comm":"sh","exe":"/bin/sh"}}],"by":"{by}"}}"#
    )
}

fn flow() -> FlowRow {
    let mut rtt = RttHistogram::default();
    rtt.observe(1_234);
    FlowRow {
        who: subject(By::Connect),
        window: Window { start: WallNs(TIME.0 - 10_000_000_000), end: TIME },
        direction: "outbound",
        protocol: Some(Protocol::Tcp),
        local: Local { ip: Some("10.0.3.7".into()) },
        peer: Peer {
            ip: Some("93.184.216.34".into()),
            class: PeerClass::Internet,
            name: None,
            namespace: None,
            pod: None,
        },
        actual_peer: None,
        via: None,
        service_port: Some(443),
        outcome: Some("established"),
        connections: 3,
        open: 0,
        processes: 2,
        bytes_sent: 1_536,
        bytes_received: 3_500_000,
        retransmits: Some(2),
        rtt_us: Some(1_234),
        merged: false,
        preexisting: false,
        sg: None,
        rtt,
        records: Records::default(),
    }
}

fn metadata() -> MetadataRow {
    MetadataRow {
        time: TIME,
        who: subject(By::Send),
        service: "imds",
        version: ImdsVersion::V1,
        method: Some(Method::Get),
        category: Some(Category::RoleCredentials),
        role: Some("node".into()),
        access_key_id: Some("ASIAEXAMPLEEXAMPLE00".into()),
        forwarded_for: None,
        status: Some(200),
        response_ttl: Some(255),
        response_bytes: Some(1_300),
        outcome: MetadataOutcome::Ok,
        latency_us: Some(850),
        local: Local { ip: Some("10.0.3.7".into()) },
        origin: None,
    }
}

fn gap() -> GapRow {
    GapRow {
        start: WallNs(TIME.0 - 1_000_000_000),
        end: TIME,
        cause: GapCause::RingFull,
        records_lost: BTreeMap::from([("metadata", 7), ("process", 2)]),
    }
}

#[test]
fn json_of_every_kind() {
    let cases = [
        (
            Output::Flow(Box::new(flow())),
            format!(
                r#"{{"schema":"sekisho/1","kind":"flow","time":"2026-01-02T03:04:05.678901Z","node":"node-1",{},"window":{{"start":"2026-01-02T03:03:55.678901Z","end":"2026-01-02T03:04:05.678901Z"}},"direction":"outbound","protocol":"tcp","local":{{"ip":"10.0.3.7"}},"peer":{{"ip":"93.184.216.34","class":"internet","name":null,"namespace":null,"pod":null}},"service_port":443,"outcome":"established","connections":3,"open":0,"processes":2,"bytes_sent":1536,"bytes_received":3500000,"retransmits":2,"rtt_us":1234}}"#,
                who_json("connect")
            ),
        ),
        (
            Output::Metadata(Box::new(metadata())),
            format!(
                r#"{{"schema":"sekisho/1","kind":"metadata","time":"2026-01-02T03:04:05.678901Z","node":"node-1",{},"service":"imds","version":"v1","method":"GET","category":"role_credentials","role":"node","access_key_id":"ASIAEXAMPLEEXAMPLE00","forwarded_for":null,"status":200,"response_ttl":255,"response_bytes":1300,"outcome":"ok","latency_us":850,"local":{{"ip":"10.0.3.7"}}}}"#,
                who_json("send")
            ),
        ),
        (
            Output::Process(Box::new(ProcessRow { time: TIME, who: subject(By::Exec), uid_number: 1000 })),
            format!(
                r#"{{"schema":"sekisho/1","kind":"process","time":"2026-01-02T03:04:05.678901Z","node":"node-1",{},"uid_number":1000}}"#,
                who_json("exec")
            ),
        ),
        (
            Output::Gap(gap()),
            r#"{"schema":"sekisho/1","kind":"gap","time":"2026-01-02T03:04:05.678901Z","node":"node-1","start":"2026-01-02T03:04:04.678901Z","end":"2026-01-02T03:04:05.678901Z","cause":"ring_full","records_lost":{"metadata":7,"process":2}}"#.to_owned(),
        ),
    ];
    for (output, expected) in cases {
        assert_eq!(output.to_json("node-1"), expected);
    }
}

#[test]
fn what_security_groups_say_stands_in_rows_of_pods_with_policies_alone() {
    let mut row = flow();
    let sg = |verdict, by, rules: &[&str], why| {
        Some(Box::new(SgRow { verdict, by, rules: rules.iter().map(|id| Arc::from(*id)).collect(), why, told: None }))
    };
    let json = |row: &FlowRow| -> serde_json::Value {
        serde_json::from_str(&Output::Flow(Box::new(row.clone())).to_json("n")).unwrap()
    };
    assert_eq!(json(&row).get("sg"), None);
    row.sg = sg(SgVerdict::Allowed, Some(JudgedBy::Pod), &["sgr-1", "sgr-2"], None);
    assert_eq!(json(&row)["sg"], serde_json::json!({"verdict": "allowed", "by": "pod", "rules": ["sgr-1", "sgr-2"]}));
    assert!(Output::Flow(Box::new(row.clone())).to_text().ends_with("  sg allowed by sgr-1,sgr-2"));
    row.sg = sg(SgVerdict::NotJudged, None, &[], Some(SgWhy::SameNode));
    assert_eq!(json(&row)["sg"], serde_json::json!({"verdict": "not_judged", "rules": [], "why": "same_node"}));
    assert!(Output::Flow(Box::new(row.clone())).to_text().ends_with("  sg not judged: same node"));
    row.sg = sg(SgVerdict::NoRule, Some(JudgedBy::Node), &[], None);
    assert!(Output::Flow(Box::new(row)).to_text().ends_with("  sg no rule (node's groups)"));
}

#[test]
fn what_is_not_known_is_null_and_what_is_exceptional_is_said() {
    let mut row = flow();
    row.who =
        Who { identity: Arc::new(Identity { why: Some("cgroup not known"), ..Identity::default() }), process: None };
    (row.local.ip, row.peer.ip, row.service_port, row.outcome, row.rtt_us) = (None, None, None, None, None);
    (row.protocol, row.retransmits, row.merged, row.preexisting) = (None, None, true, true);
    let json: serde_json::Value = serde_json::from_str(&Output::Flow(Box::new(row)).to_json("n")).unwrap();
    for field in ["process", "service_port", "outcome", "rtt_us", "protocol", "retransmits"] {
        assert_eq!(json.get(field), Some(&serde_json::Value::Null), "{field}");
    }
    assert_eq!((&json["local"]["ip"], &json["peer"]["ip"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    assert_eq!((&json["merged"], &json["preexisting"]), (&true.into(), &true.into()));
    assert_eq!((&json["attribution"], &json["why"]), (&"unknown".into(), &"cgroup not known".into()));
}

#[test]
fn text_of_every_kind() {
    let who = "shop/cart-7d9-x                  curl[4711]          ";
    let cases = [
        (
            Output::Flow(Box::new(flow())),
            format!(
                "03:04:05.678 flow     {who} tcp 10.0.3.7 -> 93.184.216.34:443 (internet)  established x3  1.5 KiB out 3.3 MiB in  rtt 1.2 ms  2 retransmitted"
            ),
        ),
        (
            Output::Metadata(Box::new(metadata())),
            format!(
                "03:04:05.678 metadata {who} imds v1 GET role_credentials role node  ok 200  key ASIAEXAMPLEEXAMPLE00  850 us"
            ),
        ),
        (
            Output::Process(Box::new(ProcessRow { time: TIME, who: subject(By::Exec), uid_number: 1000 })),
            format!("03:04:05.678 process  {who} user 1000 < sh[4700]"),
        ),
        (
            Output::Gap(gap()),
            "03:04:05.678 gap      not covered from 2026-01-02T03:04:04.678901Z to 2026-01-02T03:04:05.678901Z: ring_full  7 metadata lost  2 process lost".to_owned(),
        ),
    ];
    for (output, expected) in cases {
        assert_eq!(output.to_text(), expected);
    }
}

#[test]
fn text_of_odd_flows() {
    let mut row = flow();
    row.who.process = None;
    row.direction = "inbound";
    row.local.ip = Some("fd00::7".into());
    row.service_port = Some(8080);
    row.peer.pod = Some("client".into());
    (row.outcome, row.connections, row.open) = (None, 0, 5);
    (row.rtt_us, row.retransmits, row.merged) = (None, Some(0), true);
    let text = Output::Flow(Box::new(row)).to_text();
    assert!(
        text.ends_with("tcp [fd00::7]:8080 <- 93.184.216.34 (client)  open x5  1.5 KiB out 3.3 MiB in  (merged)"),
        "{text}"
    );
}

#[test]
fn no_escape_sequence_reaches_a_terminal() {
    let mut row = metadata();
    row.role = Some("\u{1b}]0;owned\u{7}\n".into());
    let text = Output::Metadata(Box::new(row)).to_text();
    assert!(!text.contains(char::is_control) && text.contains("owned"), "{text}");
}

#[test]
fn round_trip_times_fall_into_their_buckets() {
    let mut histogram = RttHistogram::default();
    for rtt in [0, 100, 101, 10_000_000, 10_000_001, u32::MAX] {
        histogram.observe(rtt);
    }
    assert_eq!(
        (histogram.counts()[0], histogram.counts()[1], histogram.counts()[15], histogram.counts()[16]),
        (2, 1, 1, 2)
    );
    assert_eq!(histogram.count(), 6);
    let mut twice = histogram;
    twice.merge(&histogram);
    assert_eq!((twice.count(), twice.sum_us()), (12, 2 * histogram.sum_us()));
}
