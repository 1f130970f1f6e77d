//! The rows that the agent printed, with the documented field names and nothing else taken for granted.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::cgroup::Pod;
use crate::protocol::Load;

/// Every row of one run, in order.
#[derive(Debug, Default)]
pub struct Rows {
    /// Flows.
    pub flows: Vec<Flow>,
    /// Metadata requests.
    pub metadata: Vec<Metadata>,
    /// Processes.
    pub processes: Vec<Process>,
    /// Spans of time that are not covered.
    pub gaps: Vec<Gap>,
    /// Findings, whenever one opens, repeats or resolves.
    pub findings: Vec<Value>,
    /// Looks at the node's ceilings.
    pub capacity: Vec<Value>,
    /// Versions of the cluster's objects.
    pub objects: Vec<Value>,
}

/// Who did it.
#[derive(Clone, Debug, Deserialize)]
pub struct Who {
    /// `pod`, `container`, `host` or `unknown`.
    pub attribution: String,
    /// UID of the pod.
    pub uid: String,
    /// Container id.
    pub container: String,
    /// The process.
    pub process: Option<ProcessView>,
}

/// A process as rows show it.
#[derive(Clone, Debug, Deserialize)]
pub struct ProcessView {
    /// Process id.
    pub pid: u32,
    /// Program as given to `execve`.
    pub exe: Option<String>,
    /// Its own name.
    pub comm: String,
    /// Parent first.
    pub ancestors: Vec<Ancestor>,
    /// `connect`, `close`, `listen`, `send` or `exec`.
    pub by: String,
}

/// An ancestor of a process.
#[derive(Clone, Debug, Deserialize)]
pub struct Ancestor {
    /// Process id.
    pub pid: u32,
    /// Its own name.
    pub comm: String,
}

/// A folded row of connections.
#[derive(Clone, Debug, Deserialize)]
pub struct Flow {
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// `outbound`, `inbound` or `unknown`.
    pub direction: String,
    /// `tcp` or `udp`; absent in rows of kernel totals.
    pub protocol: Option<String>,
    /// This end.
    pub local: Local,
    /// The other end.
    pub peer: Peer,
    /// What stands behind a service's address.
    pub actual_peer: Option<ActualPeer>,
    /// `sidecar` or `ambient`: what of a mesh carries it.
    pub via: Option<String>,
    /// The listening side's port.
    pub service_port: Option<u16>,
    /// How the connections ended.
    pub outcome: Option<String>,
    /// Connections that ended in this row.
    pub connections: u64,
    /// Connections still open.
    pub open: u64,
    /// Distinct processes.
    pub processes: u64,
    /// Payload bytes.
    pub bytes_sent: u64,
    /// Payload bytes.
    pub bytes_received: u64,
    /// Retransmitted segments.
    pub retransmits: Option<u64>,
    /// Totals without peer and process.
    #[serde(default)]
    pub merged: bool,
    /// Has sockets older than the agent.
    #[serde(default)]
    pub preexisting: bool,
    /// What security groups say of it; only of pods that they are about.
    pub sg: Option<Sg>,
}

/// What security groups say of a row's connections.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Sg {
    /// `allowed`, `no_rule`, `not_judged` or `cannot_tell`.
    pub verdict: String,
    /// `pod` or `node`.
    pub by: Option<String>,
    /// Ids of rules.
    pub rules: Vec<String>,
    /// What it leaves open.
    pub why: Option<String>,
    /// When EC2 told the oldest of what it stands on.
    pub told: Option<String>,
}

/// An address of this end.
#[derive(Clone, Debug, Deserialize)]
pub struct Local {
    /// Address.
    pub ip: Option<String>,
}

/// The other end.
#[derive(Clone, Debug, Deserialize)]
pub struct Peer {
    /// Address.
    pub ip: Option<String>,
    /// Bounded class.
    pub class: String,
    /// DNS name.
    pub name: Option<String>,
    /// Namespace of a pod or service.
    pub namespace: Option<String>,
}

/// What stands behind a service's address.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct ActualPeer {
    /// Address.
    pub ip: std::net::IpAddr,
    /// Port.
    pub port: u16,
}

/// A metadata request.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// `imds` or `pod_identity`.
    pub service: String,
    /// `v1`, `v2` or `none`.
    pub version: String,
    /// Method.
    pub method: Option<String>,
    /// Class of the path.
    pub category: Option<String>,
    /// Role named in the path.
    pub role: Option<String>,
    /// Access key id of a credentials answer.
    pub access_key_id: Option<String>,
    /// X-Forwarded-For.
    pub forwarded_for: Option<String>,
    /// HTTP status.
    pub status: Option<u16>,
    /// Time to live of the answer's first packet.
    pub response_ttl: Option<u8>,
    /// What came of it.
    pub outcome: String,
    /// From request to answer.
    pub latency_us: Option<u64>,
}

/// A process started a program.
#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    /// Who.
    #[serde(flatten)]
    pub who: Who,
}

/// A span of time that is not covered.
#[derive(Clone, Debug, Deserialize)]
pub struct Gap {
    /// Why.
    pub cause: String,
}

/// Sums over flow rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Connections that ended.
    pub connections: u64,
    /// Payload bytes.
    pub sent: u64,
    /// Payload bytes.
    pub received: u64,
}

impl From<Load> for Sum {
    fn from(load: Load) -> Self {
        Self { connections: load.connections, sent: load.sent, received: load.received }
    }
}

impl Rows {
    /// Decodes the lines that `sekisho run -o json` printed.
    pub fn parse(lines: &[String]) -> Result<Self> {
        let mut rows = Self::default();
        for line in lines {
            rows.add(line).with_context(|| format!("row {line:?}"))?;
        }
        Ok(rows)
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let value: Value = serde_json::from_str(line).context("not JSON")?;
        ensure!(value["schema"] == "sekisho/1", "schema is {}", value["schema"]);
        ensure!(value["time"].is_string() && value["node"].is_string(), "no time or node");
        match value["kind"].as_str() {
            Some("flow") => self.flows.push(serde_json::from_value(value)?),
            Some("metadata") => self.metadata.push(serde_json::from_value(value)?),
            Some("process") => self.processes.push(serde_json::from_value(value)?),
            Some("gap") => self.gaps.push(serde_json::from_value(value)?),
            Some("finding") => self.findings.push(value),
            Some("capacity") => self.capacity.push(value),
            Some("object") => self.objects.push(value),
            other => bail!("kind is {other:?}"),
        }
        Ok(())
    }

    /// The flow rows of a pod.
    pub fn flows_of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a Flow> {
        self.flows.iter().filter(|flow| flow.who.uid == pod.uid)
    }

    /// The metadata rows of a pod.
    pub fn metadata_of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a Metadata> {
        self.metadata.iter().filter(|row| row.who.uid == pod.uid)
    }

    /// Sum over the rows of a pod, of one direction, protocol and outcome; rows of connections that were still open count
    /// their bytes.
    pub fn sum(&self, pod: &Pod, direction: &str, protocol: &str, outcome: &str) -> Sum {
        Sum::over(self.flows_of(pod).filter(|flow| {
            flow.direction == direction
                && flow.protocol.as_deref() == Some(protocol)
                && flow.outcome.as_deref().is_none_or(|ended| ended == outcome)
        }))
    }

    /// The pod's rows in a form that is readable in a failed assertion.
    pub fn show(&self, pod: &Pod) -> String {
        self.flows_of(pod).fold(String::new(), |text, flow| format!("{text}\n  {flow}"))
    }
}

impl Sum {
    /// Sum over flow rows.
    pub fn over<'a>(flows: impl Iterator<Item = &'a Flow>) -> Self {
        flows.fold(Self::default(), |sum, flow| Self {
            connections: sum.connections + flow.connections,
            sent: sum.sent + flow.bytes_sent,
            received: sum.received + flow.bytes_received,
        })
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome.as_deref().unwrap_or("open");
        let process = self.who.process.as_ref();
        let by = process.map_or("nobody".to_owned(), |p| format!("pid {} ({}) by {}", p.pid, p.comm, p.by));
        write!(
            f,
            "{} {} {} {} -> {} port {:?}: {} ended, {} open, {} sent, {} received, {} processes, {by}{}{}",
            self.direction,
            self.protocol.as_deref().unwrap_or("?"),
            outcome,
            self.local.ip.as_deref().unwrap_or("?"),
            self.peer.ip.as_deref().unwrap_or("?"),
            self.service_port,
            self.connections,
            self.open,
            self.bytes_sent,
            self.bytes_received,
            self.processes,
            if self.merged { ", merged" } else { "" },
            if self.preexisting { ", preexisting" } else { "" },
        )
    }
}

/// What the rows of one pod must say about one kind of traffic, all of it.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Whose.
    pub pod: &'a Pod,
    /// `outbound` or `inbound`.
    pub direction: &'a str,
    /// `tcp` or `udp`.
    pub protocol: &'a str,
    /// Outcome of every connection.
    pub outcome: &'a str,
    /// The listening side's port; `None`: several.
    pub port: Option<u16>,
    /// How many connections and bytes.
    pub sum: Sum,
    /// The processes, any of which a row may show, and how rows must say that they came by the socket.
    pub owners: &'a [u32],
    /// See [`Expected::owners`].
    pub by: &'a str,
    /// Who listens: owns inbound connections that nobody has closed yet.
    pub listener: Option<u32>,
}

impl Expected<'_> {
    /// Compares with the rows: sums exactly, and every row's identity, port and process.
    pub fn check(&self, rows: &Rows) -> Result<()> {
        let shown = || format!("expected {self:?}\nrows of pod {}:{}", self.pod.uid, rows.show(self.pod));
        let mine: Vec<&Flow> = rows
            .flows_of(self.pod)
            .filter(|flow| flow.direction == self.direction && flow.protocol.as_deref() == Some(self.protocol))
            .collect();
        let sum = Sum::over(mine.iter().copied());
        ensure!(sum == self.sum, "sums differ: {sum:?} instead of {:?}\n{}", self.sum, shown());
        for flow in mine {
            self.check_row(flow).with_context(|| format!("row: {flow}\n{}", shown()))?;
        }
        Ok(())
    }

    fn check_row(&self, flow: &Flow) -> Result<()> {
        let ended = flow.outcome.is_some();
        ensure!(flow.who.attribution == "pod", "attribution is {}", flow.who.attribution);
        ensure!(flow.who.container == self.pod.container, "container is {}", flow.who.container);
        ensure!(flow.outcome.as_deref().is_none_or(|outcome| outcome == self.outcome), "wrong outcome");
        ensure!(ended || flow.connections == 0, "a connection that is open counts in connections");
        ensure!(self.port.is_none() || flow.service_port == self.port, "wrong service port");
        let Some(process) = flow.who.process.as_ref() else {
            // Nobody connects, listens or has yet closed here.
            ensure!(!ended && self.direction == "inbound" && self.protocol == "udp", "no process");
            return Ok(());
        };
        if !ended && process.by == "listen" {
            ensure!(Some(process.pid) == self.listener, "wrong listener: expected {:?}", self.listener);
            return Ok(());
        }
        ensure!(self.owners.contains(&process.pid), "wrong process: expected one of {:?}", self.owners);
        ensure!(process.by == self.by, "wrong tie: expected {}", self.by);
        ensure!(flow.processes >= 1 && flow.processes <= self.owners.len() as u64, "wrong number of processes");
        Ok(())
    }
}
