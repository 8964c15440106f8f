//! The command line.

mod columns;
pub mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{harness, shim};

/// A Git repository as the control plane for coding agents.
#[derive(Debug, Parser)]
#[command(name = "ostler", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The sidecar of one run.
    Harness(harness::HarnessArgs),
    /// PID 1 of an agent's container.
    #[command(hide = true)]
    Shim(shim::ShimArgs),
}

/// Runs a command.
pub fn main(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Harness(args) => harness::main(args),
        Command::Shim(args) => shim::main(args),
    }
}
