//! The pods of runs that exist, and the last word of their sidecars. One watch fills this for everybody.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tokio_util::task::AbortOnDropHandle;

use super::{
    events::Complaint,
    keeper::{Attending, keep},
    seen::Seen,
};
use crate::{
    harness::place::State,
    names::Uid,
    ports::workloads::{Place, RunKey},
};

/// Changes that wait for a slow reader; one that falls behind further is told of all places.
const CHANGES: usize = 1024;

/// The pods of runs, by the run's UID.
pub(super) struct Pods {
    attending: Attending,
    held: Mutex<BTreeMap<Uid, Held>>,
    told: broadcast::Sender<RunKey>,
}

/// One pod. Whoever attends it ends with this.
struct Held {
    seen: watch::Sender<Arc<Seen>>,
    said: Option<State>,
    /// What the cluster says about it, while it gets no further.
    complaint: Option<Complaint>,
    /// When we made it; until the watch shows it.
    made: Option<Instant>,
    /// True: we removed it. It is on its way out, and no place any more.
    removed: bool,
    _keeper: AbortOnDropHandle<()>,
}

impl Held {
    fn place(&self, now: Timestamp) -> Place {
        self.seen.borrow().place(self.said.as_ref(), self.complaint.as_ref(), now)
    }
}

impl Pods {
    pub(super) fn new(attending: Attending) -> Arc<Self> {
        let told = broadcast::Sender::new(CHANGES);
        Arc::new(Self { attending, held: Mutex::default(), told })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uid, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod of a run.
    pub(super) fn get(&self, run: &Uid) -> Option<Arc<Seen>> {
        self.lock().get(run).filter(|held| !held.removed).map(|held| Arc::clone(&held.seen.borrow()))
    }

    /// The place of a run.
    pub(super) fn place(&self, run: &Uid) -> Option<Place> {
        let held = self.lock();
        let held = held.get(run).filter(|held| !held.removed)?;
        Some(held.place(Timestamp::now()))
    }

    /// All places.
    pub(super) fn places(&self) -> Vec<Place> {
        let now = Timestamp::now();
        let held = self.lock();
        let there = held.values().filter(|held| !held.removed);
        there.map(|held| held.place(now)).collect()
    }

    /// What the sidecar of this very pod said last.
    pub(super) fn said(&self, seen: &Seen) -> Option<State> {
        let held = self.lock();
        let held = held.get(&seen.run().uid).filter(|held| held.seen.borrow().uid == seen.uid)?;
        held.said.clone()
    }

    /// Takes in a pod that we made or read, unless the watch has shown it: that knows better.
    pub(super) fn made(self: &Arc<Self>, seen: Seen) {
        let run = seen.run().clone();
        let mut held = self.lock();
        if held.get(&run.uid).is_none_or(|held| held.seen.borrow().uid != seen.uid) {
            let new = self.hold(seen, Some(Instant::now()));
            held.insert(run.uid.clone(), new);
        }
        drop(held);
        self.changed(&run);
    }

    /// Takes in a pod as the watch shows it.
    pub(super) fn shown(self: &Arc<Self>, seen: Seen) {
        let run = seen.run().clone();
        self.take_in(&mut self.lock(), seen);
        self.changed(&run);
    }

    fn take_in(self: &Arc<Self>, all: &mut BTreeMap<Uid, Held>, mut seen: Seen) {
        match all.get_mut(&seen.run().uid) {
            Some(held) if held.seen.borrow().uid == seen.uid => {
                held.made = None;
                // what we took off comes back only in states from before
                seen.confirmed |= held.seen.borrow().confirmed;
                held.seen.send_replace(Arc::new(seen));
            }
            _ => {
                let run = seen.run().uid.clone();
                let held = self.hold(seen, None);
                all.insert(run, held);
            }
        }
    }

    /// The pod is gone.
    pub(super) fn gone(&self, seen: &Seen) {
        let mut held = self.lock();
        if held.get(&seen.run().uid).is_some_and(|held| held.seen.borrow().uid == seen.uid) {
            held.remove(&seen.run().uid);
        }
        drop(held);
        self.changed(seen.run());
    }

    /// These are all pods that there were when somebody began to look.
    pub(super) fn are(self: &Arc<Self>, all: Vec<Seen>, since: Instant) {
        let mut held = self.lock();
        let listed: BTreeMap<Uid, Uid> =
            all.iter().map(|seen| (seen.run().uid.clone(), seen.uid.clone())).collect();
        let mut changed: Vec<RunKey> = all.iter().map(|seen| seen.run().clone()).collect();
        held.retain(|run, held| {
            let seen = Arc::clone(&held.seen.borrow());
            let stays = listed.get(run) == Some(&seen.uid) || held.made.is_some_and(|made| made >= since);
            if !stays {
                changed.push(seen.run().clone());
            }
            stays
        });
        for seen in all {
            self.take_in(&mut held, seen);
        }
        drop(held);
        for run in changed {
            self.changed(&run);
        }
    }

    /// The sidecar of a pod says how far it is.
    pub(super) fn hear(&self, seen: &Seen, state: State) {
        if let Some(held) = self.lock().get_mut(&seen.run().uid)
            && held.seen.borrow().uid == seen.uid
        {
            held.said = Some(state);
        }
        self.changed(seen.run());
    }

    /// This is what the cluster says about a pod that gets no further.
    pub(super) fn complain(&self, about: &Seen, complaint: Option<Complaint>) {
        let mut held = self.lock();
        let Some(held_now) =
            held.get_mut(&about.run().uid).filter(|held| held.seen.borrow().uid == about.uid)
        else {
            return;
        };
        if held_now.complaint == complaint {
            return;
        }
        held_now.complaint = complaint;
        drop(held);
        self.changed(about.run());
    }

    /// We took our finalizer off; the watch will show it.
    pub(super) fn confirmed(&self, of: &Seen) {
        if let Some(held) = self.lock().get(&of.run().uid)
            && held.seen.borrow().uid == of.uid
        {
            held.seen.send_modify(|seen| Arc::make_mut(seen).confirmed = true);
        }
        self.changed(of.run());
    }

    /// We removed it; the watch will show it.
    pub(super) fn removed(&self, of: &Seen) {
        if let Some(held) = self.lock().get_mut(&of.run().uid)
            && held.seen.borrow().uid == of.uid
        {
            held.removed = true;
        }
        self.changed(of.run());
    }

    fn hold(self: &Arc<Self>, seen: Seen, made: Option<Instant>) -> Held {
        let seen = watch::Sender::new(Arc::new(seen));
        let keeping = keep(self.attending.clone(), Arc::downgrade(self), seen.subscribe());
        Held {
            seen,
            said: None,
            complaint: None,
            made,
            removed: false,
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeping)),
        }
    }

    fn changed(&self, run: &RunKey) {
        // nobody listening is fine
        let _ = self.told.send(run.clone());
    }

    /// Runs whose pods change from now on.
    pub(super) fn changes(self: &Arc<Self>) -> BoxStream<'static, RunKey> {
        let pods = Arc::downgrade(self);
        let told = BroadcastStream::new(self.told.subscribe());
        told.flat_map(move |told| {
            stream::iter(match told {
                Ok(run) => vec![run],
                Err(BroadcastStreamRecvError::Lagged(_)) => pods.upgrade().map_or_else(Vec::new, |pods| {
                    pods.lock().values().map(|held| held.seen.borrow().run().clone()).collect()
                }),
            })
        })
        .boxed()
    }
}
