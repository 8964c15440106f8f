//! `ostler stop`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::Value;

use super::{Error, Out, checkout::Checkout, field, reference};
use crate::{
    cli::target::{Plane, TargetArgs},
    kinds::{Kind, Object, ObjectId, Phase},
    manifest,
    names::{Namespace, ObjectName},
};

/// Arguments of `ostler stop`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ostler stop fix-login            at once, on the running `ostler up`
  ostler stop fix-login --commit   as a commit of the checkout in this folder: reviewed, and in the history
The agent gets SIGTERM, then 30 s later SIGKILL; its result is collected and recorded. A stop is not taken back.")]
pub struct StopArgs {
    /// The run
    #[arg(value_parser = run_name)]
    run: ObjectName,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: Namespace,
    #[command(flatten)]
    commit: CommitArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Whether a change is made in Git.
#[derive(Debug, Args)]
pub(super) struct CommitArgs {
    /// Change the object's file in a checkout of the config repository, and commit that
    #[arg(long)]
    pub(super) commit: bool,
    /// The checkout
    #[arg(short = 'C', long, value_name = "DIR", default_value = ".")]
    pub(super) checkout: PathBuf,
}

/// A run's name, also as `run/NAME`.
pub(super) fn run_name(text: &str) -> Result<ObjectName, String> {
    let name = match text.split_once('/') {
        Some((kind, name)) if Kind::from_typed_name(kind) == Some(Kind::HarnessRun) => name,
        _ => text,
    };
    name.parse().map_err(|error: crate::names::InvalidName| error.to_string())
}

impl StopArgs {
    pub(super) async fn run(self, out: Out<'_>) -> Result<ExitCode, Error> {
        let id = ObjectId::new(Kind::HarnessRun, self.namespace.clone(), self.run.clone());
        let plane = Plane::find(&self.target).await?;
        let run = reference::read(plane.objects(), &id).await?;
        let short = reference::short(&id);
        if let Some(phase) = ended(&run) {
            writeln!(out, "{short} has ended: {phase}")?;
            return Ok(ExitCode::SUCCESS);
        }
        if field::spec(&run, "stop") == Some(&Value::Bool(true)) {
            writeln!(out, "{short} is being stopped already")?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.commit.commit {
            commit_flag(&run, &id, ("stop", true), &self.commit, out)?;
        } else {
            let advice = "stop it with --commit";
            field::patch(plane.running()?, &id, &run, ("stop", true.into()), advice).await?;
            writeln!(out, "{short} is being stopped; `ostler wait {short} --for=condition=ResultRecorded`")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn ended(run: &Object) -> Option<Phase> {
    let phase: Phase = serde_json::from_value(run.data.pointer("/status/phase")?.clone()).ok()?;
    phase.is_terminal().then_some(phase)
}

/// Sets a switch in the object's file, and commits that.
pub(super) fn commit_flag(
    object: &Object,
    id: &ObjectId,
    (name, value): (&str, bool),
    args: &CommitArgs,
    out: Out<'_>,
) -> Result<(), Error> {
    let path = field::source_path(object, id)?;
    let checkout = Checkout::find(&args.checkout)?;
    let text = checkout.read(&path)?;
    let edited = manifest::set_flag(&text, id, name, value);
    let edited = edited.map_err(|source| Error::Edit { path: path.clone(), source })?;
    if edited == text {
        return Err(Error::Refused(format!(
            "{path} says so already; is it pushed, and does the repository's branch have it?"
        )));
    }
    let message = format!("{}: {name}: {value}\n\nBy `ostler`, for {id}.", reference::short(id));
    let commit = checkout.change(&path, &edited, &message)?;
    committed(&checkout, &commit, &path, out)
}

/// Says what was committed, and what is left to do.
pub(super) fn committed(checkout: &Checkout, commit: &str, path: &str, out: Out<'_>) -> Result<(), Error> {
    let branch = checkout.branch()?.map_or_else(|| "no branch".to_owned(), |name| format!("branch {name}"));
    let short = commit.get(..12).unwrap_or(commit);
    writeln!(out, "committed {short} ({path}) on {branch} of {}", checkout.top().display())?;
    writeln!(out, "it acts at once where `ostler up` follows this very repository, else after `git push`")?;
    Ok(())
}
