//! This node as /proc, the cgroup tree and the kernel's clocks show it: what was there before the probes, and what they
//! cannot tell. All roots are arguments; nothing here knows another part of the program.

use std::net::IpAddr;
use std::path::Path;

use agent_core::time::{BootNs, WallNs};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use rustix::time::{ClockId, Timespec, clock_gettime};

pub(crate) use self::cgroups::{cgroup2_mount, cgroups};
pub(crate) use self::processes::{exe_of, processes};

mod cgroups;
pub(crate) mod collect;
mod processes;

#[cfg(test)]
mod tests;

/// All addresses of this network namespace's interfaces, sorted; empty, with a warning, when the kernel does not tell.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let interfaces = match getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(%error, "cannot list the node's addresses: peers on this node will not be known as such");
            return Vec::new();
        }
    };
    let mut addresses: Vec<IpAddr> =
        interfaces.filter_map(|interface| interface.address.as_ref().and_then(ip_of)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Whether TCP is demultiplexed before routing (`net.ipv4.tcp_early_demux`); `None` when that cannot be read.
pub(crate) fn tcp_early_demux(proc_root: &Path) -> Option<bool> {
    let text = std::fs::read_to_string(proc_root.join("sys/net/ipv4/tcp_early_demux")).ok()?;
    text.trim().parse::<u8>().ok().map(|value| value != 0)
}

/// This process's id where `proc_root` was mounted: on the node, in the initial pid namespace, as the kernel's programs
/// see it. `None` when that cannot be read.
pub(crate) fn own_pid(proc_root: &Path) -> Option<u32> {
    std::fs::read_link(proc_root.join("self")).ok()?.to_str()?.parse().ok()
}

/// Tells one boot of the machine from another; `None` when that cannot be read.
pub(crate) fn boot_id(proc_root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(proc_root.join("sys/kernel/random/boot_id")).ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Both clocks, read together.
pub(crate) fn clock() -> (BootNs, WallNs) {
    let (boot, wall) = beside_boot_time(ClockId::Realtime);
    (BootNs(u64::try_from(boot).unwrap_or(0)), WallNs(wall))
}

/// How long the machine slept since its boot, nanoseconds: the monotonic clock stands still while it sleeps.
pub(crate) fn asleep_ns() -> u64 {
    let (boot, awake) = beside_boot_time(ClockId::Monotonic);
    u64::try_from(boot.saturating_sub(awake)).unwrap_or(0)
}

/// Boot time and another clock: boot time is read before and after, and the middle taken. Whoever is interrupted in between
/// for longer than a millisecond reads anew, a few times.
fn beside_boot_time(other: ClockId) -> (i64, i64) {
    const TRIES: u32 = 5;
    const APART_NS: i64 = 1_000_000;
    let mut found = (0, 0);
    for _ in 0..TRIES {
        let before = nanoseconds(clock_gettime(ClockId::Boottime));
        let value = nanoseconds(clock_gettime(other));
        let apart = nanoseconds(clock_gettime(ClockId::Boottime)).saturating_sub(before);
        found = (before + apart / 2, value);
        if apart < APART_NS {
            break;
        }
    }
    found
}

/// Processor time that this process has used.
pub(crate) fn cpu_time() -> std::time::Duration {
    let ns = nanoseconds(clock_gettime(ClockId::ProcessCPUTime));
    std::time::Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}

fn nanoseconds(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}
