//! A state folder, a recorder of the test's own, and runs in it.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};
use futures::{StreamExt, stream::BoxStream};
use ostler::{
    embedded::workloads::{EmbeddedWorkloads, Options},
    kinds::agent::Preset,
    names::{Namespace, ObjectName, Uid},
    ports::{
        Workloads,
        secrets::{Error as SecretError, SecretData, SecretUse, Secrets},
        workloads::{Limit, Limits, Place, PlaceSpec, PodWishes, RunKey, Stage},
    },
    report::{REPORT, Report},
};
use secrecy::SecretBox;
use tokio::sync::watch;

/// Nothing takes as long; it ends a test that would hang.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// Secrets by name: key and value, all for any use and host.
#[derive(Default)]
pub(crate) struct FakeSecrets {
    known: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
    /// How often they are still given out, and what happens after that.
    then: Mutex<Option<(usize, Then)>>,
}

/// What becomes of secrets.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    /// They are deleted.
    Gone,
    /// Their store cannot be reached.
    OutOfReach,
}

impl FakeSecrets {
    pub(crate) fn put(&self, name: &str, key: &str, value: &str) {
        self.known.lock().unwrap().entry(name.into()).or_default().insert(key.into(), value.into());
    }

    /// Gives secrets out so many times, until `then` happens.
    pub(crate) fn last(&self, times: usize, then: Then) {
        *self.then.lock().unwrap() = Some((times, then));
    }

    /// Undoes [`FakeSecrets::last`].
    pub(crate) fn mend(&self) {
        *self.then.lock().unwrap() = None;
    }
}

#[async_trait]
impl Secrets for FakeSecrets {
    async fn resolve(
        &self,
        namespace: &Namespace,
        name: &ObjectName,
        _: SecretUse,
        _: Option<&str>,
    ) -> Result<SecretData, SecretError> {
        let known = self.known.lock().unwrap();
        let missing = || SecretError::NotFound { namespace: namespace.clone(), name: name.clone() };
        match self.then.lock().unwrap().as_mut() {
            Some((0, Then::Gone)) => return Err(missing()),
            Some((0, Then::OutOfReach)) => return Err(SecretError::Unavailable("it is away".into())),
            Some((left, _)) => *left -= 1,
            None => {}
        }
        let data = known.get(name.as_str()).ok_or_else(missing)?;
        let sealed = |value: &String| SecretBox::new(Box::new(value.clone().into_bytes()));
        Ok(data.iter().map(|(key, value)| (key.clone(), sealed(value))).collect())
    }

    fn changes(&self) -> BoxStream<'static, (Namespace, ObjectName)> {
        futures::stream::pending().boxed()
    }
}

/// What came to the recorder.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) report: Report,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) digest: String,
}

impl Delivery {
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&self.files["output.log"]).into_owned()
    }
}

/// A recorder that answers as it is told, then 200.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(super) answers: Mutex<Vec<u16>>,
    pub(crate) came: watch::Sender<Vec<Delivery>>,
}

impl Recorder {
    pub(crate) fn app(self: &Arc<Self>) -> Router {
        let app = Router::new().fallback(intake).layer(axum::extract::DefaultBodyLimit::disable());
        app.with_state(Arc::clone(self))
    }
}

async fn intake(
    State(recorder): State<Arc<Recorder>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    use sha2::Digest;
    let digest = format!("sha256:{:x}", sha2::Sha256::digest(&body));
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(body.as_ref()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(name, content);
    }
    let report = serde_json::from_slice(&files[REPORT]).unwrap();
    let delivery = Delivery { path: uri.path().to_owned(), headers, report, files, digest };
    recorder.came.send_modify(|came| came.push(delivery));
    let mut answers = recorder.answers.lock().unwrap();
    let answer = if answers.is_empty() { 200 } else { answers.remove(0) };
    StatusCode::from_u16(answer).unwrap()
}

/// A state folder with all that runs need.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) secrets: Arc<FakeSecrets>,
    pub(crate) workloads: EmbeddedWorkloads,
    pub(crate) options: Options,
    pub(crate) state: PathBuf,
    recorder: Arc<Recorder>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Arc::new(FakeSecrets::default());
        let state = folder.path().join("state");
        let mut options = Options {
            places: state.join("places"),
            workspaces: state.join("workspaces"),
            program: env!("CARGO_BIN_EXE_ostler").into(),
            recorder: folder.path().join("recorder.sock"),
            egress_hosts: None,
            allow_unenforced: false,
            patience: PATIENCE,
            tokens: Arc::new(|run| Ok(format!("token-of-{}", run.uid).into())),
            drop_tokens: Arc::new(|_| Ok(())),
            hidden: vec![state.clone()],
            secrets: secrets.clone(),
        };
        change(&mut options);
        let workloads = EmbeddedWorkloads::open(options.clone()).unwrap();
        let recorder = Arc::default();
        let mut world = Self { folder, secrets, workloads, options, state, recorder, serving: None };
        world.start_recorder();
        world
    }

    pub(crate) fn start_recorder(&mut self) {
        let listener = tokio::net::UnixListener::bind(&self.options.recorder).unwrap();
        let serving = axum::serve(listener, self.recorder.app());
        self.serving = Some(tokio::spawn(async move { serving.await.unwrap() }));
    }

    pub(crate) fn stop_recorder(&mut self) {
        self.serving.take().unwrap().abort();
        std::fs::remove_file(&self.options.recorder).unwrap();
    }

    /// The next answers of the recorder, instead of 200.
    pub(crate) fn answers(&self, answers: &[u16]) {
        self.recorder.answers.lock().unwrap().extend_from_slice(answers);
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.recorder.came.borrow().clone()
    }

    /// Waits until so many deliveries came.
    pub(crate) async fn delivered(&self, count: usize) -> Vec<Delivery> {
        let mut came = self.recorder.came.subscribe();
        let waited = tokio::time::timeout(PATIENCE, came.wait_for(|came| came.len() >= count)).await;
        waited.unwrap_or_else(|_| panic!("nothing came; {}", self.logs())).unwrap().clone()
    }

    /// Forgets the adapter, as when `up` is killed.
    pub(crate) fn forsake(&mut self) {
        let idle = Options { places: self.folder.path().join("idle"), ..self.options.clone() };
        self.workloads = EmbeddedWorkloads::open(idle).unwrap();
    }

    /// The same, and makes another.
    pub(crate) fn restart(&mut self) {
        self.forsake();
        self.workloads = EmbeddedWorkloads::open(self.options.clone()).unwrap();
    }

    /// Runs to the acknowledged result.
    pub(crate) async fn run(&self, spec: &PlaceSpec) -> Delivery {
        self.workloads.ensure(spec).await.unwrap();
        self.reaches(&spec.run.uid, Stage::Released).await;
        let came = self.deliveries();
        came.into_iter().rfind(|delivery| delivery.report.run.uid == spec.run.uid).unwrap()
    }

    /// Waits until the place has come so far, or further.
    pub(crate) async fn reaches(&self, run: &Uid, stage: Stage) -> Place {
        self.sees(run, |place| {
            place.stage >= stage && (place.stage != Stage::Vanished || stage == Stage::Vanished)
        })
        .await
    }

    /// Waits until the place is as wanted.
    pub(crate) async fn sees(&self, run: &Uid, wanted: impl Fn(&Place) -> bool) -> Place {
        sees(&self.workloads, run, wanted)
            .await
            .unwrap_or_else(|| panic!("it never came to that; {}", self.logs()))
    }

    pub(crate) fn place(&self, run: &Uid) -> PathBuf {
        self.options.places.join(run.as_str())
    }

    /// What sidecars and bubblewraps of this world complained about.
    pub(crate) fn logs(&self) -> String {
        let places = std::fs::read_dir(&self.options.places).into_iter().flatten().flatten();
        let read = |path: PathBuf| {
            ["state.json", "sidecar.log", "bwrap.log", "collect.log"].map(|name| {
                format!("{name}: {}\n", std::fs::read_to_string(path.join(name)).unwrap_or_default())
            })
        };
        places.flat_map(|place| read(place.path())).collect()
    }
}

impl Drop for World {
    /// Whatever still runs ends when its folder goes; the test waits for it, so that nothing is left behind by tests.
    fn drop(&mut self) {
        let states: Vec<serde_json::Value> = std::fs::read_dir(&self.options.places)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|place| {
                serde_json::from_slice(&std::fs::read(place.path().join("state.json")).ok()?).ok()
            })
            .collect();
        for state in states {
            for process in ["sidecar", "shim"] {
                if let Ok(process) =
                    serde_json::from_value::<ostler::harness::process::Process>(state[process].clone())
                {
                    process.kill();
                }
            }
        }
    }
}

/// Waits until a place is as wanted, by the port alone.
pub(crate) async fn sees(
    workloads: &dyn Workloads,
    run: &Uid,
    wanted: impl Fn(&Place) -> bool,
) -> Option<Place> {
    let mut changes = workloads.changes();
    let seen = async {
        loop {
            if let Some(place) = workloads.observe(run).await.unwrap()
                && wanted(&place)
            {
                return place;
            }
            // A change is a hint; the look is what counts.
            let _ = tokio::time::timeout(Duration::from_secs(1), changes.next()).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.ok()
}

/// A run of `sh -c SCRIPT`.
pub(crate) fn shell(script: &str) -> PlaceSpec {
    command(&["/bin/sh", "-c", script])
}

pub(crate) fn command(command: &[&str]) -> PlaceSpec {
    let uid: Uid = uuid::Uuid::new_v4().to_string().parse().unwrap();
    let of = |value| Limit { value, authored: false };
    PlaceSpec {
        run: RunKey { namespace: "team".parse().unwrap(), name: "run".parse().unwrap(), uid },
        digest: "v1:0".to_owned(),
        preset: Preset::Command,
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        env: vec![],
        secret_env: vec![],
        secret_files: vec![],
        home_files: vec![],
        workspace_dir: "/workspace".to_owned(),
        working_dir: String::new(),
        instructions: None,
        checkout: None,
        contexts: vec![],
        egress: vec![],
        limits: Limits {
            cpu_millis: of(2000),
            memory_bytes: of(4 << 30),
            disk_bytes: of(10 << 30),
            processes: of(1024),
        },
        timeout: Duration::from_mins(10),
        grace: Duration::from_secs(10),
        artifacts: vec![],
        persistent_workspace: None,
        binds: vec![],
        image: None,
        pod: PodWishes::default(),
    }
}

/// Seconds to sleep, for longer than any test, as `sleep(1)` reads them: a number that is in no other command line of this
/// machine, so that processes of other tests and other checkouts are not counted.
pub(crate) fn nap() -> String {
    format!("98765.{}", uuid::Uuid::new_v4().as_u128())
}

/// Numbers of processes whose command line has this word.
pub(crate) fn processes_with(word: &str) -> Vec<i32> {
    let with = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let has = line.windows(word.len()).any(|part| part == word.as_bytes());
        (has && pid != i32::try_from(std::process::id()).ok()?).then_some(pid)
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(with).collect()
}

/// Waits until no process has this word in its command line.
pub(crate) async fn nothing_left(word: &str) {
    let gone = async {
        while !processes_with(word).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, gone).await;
    assert!(waited.is_ok(), "processes with {word} are left: {:?}", processes_with(word));
}

/// Waits until a file is there.
pub(crate) async fn appears(path: &Path) {
    let there = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.unwrap_or_else(|_| panic!("{} never came", path.display()));
}

/// Waits until a file is gone.
pub(crate) async fn disappears(path: &Path) {
    let gone = async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("{} never went", path.display()));
}
