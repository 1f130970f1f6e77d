//! Where in the API an object lies, from its manifest.

use anyhow::{Context, Result};
use serde_json::Value;

/// Kinds of objects without a namespace, of those that tests make.
const OF_THE_CLUSTER: [&str; 9] = [
    "APIService",
    "CNINode",
    "CSINode",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "ENIConfig",
    "Namespace",
    "Node",
];

/// Path of an object.
pub fn of_object(manifest: &Value) -> Result<String> {
    let name = manifest["metadata"]["name"].as_str().with_context(|| format!("no name in {manifest}"))?;
    Ok(format!("{}/{name}", of_kind(manifest)?))
}

/// Path of the objects of a manifest's kind and namespace.
pub fn of_kind(manifest: &Value) -> Result<String> {
    let field = |name: &str| manifest[name].as_str().with_context(|| format!("no {name} in {manifest}"));
    let (version, kind) = (field("apiVersion")?, field("kind")?);
    let root = if version.contains('/') { "/apis" } else { "/api" };
    let namespace = match manifest["metadata"]["namespace"].as_str() {
        _ if OF_THE_CLUSTER.contains(&kind) => String::new(),
        namespace => format!("/namespaces/{}", namespace.unwrap_or("default")),
    };
    Ok(format!("{root}/{version}{namespace}/{}", plural(kind)))
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => kind,
        None => format!("{kind}s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_found_by_their_manifests() {
        let cases = [
            ("v1", "Pod", "/api/v1/namespaces/ns/pods/a"),
            ("v1", "Endpoints", "/api/v1/namespaces/ns/endpoints/a"),
            ("v1", "Node", "/api/v1/nodes/a"),
            ("networking.k8s.io/v1", "NetworkPolicy", "/apis/networking.k8s.io/v1/namespaces/ns/networkpolicies/a"),
            ("vpcresources.k8s.aws/v1alpha1", "CNINode", "/apis/vpcresources.k8s.aws/v1alpha1/cninodes/a"),
        ];
        for (version, kind, path) in cases {
            let manifest =
                json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "a", "namespace": "ns" } });
            assert_eq!(of_object(&manifest).unwrap(), path);
        }
    }
}
