//! The packages of Debian that the image is made of, each unpacked into the user's cache under its version.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::apt::{self, Apt};
use crate::vm::Arch;
use crate::workspace;

/// Packages of which the image holds something, with their licences as SPDX names them. The texts stand in the image.
const PACKAGES: [(&str, &str); 4] = [
    // The library and the loader.
    ("libc6", "LGPL-2.1-or-later AND GPL-2.0-only AND BSD-3-Clause"),
    // Unwinds the stack of a panic.
    ("libgcc-s1", "GPL-3.0-or-later WITH GCC-exception-3.1"),
    // Whom the agent believes that it talks to AWS.
    ("ca-certificates", "MPL-2.0 AND GPL-2.0-or-later"),
    // Says which release this is, for those who look for known faults; texts of licences.
    ("base-files", "GPL-2.0-or-later"),
];

/// Holds the licence of `libgcc-s1`; its name has the compiler's version in it.
const GCC_BASE: (&str, &str) = ("gcc-", "-base");

/// Lists of packages older than this are fetched anew, for what was mended since.
const STALE_AFTER: Duration = Duration::from_hours(24);

/// An unpacked package.
#[derive(Debug)]
pub(super) struct Package {
    /// Its name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: String,
    /// `amd64`, `arm64` or `all`.
    pub(super) architecture: String,
    /// SPDX expression.
    pub(super) licence: &'static str,
    /// SHA-256 of the package's file, in hexadecimal digits.
    pub(super) sha256: String,
    /// What it says of itself, in the form of dpkg's database.
    pub(super) control: String,
    /// Its files.
    pub(super) directory: PathBuf,
}

/// All that the image needs for an architecture, in the order of their names.
pub(super) fn fetch(arch: Arch) -> Result<Vec<Package>> {
    let cache = workspace::cache()?.join("image").join(arch.debian());
    let apt = Apt::new(arch.debian(), cache.clone());
    update(&apt, &cache.join("updated"))?;
    let mut packages = Vec::new();
    for (name, licence) in PACKAGES {
        packages.push(unpacked(&apt, &cache, name, licence)?);
    }
    let depends =
        packages.iter().filter_map(|package| field(&package.control, "Depends")).collect::<Vec<_>>().join(", ");
    let base = depends
        .split(", ")
        .filter_map(|dependency| dependency.split(' ').next())
        .find(|name| name.starts_with(GCC_BASE.0) && name.ends_with(GCC_BASE.1))
        .context("libgcc-s1 names no package with its licence")?;
    packages.push(unpacked(&apt, &cache, base, "GPL-3.0-or-later WITH GCC-exception-3.1")?);
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

/// Fetches lists that are missing or old. What cannot be reached does not stop what is there.
fn update(apt: &Apt, stamp: &Path) -> Result<()> {
    let updated = fs::metadata(stamp).and_then(|meta| meta.modified()).ok();
    let age = updated.and_then(|updated| SystemTime::now().duration_since(updated).ok());
    if age.is_none_or(|age| age > STALE_AFTER) {
        apt.update()?;
        fs::write(stamp, "").with_context(|| format!("write {}", stamp.display()))?;
    }
    Ok(())
}

fn unpacked(apt: &Apt, cache: &Path, name: &str, licence: &'static str) -> Result<Package> {
    let control = apt.control(name)?;
    let wanted = |key: &str| {
        let value = field(&control, key).with_context(|| format!("the package {name} has no field {key}"))?;
        Ok::<_, anyhow::Error>(value.to_owned())
    };
    let (version, architecture, sha256) = (wanted("Version")?, wanted("Architecture")?, wanted("SHA256")?);
    let directory = cache.join(format!("{name}_{version}"));
    if !directory.is_dir() {
        eprintln!("downloading {name} {version} for {architecture} into {}", cache.display());
        apt::once(&directory, |into| apt.unpack(&[&format!("{name}={version}")], into))?;
    }
    let control = installed(&control);
    Ok(Package { name: name.to_owned(), version, architecture, licence, sha256, control, directory })
}

/// The value of a field's first line.
fn field<'a>(control: &'a str, key: &str) -> Option<&'a str> {
    control.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
}

/// A package's paragraph as dpkg keeps it of an installed one: without what only a list of packages says.
fn installed(control: &str) -> String {
    const OF_THE_LIST: [&str; 8] = ["Filename", "Size", "MD5sum", "SHA1", "SHA256", "SHA512", "Description-md5", "Tag"];
    let mut text = String::new();
    let mut keeps = true;
    for line in control.lines() {
        if !line.starts_with(' ') {
            let key = line.split(':').next().unwrap_or_default();
            keeps = !line.is_empty() && !OF_THE_LIST.contains(&key);
            if key == "Package" {
                // Writing to a string does not fail.
                let _ = write!(text, "{line}\nStatus: install ok installed\n");
                continue;
            }
        }
        if keeps {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_as_dpkg_keeps_it() {
        let listed = "Package: libc6\nVersion: 2.36-9\nDepends: libgcc-s1, gcc-12-base (= 12)\nFilename: pool/a.deb\n\
                      Description: GNU C Library\n more of it\nSHA256: 00\nTag: one,\n two\n\n";
        assert_eq!(field(listed, "Version"), Some("2.36-9"));
        assert_eq!(field(listed, "Ver"), None);
        assert_eq!(
            installed(listed),
            "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\nDepends: libgcc-s1, gcc-12-base (= 12)\n\
             Description: GNU C Library\n more of it\n"
        );
    }
}
