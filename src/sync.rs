//! The GitOps loop: fetch, read, plan, apply, status; one loop per repository.
//!
//! A commit that changes one file costs one file; a round in which nothing moved asks the remote for its references and
//! does nothing else.

mod account;
mod apply;
mod drift;
mod error;
mod fight;
mod follow;
mod follower;
mod observe;
mod source;
mod status;
mod store;
mod trigger;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt;
use kube::ResourceExt;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::task::TaskTracker;

pub use account::Accounts;
pub use error::Error;

use crate::{
    cache::Caches,
    clock::Clock,
    git::signers::AllowedSigners,
    kinds::{ConfigRepository, Phase, Typed},
    ledger,
    names::Namespace,
    ports::{Secrets, objects},
    telemetry::{AuditLog, Metrics},
};

/// Finds the ledger of a repository.
pub type Ledgers = Arc<dyn Fn(&ConfigRepository) -> watch::Receiver<Arc<ledger::State>> + Send + Sync>;

/// What the loops share.
pub struct Context {
    /// The store, for writing.
    pub store: objects::Store,
    /// The same in the name of service accounts; `None` where there are none.
    pub accounts: Option<Accounts>,
    /// The caches, for reading.
    pub caches: Caches,
    /// True where the controller of runs works beside us: runs are made with its finalizer, which it takes off again.
    pub runs: bool,
    /// The namespace that is looked after; `None`: all of them. Nothing is read or written elsewhere.
    pub scope: Option<Namespace>,
    /// Credentials.
    pub secrets: Arc<dyn Secrets>,
    /// Where mirrors are kept.
    pub mirrors: PathBuf,
    /// Whose commits have an effect; `None`: everybody's, and status says so.
    pub signers: Option<AllowedSigners>,
    /// The time.
    pub clock: Clock,
    /// The ledger of a repository, by its UID.
    pub ledgers: Ledgers,
    /// The trail of mutations.
    pub audit: Arc<AuditLog>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How far the loops are, by repository UID.
    pub progress: Progress,
    /// Writes under way. They end with their lines in the audit trail, though their loop is no more.
    pub writes: TaskTracker,
}

/// How far a repository's loop is, for whoever waits for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Rounds that were completed.
    pub rounds: u64,
    /// True while a round is under way, or one is due because the last one failed for a reason that may pass.
    pub busy: bool,
    /// True when the last round ended with a file that has errors, or could not end.
    pub failed: bool,
    /// Runs that are asked for and that only the ledger knows: name and outcome.
    pub recorded: Vec<(String, Phase)>,
}

impl Settled {
    fn take(&mut self, outcome: &Result<follower::End, Error>, retry: bool) {
        self.rounds += 1;
        self.busy = retry;
        match outcome {
            Ok(end) => {
                self.failed = end.failed;
                self.recorded.clone_from(&end.recorded);
            }
            Err(_) => self.failed = true,
        }
    }
}

/// How far all loops are.
#[derive(Clone)]
pub struct Progress(Arc<watch::Sender<BTreeMap<String, Settled>>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(watch::channel(BTreeMap::new()).0))
    }
}

impl Progress {
    /// Follows the progress.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<String, Settled>> {
        self.0.subscribe()
    }

    fn update(&self, uid: &str, change: impl FnOnce(&mut Settled)) {
        self.0.send_modify(|all| change(all.entry(uid.to_owned()).or_default()));
    }

    fn forget(&self, uid: &str) {
        self.0.send_modify(|all| {
            all.remove(uid);
        });
    }
}

/// Runs a loop for each `ConfigRepository` until `shutdown`.
pub async fn control(context: Arc<Context>, shutdown: impl Future<Output = ()> + Send) {
    let loops = Loops::default();
    let mut touched = context.caches.repositories.touched().boxed();
    for repository in context.caches.repositories.all() {
        loops.begin(&repository, &context);
    }
    let follow = async {
        while let Some(reference) = touched.next().await {
            let namespace = reference.namespace.clone().unwrap_or_default();
            match context.caches.repositories.get(&namespace, &reference.name) {
                Some(repository) => loops.begin(&repository, &context),
                None => loops.end(&format!("{namespace}/{}", reference.name), &context),
            }
        }
    };
    tokio::select! { () = follow => {}, () = shutdown => {} }
    loops.end_all().await;
    context.writes.close();
    context.writes.wait().await;
}

/// The running loops: by name, the UID they were begun for.
#[derive(Default)]
struct Loops(Mutex<BTreeMap<String, (String, JoinHandle<()>)>>);

impl Loops {
    fn begin(&self, repository: &ConfigRepository, context: &Arc<Context>) {
        let name = format!("{}/{}", repository.namespace().unwrap_or_default(), repository.name_any());
        let uid = repository.uid().unwrap_or_default();
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&name).is_some_and(|(of, _)| *of == uid) {
            return;
        }
        if let Some((_, former)) = running.remove(&name) {
            former.abort();
        }
        let task = tokio::spawn(follow::follow(repository.clone(), Arc::clone(context)));
        running.insert(name, (uid, task));
    }

    fn end(&self, name: &str, context: &Context) {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some((uid, task)) = ended {
            task.abort();
            context.progress.forget(&uid);
            tracing::info!(controller = "sync", object = name, kind = %ConfigRepository::KIND, "no longer followed");
        }
    }

    async fn end_all(&self) {
        let running = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, task) in running.into_values() {
            task.abort();
            // aborted on purpose
            let _ = task.await;
        }
    }
}
