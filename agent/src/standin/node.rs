//! Stand-in for `node`.
use std::path::{Path, PathBuf};

use agent_core::input::Input;
use agent_core::time::{BootNs, WallNs};
use agent_ebpf::wire::Owner;

pub(crate) fn clock() -> (BootNs, WallNs) {
    let read = |id| {
        let at = rustix::time::clock_gettime(id);
        at.tv_sec * 1_000_000_000 + at.tv_nsec
    };
    let boot = u64::try_from(read(rustix::time::ClockId::Boottime)).unwrap_or(0);
    (BootNs(boot), WallNs(read(rustix::time::ClockId::Realtime)))
}

pub(crate) fn processes(_proc_root: &Path, _cgroup_root: &Path) -> Vec<Input> {
    Vec::new()
}
pub(crate) fn cgroups(_cgroup_root: &Path) -> Vec<Input> {
    Vec::new()
}
pub(crate) fn addresses() -> Vec<std::net::IpAddr> {
    Vec::new()
}
pub(crate) fn exe_of(proc_root: &Path, owner: Owner) -> Option<String> {
    let path = std::fs::read_link(proc_root.join(owner.tgid.to_string()).join("exe")).ok()?;
    Some(path.to_string_lossy().into_owned())
}
#[expect(clippy::unnecessary_wraps, reason = "the real one may find none")]
pub(crate) fn cgroup2_mount(_proc_root: &Path) -> Option<PathBuf> {
    Some(PathBuf::from("/sys/fs/cgroup"))
}
