//! What the probes need of the machine, checked before the kernel is asked, so that a refusal has a name and a cure.

use std::fs;
use std::path::Path;

use super::Error;
use super::load::BTF_PATH;

/// Oldest kernel: sockets' cgroups (5.15), iterators over socket storage, atomics.
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// Bits of the capability sets, `include/uapi/linux/capability.h`.
const CAPABILITIES: &[(&str, u32, Option<u32>)] = &[
    ("CAP_NET_ADMIN", 12, None),
    // Before Linux 5.8 and still today CAP_SYS_ADMIN includes these two.
    ("CAP_PERFMON", 38, Some(21)),
    ("CAP_BPF", 39, Some(21)),
];

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// What.
    pub(crate) name: &'static str,
    /// How it is.
    pub(crate) state: CheckState,
}

/// See [`Check::state`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CheckState {
    /// As it should be; the text says what was found.
    Ok(String),
    /// Works, with less.
    Degraded(String),
    /// The agent cannot run.
    Missing {
        /// What is missing.
        what: String,
        /// What to do.
        cure: String,
    },
}

/// Looks at everything.
pub(crate) fn preflight() -> Vec<Check> {
    vec![
        Check { name: "kernel", state: kernel() },
        Check { name: "type information", state: type_information(Path::new(BTF_PATH)) },
        Check { name: "cgroup2", state: cgroup2(Path::new("/proc/self/mountinfo")) },
        Check { name: "capabilities", state: capabilities(Path::new("/proc/self/status")) },
    ]
}

/// The first thing that is missing, as an error.
pub(crate) fn require() -> Result<(), Error> {
    for check in preflight() {
        if let CheckState::Missing { what, cure } = check.state {
            return Err(Error::Missing { what, cure });
        }
    }
    Ok(())
}

fn kernel() -> CheckState {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    match version(&release) {
        Some(found) if found >= OLDEST_KERNEL => CheckState::Ok(release),
        Some(_) => CheckState::Missing {
            what: format!("a kernel of version 5.15 or later (this is {release})"),
            cure: "run on a newer node image, such as Amazon Linux 2023".to_owned(),
        },
        None => CheckState::Degraded(format!("cannot read the version in {release:?}")),
    }
}

pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn type_information(path: &Path) -> CheckState {
    match fs::metadata(path) {
        Ok(found) => CheckState::Ok(format!("{} ({} bytes)", path.display(), found.len())),
        Err(_) => CheckState::Missing {
            what: format!("the kernel's type information ({})", path.display()),
            cure: "run on a kernel built with CONFIG_DEBUG_INFO_BTF, and with /sys mounted".to_owned(),
        },
    }
}

fn cgroup2(mountinfo: &Path) -> CheckState {
    let mounts = fs::read_to_string(mountinfo).unwrap_or_default();
    match cgroup2_mount(&mounts) {
        Some(path) => CheckState::Ok(path.to_owned()),
        None => CheckState::Missing {
            what: "a cgroup2 mount".to_owned(),
            cure: "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1), or mount it: mount -t cgroup2 none /sys/fs/cgroup/unified".to_owned(),
        },
    }
}

/// Mount point of the first cgroup2 in the text of a `mountinfo` file.
fn cgroup2_mount(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next()? == "cgroup2").then(|| before.split(' ').nth(4))?
    })
}

fn capabilities(status: &Path) -> CheckState {
    let text = fs::read_to_string(status).unwrap_or_default();
    let Some(effective) = effective_set(&text) else {
        return CheckState::Degraded(format!("cannot read {}", status.display()));
    };
    let has = |bit: u32| effective >> bit & 1 == 1;
    let lacking: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(_, bit, instead)| !has(*bit) && !instead.is_some_and(has))
        .map(|(name, _, _)| *name)
        .collect();
    if lacking.is_empty() {
        return CheckState::Ok("BPF, PERFMON, NET_ADMIN".to_owned());
    }
    CheckState::Missing {
        what: lacking.join(", "),
        cure: "run as root, or give the process these capabilities".to_owned(),
    }
}

fn effective_set(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kernel_versions() {
        assert_eq!(version("6.1.0-18-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("5.10.220-209.869.amzn2.x86_64"), Some((5, 10)));
        assert_eq!(version("6.12-rc1"), Some((6, 12)));
        assert_eq!(version("generic"), None);
    }

    #[test]
    fn finds_the_cgroup2_mount_among_others() {
        let hybrid = "29 22 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      31 22 0:27 / /sys/fs/cgroup/unified rw,relatime shared:7 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_mount(hybrid), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup2_mount("29 22 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
        assert_eq!(cgroup2_mount("garbage"), None);
    }

    #[test]
    fn reads_the_effective_set() {
        assert_eq!(effective_set("Name:\tx\nCapEff:\t000001fffeffffff\n"), Some(0x1ff_feff_ffff));
        assert_eq!(effective_set("CapEff:\tnot hex"), None);
    }

    #[test]
    fn names_missing_capabilities() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), "CapEff:\t0000000000000000\n").expect("written");
        let CheckState::Missing { what, .. } = capabilities(file.path()) else { panic!("nothing is there") };
        assert_eq!(what, "CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF");
        fs::write(file.path(), "CapEff:\t0000000000201000\n").expect("written");
        assert!(matches!(capabilities(file.path()), CheckState::Ok(_)), "CAP_SYS_ADMIN includes BPF and PERFMON");
    }
}
