//! `Pod`, and the pod of a template, to [`PodFacts`].

use std::net::IpAddr;
use std::sync::Arc;

use agent_core::facts::{Dns, Phase, PodFacts, WorkloadRef};

use super::shapes::{Meta, Pod, PodSpec, PodStatus};
use super::{Conversion, annotation, cni, container, managed, requests, workload};

/// The label that the Pod Identity webhook's owner sets on what it mutated.
const POD_IDENTITY_LABEL: &str = "eks.amazonaws.com/pod-identity";
const SKIP_IDENTITY_LABEL: &str = "eks.amazonaws.com/skip-pod-identity-webhook";
const FARGATE_LABEL: &str = "eks.amazonaws.com/fargate-profile";
/// Annotations of the kubelet on static pods and their mirrors.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Written by Istio's CNI once it has turned a pod's traffic to the node's proxy, and taken back with that
/// (<https://github.com/istio/istio/blob/master/architecture/ambient/ztunnel-cni-lifecycle.md>).
const AMBIENT: &str = "ambient.istio.io/redirection";
/// Where a namespaced object lives that names no namespace.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// A pod as the API server or a manifest shows it.
pub(super) fn admitted_or_not(pod: Pod, conversion: &Conversion) -> Result<PodFacts, String> {
    let name = match (pod.metadata.name.as_str(), pod.metadata.generate_name.as_str()) {
        ("", "") => return Err("metadata.name: expected a name".to_owned()),
        ("", prefix) => prefix.trim_end_matches('-').to_owned(),
        (name, _) => name.to_owned(),
    };
    let owner = workload::of_pod(&pod.metadata, &name);
    facts(&name, owner, pod, conversion)
}
/// Name servers that a pod may name; resolvers read no more.
const NAMESERVERS_MAX: usize = 3;

/// A pod with its name and owner settled.
pub(super) fn facts(name: &str, workload: WorkloadRef, pod: Pod, conversion: &Conversion) -> Result<PodFacts, String> {
    let Pod { metadata, spec, status } = pod;
    let requests = requests::requests(&spec)?;
    let (branch_limit, first_container_branch_limit) = requests::branch_limits(&spec)?;
    let uid: Option<Arc<str>> = metadata.uid.as_deref().filter(|uid| !uid.is_empty()).map(Arc::from);
    let containers = container::all(&spec, &status)?;
    let volumes = container::Volumes::of(&spec);
    let label = |name: &str| metadata.labels.get(name);
    let annotations = annotation::Annotations { texts: &metadata.annotations, prefix: &conversion.irsa_prefix };
    let cni = cni::environment(&metadata.namespace, &workload, &spec);
    Ok(PodFacts {
        cni,
        namespace: namespace(&metadata),
        name: name.into(),
        config_hash: metadata.annotations.get(CONFIG_HASH).map(|hash| Arc::from(hash.as_str())),
        created: metadata.creation_timestamp,
        labels_changed: managed::labels_changed(&metadata),
        deleting: metadata.deletion_timestamp.is_some(),
        phase: status.phase.as_deref().map(phase),
        host_network: spec.host_network,
        dns: dns(&spec),
        ambient: metadata.annotations.get(AMBIENT).is_some_and(|value| value == "enabled"),
        node: spec.node_name.as_deref().filter(|node| !node.is_empty()).map(Arc::from),
        ips: ips(&status),
        service_account: account(&spec),
        workload,
        branch: annotations.branch(),
        branch_limit,
        first_container_branch_limit,
        fargate: label(FARGATE_LABEL).is_some(),
        windows: windows(&spec),
        skip_containers: annotations.skip_containers(),
        skip_identity_webhook: label(SKIP_IDENTITY_LABEL).is_some(),
        pod_identity_label: label(POD_IDENTITY_LABEL).is_some_and(|value| value == "enabled"),
        irsa_volume: volumes.irsa,
        pod_identity_volume: volumes.pod_identity,
        api_token_mounted: container::api_token_mounted(&spec, &volumes, uid.is_some()),
        api_token: container::api_token(&spec, &volumes),
        containers,
        requests,
        started: status.start_time,
        ready: status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True"),
        runtime_class: spec.runtime_class_name.filter(|class| !class.is_empty()),
        labels: metadata.labels,
        uid,
    })
}

/// The namespace of a namespaced object.
pub(super) fn namespace(metadata: &Meta) -> Arc<str> {
    if metadata.namespace.is_empty() { DEFAULT_NAMESPACE } else { &metadata.namespace }.into()
}

fn account(spec: &PodSpec) -> Arc<str> {
    [spec.service_account_name.as_str(), spec.service_account.as_str()]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or("default")
        .into()
}

fn phase(text: &str) -> Phase {
    match text {
        "Pending" => Phase::Pending,
        "Running" => Phase::Running,
        "Succeeded" => Phase::Succeeded,
        "Failed" => Phase::Failed,
        _ => Phase::Unknown,
    }
}

fn ips(status: &PodStatus) -> Vec<IpAddr> {
    let many = status.pod_ips.iter().map(|entry| entry.ip.as_str());
    let one = std::iter::once(status.pod_ip.as_str()).filter(|_| status.pod_ips.is_empty());
    many.chain(one).filter_map(|text| text.parse().ok()).collect()
}

/// An absent policy is `ClusterFirst`, which on the node's network is the node's.
fn dns(spec: &PodSpec) -> Dns {
    match spec.dns_policy.as_str() {
        "" | "ClusterFirst" if spec.host_network => Dns::Node,
        "" | "ClusterFirst" | "ClusterFirstWithHostNet" => Dns::Cluster,
        "Default" => Dns::Node,
        "None" => {
            let named = spec.dns_config.nameservers.iter().filter_map(|text| text.parse().ok());
            Dns::Named(named.take(NAMESERVERS_MAX).collect())
        }
        _ => Dns::Unknown,
    }
}

fn windows(spec: &PodSpec) -> bool {
    ["kubernetes.io/os", "beta.kubernetes.io/os"]
        .iter()
        .any(|label| spec.node_selector.get(*label).is_some_and(|os| os == "windows"))
}
