//! `Service` and `EndpointSlice` to facts. Addresses that are none are left out, as of pods.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use agent_core::facts::{ServiceFacts, ServicePort};
use agent_core::output::Protocol;
use serde::Deserialize;
use serde_json::Value;

use super::shapes::{Head, Meta};
use super::{Malformed, drop_nulls, read};

/// More addresses or ports of one service than this are left out: the API lets a cluster's own addresses be two, and
/// no load balancer has tens.
const OUTER_MAX: usize = 64;
const PORTS_MAX: usize = 256;
/// Most endpoints of one slice: what the API allows is a thousand.
const ENDPOINTS_MAX: usize = 1_000;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Service {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
    ports: Vec<Listed>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Listed {
    protocol: String,
    port: Option<u16>,
    node_port: u16,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    load_balancer: LoadBalancer,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<Ingress>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Ingress {
    ip: String,
    ip_mode: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EndpointSlice {
    address_type: String,
    endpoints: Vec<Endpoint>,
    ports: Vec<Listed>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    addresses: Vec<String>,
}

/// A service.
pub(in crate::cluster) fn facts(mut object: Value) -> Result<ServiceFacts, Malformed> {
    drop_nulls(&mut object, false);
    let head = Head::of(&object);
    let Service { metadata, spec, status } = read(object).map_err(|why| head.malformed(why))?;
    if metadata.name.is_empty() {
        return Err(head.malformed("metadata.name: expected a name".to_owned()));
    }
    let is_external_name = spec.kind == "ExternalName";
    let cluster_ips = if spec.cluster_ips.is_empty() { vec![spec.cluster_ip] } else { spec.cluster_ips };
    // With `Proxy` the node leaves packets to the load balancer alone: its address is what it is.
    let balancer = status.load_balancer.ingress.into_iter().filter(|ingress| ingress.ip_mode != "Proxy");
    let outer = spec.external_ips.into_iter().chain(balancer.map(|ingress| ingress.ip));
    let ports = spec.ports.iter().filter_map(|port| {
        let node_port = Some(port.node_port).filter(|port| *port != 0);
        Some(ServicePort { protocol: protocol(&port.protocol)?, port: port.port?, node_port })
    });
    Ok(ServiceFacts {
        namespace: metadata.namespace.as_str().into(),
        name: metadata.name.as_str().into(),
        cluster_ips: if is_external_name { Vec::new() } else { addresses(cluster_ips.into_iter()) },
        outer_ips: if is_external_name { Vec::new() } else { addresses(outer) },
        ports: ports.take(PORTS_MAX).collect(),
    })
}

/// Where the endpoints of a slice listen by TCP, whether they are ready or not: what is not ready is still theirs.
pub(in crate::cluster) fn endpoints(mut object: Value) -> Result<Vec<SocketAddr>, Malformed> {
    drop_nulls(&mut object, false);
    let head = Head::of(&object);
    let slice: EndpointSlice = read(object).map_err(|why| head.malformed(why))?;
    if slice.address_type == "FQDN" {
        return Ok(Vec::new());
    }
    let ports: Vec<u16> = slice
        .ports
        .iter()
        .filter(|port| protocol(&port.protocol) == Some(Protocol::Tcp))
        .filter_map(|p| p.port)
        .collect();
    let endpoints = slice.endpoints.into_iter().take(ENDPOINTS_MAX).flat_map(|endpoint| endpoint.addresses);
    let addresses = endpoints.filter_map(|address| Some(address.parse::<IpAddr>().ok()?.to_canonical()));
    Ok(addresses.flat_map(|ip| ports.iter().map(move |port| SocketAddr::new(ip, *port))).collect())
}

/// TCP when nothing is said, as the API has it; `None` for what has no flows here.
fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "" | "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

fn addresses(texts: impl Iterator<Item = String>) -> Vec<IpAddr> {
    // A headless service's is "None".
    texts.filter_map(|text| Some(text.parse::<IpAddr>().ok()?.to_canonical())).take(OUTER_MAX).collect()
}

/// What is kept of such an object while a list is read: a list of all services is large, and most of it says nothing here.
pub(in crate::cluster) fn trim(members: &mut serde_json::Map<String, Value>) {
    let metadata = ["namespace", "name", "uid", "resourceVersion"];
    for (part, kept) in [("metadata", &metadata[..]), ("spec", SPEC)] {
        if let Some(Value::Object(part)) = members.get_mut(part) {
            part.retain(|name, _| kept.contains(&name.as_str()));
        }
    }
    if let Some(Value::Object(status)) = members.get_mut("status") {
        status.retain(|name, _| name == "loadBalancer");
    }
}

const SPEC: &[&str] = &["clusterIP", "clusterIPs", "externalIPs", "type", "ports"];

/// Facts behind the pointer that others share.
pub(in crate::cluster) fn shared(object: Value) -> Result<Arc<ServiceFacts>, Malformed> {
    facts(object).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_service_as_the_api_shows_it() {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": "web", "labels": {"a": "b"}, "managedFields": [{"x": 1}]},
            "spec": {
                "type": "LoadBalancer", "clusterIP": "172.20.1.2", "clusterIPs": ["172.20.1.2", "fd00::12"],
                "externalIPs": ["192.0.2.7"], "externalTrafficPolicy": "Local", "selector": {"app": "web"},
                "ports": [
                    {"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080, "protocol": "TCP"},
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "sctp", "port": 5000, "protocol": "SCTP"},
                ],
            },
            "status": {"loadBalancer": {"ingress": [
                {"hostname": "x.elb.example"}, {"ip": "192.0.2.9", "ipMode": "VIP"}, {"ip": "192.0.2.8", "ipMode": "Proxy"},
            ]}},
        });
        trim(object.as_object_mut().unwrap());
        assert!(object["metadata"].get("managedFields").is_none() && object["spec"].get("selector").is_none());
        let facts = facts(object).unwrap();
        assert_eq!((&*facts.namespace, &*facts.name), ("shop", "web"));
        assert_eq!(facts.cluster_ips, ips(&["172.20.1.2", "fd00::12"]));
        assert_eq!(facts.outer_ips, ips(&["192.0.2.7", "192.0.2.9"]));
        let port = |protocol, port, node_port| ServicePort { protocol, port, node_port };
        assert_eq!(facts.ports, [port(Protocol::Tcp, 80, Some(30_080)), port(Protocol::Udp, 53, None)]);
        assert!(facts.has_addresses());
    }

    #[test]
    fn headless_and_external_ones_have_no_addresses() {
        let of = |spec: Value| facts(json!({"kind": "Service", "metadata": {"name": "x"}, "spec": spec})).unwrap();
        assert!(!of(json!({"clusterIP": "None", "ports": [{"port": 80}]})).has_addresses());
        assert!(!of(json!({"type": "ExternalName", "externalName": "x.example", "clusterIP": ""})).has_addresses());
        assert!(!of(json!({"type": "ExternalName", "externalIPs": ["192.0.2.1"]})).has_addresses());
        assert_eq!(of(json!({"clusterIP": "172.20.0.1"})).cluster_ips, ips(&["172.20.0.1"]));
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        let error = |object: Value| facts(object).unwrap_err().why;
        assert_eq!(error(json!({"kind": "Service", "metadata": {}})), "metadata.name: expected a name");
        let wrong = json!({"kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 70000}]}});
        assert!(error(wrong).starts_with("spec.ports[0].port: "));
    }

    #[test]
    fn endpoints_are_all_addresses_with_all_tcp_ports() {
        let slice = json!({
            "kind": "EndpointSlice", "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.1.1"]}, {"addresses": ["10.0.2.1"], "conditions": {"ready": false}}],
            "ports": [{"name": "https", "port": 443}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "any"}],
        });
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(endpoints(slice).unwrap(), [at("10.0.1.1:443"), at("10.0.2.1:443")]);
        let names = json!({"kind": "EndpointSlice", "addressType": "FQDN", "endpoints": [{"addresses": ["a.example"]}], "ports": [{"port": 1}]});
        assert_eq!(endpoints(names).unwrap(), []);
    }
}
