//! Which privileges the container has, and what is said when one is missing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use system_tests::container::{Containerd, Manifest};
use system_tests::{Lab, Wire};

use super::running::wait_until_ready;

/// Bits of capability sets, `include/uapi/linux/capability.h`.
const BITS: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

fn status_of(task: &Path, key: &str) -> Result<String> {
    let text = fs::read_to_string(task.join("status")).context("read the status of a thread")?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t")).context("no such line")?;
    Ok(value.to_owned())
}

/// A line of every thread's status.
fn of_all_threads(pid: u32, key: &str) -> Result<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("list the agent's threads")?;
    tasks.map(|task| status_of(&task?.path(), key)).collect()
}

/// First of Linux' releases on which `bpf(2)` on what is held needs no capability.
fn bpf_is_free() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        bail!("the release is {release}")
    };
    Ok((major, minor) >= (5, 19))
}

/// As the kernel shows it: three capabilities and no way to a fourth, and the runtime's seccomp filter. Once the probes are
/// attached, no thread has what only loading needs; the test of traffic shows that the rest suffices.
#[test]
fn three_capabilities_are_given_and_one_is_left_when_the_probes_are_attached() -> Result<()> {
    let lab = Lab::new(Wire::Loopback)?;
    let containerd = Containerd::start()?;
    let manifest = Manifest::shipped()?;
    let mut named: Vec<_> = manifest.capabilities.iter().map(String::as_str).collect();
    named.sort_unstable();
    assert_eq!(named, ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
    let task = containerd.start_task(&manifest, &lab.client)?;
    wait_until_ready(&task, &lab.client)?;

    let all = BITS.iter().fold(0_u64, |set, (_, bit)| set | 1 << bit);
    let left = BITS.iter().filter(|(name, _)| match *name {
        "CAP_PERFMON" => false,
        "CAP_BPF" => !bpf_is_free().unwrap_or(true),
        _ => true,
    });
    let (left, names): (Vec<_>, Vec<_>) = left.map(|(name, bit)| (1_u64 << bit, *name)).unzip();
    let left = left.iter().sum::<u64>();
    for (key, expected) in [("CapBnd", all), ("CapPrm", left), ("CapEff", left), ("CapInh", 0), ("CapAmb", 0)] {
        for set in of_all_threads(task.pid(), key)? {
            assert_eq!(u64::from_str_radix(&set, 16)?, expected, "{key} of a thread is {set}");
        }
    }
    for (key, expected) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        assert!(of_all_threads(task.pid(), key)?.iter().all(|value| value == expected), "{key}");
    }
    let doctor = task.exec(&["sekisho", "doctor", "-o", "json"])?;
    let doctor: serde_json::Value = serde_json::from_slice(&doctor.stdout).with_context(|| format!("{doctor:?}"))?;
    let check = doctor["checks"].as_array().into_iter().flatten().find(|check| check["name"] == "privileges");
    let check = check.with_context(|| format!("doctor does not tell what is held: {doctor}"))?;
    let text = check["text"].as_str().unwrap_or_default();
    assert!(check["state"] == "ok" && text.ends_with(&names.join(", ")), "{check}");
    Ok(())
}

/// Without BPF the runtime's filter refuses `bpf(2)` too.
#[test]
fn without_one_capability_it_says_which_and_ends() -> Result<()> {
    let lab = Lab::new(Wire::Loopback)?;
    let containerd = Containerd::start()?;
    for (missing, _) in BITS {
        let mut manifest = Manifest::shipped()?;
        manifest.capabilities.retain(|name| name != missing);
        // An agent that runs nevertheless must not run for ever.
        manifest.args.extend(["--duration", "20"].map(str::to_owned));
        let exit = containerd.run(&manifest, &lab.client)?;
        assert_eq!(exit.code, 3, "without {missing}: {}", exit.output);
        assert!(exit.output.contains(&format!("missing {missing}: ")), "without {missing}: {}", exit.output);
        for (other, _) in BITS.iter().filter(|(name, _)| *name != missing) {
            assert!(!exit.output.contains(other), "without {missing}: {}", exit.output);
        }

        manifest.args = ["sekisho", "doctor", "-o", "json"].map(str::to_owned).to_vec();
        let doctor = containerd.run(&manifest, &lab.client)?;
        assert_eq!(doctor.code, 3, "without {missing}: {}", doctor.output);
        let found: serde_json::Value = serde_json::from_str(doctor.output.trim())?;
        let check = found["checks"].as_array().into_iter().flatten().find(|check| check["name"] == "capabilities");
        let check = check.with_context(|| format!("no check of capabilities: {found}"))?;
        assert_eq!(check["state"], "missing", "{check}");
        assert!(check["text"].as_str().is_some_and(|text| text.contains(missing)), "{check}");
        assert!(check["cure"].is_string(), "{check}");
    }
    Ok(())
}
