//! Read caches: one watch per kind, shared by everybody in the process.

mod groups;

use std::{collections::BTreeSet, future::Future, sync::Arc};

use futures::{Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef},
        watcher::Event,
    },
};
use tokio::sync::broadcast;

use self::groups::Groups;
use crate::{
    kinds::{Agent, ConfigRepository, EgressPolicy, HarnessRun, Kind, Object, ObjectId, Session, Typed},
    names::Namespace,
    ports::objects::{self, Objects},
};

/// How many changes a slow reader may be behind before it is told to look at everything.
const BEHIND: usize = 1024;

/// The cache of one kind.
pub struct Cache<K: Typed + std::fmt::Debug> {
    reader: reflector::Store<K>,
    /// `None`: a list has come, and anything may have changed or gone.
    touched: broadcast::Sender<Option<ObjectRef<K>>>,
    namespace: Option<Namespace>,
    groups: Arc<Groups<K>>,
}

impl<K: Typed + std::fmt::Debug> Clone for Cache<K> {
    fn clone(&self) -> Self {
        let Self { reader, touched, namespace, groups } = self;
        let (namespace, groups) = (namespace.clone(), Arc::clone(groups));
        Self { reader: reader.clone(), touched: touched.clone(), namespace, groups }
    }
}

impl<K: Typed + std::fmt::Debug> Cache<K> {
    /// A cache; the task that fills it is added to `fills` and ends with the store. `group`: what of an object its like can
    /// be found by.
    fn new(
        store: &dyn Objects,
        namespace: Option<&Namespace>,
        group: fn(&K) -> Option<&str>,
        fills: &mut Vec<BoxFuture<'static, ()>>,
    ) -> Self {
        let (reader, mut writer) = reflector::store::<K>();
        let (touched, _) = broadcast::channel(BEHIND);
        let mut events = objects::watch::<K>(store, namespace.cloned()).default_backoff().boxed();
        let groups = Arc::new(Groups::new(group));
        let cache = Self {
            reader,
            touched: touched.clone(),
            namespace: namespace.cloned(),
            groups: Arc::clone(&groups),
        };
        let held = cache.reader.clone();
        let fill = async move {
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        writer.apply_watcher_event(&event);
                        groups.follow(&event, &held);
                        // no reader of these is no error
                        match &event {
                            Event::Apply(object) | Event::Delete(object) => {
                                let _ = touched.send(Some(ObjectRef::from_obj(object)));
                            }
                            // what a list brings can be read only from its end on
                            Event::InitDone => {
                                let _ = touched.send(None);
                            }
                            Event::Init | Event::InitApply(_) => {}
                        }
                    }
                    Err(error) => {
                        tracing::warn!(kind = %K::KIND, error = &error as &dyn std::error::Error, "watch failed");
                    }
                }
            }
        };
        fills.push(Box::pin(fill));
        cache
    }

    /// The object, if it is there.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.reader.get(&ObjectRef::new(name).within(namespace))
    }

    /// Every object.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        self.reader.state()
    }

    /// Every object of a namespace.
    #[must_use]
    pub fn within(&self, namespace: &str) -> Vec<Arc<K>> {
        self.reader.state_filter(|object| object.meta().namespace.as_deref() == Some(namespace))
    }

    /// True when it holds what the store holds now: its watch is not behind.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn is_current(&self, store: &dyn Objects) -> Result<bool, objects::Error> {
        fn version<K: Typed>(object: &K) -> (Option<String>, Option<String>) {
            (object.uid(), object.resource_version())
        }
        let stored = store.list(K::KIND, self.namespace.as_ref()).await?;
        // what cannot be read as its kind is in no cache
        let stored = stored.into_iter().filter_map(|object| objects::typed::<K>(object).ok());
        let stored: BTreeSet<_> = stored.map(|object| version(&object)).collect();
        Ok(self.all().iter().map(|object| version(object.as_ref())).collect::<BTreeSet<_>>() == stored)
    }

    /// What kube's controller reads from.
    #[must_use]
    pub fn reader(&self) -> reflector::Store<K> {
        self.reader.clone()
    }

    /// Objects that are there, and then those that are created, changed or deleted. A reader that falls behind is told of
    /// every object.
    pub fn touched(&self) -> impl Stream<Item = ObjectRef<K>> + Send + use<K> {
        let changes = self.changes();
        let reader = self.reader.clone();
        let all = |reader: &reflector::Store<K>| {
            let all = reader.state().into_iter().map(|object| ObjectRef::from_obj(object.as_ref()));
            futures::stream::iter(all.collect::<Vec<_>>())
        };
        let there = all(&reader);
        let changes = changes.map(move |change| match change {
            Some(one) => futures::stream::iter(vec![one]),
            None => all(&reader),
        });
        there.chain(changes.flatten())
    }

    /// Objects that are created, changed or deleted from now on; `None`: any of them may have been.
    fn changes(&self) -> impl Stream<Item = Option<ObjectRef<K>>> + Send + use<K> {
        futures::stream::unfold(self.touched.subscribe(), |mut receiver| async move {
            match receiver.recv().await {
                Ok(change) => Some((change, receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((None, receiver)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
    }

    fn changed_ids(&self) -> BoxStream<'static, Change> {
        let id = |reference: ObjectRef<K>| {
            let namespace = reference.namespace?.parse().ok()?;
            Some(ObjectId::new(K::KIND, namespace, reference.name.parse().ok()?))
        };
        // what has no name of ours nobody asks for
        let change = move |change: Option<_>| match change {
            Some(reference) => id(reference).map(Change::Object),
            None => Some(Change::Everything),
        };
        self.changes().filter_map(move |one| std::future::ready(change(one))).boxed()
    }

    fn untyped(&self, id: &ObjectId) -> Option<Object> {
        let object = self.get(id.namespace.as_str(), id.name.as_str())?;
        // a type that was read can be written
        objects::untyped(object.as_ref()).ok()
    }

    /// Waits until the first list is complete.
    pub async fn ready(&self) {
        // an error means that the filling task has ended, and with it the process' work
        let _ = self.reader.wait_until_ready().await;
    }
}

impl Cache<HarnessRun> {
    /// Every run of a session, by name.
    #[must_use]
    pub fn of_session(&self, namespace: &str, session: &str) -> Vec<Arc<HarnessRun>> {
        self.groups.get(namespace, session)
    }
}

fn session_of(run: &HarnessRun) -> Option<&str> {
    run.spec.session_ref.as_ref().map(|session| session.name.as_str())
}

/// What may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This object was created, changed or deleted.
    Object(ObjectId),
    /// Any object may have been: a watch began anew, or the reader was too slow.
    Everything,
}

/// The caches of all kinds.
#[derive(Clone)]
pub struct Caches {
    /// Repositories.
    pub repositories: Cache<ConfigRepository>,
    /// Policies.
    pub policies: Cache<EgressPolicy>,
    /// Agents.
    pub agents: Cache<Agent>,
    /// Sessions.
    pub sessions: Cache<Session>,
    /// Runs.
    pub runs: Cache<HarnessRun>,
    /// ConfigMaps.
    pub config_maps: Cache<ConfigMap>,
}

impl Caches {
    /// Caches of everything in one namespace, or in all, and the task that fills them. The task ends with the store.
    pub fn new(
        store: &dyn Objects,
        namespace: Option<&Namespace>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let mut fills: Vec<BoxFuture<'static, ()>> = Vec::new();
        let caches = Self {
            repositories: Cache::new(store, namespace, |_| None, &mut fills),
            policies: Cache::new(store, namespace, |_| None, &mut fills),
            agents: Cache::new(store, namespace, |_| None, &mut fills),
            sessions: Cache::new(store, namespace, |_| None, &mut fills),
            runs: Cache::new(store, namespace, session_of, &mut fills),
            config_maps: Cache::new(store, namespace, |_| None, &mut fills),
        };
        let fill = async move {
            futures::future::join_all(fills).await;
        };
        (caches, fill)
    }

    /// True when every cache holds what the store holds now.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn are_current(&self, store: &dyn Objects) -> Result<bool, objects::Error> {
        Ok(self.repositories.is_current(store).await?
            && self.policies.is_current(store).await?
            && self.agents.is_current(store).await?
            && self.sessions.is_current(store).await?
            && self.runs.is_current(store).await?
            && self.config_maps.is_current(store).await?)
    }

    /// Objects of any kind that were created, changed or deleted, from now on.
    pub fn touched(&self) -> impl Stream<Item = ()> + Send + use<> {
        futures::stream::select_all([
            self.repositories.touched().map(drop).boxed(),
            self.policies.touched().map(drop).boxed(),
            self.agents.touched().map(drop).boxed(),
            self.sessions.touched().map(drop).boxed(),
            self.runs.touched().map(drop).boxed(),
            self.config_maps.touched().map(drop).boxed(),
        ])
    }

    /// Changes of objects of every kind but repositories, from now on.
    pub fn changes(&self) -> impl Stream<Item = Change> + Send + use<> {
        futures::stream::select_all([
            self.policies.changed_ids(),
            self.agents.changed_ids(),
            self.sessions.changed_ids(),
            self.runs.changed_ids(),
            self.config_maps.changed_ids(),
        ])
    }

    /// An object of any kind as its type was read: what is empty is left out.
    #[must_use]
    pub fn object(&self, id: &ObjectId) -> Option<Object> {
        match id.kind {
            Kind::ConfigRepository => self.repositories.untyped(id),
            Kind::EgressPolicy => self.policies.untyped(id),
            Kind::Agent => self.agents.untyped(id),
            Kind::Session => self.sessions.untyped(id),
            Kind::HarnessRun => self.runs.untyped(id),
            Kind::ConfigMap => self.config_maps.untyped(id),
        }
    }

    /// Waits until every first list is complete.
    pub async fn ready(&self) {
        self.repositories.ready().await;
        self.policies.ready().await;
        self.agents.ready().await;
        self.sessions.ready().await;
        self.runs.ready().await;
        self.config_maps.ready().await;
    }
}
