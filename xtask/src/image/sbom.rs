//! The bill of materials: what is in an image, with versions, licences and checksums, as `CycloneDX` 1.6
//! (<https://cyclonedx.org/docs/1.6/json/>).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::layout::DESCRIPTION;
use super::packages::Package;
use super::source::Source;
use crate::vm::Arch;
use crate::{process, workspace};

/// The library of the compiler, which is in every program.
const STANDARD_LIBRARY: (&str, &str) = ("rust-std", "MIT OR Apache-2.0");

/// A crate with the source of a library in C inside it, the header and line that tell the library's version, and its licence.
/// In the words of its authors it is dedicated to the public domain, for which SPDX has `blessing`.
const SQLITE: (&str, &str, &str, &str) = ("libsqlite3-sys", "sqlite3/sqlite3.h", "#define SQLITE_VERSION", "blessing");

/// What the probes are built for; their object is a part of the program.
const PROBES_TARGET: &str = "bpfel-unknown-none";

/// A crate that is linked in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    licence: String,
}

/// Makes it for an architecture.
pub(super) fn of(arch: Arch, packages: &[Package], source: &Source) -> Result<Vec<u8>> {
    let checksums = checksums(&read(&workspace::root().join("Cargo.lock"))?)?;
    let mut crates = linked("sekisho", &format!("{}-unknown-linux-gnu", arch.rust()))?;
    crates.extend(linked("agent-ebpf", PROBES_TARGET)?);

    let mut components: Vec<Value> = packages.iter().map(debian).collect();
    components.push(library(STANDARD_LIBRARY.0, &compiler()?, STANDARD_LIBRARY.1));
    components.push(library("sqlite", &sqlite()?, SQLITE.3));
    components.extend(crates.iter().map(|one| cargo(one, &checksums)));
    components.sort_by_cached_key(|component| component["bom-ref"].to_string());
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": source.created,
            "component": {
                "type": "container",
                "bom-ref": "sekisho",
                "name": "sekisho",
                "version": source.version,
                "description": DESCRIPTION,
                "licenses": [{ "expression": "Apache-2.0" }],
                "properties": [{ "name": "architecture", "value": arch.debian() }],
            },
        },
        "components": components,
    });
    let mut text = serde_json::to_string_pretty(&document).context("write a bill of materials")?;
    text.push('\n');
    Ok(text.into_bytes())
}

/// The crates that are linked into a package's program: by cargo's own resolution, without what only builds or tests need and
/// without macros, which run in the compiler.
fn linked(package: &str, target: &str) -> Result<BTreeSet<Crate>> {
    let text = process::capture(process::cargo().args([
        "tree",
        "--locked",
        "--package",
        package,
        "--edges",
        "normal,no-proc-macro",
        "--target",
        target,
        "--prefix",
        "none",
        "--format",
        "{p}|{l}",
    ]))?;
    text.lines().map(parse).collect()
}

/// `name v1.2.3 (…)|MIT OR Apache-2.0 (*)`.
fn parse(line: &str) -> Result<Crate> {
    let read = || format!("read {line:?} of cargo tree");
    let (package, licence) = line.split_once('|').with_context(read)?;
    let mut words = package.split(' ');
    let name = words.next().with_context(read)?;
    let version = words.next().and_then(|word| word.strip_prefix('v')).with_context(read)?;
    // Older manifests write a choice with a stroke.
    let licence = licence.trim_end_matches(" (*)").replace('/', " OR ");
    if licence.is_empty() {
        bail!("the crate {name} names no licence: look whether it may be shipped");
    }
    Ok(Crate { name: name.to_owned(), version: version.to_owned(), licence })
}

/// SHA-256 of packages by name and version, from the lock file.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let lock: Lock = toml::from_str(lock).context("read Cargo.lock")?;
    Ok(lock.package.into_iter().filter_map(|one| Some(((one.name, one.version), one.checksum?))).collect())
}

fn cargo(one: &Crate, checksums: &BTreeMap<(String, String), String>) -> Value {
    let Crate { name, version, licence } = one;
    let purl = format!("pkg:cargo/{name}@{}", encoded(version));
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "licenses": [{ "expression": licence }],
    });
    // What has no checksum is of this workspace.
    if let Some(checksum) = checksums.get(&(name.clone(), version.clone())) {
        component["purl"] = json!(purl);
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

fn debian(package: &Package) -> Value {
    let Package { name, version, architecture, licence, sha256, .. } = package;
    let purl = format!("pkg:deb/debian/{name}@{}?arch={architecture}", encoded(version));
    json!({
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{ "expression": licence }],
        "hashes": [{ "alg": "SHA-256", "content": sha256 }],
    })
}

/// What came neither by cargo nor by Debian.
fn library(name: &str, version: &str, licence: &str) -> Value {
    json!({
        "type": "library",
        "bom-ref": format!("{name}@{version}"),
        "name": name,
        "version": version,
        "licenses": [{ "expression": licence }],
    })
}

fn compiler() -> Result<String> {
    let text = process::capture(Command::new("rustc").arg("--version"))?;
    text.split(' ').nth(1).map(str::to_owned).context("rustc does not tell its version")
}

/// Version of the SQLite that is compiled in.
fn sqlite() -> Result<String> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Described>,
    }
    #[derive(Deserialize)]
    struct Described {
        name: String,
        manifest_path: PathBuf,
    }
    let (name, header, line, _) = SQLITE;
    let text = process::capture(process::cargo().args(["metadata", "--locked", "--format-version", "1"]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("read what cargo metadata says")?;
    let found = metadata.packages.into_iter().find(|package| package.name == name);
    let manifest = found.with_context(|| format!("cargo metadata names no {name}"))?.manifest_path;
    let text = read(&manifest.with_file_name(header))?;
    let value =
        text.lines().find_map(|text| text.strip_prefix(line)).with_context(|| format!("{header} has no {line}"))?;
    Ok(value.trim().trim_matches('"').to_owned())
}

/// A version within a package URL, where `+` is a blank.
fn encoded(version: &str) -> String {
    version.replace('+', "%2B").replace('~', "%7E").replace(':', "%3A")
}

fn read(path: &std::path::Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cargo_tree_are_read() {
        let one = parse("arraydeque v0.5.1|MIT/Apache-2.0").unwrap();
        assert_eq!((one.name.as_str(), one.version.as_str()), ("arraydeque", "0.5.1"));
        assert_eq!(one.licence, "MIT OR Apache-2.0");
        assert_eq!(parse("agent-core v0.1.0 (/a/b)|Apache-2.0 (*)").unwrap().licence, "Apache-2.0");
        assert!(parse("unnamed v1.0.0|").is_err(), "a crate without a licence is no small thing");
        assert!(parse("nonsense").is_err());
    }

    #[test]
    fn the_program_s_crates_are_listed_and_those_of_tests_are_not() {
        let crates = linked("sekisho", "x86_64-unknown-linux-gnu").unwrap();
        let has = |name: &str| crates.iter().any(|one| one.name == name);
        assert!(has("aya") && has("ring") && has("libsqlite3-sys") && has("agent-ebpf"));
        assert!(!has("proptest") && !has("serde_derive") && !has("cc"));
        assert!(linked("agent-ebpf", PROBES_TARGET).unwrap().iter().any(|one| one.name == "aya-ebpf"));
    }

    #[test]
    fn crates_of_a_registry_have_a_checksum_and_a_name_for_scanners() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0+b\"\nchecksum = \"00ff\"\n";
        let one = Crate { name: "a".to_owned(), version: "1.0.0+b".to_owned(), licence: "MIT".to_owned() };
        let component = cargo(&one, &checksums(lock).unwrap());
        assert_eq!(component["purl"], "pkg:cargo/a@1.0.0%2Bb");
        assert_eq!(component["hashes"][0]["content"], "00ff");
        let own = cargo(&Crate { name: "own".to_owned(), ..one }, &BTreeMap::new());
        assert!(own.get("purl").is_none(), "no scanner should look for it in a registry");
    }
}
