//! What the shipped `DaemonSet` asks of a container runtime. A key that is not understood here is an error, so that nothing of
//! the manifest goes untested in silence.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// Where the manifest and the configuration are shipped.
const SHIPPED: &str = "deploy/kustomize/base";
/// A seccomp profile for those who want a narrower one.
const PROFILE: &str = "deploy/seccomp/sekisho.json";

/// The agent's container.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Command and arguments.
    pub args: Vec<String>,
    /// Variables; the node's name is the test's.
    pub env: Vec<(String, String)>,
    /// Capabilities, all of them, with `CAP_` in front.
    pub capabilities: Vec<String>,
    /// Whom it runs by.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Most bytes of memory.
    pub memory_bytes: u64,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Seconds between SIGTERM and SIGKILL.
    pub grace_s: u64,
    /// Text of the configuration file.
    pub config: String,
    /// A seccomp profile in place of the runtime's, as a node has it in a file.
    pub seccomp: Option<Value>,
}

/// A mount.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Where it is seen.
    pub path: String,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Whether that holds for what is mounted below too.
    pub recursive: bool,
    /// What it is.
    pub volume: Volume,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// A path of the node.
    HostPath(PathBuf),
    /// An empty directory in memory.
    Memory,
    /// An empty directory on the node's disk.
    Disk,
    /// The configuration.
    Config,
}

impl Manifest {
    /// The shipped one.
    pub fn shipped() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package has no parent")?;
        let directory = root.join(SHIPPED);
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        Self::parse(&read("daemonset.yaml")?, read("config.yaml")?)
    }

    /// Reads a `DaemonSet`.
    pub fn parse(text: &str, config: String) -> Result<Self> {
        let set: DaemonSet = serde_yaml_ng::from_str(text).context("read the DaemonSet")?;
        let Template { spec: pod } = set.spec.template;
        let mut containers = pod.containers;
        let container = containers.pop().context("the DaemonSet has no container")?;
        ensure!(containers.is_empty(), "the DaemonSet has more containers than the agent's");
        ensure!(pod.host_network && !pod.host_pid, "what is tested is a container in the node's network alone");

        let security = container.security_context;
        ensure!(security.read_only_root_filesystem, "its root can be written");
        ensure!(!security.privileged && !security.allow_privilege_escalation, "it may become more than it is");
        ensure!(security.capabilities.drop == ["ALL"], "it keeps capabilities that nobody named");
        ensure!(security.seccomp_profile.kind == "RuntimeDefault", "its seccomp profile is not the runtime's");

        let volumes = pod.volumes;
        let mounts = container.volume_mounts.into_iter().map(|mount| {
            let volume = volumes.iter().find(|volume| volume.name == mount.name);
            let volume = volume.with_context(|| format!("no volume {}", mount.name))?.meaning()?;
            Ok(Mount {
                path: mount.mount_path,
                read_only: mount.read_only,
                recursive: mount.recursive_read_only.is_some_and(|when| when != "Disabled"),
                volume,
            })
        });
        let env = container.env.into_iter().map(|variable| match (variable.value, variable.value_from) {
            (Some(value), None) => Ok((variable.name, value)),
            (None, Some(from)) if from.pointer("/fieldRef/fieldPath") == Some(&"spec.nodeName".into()) => {
                Ok((variable.name, "test-node".to_owned()))
            }
            _ => bail!("cannot tell the value of {}", variable.name),
        });
        Ok(Self {
            args: [container.command, container.args].concat(),
            env: env.collect::<Result<_>>()?,
            capabilities: security.capabilities.add.iter().map(|name| format!("CAP_{name}")).collect(),
            user: security.run_as_user,
            group: security.run_as_group,
            memory_bytes: mebibytes(&container.resources.limits.memory)?,
            mounts: mounts.collect::<Result<_>>()?,
            grace_s: pod.termination_grace_period_seconds,
            config,
            seccomp: None,
        })
    }

    /// The seccomp profile that is shipped beside it.
    pub fn profile() -> Result<Value> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package has no parent")?;
        let path = root.join(PROFILE);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
    }
}

fn mebibytes(text: &str) -> Result<u64> {
    let number = text.strip_suffix("Mi").with_context(|| format!("the limit of memory is {text}, not in Mi"))?;
    Ok(number.parse::<u64>().with_context(|| format!("read {text}"))? << 20)
}

// === the parts of a DaemonSet that concern the runtime ===

#[derive(Deserialize)]
struct DaemonSet {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    template: Template,
}

#[derive(Deserialize)]
struct Template {
    spec: Pod,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    host_network: bool,
    #[serde(rename = "hostPID")]
    host_pid: bool,
    termination_grace_period_seconds: u64,
    containers: Vec<Container>,
    volumes: Vec<NamedVolume>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    command: Vec<String>,
    args: Vec<String>,
    env: Vec<Variable>,
    security_context: Security,
    volume_mounts: Vec<VolumeMount>,
    resources: Resources,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Variable {
    name: String,
    value: Option<String>,
    value_from: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Security {
    privileged: bool,
    allow_privilege_escalation: bool,
    read_only_root_filesystem: bool,
    run_as_user: u32,
    run_as_group: u32,
    capabilities: Capabilities,
    seccomp_profile: Seccomp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Capabilities {
    drop: Vec<String>,
    add: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seccomp {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VolumeMount {
    name: String,
    mount_path: String,
    #[serde(default)]
    read_only: bool,
    recursive_read_only: Option<String>,
}

#[derive(Deserialize)]
struct Resources {
    limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    memory: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NamedVolume {
    name: String,
    host_path: Option<HostPath>,
    empty_dir: Option<EmptyDir>,
    config_map: Option<Value>,
}

#[derive(Deserialize)]
struct HostPath {
    path: PathBuf,
}

#[derive(Deserialize)]
struct EmptyDir {
    medium: Option<String>,
}

impl NamedVolume {
    fn meaning(&self) -> Result<Volume> {
        match (&self.host_path, &self.empty_dir, &self.config_map) {
            (Some(host), None, None) => Ok(Volume::HostPath(host.path.clone())),
            (None, Some(EmptyDir { medium: None }), None) => Ok(Volume::Disk),
            (None, Some(EmptyDir { medium: Some(medium) }), None) if medium == "Memory" => Ok(Volume::Memory),
            (None, None, Some(_)) => Ok(Volume::Config),
            _ => bail!("the volume {} is of a kind that is not tested", self.name),
        }
    }
}
