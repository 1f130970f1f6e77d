//! What a program needs of the system that it runs on, as `readelf` tells it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// See the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The loader's path; None for a library.
    pub(super) loader: Option<String>,
    /// Names of libraries.
    pub(super) libraries: Vec<String>,
    /// The newest version of the GNU C library that it asks for.
    pub(super) glibc: Option<(u32, u32)>,
}

/// Reads them from a file of any architecture.
pub(super) fn needs(file: &Path) -> Result<Needs> {
    let readelf = process::find("readelf").context("readelf is not installed: it comes with the C compiler")?;
    let mut command = Command::new(readelf);
    command.args(["--wide", "--dynamic", "--program-headers", "--version-info"]).arg(file).env("LC_ALL", "C");
    Ok(parse(&process::capture(&mut command)?))
}

fn parse(text: &str) -> Needs {
    let mut needs = Needs::default();
    let mut of_others = false;
    for line in text.lines() {
        if line.starts_with("Version ") {
            of_others = line.starts_with("Version needs");
        }
        if let Some((_, rest)) = line.split_once("Requesting program interpreter: ") {
            needs.loader = rest.strip_suffix(']').map(str::to_owned);
        } else if let Some((_, rest)) = line.split_once("(NEEDED)") {
            let name = rest.split_once('[').and_then(|(_, name)| name.strip_suffix(']'));
            needs.libraries.extend(name.map(str::to_owned));
        } else if let (true, Some((_, rest))) = (of_others, line.split_once("Name: GLIBC_")) {
            needs.glibc = needs.glibc.max(version(rest));
        }
    }
    needs
}

/// The first two numbers of a version.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_needs_is_read() {
        let text = "  INTERP 0x0002e0 0x00 0x00 0x1c 0x1c R 0x1\n\
                    \x20     [Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]\n\
                    \x20 0x0000000000000001 (NEEDED)   Shared library: [libgcc_s.so.1]\n\
                    \x20 0x0000000000000001 (NEEDED)   Shared library: [libc.so.6]\n\
                    Version definition section '.gnu.version_d' contains 1 entry:\n\
                    \x20 000000: Rev: 1  Flags: none  Index: 2  Cnt: 1  Name: GLIBC_2.99\n\
                    Version needs section '.gnu.version_r' contains 2 entries:\n\
                    \x20 0x0010:   Name: GLIBC_2.9  Flags: none  Version: 13\n\
                    \x20 0x0020:   Name: GLIBC_2.34  Flags: none  Version: 12\n\
                    \x20 0x0030:   Name: GCC_4.2.0  Flags: none  Version: 14\n";
        let needs = parse(text);
        assert_eq!(needs.loader.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(needs.libraries, ["libgcc_s.so.1", "libc.so.6"]);
        assert_eq!(needs.glibc, Some((2, 34)));
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version("2.36-9+deb12u14"), Some((2, 36)));
        assert_eq!(version("PRIVATE"), None);
    }
}
