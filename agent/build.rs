//! Puts the probes' object where `src/kernel/object.rs` includes it from.
//!
//! `cargo xtask build` makes the object beforehand. Were it made here, every lint would need the BPF tool chain. Without an
//! object the build goes on with an empty one, and the program says so when it should load its probes.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

/// Names another object than the one of `cargo xtask build`.
const OVERRIDE: &str = "SEKISHO_PROBES";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    if let Err(error) = embed() {
        println!("cargo::error={error}");
        process::exit(1);
    }
}

fn embed() -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")?).join("probes");
    let (object, required) = match env::var_os(OVERRIDE) {
        Some(path) if !path.is_empty() => (PathBuf::from(path), true),
        _ => (built_object()?, false),
    };
    let bytes = if required || object.exists() {
        println!("cargo::rerun-if-changed={}", object.display());
        fs::read(&object).map_err(|error| format!("read the probes' object {}: {error}", object.display()))?
    } else {
        watch_for(&object)?;
        Vec::new()
    };
    fs::write(&out, bytes).map_err(|error| format!("write {}: {error}", out.display()))
}

/// Where `cargo xtask build` leaves the object.
fn built_object() -> Result<PathBuf, String> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
    let workspace = package.parent().ok_or("the package has no parent directory")?;
    Ok(workspace.join("target/probes").join(architecture).join("probes"))
}

/// Makes cargo run this script again once the object appears. A missing file would count as changed in every build, so its
/// directory is watched, and made when it is missing too.
fn watch_for(object: &Path) -> Result<(), String> {
    let directory = object.parent().ok_or("the object has no parent directory")?;
    fs::create_dir_all(directory).map_err(|error| format!("create {}: {error}", directory.display()))?;
    println!("cargo::rerun-if-changed={}", directory.display());
    Ok(())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("read {name}, which cargo sets: {error}"))
}
