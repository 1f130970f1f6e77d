//! `Node`, `CNINode`, `CSINode` and `Namespace`.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_core::facts::{CniNodeFacts, CsiNodeFacts, NodeFacts};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::shapes::{Meta, Object};
use super::{quantity, requests};

const EBS_DRIVER: &str = "ebs.csi.aws.com";
/// How the attach-detach controller names the driver's volumes.
const EBS_VOLUME: &str = "kubernetes.io/csi/ebs.csi.aws.com^";
const BRANCH: &str = "vpc.amazonaws.com/pod-eni";

/// `Node`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    metadata: Meta,
    spec: NodeSpec,
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    unschedulable: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    addresses: Vec<Address>,
    allocatable: BTreeMap<String, Value>,
    images: Option<Vec<Image>>,
    #[serde(rename = "volumesAttached")]
    volumes_attached: Vec<Attached>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Address {
    address: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Image {
    size_bytes: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Attached {
    name: String,
}

/// `spec` of a `CNINode`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct CniNodeSpec {
    features: Vec<Feature>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Feature {
    name: String,
    value: String,
}

/// `spec` of a `CSINode`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct CsiNodeSpec {
    drivers: Vec<Driver>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Driver {
    name: String,
    allocatable: Allocatable,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Allocatable {
    count: Option<u32>,
}

/// A node.
pub(super) fn node(node: Node) -> Result<NodeFacts, String> {
    let Node { metadata, spec, status } = node;
    let label = |name: &str| metadata.labels.get(name).map(|value| Arc::from(value.as_str()));
    let amount = |name: &str, read: fn(&str) -> Result<u64, &'static str>| {
        let value = status.allocatable.get(name);
        value
            .map(|value| requests::read(value, name, read))
            .transpose()
            .map_err(|why| format!("status.allocatable: {why}"))
    };
    let count =
        |name: &str| Ok::<_, String>(amount(name, quantity::units)?.and_then(|count| u32::try_from(count).ok()));
    Ok(NodeFacts {
        name: name(&metadata)?,
        instance_type: label("node.kubernetes.io/instance-type").or_else(|| label("beta.kubernetes.io/instance-type")),
        zone: label("topology.kubernetes.io/zone").or_else(|| label("failure-domain.beta.kubernetes.io/zone")),
        compute_type: label("eks.amazonaws.com/compute-type"),
        trunk_label: label("vpc.amazonaws.com/has-trunk-attached"),
        addresses: status.addresses.iter().filter_map(|entry| entry.address.parse().ok()).collect(),
        branch_interfaces: count(BRANCH)?,
        pods: count("pods")?,
        cpu_milli: amount("cpu", quantity::milli)?,
        memory_bytes: amount("memory", quantity::units)?,
        image_bytes: status
            .images
            .map(|images| images.iter().fold(0, |sum: u64, image| sum.saturating_add(image.size_bytes))),
        // The list is left out when it is empty.
        ebs_attached: {
            let names = status.volumes_attached.iter().map(|volume| volume.name.as_str());
            u32::try_from(names.filter(|name| name.starts_with(EBS_VOLUME)).count()).ok()
        },
        unschedulable: spec.unschedulable,
    })
}

/// A `CNINode`: its name and what it says.
pub(super) fn cni_node(object: &Object<CniNodeSpec>) -> Result<(Arc<str>, CniNodeFacts), String> {
    let features = &object.spec.features;
    let custom = features.iter().find(|feature| feature.name == "CustomNetworking");
    let facts = CniNodeFacts {
        security_groups_for_pods: features.iter().any(|feature| feature.name == "SecurityGroupsForPods"),
        custom_networking: custom.map(|feature| feature.value.as_str().into()),
    };
    Ok((name(&object.metadata)?, facts))
}

/// A `CSINode`: its name and what it says.
pub(super) fn csi_node(object: &Object<CsiNodeSpec>) -> Result<(Arc<str>, CsiNodeFacts), String> {
    let driver = object.spec.drivers.iter().find(|driver| driver.name == EBS_DRIVER);
    let facts = CsiNodeFacts { ebs_volumes: driver.and_then(|driver| driver.allocatable.count) };
    Ok((name(&object.metadata)?, facts))
}

/// The name of a namespace.
pub(super) fn namespace(object: &Object<Option<IgnoredAny>>) -> Result<Arc<str>, String> {
    name(&object.metadata)
}

fn name(metadata: &Meta) -> Result<Arc<str>, String> {
    if metadata.name.is_empty() {
        Err("metadata.name: expected a name".to_owned())
    } else {
        Ok(metadata.name.as_str().into())
    }
}
