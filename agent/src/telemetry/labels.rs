//! Label sets. Values come from closed enums, and from names that the budget bounds; never from free text.
//!
//! Each set is taken apart where it is encoded, so that a new field cannot be forgotten there.

use std::fmt::Error;
use std::hash::Hash;
use std::sync::Arc;

use agent_core::facts::{Ec2Call, Source};
use agent_core::finding::{Code, Severity};
use agent_core::input::{Category, GapCause, ImdsVersion, MetadataOutcome};
use agent_core::output::{Identity, PeerClass};
use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};

mod node;
mod plain;

#[cfg(test)]
pub(super) use node::unit;
pub(super) use node::{CollectorLabels, EnaLabels, EventLabels, PodLabels, ResourceLabels, TrafficLabels};

/// Workload of the series that take what finds no room.
const OTHER: &str = "other";
/// Workload of what could not be attributed.
const UNKNOWN: &str = "unknown";

/// A label set that carries a workload.
pub(super) trait WithWorkload:
    Clone + Eq + Hash + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static
{
    /// Which.
    fn workload(&self) -> &Workload;

    /// The same for the workload `other`.
    fn overflow(self) -> Self;
}

/// Namespace and workload; shared by the sets of one row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Workload(Arc<(Box<str>, Box<str>)>);

/// Of `sekisho_connections_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionLabels {
    pub(super) workload: Workload,
    pub(super) direction: &'static str,
    pub(super) peer_class: PeerClass,
    pub(super) outcome: &'static str,
}

/// Of `sekisho_connection_bytes_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BytesLabels {
    pub(super) workload: Workload,
    pub(super) peer_class: PeerClass,
    pub(super) direction: BytesDirection,
}

/// Which way bytes went, seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum BytesDirection {
    Egress,
    Ingress,
}

/// Of `sekisho_tcp_retransmits_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RetransmitLabels {
    pub(super) workload: Workload,
    pub(super) peer_class: PeerClass,
}

/// Of `sekisho_tcp_rtt_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RttLabels {
    pub(super) peer_class: PeerClass,
}

/// Of `sekisho_metadata_requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct MetadataLabels {
    pub(super) workload: Workload,
    pub(super) service: &'static str,
    pub(super) version: ImdsVersion,
    pub(super) category: Option<Category>,
    pub(super) outcome: MetadataOutcome,
}

/// Of `sekisho_records_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RecordLabels {
    pub(super) kind: &'static str,
    pub(super) fate: &'static str,
}

/// Of `sekisho_history_rows_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HistoryLabels {
    pub(super) fate: &'static str,
}

/// Of `sekisho_probe_attached`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ProbeLabels {
    pub(super) probe: &'static str,
}

/// Of `sekisho_untracked_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct UntrackedLabels {
    pub(super) what: Untracked,
}

/// What the probes could not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Untracked {
    Sockets,
    Attempts,
    Peers,
    Accounts,
    UnreadablePackets,
}

/// Of `sekisho_series_suppressed_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SuppressedLabels {
    pub(super) metric: &'static str,
}

/// Of `sekisho_findings_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OpenedLabels {
    pub(super) code: Code,
    pub(super) severity: Severity,
    pub(super) namespace: Box<str>,
}

/// Of `sekisho_verdicts_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct VerdictLabels {
    pub(super) code: Code,
    pub(super) verdict: &'static str,
}

/// Of `sekisho_cluster_age_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SourceLabels {
    pub(super) source: Source,
}

/// Of `sekisho_ec2_age_seconds` and `sekisho_ec2_success`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CallLabels {
    pub(super) call: Ec2Call,
}

/// Of `sekisho_last_gap_end_timestamp_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CauseLabels {
    pub(super) cause: GapCause,
}

/// Of `sekisho_cluster_left_out_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReasonLabels {
    pub(super) reason: &'static str,
}

/// Of `sekisho_kubernetes_events_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OutcomeLabels {
    pub(super) outcome: &'static str,
}

/// Of `sekisho_build_info`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BuildLabels {
    pub(super) version: &'static str,
}

// === impl Workload ===

impl Workload {
    pub(super) fn of(identity: &Identity) -> Self {
        let workload = if identity.workload.is_empty() { UNKNOWN } else { &identity.workload };
        Self(Arc::new((Box::from(identity.namespace.as_str()), Box::from(workload))))
    }

    /// Of what the row of a finding is about.
    pub(super) fn named(namespace: &str, workload: &str) -> Self {
        Self(Arc::new((Box::from(namespace), Box::from(workload))))
    }

    pub(super) fn other() -> Self {
        Self(Arc::new((Box::from(""), Box::from(OTHER))))
    }
}

impl EncodeLabelSet for Workload {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let (namespace, workload) = &*self.0;
        put(encoder, "namespace", namespace)?;
        put(encoder, "workload", workload)
    }
}

// === impl ConnectionLabels ===

impl WithWorkload for ConnectionLabels {
    fn workload(&self) -> &Workload {
        &self.workload
    }

    fn overflow(self) -> Self {
        Self { workload: Workload::other(), ..self }
    }
}

impl EncodeLabelSet for ConnectionLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { workload, direction, peer_class: class, outcome } = self;
        workload.encode(encoder)?;
        put(encoder, "direction", direction)?;
        put(encoder, "peer_class", peer_class(*class))?;
        put(encoder, "outcome", outcome)
    }
}

// === impl BytesLabels ===

impl WithWorkload for BytesLabels {
    fn workload(&self) -> &Workload {
        &self.workload
    }

    fn overflow(self) -> Self {
        Self { workload: Workload::other(), ..self }
    }
}

impl EncodeLabelSet for BytesLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { workload, peer_class: class, direction } = self;
        workload.encode(encoder)?;
        put(encoder, "peer_class", peer_class(*class))?;
        let direction = match direction {
            BytesDirection::Egress => "egress",
            BytesDirection::Ingress => "ingress",
        };
        put(encoder, "direction", direction)
    }
}

// === impl RetransmitLabels ===

impl WithWorkload for RetransmitLabels {
    fn workload(&self) -> &Workload {
        &self.workload
    }

    fn overflow(self) -> Self {
        Self { workload: Workload::other(), ..self }
    }
}

impl EncodeLabelSet for RetransmitLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { workload, peer_class: class } = self;
        workload.encode(encoder)?;
        put(encoder, "peer_class", peer_class(*class))
    }
}

// === impl MetadataLabels ===

impl WithWorkload for MetadataLabels {
    fn workload(&self) -> &Workload {
        &self.workload
    }

    fn overflow(self) -> Self {
        Self { workload: Workload::other(), ..self }
    }
}

impl EncodeLabelSet for MetadataLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { workload, service, version, category: class, outcome } = self;
        workload.encode(encoder)?;
        put(encoder, "service", service)?;
        put(encoder, "version", imds_version(*version))?;
        put(encoder, "category", class.map_or(UNKNOWN, category))?;
        put(encoder, "outcome", metadata_outcome(*outcome))
    }
}

pub(super) fn put(encoder: &mut LabelSetEncoder<'_>, key: &str, value: &str) -> Result<(), Error> {
    (key, value).encode(encoder.encode_label())
}

// === Names of core's enums: the same as in the JSON form, which a test holds ===

/// Every class of peers.
pub(super) const PEER_CLASSES: &[PeerClass] = &[
    PeerClass::Imds,
    PeerClass::PodIdentity,
    PeerClass::KubeApi,
    PeerClass::NodeLocal,
    PeerClass::ClusterPod,
    PeerClass::Service,
    PeerClass::Vpc,
    PeerClass::AwsService,
    PeerClass::Internet,
    PeerClass::Unknown,
];

pub(super) fn peer_class(class: PeerClass) -> &'static str {
    match class {
        PeerClass::Imds => "imds",
        PeerClass::PodIdentity => "pod_identity",
        PeerClass::KubeApi => "kube_api",
        PeerClass::NodeLocal => "node_local",
        PeerClass::ClusterPod => "cluster_pod",
        PeerClass::Service => "service",
        PeerClass::Vpc => "vpc",
        PeerClass::AwsService => "aws_service",
        PeerClass::Internet => "internet",
        PeerClass::Unknown => "unknown",
    }
}

pub(super) fn imds_version(version: ImdsVersion) -> &'static str {
    match version {
        ImdsVersion::V1 => "v1",
        ImdsVersion::V2 => "v2",
        ImdsVersion::None => "none",
    }
}

pub(super) fn category(category: Category) -> &'static str {
    match category {
        Category::Token => "token",
        Category::RoleList => "role_list",
        Category::RoleCredentials => "role_credentials",
        Category::RoleInfo => "role_info",
        Category::IdentityCredentials => "identity_credentials",
        Category::UserData => "user_data",
        Category::IdentityDocument => "identity_document",
        Category::Metadata => "metadata",
        Category::PodIdentityCredentials => "pod_identity_credentials",
        Category::OtherCloud => "other_cloud",
        Category::Other => "other",
    }
}

pub(super) fn metadata_outcome(outcome: MetadataOutcome) -> &'static str {
    match outcome {
        MetadataOutcome::Ok => "ok",
        MetadataOutcome::Unauthorized => "unauthorized",
        MetadataOutcome::Forbidden => "forbidden",
        MetadataOutcome::NotFound => "not_found",
        MetadataOutcome::Error => "error",
        MetadataOutcome::Unanswered => "unanswered",
        MetadataOutcome::Blocked => "blocked",
        MetadataOutcome::Failed => "failed",
        MetadataOutcome::Idle => "idle",
        MetadataOutcome::Unparsed => "unparsed",
        MetadataOutcome::Truncated => "truncated",
    }
}

pub(super) fn source(source: Source) -> &'static str {
    match source {
        Source::Pods => "pods",
        Source::Policies => "policies",
        Source::NetworkPolicies => "network_policies",
        Source::ServiceAccounts => "service_accounts",
        Source::Node => "node",
        Source::CniNode => "cni_node",
        Source::CsiNode => "csi_node",
        Source::Events => "events",
        Source::Services => "services",
        Source::ApiEndpoints => "api_endpoints",
    }
}

pub(super) fn gap_cause(cause: GapCause) -> &'static str {
    match cause {
        GapCause::NotRunning => "not_running",
        GapCause::Stopped => "stopped",
        GapCause::Crashed => "crashed",
        GapCause::Suspended => "suspended",
        GapCause::ClockJump => "clock_jump",
        GapCause::RingFull => "ring_full",
        GapCause::ProbeMissing => "probe_missing",
    }
}
