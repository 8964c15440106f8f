//! A bare copy of a remote repository in a folder of ours.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

use super::id::CommitId;
use super::{Error, Repository};

/// Held by whoever has the mirror open. The kernel lets go of it when the process dies.
const GUARD: &str = "ostler-mirror";

/// Where the tips of the remote are kept. One level deep, so that `a` and later `a/b` do not collide on disk.
const TRACKED: &str = "refs/tracked/";

/// A bare copy that we alone write. It knows no URL and no credential: each operation brings its own
/// [`super::Remote`]. Share it behind an `Arc`; fetches take turns, reading goes on meanwhile.
#[derive(Debug)]
pub struct Mirror {
    repository: Repository,
    path: PathBuf,
    turn: Mutex<()>,
    _guard: Guard,
}

/// An exclusive lock, given back on drop: closing the file would not do while a child that another thread is just
/// starting still has a copy of it.
#[derive(Debug)]
struct Guard(File);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Mirror {
    /// Opens the mirror at `path` or makes an empty one, and removes what a killed process left behind.
    ///
    /// # Errors
    /// [`Error::Busy`] when the mirror is open already, here or in another process.
    pub fn open_or_init(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let guard = lock(&path.join(GUARD), path)?;
        sweep(path)?;
        if !path.join("HEAD").exists() {
            init(path)?;
        }
        let repository = Repository::open_git_dir(path, path.display().to_string())?;
        Ok(Self { repository, path: path.to_owned(), turn: Mutex::new(()), _guard: guard })
    }

    /// For reading.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a reference of the remote (`refs/heads/main`) stood at the last fetch.
    ///
    /// # Errors
    /// When the reference store cannot be read.
    pub fn tip(&self, reference: &str) -> Result<Option<CommitId>, Error> {
        Ok(self.tracked(reference)?.and_then(|id| self.commit_of(id)))
    }

    /// The object that a tracked reference names: a commit, or the tag that names it.
    pub(super) fn tracked(&self, reference: &str) -> Result<Option<gix::ObjectId>, Error> {
        let local = self.repository.local();
        let found = local
            .try_find_reference(&local_name(reference))
            .map_err(Error::gix("read a reference of the mirror"))?;
        Ok(found.and_then(|found| found.try_id().map(gix::Id::detach)))
    }

    /// All tracked references whose remote name starts with `prefix`, by remote name.
    pub(super) fn tracked_below(&self, prefix: &str) -> Result<Vec<(String, gix::ObjectId)>, Error> {
        let failed = || Error::gix("read the references of the mirror");
        let local = self.repository.local();
        let all = local.references().map_err(failed())?;
        let mut found = Vec::new();
        for reference in all.prefixed(TRACKED).map_err(failed())? {
            let reference = reference.map_err(failed())?;
            let name = remote_name(&reference.name().as_bstr().to_string());
            if let (true, Some(id)) = (name.starts_with(prefix), reference.try_id()) {
                found.push((name, id.detach()));
            }
        }
        Ok(found)
    }

    /// Follows tags.
    pub(super) fn commit_of(&self, id: gix::ObjectId) -> Option<CommitId> {
        let local = self.repository.local();
        let commit = local.find_object(id).ok()?.peel_to_commit().ok()?;
        Some(CommitId::new(commit.id))
    }

    /// One writer at a time.
    pub(super) fn take_turn(&self) -> std::sync::MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A percent sign is allowed in a reference name, and a slash becomes one.
pub(super) fn local_name(reference: &str) -> String {
    format!("{TRACKED}{}", reference.replace('%', "%25").replace('/', "%2F"))
}

fn remote_name(local: &str) -> String {
    local.trim_start_matches(TRACKED).replace("%2F", "/").replace("%25", "%")
}

fn lock(file: &Path, mirror: &Path) -> Result<Guard, Error> {
    let guard = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(file)
        .map_err(Error::io("open", file))?;
    match flock(&guard, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Guard(guard)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Busy { path: mirror.to_owned() }),
        Err(error) => Err(Error::io("lock", file)(error.into())),
    }
}

/// The layout of gitrepository-layout(5), as little of it as a bare repository needs. `HEAD` comes last: it says that
/// the rest is there.
fn init(path: &Path) -> Result<(), Error> {
    for folder in ["objects/info", "objects/pack", "refs/heads", "refs/tags"] {
        std::fs::create_dir_all(path.join(folder)).map_err(Error::io("create", path.join(folder)))?;
    }
    let config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n";
    for (name, content) in [("config", config), ("HEAD", "ref: refs/heads/main\n")] {
        std::fs::write(path.join(name), content).map_err(Error::io("write", path.join(name)))?;
    }
    Ok(())
}

/// Removes lock files, and half-written packs, of a process that is gone: we hold the guard.
fn sweep(path: &Path) -> Result<(), Error> {
    let packs = path.join("objects/pack");
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(Error::io("list", &folder))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &folder))?;
            let kind = entry.file_type().map_err(Error::io("look at", entry.path()))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let half_written = folder == packs && !name.starts_with("pack-");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if has_extension(&name, "lock")
                || half_written
                || (folder == packs && has_extension(&name, "keep"))
            {
                std::fs::remove_file(entry.path()).map_err(Error::io("remove", entry.path()))?;
            }
        }
    }
    remove_packs_without_index(&packs)
}

/// A pack is moved into place before its index; without the index nothing finds it.
fn remove_packs_without_index(packs: &Path) -> Result<(), Error> {
    let Ok(entries) = std::fs::read_dir(packs) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "pack") && !path.with_extension("idx").exists() {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_references_go_to_one_level_and_back() {
        for name in ["refs/heads/main", "refs/heads/a/b", "refs/heads/100%", "refs/heads/a%2Fb"] {
            let local = local_name(name);
            assert_eq!(local.matches('/').count(), 2, "{local}");
            assert_eq!(remote_name(&local), name);
        }
    }

    #[test]
    fn opening_sweeps_what_a_killed_process_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mirror");
        drop(Mirror::open_or_init(&path).unwrap());
        let left = ["shallow.lock", "packed-refs.lock", "objects/pack/.tmpAbc", "objects/pack/pack-1.pack"];
        for name in left {
            std::fs::write(path.join(name), "").unwrap();
        }
        let mirror = Mirror::open_or_init(&path).unwrap();
        for name in left {
            assert!(!path.join(name).exists(), "{name}");
        }
        assert!(matches!(Mirror::open_or_init(&path), Err(Error::Busy { .. })));
        drop(mirror);
        Mirror::open_or_init(&path).unwrap();
    }
}
