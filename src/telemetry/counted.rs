//! Counts the calls to the store of objects: what a round that changes nothing costs can be seen, not only claimed.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;

use super::{Metrics, metrics::Call};
use crate::{
    kinds::{Kind, Object, ObjectId},
    names::Namespace,
    ports::objects::{At, Error, Happening, Objects, Page, Part, Store, Told},
};

/// A store whose calls are counted as `ostler_object_calls_total`.
pub struct Counted {
    store: Store,
    metrics: Arc<Metrics>,
}

impl Counted {
    /// Counts the calls to `store`.
    #[must_use]
    pub fn new(store: Store, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }
}

#[async_trait]
impl Objects for Counted {
    fn watch(
        &self,
        kind: Kind,
        namespace: Option<Namespace>,
    ) -> BoxStream<'static, watcher::Result<Event<Object>>> {
        self.metrics.called(Call::Watch);
        self.store.watch(kind, namespace)
    }

    async fn get(&self, id: &ObjectId) -> Result<Option<Object>, Error> {
        self.metrics.called(Call::Get);
        self.store.get(id).await
    }

    async fn list(&self, kind: Kind, namespace: Option<&Namespace>) -> Result<Vec<Object>, Error> {
        self.metrics.called(Call::List);
        self.store.list(kind, namespace).await
    }

    async fn page(&self, kind: Kind, namespace: Option<&Namespace>, part: &Part) -> Result<Page, Error> {
        self.metrics.called(Call::List);
        self.store.page(kind, namespace, part).await
    }

    async fn create(&self, object: &Object, manager: &str) -> Result<Object, Error> {
        self.metrics.called(Call::Create);
        self.store.create(object, manager).await
    }

    async fn apply(
        &self,
        object: &Object,
        manager: &str,
        force: bool,
        at: Option<&At>,
    ) -> Result<Object, Error> {
        self.metrics.called(Call::Apply);
        self.store.apply(object, manager, force, at).await
    }

    async fn merge(&self, id: &ObjectId, at: &At, patch: &Value, manager: &str) -> Result<Object, Error> {
        self.metrics.called(Call::Merge);
        self.store.merge(id, at, patch, manager).await
    }

    async fn write_status(
        &self,
        id: &ObjectId,
        at: &At,
        patch: &Value,
        manager: &str,
    ) -> Result<Object, Error> {
        self.metrics.called(Call::Status);
        self.store.write_status(id, at, patch, manager).await
    }

    async fn delete(&self, id: &ObjectId, at: &At) -> Result<(), Error> {
        self.metrics.called(Call::Delete);
        self.store.delete(id, at).await
    }

    async fn tell(&self, happening: Happening) {
        self.metrics.called(Call::Tell);
        self.store.tell(happening).await;
    }

    async fn events(&self, id: &ObjectId) -> Result<Vec<Told>, Error> {
        self.metrics.called(Call::List);
        self.store.events(id).await
    }
}
