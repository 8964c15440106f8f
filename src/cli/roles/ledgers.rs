//! The recorders of this process: one per repository, made when the repository is first followed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use kube::ResourceExt;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api,
    kinds::ConfigRepository,
    ledger,
    names::{Namespace, ObjectName},
    recorder::{Context, Handle, Recorder},
    report::{Delivery, Receipt},
    resolve::record::{Record, record_of},
};

/// The recorders of this process.
pub(in crate::cli) struct Ledgers {
    context: Arc<Context>,
    stop: CancellationToken,
    tasks: TaskTracker,
    handles: Mutex<BTreeMap<(Namespace, ObjectName), Handle>>,
}

impl Ledgers {
    pub(in crate::cli) fn new(context: Arc<Context>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { context, stop, tasks: TaskTracker::new(), handles: Mutex::default() })
    }

    /// What the ledger of a repository says; its recorder starts now if there is none yet.
    pub(in crate::cli) fn follow(
        &self,
        repository: &ConfigRepository,
    ) -> watch::Receiver<Arc<ledger::State>> {
        match self.handle(repository) {
            Some(handle) => handle.ledger(),
            None => watch::channel(Arc::new(ledger::State::None)).1,
        }
    }

    /// Where the intake hands results to.
    pub(in crate::cli) fn deliver_to(self: &Arc<Self>) -> api::Deliver {
        let ledgers = Arc::clone(self);
        Arc::new(move |delivery| {
            let ledgers = Arc::clone(&ledgers);
            Box::pin(async move { ledgers.deliver(delivery).await })
        })
    }

    /// Hands a result to the recorder of its run. A run that nobody records is answered for by any recorder.
    async fn deliver(&self, delivery: Delivery) -> Receipt {
        let key = &delivery.report.run;
        let Some(run) = self.context.caches.runs.get(key.namespace.as_str(), key.name.as_str()) else {
            return Receipt::OtherRun;
        };
        let session = run.spec.session_ref.as_ref();
        let session = session.and_then(|r| self.context.caches.sessions.get(key.namespace.as_str(), &r.name));
        let repositories = self.context.caches.repositories.all();
        let all: Vec<&ConfigRepository> = repositories.iter().map(Arc::as_ref).collect();
        let repository = match record_of(&run, session.as_deref(), &all) {
            Record::In(repository) => Some(repository),
            Record::Nowhere => all.first().copied(),
            Record::Gone(_) => None,
        };
        match repository.and_then(|repository| self.handle(repository)) {
            Some(handle) => handle.deliver(delivery).await,
            None => Receipt::Waiting,
        }
    }

    /// Waits until every recorder has ended.
    pub(in crate::cli) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn handle(&self, repository: &ConfigRepository) -> Option<Handle> {
        let namespace: Namespace = repository.namespace()?.parse().ok()?;
        let name: ObjectName = repository.name_any().parse().ok()?;
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = handles.entry((namespace, name)).or_insert_with_key(|key| {
            let (recorder, handle) = Recorder::new(Arc::clone(&self.context), key.clone());
            self.tasks.spawn(recorder.run(self.stop.clone()));
            handle
        });
        Some(handle.clone())
    }
}
