//! What an agent did: its commits, its uncommitted changes as one more, a patch and a bundle.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use gix::{ObjectId, Repository, bstr::ByteSlice, objs::Commit};
use jiff::Timestamp;

use super::{
    FileChange, Skipped,
    patch::Patch,
    snapshot,
    view::{Unusable, View},
};
use crate::git::{
    CommitId, bundle, changes,
    commit::{Identity, Message},
    pack,
};

/// Caps of one collection.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Files and folders in the work tree.
    pub files: usize,
    /// Folders below one another.
    pub depth: usize,
    /// Bytes of one uncommitted file; a longer one is left out and named.
    pub file_bytes: u64,
    /// Bytes of all files read.
    pub total_bytes: u64,
    /// Bytes of the patch; files beyond are counted, not shown.
    pub patch_bytes: usize,
    /// Longest file that is compared line by line, bytes.
    pub diff_file_bytes: u64,
    /// Commits named in the result.
    pub listed_commits: usize,
    /// Changed files named in the result.
    pub listed_files: usize,
    /// What may go into the bundle.
    pub pack: pack::Limits,
}

impl Default for Limits {
    /// Generous for one run of an agent; what is longer than a bundle may be is refused there.
    fn default() -> Self {
        Self {
            files: 500_000,
            depth: 64,
            file_bytes: 100 << 20,
            total_bytes: 4 << 30,
            patch_bytes: 4 << 20,
            diff_file_bytes: 2 << 20,
            listed_commits: 200,
            listed_files: 1_000,
            pack: pack::Limits { commits: 100_000, objects: 200_000, bytes: 1 << 30 },
        }
    }
}

/// Why nothing could be collected though the repository was usable so far.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The work tree has more files than [`Limits::files`].
    #[error("the work tree has more than {limit} files")]
    TooManyFiles {
        /// How many are allowed.
        limit: usize,
    },
    /// The objects failed.
    #[error("{doing}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// What the store said.
        #[source]
        source: gix::Error,
    },
    /// The trees could not be compared.
    #[error("comparing trees")]
    Changes(#[from] changes::Error),
    /// The commits could not be listed.
    #[error("listing commits")]
    Pack(#[from] pack::Error),
    /// The bundle could not be written.
    #[error("writing the bundle")]
    Bundle(#[from] bundle::Error),
    /// The output folder failed.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What to collect and how to name it.
#[derive(Debug, Clone)]
pub struct Collect {
    /// The work tree, with its `.git` in it.
    pub directory: PathBuf,
    /// The commit that the agent started from.
    pub base: CommitId,
    /// The branch that the bundle's head is called (`refs/heads/…`).
    pub branch: String,
    /// Who commits what was left uncommitted.
    pub identity: Identity,
    /// When.
    pub time: Timestamp,
    /// The message of that commit.
    pub message: Message,
    /// Lines in the form of `.gitignore`: files of ours in the work tree that are not the agent's work.
    pub exclude: Vec<String>,
    /// Caps.
    pub limits: Limits,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum Collected {
    /// No commit and no changed file.
    Unchanged {
        /// Files that were left out.
        skipped: Vec<Skipped>,
    },
    /// Changes, in files beside this summary.
    Changed(Box<Changes>),
    /// There is no `.git`.
    Missing,
    /// The `.git` cannot be used.
    Broken {
        /// What is wrong with it.
        reason: String,
    },
}

/// A summary of the changes. Object ids are 40 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// The commit that the agent started from.
    pub base: String,
    /// The last commit, our own one included.
    pub head: String,
    /// New commits, newest first, at most [`Limits::listed_commits`].
    pub commits: Vec<CommitSummary>,
    /// How many there are.
    pub commit_count: usize,
    /// The last commit is ours and holds what was left uncommitted.
    pub uncommitted: bool,
    /// The agent's own commits do not descend from the base: its work is one commit of ours on the base.
    pub rewritten: bool,
    /// Changed files, at most [`Limits::listed_files`].
    pub files: Vec<FileChange>,
    /// How many there are.
    pub file_count: usize,
    /// Lines added, over all files.
    pub additions: u64,
    /// Lines removed, over all files.
    pub deletions: u64,
    /// The patch lacks some files.
    pub patch_truncated: bool,
    /// Files that were left out.
    pub skipped: Vec<Skipped>,
}

/// A commit for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CommitSummary {
    /// Its id.
    pub id: String,
    /// The first line of its message, at most 200 characters, without control characters.
    pub subject: String,
}

/// Name of the patch in the output folder.
pub const PATCH_FILE: &str = "changes.patch";

/// Name of the bundle in the output folder.
pub const BUNDLE_FILE: &str = "changes.bundle";

fn store(doing: &'static str) -> impl FnOnce(gix::Error) -> Error {
    move |source| Error::Store { doing, source }
}

impl Collect {
    /// Reads the work tree and writes [`PATCH_FILE`] and [`BUNDLE_FILE`] to the existing folder `out`. The work tree and
    /// its `.git` are not changed, and nothing outside of them is read.
    pub fn run(&self, out: &Path) -> Result<Collected, Error> {
        let scratch =
            tempfile::tempdir_in(out).map_err(|source| Error::Io { path: out.to_owned(), source })?;
        let view = match View::open(&self.directory.join(".git"), scratch.path()) {
            Ok(view) => view,
            Err(Unusable::Missing) => return Ok(Collected::Missing),
            Err(Unusable::Broken(reason)) => return Ok(Collected::Broken { reason }),
        };
        let repository = view.repository.local();
        let base = self.base.get();
        let Ok(base_tree) = tree_of(&repository, base) else {
            return Ok(Collected::Broken { reason: format!("the base commit {base} is gone") });
        };
        let Ok(head_tree) = view.head.map(|head| tree_of(&repository, head)).transpose() else {
            return Ok(Collected::Broken { reason: "HEAD's commit is missing or broken".to_owned() });
        };
        let snapshot = snapshot::take(&repository, &self.directory, head_tree, &self.exclude, &self.limits)?;
        let rewritten = match view.head {
            Some(head) => !pack::descends(&repository, head, base, &self.limits.pack)?,
            None => true,
        };
        let (start, start_tree) = match (view.head, head_tree) {
            (Some(head), Some(tree)) if !rewritten => (head, tree),
            _ => (base, base_tree),
        };
        let uncommitted = snapshot.tree != start_tree;
        let head = if uncommitted { self.commit(&repository, start, snapshot.tree)? } else { start };
        if head == base {
            return Ok(Collected::Unchanged { skipped: snapshot.skipped });
        }
        let changes = self.describe(&repository, (base_tree, head, snapshot.tree), out)?;
        Ok(Collected::Changed(Box::new(Changes {
            uncommitted,
            rewritten,
            skipped: snapshot.skipped,
            ..changes
        })))
    }

    fn commit(&self, repository: &Repository, parent: ObjectId, tree: ObjectId) -> Result<ObjectId, Error> {
        let commit = Commit {
            tree,
            parents: [parent].into_iter().collect(),
            author: self.identity.at(self.time),
            committer: self.identity.at(self.time),
            encoding: None,
            message: self.message.as_str().into(),
            extra_headers: Vec::new(),
        };
        Ok(repository.write_object(&commit).map_err(store("committing what was left uncommitted"))?.detach())
    }

    fn describe(
        &self,
        repository: &Repository,
        (base_tree, head, tree): (ObjectId, ObjectId, ObjectId),
        out: &Path,
    ) -> Result<Changes, Error> {
        let base = self.base.get();
        let mut patch = Patch::new(self.limits.patch_bytes, self.limits.diff_file_bytes);
        for change in changes::between(repository, Some(base_tree), Some(tree), self.limits.files)? {
            patch.add(repository, &change).map_err(store("comparing files"))?;
        }
        write(&out.join(PATCH_FILE), |file| file.write_all(&patch.text))?;
        let bundle_path = out.join(BUNDLE_FILE);
        let mut file = io::BufWriter::new(create(&bundle_path)?);
        let heads = [(self.branch.clone(), head)];
        bundle::write_from(repository, Some(base), &heads, &mut file, &self.limits.pack)?;
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(|source| Error::Io { path: bundle_path, source })?;

        let commits = pack::missing(repository, &[head], &[base].into(), &self.limits.pack)?.commits;
        let listed = commits.iter().take(self.limits.listed_commits).map(|id| summary(repository, *id));
        let (additions, deletions) =
            patch.files.iter().fold((0, 0), |(a, d), file| (a + file.additions, d + file.deletions));
        let (file_count, mut files) = (patch.files.len(), patch.files);
        files.truncate(self.limits.listed_files);
        Ok(Changes {
            base: base.to_string(),
            head: head.to_string(),
            commits: listed.collect::<Result<_, _>>()?,
            commit_count: commits.len(),
            uncommitted: false,
            rewritten: false,
            files,
            file_count,
            additions,
            deletions,
            patch_truncated: patch.truncated,
            skipped: Vec::new(),
        })
    }
}

fn tree_of(repository: &Repository, commit: ObjectId) -> gix::Result<ObjectId> {
    Ok(repository.find_commit(commit)?.tree_id()?.detach())
}

fn summary(repository: &Repository, id: ObjectId) -> Result<CommitSummary, Error> {
    let commit = repository.find_commit(id).map_err(store("reading a commit"))?;
    let message = commit.message_raw().map_err(store("reading a commit"))?;
    let line = message.lines().next().unwrap_or_default().to_str_lossy();
    Ok(CommitSummary {
        id: id.to_string(),
        subject: line.chars().filter(|c| !c.is_control()).take(200).collect(),
    })
}

fn create(path: &Path) -> Result<fs::File, Error> {
    fs::File::create(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

fn write(path: &Path, content: impl FnOnce(&mut fs::File) -> io::Result<()>) -> Result<(), Error> {
    let mut file = create(path)?;
    content(&mut file)
        .and_then(|()| file.sync_all())
        .map_err(|source| Error::Io { path: path.to_owned(), source })
}
