//! Containers: what their environment says about AWS credentials, their ids, and which volumes they mount.

use std::sync::Arc;

use agent_core::facts::{ContainerFacts, ContainerKind, IdentityEnv, TokenMount, Value};

use super::probes;
use super::shapes::{Container, ContainerStatus, PodSpec, PodStatus, Variable, Volume};

/// Volumes of the webhooks.
const IRSA_VOLUME: &str = "aws-iam-token";
const POD_IDENTITY_VOLUME: &str = "eks-pod-identity-token";
/// Where clients of the API server look for their token.
const API_TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Name of the volume that admission adds, with five letters after it.
const API_VOLUME_PREFIX: &str = "kube-api-access-";
/// Tokens for the API server name no audience, or the one that the server has in most clusters.
const API_AUDIENCE: &str = "https://kubernetes.default.svc";

/// What the volumes of a pod are, as far as it matters.
pub(super) struct Volumes<'a> {
    pub(super) irsa: bool,
    pub(super) pod_identity: bool,
    api_tokens: Vec<&'a str>,
    secrets: Vec<&'a str>,
}

// === impl Volumes ===

impl<'a> Volumes<'a> {
    pub(super) fn of(spec: &'a PodSpec) -> Self {
        let projected =
            |name: &str| spec.volumes.iter().any(|volume| volume.name == name && volume.projected.is_some());
        Self {
            irsa: projected(IRSA_VOLUME),
            pod_identity: projected(POD_IDENTITY_VOLUME),
            api_tokens: spec.volumes.iter().filter(|volume| is_api_token(volume)).map(|v| v.name.as_str()).collect(),
            secrets: spec.volumes.iter().filter(|volume| volume.secret.is_some()).map(|v| v.name.as_str()).collect(),
        }
    }
}

fn is_api_token(volume: &Volume) -> bool {
    volume.projected.iter().flat_map(|projected| &projected.sources).any(|source| {
        let token = source.service_account_token.as_ref();
        token.is_some_and(|token| token.audience.is_empty() || token.audience.starts_with(API_AUDIENCE))
    })
}

/// Whether a container can read a token for the API server. A pod that was admitted shows it by its mounts; into one that
/// was not, admission will mount it unless the pod says no. (The service account may say no as well, which is not known
/// here.)
pub(super) fn api_token_mounted(spec: &PodSpec, volumes: &Volumes<'_>, admitted: bool) -> bool {
    let mounted =
        spec.init_containers.iter().chain(&spec.containers).flat_map(|container| &container.volume_mounts).any(
            |mount| {
                mount.mount_path.trim_end_matches('/') == API_TOKEN_PATH
                    || volumes.api_tokens.contains(&mount.name.as_str())
            },
        );
    mounted || (!admitted && spec.automount_service_account_token != Some(false))
}

/// How a token for the API server gets into a pod, by the first mount that tells. Admission's volume has a name of its own
/// (`kube-api-access-` and five letters), and before Kubernetes 1.22 it was a Secret.
pub(super) fn api_token(spec: &PodSpec, volumes: &Volumes<'_>) -> Option<TokenMount> {
    let mounts = spec.init_containers.iter().chain(&spec.containers).flat_map(|container| &container.volume_mounts);
    mounts.into_iter().find_map(|mount| {
        let name = mount.name.as_str();
        let at_default = mount.mount_path.trim_end_matches('/') == API_TOKEN_PATH;
        if volumes.api_tokens.contains(&name) {
            let by_admission = at_default && name.starts_with(API_VOLUME_PREFIX);
            return Some(if by_admission { TokenMount::Automounted } else { TokenMount::Projected });
        }
        (at_default && volumes.secrets.contains(&name)).then_some(TokenMount::Secret)
    })
}

/// All containers: init, then app, then ephemeral ones.
pub(super) fn all(spec: &PodSpec, status: &PodStatus) -> Result<Vec<ContainerFacts>, String> {
    let init = spec.init_containers.iter().map(|container| (init_kind(container), container));
    let app = spec.containers.iter().map(|container| (ContainerKind::App, container));
    let ephemeral = spec.ephemeral_containers.iter().map(|container| (ContainerKind::Ephemeral, container));
    init.chain(app)
        .chain(ephemeral)
        .map(|(kind, container)| {
            let statuses = match kind {
                ContainerKind::App => &status.container_statuses,
                ContainerKind::Init | ContainerKind::Sidecar => &status.init_container_statuses,
                ContainerKind::Ephemeral => &status.ephemeral_container_statuses,
            };
            facts(kind, container, statuses.iter().find(|status| status.name == container.name))
        })
        .collect()
}

/// An init container that is always restarted is a sidecar.
pub(super) fn init_kind(container: &Container) -> ContainerKind {
    if container.restart_policy == "Always" { ContainerKind::Sidecar } else { ContainerKind::Init }
}

fn facts(
    kind: ContainerKind,
    container: &Container,
    status: Option<&ContainerStatus>,
) -> Result<ContainerFacts, String> {
    let mounts = |name: &str| container.volume_mounts.iter().any(|mount| mount.name == name);
    let running = status.is_some_and(|status| status.state.running.is_some());
    Ok(ContainerFacts {
        name: container.name.as_str().into(),
        kind,
        image: container.image.as_str().into(),
        ids: status.map(ids).unwrap_or_default(),
        running,
        started: status.is_some_and(|status| {
            // Servers that are too old to tell: what has no startup probe has started when it runs.
            status.started.unwrap_or(running && container.startup_probe.is_none())
        }),
        identity: identity(container),
        probes: probes::probes(container).map_err(|why| format!("container {}: {why}", container.name))?,
        irsa_mount: mounts(IRSA_VOLUME),
        pod_identity_mount: mounts(POD_IDENTITY_VOLUME),
    })
}

/// The running container and the one before it, without `containerd://`.
fn ids(status: &ContainerStatus) -> Vec<Arc<str>> {
    let last = status.last_state.terminated.as_ref().map_or("", |terminated| &terminated.container_id);
    let mut ids: Vec<Arc<str>> = [status.container_id.as_str(), last]
        .into_iter()
        .map(|id| id.rsplit_once("://").map_or(id, |(_, id)| id))
        .filter(|id| !id.is_empty())
        .map(Arc::from)
        .collect();
    ids.dedup();
    ids
}

fn identity(container: &Container) -> IdentityEnv {
    let mut identity = IdentityEnv { env_from: !container.env_from.is_empty(), ..IdentityEnv::default() };
    for variable in &container.env {
        // Of two with one name the later counts, as for the kubelet.
        match variable.name.as_str() {
            "AWS_ROLE_ARN" => identity.role_arn = Some(value(variable)),
            "AWS_WEB_IDENTITY_TOKEN_FILE" => identity.web_identity_token_file = Some(value(variable)),
            "AWS_CONTAINER_CREDENTIALS_FULL_URI" => identity.container_credentials_uri = Some(value(variable)),
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE" => identity.container_token_file = Some(value(variable)),
            "AWS_ACCESS_KEY_ID" => {
                identity.access_key_id_referenced = !known(variable);
                identity.access_key_id = is_set(variable);
            }
            "AWS_SECRET_ACCESS_KEY" => identity.secret_access_key = is_set(variable),
            "AWS_EC2_METADATA_DISABLED" => {
                identity.metadata_disabled = known(variable) && variable.value.eq_ignore_ascii_case("true");
            }
            _ => {}
        }
        if is_long_term_key_id(&variable.value) && identity.static_keys.len() < IdentityEnv::MAX_STATIC_KEYS {
            identity.static_keys.push((super::cut(&variable.name), variable.value.clone()));
        }
    }
    identity
}

/// An empty value is no value to the SDKs.
fn is_set(variable: &Variable) -> bool {
    !variable.value.is_empty() || variable.value_from.is_some()
}

/// Whether the object states the value: not when it comes from elsewhere, nor when another variable is put into it.
pub(super) fn known(variable: &Variable) -> bool {
    variable.value_from.is_none() && !variable.value.contains("$(")
}

fn value(variable: &Variable) -> Value {
    if known(variable) { Value::Literal(variable.value.as_str().into()) } else { Value::Referenced }
}

/// `AKIA` and sixteen characters of base 32: the id of a long-term key, which is not a secret.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html>
fn is_long_term_key_id(text: &str) -> bool {
    let base32 = |byte: u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte);
    text.len() == 20 && text.strip_prefix("AKIA").is_some_and(|rest| rest.bytes().all(base32))
}
