//! Kubernetes objects as an API server shows them, for pods that a test made.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::{NODE, NODE_IP};
use crate::cgroup::Pod;

/// How a pod is tied to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// An address of the node's interfaces.
    Plain,
    /// The node's own network namespace.
    HostNetwork,
    /// A branch interface, all traffic through it.
    Strict {
        /// Its VLAN id.
        vlan: u16,
    },
    /// A branch interface, same-host traffic past it.
    Standard {
        /// Its VLAN id.
        vlan: u16,
    },
}

impl Wiring {
    /// Name of the veth's end on the node.
    pub(super) fn veth(self, namespace: &str, name: &str) -> String {
        let prefix = if matches!(self, Self::Strict { .. }) { "vlan" } else { "eni" };
        let digest = Sha1::digest(format!("{namespace}.{name}"));
        let first = digest.iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        // 11 hex digits are the first 44 bits.
        format!("{prefix}{:011x}", first >> 20)
    }

    fn vlan(self) -> Option<u16> {
        match self {
            Self::Strict { vlan } | Self::Standard { vlan } => Some(vlan),
            Self::Plain | Self::HostNetwork => None,
        }
    }
}

/// The node's device of a branch interface.
pub(super) fn vlan_device(vlan: u16) -> String {
    format!("vlan.eth.{vlan}")
}

/// Its hardware address.
pub(super) fn branch_mac(vlan: u16) -> [u8; 6] {
    let [high, low] = vlan.to_be_bytes();
    [0x02, 0x5e, 0xc1, 0x54, high, low]
}

/// A running pod with one container `app` and a service account `default`, owned by a Deployment of the same name.
pub(super) fn pod(namespace: &str, name: &str, container: &Pod, ip: Ipv4Addr, wiring: Wiring) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name, "uid": container.uid,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": name, "pod-template-hash": "5d8c7f9b6"},
            "annotations": {},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-5d8c7f9b6"),
                                 "uid": "00000000-0000-0000-0000-000000000001", "controller": true}],
        },
        "spec": {
            "nodeName": NODE, "serviceAccountName": "default", "hostNetwork": wiring == Wiring::HostNetwork,
            "containers": [{"name": "app", "image": "registry.example/app:1", "resources": {}}],
        },
        "status": {
            "phase": "Running", "podIP": ip.to_string(), "podIPs": [{"ip": ip.to_string()}], "hostIP": NODE_IP.to_string(),
            "startTime": "2026-01-01T00:00:01Z",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "app", "image": "registry.example/app:1", "ready": true, "started": true,
                "containerID": format!("containerd://{}", container.container),
                "state": {"running": {"startedAt": "2026-01-01T00:00:02Z"}},
            }],
        },
    });
    if let Some(vlan) = wiring.vlan() {
        let mac = branch_mac(vlan).map(|byte| format!("{byte:02x}")).join(":");
        let interface = json!([{
            "eniId": format!("eni-{vlan:017x}"), "ifAddress": mac, "privateIp": ip.to_string(), "ipv6Addr": "",
            "vlanId": vlan, "subnetCidr": "10.78.0.0/16", "subnetV6Cidr": "", "associationID": "trunk-assoc-1",
        }]);
        object["metadata"]["annotations"]["vpc.amazonaws.com/pod-eni"] = Value::String(interface.to_string());
        let one = json!({"vpc.amazonaws.com/pod-eni": "1"});
        object["spec"]["containers"][0]["resources"] = json!({"limits": one, "requests": one});
    }
    object
}

/// The node itself.
pub(super) fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE, "uid": "node", "labels": {"node.kubernetes.io/instance-type": "m5.large"}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": NODE_IP.to_string()}],
            "allocatable": {"cpu": "1930m", "memory": "7244720Ki", "pods": "29", "vpc.amazonaws.com/pod-eni": "9"},
        },
    })
}

/// A policy on pods with the label `app`.
pub fn policy(namespace: &str, name: &str, app: &str, groups: &[&str]) -> Value {
    json!({
        "apiVersion": "vpcresources.k8s.aws/v1beta1", "kind": "SecurityGroupPolicy",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("policy-{namespace}-{name}"), "generation": 1,
                     "creationTimestamp": "2025-12-01T00:00:00Z"},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "securityGroups": {"groupIds": groups}},
    })
}

/// A service account, with a role for IRSA or without.
pub fn account(namespace: &str, name: &str, role: Option<&str>) -> Value {
    let annotations = role.map_or(json!({}), |role| json!({"eks.amazonaws.com/role-arn": role}));
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("account-{namespace}-{name}"),
                     "creationTimestamp": "2025-12-01T00:00:00Z", "annotations": annotations},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by `printf default.nginx | sha1sum`, and the VPC CNI's own test of names.
    #[test]
    fn veths_have_the_names_that_the_cni_gives() {
        assert_eq!(Wiring::Plain.veth("default", "nginx"), "enic440f455693");
        assert_eq!(Wiring::Plain.veth("kube-system", "coredns-57ff979f67-qqbdh"), "enib5faff8a083");
        assert_eq!(Wiring::Strict { vlan: 1 }.veth("default", "nginx"), "vlanc440f455693");
    }
}
