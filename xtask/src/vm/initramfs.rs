//! The file system that a machine boots into: a shell, the C library, the kernel's modules, the programs of this workspace,
//! and a first process that mounts what a node has, runs the tests and powers off.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use super::modules;
use super::programs::Programs;
use crate::process;

/// Printed right before the tests.
pub(super) const STARTED: &str = "sekisho-vm: tests start";
/// Printed after the tests, followed by their exit code.
pub(super) const RESULT: &str = "sekisho-vm: tests ended with ";

/// Where the modules lie in the machine.
const MODULES: &str = "/lib/modules";

/// What a package brings that no program reads.
const SUPERFLUOUS: [&str; 4] =
    ["usr/share", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/aarch64-linux-gnu/gconv", "etc"];

/// First process, up to the tests. The mounts are those of a node; cgroup2 alone, as on one.
const INIT_HEAD: &str = r#"#!/bin/busybox sh
end() {
    # A first process that ends would be a panic that hides the cause. The serial line is slower than the power switch.
    echo "$RESULT$1"
    sleep 1
    poweroff -f
}
export PATH=/bin HOME=/root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /dev/shm /var/lib
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done
ip link set lo up
hostname sekisho-vm
ulimit -n 65536
"#;

/// Assembles and packs the file system under `directory`; returns the archive.
pub(super) fn pack(directory: &Path, kernel: &Kernel, programs: &Programs, filter: &[String]) -> Result<PathBuf> {
    let root = directory.join("root");
    remove(directory)?;
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    process::capture(Command::new("cp").args(["-a", "--"]).arg(kernel.userland.join(".")).arg(&root))?;
    for path in SUPERFLUOUS {
        let path = root.join(path);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    for path in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var"] {
        fs::create_dir_all(root.join(path)).with_context(|| format!("create /{path}"))?;
    }

    let modules = copy_modules(kernel, &root)?;
    let mut helpers = Vec::new();
    copy(&programs.sekisho, &root.join("bin/sekisho"))?;
    copy(&programs.tests, &root.join("bin/kernel-tests"))?;
    for (name, path) in &programs.helpers {
        copy(path, &root.join("bin").join(name))?;
        link_where_it_was_built(&root, name, path)?;
        helpers.push(name.as_str());
    }
    let init = root.join("init");
    fs::write(&init, self::init(&modules, &helpers, filter)).with_context(|| format!("write {}", init.display()))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).context("make init executable")?;

    let archive = directory.join("initramfs");
    archive_all(&root, &archive)?;
    Ok(archive)
}

/// Removes what [`pack`] made.
pub(super) fn remove(directory: &Path) -> Result<()> {
    let root = directory.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    let archive = directory.join("initramfs");
    if archive.exists() {
        fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
    }
    Ok(())
}

/// The first process: loads modules, runs the tests with the names of the helpers in their environment.
fn init(modules: &[String], helpers: &[&str], filter: &[String]) -> String {
    let mut text = INIT_HEAD.replace("$RESULT", RESULT);
    for module in modules {
        let _ = writeln!(text, "insmod {MODULES}/{module} || end 'no module {module}'");
    }
    text.push_str("export SEKISHO_VM=1 SEKISHO_BIN=/bin/sekisho\n");
    for helper in helpers {
        let variable = helper.to_ascii_uppercase().replace('-', "_");
        let _ = writeln!(text, "export SEKISHO_{variable}=/bin/{helper}");
    }
    let _ = writeln!(text, "echo '{STARTED}'");
    let _ = write!(text, "/bin/kernel-tests --test-threads=1");
    for word in filter {
        let _ = write!(text, " {}", quoted(word));
    }
    let _ = writeln!(text);
    text.push_str("end $?\n");
    text
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Copies the wanted modules, unpacked, and returns their file names in load order.
fn copy_modules(kernel: &Kernel, root: &Path) -> Result<Vec<String>> {
    let read = |name: &str| {
        let path = kernel.modules.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let target = root.join(MODULES.trim_start_matches('/'));
    fs::create_dir_all(&target).with_context(|| format!("create {}", target.display()))?;
    let mut names = Vec::new();
    for module in modules::load_order(&modules::WANTED, &read("modules.dep")?, &read("modules.builtin")?)? {
        let from = kernel.modules.join(&module);
        let file = from.file_name().and_then(|name| name.to_str()).context("a module has no name")?;
        let name = file.trim_end_matches(".xz").to_owned();
        if file == name {
            copy(&from, &target.join(&name))?;
        } else {
            let unpacked = File::create(target.join(&name)).with_context(|| format!("create {name}"))?;
            let status = Command::new("xz").args(["--decompress", "--stdout"]).arg(&from).stdout(unpacked).status();
            if !status.context("run xz")?.success() {
                bail!("xz could not unpack {}", from.display());
            }
        }
        names.push(name);
    }
    Ok(names)
}

/// Tests may know a helper by the path it was built at (`CARGO_BIN_EXE_…`).
fn link_where_it_was_built(root: &Path, name: &str, built: &Path) -> Result<()> {
    let link = root.join(built.strip_prefix("/").context("cargo named a relative path")?);
    if let Some(parent) = link.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    symlink(format!("/bin/{name}"), &link).with_context(|| format!("link {}", link.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

/// Packs a directory into the archive format that the kernel unpacks, owned by root. Not compressed: the emulated CPU
/// takes longer to unpack than the memory is worth.
fn archive_all(root: &Path, archive: &Path) -> Result<()> {
    let output = File::create(archive).with_context(|| format!("create {}", archive.display()))?;
    let mut cpio = Command::new("cpio")
        .args(["--quiet", "--create", "--null", "--format=newc", "--owner=0:0"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(output)
        .spawn()
        .context("run cpio")?;
    let mut names = Vec::new();
    list(root, Path::new("."), &mut names)?;
    if let Some(mut input) = cpio.stdin.take() {
        input.write_all(&names).context("name the files to cpio")?;
    }
    let status = cpio.wait().context("wait for cpio")?;
    if !status.success() {
        bail!("cpio failed: {status}");
    }
    Ok(())
}

/// Names below a directory, each ended by a zero byte, directories before what is in them.
fn list(root: &Path, below: &Path, names: &mut Vec<u8>) -> Result<()> {
    let directory = root.join(below);
    for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        names.extend_from_slice(path.as_os_str().as_encoded_bytes());
        names.push(0);
        if entry.file_type()?.is_dir() {
            list(root, &path, names)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_is_a_valid_script() {
        let text = init(&["veth.ko".to_owned()], &["actor"], &["it's".to_owned()]);
        assert!(text.contains("insmod /lib/modules/veth.ko || end "), "{text}");
        assert!(text.contains("export SEKISHO_ACTOR=/bin/actor\n"), "{text}");
        assert!(text.contains(r"kernel-tests --test-threads=1 'it'\''s'"), "{text}");
        let status = Command::new("sh").args(["-n", "-c", &text]).status().unwrap();
        assert!(status.success());
    }
}
