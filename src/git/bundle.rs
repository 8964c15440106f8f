//! Git bundles (gitformat-bundle(5), version 2): commits on top of a base, in one file.
//!
//! Writing is ours to trust; reading is not: the file comes from a place where an agent ran. It is indexed in a
//! quarantine, checked object by object, and only then becomes part of the repository.

mod check;
mod header;
mod quarantine;
mod tree;

pub use quarantine::accept;

use std::{collections::HashSet, io, time::Duration};

use gix::ObjectId;

use super::{CommitId, Repository, changes, pack};

/// Caps of an incoming bundle.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of the file.
    pub bytes: u64,
    /// Objects in its pack.
    pub objects: u32,
    /// Bytes of one object.
    pub object_bytes: u64,
    /// Bytes of all objects, unpacked.
    pub total_bytes: u64,
    /// Commits.
    pub commits: usize,
    /// Folders below one another.
    pub depth: usize,
    /// Changed paths, over all commits.
    pub paths: usize,
    /// Time for indexing.
    pub time: Duration,
}

impl Default for Limits {
    /// Generous for one run of an agent.
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            objects: 200_000,
            object_bytes: 128 << 20,
            total_bytes: 1 << 30,
            commits: 10_000,
            depth: 64,
            paths: 100_000,
            time: Duration::from_mins(2),
        }
    }
}

/// Why a bundle cannot be written, or is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The heads have nothing that the base lacks, or there are no heads.
    #[error("a bundle without new commits")]
    Empty,
    /// The header is no bundle header of version 2.
    #[error("bundle header: {0}")]
    Header(&'static str),
    /// The bundle is built on something else than the base we know.
    #[error("the bundle builds on {0}, which is not the base of the run")]
    Prerequisite(ObjectId),
    /// One of [`Limits`].
    #[error("more than {limit} {what} in a bundle")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// The pack is broken, or took too long.
    #[error("the bundle's pack cannot be indexed")]
    Index(#[source] gix::Error),
    /// An object that does not pass.
    #[error("object {id}: {reason}")]
    Object {
        /// Which.
        id: ObjectId,
        /// What is wrong with it.
        reason: Flaw,
    },
    /// The base is not in the repository.
    #[error("base {0} is not in the repository")]
    NoBase(ObjectId),
    /// The repository or the quarantine failed.
    #[error("bundle: {doing}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// What the store said.
        #[source]
        source: gix::Error,
    },
    /// The file system failed.
    #[error("bundle: {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Collecting what to send failed.
    #[error("collecting the bundle's objects")]
    Pack(#[from] pack::Error),
    /// The changed paths could not be listed.
    #[error("comparing the bundle's trees")]
    Changes(#[from] changes::Error),
}

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// Referred to, but neither in the bundle nor below the base.
    #[error("it is missing")]
    Missing,
    /// A commit's parents are neither the base nor commits of the bundle.
    #[error("the commit does not descend from the base")]
    NotDescending,
    /// Not what refers to it says it is.
    #[error("it is not a {0}")]
    Kind(&'static str),
    /// It does not decode, or not to the letter.
    #[error("it is malformed")]
    Malformed,
    /// A file name that could leave the work tree or reach into `.git` on some system.
    #[error("its entry {0:?} is not a safe file name")]
    Name(String),
    /// A mode that Git does not write.
    #[error("its entry {name:?} has mode {mode}")]
    Mode {
        /// The entry.
        name: String,
        /// The mode as written.
        mode: String,
    },
    /// Entries out of order or twice.
    #[error("its entries are not sorted")]
    Order,
    /// It is in the pack, and nothing refers to it.
    #[error("nothing refers to it")]
    Unreachable,
}

fn store(doing: &'static str) -> impl FnOnce(gix::Error) -> Error {
    move |source| Error::Store { doing, source }
}

fn file(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { doing, source }
}

/// What went into a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Commits.
    pub commits: usize,
    /// Objects, the commits included.
    pub objects: usize,
}

/// What came out of an accepted bundle. Its objects are in the repository; no reference points to them yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// References of the bundle and their commits.
    pub heads: Vec<(String, CommitId)>,
    /// New commits.
    pub commits: Vec<CommitId>,
    /// Every path that some new commit has otherwise than the base, sorted, bytes outside UTF-8 replaced.
    pub paths: Vec<String>,
}

/// Writes the commits of `heads` that `base` does not have; `base` becomes the prerequisite.
///
/// Errors: [`Error::Empty`] when there are none.
pub fn write(
    repository: &Repository,
    base: Option<CommitId>,
    heads: &[(String, CommitId)],
    out: &mut dyn io::Write,
    limits: &pack::Limits,
) -> Result<Written, Error> {
    let heads: Vec<_> = heads.iter().map(|(name, id)| (name.clone(), id.get())).collect();
    write_from(&repository.local(), base.map(CommitId::get), &heads, out, limits)
}

/// As [`write()`], from a handle that has objects which no other handle has.
pub(super) fn write_from(
    repository: &gix::Repository,
    base: Option<ObjectId>,
    heads: &[(String, ObjectId)],
    out: &mut dyn io::Write,
    limits: &pack::Limits,
) -> Result<Written, Error> {
    let tips: Vec<ObjectId> = heads.iter().map(|(_, id)| *id).collect();
    let known: HashSet<ObjectId> = base.into_iter().collect();
    let missing = pack::missing(repository, &tips, &known, limits)?;
    if missing.commits.is_empty() {
        return Err(Error::Empty);
    }
    out.write_all(&header::write(base, heads)).map_err(file("writing the header"))?;
    pack::write(repository, &missing.objects, out, limits)?;
    out.flush().map_err(file("writing the pack"))?;
    Ok(Written { commits: missing.commits.len(), objects: missing.objects.len() })
}
