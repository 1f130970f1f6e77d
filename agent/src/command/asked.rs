//! What of the history is asked for, the same for all commands that show rows of it.

use clap::Args;
use jiff::Zoned;
use serde_json::json;

use super::timeline::When;
use crate::api::protocol::PodName;
use crate::history::{Network, Query};
use anyhow::Context as _;

/// Of several values of one kind one must fit, of several kinds all.
#[derive(Args)]
pub(super) struct Asked {
    /// By this pod, alive or gone; may be repeated.
    #[arg(long, value_name = "NS/NAME")]
    pod: Vec<PodName>,

    /// By the pod with this uid; may be repeated.
    #[arg(long)]
    uid: Vec<String>,

    /// By this workload; may be repeated. Without a cluster: a pod's uid as pod-UID, a container's short id, a unit.
    #[arg(long, value_name = "NAME")]
    workload: Vec<String>,

    /// With this address at either end; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<Network>,

    /// With an address in this network at either end; may be repeated.
    #[arg(long, value_name = "NETWORK")]
    cidr: Vec<Network>,

    /// To peers by this DNS name or one below it, or by names like *.example.com; may be repeated.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,

    /// Requests that were answered with this access key id; may be repeated.
    #[arg(long, value_name = "ID")]
    key: Vec<String>,

    /// Requests that name this role; may be repeated.
    #[arg(long, value_name = "NAME")]
    role: Vec<String>,

    /// By programs whose name or path holds this text; may be repeated.
    #[arg(long, value_name = "TEXT")]
    process: Vec<String>,

    /// Findings with this id or code; may be repeated.
    #[arg(long, value_name = "ID")]
    finding: Vec<String>,

    /// From then on: 90m, 2d, 14:30, 2026-11-22, 2026-11-22T14:30, or RFC 3339. Without a zone it is this machine's.
    #[arg(long, value_name = "TIME")]
    since: Option<When>,

    /// Up to then, in the same forms.
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
}

impl Asked {
    /// As the history takes it.
    pub(super) fn query(&self, now: &Zoned) -> anyhow::Result<Query> {
        let since = self.since.as_ref().map(|when| when.at(now).context("--since")).transpose()?;
        let until = self.until.as_ref().map(|when| when.at(now).context("--until")).transpose()?;
        Ok(Query {
            since,
            until,
            kinds: Vec::new(),
            pods: self.pod.iter().map(|pod| (pod.namespace.clone(), pod.name.clone())).collect(),
            uids: self.uid.clone(),
            workloads: self.workload.clone(),
            networks: self.ip.iter().chain(&self.cidr).copied().collect(),
            names: self.name.clone(),
            keys: self.key.clone(),
            roles: self.role.clone(),
            processes: self.process.clone(),
            findings: self.finding.clone(),
        })
    }

    /// Says what is wrong with a span that ends before it begins.
    pub(super) fn is_backwards(query: &Query) -> bool {
        let (Some(since), Some(until)) = (query.since, query.until) else { return false };
        if since > until {
            eprintln!("error: --since ({since}) is later than --until ({until})");
        }
        since > until
    }

    /// For a record of what was asked; without the span.
    pub(super) fn record(&self) -> serde_json::Value {
        let pods: Vec<_> = self.pod.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
        let networks: Vec<_> = self.ip.iter().chain(&self.cidr).map(ToString::to_string).collect();
        json!({
            "pods": pods, "uids": self.uid, "workloads": self.workload, "networks": networks, "names": self.name,
            "keys": self.key,
            "roles": self.role, "processes": self.process, "findings": self.finding
        })
    }
}
