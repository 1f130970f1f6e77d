//! Which privileges the container has, and what is said when one is missing.

use std::fs;

use anyhow::{Context, Result};
use system_tests::container::{Containerd, Manifest};
use system_tests::{Lab, Wire};

use super::running::wait_until_ready;

/// Bits of capability sets, `include/uapi/linux/capability.h`.
const BITS: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

fn status(pid: u32, key: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("read the agent's status")?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t")).context("no such line")?;
    Ok(value.to_owned())
}

/// As the kernel shows it: three capabilities and no way to a fourth, and the runtime's seccomp filter.
#[test]
fn the_container_has_three_capabilities_and_no_way_to_more() -> Result<()> {
    let lab = Lab::new(Wire::Loopback)?;
    let containerd = Containerd::start()?;
    let manifest = Manifest::shipped()?;
    let mut named: Vec<_> = manifest.capabilities.iter().map(String::as_str).collect();
    named.sort_unstable();
    assert_eq!(named, ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
    let task = containerd.start_task(&manifest, &lab.client)?;
    wait_until_ready(&task, &lab.client)?;

    let all = BITS.iter().fold(0_u64, |set, (_, bit)| set | 1 << bit);
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        let found = u64::from_str_radix(&status(task.pid(), set)?, 16)?;
        assert_eq!(found & !all, 0, "{set} has more than {all:x}: {found:x}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&status(task.pid(), set)?, 16)?, 0, "{set}");
    }
    assert_eq!(status(task.pid(), "NoNewPrivs")?, "1");
    assert_eq!(status(task.pid(), "Seccomp")?, "2", "a filter");
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
