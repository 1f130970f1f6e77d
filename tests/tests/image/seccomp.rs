//! The seccomp profile for those who want a narrower one than the runtime's: the agent works under it, and what the agent does
//! not do is refused.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::container::{Containerd, Manifest};
use system_tests::{Lab, Wire};

use super::running::works;

/// What nobody does here who means well: other processes, other file systems, modules, keys, other namespaces, other users.
const REFUSED: [&str; 24] = [
    "acct",
    "add_key",
    "chroot",
    "delete_module",
    "finit_module",
    "init_module",
    "io_uring_setup",
    "kexec_load",
    "keyctl",
    "mknod",
    "mknodat",
    "mount",
    "move_mount",
    "open_by_handle_at",
    "perf_event_open",
    "personality",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "reboot",
    "setuid",
    "unshare",
    "userfaultfd",
];

/// The system calls that a profile lets through, whatever their arguments.
fn allowed(profile: &Value) -> Result<Vec<&str>> {
    ensure!(profile["defaultAction"] == "SCMP_ACT_ERRNO", "what is not named is let through");
    let rules = profile["syscalls"].as_array().context("a profile without rules")?;
    let names = rules.iter().map(|rule| {
        ensure!(rule["action"] == "SCMP_ACT_ALLOW", "a rule that is tested nowhere: {rule}");
        rule["names"].as_array().with_context(|| format!("a rule without names: {rule}"))
    });
    let names = names.collect::<Result<Vec<_>>>()?.into_iter().flatten();
    names.map(|name| name.as_str().context("a name")).collect()
}

#[test]
fn the_profile_names_each_system_call_once_and_none_that_it_should_refuse() -> Result<()> {
    let profile = Manifest::profile()?;
    let mut names = allowed(&profile)?;
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "some are named twice");
    // The runtime's own lets some 350 through.
    ensure!((100..200).contains(&count), "{count} system calls");
    let wrong: Vec<_> = REFUSED.iter().filter(|name| names.contains(name)).collect();
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

#[test]
fn under_its_own_profile_the_agent_does_all_that_it_does_under_the_runtimes() -> Result<()> {
    works(&Manifest { seccomp: Some(Manifest::profile()?), ..Manifest::shipped()? })
}

/// So a profile given in this way holds.
#[test]
fn without_one_system_call_of_the_profile_it_says_so_and_ends() -> Result<()> {
    let lab = Lab::new(Wire::Loopback)?;
    let containerd = Containerd::start()?;
    let mut profile = Manifest::profile()?;
    for rule in profile["syscalls"].as_array_mut().context("rules")? {
        rule["names"].as_array_mut().context("names")?.retain(|name| name != "bpf");
    }
    profile["syscalls"].as_array_mut().context("rules")?.retain(|rule| rule["names"] != Value::Array(Vec::new()));
    let mut manifest = Manifest { seccomp: Some(profile), ..Manifest::shipped()? };
    // An agent that runs nevertheless must not run for ever.
    manifest.args.extend(["--duration", "20"].map(str::to_owned));
    let exit = containerd.run(&manifest, &lab.client)?;
    assert_eq!(exit.code, 3, "{}", exit.output);
    assert!(exit.output.contains("a seccomp profile or a security module refuses bpf(2)"), "{}", exit.output);
    Ok(())
}
