//! The folder of a place: all that a run has on this machine.
//!
//! ```text
//! place.json      what was asked for; written once
//! confirmed       exists once the place's UID is in the run's status
//! state.json      how far the sidecar is; replaced as a whole at each step
//! sidecar.lock    locked while the sidecar lives
//! sidecar.log     what the sidecar says
//! control/        the sidecar's socket, for the controller
//! shared/         shown read-only inside as /run/ostler: the shim's socket and program
//! etc/            the few files of /etc that are ours
//! workspace/ home/ tmp/   what the agent may write
//! outbox/         output.log while the agent runs; result.tar and digest once it is collected
//! ```

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{pod::Surroundings, process::Process};
use crate::{
    kinds::harness_run::{EgressSeen, Startup},
    names::{CommitId, Uid},
    ports::workloads::{NamedPolicy, PlaceSpec, Stage},
    report::End,
    shim::wire::Size,
};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceFile {
    /// The place's own UID.
    pub uid: Uid,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// What runs.
    pub spec: PlaceSpec,
    /// A terminal of this size instead of pipes.
    pub terminal: Option<Size>,
    /// What it stands on.
    #[serde(flatten)]
    pub ground: Ground,
    /// True: limits that an author wrote need not be enforced.
    pub allow_unenforced: bool,
    /// How long the agent may go on without a controller, in milliseconds.
    pub patience_ms: u64,
}

impl PlaceFile {
    /// How long the agent may go on without a controller.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms)
    }

    /// The pod, if it is one.
    #[must_use]
    pub fn pod(&self) -> Option<&Surroundings> {
        match &self.ground {
            Ground::Pod { pod } => Some(pod),
            Ground::Machine(_) => None,
        }
    }
}

/// What a place stands on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ground {
    /// Two containers of a pod.
    Pod {
        /// What its sidecar knows of it.
        pod: Box<Surroundings>,
    },
    /// Two processes of a machine.
    Machine(Machine),
}

/// What a place needs of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// The workspace, if it is not the place's own.
    pub workspace: Option<PathBuf>,
    /// The recorder's socket.
    pub recorder: PathBuf,
    /// A hosts(5) file whose names the proxy resolves first.
    pub egress_hosts: Option<PathBuf>,
}

/// Where the sidecar finds the parts of a place that the agent sees, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rooms {
    /// The shim's socket.
    pub shared: PathBuf,
    /// The workspace.
    pub workspace: PathBuf,
    /// The agent's home.
    pub home: PathBuf,
    /// Its temporary files.
    pub tmp: PathBuf,
}

/// How far a sidecar is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// How far.
    pub stage: Stage,
    /// The sidecar.
    pub sidecar: Process,
    /// The agent's PID 1, as this machine counts.
    pub shim: Option<Process>,
    /// When the agent was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Steps of the start.
    pub startup: Startup,
    /// The policies in force, once they are others than at the start.
    #[serde(default)]
    pub policies: Option<Vec<NamedPolicy>>,
    /// What the proof of egress said.
    pub egress_proven: Option<String>,
    /// Limits that are not enforced, by name.
    pub limits_not_enforced: Option<Vec<String>>,
    /// What the proxy saw.
    pub egress: EgressSeen,
    /// The commit that was checked out.
    pub base: Option<CommitId>,
    /// How it ended.
    pub end: Option<End>,
    /// Why the result is not acknowledged yet.
    pub delivery_error: Option<String>,
}

impl State {
    /// A sidecar that was just started.
    #[must_use]
    pub fn new(sidecar: Process) -> Self {
        Self {
            stage: Stage::Created,
            sidecar,
            shim: None,
            started_at: None,
            ended_at: None,
            startup: Startup::default(),
            policies: None,
            egress_proven: None,
            limits_not_enforced: None,
            egress: EgressSeen::default(),
            base: None,
            end: None,
            delivery_error: None,
        }
    }
}

/// The folder of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// The place in this folder, which need not exist.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self(root)
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The sidecar's socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.0.join("control/sidecar.sock")
    }

    /// Our files of `/etc`.
    #[must_use]
    pub fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }

    /// The parts that the agent sees, too: of the folder, or volumes of a pod.
    #[must_use]
    pub fn rooms(&self, place: &PlaceFile) -> Rooms {
        match &place.ground {
            Ground::Pod { pod } => pod.layout.rooms(),
            Ground::Machine(machine) => Rooms {
                shared: self.0.join("shared"),
                workspace: machine.workspace.clone().unwrap_or_else(|| self.0.join("workspace")),
                home: self.0.join("home"),
                tmp: self.0.join("tmp"),
            },
        }
    }

    /// What is kept until it is acknowledged.
    #[must_use]
    pub fn outbox(&self) -> PathBuf {
        self.0.join("outbox")
    }

    /// The agent's output.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.outbox().join(crate::report::OUTPUT)
    }

    /// The sidecar's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("sidecar.log")
    }

    /// Makes the folder with all its parts, at once or not at all. False: it was there before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(&self, place: &PlaceFile) -> io::Result<bool> {
        if self.0.exists() {
            return Ok(false);
        }
        let parent = self.0.parent().ok_or(io::ErrorKind::InvalidInput)?;
        private_dir(parent)?;
        let new = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        let inside = Self(new.path().to_owned());
        for part in ["control", "shared", "etc", "workspace", "home", "tmp", "outbox"] {
            private_dir(&inside.0.join(part))?;
        }
        inside.write("place.json", place)?;
        match fs::rename(new.path(), &self.0) {
            Ok(()) => {
                let _moved = new.keep();
                fs::File::open(parent)?.sync_all()?;
                Ok(true)
            }
            Err(_) if self.0.exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What was asked for.
    ///
    /// # Errors
    /// `NotFound` when there is no place.
    pub fn place(&self) -> io::Result<PlaceFile> {
        self.read("place.json")?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// How far the sidecar is; `None`: none was ever started.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn state(&self) -> io::Result<Option<State>> {
        self.read("state.json")
    }

    /// Replaces the state.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_state(&self, state: &State) -> io::Result<()> {
        self.write("state.json", state)
    }

    /// Marks the place as known to the run's status.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn confirm(&self) -> io::Result<()> {
        fs::File::create(self.0.join("confirmed"))?.sync_all()
    }

    /// Whether it is marked.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.0.join("confirmed").exists()
    }

    /// Takes the sidecar's lock, which goes with the process; `None`: a sidecar lives.
    ///
    /// # Errors
    /// When the folder is gone.
    pub fn lock(&self) -> io::Result<Option<fs::File>> {
        let mut options = fs::File::options();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(self.lock_file())?;
        Ok(try_lock(&file, FlockOperation::NonBlockingLockExclusive)?.then_some(file))
    }

    /// Whether a sidecar lives.
    ///
    /// # Errors
    /// When the lock cannot be looked at.
    pub fn has_sidecar(&self) -> io::Result<bool> {
        match fs::File::open(self.lock_file()) {
            Ok(file) => {
                let free = try_lock(&file, FlockOperation::NonBlockingLockShared)?;
                // Closing alone would not do while a child of another thread, not yet at its program, holds the file, too.
                let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
                Ok(!free)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn lock_file(&self) -> PathBuf {
        self.0.join("sidecar.lock")
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        match fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        write_atomically(&self.0.join(name), &serde_json::to_vec(value)?)
    }
}

/// True: the lock is taken, until the file is closed.
fn try_lock(file: &fs::File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Replaces a file as a whole: after a crash it has the old content or the new one. Only this user can read it.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_data()?;
    file.persist(path)?;
    Ok(())
}

/// Makes a folder, and those above it, for this user only.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
