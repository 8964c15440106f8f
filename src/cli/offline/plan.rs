//! `ostler plan`: what would happen?

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;

use super::{
    Output,
    tree::{Choice, commit_id},
};
use crate::{
    ledger,
    manifest::Desired,
    names::CommitId,
    plan::{Live, Policy, Prune, plan},
};

/// Arguments of `ostler plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// `A..B`: from revision A to revision B. A folder or one revision: what an empty store would get. Default: from HEAD
    /// to the files of the folder.
    #[arg(value_name = "A..B|DIR|REV")]
    what: Option<String>,
    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    choice: Choice,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let sides = Sides::read(self.what.as_deref(), &self.choice)?;
        let policy = policy(&self.choice, sides.commit)?;
        let live = sides.before.map(|before| Live::assumed(&before, &policy)).unwrap_or_default();
        let after = if self.strict { sides.after.strict() } else { sides.after };
        let (_, report) = plan(&after, &live, &ledger::View::default(), &policy, jiff::Timestamp::now());
        self.output.print(&report)?;
        Ok(ExitCode::from(report.exit_code()))
    }
}

/// The two sides of a comparison.
pub(super) struct Sides {
    /// The left one; `None`: nothing.
    pub before: Option<Desired>,
    /// The right one.
    pub after: Desired,
    /// The commit of the right one; `None`: a folder.
    pub commit: Option<CommitId>,
}

impl Sides {
    pub(super) fn read(what: Option<&str>, choice: &Choice) -> anyhow::Result<Self> {
        if let Some(folder) = what.map(Path::new).filter(|folder| folder.is_dir()) {
            return Ok(Self { before: None, after: choice.folder(folder)?, commit: None });
        }
        let repository = choice.open()?;
        let Some(what) = what else {
            let head = repository.resolve("HEAD").context("there is no commit to compare with")?;
            let before = Some(choice.commit(&repository, head)?);
            return Ok(Self { before, after: choice.folder(&choice.repository)?, commit: None });
        };
        let range = repository.range(what)?;
        let before = range.from.map(|from| choice.commit(&repository, from)).transpose()?;
        Ok(Self { before, after: choice.commit(&repository, range.to)?, commit: commit_id(range.to) })
    }
}

/// Offline there is no `ConfigRepository`: a name and UID that are nobody's, and the default caps.
fn policy(choice: &Choice, commit: Option<CommitId>) -> anyhow::Result<Policy> {
    Ok(Policy {
        source: format!("{}/offline", choice.namespace),
        uid: "offline".parse()?,
        commit,
        prune: Prune::default(),
        allow_prune: None,
    })
}
