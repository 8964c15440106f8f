//! The shim: PID 1 of the agent's container.
//!
//! It holds no secret and decides nothing. It connects to its sidecar, does what the sidecar says (look around, start the
//! agent, end it) and reports what only PID 1 can see: the exit. When the sidecar goes away the agent ends. Under bubblewrap
//! the shim ends, too, and the kernel ends everything in its PID namespace with it; in a pod, whose last container must not
//! end before the result is acknowledged, it waits for the sidecar to come back.

mod launch;
mod memory;
mod meter;
mod probe;
mod reaper;
mod supervise;
pub mod wire;

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub use launch::{PATH, Walls};
pub use memory::own_memory;
pub use probe::FORWARDER;

/// Arguments of `ostler shim`, which only ostler itself calls.
#[derive(Debug, Args)]
pub struct ShimArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be PID 1: connect to the sidecar and serve it.
    Supervise(supervise::SuperviseArgs),
    /// Put up the walls of one process and become the agent.
    Exec(launch::ExecArgs),
}

impl ShimArgs {
    /// True: it tells on standard error what it does. The other one's is the agent's.
    #[must_use]
    pub fn tells(&self) -> bool {
        matches!(self.command, Command::Supervise(_))
    }
}

/// Runs `ostler shim`.
///
/// # Errors
/// When the sidecar cannot be reached, or goes away before it released the shim.
pub fn main(args: ShimArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Supervise(args) => Ok(supervise::run(&args)?),
        Command::Exec(args) => Ok(launch::become_agent(&args)),
    }
}
