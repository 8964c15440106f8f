//! Observes the repository: fetches its revision and reads what changed. Blocking parts run on their own threads.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    git::{
        self, CommitId, FetchRequest, Limits, Mirror, Movement, Remote, Selection, signers::AllowedSigners,
    },
    kinds::config_repository::ConfigRepositorySpec,
    manifest::{Change, Desired, Files, MAX_FILE_BYTES, MAX_PROMPT_BYTES, Scope},
    names::RepoPath,
};

/// What a repository is read by: anything that, when it differs, makes every file count as new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    path: String,
    include: Vec<String>,
    exclude: Vec<String>,
    allowed_namespaces: Vec<String>,
    allowed_repositories: Option<Vec<String>>,
}

/// Files that count when none are named.
const DEFAULT_INCLUDE: [&str; 2] = ["**/*.yaml", "**/*.yml"];

impl Reading {
    pub(super) fn of(spec: &ConfigRepositorySpec) -> Self {
        let include = if spec.include.is_empty() {
            DEFAULT_INCLUDE.map(str::to_owned).to_vec()
        } else {
            spec.include.clone()
        };
        Self {
            path: spec.path.clone().unwrap_or_default(),
            include,
            exclude: spec.exclude.clone(),
            allowed_namespaces: spec.allowed_namespaces.clone(),
            allowed_repositories: spec.allowed_repositories().map(<[String]>::to_vec),
        }
    }

    fn selection(&self) -> Result<Selection, git::Error> {
        Selection::new(&self.path, &self.include, &self.exclude)
    }
}

/// A commit that was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) commit: CommitId,
    pub(super) movement: Movement,
}

/// A mirror, and what was read from it so far.
pub(super) struct Source {
    mirror: Arc<Mirror>,
    read: Option<Read>,
}

/// Files as they stood at a commit.
struct Read {
    commit: CommitId,
    reading: Reading,
    files: Files,
    prompts: BTreeMap<RepoPath, Vec<u8>>,
}

impl Source {
    /// Opens the mirror.
    pub(super) fn open(path: &Path) -> Result<Self, git::Error> {
        Ok(Self { mirror: Arc::new(Mirror::open_or_init(path)?), read: None })
    }

    /// Fetches what `spec.ref` names. When nothing moved, the remote is asked for its list of references only.
    pub(super) async fn fetch(
        &self,
        remote: Remote,
        spec: &ConfigRepositorySpec,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Fetched, git::Error> {
        let mirror = Arc::clone(&self.mirror);
        let (request, name) = request(spec)?;
        blocking(&interrupt.clone(), move || {
            let fetched = mirror.fetch(&remote, &request, &Limits::default(), &interrupt)?;
            let place = remote.location().to_string();
            let tip = fetched.tips.get(&name).copied();
            let tip = tip.ok_or(git::Error::NotFound { what: name, place })?;
            Ok(Fetched { commit: tip.commit, movement: tip.movement })
        })
        .await
    }

    /// True when a commit is signed by one of `signers`.
    pub(super) fn verify(
        &self,
        commit: CommitId,
        signers: &AllowedSigners,
    ) -> Result<git::sign::Verdict, git::Error> {
        let bytes = self.mirror.repository().commit_bytes(commit)?;
        Ok(git::sign::verify_commit(&bytes, signers))
    }

    /// Reads the difference to `commit` and gives what all files together ask for.
    pub(super) async fn read(
        &mut self,
        commit: CommitId,
        reading: &Reading,
        scope: Scope,
    ) -> Result<Desired, git::Error> {
        let former = self.read.take().filter(|read| read.reading == *reading);
        let mirror = Arc::clone(&self.mirror);
        let reading = reading.clone();
        let read = blocking(&AtomicBool::new(false), move || {
            let former = former.filter(|read| mirror.repository().has_commit(read.commit));
            read_to(&mirror, former, commit, reading, scope)
        })
        .await?;
        let desired = read.files.desired(|path| read.prompts.get(path).cloned());
        self.read = Some(read);
        Ok(desired)
    }
}

/// Runs on a blocking thread; when this future is dropped, the operation is told to end.
async fn blocking<T: Send + 'static>(
    interrupt: &AtomicBool,
    work: impl FnOnce() -> Result<T, git::Error> + Send + 'static,
) -> Result<T, git::Error> {
    struct EndWithUs<'a>(&'a AtomicBool);
    impl Drop for EndWithUs<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let guard = EndWithUs(interrupt);
    let outcome = tokio::task::spawn_blocking(work).await;
    std::mem::forget(guard);
    outcome.unwrap_or_else(|failure| std::panic::resume_unwind(failure.into_panic()))
}

/// What to ask for, and under which name the answer comes.
fn request(spec: &ConfigRepositorySpec) -> Result<(FetchRequest, String), git::Error> {
    let request = FetchRequest::new();
    let Some(reference) = &spec.reference else {
        return Ok((request.head(), "HEAD".to_owned()));
    };
    match (&reference.branch, &reference.tag, &reference.commit) {
        (Some(branch), _, _) => Ok((request.branch(branch)?, format!("refs/heads/{branch}"))),
        (None, Some(tag), _) => Ok((request.tag(tag)?, format!("refs/tags/{tag}"))),
        (None, None, Some(commit)) => Ok((request.commit(commit.parse()?), commit.clone())),
        (None, None, None) => Ok((request.head(), "HEAD".to_owned())),
    }
}

fn read_to(
    mirror: &Mirror,
    former: Option<Read>,
    commit: CommitId,
    reading: Reading,
    scope: Scope,
) -> Result<Read, git::Error> {
    let (repository, limits) = (mirror.repository(), Limits::default());
    let selection = reading.selection()?;
    let mut changes = Vec::new();
    let mut written = |entry: &git::Entry| -> Result<(), git::Error> {
        let Ok(path) = entry.path.parse() else { return Ok(()) };
        let bytes = content(repository, entry, MAX_FILE_BYTES)?;
        changes.push(Change::Written { path, blob: entry.blob.to_string(), bytes });
        Ok(())
    };
    let mut files = if let Some(former) = former {
        let mut removed = Vec::new();
        for change in repository.diff(former.commit, commit, &selection, &limits)? {
            match change {
                git::Change::Added(new) | git::Change::Modified { new, .. } => written(&new)?,
                git::Change::Renamed { old, new } => {
                    removed.push(old.path);
                    written(&new)?;
                }
                git::Change::Removed(old) => removed.push(old.path),
            }
        }
        let mut files = former.files;
        files.update(removed.iter().filter_map(|path| path.parse().ok()).map(Change::Removed));
        files
    } else {
        for entry in repository.files(commit, &selection, &limits)? {
            written(&entry)?;
        }
        Files::new(scope)
    };
    files.update(changes);
    let mut prompts = BTreeMap::new();
    for path in files.prompts() {
        if !prompts.contains_key(path)
            && let Some(entry) = repository.file(commit, path.as_str(), &limits)?
        {
            prompts.insert(path.clone(), content(repository, &entry, MAX_PROMPT_BYTES)?);
        }
    }
    Ok(Read { commit, reading, files, prompts })
}

/// A file's content. Of one that is too large, just so much that whoever reads it sees that: the place of the error is
/// where files are judged.
fn content(repository: &git::Repository, entry: &git::Entry, most: usize) -> Result<Vec<u8>, git::Error> {
    if entry.size > most as u64 || entry.kind == git::EntryKind::Submodule {
        return Ok(vec![b'#'; most + 1]);
    }
    repository.blob(entry.blob, most as u64)
}
