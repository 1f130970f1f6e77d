//! A manifest as the runtime's specification of a container: containerd's own defaults, changed where its CRI plugin, which
//! the kubelet asks, changes them too.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::manifest::{Manifest, Mount, Volume};

/// What `ctr` gives a container unless it is told otherwise.
pub(super) const USUAL_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Where things of this test stand for things of a node.
#[derive(Debug)]
pub(super) struct Places<'a> {
    /// The image's root file system, mounted.
    pub(super) root: &'a Path,
    /// For directories that the agent writes on the node, and its configuration.
    pub(super) home: &'a Path,
    /// The network namespace that stands for the node's.
    pub(super) network: &'a Path,
    /// Control group, below each hierarchy's root.
    pub(super) cgroup: &'a str,
}

/// Changes what containerd made of image and capabilities. Capabilities are left as it made them, and so is the
/// seccomp profile unless another is wanted.
pub(super) fn adapt(mut spec: Value, manifest: &Manifest, places: &Places<'_>) -> Result<Value> {
    spec["root"] = json!({ "path": places.root, "readonly": true });
    spec["process"]["user"] = json!({ "uid": manifest.user, "gid": manifest.group });
    ensure!(spec["process"]["noNewPrivileges"] == true, "containerd lets it become more than it is");
    let env = spec["process"]["env"].as_array_mut().context("no environment")?;
    env.extend(manifest.env.iter().map(|(name, value)| json!(format!("{name}={value}"))));

    let mounts = spec["mounts"].as_array_mut().context("no mounts")?;
    // The plugin leaves it out as well: what is below it belongs to the image.
    mounts.retain(|mount| mount["destination"] != "/run");
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        // With one hierarchy alone containers have a view of their own, and see it.
        let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
        mounts
            .push(json!({ "type": "cgroup", "source": "cgroup", "destination": "/sys/fs/cgroup", "options": options }));
    }
    for mount in &manifest.mounts {
        mounts.push(mounted(mount, manifest, places.home)?);
    }

    let linux = &mut spec["linux"];
    linux["cgroupsPath"] = json!(places.cgroup);
    ensure!(linux["seccomp"].is_object(), "containerd filters no system call");
    if let Some(profile) = &manifest.seccomp {
        // A profile in a node's file has the very form of the specification.
        linux["seccomp"] = profile.clone();
    }
    linux["resources"]["memory"] = json!({ "limit": manifest.memory_bytes });
    for namespace in linux["namespaces"].as_array_mut().context("no namespaces")? {
        if namespace["type"] == "network" {
            namespace["path"] = json!(places.network);
        }
    }
    Ok(spec)
}

fn mounted(mount: &Mount, manifest: &Manifest, home: &Path) -> Result<Value> {
    let read_only = match (mount.read_only, mount.recursive) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, _) => "rw",
    };
    let bind = |source: &Path| {
        json!({
            "type": "bind",
            "source": source,
            "destination": mount.path,
            "options": ["rbind", "rprivate", read_only],
        })
    };
    Ok(match &mount.volume {
        // What is the kernel's is the machine's; what the agent or the CNI writes is the test's own.
        Volume::HostPath(path) if path.starts_with("/proc") || path.starts_with("/sys") => bind(path),
        Volume::HostPath(path) => bind(&directory(&host_path(home, path))?),
        Volume::Disk => {
            let empty = directory(&home.join("empty").join(mount.path.trim_start_matches('/')))?;
            // As the kubelet makes it: for whomever the container runs by.
            fs::set_permissions(&empty, fs::Permissions::from_mode(0o777)).context("open a directory to all")?;
            bind(&empty)
        }
        Volume::Config => {
            let config = directory(&home.join("config"))?;
            // No cluster is here.
            let text = format!("{}\nstandalone: true\nfold_seconds: 1\n", manifest.config);
            fs::write(config.join("config.yaml"), text).context("write a configuration")?;
            bind(&config)
        }
        Volume::Memory => json!({
            "type": "tmpfs",
            "source": "tmpfs",
            "destination": mount.path,
            "options": ["nosuid", "nodev", "mode=0777", "size=1048576"],
        }),
    })
}

/// Where a directory of the node is kept.
pub(super) fn host_path(home: &Path, path: &Path) -> std::path::PathBuf {
    home.join("node").join(path.strip_prefix("/").unwrap_or(path))
}

fn directory(path: &Path) -> Result<std::path::PathBuf> {
    fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    Ok(path.to_owned())
}
