//! The verbs of a user: they read and change what a running `ostler up` holds, or the repository that it follows.

mod checkout;
mod describe;
mod field;
mod get;
mod logs;
mod reconcile;
mod reference;
mod run;
mod stop;
mod suspend;
mod wait;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Subcommand;
use kube::runtime::watcher;

use super::target::TargetError;
use crate::{kinds::ObjectId, manifest::EditError, names::InvalidName, ports::objects};

/// Verbs of a user.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List objects, or show one
    Get(get::GetArgs),
    /// Tell everything about one object: its spec, its state, what happened, and where to look next
    Describe(describe::DescribeArgs),
    /// Wait until an object is in a state; exit code 1 when that does not come
    Wait(wait::WaitArgs),
    /// Print what the agent of a run wrote
    Logs(logs::LogsArgs),
    /// Stop a run: its agent ends, its result is kept and recorded
    Stop(stop::StopArgs),
    /// Let no run of a session start, or follow a repository no more, until `resume`
    Suspend(suspend::SuspendArgs),
    /// Take a suspension back
    Resume(suspend::SuspendArgs),
    /// Fetch and apply a repository now
    Reconcile(reconcile::ReconcileArgs),
    /// Write a run as a commit of the config repository, or print it
    Run(run::RunArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:
  ostler completions bash > ~/.local/share/bash-completion/completions/ostler
  ostler completions zsh > \"${fpath[1]}/_ostler\"")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Why a verb failed. Its exit code is 2.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control plane.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Its objects.
    #[error(transparent)]
    Objects(#[from] objects::Error),
    /// A name on the command line.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// An argument that is wrong.
    #[error("{0}")]
    Usage(String),
    /// There is no such object.
    #[error("{0} does not exist")]
    NotFound(ObjectId),
    /// The change cannot be made here.
    #[error("{0}")]
    Refused(String),
    /// The output cannot be had.
    #[error("the output of {run} cannot be had: {why}")]
    NoLogs {
        /// Which run.
        run: ObjectId,
        /// Why, and what to do.
        why: String,
    },
    /// The user's checkout.
    #[error(transparent)]
    Checkout(#[from] checkout::CheckoutError),
    /// A file of the checkout cannot be edited.
    #[error("{path} is left as it was")]
    Edit {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: EditError,
    },
    /// A file.
    #[error("{} cannot be used", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something cannot be printed.
    #[error("the answer cannot be written")]
    Output(#[source] io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Where a verb prints its answer.
pub type Out<'a> = &'a mut (dyn Write + Send);

/// Carries out a verb; `program` is the whole command line, for completions. A reader that has heard enough is no error.
///
/// # Errors
/// When the verb cannot be carried out; the exit code is then 2.
pub async fn run(command: Command, program: clap::Command) -> Result<ExitCode, Error> {
    match run_into(command, program, &mut io::stdout()).await {
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

/// The same with the answer written to `out`.
///
/// # Errors
/// As [`run`].
pub async fn run_into(command: Command, mut program: clap::Command, out: Out<'_>) -> Result<ExitCode, Error> {
    match command {
        Command::Get(args) => args.run(out).await,
        Command::Describe(args) => args.run(out).await,
        Command::Wait(args) => args.run(out).await,
        Command::Logs(args) => args.run(out).await,
        Command::Stop(args) => args.run(out).await,
        Command::Suspend(args) => args.run(true, out).await,
        Command::Resume(args) => args.run(false, out).await,
        Command::Reconcile(args) => args.run(out).await,
        Command::Run(args) => args.run(out),
        Command::Completions { shell } => {
            let name = program.get_name().to_owned();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program, name, &mut script);
            out.write_all(&script)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A watch that is not allowed from the first will not get better by waiting: it ends the verb. Later, an API server that
/// has just begun refuses everybody for a moment.
fn refused(error: &watcher::Error) -> Result<(), Error> {
    use watcher::Error as Watch;
    let (Watch::InitialListFailed(kube::Error::Api(status))
    | Watch::WatchStartFailed(kube::Error::Api(status))
    | Watch::WatchError(status)) = error
    else {
        return Ok(());
    };
    if status.code == 403 {
        return Err(objects::Error::Forbidden(status.message.clone()).into());
    }
    Ok(())
}

/// Text of others as it may stand on a terminal: control characters but line ends and tabs are shown, not obeyed.
fn printable(text: &str) -> String {
    let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}
