//! Manifests: the ones that this repository ships, the ones of AWS's definitions, and those that tests make.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

/// The shipped account and its role, as kustomize gets them.
pub fn role() -> Result<Vec<Value>> {
    read(&repository().join("deploy/kustomize/base/rbac.yaml"))
}

/// What the chart renders, by the name of the set of values.
pub fn charts() -> Result<Vec<(String, Vec<Value>)>> {
    let mut charts = Vec::new();
    for path in yaml_files(&repository().join("tests/fixtures/chart"))? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        charts.push((name, read(&path)?));
    }
    Ok(charts)
}

/// Definitions of `SecurityGroupPolicy`, `CNINode`, `ENIConfig` and `PolicyEndpoint`.
pub fn definitions() -> Result<Vec<Value>> {
    read_all(&repository().join("tests/fixtures/kube"))
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The documents of all YAML files of a directory, in the order of the files' names.
fn read_all(directory: &Path) -> Result<Vec<Value>> {
    let mut manifests = Vec::new();
    for path in yaml_files(directory)? {
        manifests.extend(read(&path)?);
    }
    Ok(manifests)
}

fn yaml_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry.with_context(|| format!("list {}", directory.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    ensure!(!paths.is_empty(), "no manifest in {}", directory.display());
    Ok(paths)
}

/// The documents of a file.
fn read(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(Value::deserialize);
    documents.map(|document| document.with_context(|| format!("read {}", path.display()))).collect()
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
