//! What the agent said at one moment.

use std::path::Path;

use agent_core::finding::Severity;
use agent_core::output::{AttributionKind, CapacityRow, FindingRow, State};
use agent_core::time::WallNs;
use agent_core::traffic::{TrafficBasis, TrafficRow};
use serde_json::Value;

use crate::api::client;
use crate::api::protocol::Verb;
use crate::command::findings;
use crate::lines;

/// See the module's text.
#[derive(Default)]
pub(super) struct Picture {
    pub(super) node: String,
    pub(super) capacity: Option<CapacityRow>,
    pub(super) pods: Vec<PodRow>,
    /// What the sums of [`Picture::pods`] rest on.
    pub(super) basis: Option<TrafficBasis>,
    /// What stands, the worst first, then what waivers accept, then what was resolved.
    pub(super) findings: Vec<FindingRow>,
    /// Questions that could not be decided.
    pub(super) doubts: usize,
    /// Lines that this version cannot read.
    pub(super) unread: usize,
    /// The agent's clock.
    pub(super) time: Option<WallNs>,
}

/// A pod, a container outside Kubernetes, or a unit.
pub(super) struct PodRow {
    /// As people call it; without control characters.
    pub(super) name: String,
    pub(super) traffic: TrafficRow,
    /// Open findings about it.
    pub(super) findings: usize,
    /// How bad the worst of them are, and how many are as bad.
    pub(super) worst: Option<(Severity, usize)>,
    /// Seconds of the last fold; `None` before one is over.
    fold_s: Option<f64>,
}

impl Picture {
    /// Asks a running agent.
    pub(super) fn ask(socket: &Path) -> Result<Self, client::Error> {
        let traffic: Vec<Value> = client::state(socket, Verb::Traffic)?;
        let capacity: Vec<Value> = client::state(socket, Verb::Capacity)?;
        let findings: Vec<Value> = client::state(socket, Verb::Findings)?;
        Ok(Self::read(&traffic, &capacity, &findings))
    }

    /// From the lines of the three answers.
    pub(super) fn read(traffic: &[Value], capacity: &[Value], findings: &[Value]) -> Self {
        let findings = findings::Answer::read(findings);
        let mut picture = Self { unread: findings.unread, doubts: findings.doubts.len(), ..Self::default() };
        picture.findings = findings.findings;
        let mut rows: Vec<TrafficRow> = Vec::new();
        for line in traffic {
            match line.get("kind").and_then(Value::as_str) {
                Some("traffic") => lines::put_read(line, &mut picture.unread, |row| rows.push(row)),
                Some("traffic_basis") => {
                    picture.time = line.get("time").and_then(Value::as_str).and_then(|time| time.parse().ok());
                    lines::put_read(line, &mut picture.unread, |basis| picture.basis = Some(basis));
                }
                _ => {}
            }
        }
        for line in capacity {
            lines::put_read(line, &mut picture.unread, |row| picture.capacity = Some(row));
        }
        let node = traffic.iter().chain(capacity).find_map(|line| line.get("node").and_then(Value::as_str));
        lines::clean_into(node.unwrap_or_default(), &mut picture.node);
        let fold_s = picture.basis.and_then(|basis| basis.window).and_then(|window| {
            let ns = u64::try_from(window.end.0.saturating_sub(window.start.0)).ok().filter(|ns| *ns > 0)?;
            Some(std::time::Duration::from_nanos(ns).as_secs_f64())
        });
        picture.pods = rows.into_iter().map(|row| PodRow::new(row, fold_s, &picture.findings)).collect();
        picture
    }

    /// How many findings of this severity stand.
    pub(super) fn open(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|row| row.state == State::Open && row.severity == severity).count()
    }

    /// Living pods; without a cluster those that have a control group.
    pub(super) fn living_pods(&self) -> usize {
        let is_pod = |row: &&PodRow| row.traffic.alive && row.traffic.attribution == AttributionKind::Pod;
        self.pods.iter().filter(is_pod).count()
    }
}

impl PodRow {
    fn new(traffic: TrafficRow, fold_s: Option<f64>, findings: &[FindingRow]) -> Self {
        let about = findings.iter().filter(|row| row.state == State::Open && is_about(row, &traffic));
        let severities: Vec<_> = about.map(|row| row.severity).collect();
        let worst =
            severities.iter().max().map(|worst| (*worst, severities.iter().filter(|one| *one == worst).count()));
        let mut name = String::new();
        lines::clean_into(&called(&traffic), &mut name);
        Self { name, traffic, findings: severities.len(), worst, fold_s }
    }

    /// Whether a finding is about it.
    pub(super) fn is_in(&self, finding: &FindingRow) -> bool {
        is_about(finding, &self.traffic)
    }

    /// Tells rows apart over time.
    pub(super) fn id(&self) -> String {
        let TrafficRow { attribution, uid, workload, why, .. } = &self.traffic;
        format!("{attribution:?}/{uid}/{}/{}", if uid.is_empty() { workload } else { "" }, why.as_deref().unwrap_or(""))
    }

    /// Payload bytes sent a second in the last fold; `None`: not known yet.
    pub(super) fn sent(&self) -> Option<f64> {
        self.per_second(self.traffic.last_fold?.bytes_sent)
    }

    /// As [`PodRow::sent`], received.
    pub(super) fn received(&self) -> Option<f64> {
        self.per_second(self.traffic.last_fold?.bytes_received)
    }

    /// Connections that ended a second in the last fold; `None`: not known yet.
    pub(super) fn connections(&self) -> Option<f64> {
        self.per_second(self.traffic.last_fold?.connections)
    }

    /// Bytes of both directions since the agent's start.
    pub(super) fn total(&self) -> u64 {
        self.traffic.total.amounts.bytes_sent.saturating_add(self.traffic.total.amounts.bytes_received)
    }

    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    fn per_second(&self, amount: u64) -> Option<f64> {
        self.fold_s.map(|seconds| amount as f64 / seconds)
    }
}

/// As people call it; a pod without a name by its uid, as its workload is called then.
fn called(row: &TrafficRow) -> String {
    match row.attribution {
        AttributionKind::Pod if !row.pod.is_empty() => format!("{}/{}", row.namespace, row.pod),
        AttributionKind::Unknown => format!("unknown ({})", row.why.as_deref().unwrap_or("no reason told")),
        _ if row.workload.is_empty() => "(no name)".to_owned(),
        _ => row.workload.clone(),
    }
}

/// A finding about a workload names some of its pods; one with more pods than names is about any of that workload.
fn is_about(finding: &FindingRow, row: &TrafficRow) -> bool {
    let subject = &finding.subject;
    if !row.uid.is_empty() && *subject.uid == *row.uid {
        return true;
    }
    if *subject.namespace != *row.namespace {
        return false;
    }
    let named = !row.pod.is_empty() && (*subject.pod == *row.pod || finding.pods.iter().any(|pod| **pod == *row.pod));
    let is_all_named = finding.pods_count <= finding.pods.len() as u64;
    let is_one_pod = !subject.pod.is_empty() || !subject.uid.is_empty();
    let of_workload = !row.workload.is_empty() && *subject.workload == *row.workload;
    named || (of_workload && !is_one_pod && (finding.pods.is_empty() || !is_all_named || row.pod.is_empty()))
}
