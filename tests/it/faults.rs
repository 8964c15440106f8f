//! A wrapper around the Objects port that injects faults and counts calls: so every fault works on every adapter.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use kube::runtime::watcher::{self, Event};
use ostler::{
    kinds::{Kind, Object, ObjectId},
    names::Namespace,
    ports::{
        Objects,
        objects::{At, Error, Happening, Page, Part, Store, Told},
    },
};
use serde_json::Value;

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not done, and fails.
    Before,
    /// It is done, and fails all the same.
    After,
}

#[derive(Default)]
struct Plan {
    /// Faults by the number of the write, counted from 1.
    writes: BTreeMap<u64, Fault>,
    /// How many of the next watch events are swallowed.
    swallow: u64,
    /// Every n-th change of a watch is merged into the next of the same object; 0: none.
    merge_every: u64,
    calls: BTreeMap<&'static str, u64>,
    written: u64,
    /// Kinds whose changes no watch tells, and who waits for them.
    held: BTreeMap<Kind, Vec<Waker>>,
    /// What reads see while they are stale.
    past: BTreeMap<ObjectId, Option<Object>>,
}

/// A store with faults.
pub(crate) struct Faulty {
    inner: Store,
    plan: Arc<Mutex<Plan>>,
    stale: AtomicBool,
}

impl Faulty {
    pub(crate) fn new(inner: Store) -> Arc<Self> {
        Arc::new(Self { inner, plan: Arc::default(), stale: AtomicBool::new(false) })
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap()
    }

    /// Lets the n-th write from now on (the next is 1) fail.
    pub(crate) fn fail_write(&self, nth: u64, fault: Fault) {
        let mut plan = self.plan();
        let nth = plan.written + nth;
        plan.writes.insert(nth, fault);
    }

    /// From now on, what is read of an object is what it was when it was first read; until [`Faulty::catch_up`].
    pub(crate) fn go_stale(&self) {
        self.stale.store(true, Ordering::SeqCst);
    }

    /// Ends staleness.
    pub(crate) fn catch_up(&self) {
        self.stale.store(false, Ordering::SeqCst);
        self.plan().past.clear();
    }

    /// Swallows the next changes that watches would tell: a watcher that relies on each of them goes wrong.
    pub(crate) fn swallow_changes(&self, count: u64) {
        self.plan().swallow = count;
    }

    /// Swallows a change when the next one is of the same object and waits already, at every n-th.
    pub(crate) fn merge_changes(&self, every: u64) {
        self.plan().merge_every = every;
    }

    /// From now on no watch tells of a change of this kind; what is there when a watch begins is told.
    pub(crate) fn hold_changes(&self, kind: Kind) {
        self.plan().held.insert(kind, Vec::new());
    }

    /// Tells of all that was held.
    pub(crate) fn let_go(&self, kind: Kind) {
        let held = self.plan().held.remove(&kind);
        held.into_iter().flatten().for_each(Waker::wake);
    }

    /// How often each verb was called.
    pub(crate) fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.plan().calls.clone()
    }

    /// All calls but `tell` since the last time this was asked.
    pub(crate) fn take_calls(&self) -> u64 {
        let calls = std::mem::take(&mut self.plan().calls);
        calls.iter().filter(|(verb, _)| **verb != "tell").map(|(_, count)| count).sum()
    }

    fn count(&self, verb: &'static str) {
        *self.plan().calls.entry(verb).or_default() += 1;
    }

    async fn write<T>(
        &self,
        verb: &'static str,
        write: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.count(verb);
        let fault = {
            let mut plan = self.plan();
            plan.written += 1;
            let number = plan.written;
            plan.writes.remove(&number)
        };
        let broken = || Error::Unavailable("an injected fault".into());
        match fault {
            Some(Fault::Before) => Err(broken()),
            Some(Fault::After) => write.await.and_then(|_| Err(broken())),
            None => write.await,
        }
    }

    fn remember(&self, id: &ObjectId, now: Option<Object>) -> Option<Object> {
        if !self.stale.load(Ordering::SeqCst) {
            return now;
        }
        self.plan().past.entry(id.clone()).or_insert(now).clone()
    }
}

#[async_trait]
impl Objects for Faulty {
    fn watch(
        &self,
        kind: Kind,
        namespace: Option<Namespace>,
    ) -> BoxStream<'static, watcher::Result<Event<Object>>> {
        self.count("watch");
        let plan = Arc::clone(&self.plan);
        let mut told = 0_u64;
        let mut events = self.inner.watch(kind, namespace).peekable();
        let faulty = futures::stream::poll_fn(move |context| {
            loop {
                let next = std::pin::Pin::new(&mut events).poll_peek(context);
                let changes = matches!(next, Poll::Ready(Some(Ok(Event::Apply(_) | Event::Delete(_)))));
                if changes && let Some(waiting) = plan.lock().unwrap().held.get_mut(&kind) {
                    waiting.push(context.waker().clone());
                    return Poll::Pending;
                }
                let event = match events.poll_next_unpin(context) {
                    Poll::Ready(Some(event)) => event,
                    other => return other,
                };
                let Ok(Event::Apply(object)) = &event else {
                    let mut plan = plan.lock().unwrap();
                    if matches!(event, Ok(Event::Delete(_))) && plan.swallow > 0 {
                        plan.swallow -= 1;
                        continue;
                    }
                    return Poll::Ready(Some(event));
                };
                told += 1;
                let mut plan = plan.lock().unwrap();
                if plan.swallow > 0 {
                    plan.swallow -= 1;
                    continue;
                }
                let merges = plan.merge_every > 0 && told.is_multiple_of(plan.merge_every);
                let next = std::pin::Pin::new(&mut events).poll_peek(context);
                let is_same = match next {
                    Poll::Ready(Some(Ok(Event::Apply(next)))) => next.metadata.uid == object.metadata.uid,
                    _ => false,
                };
                if !(merges && is_same) {
                    return Poll::Ready(Some(event));
                }
            }
        });
        faulty.boxed()
    }

    async fn get(&self, id: &ObjectId) -> Result<Option<Object>, Error> {
        self.count("get");
        let now = self.inner.get(id).await?;
        Ok(self.remember(id, now))
    }

    async fn list(&self, kind: Kind, namespace: Option<&Namespace>) -> Result<Vec<Object>, Error> {
        self.count("list");
        self.inner.list(kind, namespace).await
    }

    async fn page(&self, kind: Kind, namespace: Option<&Namespace>, part: &Part) -> Result<Page, Error> {
        self.count("list");
        self.inner.page(kind, namespace, part).await
    }

    async fn create(&self, object: &Object, manager: &str) -> Result<Object, Error> {
        self.write("create", self.inner.create(object, manager)).await
    }

    async fn apply(
        &self,
        object: &Object,
        manager: &str,
        force: bool,
        at: Option<&At>,
    ) -> Result<Object, Error> {
        self.write("apply", self.inner.apply(object, manager, force, at)).await
    }

    async fn merge(&self, id: &ObjectId, at: &At, patch: &Value, manager: &str) -> Result<Object, Error> {
        self.write("merge", self.inner.merge(id, at, patch, manager)).await
    }

    async fn write_status(
        &self,
        id: &ObjectId,
        at: &At,
        patch: &Value,
        manager: &str,
    ) -> Result<Object, Error> {
        self.write("write_status", self.inner.write_status(id, at, patch, manager)).await
    }

    async fn delete(&self, id: &ObjectId, at: &At) -> Result<(), Error> {
        self.write("delete", self.inner.delete(id, at)).await
    }

    async fn tell(&self, happening: Happening) {
        self.count("tell");
        self.inner.tell(happening).await;
    }

    async fn events(&self, id: &ObjectId) -> Result<Vec<Told>, Error> {
        self.inner.events(id).await
    }
}
