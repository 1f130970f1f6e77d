//! Network namespaces of a test's own. A descriptor alone holds them, so that they vanish with the test and its actors,
//! however those end.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
}

/// The kernel's own counts of a namespace, from `/proc/net/snmp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpCounters {
    /// Times that a socket went from CLOSE to SYN-SENT.
    pub active_opens: u64,
    /// Times that a listener made a connection.
    pub passive_opens: u64,
}

impl Namespace {
    /// A new, empty namespace.
    pub fn new() -> Result<Self> {
        let fd = on_a_thread(|| {
            unshare(UnshareFlags::NEWNET).context("unshare a network namespace")?;
            Ok(OwnedFd::from(File::open("/proc/thread-self/ns/net").context("open /proc/thread-self/ns/net")?))
        })?;
        let namespace = Self { fd };
        // A new namespace has the setting of the first one.
        namespace.sysctl("net/ipv4/ip_forward", "0")?;
        Ok(namespace)
    }

    /// Runs `work` on a thread in the namespace. Sockets made there stay in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread(|| {
            rustix::thread::move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
                .context("enter a network namespace")?;
            work()
        })
    }

    /// A path by which another process of this machine may open the namespace while this one lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()))
    }

    /// The namespace itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sets a sysctl below `/proc/sys` in the namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        // /proc/sys/net shows the namespace of the thread that opens it.
        self.run(|| fs::write(format!("/proc/sys/{key}"), value).with_context(|| format!("set sysctl {key}={value}")))
    }

    /// Steers received packets of an interface over all CPUs of the machine (receive packet steering).
    pub fn steer_over_all_cpus(&self, interface: &str) -> Result<()> {
        let cpus = std::thread::available_parallelism().context("count CPUs")?.get().min(32);
        let mask = format!("{:x}", u32::MAX >> (32 - cpus));
        let mut file = self.open_steering(interface, OFlags::WRONLY)?;
        file.write_all(mask.as_bytes()).with_context(|| format!("steer packets of {interface}"))
    }

    /// The mask of CPUs over which received packets of an interface are steered; 0 when they are not.
    pub fn steering(&self, interface: &str) -> Result<u32> {
        let text = std::io::read_to_string(self.open_steering(interface, OFlags::RDONLY)?).context("read rps_cpus")?;
        u32::from_str_radix(text.trim(), 16).with_context(|| format!("parse rps_cpus {text:?}"))
    }

    fn open_steering(&self, interface: &str, access: OFlags) -> Result<File> {
        let path = format!("class/net/{interface}/queues/rx-0/rps_cpus");
        self.run(|| {
            // A sysfs of this namespace that is mounted nowhere: it lives as long as its descriptors.
            let context = rustix::mount::fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen sysfs")?;
            rustix::mount::fsconfig_create(context.as_fd()).context("create a sysfs")?;
            let flags = (FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
            let root = rustix::mount::fsmount(context.as_fd(), flags.0, flags.1).context("fsmount sysfs")?;
            let file = rustix::fs::openat(&root, path.as_str(), access | OFlags::CLOEXEC, Mode::empty())
                .with_context(|| format!("open {path}"))?;
            Ok(File::from(file))
        })
    }

    /// TCP and UDP sockets of the namespace that are not closed, listeners included and those in TIME-WAIT not.
    pub fn open_sockets(&self) -> Result<u64> {
        let text = self.run(|| {
            let v4 = fs::read_to_string("/proc/thread-self/net/sockstat").context("read /proc/net/sockstat")?;
            // Absent where the kernel has no IPv6.
            Ok(v4 + &fs::read_to_string("/proc/thread-self/net/sockstat6").unwrap_or_default())
        })?;
        let mut open = 0;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some("TCP:" | "TCP6:" | "UDP:" | "UDP6:"), Some("inuse"), Some(count)) =
                (words.next(), words.next(), words.next())
            {
                open += count.parse::<u64>().with_context(|| format!("read sockstat line {line:?}"))?;
            }
        }
        Ok(open)
    }

    /// The kernel's counts of TCP connections in the namespace since it was made.
    pub fn tcp_counters(&self) -> Result<TcpCounters> {
        let text = self.run(|| fs::read_to_string("/proc/thread-self/net/snmp").context("read /proc/net/snmp"))?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = lines.next().zip(lines.next()).context("/proc/net/snmp has no Tcp lines")?;
        let value = |wanted: &str| -> Result<u64> {
            let (_, value) = names
                .split_whitespace()
                .zip(values.split_whitespace())
                .find(|(name, _)| *name == wanted)
                .with_context(|| format!("/proc/net/snmp has no {wanted}"))?;
            value.parse().with_context(|| format!("read {wanted} of /proc/net/snmp"))
        };
        Ok(TcpCounters { active_opens: value("ActiveOpens")?, passive_opens: value("PassiveOpens")? })
    }
}

/// Runs `work` on a thread of its own, since namespaces belong to threads.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("a thread in a namespace panicked"))?
}

#[expect(unsafe_code, reason = "unshare is unsafe in rustix for the sake of CLONE_FILES")]
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the descriptor table is not unshared.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}
