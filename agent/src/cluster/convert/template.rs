//! Objects that make pods: the pod is judged as it will be.

use agent_core::facts::PodFacts;
use serde::Deserialize;
use serde_json::Value;

use super::shapes::{Meta, Object, Pod, PodSpec};
use super::{Conversion, pod, read, workload};

/// A kind of object with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    ReplicationController,
    Job,
    CronJob,
    PodTemplate,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    template: Option<Template>,
    job_template: Option<JobTemplate>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobTemplate {
    spec: JobSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobSpec {
    template: Option<Template>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Template {
    metadata: Meta,
    spec: Option<PodSpec>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BareTemplate {
    metadata: Meta,
    template: Option<Template>,
}

// === impl Kind ===

impl Kind {
    /// By group and kind. Old groups of the same kinds are read as well: manifests live longer than APIs.
    pub(super) fn of(group: &str, kind: &str) -> Option<Self> {
        Some(match (group, kind) {
            ("apps" | "extensions", "Deployment") => Self::Deployment,
            ("apps" | "extensions", "DaemonSet") => Self::DaemonSet,
            ("apps" | "extensions", "ReplicaSet") => Self::ReplicaSet,
            ("apps", "StatefulSet") => Self::StatefulSet,
            ("batch", "Job") => Self::Job,
            ("batch", "CronJob") => Self::CronJob,
            ("", "ReplicationController") => Self::ReplicationController,
            ("", "PodTemplate") => Self::PodTemplate,
            _ => return None,
        })
    }

    /// As the API writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::PodTemplate => "PodTemplate",
        }
    }
}

/// The pod that an object makes.
pub(super) fn pod(kind: Kind, object: Value, conversion: &Conversion) -> Result<PodFacts, String> {
    let (metadata, template, field) = match kind {
        Kind::PodTemplate => {
            let BareTemplate { metadata, template } = read(object)?;
            (metadata, template, "template")
        }
        Kind::CronJob => {
            let Object::<Spec> { metadata, spec } = read(object)?;
            (metadata, spec.job_template.and_then(|job| job.spec.template), "spec.jobTemplate.spec.template")
        }
        _ => {
            let Object::<Spec> { metadata, spec } = read(object)?;
            (metadata, spec.template, "spec.template")
        }
    };
    let name = if metadata.name.is_empty() { metadata.generate_name.trim_end_matches('-') } else { &metadata.name };
    if name.is_empty() {
        return Err("metadata.name: expected a name".to_owned());
    }
    let Some(Template { metadata: inner, spec: Some(spec) }) = template else {
        return Err(format!("{field}.spec: expected the spec of a pod"));
    };
    let owner = workload::of_template(kind.name(), &Meta { name: name.to_owned(), ..owned(&metadata) });
    // The pod is made in the object's namespace, whatever the template says, and is none that was admitted.
    let inner = Meta {
        namespace: metadata.namespace.clone(),
        labels: inner.labels,
        annotations: inner.annotations,
        ..Meta::default()
    };
    pod::facts(name, owner, Pod { metadata: inner, spec, ..Pod::default() }, conversion)
}

/// What [`workload`] looks at.
fn owned(metadata: &Meta) -> Meta {
    let owner_references = metadata.owner_references.iter();
    Meta {
        owner_references: owner_references
            .map(|owner| super::shapes::Owner {
                kind: owner.kind.clone(),
                name: owner.name.clone(),
                controller: owner.controller,
            })
            .collect(),
        ..Meta::default()
    }
}
