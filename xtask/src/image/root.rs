//! The root file system: the program, the libraries that it asks for, certificates, who is who, and licences. No shell, no
//! package manager, nothing else that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::elf;
use super::packages::Package;
use crate::workspace;

/// Where the program lies, and the only program that there is.
pub(super) const PROGRAM: &str = "usr/bin/sekisho";

/// Whom the image is run by unless somebody says otherwise: offline commands need no more. The manifests say root, because
/// capabilities are given to root alone.
pub(super) const USER: &str = "65532:65532";

/// Files that are written here. `nsswitch.conf` says what the C library would do without it, for those who look for it.
const WRITTEN: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0:root:/:/usr/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/usr/sbin/nologin\n"),
    ("etc/group", "root:x:0:\nnonroot:x:65532:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

/// Links from where programs look to where files lie.
const LINKS: [(&str, &str); 3] =
    [("lib", "usr/lib"), ("lib64", "usr/lib64"), ("etc/os-release", "../usr/lib/os-release")];

/// Licences to which the packages' own texts refer.
const LICENCES: [&str; 4] = ["GPL-2", "GPL-3", "LGPL-2.1", "MPL-2.0"];

/// One entry of a file system; its owner is root, its time that of the sources.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A directory with its mode.
    Directory(u32),
    /// A file with its mode and content.
    File(u32, Vec<u8>),
    /// A symbolic link and where it leads.
    Link(String),
}

/// Entries by path, without a `/` in front; a directory stands before what is in it.
pub(super) type Tree = BTreeMap<String, Entry>;

/// The file system in layers: what changes seldom, and the program.
pub(super) struct Root {
    /// What is Debian's.
    pub(super) base: Tree,
    /// What is this project's.
    pub(super) program: Tree,
}

/// Makes it.
pub(super) fn of(packages: &[Package], program: &[u8]) -> Result<Root> {
    let mut base = Tree::new();
    for (path, text) in WRITTEN {
        put(&mut base, path, Entry::File(0o644, text.into()));
    }
    for (path, target) in LINKS {
        put(&mut base, path, Entry::Link(target.to_owned()));
    }
    // SQLite and copies of a history need a place where anybody may write, if the runtime gives one.
    put(&mut base, "tmp", Entry::Directory(0o1777));
    for package in packages {
        let path = format!("var/lib/dpkg/status.d/{}", package.name);
        put(&mut base, &path, Entry::File(0o644, package.control.clone().into()));
        let licence = format!("usr/share/doc/{}/copyright", package.name);
        if let Ok(text) = fs::read(package.directory.join(&licence)) {
            put(&mut base, &licence, Entry::File(0o644, text));
        }
    }
    put(&mut base, "usr/lib/os-release", Entry::File(0o644, read(packages, "usr/lib/os-release")?));
    for licence in LICENCES {
        let path = format!("usr/share/common-licenses/{licence}");
        let text = read(packages, &path)?;
        put(&mut base, &path, Entry::File(0o644, text));
    }
    put(&mut base, "etc/ssl/certs/ca-certificates.crt", Entry::File(0o644, certificates(packages)?));
    libraries(&mut base, packages, program)?;

    let mut own = Tree::new();
    put(&mut own, PROGRAM, Entry::File(0o755, program.to_vec()));
    let licence = workspace::root().join("LICENSE");
    let text = fs::read(&licence).with_context(|| format!("read {}", licence.display()))?;
    put(&mut own, "usr/share/doc/sekisho/LICENSE", Entry::File(0o644, text));
    Ok(Root { base, program: own })
}

/// Writes it into a directory that is not there yet.
pub(super) fn write(root: &Root, directory: &Path) -> Result<()> {
    ensure!(!directory.exists(), "{} is there already: name a directory that is not", directory.display());
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    for (path, entry) in root.base.iter().chain(&root.program) {
        let path = directory.join(path);
        let written = match entry {
            Entry::Directory(_) if path.is_dir() => Ok(()),
            Entry::Directory(mode) => {
                fs::create_dir(&path).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(*mode)))
            }
            Entry::File(mode, content) => {
                fs::write(&path, content).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(*mode)))
            }
            Entry::Link(target) => symlink(target, &path),
        };
        written.with_context(|| format!("make {}", path.display()))?;
    }
    Ok(())
}

/// Puts an entry in, and the directories that it lies in.
fn put(tree: &mut Tree, path: &str, entry: Entry) {
    for (at, _) in path.match_indices('/') {
        tree.entry(path[..at].to_owned()).or_insert(Entry::Directory(0o755));
    }
    tree.insert(path.to_owned(), entry);
}

/// A file of one of the packages, wherever they keep it: newer releases have `/usr/lib` alone, older ones `/lib` too.
fn find(packages: &[Package], path: &str) -> Option<PathBuf> {
    let path = path.trim_start_matches('/');
    let other = path.strip_prefix("usr/").map_or_else(|| format!("usr/{path}"), str::to_owned);
    packages
        .iter()
        .flat_map(|package| [path, &other].map(|path| package.directory.join(path)))
        .find(|path| path.is_file())
}

fn read(packages: &[Package], path: &str) -> Result<Vec<u8>> {
    let found = find(packages, path).with_context(|| format!("no package has the file {path}"))?;
    fs::read(&found).with_context(|| format!("read {}", found.display()))
}

/// All certificates in one file, as Debian's own script makes it, in the order of their names.
fn certificates(packages: &[Package]) -> Result<Vec<u8>> {
    let mut files = BTreeSet::new();
    for package in packages {
        let directory = package.directory.join("usr/share/ca-certificates/mozilla");
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            files.insert(entry.with_context(|| format!("list {}", directory.display()))?.path());
        }
    }
    ensure!(!files.is_empty(), "no package has certificates");
    let mut all = Vec::new();
    for file in files {
        let certificate = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        all.extend_from_slice(certificate.trim_ascii_end());
        all.push(b'\n');
    }
    Ok(all)
}

/// The loader and all libraries that the program asks for, and those that these ask for.
fn libraries(tree: &mut Tree, packages: &[Package], program: &[u8]) -> Result<()> {
    let directory = workspace::target().join("image").join("tmp");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let copy = directory.join(format!("needs-{}", std::process::id()));
    fs::write(&copy, program).with_context(|| format!("write {}", copy.display()))?;
    let needs = elf::needs(&copy);
    fs::remove_file(&copy).with_context(|| format!("remove {}", copy.display()))?;
    let needs = needs?;

    let Some(loader) = &needs.loader else { bail!("the program names no loader: it is no program of this build") };
    let libc = packages.iter().find(|package| package.name == "libc6").context("libc6 is not among the packages")?;
    ensure!(
        needs.glibc <= elf::version(&libc.version),
        "the program was linked with a newer C library than libc6 {} (it asks for {:?}): build it on the release of Debian \
         that apt's sources name",
        libc.version,
        needs.glibc
    );
    let loader_name = loader.rsplit('/').next().unwrap_or(loader);
    put(tree, &format!("usr{loader}"), Entry::File(0o755, read(packages, loader)?));

    let triple = if loader.contains("aarch64") { "aarch64-linux-gnu" } else { "x86_64-linux-gnu" };
    let mut wanted = needs.libraries;
    let mut done = BTreeSet::from([loader_name.to_owned()]);
    while let Some(name) = wanted.pop() {
        if !done.insert(name.clone()) {
            continue;
        }
        let path = format!("usr/lib/{triple}/{name}");
        let Some(file) = find(packages, &path) else {
            bail!("{name} is asked for and in none of the packages: the image would not start")
        };
        wanted.extend(elf::needs(&file)?.libraries);
        let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        put(tree, &path, Entry::File(0o644, content));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stands_before_what_is_in_it() {
        let mut tree = Tree::new();
        put(&mut tree, "a/b/c", Entry::Link("d".to_owned()));
        put(&mut tree, "a/b", Entry::Directory(0o1777));
        put(&mut tree, "a/b/e", Entry::Link("d".to_owned()));
        assert_eq!(tree.keys().collect::<Vec<_>>(), ["a", "a/b", "a/b/c", "a/b/e"]);
        assert!(matches!(tree["a/b"], Entry::Directory(0o1777)), "what was said of a directory stays");
    }
}
