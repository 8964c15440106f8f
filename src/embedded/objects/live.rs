//! The objects in memory: what reads see, and whom changes are told.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    vec,
};

use futures::{StreamExt, stream, stream::BoxStream};
use jiff::Timestamp;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{disk::Loaded, told::Log};
use crate::{
    kinds::{Kind, Object, ObjectId},
    names::Namespace,
    ports::objects::{Happening, Labels, Told},
};

/// How many changes wait for one watcher. One that is slower gets all objects again, so that memory is bounded and
/// nothing is lost.
const WATCH_BUFFER: usize = 1_024;

/// An object as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) value: Arc<Value>,
    /// Its size as JSON.
    pub(super) bytes: usize,
}

/// A change of one object.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) id: ObjectId,
    pub(super) stored: Stored,
    /// True: it is gone, and this was its last state.
    pub(super) removed: bool,
}

struct Watcher {
    kind: Kind,
    namespace: Option<Namespace>,
    changes: mpsc::Sender<Change>,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<ObjectId, Stored>,
    bytes: usize,
    log: Log,
    watchers: Vec<Watcher>,
    closed: bool,
}

/// The state that all share.
#[derive(Default)]
pub(super) struct Live(Mutex<Inner>);

impl Live {
    pub(super) fn new(loaded: Loaded) -> Self {
        let mut inner = Inner::default();
        for (id, value, bytes) in loaded.objects {
            inner.bytes += bytes;
            inner.objects.insert(id, Stored { value: Arc::new(value), bytes });
        }
        for told in loaded.told {
            inner.log.restore(told);
        }
        Self(Mutex::new(inner))
    }

    // every change under the lock is complete before anything can panic
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: &ObjectId) -> Option<Stored> {
        self.lock().objects.get(id).cloned()
    }

    /// Bytes of all objects as JSON.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    pub(super) fn list(&self, kind: Kind, namespace: Option<&Namespace>) -> Vec<(ObjectId, Arc<Value>)> {
        list(&self.lock(), kind, namespace)
    }

    /// At most `limit` objects that come after one and match, and whether there is none after them.
    pub(super) fn page(
        &self,
        kind: Kind,
        namespace: Option<&Namespace>,
        after: Option<&ObjectId>,
        (labels, limit): (&Labels, usize),
    ) -> (Vec<(ObjectId, Arc<Value>)>, bool) {
        let inner = self.lock();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let within =
            |id: &ObjectId| id.kind == kind && namespace.is_none_or(|namespace| *namespace == id.namespace);
        let matches = |stored: &Stored| {
            let of = &stored.value["metadata"]["labels"];
            labels.match_by(|key| of.get(key).and_then(Value::as_str))
        };
        let mut rest = inner
            .objects
            .range::<ObjectId, _>((start, Bound::Unbounded))
            .skip_while(|(id, _)| !within(id))
            .take_while(|(id, _)| within(id))
            .filter(|(_, stored)| matches(stored))
            .map(|(id, stored)| (id.clone(), Arc::clone(&stored.value)));
        let page = rest.by_ref().take(limit).collect();
        (page, rest.next().is_none())
    }

    pub(super) fn told(&self, id: &ObjectId, now: Timestamp) -> Vec<Told> {
        self.lock().log.of(id, now)
    }

    /// Takes in what was told. Returns what changed, to be stored.
    pub(super) fn tell(&self, happening: Happening, now: Timestamp) -> Vec<(ObjectId, Vec<Told>)> {
        let mut inner = self.lock();
        let changed = inner.log.tell(happening, now);
        changed.into_iter().map(|id| (id.clone(), inner.log.of(&id, now))).collect()
    }

    /// Makes committed changes visible, all at once, and tells the watchers.
    pub(super) fn publish(&self, changes: Vec<Change>) {
        let mut inner = self.lock();
        for change in changes {
            let before = if change.removed {
                inner.objects.remove(&change.id)
            } else {
                inner.bytes += change.stored.bytes;
                inner.objects.insert(change.id.clone(), change.stored.clone())
            };
            inner.bytes -= before.map_or(0, |before| before.bytes);
            // a full buffer drops the watcher's sender: its stream notices and starts over
            inner.watchers.retain(|watcher| {
                !watcher.wants(&change.id) || watcher.changes.try_send(change.clone()).is_ok()
            });
        }
    }

    /// Ends all watches, now and later.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.watchers.clear();
    }

    fn subscribe(&self, kind: Kind, namespace: Option<Namespace>) -> Option<Subscription> {
        let mut inner = self.lock();
        if inner.closed {
            return None;
        }
        let objects = list(&inner, kind, namespace.as_ref()).into_iter();
        let (sender, changes) = mpsc::channel(WATCH_BUFFER);
        inner.watchers.retain(|watcher| !watcher.changes.is_closed());
        inner.watchers.push(Watcher { kind, namespace, changes: sender });
        Some(Subscription { objects, changes })
    }
}

impl Watcher {
    fn wants(&self, id: &ObjectId) -> bool {
        self.kind == id.kind && self.namespace.as_ref().is_none_or(|namespace| *namespace == id.namespace)
    }
}

fn list(inner: &Inner, kind: Kind, namespace: Option<&Namespace>) -> Vec<(ObjectId, Arc<Value>)> {
    let wanted = |id: &ObjectId| id.kind == kind && namespace.is_none_or(|wanted| *wanted == id.namespace);
    inner
        .objects
        .iter()
        .filter(|(id, _)| wanted(id))
        .map(|(id, stored)| (id.clone(), Arc::clone(&stored.value)))
        .collect()
}

struct Subscription {
    objects: vec::IntoIter<(ObjectId, Arc<Value>)>,
    changes: mpsc::Receiver<Change>,
}

enum State {
    Start,
    Listing(Subscription),
    Following(Subscription),
}

/// The port's watch.
pub(super) fn watch(
    live: Arc<Live>,
    kind: Kind,
    namespace: Option<Namespace>,
) -> BoxStream<'static, watcher::Result<Event<Object>>> {
    let events = stream::unfold(State::Start, move |mut state| {
        let (live, namespace) = (Arc::clone(&live), namespace.clone());
        async move {
            loop {
                match state {
                    State::Start => {
                        let subscription = live.subscribe(kind, namespace.clone())?;
                        return Some((Event::Init, State::Listing(subscription)));
                    }
                    State::Listing(mut subscription) => match subscription.objects.next() {
                        Some((_, value)) => {
                            state = State::Listing(subscription);
                            if let Some(object) = object(&value) {
                                return Some((Event::InitApply(object), state));
                            }
                        }
                        None => return Some((Event::InitDone, State::Following(subscription))),
                    },
                    State::Following(mut subscription) => match subscription.changes.recv().await {
                        Some(change) => {
                            state = State::Following(subscription);
                            let event = if change.removed { Event::Delete } else { Event::Apply };
                            if let Some(object) = object(&change.stored.value) {
                                return Some((event(object), state));
                            }
                        }
                        None => state = State::Start,
                    },
                }
            }
        }
    });
    events.map(Ok).boxed()
}

/// A stored object in the form of the port.
fn object(value: &Value) -> Option<Object> {
    match serde_json::from_value(value.clone()) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(%error, "a stored object has a metadata that cannot be read");
            None
        }
    }
}
