//! The class of a peer by all that is known around it: the node's own addresses, pods, services, the VPC.
//!
//! From what is certain to what is wide: metadata services, the API server, the node itself, services, pods, the VPC, the
//! internet. An address that could be two of them has the first; one that none of them claims is unknown.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{NodeAddresses, classify, is_global};
use crate::cluster::Services;
use crate::fast::FastSet;
use crate::output::{PeerClass, Protocol};

/// See the module's text.
pub struct Around<'a> {
    /// The node's own addresses.
    pub node: &'a NodeAddresses,
    /// Services.
    pub services: &'a Services,
    /// Addresses of this node's pods that have their own.
    pub pods: FastSet<IpAddr>,
    /// Ranges of the VPC; `None`: not known.
    pub vpc: Option<&'a [IpNet]>,
}

impl Around<'_> {
    /// The class of a peer. `service`: its port when the peer is the listening side.
    pub fn class(&self, ip: IpAddr, service: Option<(u16, Protocol)>) -> PeerClass {
        let ip = ip.to_canonical();
        let base = classify(ip, service.map(|(port, _)| port), self.node);
        if matches!(base, PeerClass::Imds | PeerClass::PodIdentity) {
            return base;
        }
        if let Some((port, protocol)) = service {
            let of = self.services.at(ip, port, protocol);
            // Where the API server runs on the node itself, that is what matters of its address.
            let is_api = protocol == Protocol::Tcp && self.services.is_api_endpoint(ip, port);
            if is_api || of.is_some_and(|service| service.is_kube_api()) {
                return PeerClass::KubeApi;
            }
            if base != PeerClass::NodeLocal && self.services.is_service(ip, port, protocol) {
                return PeerClass::Service;
            }
        }
        match base {
            PeerClass::Unknown | PeerClass::Internet if self.pods.contains(&ip) => PeerClass::ClusterPod,
            PeerClass::Unknown | PeerClass::Internet => self.wide(ip, base),
            _ => base,
        }
    }

    /// In the VPC, out of it, or nobody knows.
    fn wide(&self, ip: IpAddr, base: PeerClass) -> PeerClass {
        let ranges = self.vpc.unwrap_or_default();
        if ranges.iter().any(|range| range.contains(&ip)) {
            return PeerClass::Vpc;
        }
        // What is near the node's own address is the VPC's only where its ranges are not known.
        let is_told = ranges.iter().any(|range| range.addr().is_ipv4() == ip.is_ipv4());
        if is_told && is_global(ip) { PeerClass::Internet } else { base }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::Cluster;
    use crate::facts::{ClusterFact, ServiceFacts, ServicePort};
    use crate::time::BootNs;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn service(
        namespace: &str,
        name: &str,
        cluster: &str,
        outer: &[&str],
        node_port: Option<u16>,
    ) -> Arc<ServiceFacts> {
        Arc::new(ServiceFacts {
            namespace: namespace.into(),
            name: name.into(),
            cluster_ips: vec![ip(cluster)],
            outer_ips: outer.iter().map(|text| ip(text)).collect(),
            ports: vec![ServicePort { protocol: Protocol::Tcp, port: 443, node_port }],
        })
    }

    #[test]
    fn classes_by_table() {
        use PeerClass::{ClusterPod, Imds, Internet, KubeApi, NodeLocal, Service, Unknown, Vpc};
        type Case = (&'static str, Option<(u16, Protocol)>, PeerClass, PeerClass);
        let mut cluster = Cluster::default();
        let services = vec![
            service("default", "kubernetes", "172.20.0.1", &[], None),
            service("other", "kubernetes", "172.20.0.2", &[], None),
            service("shop", "web", "172.20.0.3", &["203.0.114.9", "11.5.0.9"], Some(30_443)),
        ];
        cluster.learn(ClusterFact::ServicesReplaced(services), BootNs(1));
        let api = ["10.0.9.9:443", "11.5.0.9:6443"].map(|at| at.parse().unwrap());
        cluster.learn(ClusterFact::ApiEndpoints(api.to_vec()), BootNs(1));
        let node = NodeAddresses::new(&[ip("10.0.3.7"), ip("11.5.0.9"), ip("2600:1f13:abc:1::7")]);
        let ranges: Vec<IpNet> =
            ["10.0.0.0/16", "100.64.0.0/16", "11.5.0.0/20"].map(|range| range.parse().unwrap()).into();
        let pods = FastSet::from_iter([ip("10.0.4.4"), ip("172.30.0.1")]);
        let around = Around { node: &node, services: cluster.services(), pods, vpc: Some(&ranges) };
        let none = Around { node: &node, services: cluster.services(), pods: FastSet::default(), vpc: None };

        let tcp = |port| Some((port, Protocol::Tcp));
        let cases: &[Case] = &[
            ("169.254.169.254", tcp(80), Imds, Imds),
            ("172.20.0.1", tcp(443), KubeApi, KubeApi),
            ("172.20.0.1", tcp(22), KubeApi, KubeApi),
            ("172.20.0.2", tcp(443), Service, Service),
            ("172.20.0.3", tcp(80), Service, Service),
            // Nobody calls from a service's address.
            ("172.20.0.3", None, Unknown, Unknown),
            ("172.20.0.4", tcp(443), Unknown, Unknown),
            ("203.0.114.9", tcp(443), Service, Service),
            ("203.0.114.9", tcp(80), Internet, Internet),
            ("203.0.114.9", Some((443, Protocol::Udp)), Internet, Internet),
            ("10.0.9.9", tcp(443), KubeApi, KubeApi),
            ("10.0.9.9", tcp(80), Vpc, Unknown),
            ("10.0.9.9", None, Vpc, Unknown),
            // Of the node's own addresses only the API server is more than the node.
            ("11.5.0.9", tcp(6443), KubeApi, KubeApi),
            ("11.5.0.9", tcp(443), NodeLocal, NodeLocal),
            ("10.0.3.7", tcp(30_443), NodeLocal, NodeLocal),
            ("10.0.4.4", tcp(80), ClusterPod, Unknown),
            ("172.30.0.1", tcp(80), ClusterPod, Unknown),
            ("10.0.5.5", tcp(80), Vpc, Unknown),
            ("100.64.1.1", tcp(80), Vpc, Unknown),
            ("100.65.1.1", tcp(80), Unknown, Unknown),
            ("10.1.5.5", tcp(80), Unknown, Unknown),
            // A VPC of public-looking addresses, whose ranges are known or not.
            ("11.5.15.1", tcp(80), Vpc, Unknown),
            ("11.5.16.1", tcp(80), Internet, Unknown),
            ("8.8.8.8", tcp(53), Internet, Internet),
            // Ranges of the other family tell nothing.
            ("2600:1f13:abc:ffff::1", tcp(443), Unknown, Unknown),
            ("2a00:1450:4001::1", tcp(443), Internet, Internet),
            ("127.0.0.1", tcp(443), NodeLocal, NodeLocal),
        ];
        for (address, service, expected, without) in cases {
            assert_eq!(around.class(ip(address), *service), *expected, "{address} {service:?}");
            assert_eq!(none.class(ip(address), *service), *without, "{address} {service:?} without the VPC and pods");
        }
    }
}
