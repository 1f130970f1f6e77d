//! Running other programs: with their output passed through or captured, with privilege, and found in PATH.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// A silent step says this often that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Directories of system programs that a user's PATH may lack.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];

/// A command as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let _ = write!(text, "{}={} ", name.to_string_lossy(), quoted(value));
        }
    }
    text.push_str(&quoted(command.get_program()));
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&quoted(argument));
    }
    text
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+/.:,@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else if word.chars().any(char::is_control) {
        format!("$'{}'", word.escape_default().to_string().replace("\\u{1f}", "\\x1f").replace("\\\"", "\""))
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs a command with its output passed through. A command that runs long gets a line with the elapsed time now and then.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = line(command);
    let status = with_heartbeat(|| command.status()).with_context(|| format!("run `{text}`"))?;
    if !status.success() {
        bail!("`{text}` failed: {status}");
    }
    Ok(())
}

/// Runs a command and returns what it wrote to standard output; its standard error appears only when it fails.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let text = line(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run `{text}`"))?;
    if !output.status.success() {
        bail!("`{text}` failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("read the output of `{text}`"))
}

fn with_heartbeat<T>(work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let (done, waiting) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while waiting.recv_timeout(HEARTBEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("    … {} s", started.elapsed().as_secs());
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// The path of a program, from PATH or the system's own directories.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

/// Whether a path is a file that may be executed.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Without a question for a password, and with the environment kept.
pub(crate) const SUDO: [&str; 3] = ["-n", "-E", "--"];

/// How this user may act as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// Is root already.
    Root,
    /// `sudo -n` works.
    Sudo,
    /// Neither.
    None,
}

impl Privilege {
    /// Asks the system.
    pub(crate) fn detect() -> Self {
        let answers = |command: &mut Command, expected: &str| {
            command
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output()
                .is_ok_and(|output| output.status.success() && output.stdout.trim_ascii() == expected.as_bytes())
        };
        if answers(Command::new("id").arg("-u"), "0") {
            Self::Root
        } else if answers(Command::new("sudo").args(SUDO).args(["id", "-u"]), "0") {
            Self::Sudo
        } else {
            Self::None
        }
    }

    /// A command that runs as root, if that is possible. The environment is kept under sudo.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Option<Command> {
        match self {
            Self::Root => Some(Command::new(program)),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(SUDO).arg(program);
                Some(command)
            }
            Self::None => None,
        }
    }
}

/// `cargo` as it was called, in the workspace, without what `cargo run` put into the environment: build scripts that watch
/// such a variable would run anew whenever a person alternates `cargo` and `cargo xtask`.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::workspace::root());
    for (name, _) in env::vars_os() {
        let by_cargo = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(by_cargo) {
            command.env_remove(name);
        }
    }
    command
}

/// An executable that cargo built.
pub(crate) struct Executable {
    /// The target's name, for example `kernel` for tests/tests/kernel.rs.
    pub(crate) name: String,
    /// What kind of target it is: `bin`, `test`, `lib`, …
    pub(crate) kind: String,
    /// Where it lies.
    pub(crate) path: PathBuf,
}

/// Runs a cargo command that builds, and returns the executables it names. People see cargo's usual output.
pub(crate) fn cargo_build(command: &mut Command) -> Result<Vec<Executable>> {
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped()).stderr(Stdio::inherit());
    let text = line(command);
    let output = with_heartbeat(|| command.output()).with_context(|| format!("run `{text}`"))?;
    if !output.status.success() {
        bail!("`{text}` failed: {}", output.status);
    }
    String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| executable(line).transpose()).collect()
}

fn executable(line: &str) -> Result<Option<Executable>> {
    #[derive(Deserialize)]
    struct Message {
        reason: String,
        executable: Option<PathBuf>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let message: Message = serde_json::from_str(line).context("read a message of cargo")?;
    Ok(match (message.reason.as_str(), message.executable, message.target) {
        ("compiler-artifact", Some(path), Some(target)) => {
            Some(Executable { name: target.name, kind: target.kind.into_iter().next().unwrap_or_default(), path })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_pasted_into_a_shell() {
        let mut command = Command::new("cargo");
        command.arg("build").arg("two words").env("RUSTFLAGS", "--cfg a");
        assert_eq!(line(&command), "RUSTFLAGS='--cfg a' cargo build 'two words'");
        let mut command = Command::new("rustc");
        command.arg("a=\"b\"\u{1f}it's");
        assert_eq!(line(&command), r#"rustc $'a="b"\x1fit\'s'"#);
    }

    #[test]
    fn a_failed_command_is_named_with_its_error_output() {
        let error = capture(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit 3") && error.contains("broken"), "{error}");
    }

    #[test]
    fn programs_are_found_by_name() {
        assert!(find("sh").is_some_and(|path| is_executable(&path)));
        assert_eq!(find("no-program-has-this-name"), None);
    }

    #[test]
    fn only_artifacts_with_an_executable_count() {
        let artifact =
            r#"{"reason":"compiler-artifact","executable":"/t/kernel-1","target":{"name":"kernel","kind":["test"]}}"#;
        let found = executable(artifact).unwrap().unwrap();
        assert_eq!((found.name.as_str(), found.kind.as_str()), ("kernel", "test"));
        let library = r#"{"reason":"compiler-artifact","executable":null,"target":{"name":"a","kind":["lib"]}}"#;
        assert!(executable(library).unwrap().is_none());
        assert!(executable(r#"{"reason":"build-finished","success":true}"#).unwrap().is_none());
        assert!(executable("not json").is_err());
    }
}
