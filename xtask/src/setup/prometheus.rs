//! Prometheus and its tool: the machine's own, or Debian's, unpacked into the user's cache. It is not installed: its package
//! would start a server on the machine.

use std::env::consts::ARCH;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::Need;
use crate::apt::Apt;
use crate::{process, workspace};

/// The server, and what checks and tests its rules.
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];
const PACKAGE: &str = "prometheus";

/// The directory in which the programs are.
pub(crate) fn directory() -> Result<PathBuf> {
    let installed = PROGRAMS.map(|program| process::find(program).and_then(|path| Some(path.parent()?.to_owned())));
    match installed {
        [Some(server), Some(tool)] if server == tool => Ok(server),
        _ => unpacked(),
    }
}

fn unpacked() -> Result<PathBuf> {
    Ok(workspace::cache()?.join("prometheus").join(PACKAGE).join("usr/bin"))
}

pub(super) fn missing(needs: &[Need]) -> Option<String> {
    if !needs.contains(&Need::Monitoring) {
        return None;
    }
    let present = directory().is_ok_and(|directory| PROGRAMS.iter().all(|program| directory.join(program).is_file()));
    (!present).then(|| "Prometheus".to_owned())
}

pub(super) fn install(_: &[Need]) -> Result<()> {
    let arch = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no package for {other}: install prometheus and promtool by hand"),
    };
    // It needs the C library alone, which every program here needs.
    let apt = Apt::new(arch, workspace::cache()?.join("prometheus"));
    apt.cached(PACKAGE, |into| apt.unpack(&[PACKAGE], into))
        .context("get Prometheus; where Debian's packages cannot be had, install prometheus and promtool by hand")?;
    Ok(())
}
