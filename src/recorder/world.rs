//! What the recorder sees of the store: runs, sessions and repositories, from the caches of the process.
//!
//! The caches are filled by a task of their own, while a turn waits for a remote or for the store. So a turn may see an
//! object in two states; each thing that is done guards itself: a commit by the ledger's tip, a status by its version.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{
    StreamExt,
    stream::{BoxStream, select_all},
};
use jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::queue::{self, Need};
use crate::{
    cache::Caches,
    kinds::{ConfigRepository, HarnessRun, Session},
    names::{Namespace, ObjectName},
    resolve::record::{Record, record_of},
};

/// Something that was created, changed or deleted.
#[derive(Debug)]
pub(super) enum Touched {
    Run(ObjectRef<HarnessRun>),
    /// A session or a repository.
    Other,
}

/// All that is there, and then what is touched.
pub(super) fn touched(caches: &Caches) -> BoxStream<'static, Touched> {
    select_all([
        caches.runs.touched().map(Touched::Run).boxed(),
        caches.sessions.touched().map(|_| Touched::Other).boxed(),
        caches.repositories.touched().map(|_| Touched::Other).boxed(),
    ])
    .boxed()
}

/// All that the recorder sees.
pub(super) struct World {
    caches: Caches,
    /// Runs to look at in each turn, by namespace and name: most have ended long ago and are none of these.
    open: BTreeSet<(String, String)>,
}

impl World {
    /// Sees through these caches, which are complete. No run is open before it was touched.
    pub(super) fn new(caches: Caches) -> Self {
        Self { caches, open: BTreeSet::new() }
    }

    /// Looks at what was touched.
    pub(super) fn take(&mut self, touched: Touched) {
        let Touched::Run(reference) = touched else { return };
        let key = (reference.namespace.unwrap_or_default(), reference.name);
        if self.caches.runs.get(&key.0, &key.1).is_some_and(|run| is_open(&run)) {
            self.open.insert(key);
        } else {
            self.open.remove(&key);
        }
    }

    /// The runs that need something, by their status, and those that are being deleted.
    pub(super) fn open(&self) -> impl Iterator<Item = Arc<HarnessRun>> {
        self.open.iter().filter_map(|(namespace, name)| self.caches.runs.get(namespace, name))
    }

    /// All runs.
    pub(super) fn runs(&self) -> Vec<Arc<HarnessRun>> {
        self.caches.runs.all()
    }

    /// A run.
    pub(super) fn run(&self, namespace: &Namespace, name: &ObjectName) -> Option<Arc<HarnessRun>> {
        self.caches.runs.get(namespace.as_str(), name.as_str())
    }

    /// The session of a run.
    pub(super) fn session(&self, run: &HarnessRun) -> Option<Arc<Session>> {
        let name = &run.spec.session_ref.as_ref()?.name;
        self.caches.sessions.get(run.metadata.namespace.as_deref().unwrap_or_default(), name)
    }

    /// A repository.
    pub(super) fn repository(
        &self,
        namespace: &Namespace,
        name: &ObjectName,
    ) -> Option<Arc<ConfigRepository>> {
        self.caches.repositories.get(namespace.as_str(), name.as_str())
    }

    /// Where a run is recorded, from the point of view of the recorder of `own`.
    pub(super) fn side(&self, run: &HarnessRun, own: &(Namespace, ObjectName)) -> Side {
        let repositories = self.caches.repositories.all();
        let repositories: Vec<&ConfigRepository> = repositories.iter().map(Arc::as_ref).collect();
        match record_of(run, self.session(run).as_deref(), &repositories) {
            Record::In(repository) => {
                let is_own = repository.name_any() == own.1.as_str()
                    && repository.metadata.namespace.as_deref() == Some(own.0.as_str());
                if is_own { Side::Ours } else { Side::Theirs }
            }
            Record::Gone(name) => Side::Gone(name),
            Record::Nowhere => Side::Nowhere,
        }
    }
}

/// Whether a need is none does not depend on the time: only which one it is.
fn is_open(run: &HarnessRun) -> bool {
    run.metadata.deletion_timestamp.is_some()
        || queue::need(run, Duration::ZERO, Timestamp::UNIX_EPOCH) != Need::Nothing
}

/// Who records a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Side {
    /// This recorder.
    Ours,
    /// That of another repository.
    Theirs,
    /// That of a repository which does not exist.
    Gone(String),
    /// Nobody: its status is all that there is.
    Nowhere,
}
