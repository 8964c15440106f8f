//! Places on this machine: a folder, a sidecar and a container each.
//!
//! The adapter holds nothing that a restart would miss. A place is its folder; the sidecar in it belongs to nobody and
//! goes on when the process that started it ends. A `keeper` task looks after each place for as long as it has a
//! sidecar.

mod keeper;
mod secrets;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use crate::{
    harness::{
        control::{self, Request},
        place::{Folder, PlaceFile, State},
    },
    kinds::{
        Reason,
        harness_run::{EgressSeen, Startup},
    },
    names::Uid,
    ports::{
        self,
        workloads::{
            Error, NamedPolicy, Place, PlaceSpec, RunKey, SidecarStream, Stage, StopReason,
            sidecar::LogsRequest,
        },
    },
};

/// Changes that wait for a slow reader; one that falls behind further is told of all places.
const CHANGES: usize = 256;
/// How long killed processes may take to go.
const KILL_TIME: Duration = Duration::from_secs(10);
/// Bytes on their way to a reader of an ended run's output.
const LOG_BUFFER: usize = 64 << 10;

/// Makes the token by which the recorder knows the sidecar of a run.
pub type RunTokens =
    Arc<dyn Fn(&RunKey) -> Result<SecretString, Box<dyn std::error::Error + Send + Sync>> + Send + Sync>;

/// What the adapter needs to know.
#[derive(Clone)]
pub struct Options {
    /// The state folder; places are in `places/` of it, workspaces of sessions in `workspaces/`.
    pub state: PathBuf,
    /// The `ostler` program to run as sidecar and shim.
    pub program: PathBuf,
    /// The recorder's socket.
    pub recorder: PathBuf,
    /// A hosts(5) file for the runs' proxies.
    pub egress_hosts: Option<PathBuf>,
    /// True: limits that an author wrote need not be enforced.
    pub allow_unenforced: bool,
    /// How long an agent may go on without a controller; 10 minutes is the default of `up`.
    pub patience: Duration,
    /// Makes the runs' tokens.
    pub tokens: RunTokens,
    /// Where secrets come from.
    pub secrets: Arc<dyn ports::Secrets>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("state", &self.state)
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// Places on this machine.
#[derive(Debug, Clone)]
pub struct EmbeddedWorkloads {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    changes: broadcast::Sender<RunKey>,
    keepers: Mutex<BTreeMap<Uid, keeper::Keeper>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The tasks hold no strong reference, so that this is reached; the places go on.
        self.keepers.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl EmbeddedWorkloads {
    /// Looks after the places of a state folder, those of an earlier process included. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn open(options: Options) -> io::Result<Self> {
        for part in ["places", "workspaces"] {
            crate::harness::place::private_dir(&options.state.join(part))?;
        }
        let shared =
            Arc::new(Shared { options, changes: broadcast::Sender::new(CHANGES), keepers: Mutex::default() });
        let this = Self { shared };
        for folder in this.shared.folders()? {
            // A place that cannot be read now is looked at again by whoever asks for it.
            if let Ok(place) = folder.place()
                && needs_keeper(&folder)
            {
                this.keep(&place.spec);
            }
        }
        Ok(this)
    }

    /// Has a task look after the place, unless one does.
    fn keep(&self, spec: &PlaceSpec) {
        let mut keepers = self.shared.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        let keeper = keepers.get(&spec.run.uid);
        if keeper.is_none_or(keeper::Keeper::is_finished) {
            let keeper = keeper::Keeper::start(&self.shared, spec.clone());
            keepers.insert(spec.run.uid.clone(), keeper);
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || work(&shared)).await.map_err(io::Error::other)?
    }

    /// The folder and content of a place that exists.
    fn existing(&self, run: &Uid) -> Result<(Folder, PlaceFile), Error> {
        let folder = self.shared.folder(run);
        match folder.place() {
            Ok(place) => Ok((folder, place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotFound(unknown(run))),
            Err(error) => Err(unavailable(&unknown(run), "the place's folder")(error)),
        }
    }
}

/// Names a run of which only the UID is known.
fn unknown(run: &Uid) -> RunKey {
    RunKey {
        namespace: "unknown".parse().expect("a namespace"),
        name: "unknown".parse().expect("a name"),
        uid: run.clone(),
    }
}

fn unavailable(run: &RunKey, what: &'static str) -> impl FnOnce(io::Error) -> Error {
    let run = run.clone();
    move |source| Error::Unavailable { run, what, source: source.into() }
}

impl Shared {
    fn places(&self) -> PathBuf {
        self.options.state.join("places")
    }

    fn folder(&self, run: &Uid) -> Folder {
        Folder::new(self.places().join(run.as_str()))
    }

    fn workspace(&self, session: &Uid) -> PathBuf {
        self.options.state.join("workspaces").join(session.as_str())
    }

    /// Folders of places; those that are still being made begin with a dot.
    fn folders(&self) -> io::Result<Vec<Folder>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(self.places())? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                folders.push(Folder::new(entry.path()));
            }
        }
        Ok(folders)
    }

    fn place_file(&self, spec: &PlaceSpec) -> PlaceFile {
        let options = &self.options;
        PlaceFile {
            uid: uuid::Uuid::new_v4().to_string().parse().expect("a UUID is a UID"),
            created_at: Timestamp::now(),
            spec: spec.clone(),
            terminal: None,
            workspace: spec.persistent_workspace.as_ref().map(|session| self.workspace(session)),
            recorder: options.recorder.clone(),
            egress_hosts: options.egress_hosts.clone(),
            allow_unenforced: options.allow_unenforced,
            patience_ms: u64::try_from(options.patience.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Refuses what would show the agent more than its author may show it.
    fn check(&self, spec: &PlaceSpec) -> Result<(), Error> {
        let refused =
            |message: String| Error::Refused { run: spec.run.clone(), reason: Reason::InvalidSpec, message };
        for bind in &spec.binds {
            let path =
                fs::canonicalize(bind).map_err(|error| refused(format!("local.binds {bind}: {error}")))?;
            let state = fs::canonicalize(&self.options.state).unwrap_or_else(|_| self.options.state.clone());
            let system = ["/proc", "/sys", "/dev", "/run"].iter().any(|folder| path.starts_with(folder));
            if !Path::new(bind).is_absolute() || path == Path::new("/") || system {
                return Err(refused(format!("local.binds {bind}: not a folder that may be shown")));
            }
            if state.starts_with(&path) || path.starts_with(&state) {
                return Err(refused(format!("local.binds {bind}: it would show ostler's own state")));
            }
        }
        if spec.command.is_empty() {
            return Err(refused("there is no command".to_owned()));
        }
        crate::harness::check_policies(&spec.egress).map_err(refused)
    }

    fn changed(&self, run: &RunKey) {
        // Nobody listening is fine.
        let _ = self.changes.send(run.clone());
    }
}

/// Whether there is, or should be, a sidecar.
fn needs_keeper(folder: &Folder) -> bool {
    let (Ok(_), Ok(known)) = (folder.place(), folder.state()) else { return false };
    !matches!(seen_stage(folder, known.as_ref()), Stage::Released | Stage::Vanished)
}

/// What the state and the lock say together.
fn seen_stage(folder: &Folder, known: Option<&State>) -> Stage {
    match known.map(|state| state.stage) {
        None => Stage::Created,
        // The outbox waits for a sidecar, and gets one.
        Some(stage @ (Stage::Released | Stage::Delivering)) => stage,
        Some(stage) if folder.has_sidecar().unwrap_or(false) => stage,
        // The sidecar may have gone on between the two looks.
        Some(_) => match folder.state().ok().flatten().map(|state| state.stage) {
            Some(stage @ (Stage::Released | Stage::Delivering)) => stage,
            _ => Stage::Vanished,
        },
    }
}

fn observed(folder: &Folder) -> io::Result<Place> {
    let file = folder.place()?;
    let known = folder.state()?;
    let stage = seen_stage(folder, known.as_ref());
    let name = file.spec.run.uid.to_string();
    let node = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
    let place = Place {
        run: file.spec.run,
        uid: file.uid,
        name,
        node,
        stage,
        confirmed: folder.is_confirmed(),
        started_at: None,
        ended_at: None,
        startup: Startup::default(),
        policies: file.spec.egress,
        egress_proven: None,
        limits_not_enforced: None,
        egress: EgressSeen::default(),
        base: None,
    };
    Ok(match known {
        None => place,
        Some(seen) => Place {
            started_at: seen.started_at,
            ended_at: seen.ended_at,
            startup: seen.startup,
            policies: seen.policies.unwrap_or_else(|| place.policies.clone()),
            egress_proven: seen.egress_proven,
            limits_not_enforced: seen.limits_not_enforced,
            egress: seen.egress,
            base: seen.base,
            ..place
        },
    })
}

/// Like [`observed`], where a place that is being removed is none.
fn observed_if_any(folder: &Folder) -> io::Result<Option<Place>> {
    match observed(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        place => place.map(Some),
    }
}

/// Ends whatever runs in a place, and deletes it.
fn remove(folder: &Folder) -> io::Result<()> {
    let deadline = std::time::Instant::now() + KILL_TIME;
    loop {
        if let Some(state) = folder.state().ok().flatten() {
            state.sidecar.kill();
            if let Some(shim) = state.shim {
                shim.kill();
            }
            let alive = state.sidecar.is_alive() || state.shim.is_some_and(|shim| shim.is_alive());
            if alive && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
        }
        // A sidecar that is just starting has written nothing yet; without its folder it ends.
        return delete(folder.root());
    }
}

/// Deletes a folder; modes that an agent set on its own folders do not protect them.
fn delete(root: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mut folders = vec![root.to_owned()];
            while let Some(folder) = folders.pop() {
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
                for entry in fs::read_dir(&folder)? {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        folders.push(entry.path());
                    }
                }
            }
            fs::remove_dir_all(root)
        }
        result => result,
    }
}

#[async_trait]
impl ports::Workloads for EmbeddedWorkloads {
    async fn ensure(&self, spec: &PlaceSpec) -> Result<Place, Error> {
        let folder = self.shared.folder(&spec.run.uid);
        let failed = |what| unavailable(&spec.run, what);
        if !folder.root().exists() {
            self.shared.check(spec)?;
            // Before anything is made: a secret that is missing is the author's to mend.
            secrets::resolve(&self.shared.options, spec).await?;
            let (folder, file) = (folder.clone(), self.shared.place_file(spec));
            self.blocking(move |_| folder.create(&file)).await.map_err(failed("making its folder"))?;
            self.shared.changed(&spec.run);
        }
        let found = self.blocking({
            let folder = folder.clone();
            move |_| Ok((folder.place()?, needs_keeper(&folder), observed(&folder)?))
        });
        let (file, unkept, place) = found.await.map_err(failed("reading its folder"))?;
        if unkept {
            self.keep(&file.spec);
        }
        Ok(place)
    }

    async fn observe(&self, run: &Uid) -> Result<Option<Place>, Error> {
        let folder = self.shared.folder(run);
        let observed = self.blocking(move |_| observed_if_any(&folder)).await;
        observed.map_err(unavailable(&unknown(run), "reading its folder"))
    }

    async fn list(&self) -> Result<Vec<Place>, Error> {
        let listed = self.blocking(|shared| {
            let observed = shared.folders()?.into_iter().map(|folder| observed_if_any(&folder));
            observed.filter_map(Result::transpose).collect()
        });
        let unknown = unknown(&"all".parse().expect("a UID"));
        listed.await.map_err(unavailable(&unknown, "reading the folder of places"))
    }

    fn changes(&self) -> BoxStream<'static, RunKey> {
        let shared = Arc::downgrade(&self.shared);
        let told = BroadcastStream::new(self.shared.changes.subscribe());
        told.flat_map(move |told| match (told, shared.upgrade()) {
            (Ok(run), _) => stream::iter(vec![run]),
            (Err(BroadcastStreamRecvError::Lagged(_)), Some(shared)) => {
                let folders = shared.folders().unwrap_or_default();
                let places = folders.iter().filter_map(|folder| folder.place().ok());
                stream::iter(places.map(|place| place.spec.run).collect::<Vec<_>>())
            }
            (Err(_), None) => stream::iter(Vec::new()),
        })
        .boxed()
    }

    async fn confirm(&self, run: &Uid) -> Result<(), Error> {
        let (folder, place) = self.existing(run)?;
        if folder.is_confirmed() {
            return Ok(());
        }
        folder.confirm().map_err(unavailable(&place.spec.run, "marking it"))?;
        self.shared.changed(&place.spec.run);
        Ok(())
    }

    async fn stop(&self, run: &Uid, reason: StopReason) -> Result<(), Error> {
        let (folder, place) = self.existing(run)?;
        let state = folder.state().map_err(unavailable(&place.spec.run, "reading its state"))?;
        match seen_stage(&folder, state.as_ref()) {
            Stage::Collecting | Stage::Delivering | Stage::Released | Stage::Vanished => Ok(()),
            Stage::Created | Stage::Preparing | Stage::Running => {
                let asked = control::ask(&folder.control(), &Request::Stop(reason)).await;
                asked.map_err(unavailable(&place.spec.run, "asking its sidecar"))
            }
        }
    }

    async fn update_egress(&self, run: &Uid, policies: &[NamedPolicy]) -> Result<(), Error> {
        let (folder, place) = self.existing(run)?;
        let refused =
            |message| Error::Refused { run: place.spec.run.clone(), reason: Reason::InvalidSpec, message };
        crate::harness::check_policies(policies).map_err(refused)?;
        let asked = control::ask(&folder.control(), &Request::Egress(policies.to_vec())).await;
        asked.map_err(unavailable(&place.spec.run, "asking its sidecar"))
    }

    async fn remove(&self, run: &Uid) -> Result<(), Error> {
        let folder = self.shared.folder(run);
        let place = folder.place().ok();
        self.shared.keepers.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
        let removed = self.blocking(move |_| remove(&folder)).await;
        if let Some(place) = place {
            self.shared.changed(&place.spec.run);
        }
        removed.map_err(unavailable(&unknown(run), "deleting its folder"))
    }

    async fn remove_workspace(&self, session: &Uid) -> Result<(), Error> {
        let workspace = self.shared.workspace(session);
        let removed = self.blocking(move |_| {
            match fs::remove_file(workspace.with_extension("base")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            delete(&workspace)
        });
        removed.await.map_err(unavailable(&unknown(session), "deleting a session's workspace"))
    }

    async fn open(&self, run: &Uid) -> Result<Box<dyn SidecarStream>, Error> {
        let (folder, place) = self.existing(run)?;
        // Once the agent has ended, the file holds all of its output, and the sidecar may go at any moment.
        let stage = seen_stage(&folder, folder.state().ok().flatten().as_ref());
        if stage < Stage::Collecting
            && let Ok(stream) = crate::harness::connect(&folder.control())
        {
            let open = || {
                stream.set_nonblocking(true)?;
                tokio::net::UnixStream::from_std(stream)
            };
            return Ok(Box::new(open().map_err(unavailable(&place.spec.run, "its sidecar's socket"))?));
        }
        let (near, far) = tokio::io::duplex(LOG_BUFFER);
        tokio::spawn(async move {
            // Whoever asked may go at any time.
            let _ = answer_for_ended(&folder, far).await;
        });
        Ok(Box::new(near))
    }
}

/// Answers in place of a sidecar that has ended.
async fn answer_for_ended(folder: &Folder, stream: tokio::io::DuplexStream) -> io::Result<()> {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
    let (reader, mut writer) = tokio::io::split(stream);
    let mut line = Vec::new();
    let mut bounded = tokio::io::BufReader::new(reader).take(LOG_BUFFER as u64);
    bounded.read_until(b'\n', &mut line).await?;
    if let Ok(Request::Logs(LogsRequest { since, .. })) = serde_json::from_slice(&line) {
        let mut file = tokio::fs::File::open(folder.output()).await?;
        file.seek(io::SeekFrom::Start(since)).await?;
        tokio::io::copy(&mut file, &mut writer).await?;
    }
    writer.shutdown().await
}
