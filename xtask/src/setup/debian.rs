//! Packages of Debian (and its children), by apt.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::Need;
use crate::process::{self, Privilege};
use crate::toolchain;

/// A package list older than this is fetched anew before an installation: mirrors delete replaced versions.
const STALE_AFTER: Duration = Duration::from_hours(1);

/// How long apt waits for another apt, such as a machine's own first update.
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=300";

/// How to see that a package is there without asking dpkg, which is slow, and however it came.
enum Sign {
    /// A program in PATH.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

/// A package, and what for.
struct Package {
    name: &'static str,
    sign: Sign,
    need: Need,
    #[expect(dead_code, reason = "read by people: a package without a reason has no place here")]
    reason: &'static str,
}

const fn program(name: &'static str, program: &'static str, need: Need, reason: &'static str) -> Package {
    Package { name, sign: Sign::Program(program), need, reason }
}

const fn file(name: &'static str, file: &'static str, need: Need, reason: &'static str) -> Package {
    Package { name, sign: Sign::File(file), need, reason }
}

const PACKAGES: &[Package] = &[
    program("gcc", "cc", Need::Build, "cargo links with it"),
    file("libc6-dev", "/usr/include/stdlib.h", Need::Build, "what is linked with"),
    program("git", "git", Need::Build, "`tidy` asks it which files belong to the tree"),
    program("iproute2", "ip", Need::Test, "network namespaces and veth pairs of the tests"),
    program("nftables", "nft", Need::Test, "tests drop and refuse packets with it"),
    program("ethtool", "ethtool", Need::Test, "tests compare drivers' counters with it"),
    program("conntrack", "conntrack", Need::Test, "tests compare translated connections with it"),
    file("dnsmasq-base", "/usr/sbin/dnsmasq", Need::Test, "a name server that the tests ask"),
    program("bind9-dnsutils", "dig", Need::Test, "one of the clients that ask it"),
    file("e2fsprogs", "/usr/sbin/mkfs.ext4", Need::Test, "makes a disk that a test breaks"),
    program("curl", "curl", Need::Test, "one of the clients that the tests watch"),
    program("python3", "python3", Need::Test, "the AWS SDK and the AWS CLI, two more clients"),
    file("python3-venv", "/usr/share/doc/python3-venv", Need::Test, "keeps them apart from the machine's own Python"),
    program("valgrind", "valgrind", Need::Bench, "its callgrind counts instructions"),
    program("cpio", "cpio", Need::Vm, "packs the file system that they boot into"),
    program("kmod", "depmod", Need::Vm, "says which of their modules need which"),
    program("xz-utils", "xz", Need::Vm, "unpacks the modules"),
    program("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc", Need::VmArm64, "links the program for them"),
    file("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/include/stdlib.h", Need::VmArm64, "what is linked with"),
];

impl Package {
    fn is_present(&self) -> bool {
        match self.sign {
            Sign::Program(program) => process::find(program).is_some(),
            Sign::File(file) => Path::new(file).exists(),
        }
    }
}

fn absent(needs: &[Need]) -> Vec<&'static str> {
    PACKAGES
        .iter()
        .filter(|package| needs.contains(&package.need) && !package.is_present())
        .map(|package| package.name)
        .collect()
}

pub(super) fn missing(needs: &[Need]) -> Option<String> {
    let absent = absent(needs);
    (!absent.is_empty()).then(|| format!("packages {}", absent.join(" ")))
}

pub(super) fn install(needs: &[Need]) -> Result<()> {
    install_packages(&absent(needs))
}

/// Installs packages by name, or says which command would.
pub(super) fn install_packages(names: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get install --no-remove --no-install-recommends {}", names.join(" "));
    if process::find("apt-get").is_none() {
        bail!("this machine has no apt-get: install what corresponds to `{by_hand}`");
    }
    let privilege = Privilege::detect();
    let Some(mut install) = privilege.command("apt-get") else {
        bail!("installing packages needs root, and `sudo -n` does not work for this user: run `sudo {by_hand}`");
    };
    if lists_are_stale(Path::new("/var/lib/apt/lists"), SystemTime::now())
        && let Some(mut update) = privilege.command("apt-get")
    {
        // Third-party lists that cannot be reached must not stop what Debian's own lists can give.
        if let Err(error) = process::run(update.args(["-q", "-o", LOCK_TIMEOUT, "update"])) {
            eprintln!("setup: {error:#}; going on with the package lists that are there");
        }
    }
    // A machine's other packages are none of this project's business.
    install.args([
        "install",
        "-q",
        "-y",
        "--no-install-recommends",
        "--no-remove",
        "-o",
        LOCK_TIMEOUT,
        "-o",
        "Dpkg::Use-Pty=0",
    ]);
    install.args(names);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    process::run(&mut install)
        .with_context(|| format!("if the cure is not plain from the lines above, try `{by_hand}`"))
}

/// Whether the package lists are absent or old. An update changes the directory or, when all lists are new, `partial` in it.
fn lists_are_stale(lists: &Path, now: SystemTime) -> bool {
    let has_lists = fs::read_dir(lists)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages")));
    let updated = [lists.to_owned(), lists.join("partial")]
        .into_iter()
        .filter_map(|directory| fs::metadata(directory).and_then(|meta| meta.modified()).ok())
        .max();
    // A time in the future says nothing about the age.
    let age = updated.and_then(|updated| now.duration_since(updated).ok());
    !has_lists || age.is_none_or(|age| age > STALE_AFTER)
}

/// Packages that bpf-linker is built with.
pub(super) fn llvm_packages() -> [String; 2] {
    let major = toolchain::LLVM;
    [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev")]
}

/// Whether a package of that name can be had.
pub(super) fn is_available(name: &str) -> bool {
    process::capture(Command::new("apt-cache").args(["show", "--no-all-versions", name])).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_looked_for() {
        assert!(absent(&[]).is_empty());
        let vm_only = |name: &str| PACKAGES.iter().any(|package| package.name == name && package.need == Need::Vm);
        assert!(absent(&[Need::Vm]).into_iter().all(vm_only));
    }

    #[test]
    fn lists_are_stale_when_absent_or_old() {
        let lists = crate::workspace::target().join("tmp").join(format!("lists-{}", std::process::id()));
        fs::create_dir_all(lists.join("partial")).unwrap();
        assert!(lists_are_stale(&lists, SystemTime::now()), "there are none");
        fs::write(lists.join("deb.example_main_binary-amd64_Packages.lz4"), "").unwrap();
        let now = SystemTime::now();
        assert!(!lists_are_stale(&lists, now), "they are new");
        assert!(lists_are_stale(&lists, now + 2 * STALE_AFTER), "they are old");
        fs::remove_dir_all(lists).unwrap();
    }
}
