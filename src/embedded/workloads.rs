//! Places on this machine: a folder, a sidecar and a container each.
//!
//! The adapter holds nothing that a restart would miss. A place is its folder; the sidecar in it belongs to nobody and
//! goes on when the process that started it ends. A `keeper` task looks after each place for as long as it has a
//! sidecar.

mod binds;
mod keeper;
mod observe;
mod output;
mod remove;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::PathBuf,
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

use self::observe::{needs_keeper, observed, observed_if_any, seen_stage};
use crate::{
    harness::{
        control::{self, Request},
        place::{Folder, Ground, Machine, PlaceFile},
        secrets,
    },
    kinds::Reason,
    names::Uid,
    ports::{
        self,
        workloads::{Error, NamedPolicy, Place, PlaceSpec, RunKey, SidecarStream, Stage, StopReason},
    },
};

/// Changes that wait for a slow reader; one that falls behind further is told of all places.
const CHANGES: usize = 256;

/// Makes the token by which the recorder knows the sidecar of a run.
pub type RunTokens =
    Arc<dyn Fn(&RunKey) -> Result<SecretString, Box<dyn std::error::Error + Send + Sync>> + Send + Sync>;

/// Takes back all tokens of a run.
pub type DropTokens = Arc<dyn Fn(&Uid) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + Sync>;

/// What the adapter needs to know.
#[derive(Clone)]
pub struct Options {
    /// The folder of places, each named after its run's UID.
    pub places: PathBuf,
    /// The folder of the workspaces of sessions, each named after its session's UID.
    pub workspaces: PathBuf,
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
    /// Takes them back when the place goes.
    pub drop_tokens: DropTokens,
    /// Folders and files that no `local.binds` may show, nor anything in or above them. They need not exist.
    pub hidden: Vec<PathBuf>,
    /// Where secrets come from.
    pub secrets: Arc<dyn ports::Secrets>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("places", &self.places)
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
        for folder in [&options.places, &options.workspaces] {
            crate::harness::place::private_dir(folder)?;
        }
        let shared =
            Arc::new(Shared { options, changes: broadcast::Sender::new(CHANGES), keepers: Mutex::default() });
        let this = Self { shared };
        for left in remove::leftovers(&this.shared.options.places)? {
            tokio::task::spawn_blocking(move || {
                if let Err(error) = remove::delete(&left) {
                    tracing::warn!(path = %left.display(), %error, "what is left of a place cannot be deleted");
                }
            });
        }
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
    fn folder(&self, run: &Uid) -> Folder {
        Folder::new(self.options.places.join(run.as_str()))
    }

    fn workspace(&self, session: &Uid) -> PathBuf {
        self.options.workspaces.join(session.as_str())
    }

    /// Folders of places; those that are still being made begin with a dot.
    fn folders(&self) -> io::Result<Vec<Folder>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.options.places)? {
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
            ground: Ground::Machine(Machine {
                workspace: spec.persistent_workspace.as_ref().map(|session| self.workspace(session)),
                recorder: options.recorder.clone(),
                egress_hosts: options.egress_hosts.clone(),
            }),
            allow_unenforced: options.allow_unenforced,
            patience_ms: u64::try_from(options.patience.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Refuses what would show the agent more than its author may show it.
    fn check(&self, spec: &PlaceSpec) -> Result<(), Error> {
        let refused =
            |message: String| Error::Refused { run: spec.run.clone(), reason: Reason::InvalidSpec, message };
        for bind in &spec.binds {
            binds::check(bind, &self.options.hidden).map_err(refused)?;
        }
        if spec.pod.runtime_class.is_some() {
            return Err(refused("runtimeClassName is a promise that only a cluster can keep".to_owned()));
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

#[async_trait]
impl ports::Workloads for EmbeddedWorkloads {
    async fn ensure(&self, spec: &PlaceSpec) -> Result<Place, Error> {
        let folder = self.shared.folder(&spec.run.uid);
        let failed = |what| unavailable(&spec.run, what);
        if !folder.root().exists() {
            self.shared.check(spec)?;
            // Before anything is made: a secret that is missing is the author's to mend.
            secrets::check(&*self.shared.options.secrets, spec).await?;
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
        let removed = self.blocking(move |_| remove::remove(&folder)).await;
        if let Some(place) = place {
            self.shared.changed(&place.spec.run);
        }
        removed.map_err(unavailable(&unknown(run), "deleting its folder"))?;
        (self.shared.options.drop_tokens)(run).map_err(|source| Error::Unavailable {
            run: unknown(run),
            what: "taking back its tokens",
            source,
        })
    }

    async fn remove_workspace(&self, session: &Uid) -> Result<(), Error> {
        let workspace = self.shared.workspace(session);
        let removed = self.blocking(move |_| {
            match fs::remove_file(workspace.with_extension("base")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            remove::delete(&workspace)
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
        let (near, far) = tokio::io::duplex(output::BUFFER);
        tokio::spawn(async move {
            // Whoever asked may go at any time.
            let _ = output::answer(&folder, far).await;
        });
        Ok(Box::new(near))
    }
}
