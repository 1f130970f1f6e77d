//! The program `sekisho`: reads the command line and leaves the rest to [`command`].
//!
//! [`tasks`] is the running agent and the only module that connects the others; [`kernel`], [`node`], [`telemetry`],
//! [`export`], [`recording`], [`api`] and [`http`] know each other through core's types alone.

mod api;
mod aws;
mod bundle;
mod cluster;
mod command;
mod config;
mod export;
#[cfg(test)]
mod golden;
mod history;
mod http;
mod kept;
mod kernel;
mod lines;
mod lossy;
mod manifests;
mod memory;
mod node;
mod recording;
mod tasks;
mod telemetry;

fn main() -> std::process::ExitCode {
    command::main()
}
