//! Packages of any architecture, unpacked into the user's cache.
//!
//! apt runs on a state of its own, in which nothing is installed: so packages come with all that they need, nothing of the
//! machine is replaced or removed, and no privilege is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// apt for one architecture, on a state of its own.
pub(crate) struct Apt {
    /// Debian's name of the architecture.
    arch: &'static str,
    /// Where packages are unpacked.
    cache: PathBuf,
    /// apt's own state.
    directory: PathBuf,
    /// What apt reads instead of the machine's sources.
    sources: Option<PathBuf>,
}

impl Apt {
    /// apt for an architecture by Debian's name, with the machine's sources, that unpacks into a directory.
    pub(crate) fn new(arch: &'static str, cache: PathBuf) -> Self {
        Self { arch, directory: cache.join("apt"), cache, sources: None }
    }

    /// With sources of its own, in the form of a line each.
    pub(crate) fn with_sources(mut self, lines: &str) -> Result<Self> {
        let path = self.directory.join("sources.list");
        fs::create_dir_all(&self.directory).with_context(|| format!("create {}", self.directory.display()))?;
        fs::write(&path, lines).with_context(|| format!("write {}", path.display()))?;
        self.sources = Some(path);
        Ok(self)
    }

    /// A directory of the cache; when it is missing, it is filled after an update of the package lists.
    pub(crate) fn cached(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let directory = self.cache.join(name);
        if !directory.is_dir() {
            eprintln!("downloading {name} for {} into {}", self.arch, self.cache.display());
            self.update()?;
            once(&directory, fill)?;
        }
        Ok(directory)
    }

    /// Packages with all that they need, unpacked into a directory of the cache.
    pub(crate) fn with_needs(&self, name: &str, packages: &[&str]) -> Result<PathBuf> {
        self.cached(name, |directory| self.unpack_with_needs(packages, directory))
    }

    fn command(&self, program: &str) -> Result<Command> {
        let archives = self.directory.join("cache/archives/partial");
        let lists = self.directory.join("state/lists/partial");
        for directory in [&archives, &lists] {
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        let status = self.directory.join("status");
        fs::write(&status, "").with_context(|| format!("write {}", status.display()))?;

        let mut command = Command::new(
            process::find(program)
                .with_context(|| format!("{program} is not installed: this needs Debian's packages"))?,
        );
        command.arg("-q");
        for (option, value) in [
            ("Dir::State", self.directory.join("state")),
            ("Dir::State::status", status),
            ("Dir::Cache", self.directory.join("cache")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        let arch = self.arch;
        command.args(["-o", &format!("APT::Architecture={arch}"), "-o", &format!("APT::Architectures={arch}")]);
        if let Some(sources) = &self.sources {
            command.arg("-o").arg(format!("Dir::Etc::sourcelist={}", sources.display()));
            command.args(["-o", "Dir::Etc::sourceparts=-"]);
        }
        // apt's own user may not look into a home directory; and nothing here needs a lock that others hold.
        command.args(["-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1", "-o", "Acquire::Languages=none"]);
        Ok(command)
    }

    /// Fetches the package lists.
    pub(crate) fn update(&self) -> Result<()> {
        // A third party's list that has nothing for this architecture is no reason to stop; a missing package is one, later.
        if let Err(error) = process::capture(self.command("apt-get")?.arg("update")) {
            eprintln!("{error:#}; going on with the package lists that came");
        }
        Ok(())
    }

    /// Names of packages with a prefix, a line each.
    pub(crate) fn names(&self, prefix: &str) -> Result<String> {
        process::capture(self.command("apt-cache")?.args(["pkgnames", prefix]))
    }

    /// What the package lists say of the version of a package that would be installed.
    pub(crate) fn control(&self, package: &str) -> Result<String> {
        let shown = process::capture(self.command("apt-cache")?.args(["show", "--no-all-versions", package]));
        shown.with_context(|| format!("the package lists for {} hold no {package}", self.arch))
    }

    /// Unpacks packages without what they need.
    pub(crate) fn unpack(&self, packages: &[&str], into: &Path) -> Result<()> {
        self.downloaded(&["download"], packages, |downloads| unpack_all(downloads, into))
    }

    /// Unpacks a source package as its authors released it, without Debian's changes. The archive holds one directory,
    /// whose path is the answer.
    pub(crate) fn unpack_source(&self, package: &str, into: &Path) -> Result<PathBuf> {
        self.downloaded(&["source", "--download-only"], &[package], |downloads| {
            let archive = entries(downloads)?
                .into_iter()
                .find(|path| path.to_string_lossy().contains(".orig.tar."))
                .with_context(|| format!("the source package {package} has no archive of its authors"))?;
            process::capture(Command::new(program("tar")?).arg("-xf").arg(&archive).arg("-C").arg(into))?;
            let unpacked = entries(into)?;
            match unpacked.as_slice() {
                [directory] => Ok(directory.clone()),
                _ => bail!("{} unpacks to {} things, not to one directory", archive.display(), unpacked.len()),
            }
        })
    }

    /// Has apt-get download something, and works on the directory in which it then lies.
    fn downloaded<T>(
        &self,
        subcommand: &[&str],
        packages: &[&str],
        work: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let downloads = self.directory.join("downloads");
        // Whatever an earlier run left is not what is asked for now.
        let _ = fs::remove_dir_all(&downloads);
        fs::create_dir_all(&downloads).with_context(|| format!("create {}", downloads.display()))?;
        process::capture(self.command("apt-get")?.args(subcommand).args(packages).current_dir(&downloads))?;
        let result = work(&downloads)?;
        fs::remove_dir_all(&downloads).with_context(|| format!("remove {}", downloads.display()))?;
        Ok(result)
    }

    /// Unpacks packages with all that they need.
    fn unpack_with_needs(&self, packages: &[&str], into: &Path) -> Result<()> {
        let archives = self.directory.join("cache/archives");
        // What was downloaded for something else would be unpacked along.
        let _ = fs::remove_dir_all(&archives);
        let mut command = self.command("apt-get")?;
        command.args(["install", "--download-only", "--yes", "--no-install-recommends"]).args(packages);
        process::capture(&mut command)?;
        unpack_all(&archives, into)?;
        fs::remove_dir_all(&archives).with_context(|| format!("remove {}", archives.display()))
    }
}

/// Unpacks every package of a directory.
fn unpack_all(packages: &Path, into: &Path) -> Result<()> {
    let mut count = 0_usize;
    for path in entries(packages)? {
        if path.extension().is_some_and(|extension| extension == "deb") {
            process::capture(Command::new(program("dpkg-deb")?).arg("-x").arg(&path).arg(into))?;
            count += 1;
        }
    }
    if count == 0 {
        bail!("apt downloaded no package into {}", packages.display());
    }
    merge_usr(into)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let listed = || format!("list {}", directory.display());
    let entries = fs::read_dir(directory).with_context(listed)?;
    entries.map(|entry| Ok(entry.with_context(listed)?.path())).collect()
}

/// Makes the links that an installed system has from / into /usr, where a package counts on them.
fn merge_usr(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let (link, target) = (root.join(name), root.join("usr").join(name));
        if target.is_dir() && !link.exists() {
            std::os::unix::fs::symlink(format!("usr/{name}"), &link)
                .with_context(|| format!("link {}", link.display()))?;
        }
    }
    Ok(())
}

/// Fills a directory so that it is there whole or not at all.
pub(crate) fn once(directory: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut unfinished = directory.to_owned().into_os_string();
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    fs::create_dir_all(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
    let filled = fill(&unfinished).and_then(|()| match fs::rename(&unfinished, directory) {
        // Another run was faster.
        Err(_) if directory.is_dir() => Ok(()),
        renamed => renamed.with_context(|| format!("put {} into place", directory.display())),
    });
    // What is left after a failure, or of the slower run, lies in a cache; the error to tell is the first.
    let _ = fs::remove_dir_all(&unfinished);
    filled
}

/// A program that `setup` sees to.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    process::find(name).with_context(|| format!("{name} is not installed: run `cargo xtask setup`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn a_directory_that_could_not_be_filled_is_not_there() {
        let directory = workspace::target().join("tmp").join(format!("once-{}", std::process::id()));
        assert!(once(&directory, |_| bail!("no")).is_err());
        assert!(!directory.exists());
        once(&directory, |path| Ok(fs::write(path.join("a"), "b")?)).unwrap();
        assert_eq!(fs::read_to_string(directory.join("a")).unwrap(), "b");
        once(&directory, |path| Ok(fs::write(path.join("a"), "slower")?)).unwrap();
        assert_eq!(fs::read_to_string(directory.join("a")).unwrap(), "b");
        fs::remove_dir_all(directory).unwrap();
    }
}
