//! Manifests: the ones that this repository ships, the ones of AWS's definitions, and those that tests make.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

/// The shipped account and its role.
pub fn role() -> Result<Vec<Value>> {
    read_all(&repository().join("deploy/rbac"))
}

/// Definitions of `SecurityGroupPolicy`, `CNINode` and `ENIConfig`.
pub fn definitions() -> Result<Vec<Value>> {
    read_all(&repository().join("tests/fixtures/kube"))
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The documents of all YAML files of a directory, in the order of the files' names.
fn read_all(directory: &Path) -> Result<Vec<Value>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry.with_context(|| format!("list {}", directory.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    ensure!(!paths.is_empty(), "no manifest in {}", directory.display());
    let mut manifests = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            manifests.push(Value::deserialize(document).with_context(|| format!("read {}", path.display()))?);
        }
    }
    Ok(manifests)
}

/// A pod of one container on a node, as a scheduler leaves it.
pub fn pod(namespace: &str, name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "namespace": namespace, "name": name, "labels": { "app": name } },
        "spec": {
            "nodeName": node,
            // Nobody is there to end it.
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "main", "image": "registry.example/app:1" }],
        },
    })
}

/// The status of a pod of one container that runs.
pub fn running(ip: &str, container: &str) -> Value {
    let started = "2026-01-01T00:00:00Z";
    json!({
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{ "ip": ip }],
        "startTime": started,
        "containerStatuses": [{
            "name": "main",
            "image": "registry.example/app:1",
            "imageID": "registry.example/app@sha256:0",
            "containerID": format!("containerd://{container}"),
            "ready": true,
            "restartCount": 0,
            "state": { "running": { "startedAt": started } },
        }],
    })
}

/// A node with room for some pods.
pub fn node(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } })
}

/// A policy that gives groups to the pods with a label `app`.
pub fn security_group_policy(namespace: &str, name: &str, app: &str, groups: &[&str]) -> Value {
    json!({
        "apiVersion": "vpcresources.k8s.aws/v1beta1",
        "kind": "SecurityGroupPolicy",
        "metadata": { "namespace": namespace, "name": name },
        "spec": {
            "podSelector": { "matchLabels": { "app": app } },
            "securityGroups": { "groupIds": groups },
        },
    })
}
