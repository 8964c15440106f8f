//! The Objects port on an API server.

mod answer;
mod events;
mod told;

use std::{future::Future, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    kinds::{Kind, Object, ObjectId},
    names::Namespace,
    ports::{
        Objects,
        objects::{At, Error, Happening, Page, Part, Told, id_of},
    },
};

/// The most objects in one answer.
const PAGE: u32 = 500;
/// The longest that one request may take, with the client's own repeats after 429 and 503.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a status in any state is tried while others write it.
const STATUS_TRIES: usize = 10;

/// The store of objects that an API server is.
///
/// Nothing is read before a write: every precondition travels with it. Only a status that may be in any state is read
/// first, because an API server ignores the UID of a patch of the status, but not the resourceVersion. Objects that a watch brings are without
/// `managedFields`, which only those read who list. A watch repeats with backoff what failed.
pub struct KubeObjects {
    client: Client,
    happenings: mpsc::Sender<Happening>,
}

impl KubeObjects {
    /// The store behind a client, see [`crate::kubernetes::client::connect`]. It starts a task that sends events and
    /// ends, once they are sent, when the store is dropped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { happenings: events::start(client.clone()), client }
    }

    /// The client that it asks by.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn api(&self, id: &ObjectId) -> Api<Object> {
        self.api_of(id.kind, Some(&id.namespace))
    }

    fn api_of(&self, kind: Kind, namespace: Option<&Namespace>) -> Api<Object> {
        let resource = kind.api_resource();
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace.as_str(), &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// One answer to a list.
    async fn part(
        &self,
        kind: Kind,
        namespace: Option<&Namespace>,
        params: &ListParams,
    ) -> Result<Page, Error> {
        let (api, types) = (self.api_of(kind, namespace), types(kind));
        let answer = timeout(PATIENCE, api.list(params)).await.map_err(|_| answer::silence())?;
        let mut answer = answer.map_err(|error| answer::of_list(kind, error))?;
        for object in &mut answer.items {
            // items of a list of a built-in kind do not say what they are
            object.types.get_or_insert_with(|| types.clone());
        }
        let next = answer.metadata.continue_.filter(|token| !token.is_empty());
        Ok(Page { objects: answer.items, next })
    }

    async fn patch_status(
        &self,
        id: &ObjectId,
        at: &At,
        patch: &Value,
        manager: &str,
    ) -> Result<Object, Error> {
        let patch = guarded(id, at, patch)?;
        let (api, params) = (self.api(id), by(manager));
        answered(id, api.patch_status(id.name.as_str(), &params, &Patch::Merge(&patch))).await
    }

    /// The state in which the object is now, if it is still the one that is meant.
    async fn exact(&self, id: &ObjectId, at: &At) -> Result<At, Error> {
        let object = self.get(id).await?.ok_or_else(|| Error::NotFound(id.clone()))?;
        match At::of(&object) {
            Some(now) if now.uid == at.uid => Ok(now),
            _ => Err(conflict(id, format!("its UID is not {}", at.uid))),
        }
    }
}

#[async_trait]
impl Objects for KubeObjects {
    fn watch(
        &self,
        kind: Kind,
        namespace: Option<Namespace>,
    ) -> BoxStream<'static, watcher::Result<Event<Object>>> {
        let config = watcher::Config::default().page_size(PAGE);
        let events = watcher(self.api_of(kind, namespace.as_ref()), config).default_backoff();
        events.map_ok(|event| event.modify(|object| object.metadata.managed_fields = None)).boxed()
    }

    async fn get(&self, id: &ObjectId) -> Result<Option<Object>, Error> {
        // not `get_opt`: that takes an unknown kind for a missing object
        match answered(id, self.api(id).get(id.name.as_str())).await {
            Err(Error::NotFound(_)) => Ok(None),
            other => other.map(Some),
        }
    }

    async fn list(&self, kind: Kind, namespace: Option<&Namespace>) -> Result<Vec<Object>, Error> {
        let (mut objects, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
        loop {
            let mut page = self.part(kind, namespace, &params).await?;
            objects.append(&mut page.objects);
            params.continue_token = page.next;
            if params.continue_token.is_none() {
                break;
            }
        }
        // the server's order puts `a-b` before `a`
        objects.sort_by_cached_key(|object| (object.namespace(), object.name_any()));
        Ok(objects)
    }

    /// All pages are of the moment at which the first was read, for as long as etcd keeps that: five minutes by default.
    async fn page(&self, kind: Kind, namespace: Option<&Namespace>, part: &Part) -> Result<Page, Error> {
        let labels = (!part.labels.is_empty()).then(|| part.labels.to_string());
        let (limit, continue_token) = (Some(part.limit), part.after.clone());
        let params = ListParams { limit, continue_token, label_selector: labels, ..ListParams::default() };
        self.part(kind, namespace, &params).await
    }

    async fn create(&self, object: &Object, manager: &str) -> Result<Object, Error> {
        let (id, object) = identify(object)?;
        let params = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
        answered(&id, self.api(&id).create(&params, &object)).await
    }

    async fn apply(
        &self,
        object: &Object,
        manager: &str,
        force: bool,
        at: Option<&At>,
    ) -> Result<Object, Error> {
        let (id, mut object) = identify(object)?;
        object.metadata.uid = at.map(|at| at.uid.to_string());
        object.metadata.resource_version = at.and_then(|at| at.resource_version.clone());
        let params = PatchParams { force, ..PatchParams::apply(manager) };
        answered(&id, self.api(&id).patch(id.name.as_str(), &params, &Patch::Apply(&object))).await
    }

    async fn merge(&self, id: &ObjectId, at: &At, patch: &Value, manager: &str) -> Result<Object, Error> {
        let patch = guarded(id, at, patch)?;
        let (api, params) = (self.api(id), by(manager));
        answered(id, api.patch(id.name.as_str(), &params, &Patch::Merge(&patch))).await
    }

    async fn write_status(
        &self,
        id: &ObjectId,
        at: &At,
        patch: &Value,
        manager: &str,
    ) -> Result<Object, Error> {
        if id.kind == Kind::ConfigMap || !patch.is_object() {
            return Err(invalid(id, "status: an object is needed"));
        }
        let patch = json!({"status": patch});
        if at.resource_version.is_some() {
            return self.patch_status(id, at, &patch, manager).await;
        }
        for _ in 0..STATUS_TRIES {
            let seen = self.exact(id, at).await?;
            match self.patch_status(id, &seen, &patch, manager).await {
                Err(Error::Conflict { .. }) => {}
                done => return done,
            }
        }
        Err(conflict(id, "its state changes all the time".to_owned()))
    }

    async fn delete(&self, id: &ObjectId, at: &At) -> Result<(), Error> {
        let preconditions =
            Preconditions { uid: Some(at.uid.to_string()), resource_version: at.resource_version.clone() };
        let params = DeleteParams::default().preconditions(preconditions);
        answered(id, self.api(id).delete(id.name.as_str(), &params)).await.map(drop)
    }

    async fn tell(&self, happening: Happening) {
        if let Err(error) = self.happenings.try_send(happening) {
            tracing::warn!(error = &error as &dyn std::error::Error, "an event is dropped");
        }
    }

    async fn events(&self, id: &ObjectId) -> Result<Vec<Told>, Error> {
        told::about(self.client.clone(), id).await
    }
}

/// Waits for an answer about one object.
async fn answered<T>(
    id: &ObjectId,
    request: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<T, Error> {
    let answer = timeout(PATIENCE, request).await.map_err(|_| answer::silence())?;
    answer.map_err(|error| answer::of_object(id, error))
}

fn by(manager: &str) -> PatchParams {
    PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() }
}

/// A merge patch with what it presupposes: an API server refuses one whose UID or resourceVersion is another.
fn guarded(id: &ObjectId, at: &At, patch: &Value) -> Result<Value, Error> {
    let mut patch = patch.clone();
    let Value::Object(fields) = &mut patch else { return Err(invalid(id, "patch: an object is needed")) };
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    let Value::Object(metadata) = metadata else { return Err(invalid(id, "metadata: an object is needed")) };
    metadata.insert("uid".to_owned(), json!(at.uid));
    match &at.resource_version {
        Some(version) => metadata.insert("resourceVersion".to_owned(), json!(version)),
        None => metadata.shift_remove("resourceVersion"),
    };
    Ok(patch)
}

fn invalid(id: &ObjectId, cause: &str) -> Error {
    Error::Invalid { id: id.clone(), causes: vec![cause.to_owned()] }
}

fn conflict(id: &ObjectId, message: String) -> Error {
    Error::Conflict { id: id.clone(), message }
}

fn types(kind: Kind) -> kube::core::TypeMeta {
    let resource = kind.api_resource();
    kube::core::TypeMeta { api_version: resource.api_version, kind: resource.kind }
}

/// Finds out which object is meant, and leaves out what only the API server writes.
fn identify(object: &Object) -> Result<(ObjectId, Object), Error> {
    let unknown = |what: &str| Error::Forbidden(format!("an object without {what} cannot be stored"));
    let given = object.types.as_ref().ok_or_else(|| unknown("kind"))?;
    let kind: Kind = given.kind.parse().map_err(|_| unknown("a kind of ours"))?;
    if *given != types(kind) {
        return Err(unknown("an apiVersion of ours"));
    }
    let id = id_of(kind, object).ok_or_else(|| unknown("a good namespace and name"))?;
    let ObjectMeta { name, namespace, labels, annotations, finalizers, owner_references, .. } =
        object.metadata.clone();
    let metadata = ObjectMeta {
        name,
        namespace,
        labels,
        annotations,
        finalizers,
        owner_references,
        ..ObjectMeta::default()
    };
    Ok((id, Object { metadata, ..object.clone() }))
}
