//! One request at a time, against a collector that does what collectors, and what stands where one should be, do.

use std::sync::Arc;
use std::time::Duration;

use agent_core::finding::{Code, Severity, Subject};
use agent_core::input::GapCause;
use agent_core::output::{FindingRow, GapRow, Output, State};
use agent_core::time::WallNs;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::SeverityNumber;

use super::receiver::{Manner, Receiver};
use super::{Client, Options, Record, Source, Taken, Trouble, encode, headers, uri};

const AT: WallNs = WallNs(1_767_323_045_123_456_789);
/// Never waited for, but where a test says so.
const EVER: Duration = Duration::from_mins(10);

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn source() -> Source {
    Source { node: Arc::from("node-1") }
}

fn client(endpoint: String, headers: Option<&str>) -> Client {
    let options = Options { endpoint, headers: headers.map(str::to_owned), ca_file: None };
    Client::new(&options, source()).unwrap().waiting(EVER)
}

fn gap(number: u64) -> Record {
    let row = GapRow { start: WallNs(0), end: AT, cause: GapCause::RingFull, records_lost: [("tcp", number)].into() };
    Record::Row { id: format!("gap-{number}"), row: Arc::new(Output::Gap(row)) }
}

fn finding(severity: Severity, state: State) -> Output {
    let subject =
        Subject { namespace: "shop".into(), workload: "cart".into(), pod: "cart-1".into(), ..Subject::default() };
    Output::Finding(Box::new(FindingRow {
        time: AT,
        id: "f1".to_owned(),
        code: Code::NodeCredentialsTaken,
        severity,
        state,
        subject,
        pods: Vec::new(),
        pods_count: 1,
        cause: "no_identity".to_owned(),
        first_seen: AT,
        last_seen: AT,
        resolved_at: None,
        count: u64::MAX,
        watched_since: AT,
        text: "it did".to_owned(),
        advice: "do not".to_owned(),
        evidence: Vec::new(),
        accepted_reason: None,
    }))
}

/// A value of the body by its path.
fn at<'a>(value: Option<&'a AnyValue>, path: &[&str]) -> Option<&'a Any> {
    let value = value?.value.as_ref()?;
    let Some((first, rest)) = path.split_first() else { return Some(value) };
    let Any::KvlistValue(map) = value else { return None };
    at(map.values.iter().find(|pair| pair.key == *first)?.value.as_ref(), rest)
}

#[test]
fn a_row_arrives_whole_with_its_names() {
    run(async {
        let receiver = Receiver::start().await;
        let client = client(receiver.endpoint(), Some("authorization=Bearer%20hunter2, x-tenant = 7"));
        let missing = Record::Missing { id: "missing-1".to_owned(), rows: Some(7), time: AT };
        let row = Record::Row { id: "f/1".to_owned(), row: Arc::new(finding(Severity::Critical, State::Open)) };
        assert_eq!(client.send(&[row, missing]).await, Ok(Taken::default()));
        assert_eq!(receiver.path(), "/v1/logs");
        let header = |name: &str| receiver.header(name).unwrap_or_default();
        assert_eq!((header("authorization"), header("x-tenant")), ("Bearer hunter2".to_owned(), "7".to_owned()));
        assert_eq!(header("content-type"), "application/x-protobuf");
        let resource = receiver.resource();
        assert_eq!((resource["service.name"].as_str(), resource["k8s.node.name"].as_str()), ("sekisho", "node-1"));

        let arrived = receiver.arrived();
        let [finding, missing] = &arrived[..] else { panic!("{arrived:?}") };
        assert_eq!((finding.id.as_str(), finding.kind.as_str()), ("f/1", "finding"));
        assert_eq!(finding.log.time_unix_nano, 1_767_323_045_123_456_789);
        assert_eq!(finding.log.event_name, "sekisho.finding");
        let body = finding.log.body.as_ref();
        let text = |path: &[&str]| at(body, path).cloned();
        assert_eq!(text(&["code"]), Some(Any::StringValue("node-credentials-taken".to_owned())));
        assert_eq!(text(&["subject", "pod"]), Some(Any::StringValue("cart-1".to_owned())));
        assert_eq!(text(&["count"]), Some(Any::StringValue(u64::MAX.to_string())), "beyond what OTLP counts");
        assert_eq!(text(&["resolved_at"]), None);
        let attributes: Vec<_> = finding.log.attributes.iter().map(|pair| pair.key.as_str()).collect();
        assert!(attributes.contains(&"k8s.pod.name") && attributes.contains(&"k8s.namespace.name"), "{attributes:?}");
        assert_eq!(
            (missing.kind.as_str(), at(missing.log.body.as_ref(), &["lines"])),
            ("dropped", Some(&Any::IntValue(7)))
        );
    });
}

#[test]
fn findings_are_as_severe_as_they_are() {
    let severities = Severity::ALL.iter().map(|severity| {
        let row = Record::Row { id: String::new(), row: Arc::new(finding(*severity, State::Open)) };
        let request = encode::request(&source(), &[row]);
        request.resource_logs[0].scope_logs[0].log_records[0].severity_number
    });
    let severities: Vec<i32> = severities.collect();
    assert!(severities.is_sorted_by(|one, other| one < other), "{severities:?}");
    assert_eq!(severities.last(), Some(&(SeverityNumber::Error3 as i32)));
    for state in [State::Resolved, State::Accepted] {
        let row = Record::Row { id: String::new(), row: Arc::new(finding(Severity::Critical, state)) };
        let request = encode::request(&source(), &[row]);
        let log = &request.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!(log.severity_number, SeverityNumber::Info as i32);
    }
}

#[test]
fn answers_mean_what_the_protocol_says() {
    run(async {
        let receiver = Receiver::start().await;
        let client = client(receiver.endpoint(), Some("authorization=Bearer%20hunter2"));
        let rows = [gap(1), gap(2)];
        let answers = |code, headers: Vec<(&'static str, String)>, body: &str| {
            receiver.behaves(Manner::Answers(code, headers, body.to_owned()));
        };
        for (code, after) in [(429, Some(7)), (503, Some(7)), (502, None), (500, None), (401, None), (404, None)] {
            let headers = after.map(|seconds: u64| ("retry-after", seconds.to_string()));
            // Some repeat what they were sent.
            answers(code, headers.into_iter().collect(), "bad token hunter2");
            let trouble = client.send(&rows).await.unwrap_err();
            assert!(
                !trouble.to_string().contains("hunter2") && trouble.to_string().contains(&code.to_string()),
                "{trouble}"
            );
            let Trouble::Later { after: asked, .. } = trouble else { panic!("{code}: {trouble:?}") };
            assert_eq!(asked, after.map(Duration::from_secs), "{code}");
        }
        answers(503, vec![("retry-after", "999999".to_owned())], "");
        assert!(matches!(client.send(&rows).await, Err(Trouble::Later { after: Some(after), .. }) if after < EVER));
        answers(413, Vec::new(), "");
        assert!(matches!(client.send(&rows).await, Err(Trouble::TooLarge(_))));
        answers(400, vec![("content-type", "application/x-protobuf".to_owned())], "");
        assert_eq!(client.send(&rows).await, Err(Trouble::Never));
        // What a TLS port answers to plain HTTP.
        answers(
            400,
            vec![("content-type", "text/plain".to_owned())],
            "Client sent an HTTP request to an HTTPS server.",
        );
        assert!(matches!(client.send(&rows).await, Err(Trouble::Later { .. })));
        answers(200, Vec::new(), "\u{1}no message");
        assert_eq!(client.send(&rows).await, Ok(Taken::default()));
        receiver.behaves(Manner::TakesAllBut("IntValue(2)", "row\u{1b}[2J refused".to_owned()));
        let taken = client.send(&rows).await.unwrap();
        assert_eq!((taken.refused, taken.text.as_str()), (1, "row\u{fffd}[2J refused"));
        receiver.behaves(Manner::TakesAllBut("IntValue(2)", "you said hunter2".to_owned()));
        assert_eq!(client.send(&rows).await, Ok(Taken { refused: 1, text: String::new() }));
    });
}

#[test]
fn a_collector_that_is_not_there_is_asked_later() {
    run(async {
        let mut receiver = Receiver::start().await;
        let client = client(receiver.endpoint(), None);
        receiver.behaves(Manner::Breaks);
        assert!(matches!(client.send(&[gap(1)]).await, Err(Trouble::Later { after: None, .. })));
        receiver.down().await;
        assert!(matches!(client.send(&[gap(1)]).await, Err(Trouble::Later { after: None, .. })));
        receiver.up().await;
        receiver.behaves(Manner::Hangs);
        let hasty = client.waiting(Duration::from_millis(50));
        let trouble = hasty.send(&[gap(1)]).await.unwrap_err();
        assert!(trouble.to_string().contains("no answer in 0.05 s"), "{trouble}");
    });
}

#[test]
fn endpoints_and_headers() {
    for (endpoint, wanted) in [
        ("http://collector:4318", "http://collector:4318/v1/logs"),
        ("https://[::1]:4318/", "https://[::1]:4318/v1/logs"),
        ("https://vendor.example/otlp/v1/logs?tenant=1", "https://vendor.example/otlp/v1/logs?tenant=1"),
    ] {
        assert_eq!(uri(endpoint).unwrap().to_string(), wanted);
    }
    for endpoint in ["collector:4318", "ftp://collector", "http://", "http://me:hunter2@collector", "/v1/logs", ""] {
        let error = uri(endpoint).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
    assert!(headers("").unwrap().is_empty());
    assert!(headers("a=b").unwrap()["a"].is_sensitive());
    for text in ["hunter2", "a=1,hunter 2=x", "a=%0Ahunter2", "=hunter2"] {
        let error = headers(text).unwrap_err().to_string();
        assert!(error.starts_with("header ") && !error.contains("hunter"), "{error}");
    }
}

/// Over TLS, to a collector that only the file vouches for; to nobody without it.
#[test]
fn a_collector_must_be_who_it_says() {
    run(async {
        let (receiver, certificate) = Receiver::start_tls().await;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ca.pem");
        std::fs::write(&path, certificate).unwrap();
        let options = |ca_file| Options { endpoint: receiver.endpoint(), headers: None, ca_file };
        let trusting = Client::new(&options(Some(path)), source()).unwrap().waiting(EVER);
        assert_eq!(trusting.send(&[gap(1)]).await, Ok(Taken::default()));
        let trouble = Client::new(&options(None), source()).unwrap().waiting(EVER).send(&[gap(2)]).await.unwrap_err();
        assert!(trouble.to_string().contains("certificate"), "{trouble}");
        assert_eq!(receiver.arrived().len(), 1);
    });
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ca.pem");
    let options = Options { endpoint: "https://collector".to_owned(), headers: None, ca_file: Some(path.clone()) };
    for text in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let error = Client::new(&options, source()).err().unwrap().to_string();
        assert!(error.contains("ca.pem"), "{error}");
    }
}
