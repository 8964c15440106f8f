//! What the recorder sees of the store: runs, sessions and repositories, kept by watching.

use std::collections::BTreeMap;

use futures::{
    StreamExt,
    stream::{BoxStream, select_all},
};
use kube::{ResourceExt, runtime::watcher::Event};

use crate::{
    kinds::{ConfigRepository, HarnessRun, Session, Typed},
    names::{Namespace, ObjectName},
    ports::objects::{self, Objects},
    resolve::record::{Record, record_of},
};

/// Something that a watch said.
#[derive(Debug)]
pub(super) enum Seen {
    Run(Box<Event<HarnessRun>>),
    Session(Box<Event<Session>>),
    Repository(Box<Event<ConfigRepository>>),
}

/// Watches all three, in one namespace or all. An interrupted watch begins anew by itself.
pub(super) fn watch(store: &dyn Objects, scope: Option<&Namespace>) -> BoxStream<'static, Seen> {
    fn one<K: Typed>(
        store: &dyn Objects,
        scope: Option<&Namespace>,
        wrap: fn(Box<Event<K>>) -> Seen,
    ) -> BoxStream<'static, Seen> {
        let events = objects::watch::<K>(store, scope.cloned()).filter_map(move |event| {
            if let Err(error) = &event {
                tracing::warn!(error = error as &dyn std::error::Error, "a watch was interrupted");
            }
            std::future::ready(event.ok().map(|event| wrap(Box::new(event))))
        });
        events.boxed()
    }
    select_all([
        one::<HarnessRun>(store, scope, Seen::Run),
        one::<Session>(store, scope, Seen::Session),
        one::<ConfigRepository>(store, scope, Seen::Repository),
    ])
    .boxed()
}

/// The objects of one kind, by namespace and name.
#[derive(Debug)]
struct Table<K> {
    objects: BTreeMap<(String, String), K>,
    complete: bool,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), complete: false }
    }
}

impl<K: Typed> Table<K> {
    fn take(&mut self, event: Event<K>) {
        match event {
            Event::Init => *self = Self::default(),
            Event::InitApply(object) | Event::Apply(object) => {
                self.objects.insert(key(&object), object);
            }
            Event::Delete(object) => {
                self.objects.remove(&key(&object));
            }
            Event::InitDone => self.complete = true,
        }
    }
}

fn key(object: &impl ResourceExt) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// All that the recorder sees.
#[derive(Debug, Default)]
pub(super) struct World {
    runs: Table<HarnessRun>,
    sessions: Table<Session>,
    repositories: Table<ConfigRepository>,
}

impl World {
    /// Takes in what a watch said.
    pub(super) fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Run(event) => self.runs.take(*event),
            Seen::Session(event) => self.sessions.take(*event),
            Seen::Repository(event) => self.repositories.take(*event),
        }
    }

    /// True when each watch has shown everything once: before that, "there is none" means nothing.
    pub(super) fn is_complete(&self) -> bool {
        self.runs.complete && self.sessions.complete && self.repositories.complete
    }

    /// All runs.
    pub(super) fn runs(&self) -> impl Iterator<Item = &HarnessRun> {
        self.runs.objects.values()
    }

    /// The session of a run.
    pub(super) fn session(&self, run: &HarnessRun) -> Option<&Session> {
        let name = run.spec.session_ref.as_ref()?.name.clone();
        self.sessions.objects.get(&(run.namespace().unwrap_or_default(), name))
    }

    /// A repository.
    pub(super) fn repository(&self, namespace: &Namespace, name: &ObjectName) -> Option<&ConfigRepository> {
        self.repositories.objects.get(&(namespace.to_string(), name.to_string()))
    }

    /// Where a run is recorded, from the point of view of the recorder of `own`.
    pub(super) fn side(&self, run: &HarnessRun, own: &(Namespace, ObjectName)) -> Side {
        let repositories: Vec<&ConfigRepository> = self.repositories.objects.values().collect();
        match record_of(run, self.session(run), &repositories) {
            Record::In(r) if key(r) == (own.0.to_string(), own.1.to_string()) => Side::Ours,
            Record::In(_) => Side::Theirs,
            Record::Gone(name) => Side::Gone(name),
            Record::Nowhere => Side::Nowhere,
        }
    }
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
