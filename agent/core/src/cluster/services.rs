//! Services by their addresses, and where the API server is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Counts, ObjectName};
use crate::facts::ServiceFacts;
use crate::fast::FastMap;
use crate::output::Protocol;

/// Most services kept: what Kubernetes is tested for in one cluster
/// (<https://github.com/kubernetes/community/blob/master/sig-scalability/configs-and-limits/thresholds.md>). At about
/// 400 bytes with both maps: 4 MiB, and 200 KiB for the 500 of a usual cluster.
pub const MAX_SERVICES: usize = 10_000;
/// Most endpoints of the API server kept: EKS has two or three.
const MAX_API_ENDPOINTS: usize = 64;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Services {
    by_name: FastMap<ObjectName, Arc<ServiceFacts>>,
    /// Services that claim an address: one for a cluster's own address, perhaps several for any other.
    by_ip: FastMap<IpAddr, Vec<Arc<ServiceFacts>>>,
    /// How many services claim a port of nodes.
    node_ports: FastMap<(Protocol, u16), u32>,
    api: Vec<SocketAddr>,
}

impl Services {
    pub(super) fn replace(&mut self, services: Vec<Arc<ServiceFacts>>, counts: &mut Counts) {
        let api = std::mem::take(&mut self.api);
        *self = Self { api, ..Self::default() };
        for service in services {
            self.put(service, counts);
        }
    }

    pub(super) fn put(&mut self, service: Arc<ServiceFacts>, counts: &mut Counts) {
        let name = (Arc::clone(&service.namespace), Arc::clone(&service.name));
        self.gone(&name);
        if self.by_name.len() >= MAX_SERVICES {
            counts.no_room += 1;
            return;
        }
        for ip in addresses(&service) {
            self.by_ip.entry(ip).or_default().push(Arc::clone(&service));
        }
        for port in node_ports(&service) {
            *self.node_ports.entry(port).or_default() += 1;
        }
        self.by_name.insert(name, service);
    }

    pub(super) fn gone(&mut self, name: &ObjectName) {
        let Some(service) = self.by_name.remove(name) else { return };
        for ip in addresses(&service) {
            if let Some(claims) = self.by_ip.get_mut(&ip) {
                claims.retain(|claim| !Arc::ptr_eq(claim, &service));
                if claims.is_empty() {
                    self.by_ip.remove(&ip);
                }
            }
        }
        for port in node_ports(&service) {
            if let Some(claims) = self.node_ports.get_mut(&port) {
                *claims -= 1;
                if *claims == 0 {
                    self.node_ports.remove(&port);
                }
            }
        }
    }

    pub(super) fn api(&mut self, mut endpoints: Vec<SocketAddr>, counts: &mut Counts) {
        counts.no_room += endpoints.len().saturating_sub(MAX_API_ENDPOINTS) as u64;
        endpoints.truncate(MAX_API_ENDPOINTS);
        self.api = endpoints;
    }

    /// The service that an address and port stand for; `None`: for none, or for several.
    pub fn at(&self, ip: IpAddr, port: u16, protocol: Protocol) -> Option<&Arc<ServiceFacts>> {
        let claims = self.by_ip.get(&ip.to_canonical())?;
        let is_at = |service: &&Arc<ServiceFacts>| {
            service.cluster_ips.contains(&ip)
                || service.ports.iter().any(|of| (of.port, of.protocol) == (port, protocol))
        };
        let mut claims = claims.iter().filter(is_at);
        claims.next().filter(|_| claims.next().is_none())
    }

    /// Whether an address and port are those of a service, of whichever.
    pub fn is_service(&self, ip: IpAddr, port: u16, protocol: Protocol) -> bool {
        self.by_ip.get(&ip.to_canonical()).is_some_and(|claims| {
            claims.iter().any(|service| {
                service.cluster_ips.contains(&ip)
                    || service.ports.iter().any(|of| (of.port, of.protocol) == (port, protocol))
            })
        })
    }

    /// Whether a port of every node is a service's.
    pub fn is_node_port(&self, port: u16, protocol: Protocol) -> bool {
        self.node_ports.contains_key(&(protocol, port))
    }

    /// Whether the API server listens there, by its own service's endpoints.
    pub fn is_api_endpoint(&self, ip: IpAddr, port: u16) -> bool {
        self.api.contains(&SocketAddr::new(ip, port))
    }

    /// Whether an address is the API server's, whatever the port.
    pub fn is_api_address(&self, ip: IpAddr) -> bool {
        let claims = self.by_ip.get(&ip).into_iter().flatten();
        self.api.iter().any(|at| at.ip() == ip)
            || claims.into_iter().any(|service| service.is_kube_api() && service.cluster_ips.contains(&ip))
    }

    /// Whether the addresses of the API server are known.
    pub fn knows_api(&self) -> bool {
        let name = (Arc::from("default"), Arc::from("kubernetes"));
        self.by_name.contains_key(&name) && !self.api.is_empty()
    }

    /// Services kept.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Each address once.
fn addresses(service: &ServiceFacts) -> impl Iterator<Item = IpAddr> + '_ {
    let outer = service.outer_ips.iter().enumerate();
    let outer = outer.filter(|(at, ip)| !service.cluster_ips.contains(ip) && !service.outer_ips[..*at].contains(ip));
    service.cluster_ips.iter().chain(outer.map(|(_, ip)| ip)).copied()
}

fn node_ports(service: &ServiceFacts) -> impl Iterator<Item = (Protocol, u16)> + '_ {
    service.ports.iter().filter_map(|port| Some((port.protocol, port.node_port?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::ServicePort;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    pub(super) fn service(
        name: &str,
        cluster: &str,
        outer: &[&str],
        ports: &[(u16, Option<u16>)],
    ) -> Arc<ServiceFacts> {
        let port = |&(port, node_port): &(u16, Option<u16>)| ServicePort { protocol: Protocol::Tcp, port, node_port };
        Arc::new(ServiceFacts {
            namespace: "shop".into(),
            name: name.into(),
            cluster_ips: vec![ip(cluster)],
            outer_ips: outer.iter().map(|text| ip(text)).collect(),
            ports: ports.iter().map(port).collect(),
        })
    }

    #[test]
    fn an_address_is_a_services_at_any_port_and_an_outer_one_at_its_own() {
        let (mut services, mut counts) = (Services::default(), Counts::default());
        services.put(service("web", "172.20.0.1", &["192.0.2.1"], &[(80, Some(30_080))]), &mut counts);
        services.put(service("api", "172.20.0.2", &["192.0.2.1", "192.0.2.1"], &[(443, Some(30_080))]), &mut counts);
        let name = |at: &str, port| services.at(ip(at), port, Protocol::Tcp).map(|service| service.name.to_string());
        assert_eq!(name("172.20.0.1", 80).as_deref(), Some("web"));
        assert_eq!(name("172.20.0.1", 81).as_deref(), Some("web"), "nobody else has the address");
        assert_eq!(name("192.0.2.1", 80).as_deref(), Some("web"));
        assert_eq!(name("192.0.2.1", 443).as_deref(), Some("api"));
        assert_eq!(name("192.0.2.1", 22), None);
        assert!(!services.is_service(ip("192.0.2.1"), 80, Protocol::Udp));
        assert_eq!(name("172.20.0.3", 80), None);

        // A port of nodes that two services claim stays one until both are gone.
        services.gone(&("shop".into(), "api".into()));
        assert!(services.is_node_port(30_080, Protocol::Tcp) && !services.is_node_port(30_080, Protocol::Udp));
        assert!(services.at(ip("192.0.2.1"), 443, Protocol::Tcp).is_none());
        services.gone(&("shop".into(), "web".into()));
        assert!(services.is_empty() && services.by_ip.is_empty() && services.node_ports.is_empty());
    }

    #[test]
    fn a_change_leaves_nothing_of_what_was_before() {
        let (mut services, mut counts) = (Services::default(), Counts::default());
        services.put(service("web", "172.20.0.1", &[], &[(80, Some(30_080))]), &mut counts);
        services.put(service("web", "172.20.0.9", &[], &[(80, None)]), &mut counts);
        assert!(services.at(ip("172.20.0.1"), 80, Protocol::Tcp).is_none());
        assert!(services.at(ip("172.20.0.9"), 80, Protocol::Tcp).is_some());
        assert!(!services.is_node_port(30_080, Protocol::Tcp));
        services.replace(vec![service("other", "172.20.0.1", &[], &[])], &mut counts);
        assert_eq!((services.len(), services.by_ip.len(), counts.no_room), (1, 1, 0));
    }

    #[test]
    fn there_is_a_bound() {
        let (mut services, mut counts) = (Services::default(), Counts::default());
        let all = (0..MAX_SERVICES + 3).map(|n| {
            let ip = std::net::Ipv4Addr::from_bits(0xac14_0000 + u32::try_from(n).unwrap());
            service(&format!("s{n}"), &ip.to_string(), &[], &[])
        });
        services.replace(all.collect(), &mut counts);
        assert_eq!((services.len(), services.by_ip.len(), counts.no_room), (MAX_SERVICES, MAX_SERVICES, 3));
    }
}
