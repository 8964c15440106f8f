//! A clone for an agent: an ordinary repository with its files, in which any Git program works.

use std::{
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use gix::refs::{FullName, Target};

use crate::git::{self, CommitId, Limits, Location, Remote, Repository, budget::Budget, session::Session};

/// Why there is no work tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder is a symlink, no folder, or has something in it.
    #[error("{} is not an empty folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// Not usable as a branch name.
    #[error("{0:?} is not a branch name")]
    Branch(String),
    /// The remote failed, or does not have the revision.
    #[error("fetching")]
    Fetch(#[source] Box<git::Error>),
    /// Files could not be written.
    #[error("{doing} {}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The new repository failed.
    #[error("checking out: {doing}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// What gix said.
        #[source]
        source: gix::Error,
    },
    /// Some files could not be written, such as two names that are one on this file system.
    #[error("{count} files could not be checked out, the first is {first:?}")]
    Files {
        /// How many.
        count: usize,
        /// The first one.
        first: String,
    },
}

impl From<git::Error> for Error {
    fn from(error: git::Error) -> Self {
        Self::Fetch(Box::new(error))
    }
}

/// What to check out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    /// Whatever the remote's `HEAD` is.
    Head,
    /// The tip of a branch.
    Branch(String),
    /// A tag.
    Tag(String),
    /// A commit by name, for servers that allow it.
    Commit(CommitId),
}

/// A checkout to make.
#[derive(Debug)]
pub struct Checkout<'a> {
    /// The repository.
    pub remote: &'a Remote,
    /// What the checkout remembers as its origin; `None`: the repository as it was reached.
    pub origin: Option<Location>,
    /// What to check out.
    pub revision: Revision,
    /// The local branch that will be checked out.
    pub branch: String,
    /// How many commits of history; none for all.
    pub depth: Option<NonZeroU32>,
    /// Caps of the fetch.
    pub limits: Limits,
}

/// A finished checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedOut {
    /// The commit that is checked out.
    pub commit: CommitId,
    /// Files written.
    pub files: usize,
}

fn store(doing: &'static str) -> impl FnOnce(gix::Error) -> Error {
    move |source| Error::Store { doing, source }
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { doing, path, source }
}

impl Checkout<'_> {
    /// Clones into `directory`, which is made if need be and must be empty. Runs no program of the repository: no hook,
    /// no filter. The stored URL has no credential in it. After an error the folder may hold a part.
    pub fn run(&self, directory: &Path, interrupt: &AtomicBool) -> Result<CheckedOut, Error> {
        let local = FullName::try_from(format!("refs/heads/{}", self.branch))
            .map_err(|_| Error::Branch(self.branch.clone()))?;
        empty(directory)?;
        let git_dir = directory.join(".git");
        self.init(&git_dir, &local)?;
        let repository = Repository::open_git_dir(&git_dir, directory.display().to_string())?;
        let commit = self.fetch(&repository, interrupt)?;
        // Opened again as a work tree, because only now there is something to see.
        let work = git::repository::options()
            .open(&git_dir)
            .map_err(store("opening the repository"))?
            .to_thread_local();
        self.point(&work, &local, commit)?;
        let files = write_files(&work, directory, commit, interrupt)?;
        Ok(CheckedOut { commit, files })
    }

    /// The layout of gitrepository-layout(5), with nothing from templates: no hooks.
    fn init(&self, git_dir: &Path, local: &FullName) -> Result<(), Error> {
        for folder in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info"] {
            let folder = git_dir.join(folder);
            fs::create_dir_all(&folder).map_err(file("making", &folder))?;
        }
        let origin = self.origin.as_ref().unwrap_or_else(|| self.remote.location());
        let config = config(&origin.to_string(), &self.branch, &self.revision);
        for (name, content) in [("config", config), ("HEAD", format!("ref: {local}\n"))] {
            let path = git_dir.join(name);
            fs::write(&path, content).map_err(file("writing", &path))?;
        }
        Ok(())
    }

    fn fetch(&self, repository: &Repository, interrupt: &AtomicBool) -> Result<CommitId, Error> {
        use gix::protocol::fetch::Shallow;
        let budget = Budget::new(self.remote, &self.limits, interrupt);
        let mut session = Session::open(self.remote, &budget)?;
        let shallow = self.depth.map_or(Shallow::NoChange, Shallow::DepthAtRemote);
        let name = match &self.revision {
            Revision::Head => "HEAD".to_owned(),
            Revision::Branch(name) => format!("refs/heads/{name}"),
            Revision::Tag(name) => format!("refs/tags/{name}"),
            Revision::Commit(id) => id.to_string(),
        };
        let id = if let Revision::Commit(id) = &self.revision {
            id.get()
        } else {
            let listed = session.references(std::slice::from_ref(&name))?;
            let place = self.remote.location().to_string();
            *listed.get(&name).ok_or_else(|| git::Error::NotFound { what: name.clone(), place })?
        };
        session.receive(repository, &[(&name, &id)], &shallow, &self.limits)?;
        let local = repository.local();
        let commit = local
            .find_object(id)
            .and_then(gix::Object::peel_to_commit)
            .map_err(store("finding the commit"))?;
        Ok(CommitId::new(commit.id))
    }

    /// The local branch, and the remote-tracking one when a branch was asked for.
    fn point(&self, repository: &gix::Repository, local: &FullName, commit: CommitId) -> Result<(), Error> {
        use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog};
        let mut names = vec![local.clone()];
        if let Revision::Branch(name) = &self.revision {
            let tracking = format!("refs/remotes/origin/{name}");
            names.push(FullName::try_from(tracking).map_err(|_| Error::Branch(name.clone()))?);
        }
        let log =
            LogChange { mode: RefLog::AndReference, force_create_reflog: false, message: "clone".into() };
        let edits = names.into_iter().map(|name| RefEdit {
            change: Change::Update {
                log: log.clone(),
                expected: PreviousValue::MustNotExist,
                new: Target::Object(commit.get()),
            },
            name,
            deref: false,
        });
        let nobody = gix::actor::Signature {
            name: "ostler".into(),
            email: "".into(),
            time: gix::date::Time::new(0, 0),
        };
        let mut buffer = gix::date::parse::TimeBuf::default();
        repository
            .edit_references_as(edits, Some(nobody.to_ref(&mut buffer)))
            .map_err(store("writing the branch"))?;
        Ok(())
    }
}

/// A configuration value in double quotes (git-config(1)).
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

fn config(url: &str, branch: &str, revision: &Revision) -> String {
    let tracking = match revision {
        Revision::Branch(upstream) => format!(
            "[branch {}]\n\tremote = origin\n\tmerge = {}\n",
            quoted(branch),
            quoted(&format!("refs/heads/{upstream}"))
        ),
        Revision::Head | Revision::Tag(_) | Revision::Commit(_) => String::new(),
    };
    format!(
        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n\
         [remote \"origin\"]\n\turl = {}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n{tracking}",
        quoted(url)
    )
}

fn empty(directory: &Path) -> Result<(), Error> {
    let not_empty = || Error::NotEmpty { path: directory.to_owned() };
    match fs::symlink_metadata(directory) {
        Ok(found) if !found.is_dir() => return Err(not_empty()),
        Ok(_) => {}
        Err(_) => fs::create_dir_all(directory).map_err(file("making", directory))?,
    }
    let mut entries = fs::read_dir(directory).map_err(file("listing", directory))?;
    if entries.next().is_some() { Err(not_empty()) } else { Ok(()) }
}

/// Writes the files and the index. gix makes folders and files one by one below the folder, symlinks last, and refuses
/// names that lead elsewhere.
fn write_files(
    repository: &gix::Repository,
    directory: &Path,
    commit: CommitId,
    interrupt: &AtomicBool,
) -> Result<usize, Error> {
    let found = repository.find_commit(commit.get()).map_err(store("finding the commit"))?;
    let tree = found.tree_id().map_err(store("finding the tree"))?;
    let mut index = repository.index_from_tree(&tree).map_err(store("listing the files"))?;
    let mut options = repository
        .checkout_options(gix::worktree::stack::state::attributes::Source::IdMapping)
        .map_err(store("preparing"))?;
    options.destination_is_initially_empty = true;
    options.keep_going = true;
    options.thread_limit = Some(2);
    let outcome = gix::worktree::state::checkout(
        &mut index,
        directory,
        repository
            .objects
            .clone()
            .into_arc()
            .map_err(|source| file("opening the objects of", directory)(source))?,
        &gix::progress::Discard,
        &gix::progress::Discard,
        interrupt,
        options,
    )
    .map_err(store("writing the files"))?;
    let problems = outcome.collisions.len() + outcome.errors.len();
    if problems > 0 {
        let first = outcome.collisions.first().map(|collision| collision.path.to_string());
        let first = first.or_else(|| outcome.errors.first().map(|error| error.path.to_string()));
        return Err(Error::Files { count: problems, first: first.unwrap_or_default() });
    }
    index.write(gix::index::write::Options::default()).map_err(store("writing the index"))?;
    Ok(outcome.files_updated)
}
