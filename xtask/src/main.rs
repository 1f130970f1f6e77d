//! Project tasks: `cargo xtask …`. Each command is a module; what they share is [`process`] (running programs) and
//! [`workspace`] (where things lie).

mod apt;
mod bench;
mod build;
mod dashboards;
mod deploy;
mod image;
mod instances;
mod kube;
mod plot;
mod process;
mod remap;
mod run;
mod setup;
mod soak;
mod test;
mod tidy;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, build, run, test and measure sekisho.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install whatever is missing to build, run and test; quick when nothing is
    Setup(setup::Arguments),
    /// Build the probes and the program `sekisho` with the probes inside
    Build(build::Arguments),
    /// Build, then watch this machine: `sekisho run --standalone`
    Run(run::Arguments),
    /// Everything that must hold: formatting, lints, unit tests, system tests, the kernel matrix
    Test(test::Arguments),
    /// Measure what the program costs, beside its neighbours and its aims
    Bench(bench::Arguments),
    /// Watch an agent for a long time on a node where everything comes and goes; fails when it grows
    Soak(soak::Arguments),
    /// Write what is generated in `deploy`: copies in the chart, the kustomize base, the table of values
    Deploy(deploy::Arguments),
    /// Make the OCI image, with neither a registry nor a container engine
    Image(image::Arguments),
    /// Write the table of instance types, or renew its figures
    Instances(instances::Arguments),
    /// Write the dashboards of deploy/grafana
    Dashboards,
    /// Hold the rules of the tree that compiler and clippy do not know
    Tidy,
    /// A Kubernetes API server on loopback, to test against by hand
    Kube(kube::Arguments),
    /// Run the kernel tests on Debian's kernels under QEMU
    VmTest(vm::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Run(arguments) => return run::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Deploy(arguments) => deploy::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
        Command::Instances(arguments) => instances::run(&arguments),
        Command::Dashboards => dashboards::run(),
        Command::Tidy => tidy::run(),
        Command::Kube(arguments) => kube::run(&arguments),
        Command::VmTest(arguments) => vm::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
