//! The Objects port on one machine: a transactional store in one folder, with the rules of an API server.
//!
//! All objects are in memory; redb makes them durable. One thread writes (see `writer`), the rules are pure functions
//! (see `rules` and `ownership`), and watchers hear of a change once it is on the disk.

mod check;
mod disk;
mod fields;
mod live;
mod ownership;
mod rules;
mod socket;
mod told;
mod writer;

use std::{path::Path, sync::Arc, thread};

use async_trait::async_trait;
use futures::stream::BoxStream;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

pub use disk::OpenError;
pub use socket::{ConnectError, RemoteStore, Server, connect, serve};

use crate::{
    kinds::{Kind, Object, ObjectId},
    names::{Namespace, Uid},
    ports::{
        Objects,
        objects::{At, Error, Happening, Page, Part, Told, id_of},
    },
};
use disk::Disk;
use live::Live;
use rules::Write;
use writer::{Order, QUEUE, Scribe};

/// Where the store gets the time.
pub type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// The embedded store.
///
/// A write is on the disk when it is answered. A crash at any moment leaves the store as it was after some write.
/// Dropping the store waits for what was asked, ends all watches and lets the folder go.
pub struct EmbeddedStore {
    live: Arc<Live>,
    clock: Clock,
    id: Uid,
    orders: Option<mpsc::Sender<Order>>,
    scribe: Option<thread::JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens the store in a folder, which is made (mode 0700) when there is none, and holds it alone.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process has it; else why it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_with_clock(folder, Arc::new(jiff::Timestamp::now))
    }

    /// The same with a clock of one's own.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn open_with_clock(folder: &Path, clock: Clock) -> Result<Self, OpenError> {
        let (disk, loaded) = Disk::open(folder)?;
        let (id, version) = (loaded.id.clone(), loaded.version);
        let live = Arc::new(Live::new(loaded));
        let (orders, received) = mpsc::channel(QUEUE);
        let scribe = Scribe { disk, live: Arc::clone(&live), clock: Arc::clone(&clock), version };
        let scribe = thread::Builder::new()
            .name("objects".to_owned())
            .spawn(move || scribe.run(received))
            .map_err(|source| OpenError::Io { path: folder.to_owned(), source })?;
        Ok(Self { live, clock, id, orders: Some(orders), scribe: Some(scribe) })
    }

    /// Reads the store of a folder that no process has open, as it is now. Writes to what is returned are
    /// [`Error::Forbidden`]; its watches show the objects and then nothing more. The folder is not held.
    ///
    /// # Errors
    /// [`OpenError::InUse`] while a process has it, [`OpenError::Missing`] when there is none; else why it cannot be read.
    pub fn open_read_only(folder: &Path) -> Result<Self, OpenError> {
        let loaded = Disk::read(folder)?;
        let id = loaded.id.clone();
        let clock: Clock = Arc::new(jiff::Timestamp::now);
        Ok(Self { live: Arc::new(Live::new(loaded)), clock, id, orders: None, scribe: None })
    }

    /// The id made with the folder, a UUID: who holds the claims that are made from here.
    #[must_use]
    pub fn id(&self) -> &Uid {
        &self.id
    }

    async fn write(&self, id: ObjectId, write: Write) -> Result<Arc<Value>, Error> {
        if let Write::Create { manager, .. }
        | Write::Apply { manager, .. }
        | Write::Merge { manager, .. }
        | Write::Status { manager, .. } = &write
        {
            check::manager(manager)?;
        }
        let Some(orders) = &self.orders else {
            return Err(Error::Forbidden(
                "the store is open for reading only; `ostler up` writes".to_owned(),
            ));
        };
        let ended = || Error::Unavailable("the store has ended".into());
        let (answer, answered) = oneshot::channel();
        let order = Order::Write { id, write: Box::new(write), answer };
        orders.send(order).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    async fn write_object(&self, id: ObjectId, write: Write) -> Result<Object, Error> {
        let value = self.write(id.clone(), write).await?;
        read(&id, &value)
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(scribe) = self.scribe.take()
            && scribe.join().is_err()
        {
            tracing::error!("the store's writer ended by a panic");
        }
        self.live.close();
    }
}

#[async_trait]
impl Objects for EmbeddedStore {
    fn watch(
        &self,
        kind: Kind,
        namespace: Option<Namespace>,
    ) -> BoxStream<'static, watcher::Result<Event<Object>>> {
        live::watch(Arc::clone(&self.live), kind, namespace)
    }

    async fn get(&self, id: &ObjectId) -> Result<Option<Object>, Error> {
        self.live.get(id).map(|stored| read(id, &stored.value)).transpose()
    }

    async fn list(&self, kind: Kind, namespace: Option<&Namespace>) -> Result<Vec<Object>, Error> {
        let objects = self.live.list(kind, namespace);
        objects.iter().map(|(id, value)| read(id, value)).collect()
    }

    async fn page(&self, kind: Kind, namespace: Option<&Namespace>, part: &Part) -> Result<Page, Error> {
        let after = part.after.as_deref().map(|after| place(kind, namespace, after)).transpose()?;
        let limit = usize::try_from(part.limit).unwrap_or(usize::MAX);
        let (objects, is_last) = self.live.page(kind, namespace, after.as_ref(), (&part.labels, limit));
        let last = objects.last().filter(|_| !is_last);
        let next = last.map(|(id, _)| format!("{}/{}", id.namespace, id.name));
        let objects = objects.iter().map(|(id, value)| read(id, value)).collect::<Result<_, _>>()?;
        Ok(Page { objects, next })
    }

    async fn create(&self, object: &Object, manager: &str) -> Result<Object, Error> {
        let (id, object) = identify(object)?;
        self.write_object(id, Write::Create { object, manager: manager.to_owned() }).await
    }

    async fn apply(
        &self,
        object: &Object,
        manager: &str,
        force: bool,
        at: Option<&At>,
    ) -> Result<Object, Error> {
        let (id, object) = identify(object)?;
        let write = Write::Apply { object, manager: manager.to_owned(), force, at: at.cloned() };
        self.write_object(id, write).await
    }

    async fn merge(&self, id: &ObjectId, at: &At, patch: &Value, manager: &str) -> Result<Object, Error> {
        let write = Write::Merge { at: at.clone(), patch: patch.clone(), manager: manager.to_owned() };
        self.write_object(id.clone(), write).await
    }

    async fn write_status(
        &self,
        id: &ObjectId,
        at: &At,
        patch: &Value,
        manager: &str,
    ) -> Result<Object, Error> {
        let write = Write::Status { at: at.clone(), patch: patch.clone(), manager: manager.to_owned() };
        self.write_object(id.clone(), write).await
    }

    async fn delete(&self, id: &ObjectId, at: &At) -> Result<(), Error> {
        self.write(id.clone(), Write::Delete { at: at.clone() }).await.map(drop)
    }

    async fn tell(&self, happening: Happening) {
        let told = match &self.orders {
            Some(orders) => orders.send(Order::Tell(happening)).await.is_ok(),
            None => false,
        };
        if !told {
            tracing::warn!("an event is dropped: the store does not write");
        }
    }

    /// At most 32.
    async fn events(&self, id: &ObjectId) -> Result<Vec<Told>, Error> {
        Ok(self.live.told(id, (self.clock)()))
    }
}

fn read(id: &ObjectId, value: &Value) -> Result<Object, Error> {
    serde_json::from_value(value.clone()).map_err(|source| Error::Malformed { id: id.clone(), source })
}

/// The last object of the page before: `namespace/name`. It need not be there any more.
fn place(kind: Kind, namespace: Option<&Namespace>, after: &str) -> Result<ObjectId, Error> {
    let (within, name) = after.split_once('/').ok_or(Error::NoSuchPage)?;
    let id = ObjectId::new(
        kind,
        within.parse().map_err(|_| Error::NoSuchPage)?,
        name.parse().map_err(|_| Error::NoSuchPage)?,
    );
    if namespace.is_some_and(|namespace| *namespace != id.namespace) {
        return Err(Error::NoSuchPage);
    }
    Ok(id)
}

/// Finds out which object is meant, from its `apiVersion`, `kind`, namespace and name.
fn identify(object: &Object) -> Result<(ObjectId, Value), Error> {
    let unknown = |what: &str| Error::Forbidden(format!("an object without {what} cannot be stored"));
    let types = object.types.as_ref().ok_or_else(|| unknown("kind"))?;
    let kind: Kind = types.kind.parse().map_err(|_| unknown("a kind of ours"))?;
    if types.api_version != rules::api_version(kind) {
        return Err(unknown("an apiVersion of ours"));
    }
    let id = id_of(kind, object).ok_or_else(|| unknown("a good namespace and name"))?;
    let value = serde_json::to_value(object).map_err(|source| Error::Malformed { id: id.clone(), source })?;
    Ok((id, value))
}
