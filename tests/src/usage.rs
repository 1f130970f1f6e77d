//! What a process used and holds, from `/proc`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

/// Nanoseconds of processor time by the name of a thread; threads of one name together. Threads that ended are not in it.
pub fn cpu_by_thread(pid: u32) -> Result<BTreeMap<String, u64>> {
    let directory = format!("/proc/{pid}/task");
    let mut all = BTreeMap::new();
    for thread in fs::read_dir(&directory).with_context(|| format!("list {directory}"))? {
        let thread = thread.context("list threads")?.path();
        // A thread may end between the listing and the reading.
        let read = |name: &str| fs::read_to_string(thread.join(name)).ok();
        let Some((name, text)) = read("comm").zip(read("schedstat")) else { continue };
        let on_cpu = text.split_whitespace().next().context("an empty schedstat")?;
        let on_cpu: u64 = on_cpu.parse().with_context(|| format!("read {text:?}"))?;
        *all.entry(name.trim().to_owned()).or_default() += on_cpu;
    }
    anyhow::ensure!(!all.is_empty(), "process {pid} has no thread any more");
    Ok(all)
}

/// Nanoseconds of processor time of all threads. Of those that ended while others run, nothing: the agent's long-lived ones
/// stay.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    Ok(cpu_by_thread(pid)?.values().sum())
}

/// Nanoseconds of processor time of all processes that this one started and waited for, in steps of a clock tick, mostly
/// 10 ms.
pub fn children_cpu_ns() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    // The name, in brackets, may hold anything. Behind it field 3 is the first.
    let (_, fields) = text.rsplit_once(") ").context("no name in /proc/self/stat")?;
    let field = |number: usize| -> Result<u64> {
        let field = fields.split(' ').nth(number - 3).context("too few fields in /proc/self/stat")?;
        field.parse().with_context(|| format!("read field {number} of /proc/self/stat"))
    };
    let ticks = field(16)? + field(17)?;
    Ok(ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// Open descriptors.
pub fn descriptors(pid: u32) -> Result<u64> {
    entries(&format!("/proc/{pid}/fd"))
}

/// Threads.
pub fn threads(pid: u32) -> Result<u64> {
    entries(&format!("/proc/{pid}/task"))
}

/// Bytes of all files below a directory. A file that goes meanwhile is none.
pub fn bytes_below(directory: &std::path::Path) -> Result<u64> {
    let mut total = 0;
    let Ok(entries) = fs::read_dir(directory) else { return Ok(0) };
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", directory.display()))?;
        let Ok(metadata) = entry.metadata() else { continue };
        total += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}

fn entries(directory: &str) -> Result<u64> {
    Ok(fs::read_dir(directory).with_context(|| format!("list {directory}"))?.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told() {
        let pid = std::process::id();
        let threads_before = threads(pid).expect("readable");
        std::thread::scope(|scope| {
            let (stop, wait) = std::sync::mpsc::channel::<()>();
            let named = std::thread::Builder::new().name("usage-worker".to_owned());
            named
                .spawn_scoped(scope, move || {
                    while cpu_by_thread(pid).expect("readable").get("usage-worker").is_none_or(|spent| *spent < 1_000) {
                    }
                    // Until the test has looked.
                    let _ = wait.recv();
                })
                .expect("a thread");
            while cpu_by_thread(pid).expect("readable").get("usage-worker").is_none_or(|spent| *spent < 1_000) {
                std::thread::yield_now();
            }
            assert!(threads(pid).expect("readable") > threads_before);
            let all: u64 = cpu_by_thread(pid).expect("readable").values().sum();
            assert!(cpu_ns(pid).expect("readable") >= all, "processor time only grows while threads live");
            drop(stop);
        });
        let file = tempfile::NamedTempFile::new().expect("a file");
        let link = format!("/proc/{pid}/fd");
        let targets = fs::read_dir(link).expect("a list").filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        assert!(targets.into_iter().any(|target| target == file.path()));
        assert!(descriptors(pid).expect("readable") >= 4);
    }

    #[test]
    fn children_count_when_they_ended() {
        let before = children_cpu_ns().expect("readable");
        let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let status = std::process::Command::new("sh").args(["-c", script]).status().expect("a shell");
        assert!(status.success());
        let spent = children_cpu_ns().expect("readable") - before;
        assert!((10_000_000..600_000_000_000).contains(&spent), "{spent} ns");
    }

    #[test]
    fn files_below_count() {
        let home = tempfile::tempdir().expect("a directory");
        assert_eq!(bytes_below(home.path()).expect("readable"), 0);
        fs::create_dir(home.path().join("a")).expect("a directory");
        fs::write(home.path().join("a/b"), [0; 10]).expect("a file");
        fs::write(home.path().join("c"), [0; 5]).expect("a file");
        assert_eq!(bytes_below(home.path()).expect("readable"), 15);
        assert_eq!(bytes_below(&home.path().join("none")).expect("none"), 0);
    }
}
