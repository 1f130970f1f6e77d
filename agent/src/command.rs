//! The command line: what can be asked, what is printed, and how the program ends.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::api::client;
use crate::config::{Config, SOCKET_DEFAULT, Sources};
use crate::lines::{Form, chain};

mod asked;
mod audit;
mod capacity;
mod check;
#[cfg(test)]
mod deployment;
mod doctor;
#[cfg(test)]
mod documents;
mod evidence;
mod explain;
mod findings;
mod internal;
mod observe;
mod readiness;
mod replay;
mod run;
mod sg;
mod timeline;
mod top;

/// Filter of the agent's own log.
const LOG_VARIABLE: &str = "SEKISHO_LOG";
/// A few lines at the start and the stop, and whatever is wrong.
/// The client of the API server calls every refusal an error; what they mean for the agent it says itself.
const LOG_DEFAULT: &str = "warn,sekisho=info,kube_client=off";

/// Sees every connection and every credential request that leaves a pod on this node.
#[derive(Parser)]
#[command(name = "sekisho", version, about, arg_required_else_help = true, infer_subcommands = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Observe(observe::Observe),
    Capacity(capacity::Capacity),
    Check(check::Check),
    Findings(findings::Findings),
    Top(top::Top),
    Explain(explain::Explain),
    Timeline(timeline::Timeline),
    Readiness(readiness::Readiness),
    Replay(replay::Replay),
    Evidence(evidence::Evidence),
    Doctor(doctor::Doctor),
    Sg(sg::Sg),
    Audit(audit::Audit),
    #[command(hide = true)]
    Internal(internal::Internal),
}

/// Where a running agent listens.
#[derive(Args)]
struct Socket {
    /// The running agent's socket.
    #[arg(long, value_name = "PATH", env = "SEKISHO_SOCKET", default_value = SOCKET_DEFAULT)]
    socket: PathBuf,
}

/// Text or JSON.
#[derive(Clone, Copy, ValueEnum)]
enum Shape {
    /// For people.
    Text,
    /// For programs: one object per line.
    Json,
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// All is well.
    Fine,
    /// Something was found that should be looked at.
    Found,
    /// What was asked makes no sense, and that was said.
    Usage,
    /// What was asked could not be done.
    CannotRun,
}

/// Parses, runs, and says what went wrong: what, where, and what to do.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and versions come this way too, for standard output and with code 0; errors of usage have code 2.
            // Where printing fails, nobody is there to be told.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = log().and_then(|()| match cli.command {
        Command::Run(run) => run.run(),
        Command::Observe(observe) => observe.run(),
        Command::Capacity(capacity) => capacity.run(),
        Command::Check(check) => check.run(),
        Command::Findings(findings) => findings.run(),
        Command::Top(top) => top.run(),
        Command::Explain(explain) => explain.run(),
        Command::Timeline(timeline) => timeline.run(),
        Command::Readiness(readiness) => readiness.run(),
        Command::Replay(replay) => replay.run(),
        Command::Evidence(evidence) => evidence.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Sg(sg) => sg.run(),
        Command::Audit(audit) => audit.run(),
        Command::Internal(internal) => internal.run(),
    });
    let exit = result.unwrap_or_else(|error| {
        eprintln!("sekisho: {}", chain(&*error));
        Exit::CannotRun
    });
    ExitCode::from(match exit {
        Exit::Fine => 0,
        Exit::Found => 1,
        Exit::Usage => 2,
        Exit::CannotRun => 3,
    })
}

/// The agent's own log goes to standard error.
fn log() -> anyhow::Result<()> {
    let wanted = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| LOG_DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&wanted).map_err(|error| {
        anyhow::anyhow!(
            "{LOG_VARIABLE} = {wanted}: {error}; allowed: a level such as info, or a filter such as warn,sekisho=debug"
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}

/// Prints to standard output. A reader that went away is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result.map_err(client::Error::Output)?),
    }
}

/// The configuration from the file, the environment and these flags.
fn load(file: Option<PathBuf>, flags: Vec<(&'static str, String)>) -> anyhow::Result<Config> {
    let environment = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    Ok(Config::load(&Sources { file, environment: &environment, flags })?)
}

// === impl Shape ===

impl From<Shape> for Form {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Text => Self::Text,
            Shape::Json => Self::Json,
        }
    }
}
