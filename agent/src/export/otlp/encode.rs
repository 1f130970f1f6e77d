//! Rows as OTLP log records. The body is the row as `-o json` prints it, with its structure; what collectors sort and route by
//! stands in attributes besides.

use std::sync::Arc;

use agent_core::finding::Severity;
use agent_core::output::{Output, SCHEMA, State};
use agent_core::time::WallNs;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::{Value, json};

/// Who sends.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The node's name.
    pub(crate) node: Arc<str>,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// A row.
    Row {
        /// Names it for good.
        id: String,
        /// It.
        row: Arc<Output>,
    },
    /// Rows were lost before they could be sent.
    Missing {
        /// Names this loss.
        id: String,
        /// How many at least; `None` when that is not known.
        rows: Option<u64>,
        /// When this was found out.
        time: WallNs,
    },
}

/// One request with all of them.
pub(super) fn request(source: &Source, records: &[Record]) -> ExportLogsServiceRequest {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        ("service.name", "sekisho"),
        ("service.version", version),
        ("host.name", &*source.node),
        ("k8s.node.name", &*source.node),
    ];
    let scope = InstrumentationScope { name: "sekisho".to_owned(), version: version.to_owned(), ..Default::default() };
    let logs = ScopeLogs {
        scope: Some(scope),
        log_records: records.iter().map(|record| log(source, record)).collect(),
        ..Default::default()
    };
    let resource = Resource {
        attributes: resource.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        ..Default::default()
    };
    let logs = ResourceLogs { resource: Some(resource), scope_logs: vec![logs], ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }
}

fn log(source: &Source, record: &Record) -> LogRecord {
    let (id, time, severity, body) = match record {
        Record::Row { id, row } => {
            let body = serde_json::from_str(&row.to_json(&source.node)).unwrap_or(Value::Null);
            (id, row.time(), severity(row), body)
        }
        Record::Missing { id, rows, time } => {
            let mut body = json!({ "schema": SCHEMA, "kind": "dropped", "time": time, "node": &*source.node });
            if let (Some(rows), Some(body)) = (rows, body.as_object_mut()) {
                body.insert("lines".to_owned(), json!(rows));
            }
            (id, *time, (SeverityNumber::Warn, "WARN"), body)
        }
    };
    let kind = body.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut attributes = vec![attribute("sekisho.id", id), attribute("sekisho.kind", &kind)];
    // A finding tells of its subject.
    let who = body.get("subject").unwrap_or(&body);
    let names = [
        ("k8s.namespace.name", who.get("namespace")),
        ("k8s.pod.name", who.get("pod")),
        ("k8s.pod.uid", who.get("uid")),
        ("sekisho.workload", who.get("workload")),
        ("sekisho.finding.code", body.get("code")),
        ("sekisho.finding.state", body.get("state")),
    ];
    let text = |value: Option<&Value>| value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    attributes.extend(names.into_iter().filter_map(|(key, value)| Some(attribute(key, &text(value)?))));
    let nanoseconds = u64::try_from(time.0).unwrap_or(0);
    LogRecord {
        time_unix_nano: nanoseconds,
        observed_time_unix_nano: nanoseconds,
        severity_number: severity.0 as i32,
        severity_text: severity.1.to_owned(),
        body: any(body),
        attributes,
        event_name: format!("sekisho.{kind}"),
        ..Default::default()
    }
}

/// As syslog's levels stand in OpenTelemetry's model: critical is an alert (somebody should look now), high an error.
/// <https://opentelemetry.io/docs/specs/otel/logs/data-model-appendix/#appendix-b-severitynumber-example-mappings>
fn severity(row: &Output) -> (SeverityNumber, &'static str) {
    match row {
        Output::Finding(row) if row.state == State::Open => match row.severity {
            Severity::Critical => (SeverityNumber::Error3, "critical"),
            Severity::High => (SeverityNumber::Error, "high"),
            Severity::Medium => (SeverityNumber::Warn2, "medium"),
            Severity::Warning => (SeverityNumber::Warn, "warning"),
            Severity::Low => (SeverityNumber::Info2, "low"),
            Severity::Info => (SeverityNumber::Info, "info"),
        },
        Output::Gap(_) => (SeverityNumber::Warn, "WARN"),
        // A finding that is as it should be, or over, wakes nobody.
        _ => (SeverityNumber::Info, "INFO"),
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: any(Value::String(value.to_owned())), ..Default::default() }
}

/// A value of JSON; null has none. Numbers beyond what OTLP holds go as text, exact.
fn any(value: Value) -> Option<AnyValue> {
    let value = match value {
        Value::Null => return None,
        Value::Bool(value) => Any::BoolValue(value),
        Value::Number(number) => match (number.as_i64(), number.is_u64(), number.as_f64()) {
            (Some(integer), _, _) => Any::IntValue(integer),
            (None, false, Some(float)) => Any::DoubleValue(float),
            _ => Any::StringValue(number.to_string()),
        },
        Value::String(text) => Any::StringValue(text),
        Value::Array(values) => {
            let values = values.into_iter().map(|value| any(value).unwrap_or_default()).collect();
            Any::ArrayValue(ArrayValue { values })
        }
        Value::Object(map) => {
            let values = map.into_iter().map(|(key, value)| KeyValue { key, value: any(value), ..Default::default() });
            Any::KvlistValue(KeyValueList { values: values.collect() })
        }
    };
    Some(AnyValue { value: Some(value) })
}
