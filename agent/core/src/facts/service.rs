//! A Kubernetes service, as far as it tells what its addresses are.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::output::Protocol;

/// What is kept of a `Service`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFacts {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// `spec.clusterIPs`, else `spec.clusterIP`; empty for headless services and `ExternalName`. No other service has them.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs` and the addresses of `status.loadBalancer.ingress`: the node translates them too, port by port,
    /// and several services may share one.
    pub outer_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
}

/// One of `spec.ports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// TCP or UDP; ports of other protocols are left out.
    pub protocol: Protocol,
    /// `port`.
    pub port: u16,
    /// `nodePort`: at every node's addresses.
    pub node_port: Option<u16>,
}

// === impl ServiceFacts ===

impl ServiceFacts {
    /// Whether it has an address or a port of nodes that could be met: a headless service and an `ExternalName` have none.
    pub fn has_addresses(&self) -> bool {
        !self.cluster_ips.is_empty()
            || !self.outer_ips.is_empty()
            || self.ports.iter().any(|port| port.node_port.is_some())
    }

    /// Whether it is the API server's own.
    pub fn is_kube_api(&self) -> bool {
        &*self.namespace == "default" && &*self.name == "kubernetes"
    }
}
