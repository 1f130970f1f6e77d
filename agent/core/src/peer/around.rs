//! The class of a peer by all that is known around it: the node's own addresses, pods, services, the VPC.
//!
//! From what is certain to what is wide: metadata services, the API server, the node itself, services, pods, AWS's services,
//! the VPC, the internet. An address that could be two of them has the first; one that none of them claims is unknown.
//!
//! AWS's services are known by addresses that AWS publishes: of its resolver and its clock on every interface, and of the
//! prefix lists that AWS itself keeps, as EC2 tells them. Names make no class. A pod chooses whom it asks, and one that may
//! change its own network answers itself under the cluster resolver's address; and below `amazonaws.com` stand the names of
//! customers' machines, balancers and databases beside those of AWS's services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{NodeAddresses, classify, is_global};
use crate::cluster::Services;
use crate::ec2::Ec2;
use crate::fast::FastSet;
use crate::output::{PeerClass, Protocol};

/// Where AWS's resolver and clock are on every interface of an instance, whatever its VPC
/// (<https://docs.aws.amazon.com/vpc/latest/userguide/AmazonDNS-concepts.html>,
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configure-ec2-ntp.html>).
const LINK_LOCAL_SERVICES: [(IpAddr, u16); 4] = [
    (IpAddr::V4(Ipv4Addr::new(169, 254, 169, 253)), 53),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253)), 53),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 169, 123)), 123),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x123)), 123),
];
/// How AWS's own prefix lists are called: nobody else may begin a name so
/// (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateManagedPrefixList.html>).
const AWS_LIST: &str = "com.amazonaws.";
/// Those of them whose addresses are a service's to be called at. Others hold addresses that call
/// (<https://docs.aws.amazon.com/vpc/latest/userguide/working-with-aws-managed-prefix-lists.html>).
const SERVICE_LISTS: [&str; 3] = ["s3", "dynamodb", "s3express"];

/// Addresses of AWS's services among the prefix lists that EC2 told.
pub fn published(ec2: &Ec2) -> Vec<IpNet> {
    let is_service = |name: &str| {
        // `com.amazonaws.eu-west-1.s3`, and `com.amazonaws.eu-west-1.ipv6.s3` beside it.
        let of = name.strip_prefix(AWS_LIST).and_then(|rest| rest.split_once('.')).map(|(_region, of)| of);
        of.is_some_and(|of| SERVICE_LISTS.contains(&of.strip_prefix("ipv6.").unwrap_or(of)))
    };
    let lists = ec2.lists().filter(|list| list.name.as_deref().is_some_and(is_service));
    lists.flat_map(|list| list.entries.iter().flatten()).copied().collect()
}

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
    /// Addresses of AWS's services, see [`published`].
    pub aws: Vec<IpNet>,
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
        let is_link_local = |(port, _)| LINK_LOCAL_SERVICES.contains(&(ip, port));
        let is_aws =
            || service.is_some_and(|service| is_link_local(service) || self.aws.iter().any(|net| net.contains(&ip)));
        match base {
            PeerClass::Unknown | PeerClass::Internet if self.pods.contains(&ip) => PeerClass::ClusterPod,
            PeerClass::Unknown | PeerClass::Internet if is_aws() => PeerClass::AwsService,
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
    use crate::facts::{ClusterFact, Ec2Fact, ServiceFacts, ServicePort};
    use crate::sg::PrefixList;
    use crate::time::{BootNs, WallNs};

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

    /// Prefix lists as EC2 tells them.
    fn lists() -> Ec2 {
        let list = |id: &str, name: Option<&str>, net: &str| PrefixList {
            id: id.parse().unwrap(),
            name: name.map(Arc::from),
            entries: Some(vec![net.parse().unwrap()]),
        };
        let lists = vec![
            list("pl-1", Some("com.amazonaws.eu-west-1.s3"), "3.5.64.0/21"),
            list("pl-2", Some("com.amazonaws.eu-west-1.ipv6.s3"), "2600:1fa0:8000::/40"),
            list("pl-3", Some("com.amazonaws.global.cloudfront.origin-facing"), "3.172.0.0/24"),
            list("pl-4", Some("offices.s3"), "3.9.0.0/24"),
            list("pl-5", None, "3.10.0.0/24"),
        ];
        let mut ec2 = Ec2::default();
        ec2.learn(Ec2Fact::PrefixLists { lists, missing: Vec::new(), at: WallNs(1) });
        ec2
    }

    #[test]
    fn classes_by_table() {
        use PeerClass::{AwsService, ClusterPod, Imds, Internet, KubeApi, NodeLocal, Service, Unknown, Vpc};
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
        let aws = published(&lists());
        let around = Around { node: &node, services: cluster.services(), pods, vpc: Some(&ranges), aws };
        let none =
            Around { node: &node, services: cluster.services(), pods: FastSet::default(), vpc: None, aws: Vec::new() };

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
            // AWS's services, by addresses that AWS publishes.
            ("169.254.169.253", Some((53, Protocol::Udp)), AwsService, AwsService),
            ("169.254.169.253", tcp(53), AwsService, AwsService),
            ("169.254.169.253", tcp(80), Unknown, Unknown),
            ("169.254.169.253", None, Unknown, Unknown),
            ("fd00:ec2::123", Some((123, Protocol::Udp)), AwsService, AwsService),
            ("3.5.64.9", tcp(443), AwsService, Internet),
            ("3.5.64.9", None, Internet, Internet),
            ("2600:1fa0:8000::9", tcp(443), AwsService, Internet),
            // Lists of whoever calls, of customers, and one without a name.
            ("3.172.0.9", tcp(443), Internet, Internet),
            ("3.9.0.9", tcp(443), Internet, Internet),
            ("3.10.0.9", tcp(443), Internet, Internet),
        ];
        for (address, service, expected, without) in cases {
            assert_eq!(around.class(ip(address), *service), *expected, "{address} {service:?}");
            assert_eq!(none.class(ip(address), *service), *without, "{address} {service:?} without the VPC and pods");
        }
    }
}
