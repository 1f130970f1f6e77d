//! `cargo xtask run`: builds, then watches this machine with `sekisho run --standalone`.

use std::env::consts::ARCH;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::process::Privilege;
use crate::setup::{self, Need};
use crate::{build, process};

/// What `cargo xtask run` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Let the probes write log lines; for debugging by hand
    #[arg(long)]
    probe_log: bool,
    /// Passed on to `sekisho run --standalone`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// The command. Ends as the program ends.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match start(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Need::Build])?;
    build::probes(ARCH, arguments.probe_log)?;
    let options = build::Options { release: true, probe_log: arguments.probe_log, cross: None };
    let sekisho = build::agent(options)?;

    let mut command = as_root(&sekisho, Privilege::detect())?;
    command.args(["run", "--standalone"]).args(&arguments.arguments);
    let text = process::line(&command);
    let status = command.status().with_context(|| format!("run `{text}`"))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn as_root(sekisho: &Path, privilege: Privilege) -> Result<Command> {
    let Some(command) = privilege.command(sekisho) else {
        bail!(
            "loading eBPF programs needs root, and `sudo -n` does not work for this user: run \
             `sudo {} run --standalone`",
            sekisho.display()
        );
    };
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_privilege_the_command_to_type_is_named() {
        let error = as_root(Path::new("/t/sekisho"), Privilege::None).unwrap_err().to_string();
        assert!(error.contains("`sudo /t/sekisho run --standalone`"), "{error}");
    }

    #[test]
    fn root_needs_no_sudo() {
        assert_eq!(process::line(&as_root(Path::new("/t/sekisho"), Privilege::Root).unwrap()), "/t/sekisho");
    }
}
