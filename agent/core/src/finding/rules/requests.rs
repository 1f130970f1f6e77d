//! Requests to the instance metadata service that were answered, or went through a proxy. Each judged by itself.

use super::{violation, whom, why};
use crate::finding::{Code, Evidence, Severity, Subject, Violation};
use crate::input::{Category, ImdsVersion};
use crate::output::{MetadataRow, ProcessView, service_name};

/// Proxies of service meshes: what they send, any container of the pod may have asked for.
const MESH_PROGRAMS: [&str; 4] = ["envoy", "pilot-agent", "linkerd2-proxy", "ztunnel"];
const MESH_CONTAINERS: [&str; 4] = ["istio-proxy", "linkerd-proxy", "envoy", "consul-dataplane"];
const OK: u16 = 200;

/// What a request to EC2's metadata service gives rise to. `own`: whether the container has an AWS identity of its own,
/// or should have one.
pub(in crate::finding) fn judge(row: &MetadataRow, subject: &Subject, own: Option<bool>) -> Vec<(Code, Violation)> {
    let mut found = Vec::new();
    if row.service != service_name(agent_ebpf::wire::Service::Imds) {
        return found;
    }
    let who = format!("{}{}", whom(subject), through_mesh(row, subject));
    if row.forwarded_for.is_some() {
        let text = format!("{who} sent a request to the instance metadata service for somebody else");
        found.push((Code::MetadataForwarded, violation(Severity::Medium, "forwarded", text)));
    }
    if row.status == Some(OK) {
        found.extend(taken(row, &who, own));
        if row.version == ImdsVersion::V1 && row.category.is_some_and(is_ec2) {
            let text = format!("{who} uses the instance metadata service without a token (version 1)");
            found.push((Code::MetadataV1Used, violation(Severity::Low, "no_token", text)));
        }
    }
    for (_, violation) in &mut found {
        violation.evidence = evidence(row);
    }
    found
}

/// What cannot be told of a request: an answer below the path of the instance's own credentials may have held them.
pub(in crate::finding) fn doubt(row: &MetadataRow) -> Option<(Code, &'static str)> {
    let is_answered = row.service == service_name(agent_ebpf::wire::Service::Imds) && row.status == Some(OK);
    let is_unseen = row.category == Some(Category::IdentityCredentials) && row.access_key_id.is_none();
    (is_answered && is_unseen).then_some((Code::IdentityCredentialsTaken, why::KEY_NOT_SEEN))
}

fn taken(row: &MetadataRow, who: &str, own: Option<bool>) -> Option<(Code, Violation)> {
    match row.category? {
        Category::RoleCredentials => {
            let role = row.role.as_deref().unwrap_or("of the node");
            let (severity, cause, more) = match own {
                Some(true) => {
                    (Severity::Critical, "own_identity", ", although it has an AWS identity of its own, or should")
                }
                Some(false) => (Severity::High, "no_identity", ""),
                None => (Severity::High, "unknown_identity", ""),
            };
            let text = format!("{who} took the credentials of the node's role {role}{more}");
            Some((Code::NodeCredentialsTaken, violation(severity, cause, text)))
        }
        // Without a key id it was one of the paths beside the credentials, or the answer was not seen whole: see `doubt`.
        Category::IdentityCredentials if row.access_key_id.is_some() => {
            let text = format!("{who} took the credentials of the instance's own identity");
            Some((Code::IdentityCredentialsTaken, violation(Severity::Medium, "taken", text)))
        }
        Category::UserData => {
            let text = format!("{who} read the instance's user data");
            Some((Code::UserDataRead, violation(Severity::Medium, "read", text)))
        }
        _ => None,
    }
}

/// Paths of EC2's metadata, as opposed to those of other clouds and to what nobody serves.
fn is_ec2(category: Category) -> bool {
    match category {
        Category::RoleList
        | Category::RoleCredentials
        | Category::RoleInfo
        | Category::IdentityCredentials
        | Category::UserData
        | Category::IdentityDocument
        | Category::Metadata => true,
        Category::Token | Category::PodIdentityCredentials | Category::OtherCloud | Category::Other => false,
    }
}

fn through_mesh(row: &MetadataRow, subject: &Subject) -> &'static str {
    let program = row.who.process.as_deref().and_then(program);
    if is_mesh_container(&subject.container) || program.is_some_and(|name| MESH_PROGRAMS.contains(&name)) {
        " (by the proxy of its mesh, for any container of the pod)"
    } else {
        ""
    }
}

/// Whether a container of this name is a service mesh's proxy.
pub(crate) fn is_mesh_container(name: &str) -> bool {
    MESH_CONTAINERS.contains(&name)
}

fn program(process: &ProcessView) -> Option<&str> {
    let path = process.exe.as_deref().unwrap_or(&process.comm);
    path.rsplit('/').next()
}

/// What was asked, what came back, and by which program.
pub(in crate::finding) fn evidence(row: &MetadataRow) -> Vec<Evidence> {
    let says = |object: &str, field: &str, value: String| Evidence {
        object: object.to_owned(),
        field: field.to_owned(),
        generation: None,
        value,
    };
    let mut evidence = vec![says("request", "time", row.time.to_string())];
    if let Some(category) = row.category {
        evidence.push(says("request", "category", crate::output::name_of(&category)));
    }
    evidence.extend(row.role.as_ref().map(|role| says("request", "role", role.clone())));
    evidence.extend(row.forwarded_for.as_ref().map(|from| says("request", "X-Forwarded-For", from.clone())));
    evidence.extend(row.status.map(|status| says("answer", "status", status.to_string())));
    evidence.extend(row.access_key_id.as_ref().map(|key| says("answer", "access_key_id", key.clone())));
    if let Some(process) = row.who.process.as_deref() {
        let chain = process.ancestors.iter().map(|ancestor| format!(" < {}[{}]", ancestor.comm, ancestor.pid));
        let path = process.exe_resolved.as_deref().or(process.exe.as_deref()).unwrap_or(&process.comm);
        evidence.push(says("process", "", format!("{path}[{}]{}", process.pid, chain.collect::<String>())));
    }
    evidence
}
