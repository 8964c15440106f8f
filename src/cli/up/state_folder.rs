//! The state folder: one control plane's memory on this machine. One process owns it at a time.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use etcetera::BaseStrategy;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// How long the lock of a process that is gone may stay.
const ORPHAN_TIME: Duration = Duration::from_secs(10);

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The user has no home.
    #[error("the user's folders cannot be found; give --state DIR")]
    NoHome(#[source] etcetera::HomeDirError),
    /// It cannot be made, read or written.
    #[error("failed to use {path}")]
    Io {
        /// Which file or folder.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process owns it.
    #[error(
        "state folder {path} is in use by process {holder}; stop that `ostler up`, or give another --state"
    )]
    InUse {
        /// The folder.
        path: String,
        /// The other process.
        holder: String,
    },
    /// Others may write it.
    #[error("state folder {path} can be changed by other users; chmod 700 it")]
    Open {
        /// The folder.
        path: String,
    },
    /// The file with the control plane's id does not hold a UUID.
    #[error("{path} does not hold a UUID; the state folder is damaged")]
    Holder {
        /// The file.
        path: String,
    },
}

/// Below it, each repository followed by `ostler up` without `--state` has its folder.
///
/// # Errors
/// When the user has no home.
pub fn default_root() -> Result<PathBuf, StateError> {
    let strategy = etcetera::choose_base_strategy().map_err(StateError::NoHome)?;
    Ok(strategy.state_dir().unwrap_or_else(|| strategy.data_dir()).join("ostler"))
}

/// The default state folder of a repository: by hash of its URL.
///
/// # Errors
/// When the user has no home.
pub fn default_for(url: &str) -> Result<PathBuf, StateError> {
    let hash = Sha256::digest(url.as_bytes());
    Ok(default_root()?.join(crate::ledger::digest::hex(&hash[..8])))
}

/// The user's config folder, which holds the default signing key.
///
/// # Errors
/// When the user has no home.
pub fn config_folder() -> Result<PathBuf, StateError> {
    let strategy = etcetera::choose_base_strategy().map_err(StateError::NoHome)?;
    Ok(strategy.config_dir().join("ostler"))
}

/// Paths in a state folder.
#[derive(Debug, Clone)]
pub struct Layout(PathBuf);

impl Layout {
    /// The layout of a folder, whether it exists or not.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The object store.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    /// The socket that serves the Objects port.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join("ostler.sock")
    }

    /// The socket that takes results in.
    #[must_use]
    pub fn recorder_socket(&self) -> PathBuf {
        self.0.join("recorder.sock")
    }

    /// Mirrors of repositories.
    #[must_use]
    pub fn mirrors(&self) -> PathBuf {
        self.0.join("mirrors")
    }

    /// Results on their way in.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }

    /// Places of runs, each named after its run's UID.
    #[must_use]
    pub fn places(&self) -> PathBuf {
        self.0.join("places")
    }

    /// Workspaces of sessions.
    #[must_use]
    pub fn workspaces(&self) -> PathBuf {
        self.0.join("workspaces")
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }

    /// The folder of secrets that is used when none is named.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.0.join("secrets")
    }

    /// A link to the folder of secrets that was named, so that verbs find it; there is none when none was named.
    #[must_use]
    pub fn named_secrets(&self) -> PathBuf {
        self.0.join("secrets.named")
    }

    /// The address of the API, while it runs.
    #[must_use]
    pub fn api_address(&self) -> PathBuf {
        self.0.join("api.addr")
    }

    /// A token for reading the API, while it runs; mode 0600.
    #[must_use]
    pub fn api_token(&self) -> PathBuf {
        self.0.join("api.token")
    }

    fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    fn holder(&self) -> PathBuf {
        self.0.join("holder")
    }
}

/// A state folder that this process owns; dropping it lets go.
#[derive(Debug)]
pub struct StateFolder {
    layout: Layout,
    holder: Uuid,
    lock: File,
}

impl Drop for StateFolder {
    /// Closing the file alone would not do: a child that another thread is just starting holds it, too, until it executes
    /// its program.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl StateFolder {
    /// Makes or opens the folder (mode 0700) and takes its lock.
    ///
    /// # Errors
    /// [`StateError::InUse`] names the process that has it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |source| StateError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io(path))?;
        let mode = fs::metadata(path).map_err(io(path))?.permissions().mode();
        if mode & 0o022 != 0 {
            return Err(StateError::Open { path: path.display().to_string() });
        }
        let layout = Layout::of(&fs::canonicalize(path).map_err(io(path))?);
        let lock = lock(&layout)?;
        let holder = holder(&layout)?;
        for folder in [layout.mirrors(), layout.spool()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io(&folder))?;
        }
        Ok(Self { layout, holder, lock })
    }

    /// Its paths.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// This control plane's id: claims in the ledger carry it, and only their holder records their results.
    #[must_use]
    pub fn holder(&self) -> Uuid {
        self.holder
    }
}

/// Takes the lock. Of a process that was killed, a child which it was just starting may hold it for a moment more.
fn lock(layout: &Layout) -> Result<File, StateError> {
    let path = layout.lock();
    let io = |source| StateError::Io { path: path.display().to_string(), source };
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
    let deadline = Instant::now() + ORPHAN_TIME;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // who holds it is only told
                let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
                let holder = holder.trim().to_owned();
                if is_alive(&holder) || Instant::now() > deadline {
                    let path = layout.root().display().to_string();
                    return Err(StateError::InUse { path, holder });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
    }
    file.rewind().map_err(io)?;
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

/// Whether the process of this number lives; what is no number is nobody.
fn is_alive(holder: &str) -> bool {
    let pid = holder.parse().ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// True while a process owns the folder.
#[must_use]
pub fn is_owned(layout: &Layout) -> bool {
    let Ok(file) = File::open(layout.lock()) else { return false };
    let found = file.try_lock_shared();
    // for the same reason as when the folder is dropped
    let _ = file.unlock();
    matches!(found, Err(TryLockError::WouldBlock))
}

fn holder(layout: &Layout) -> Result<Uuid, StateError> {
    let path = layout.holder();
    let io = |source| StateError::Io { path: path.display().to_string(), source };
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| StateError::Holder { path: path.display().to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let holder = Uuid::new_v4();
            let staged = path.with_extension("new");
            fs::write(&staged, format!("{holder}\n"))
                .and_then(|()| fs::rename(&staged, &path))
                .map_err(io)?;
            Ok(holder)
        }
        Err(error) => Err(io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_and_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = StateFolder::open(&path).unwrap();
        let own = std::process::id().to_string();
        assert!(matches!(StateFolder::open(&path), Err(StateError::InUse { holder, .. }) if holder == own));
        assert!(is_owned(first.layout()));
        let holder = first.holder();
        drop(first);
        let again = StateFolder::open(&path).unwrap();
        assert_eq!(again.holder(), holder);
    }

    #[test]
    fn a_folder_is_free_although_a_child_still_holds_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateFolder::open(dir.path()).unwrap();
        // As a fork does, until it executes its program.
        let inherited = first.lock.try_clone().unwrap();
        drop(first);
        assert!(!is_owned(&Layout::of(dir.path())));
        StateFolder::open(dir.path()).unwrap();
        drop(inherited);
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(StateFolder::open(dir.path()), Err(StateError::Open { .. })));
    }
}
