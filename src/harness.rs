//! The sidecar of one run: what judges the agent, outside the agent's reach.
//!
//! `sidecar` is the way of a run: bubblewrap and shim, the proof of egress, the workspace, the agent, its end, the
//! collection, the delivery. It composes [`crate::git`], [`crate::proxy`] and the wire of [`crate::shim`].

mod agent;
pub mod bubblewrap;
mod canary;
mod collection;
pub mod control;
mod delivery;
mod enforcement;
mod output;
pub mod place;
pub mod pod;
pub mod process;
pub mod secrets;
mod sidecar;
mod socket;
mod usage;
mod workspace;

use std::{
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::Context;
use clap::{Args, Subcommand};

pub use socket::{bind, connect};

/// The host, and the port if it is not the scheme's own, that a clone of this repository talks to; `None` for one on this machine.
///
/// # Errors
/// When the URL is not one of a repository. The text holds no part of it.
pub fn repository_host(url: &str) -> Result<Option<String>, String> {
    let location: crate::git::Location =
        url.parse().map_err(|error| format!("the repository's URL: {error}"))?;
    Ok(location.authority())
}

/// Reads policies as a run's proxy will; the faults as one text.
///
/// # Errors
/// All faults of all policies.
pub fn check_policies(policies: &[crate::ports::workloads::NamedPolicy]) -> Result<(), String> {
    sidecar::rules(policies).map(drop)
}

/// Arguments of `ostler harness`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct HarnessArgs {
    /// The folder of the place.
    #[arg(long, required = true)]
    place: Option<PathBuf>,
    /// Go on in a session of its own, and end at once.
    #[arg(long)]
    detach: bool,
    #[command(subcommand)]
    command: Option<HarnessCommand>,
}

#[derive(Debug, Subcommand)]
enum HarnessCommand {
    /// Copy this program to where another container sees it.
    Install(pod::InstallArgs),
    /// The sidecar of a run in a pod.
    Pod(pod::PodArgs),
    /// Speak with the sidecar of this pod over standard input and output.
    Attach(pod::PodArgs),
    /// Read what an agent left in its workspace; runs confined, like the agent itself.
    Collect(collection::CollectArgs),
}

impl HarnessArgs {
    /// True: it tells on standard error what it does. False: standard error is somebody else's, or nothing happens worth
    /// telling.
    #[must_use]
    pub fn tells(&self) -> bool {
        match &self.command {
            Some(HarnessCommand::Install(_) | HarnessCommand::Pod(_)) => true,
            Some(HarnessCommand::Attach(_) | HarnessCommand::Collect(_)) => false,
            None => !self.detach,
        }
    }
}

/// Runs `ostler harness`.
///
/// # Errors
/// When the place cannot be read, or another sidecar has it.
pub fn main(args: HarnessArgs) -> anyhow::Result<ExitCode> {
    match (args.command, args.place) {
        (Some(HarnessCommand::Collect(args)), _) => collection::collect(&args),
        (Some(HarnessCommand::Install(args)), _) => {
            pod::install(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(HarnessCommand::Attach(args)), _) => {
            pod::attach(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(HarnessCommand::Pod(args)), _) => {
            let folder = pod::enter(&args)?;
            runtime()?.block_on(sidecar::run(folder))?;
            Ok(ExitCode::SUCCESS)
        }
        (None, Some(place)) if args.detach => detach(&place),
        (None, Some(place)) => {
            let folder = place::Folder::new(std::path::absolute(place)?);
            runtime()?.block_on(sidecar::run(folder))?;
            Ok(ExitCode::SUCCESS)
        }
        (None, None) => anyhow::bail!("--place is needed"),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// Starts the sidecar so that it belongs to nobody: a session of its own, its parent gone.
fn detach(place: &std::path::Path) -> anyhow::Result<ExitCode> {
    rustix::process::setsid().context("a session of its own")?;
    let log = place::Folder::new(place.to_owned()).log();
    let log = std::fs::File::options().create(true).append(true).open(log).context("the sidecar's log")?;
    Command::new(std::env::current_exe()?)
        .args(["harness", "--place"])
        .arg(place)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("the sidecar")?;
    Ok(ExitCode::SUCCESS)
}
