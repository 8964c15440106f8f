//! The collector: what runs confined, beside what the agent left.

use std::{
    fs,
    io::{self, Read},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{
    git::{
        commit::{Identity, Message},
        worktree::{self, Changes, Collect, Collected},
    },
    harness::workspace::Confined,
    names::CommitId,
    report::{ArtifactSeen, ChangesSeen},
};

/// What is to be done, in the folder for results.
pub(super) const WORK: &str = "work.json";
/// What was found, in the same folder.
pub(super) const FOUND: &str = "found.json";
/// Files left out that are named.
const NAMED: usize = 8;

/// Arguments of `ostler harness collect`.
#[derive(Debug, Args)]
pub(in crate::harness) struct CollectArgs {
    /// Where the workspace is seen.
    #[arg(long, default_value = "/workspace")]
    workspace: std::path::PathBuf,
    /// The folder for results.
    #[arg(long, default_value = "/out")]
    out: std::path::PathBuf,
}

/// What the collector is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) base: Option<CommitId>,
    pub(super) branch: String,
    pub(super) run: String,
    pub(super) uid: String,
    pub(super) exclude: Vec<String>,
    pub(super) artifacts: Vec<(String, u64)>,
    pub(super) time: jiff::Timestamp,
}

/// What it found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) changes: Option<ChangesSeen>,
    pub(super) artifacts: Vec<ArtifactSeen>,
    pub(super) notes: Vec<String>,
}

/// Reads the workspace.
pub(in crate::harness) fn collect(args: &CollectArgs) -> anyhow::Result<ExitCode> {
    let work: Work = serde_json::from_slice(&fs::read(args.out.join(WORK))?)?;
    let mut found = Found::default();
    if let Some(base) = &work.base
        && let Err(error) = changes(args, &work, base, &mut found)
    {
        found.notes.push(format!("the changes could not be collected: {error:#}"));
    }
    found.artifacts = artifacts(args, &work)?;
    fs::write(args.out.join(FOUND), serde_json::to_vec(&found)?)?;
    Ok(ExitCode::SUCCESS)
}

fn changes(args: &CollectArgs, work: &Work, base: &CommitId, found: &mut Found) -> anyhow::Result<()> {
    let trailers = [("Ostler-Run", work.run.as_str()), ("Ostler-Run-UID", work.uid.as_str())];
    let collect = Collect {
        directory: args.workspace.clone(),
        base: base.as_str().parse()?,
        branch: format!("refs/heads/{}", work.branch),
        identity: Identity::new("ostler", "ostler@ostler.invalid")?,
        time: work.time,
        message: Message::new(&format!("Uncommitted changes of run {}", work.run), "", &trailers)?,
        exclude: work.exclude.clone(),
        limits: worktree::Limits::default(),
    };
    let mut left_out = Vec::new();
    match collect.run(&args.out).context("reading the work tree")? {
        Collected::Unchanged { skipped } => left_out = skipped,
        Collected::Changed(changes) => {
            found.changes = Some(seen(&changes)?);
            if changes.rewritten {
                let note = "the agent rewrote history below its base: its work is one commit on the base";
                found.notes.push(note.to_owned());
            }
            left_out = changes.skipped;
        }
        Collected::Missing => found.notes.push("the workspace has no .git any more".to_owned()),
        Collected::Broken { reason } => {
            found.notes.push(format!("the workspace's .git is unusable: {reason}"));
        }
    }
    let named =
        left_out.iter().take(NAMED).map(|file| format!("{} was left out: {}", file.path, file.reason));
    found.notes.extend(named);
    if left_out.len() > NAMED {
        found.notes.push(format!("{} files were left out in all", left_out.len()));
    }
    Ok(())
}

fn seen(changes: &Changes) -> anyhow::Result<ChangesSeen> {
    Ok(ChangesSeen {
        base: Some(changes.base.parse()?),
        head: Some(changes.head.parse()?),
        commits: u32::try_from(changes.commit_count).unwrap_or(u32::MAX),
        files: changes.file_count as u64,
        additions: changes.additions,
        deletions: changes.deletions,
    })
}

/// Copies the artifacts to `artifacts/0`, `artifacts/1`, … in the order of the request.
fn artifacts(args: &CollectArgs, work: &Work) -> io::Result<Vec<ArtifactSeen>> {
    let workspace = Confined::open(&args.workspace)?;
    let folder = args.out.join("artifacts");
    fs::create_dir_all(&folder)?;
    let wanted = work.artifacts.iter().enumerate();
    let copy = |(number, (path, most)): (usize, &(String, u64))| {
        let copied = artifact(&workspace, path, *most, &folder.join(number.to_string()));
        let (bytes, cut) = match copied {
            Ok((bytes, cut)) => (Some(bytes), cut),
            Err(_) => (None, false),
        };
        ArtifactSeen { path: path.clone(), bytes, cut }
    };
    Ok(wanted.map(copy).collect())
}

fn artifact(workspace: &Confined, path: &str, most: u64, to: &Path) -> io::Result<(u64, bool)> {
    let file = workspace.read(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let bytes = io::copy(&mut file.take(most), &mut fs::File::create(to)?)?;
    Ok((bytes, found.len() > bytes))
}
