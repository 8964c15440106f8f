//! Reading a repository: a mirror of ours, or one of the user's on this machine. Nothing here writes.

use std::path::Path;

use gix::bstr::ByteSlice;

use super::id::{BlobId, CommitId, TreeId};
use super::{Error, LimitKind};

/// A commit is a message and a signature: a longer one is no commit that anybody reviews.
const COMMIT_BYTES: u64 = 1 << 20;

/// A handle for reading. Cheap to clone, and to share between threads.
///
/// Configuration, environment, hooks, replacement refs and attributes have no effect on what is read.
#[derive(Clone)]
pub struct Repository {
    shared: gix::ThreadSafeRepository,
    place: String,
}

/// A commit as its author wrote it. Text that is not UTF-8 is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its name.
    pub id: CommitId,
    /// The directory it records.
    pub tree: TreeId,
    /// Its parents, the first one first; also when a shallow mirror does not have them.
    pub parents: Vec<CommitId>,
    /// Who wrote it.
    pub author: Person,
    /// Who committed it.
    pub committer: Person,
    /// The whole message, subject first.
    pub message: String,
}

/// A name, an address and a time, as a commit claims them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The name.
    pub name: String,
    /// The mail address.
    pub email: String,
    /// Seconds since 1970-01-01 UTC; 0 when the commit's time is malformed.
    pub seconds: i64,
}

/// `A..B` or one revision, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The left side, when there is one.
    pub from: Option<CommitId>,
    /// The right side, or the only one.
    pub to: CommitId,
}

impl Repository {
    /// Opens the repository that `path` is in: bare, a checkout, a linked worktree, or a folder below one.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let place = path.display().to_string();
        let (found, _) = gix::discover::upwards(path)
            .map_err(|_| Error::NotFound { what: "a Git repository".to_owned(), place: place.clone() })?;
        let (git_dir, _) = found.into_repository_and_work_tree_directories();
        Self::open_git_dir(&git_dir, place)
    }

    pub(super) fn open_git_dir(git_dir: &Path, place: String) -> Result<Self, Error> {
        let shared = options().open(git_dir).map_err(Error::gix("open the repository"))?;
        let repository = Self { shared, place };
        if repository.local().object_hash() != gix::hash::Kind::Sha1 {
            return Err(Error::Unsupported { what: "sha256 objects".to_owned(), place: repository.place });
        }
        Ok(repository)
    }

    /// The folder that holds objects and branches; shared by all linked worktrees.
    #[must_use]
    pub fn common_dir(&self) -> std::path::PathBuf {
        self.local().common_dir().to_owned()
    }

    /// The folder that holds `HEAD`; differs from [`Self::common_dir`] in a linked worktree.
    #[must_use]
    pub fn git_dir(&self) -> std::path::PathBuf {
        self.local().git_dir().to_owned()
    }

    /// For error texts.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn local(&self) -> gix::Repository {
        let mut repository = self.shared.to_thread_local();
        repository.object_cache_size_if_unset(1 << 20);
        repository
    }

    /// Finds the commit that a revision names: a branch, tag, object name, `HEAD~1` and so on (gitrevisions(7)).
    ///
    /// # Errors
    /// [`Error::NotFound`] for anything that names no commit here.
    pub fn resolve(&self, revision: &str) -> Result<CommitId, Error> {
        let repository = self.local();
        let missing =
            || Error::NotFound { what: format!("revision {revision:?}"), place: self.place.clone() };
        let id = repository.rev_parse_single(revision.as_bytes().as_bstr()).map_err(|_| missing())?;
        let object = id.object().map_err(|_| missing())?;
        let commit = object.peel_to_commit().map_err(|_| missing())?;
        Ok(CommitId::new(commit.id))
    }

    /// Resolves `A..B`; a missing side means `HEAD`, and text without dots is one revision.
    ///
    /// # Errors
    /// As [`Self::resolve`]; `A...B` is [`Error::Malformed`].
    pub fn range(&self, text: &str) -> Result<Range, Error> {
        if text.contains("...") {
            return Err(Error::Malformed { text: text.to_owned(), wanted: "a revision or a range A..B" });
        }
        let side = |text: &str| self.resolve(if text.is_empty() { "HEAD" } else { text });
        match text.split_once("..") {
            Some((from, to)) => Ok(Range { from: Some(side(from)?), to: side(to)? }),
            None => Ok(Range { from: None, to: side(text)? }),
        }
    }

    /// Whether the commit itself is here.
    #[must_use]
    pub fn has_commit(&self, id: CommitId) -> bool {
        self.local().has_object(id.get())
    }

    /// Reads a commit.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Corrupt`] when it is no commit.
    pub fn commit(&self, id: CommitId) -> Result<CommitInfo, Error> {
        let data = self.commit_bytes(id)?;
        let corrupt = |source| self.corrupt(format!("commit {id}"), Some(source));
        let commit = gix::objs::CommitRef::from_bytes(&data, gix::hash::Kind::Sha1).map_err(corrupt)?;
        Ok(CommitInfo {
            id,
            tree: TreeId::new(commit.tree()),
            parents: commit.parents().map(CommitId::new).collect(),
            author: person(commit.author().map_err(corrupt)?),
            committer: person(commit.committer().map_err(corrupt)?),
            message: commit.message.to_str_lossy().into_owned(),
        })
    }

    /// The commit object's own bytes, signature included, as they were hashed.
    ///
    /// # Errors
    /// As [`Self::commit`]; [`Error::LimitExceeded`] above 1 MiB.
    pub fn commit_bytes(&self, id: CommitId) -> Result<Vec<u8>, Error> {
        let repository = self.local();
        let missing = |error| self.missing(format!("commit {id}"), error);
        if repository.find_header(id.get()).map_err(missing)?.size() > COMMIT_BYTES {
            let place = format!("commit {id}");
            return Err(Error::LimitExceeded { what: LimitKind::FileBytes, limit: COMMIT_BYTES, place });
        }
        let object = repository.find_object(id.get()).map_err(missing)?;
        if object.kind != gix::object::Kind::Commit {
            return Err(self.corrupt(format!("commit {id}"), None));
        }
        Ok(object.detach().data)
    }

    /// Reads a file's content.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] when it is longer than `limit` bytes; then nothing was read.
    pub fn blob(&self, id: BlobId, limit: u64) -> Result<Vec<u8>, Error> {
        let repository = self.local();
        if self.blob_size(&repository, id)? > limit {
            return Err(Error::LimitExceeded {
                what: LimitKind::FileBytes,
                limit,
                place: format!("blob {id}"),
            });
        }
        let blob =
            repository.find_blob(id.get()).map_err(|error| self.missing(format!("blob {id}"), error))?;
        Ok(blob.detach().data)
    }

    pub(super) fn blob_size(&self, repository: &gix::Repository, id: BlobId) -> Result<u64, Error> {
        let header =
            repository.find_header(id.get()).map_err(|error| self.missing(format!("blob {id}"), error))?;
        Ok(header.size())
    }

    pub(super) fn missing(&self, what: String, error: gix::Error) -> Error {
        if error.is_not_found() {
            return Error::NotFound { what, place: self.place.clone() };
        }
        self.corrupt(what, Some(error))
    }

    pub(super) fn corrupt(&self, what: String, source: Option<gix::Error>) -> Error {
        Error::Corrupt { what, place: self.place.clone(), source }
    }
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({})", self.place)
    }
}

/// Isolated from the machine's and the user's configuration; replacement refs and commit graphs are not believed.
///
/// A long-lived handle needs a slot for each pack that it ever saw: the default of 32 ends after as many fetches.
pub(super) fn options() -> gix::open::Options {
    gix::open::Options::isolated()
        .config_overrides(["core.useReplaceRefs=false", "core.commitGraph=false"])
        .object_store_slots(gix::odb::store::init::Slots::Given(1024))
        .open_path_as_is(true)
}

fn person(signature: gix::actor::SignatureRef<'_>) -> Person {
    Person {
        name: signature.name.to_str_lossy().into_owned(),
        email: signature.email.to_str_lossy().into_owned(),
        seconds: signature.seconds(),
    }
}
