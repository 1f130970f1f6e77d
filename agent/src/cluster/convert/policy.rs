//! `SecurityGroupPolicy`, `NetworkPolicy` and `PolicyEndpoint` to facts. Selectors are kept as they stand: what an unknown
//! operator means is decided where they are matched.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_core::facts::{Expression, NetworkPolicyFacts, PolicyFacts, Selector};
use serde::Deserialize;
use serde_json::Value;

use super::managed;
use super::pod::namespace;
use super::shapes::Object;

/// `spec` of a `SecurityGroupPolicy`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    pod_selector: Option<LabelSelector>,
    service_account_selector: Option<LabelSelector>,
    security_groups: Groups,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Groups {
    group_ids: Vec<String>,
}

/// `spec` of a `NetworkPolicy`, of which only whom it selects is read. Without a selector it selects all pods, as the API's
/// reference says.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NetworkSpec {
    pod_selector: LabelSelector,
    policy_types: Vec<String>,
    egress: Option<Value>,
}

/// `spec` of a `PolicyEndpoint`
/// (<https://github.com/aws/amazon-network-policy-controller-k8s/blob/main/api/v1alpha1/policyendpoint_types.go>). Its lists
/// of pods and addresses change with every pod of the cluster, and say nothing that the selector does not.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointSpec {
    pod_selector: LabelSelector,
    policy_ref: PolicyRef,
    pod_isolation: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PolicyRef {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LabelSelector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Requirement>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Requirement {
    key: String,
    operator: String,
    values: Vec<String>,
}

/// A policy.
pub(super) fn facts(object: Object<Spec>) -> Result<PolicyFacts, String> {
    let Object { metadata, spec } = object;
    if metadata.name.is_empty() {
        return Err("metadata.name: expected a name".to_owned());
    }
    Ok(PolicyFacts {
        namespace: namespace(&metadata),
        name: metadata.name.as_str().into(),
        uid: metadata.uid.as_deref().map(Arc::from),
        generation: metadata.generation,
        created: metadata.creation_timestamp,
        spec_changed: managed::spec_changed(&metadata),
        pod_selector: spec.pod_selector.map(selector),
        service_account_selector: spec.service_account_selector.map(selector),
        groups: spec.security_groups.group_ids.into_iter().map(Arc::from).collect(),
    })
}

/// A network policy.
pub(super) fn network(object: Object<NetworkSpec>) -> Result<NetworkPolicyFacts, String> {
    let Object { metadata, spec } = object;
    if metadata.name.is_empty() {
        return Err("metadata.name: expected a name".to_owned());
    }
    let names = |kind: &str| spec.policy_types.iter().any(|named| named == kind);
    // Where no types are named it is about ingress, and about egress when it has rules for that; the API server writes them.
    let (ingress, egress) =
        if spec.policy_types.is_empty() { (true, spec.egress.is_some()) } else { (names("Ingress"), names("Egress")) };
    Ok(NetworkPolicyFacts {
        namespace: namespace(&metadata),
        name: metadata.name.as_str().into(),
        pod_selector: selector(spec.pod_selector),
        ingress_only: ingress && !egress,
        egress_only: egress && !ingress,
        made_of: None,
    })
}

/// What AWS's controller made of a policy. One that names no direction may be about both.
pub(super) fn endpoint(object: Object<EndpointSpec>) -> Result<NetworkPolicyFacts, String> {
    let Object { metadata, spec } = object;
    if metadata.name.is_empty() {
        return Err("metadata.name: expected a name".to_owned());
    }
    let is_only = |kind: &str| !spec.pod_isolation.is_empty() && spec.pod_isolation.iter().all(|named| named == kind);
    Ok(NetworkPolicyFacts {
        namespace: namespace(&metadata),
        name: metadata.name.as_str().into(),
        ingress_only: is_only("Ingress"),
        egress_only: is_only("Egress"),
        pod_selector: selector(spec.pod_selector),
        made_of: Some(spec.policy_ref.name.into()),
    })
}

fn selector(selector: LabelSelector) -> Selector {
    let expressions = selector.match_expressions.into_iter();
    Selector {
        match_labels: selector.match_labels,
        match_expressions: expressions
            .map(|Requirement { key, operator, values }| Expression { key, operator, values })
            .collect(),
    }
}
