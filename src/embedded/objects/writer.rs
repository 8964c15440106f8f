//! The one thread that writes. It takes what waits, decides, commits all of it at once and answers: so concurrent
//! writers share a flush of the disk, and an answer still means that the write is on it.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{
    Clock, check,
    disk::{Batch, Disk},
    live::{Change, Live, Stored},
    rules::{Outcome, Stamp, Write, decide},
};
use crate::{
    kinds::ObjectId,
    ports::objects::{Error, Happening},
};

/// How many writes wait; more wait at their senders.
pub(super) const QUEUE: usize = 256;
/// The most bytes of all objects together, as JSON; they are all in memory.
const MAX_STORE_BYTES: usize = 1 << 30;

type Answer = Result<Arc<Value>, Error>;

/// What the thread is asked.
pub(super) enum Order {
    Write { id: ObjectId, write: Box<Write>, answer: oneshot::Sender<Answer> },
    Tell(Happening),
}

pub(super) struct Scribe {
    pub(super) disk: Disk,
    pub(super) live: Arc<Live>,
    pub(super) clock: Clock,
    /// The last resourceVersion given.
    pub(super) version: u64,
}

impl Scribe {
    /// Works until all senders are gone.
    pub(super) fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(first) = orders.blocking_recv() {
            let mut waiting = vec![first];
            while waiting.len() < QUEUE {
                match orders.try_recv() {
                    Ok(order) => waiting.push(order),
                    Err(_) => break,
                }
            }
            self.work(waiting);
        }
        self.live.close();
    }

    fn work(&mut self, orders: Vec<Order>) {
        let mut draft = Draft { version: self.version, bytes: self.live.bytes(), ..Draft::default() };
        let mut answers = Vec::new();
        for order in orders {
            match order {
                Order::Write { id, write, answer } => {
                    let result = self.write(&mut draft, &id, &write);
                    answers.push((answer, result));
                }
                Order::Tell(happening) => {
                    for (id, told) in self.live.tell(happening, (self.clock)()) {
                        let bytes = (!told.is_empty()).then(|| json!(told).to_string().into_bytes());
                        draft.batch.told.insert(id, bytes);
                    }
                }
            }
        }
        draft.batch.version = draft.version;
        let committed = if draft.batch.is_empty() { Ok(()) } else { self.disk.commit(&draft.batch) };
        match committed {
            Ok(()) => {
                self.version = draft.version;
                self.live.publish(draft.changes);
                for (answer, result) in answers {
                    // who no longer waits does not need the answer
                    drop(answer.send(result));
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the store cannot write");
                let error = Arc::new(error);
                for (answer, result) in answers {
                    let unavailable = || Err(Error::Unavailable(Box::new(Arc::clone(&error))));
                    drop(answer.send(result.and_then(|_| unavailable())));
                }
            }
        }
    }

    fn write(&self, draft: &mut Draft, id: &ObjectId, write: &Write) -> Answer {
        let old = match draft.objects.get(id) {
            Some(drafted) => drafted.clone(),
            None => self.live.get(id),
        };
        let stamp = Stamp { now: whole_seconds((self.clock)()), uid: uuid::Uuid::new_v4().to_string() };
        let old_value = old.as_ref().map(|stored| &*stored.value);
        // one object that makes a rule panic must not take the store away from all others
        let outcome = catch_unwind(AssertUnwindSafe(|| decide(id, old_value, write, &stamp)));
        let outcome = outcome.map_err(|_| Error::Unavailable("the rules of the store failed".into()))??;
        match (outcome, old) {
            (Outcome::Unchanged, Some(old)) => Ok(old.value),
            (Outcome::Unchanged, None) => Err(Error::NotFound(id.clone())),
            (Outcome::Stored(value), old) => draft.put(id, old.as_ref(), value, false),
            (Outcome::Removed(value), old) => draft.put(id, old.as_ref(), value, true),
        }
    }
}

/// What the waiting orders come to, before it is committed.
#[derive(Default)]
struct Draft {
    version: u64,
    bytes: usize,
    objects: BTreeMap<ObjectId, Option<Stored>>,
    changes: Vec<Change>,
    batch: Batch,
}

impl Draft {
    fn put(&mut self, id: &ObjectId, old: Option<&Stored>, mut value: Value, removed: bool) -> Answer {
        let version = self.version + 1;
        value["metadata"]["resourceVersion"] = json!(version.to_string());
        let text = value.to_string();
        if !removed {
            check::size(id, text.len())?;
            let bytes = self.bytes - old.map_or(0, |old| old.bytes) + text.len();
            if bytes > MAX_STORE_BYTES {
                return Err(Error::Forbidden(format!("the store is full: {MAX_STORE_BYTES} bytes")));
            }
            self.bytes = bytes;
        }
        self.version = version;
        let stored = Stored { value: Arc::new(value), bytes: text.len() };
        self.objects.insert(id.clone(), (!removed).then(|| stored.clone()));
        self.batch.objects.insert(id.clone(), (!removed).then(|| text.into_bytes()));
        self.changes.push(Change { id: id.clone(), stored: stored.clone(), removed });
        Ok(stored.value)
    }
}

/// A time as metadata has it.
fn whole_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
