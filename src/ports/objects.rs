//! The Objects port: the five kinds and ConfigMaps, with the rules of an API server.

mod merge;
mod page;

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::watcher::{self, Event},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    class::Class,
    kinds::{Kind, Object, ObjectId, Reason, Typed},
    names::{Namespace, ObjectName, Uid},
};

pub use merge::merge_patch;
pub use page::{InvalidLabels, Labels, Page, Part};

/// Why an operation on an object failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such object.
    #[error("{0} does not exist")]
    NotFound(ObjectId),
    /// There is one of that name already.
    #[error("{0} exists already")]
    AlreadyExists(ObjectId),
    /// The object is not the one that was meant, or has changed since: a precondition on UID or resourceVersion failed,
    /// or an apply without force met fields of another manager.
    #[error("{id} has changed: {message}")]
    Conflict {
        /// Which object.
        id: ObjectId,
        /// What differs.
        message: String,
    },
    /// The object breaks its schema or a CEL rule; each cause is `field: text`.
    #[error("{id} is invalid: {}", causes.join("; "))]
    Invalid {
        /// Which object.
        id: ObjectId,
        /// What is wrong, one text a field.
        causes: Vec<String>,
    },
    /// Not allowed.
    #[error("not allowed: {0}")]
    Forbidden(String),
    /// The object cannot be read as its kind.
    #[error("{id} cannot be read as its kind")]
    Malformed {
        /// Which object.
        id: ObjectId,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The page follows one of a list that the store does not know any more. The list can be read anew.
    #[error("the list has changed too much since the page before; begin anew")]
    Expired,
    /// No page of the list begins where it should.
    #[error("no page of this list begins there; begin anew")]
    NoSuchPage,
    /// The store is out of reach or refused for now.
    #[error("the object store cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound(_) | Self::AlreadyExists(_) | Self::Conflict { .. } => Class::Conflict,
            Self::Invalid { .. } | Self::Forbidden(_) | Self::Malformed { .. } | Self::NoSuchPage => {
                Class::Invalid
            }
            Self::Expired | Self::Unavailable(_) => Class::Transient,
        }
    }
}

/// Which exact object, and in which state: the precondition of every write that is not a create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The object's UID; a re-created object of the same name does not match.
    pub uid: Uid,
    /// The state that was seen; `None` accepts any.
    pub resource_version: Option<String>,
}

impl At {
    /// The state in which `object` was read.
    ///
    /// `None` when it was never stored.
    #[must_use]
    pub fn of(object: &impl ResourceExt) -> Option<Self> {
        Some(Self { uid: object.uid()?.parse().ok()?, resource_version: object.resource_version() })
    }

    /// The same object in any state.
    #[must_use]
    pub fn any_version(self) -> Self {
        Self { resource_version: None, ..self }
    }
}

/// Weight of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// As expected.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Something worth telling about an object. Repeats of the same are counted, not stored again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Which object.
    pub about: ObjectId,
    /// Its UID.
    pub uid: Uid,
    /// Its weight.
    pub severity: Severity,
    /// Why, from the closed list.
    pub reason: Reason,
    /// For people: what happened and what to do; at most 1,024 bytes.
    pub message: String,
}

/// Something told about an object, with how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// Which object.
    pub about: ObjectId,
    /// Its UID.
    pub uid: Uid,
    /// True: somebody should look.
    pub warning: bool,
    /// Why.
    pub reason: Reason,
    /// What happened and what to do.
    pub message: String,
    /// How often it was told.
    pub count: u64,
    /// When it was told first.
    pub first: Timestamp,
    /// When it was told last.
    pub last: Timestamp,
}

/// The store of objects.
///
/// # Guarantees
/// * `metadata.generation` grows with each change of `spec` and with nothing else; `resourceVersion` changes with each
///   change of anything, and a write that changes nothing changes neither and sends no watch event.
/// * Status is a subresource: [`Objects::apply`] and [`Objects::merge`] never change it, and
///   [`Objects::write_status`] changes nothing else.
/// * An object with finalizers is not deleted but marked (`deletionTimestamp`), and goes when the last one is removed;
///   no finalizer can be added after the mark.
/// * Ownership of fields is kept per manager: maps are granular, lists atomic. An apply takes away what its manager
///   applied before and no longer does.
/// * Every object is checked against the schema and CEL rules of its kind, whoever writes it.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// Watches a kind in one namespace, or in all: first all objects (`Init`, `InitApply`…, `InitDone`), then changes.
    /// The stream ends only with the store.
    fn watch(
        &self,
        kind: Kind,
        namespace: Option<Namespace>,
    ) -> BoxStream<'static, watcher::Result<Event<Object>>>;

    /// Reads one object; `None` when there is none.
    async fn get(&self, id: &ObjectId) -> Result<Option<Object>, Error>;

    /// Reads all objects of a kind in one namespace, or in all, ordered by namespace and name.
    async fn list(&self, kind: Kind, namespace: Option<&Namespace>) -> Result<Vec<Object>, Error>;

    /// Reads a part of such a list, at about the cost of that part.
    ///
    /// An object that is there all the while is in one page and only one. Whether those are that come and go between
    /// two pages is up to the store, and so is how long a page can be followed: [`Error::Expired`].
    async fn page(&self, kind: Kind, namespace: Option<&Namespace>, part: &Part) -> Result<Page, Error>;

    /// Creates an object by name. [`Error::AlreadyExists`] when there is one.
    async fn create(&self, object: &Object, manager: &str) -> Result<Object, Error>;

    /// Server-side apply: makes the fields of `object` so, creating it when absent, owned by `manager`.
    ///
    /// Without `force` a field that another manager owns with another value is [`Error::Conflict`]; with it, the field
    /// is taken over. `at` guards against a re-created object.
    async fn apply(
        &self,
        object: &Object,
        manager: &str,
        force: bool,
        at: Option<&At>,
    ) -> Result<Object, Error>;

    /// JSON merge patch (RFC 7386) of metadata and spec.
    async fn merge(&self, id: &ObjectId, at: &At, patch: &Value, manager: &str) -> Result<Object, Error>;

    /// JSON merge patch of the status subresource; `patch` is the status itself.
    async fn write_status(
        &self,
        id: &ObjectId,
        at: &At,
        patch: &Value,
        manager: &str,
    ) -> Result<Object, Error>;

    /// Deletes, or marks when there are finalizers. [`Error::NotFound`] when it is gone already.
    async fn delete(&self, id: &ObjectId, at: &At) -> Result<(), Error>;

    /// Tells. Never fails: what cannot be told is logged and dropped.
    async fn tell(&self, happening: Happening);

    /// What was told about an object in the last hour, oldest first. It is for people: nothing is decided by it.
    async fn events(&self, id: &ObjectId) -> Result<Vec<Told>, Error>;
}

/// A shared handle on the store, with typed reading.
pub type Store = Arc<dyn Objects>;

/// The id of an object that was read from the store.
///
/// `None` when a name is missing or not one of ours.
#[must_use]
pub fn id_of(kind: Kind, object: &impl ResourceExt) -> Option<ObjectId> {
    let namespace = object.namespace()?.parse().ok()?;
    let name = object.name_any().parse().ok()?;
    Some(ObjectId { kind, namespace, name })
}

/// Reads an object as its kind.
///
/// # Errors
/// [`Error::Malformed`] when it does not fit.
pub fn typed<K: Typed>(object: Object) -> Result<K, Error> {
    let id = id_of(K::KIND, &object);
    let Object { types, metadata, data } = object;
    // each event of a watch comes by here: what is most of an object is moved, not copied
    let mut fields = match data {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    if let Some(types) = types {
        fields.insert("apiVersion".to_owned(), types.api_version.into());
        fields.insert("kind".to_owned(), types.kind.into());
    }
    let parsed = serde_json::to_value(metadata).and_then(|metadata| {
        fields.insert("metadata".to_owned(), metadata);
        serde_json::from_value(Value::Object(fields))
    });
    parsed.map_err(|source| Error::Malformed { id: id.unwrap_or_else(|| unnamed(K::KIND)), source })
}

/// Turns a typed object into the form that the port carries.
///
/// # Errors
/// [`Error::Malformed`] when it cannot be written as JSON.
pub fn untyped<K: Typed>(object: &K) -> Result<Object, Error> {
    let value = serde_json::to_value(object).and_then(serde_json::from_value);
    value.map_err(|source| Error::Malformed {
        id: id_of(K::KIND, object).unwrap_or_else(|| unnamed(K::KIND)),
        source,
    })
}

/// Reads one object as its kind.
///
/// # Errors
/// As [`Objects::get`], and [`Error::Malformed`].
pub async fn get<K: Typed>(
    store: &dyn Objects,
    namespace: &Namespace,
    name: &ObjectName,
) -> Result<Option<K>, Error> {
    let id = ObjectId::new(K::KIND, namespace.clone(), name.clone());
    store.get(&id).await?.map(typed).transpose()
}

/// Watches a kind, typed. An object that cannot be read as its kind is logged and left out: one malformed object never
/// stops the watch.
pub fn watch<K: Typed>(
    store: &dyn Objects,
    namespace: Option<Namespace>,
) -> BoxStream<'static, watcher::Result<Event<K>>> {
    let convert = |object: Object| match typed::<K>(object) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "object left out of the watch");
            None
        }
    };
    let events = store.watch(K::KIND, namespace).filter_map(move |event| {
        let event = match event {
            Ok(Event::Apply(object)) => convert(object).map(Event::Apply).map(Ok),
            Ok(Event::Delete(object)) => convert(object).map(Event::Delete).map(Ok),
            Ok(Event::Init) => Some(Ok(Event::Init)),
            Ok(Event::InitApply(object)) => convert(object).map(Event::InitApply).map(Ok),
            Ok(Event::InitDone) => Some(Ok(Event::InitDone)),
            Err(error) => Some(Err(error)),
        };
        std::future::ready(event)
    });
    events.boxed()
}

fn unnamed(kind: Kind) -> ObjectId {
    let namespace = "unnamed".parse().expect("a label");
    let name = "unnamed".parse().expect("a name");
    ObjectId { kind, namespace, name }
}
