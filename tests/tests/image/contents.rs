//! What is in the image.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use system_tests::Lab;
use system_tests::Wire;
use system_tests::container::{Containerd, Manifest};

/// Everything below a directory that is no directory, by its path from there.
pub(super) fn files(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            } else {
                found.insert(entry.path().strip_prefix(root)?.to_owned());
            }
        }
    }
    Ok(found)
}

/// The program and its loader may be executed, and nothing else: no shell, no package manager, nothing that becomes root.
#[test]
fn nothing_in_the_image_runs_but_the_program() -> Result<()> {
    let lab = Lab::new(Wire::Loopback)?;
    let containerd = Containerd::start()?;
    let mut manifest = Manifest::shipped()?;
    manifest.args = ["sekisho", "explain", "sgp-stale"].map(str::to_owned).to_vec();
    let task = containerd.start_task(&manifest, &lab.client)?;
    let files = files(task.root())?;
    let mut programs = Vec::new();
    for file in &files {
        let meta = fs::symlink_metadata(task.root().join(file))?;
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{}", file.display());
        assert_eq!(meta.permissions().mode() & 0o6000, 0, "{}", file.display());
        if meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
            programs.push(file.display().to_string());
        }
    }
    let [program, loader] = programs.as_slice() else { panic!("{programs:?}") };
    assert_eq!(program, "usr/bin/sekisho");
    assert!(loader.contains("/ld-linux-"), "{loader}");
    let passwd = fs::read_to_string(task.root().join("etc/passwd"))?;
    assert!(passwd.contains("\nnonroot:x:65532:65532:"), "{passwd}");
    assert_eq!(containerd.image(), "docker.io/library/sekisho:0.1.0", "what the kubelet makes of the manifest's name");
    Ok(())
}

/// Commands that need no kernel work in it: names, help, time, certificates and the C library are there.
#[test]
fn offline_commands_run_without_any_capability() -> Result<()> {
    let lab = Lab::new(Wire::Loopback)?;
    let containerd = Containerd::start()?;
    let mut manifest = Manifest::shipped()?;
    manifest.capabilities.clear();
    (manifest.user, manifest.group) = (65532, 65532);
    manifest.args =
        ["sekisho", "capacity", "plan", "--instance-type", "m5.large", "--pods", "20"].map(str::to_owned).to_vec();
    let exit = containerd.run(&manifest, &lab.client)?;
    assert_eq!(exit.code, 0, "{}", exit.output);
    assert!(exit.output.contains("m5.large"), "{}", exit.output);
    Ok(())
}
