//! Meshes: whose flows are those of an application that asked for something else, and whose are carried by a node's proxy.
//!
//! A name alone is no proof, for anybody may call his container so: what an injector leaves on the pod, or the image, has
//! to agree. And a proxy is a sidecar only beside an application; alone in its pod it is a gateway, whose flows are its own.

use crate::facts::{ContainerFacts, ContainerKind, PodFacts};
use crate::output::{Protocol, Via};

/// A sidecar, by its container's name, and what else must be so.
struct Sidecar {
    name: &'static str,
    /// The last part of the image's repository.
    image: &'static str,
    /// A label that the injector leaves on the pod, whatever its value.
    label: Option<&'static str>,
}

/// Istio (<https://istio.io/latest/docs/reference/config/labels/>), Linkerd
/// (<https://linkerd.io/2/reference/proxy-configuration/>), Consul, and AWS App Mesh.
const SIDECARS: [Sidecar; 4] = [
    Sidecar { name: "istio-proxy", image: "proxyv2", label: Some("security.istio.io/tlsMode") },
    Sidecar { name: "linkerd-proxy", image: "proxy", label: Some("linkerd.io/control-plane-ns") },
    Sidecar { name: "consul-dataplane", image: "consul-dataplane", label: None },
    Sidecar { name: "envoy", image: "aws-appmesh-envoy", label: None },
];
/// Istio's proxy of a node has the sidecar's name of a container, and an image of its own.
const ZTUNNEL: (&str, &str) = ("istio-proxy", "ztunnel");

/// What of a mesh carries a flow of a container, if it is known for certain.
pub(super) fn via(pod: &PodFacts, container: &str, protocol: Option<Protocol>) -> Option<Via> {
    // Whatever its containers are: the CNI has turned all TCP of this pod to the node's proxy, and says so.
    if pod.ambient && protocol == Some(Protocol::Tcp) {
        return Some(Via::Ambient);
    }
    let of = pod.containers.iter().find(|of| &*of.name == container)?;
    let image = repository(&of.image);
    if (container, image) == ZTUNNEL && &*pod.workload.kind == "DaemonSet" {
        return Some(Via::Ambient);
    }
    let is_sidecar = SIDECARS.iter().any(|sidecar| {
        let is_labelled = sidecar.label.is_some_and(|label| pod.labels.contains_key(label));
        sidecar.name == container && (is_labelled || (sidecar.label.is_none() && sidecar.image == image))
    });
    let is_app = |other: &ContainerFacts| other.kind == ContainerKind::App && &*other.name != container;
    (is_sidecar && pod.containers.iter().any(is_app)).then_some(Via::Sidecar)
}

/// `proxyv2` of `registry.example:5000/istio/proxyv2:1.20@sha256:…`.
fn repository(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(image, _)| image);
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').map_or(last, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::WorkloadRef;

    fn pod(containers: &[(&str, &str, ContainerKind)], label: Option<&str>, workload: &str) -> PodFacts {
        let container = |&(name, image, kind): &(&str, &str, ContainerKind)| ContainerFacts {
            name: name.into(),
            image: image.into(),
            kind,
            ..ContainerFacts::default()
        };
        PodFacts {
            containers: containers.iter().map(container).collect(),
            labels: label.into_iter().map(|label| (label.to_owned(), "x".to_owned())).collect(),
            workload: WorkloadRef { kind: workload.into(), name: "w".into() },
            ..PodFacts::default()
        }
    }

    #[test]
    fn only_proxies_beside_an_application_are_sidecars() {
        use ContainerKind::{App, Sidecar};
        let app = ("app", "registry.example/shop/cart:1", App);
        let istio = ("istio-proxy", "registry.example:5000/istio/proxyv2:1.20@sha256:0", App);
        let native = ("istio-proxy", "istio/proxyv2", Sidecar);
        let ztunnel = ("istio-proxy", "istio/ztunnel:1.24", App);
        let (label, linkerd) = (Some("security.istio.io/tlsMode"), Some("linkerd.io/control-plane-ns"));
        let tcp = Some(Protocol::Tcp);
        let of = |pod: &PodFacts| via(pod, &pod.containers[0].name, tcp);
        for (containers, label, kind, expected) in [
            (&[istio, app][..], label, "Deployment", Some(Via::Sidecar)),
            (&[native, app], label, "Deployment", Some(Via::Sidecar)),
            // A gateway; a name that anybody can take; the application.
            (&[istio], label, "Deployment", None),
            (&[istio, app], None, "Deployment", None),
            (&[app, istio], label, "Deployment", None),
            (&[("linkerd-proxy", "linkerd/proxy:1", App), app], linkerd, "Deployment", Some(Via::Sidecar)),
            (&[("linkerd-proxy", "linkerd/proxy:1", App), app], None, "Deployment", None),
            (&[("envoy", "x/aws-appmesh-envoy:v1", App), app], None, "Deployment", Some(Via::Sidecar)),
            (&[("envoy", "envoyproxy/envoy:v1", App), app], None, "Deployment", None),
            (&[ztunnel], None, "DaemonSet", Some(Via::Ambient)),
            (&[ztunnel], None, "Deployment", None),
        ] {
            let pod = pod(containers, label, kind);
            assert_eq!(of(&pod), expected, "{containers:?} {label:?} {kind}");
        }
        assert_eq!(via(&pod(&[istio, app], label, "Deployment"), "nobody", tcp), None);
        // A pod of an ambient mesh: all its containers, and TCP alone.
        let ambient = PodFacts { ambient: true, ..pod(&[app], None, "Deployment") };
        assert_eq!((of(&ambient), via(&ambient, "app", Some(Protocol::Udp))), (Some(Via::Ambient), None));
    }
}
