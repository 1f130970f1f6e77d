//! Privileges once the probes are attached: what only loading needs is given up for good, by every thread.

use std::fs;
use std::io;
use std::path::Path;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities, set_no_new_privs};

use super::preflight::version;

/// Loading programs that read the kernel's structs needs it; nothing else does.
const TO_LOAD: CapabilitySet = CapabilitySet::PERFMON;

/// From this kernel on, `bpf(2)` on maps and links that a process holds needs no capability
/// (<https://github.com/torvalds/linux/commit/c8644cd0efe719608ddcb341bcf087d4bc0bf6b8>). Before it every call does.
const FREE_CALLS: (u32, u32) = (5, 19);

/// Gives up, in the calling thread and those that it makes later, what is not needed any more, and every way to more.
pub(crate) fn give_up() -> io::Result<()> {
    set_no_new_privs(true)?;
    let mut sets = capabilities(None)?;
    let given_up = not_needed(&rustix::system::uname().release().to_string_lossy());
    sets.effective -= given_up;
    sets.permitted -= given_up;
    sets.inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, sets)?)
}

/// What any thread of this process still has, by name.
pub(crate) fn held() -> io::Result<Vec<String>> {
    held_by(Path::new("/proc/self/task"))
}

fn held_by(tasks: &Path) -> io::Result<Vec<String>> {
    let mut held = 0;
    for task in fs::read_dir(tasks)? {
        // A thread may end in between.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
        let set = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        held |= set.ok_or_else(|| io::Error::other("a thread's status has no capabilities"))?;
    }
    let names = CapabilitySet::from_bits_truncate(held);
    Ok(names.iter_names().map(|(name, _)| format!("CAP_{name}")).collect())
}

fn not_needed(release: &str) -> CapabilitySet {
    match version(release) {
        Some(found) if found >= FREE_CALLS => TO_LOAD | CapabilitySet::BPF,
        _ => TO_LOAD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_needs_bpf_at_every_call() {
        assert_eq!(not_needed("5.15.0-101"), CapabilitySet::PERFMON);
        assert_eq!(not_needed("generic"), CapabilitySet::PERFMON);
        assert_eq!(not_needed("6.1.0-18-cloud-amd64"), CapabilitySet::PERFMON | CapabilitySet::BPF);
    }

    #[test]
    fn what_one_thread_keeps_is_held() {
        let tasks = tempfile::tempdir().expect("a directory");
        for (task, set) in [("1", "0000000000001000"), ("2", "0000008000000000")] {
            fs::create_dir(tasks.path().join(task)).expect("a thread");
            fs::write(tasks.path().join(task).join("status"), format!("Name:\tx\nCapPrm:\t{set}\n")).expect("a status");
        }
        assert_eq!(held_by(tasks.path()).expect("read"), ["CAP_NET_ADMIN", "CAP_BPF"]);
        fs::write(tasks.path().join("1/status"), "").expect("a status");
        assert!(held_by(tasks.path()).is_err());
    }
}
