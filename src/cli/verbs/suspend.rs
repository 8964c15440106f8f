//! `ostler suspend` and `ostler resume`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::{
    Error, Out, field,
    reference::{self, ObjectArgs},
    stop::{CommitArgs, commit_flag},
};
use crate::{
    cli::target::{Plane, TargetArgs},
    kinds::Kind,
};

/// Arguments of `ostler suspend` and `ostler resume`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ostler suspend session/payments       no run of it starts; what runs goes on
  ostler suspend configrepository/config   nothing is fetched or applied
  ostler resume session/payments
Where a file sets spec.suspend, add --commit to change it there.")]
pub struct SuspendArgs {
    #[command(flatten)]
    object: ObjectArgs,
    #[command(flatten)]
    commit: CommitArgs,
    #[command(flatten)]
    target: TargetArgs,
}

impl SuspendArgs {
    pub(super) async fn run(self, suspend: bool, out: Out<'_>) -> Result<ExitCode, Error> {
        let id = self.object.id()?;
        if !matches!(id.kind, Kind::Session | Kind::ConfigRepository) {
            let message = format!("{} cannot be suspended; a Session or a ConfigRepository can", id.kind);
            return Err(Error::Usage(message));
        }
        let plane = Plane::find(&self.target).await?;
        let object = reference::read(plane.objects(), &id).await?;
        let (short, word) = (reference::short(&id), if suspend { "suspended" } else { "not suspended" });
        let is = field::spec(&object, "suspend").and_then(Value::as_bool).unwrap_or(false);
        if is == suspend {
            writeln!(out, "{short} is {word} already")?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.commit.commit {
            commit_flag(&object, &id, ("suspend", suspend), &self.commit, out)?;
            return Ok(ExitCode::SUCCESS);
        }
        // taken back without a trace: the spec is then what its author wrote
        let value = if suspend { Value::Bool(true) } else { Value::Null };
        field::patch(plane.running()?, &id, &object, ("suspend", value), "change it with --commit").await?;
        writeln!(out, "{short} is {word} now")?;
        Ok(ExitCode::SUCCESS)
    }
}
