//! The file systems of the kubelet and of the container runtime: space and inodes.
//!
//! `/var/lib/kubelet` holds every projected token of the node, so it is never mounted for this agent. It asks instead for
//! any path of its own that lies on the same device: a container always has some (its `/etc/hosts` is a file of the
//! kubelet's). Which device that is tells the host's table of mounts.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agent_core::capacity::{Collector, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;
use procfs::FromRead;
use procfs::process::{MountInfo, MountInfos};

use super::{Error, Look, Roots, read};

/// Whose file systems are watched: the node's root, the kubelet's, containerd's, and that of the logs.
const WATCHED: [&str; 4] = ["/", "/var/lib/kubelet", "/var/lib/containerd", "/var/log"];
/// Longest table of mounts: 250 pods with 20 mounts each of 400 bytes are 2 MiB.
const MOUNTS_BYTES_MAX: u64 = 16 << 20;
/// Most paths tried for one device.
const TRIES: usize = 64;

/// Looks at file systems.
pub(super) struct Disks {
    proc: PathBuf,
    measure: Measure,
}

/// Asks the kernel how full the file system of a path is.
pub(super) type Measure = fn(&Path) -> io::Result<Space>;

/// A file system.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Space {
    /// The device, as tables of mounts name it.
    pub(super) device: (u32, u32),
    pub(super) used_bytes: u64,
    /// Free for those who are not root.
    pub(super) available_bytes: u64,
    /// 0: this file system makes inodes as it needs them.
    pub(super) inodes: u64,
    pub(super) free_inodes: u64,
}

// === impl Disks ===

impl Disks {
    pub(super) fn new(roots: &Roots, measure: Measure) -> Self {
        Self { proc: roots.proc.clone(), measure }
    }

    /// A path of this process's own on a device.
    fn space(&self, device: &str, own: &MountInfos) -> Option<Space> {
        let paths = own.iter().filter(|mount| mount.majmin == device).map(|mount| mount.mount_point.as_path());
        paths.take(TRIES).find_map(|path| {
            let space = (self.measure)(path).ok()?;
            let (major, minor) = space.device;
            // Something else may be mounted over it.
            (format!("{major}:{minor}") == device).then_some(space)
        })
    }
}

impl Look for Disks {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let (own, host) = (mounts(&self.proc.join("self/mountinfo"))?, mounts(&self.proc.join("1/mountinfo"))?);
        let mut result = Ok(());
        let mut samples = Vec::new();
        let mut seen = HashSet::new();
        for mount in WATCHED.iter().filter_map(|path| holding(&host, Path::new(path))) {
            if !seen.insert(&mount.majmin) || is_image(mount) {
                continue;
            }
            match self.space(&mount.majmin, &own) {
                Some(space) => samples.extend(space.samples(mount)),
                None => read::keep_first(
                    &mut result,
                    Error::Malformed {
                        what: format!("the file system at {}", mount.mount_point.display()),
                        why: format!("no path that this process sees lies on its device {}", mount.majmin),
                    },
                ),
            }
        }
        facts.push(HostFact::Samples { collector: Collector::Disks, samples });
        result
    }
}

// === impl Space ===

impl Space {
    fn samples(self, mount: &MountInfo) -> impl Iterator<Item = Sample> + use<> {
        let scope = Scope::FileSystem(mount.mount_point.to_string_lossy().into());
        let source = format!("statfs of device {} ({})", mount.majmin, mount.fs_type);
        let sample = move |resource, used, limit| Sample {
            resource,
            scope: scope.clone(),
            used: Some(used),
            limit: Limit::Of(limit),
            source: source.as_str().into(),
        };
        // What root alone may use is neither used nor to be had.
        let limit = self.used_bytes.saturating_add(self.available_bytes);
        let bytes = sample(Resource::DiskBytes, self.used_bytes, limit);
        let inodes = (self.inodes > 0)
            .then(|| sample(Resource::DiskInodes, self.inodes.saturating_sub(self.free_inodes), self.inodes));
        std::iter::once(bytes).chain(inodes)
    }
}

/// How full the file system of a path is, by `statvfs`.
pub(super) fn measure(path: &Path) -> io::Result<Space> {
    let device = std::fs::metadata(path)?.dev();
    let stat = rustix::fs::statvfs(path)?;
    Ok(Space {
        device: (rustix::fs::major(device), rustix::fs::minor(device)),
        used_bytes: stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes: stat.f_files,
        free_inodes: stat.f_ffree,
    })
}

/// The mount that holds a path: the one with the longest mount point above it, and of several the last.
fn holding<'a>(mounts: &'a MountInfos, path: &Path) -> Option<&'a MountInfo> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.mount_point));
    above.max_by_key(|mount| mount.mount_point.as_os_str().len())
}

/// Nobody can write to it: the verified image of a system such as Bottlerocket. It is full from the first day, and no
/// container has a path on it.
fn is_image(mount: &MountInfo) -> bool {
    mount.super_options.contains_key("ro")
}

fn mounts(path: &Path) -> Result<MountInfos, Error> {
    let text = read::text_of_at_most(path, MOUNTS_BYTES_MAX)?;
    MountInfos::from_read(text.as_bytes()).map_err(|error| read::malformed(path, error.to_string()))
}
