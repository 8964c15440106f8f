//! A store, a repository and a recorder that can be killed and started again.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use ostler::{
    cache::Caches,
    embedded::objects::EmbeddedStore,
    git::sign::SigningKey,
    kinds::{ConfigRepository, HarnessRun, Kind, ObjectId},
    ledger,
    names::{Namespace, ObjectName},
    ports::{
        Secrets,
        objects::{self, At, Store},
        secrets::{self, SecretData, SecretUse},
    },
    recorder::{Context, Handle, Recorder},
    report::{Delivery, OUTPUT, Report},
    telemetry::{AuditLog, Metrics},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::servers::repo::Repo;

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// No Secret exists.
struct NoSecrets;

#[async_trait]
impl Secrets for NoSecrets {
    async fn resolve(
        &self,
        namespace: &Namespace,
        name: &ObjectName,
        _: SecretUse,
        _: Option<&str>,
    ) -> Result<SecretData, secrets::Error> {
        Err(secrets::Error::NotFound { namespace: namespace.clone(), name: name.clone() })
    }

    fn changes(&self) -> BoxStream<'static, (Namespace, ObjectName)> {
        futures::stream::pending().boxed()
    }
}

/// Everything but the recorder.
pub(crate) struct Stage {
    pub(crate) repo: Repo,
    pub(crate) store: Store,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) holder: String,
    pub(crate) secrets: Arc<dyn Secrets>,
    pub(crate) folder: tempfile::TempDir,
    audit: Lines,
}

/// Lines of an audit trail.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A recorder at work.
pub(crate) struct Running {
    pub(crate) handle: Handle,
    pub(crate) caches: Caches,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _fill: AbortOnDropHandle<()>,
}

impl Running {
    /// Ends it, and waits until it has let go of its mirror.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Ends it at whatever await point it is in, as a kill would.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Stage {
    /// With a repository that has one commit, and a `ConfigRepository` whose ledger is there.
    pub(crate) async fn new() -> Self {
        let stage = Self::beside(Repo::with_readme(), "holder-1");
        stage.repository(&json!({})).await;
        stage
    }

    /// Another control plane: a store of its own.
    pub(crate) fn beside(repo: Repo, holder: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Store = Arc::new(EmbeddedStore::open(&folder.path().join("store")).unwrap());
        let key = Arc::new(SigningKey::generate("test").unwrap());
        let secrets = Arc::new(NoSecrets);
        Self { repo, store, key, holder: holder.to_owned(), secrets, folder, audit: Lines::default() }
    }

    pub(crate) async fn repository(&self, write_back: &Value) {
        self.repository_of(&json!({"url": self.repo.bare(), "interval": "1h", "writeBack": write_back}))
            .await;
    }

    pub(crate) async fn repository_of(&self, spec: &Value) {
        let object = json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "ConfigRepository",
            "metadata": {"namespace": "team", "name": "agents"}, "spec": spec
        });
        self.store.create(&serde_json::from_value(object).unwrap(), "test").await.unwrap();
    }

    pub(crate) fn start(&self) -> Running {
        self.start_on(self.store.clone())
    }

    /// Starts a recorder that sees the store through another one, such as one with faults.
    pub(crate) fn start_on(&self, store: Store) -> Running {
        let (caches, fill) = Caches::new(store.as_ref(), None);
        let context = Context {
            store,
            secrets: self.secrets.clone(),
            key: self.key.clone(),
            holder: Some(self.holder.clone()),
            caches: caches.clone(),
            folder: self.folder.path().join("recorder"),
            clock: Arc::new(jiff::Timestamp::now),
            audit: Arc::new(AuditLog::writer(Box::new(self.audit.clone()))),
            metrics: Arc::new(Metrics::new()),
        };
        let own = ("team".parse().unwrap(), "agents".parse().unwrap());
        let (recorder, handle) = Recorder::new(Arc::new(context), own);
        let stop = CancellationToken::new();
        let task = tokio::spawn(recorder.run(stop.clone()));
        Running { handle, caches, stop, task, _fill: AbortOnDropHandle::new(tokio::spawn(fill)) }
    }

    /// Makes a run, with a status as the controller would write it.
    pub(crate) async fn run(&self, name: &str, spec: &Value, status: &Value) -> HarnessRun {
        let object = json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
            "metadata": {"namespace": "team", "name": name}, "spec": spec
        });
        let made = self.store.create(&serde_json::from_value(object).unwrap(), "test").await.unwrap();
        let at = At::of(&made).unwrap();
        let made = self.store.write_status(&id(name), &at, status, "test").await.unwrap();
        objects::typed(made).unwrap()
    }

    /// A run that asks for its claim.
    pub(crate) async fn asking(&self, name: &str) -> HarnessRun {
        self.run(name, &json!({"command": ["true"]}), &asked()).await
    }

    /// The run ends, as a controller would say it.
    pub(crate) async fn end(&self, name: &str) {
        let run = self.get(name).await;
        let at = At::of(&run).unwrap().any_version();
        let ended =
            json!({"phase": "Failed", "reason": "PlaceFailed", "completionTime": jiff::Timestamp::now()});
        self.store.write_status(&id(name), &at, &ended, "test").await.unwrap();
    }

    /// The objects that the audit trail says this verb of, in its order.
    pub(crate) fn audited(&self, verb: &str) -> Vec<String> {
        let text = String::from_utf8(self.audit.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of_verb = lines.filter(|line| line["verb"] == verb);
        of_verb.map(|line| line["object"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn get(&self, name: &str) -> HarnessRun {
        let (namespace, name) = ("team".parse().unwrap(), name.parse().unwrap());
        objects::get(self.store.as_ref(), &namespace, &name).await.unwrap().unwrap()
    }

    pub(crate) async fn config(&self) -> ConfigRepository {
        let (namespace, name) = ("team".parse().unwrap(), "agents".parse().unwrap());
        objects::get(self.store.as_ref(), &namespace, &name).await.unwrap().unwrap()
    }

    /// Waits until a run is as it should be.
    pub(crate) async fn until(&self, name: &str, good: impl Fn(&HarnessRun) -> bool) -> HarnessRun {
        let mut events = objects::watch::<HarnessRun>(self.store.as_ref(), None);
        let wait = async {
            loop {
                let _ = events.next().await;
                let run = self.get(name).await;
                if good(&run) {
                    return run;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(run) => run,
            Err(late) => panic!(
                "{late}: {name} never got there: {:#?} {:#?}",
                self.get(name).await.status,
                self.config().await.status
            ),
        }
    }

    /// Waits until the ledger's state is as it should be.
    pub(crate) async fn ledger(
        &self,
        running: &Running,
        good: impl Fn(&ledger::State) -> bool,
    ) -> ledger::State {
        let mut seen = running.handle.ledger();
        let state = tokio::time::timeout(PATIENCE, seen.wait_for(|state| good(state))).await;
        let state = state.expect("the ledger's state never got there").unwrap();
        ledger::State::clone(&state)
    }

    /// A delivery for a run, in a folder as the intake would leave it.
    pub(crate) fn delivery(&self, run: &HarnessRun, with: &Value, files: &[(&str, Vec<u8>)]) -> Delivery {
        let mut report = json!({
            "run": {"namespace": "team", "name": run.metadata.name, "uid": run.metadata.uid},
            "place": "p-1", "digest": "v1:aa",
            "end": {"exited": {"code": 0}},
            "record": {"verdict": null, "summary": "did it", "usage": {"inputTokens": 5}, "session": "s"},
            "startedAt": jiff::Timestamp::now(), "endedAt": jiff::Timestamp::now(), "startup": {}, "egressProof": "closed",
            "egress": {"allowed": 1, "denied": 1, "denials": [{"host": "evil.example.com", "port": 443, "reason": "no rule", "count": 1}]},
            "limitsNotEnforced": [],
            "changes": {"base": null, "head": null, "commits": 0, "files": 0, "additions": 0, "deletions": 0},
            "notes": ["a note"], "artifacts": []
        });
        for (key, value) in with.as_object().unwrap() {
            report[key] = value.clone();
        }
        let report: Report = serde_json::from_value(report).unwrap();
        let folder = self.folder.path().join("spool").join(run.metadata.name.as_ref().unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        let mut listed = Vec::new();
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
            listed.push(((*name).to_owned(), content.len() as u64));
        }
        Delivery { report, digest: "d".to_owned(), folder, files: listed }
    }

    pub(crate) fn output(&self, run: &HarnessRun) -> Delivery {
        self.delivery(run, &json!({}), &[(OUTPUT, b"hello\n".to_vec())])
    }

    /// Files of the ledger branch.
    pub(crate) fn files(&self) -> Vec<String> {
        let listed = self.repo.bare_git(&["ls-tree", "-r", "--name-only", "ostler/results"]);
        listed.lines().map(str::to_owned).collect()
    }

    pub(crate) fn show(&self, path: &str) -> String {
        self.repo.bare_git(&["show", &format!("ostler/results:{path}")])
    }

    pub(crate) fn tip(&self) -> String {
        self.repo.bare_git(&["rev-parse", "ostler/results"])
    }

    /// A checkout of the ledger branch, for other people's commits.
    pub(crate) fn checkout(&self) -> PathBuf {
        self.repo.git(&["fetch", "--quiet", "origin", "ostler/results"]);
        self.repo.git(&["checkout", "--quiet", "-B", "ledger", "FETCH_HEAD"]);
        self.repo.work()
    }

    /// Pushes the checkout as the ledger branch.
    pub(crate) fn push(&self) {
        self.repo.git(&["push", "--quiet", "--force", "origin", "ledger:ostler/results"]);
    }

    /// A file of allowed signers with our key.
    pub(crate) fn signers(&self) -> PathBuf {
        let path = self.folder.path().join("allowed_signers");
        std::fs::write(&path, self.key.allowed_signers_line("ostler@localhost").unwrap() + "\n").unwrap();
        path
    }
}

pub(crate) fn id(name: &str) -> ObjectId {
    ObjectId::new(Kind::HarnessRun, "team".parse().unwrap(), name.parse().unwrap())
}

pub(crate) fn asked() -> Value {
    json!({"phase": "Queued", "digest": "v1:aa", "claim": {"requestedAt": "2026-11-21T10:00:00Z"}})
}

pub(crate) fn path(name: &str, file: ledger::File) -> String {
    ledger::RunName::new("team".parse().unwrap(), name.parse().unwrap()).path(file)
}

pub(crate) fn is_claimed(run: &HarnessRun) -> bool {
    run.status.as_ref().and_then(|s| s.claim.as_ref()).is_some_and(|claim| claim.commit.is_some())
}

pub(crate) fn has_result(run: &HarnessRun) -> bool {
    run.status.as_ref().is_some_and(|status| status.result.is_some())
}
