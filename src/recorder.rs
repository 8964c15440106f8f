//! The recorder: the one writer of a repository's ledger branch, and of code branches.
//!
//! Its queue is the store itself: runs that ask for a claim, runs that ended without a record. Results come from
//! sidecars. Each step ends in the ledger first and in one write of a status second, so that a crash between any two leads
//! a restart to the same end: what the ledger has already is found again by the run's UID.

mod branch;
mod bulk;
mod code;
mod entries;
mod error;
mod memory;
mod prepare;
mod queue;
mod reader;
mod settings;
mod status;
mod turn;
mod verify;
mod world;
mod write;

pub use error::Error;
pub use reader::{ReaderContext, read, remote};
pub use settings::BRANCH;
pub use verify::{Finding, Verified, verify};

use std::{
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::{
    turn::Desk,
    world::{Touched, World},
};
use crate::{
    cache::Caches,
    git::sign::SigningKey,
    kinds::meta,
    ledger::State,
    names::{Namespace, ObjectName},
    ports::{Secrets, objects::Store},
    report::{Delivery, Receipt},
    telemetry::{Audit, AuditLog, Decision, Metrics, Verb, Who},
};

/// How long the turn that is under way may take when it is time to end.
const LAST_TURN: Duration = Duration::from_secs(20);
/// How long noting the ledger's tip may take when it is time to end.
const LAST_NOTE: Duration = Duration::from_secs(5);
/// Deliveries that may wait for a turn.
const INBOX: usize = 256;

/// The time, as an input.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What recorders share.
pub struct Context {
    /// The store.
    pub store: Store,
    /// Credentials and keys.
    pub secrets: Arc<dyn Secrets>,
    /// The key that signs, where a repository names none.
    pub key: Arc<SigningKey>,
    /// Who we are in claims: an id that outlives restarts, and belongs to this store alone. `None`: the UID of the
    /// repository's object, which belongs to its cluster.
    pub holder: Option<String>,
    /// What is in the store: in the namespace that is looked after, or in all.
    pub caches: Caches,
    /// A folder of our own, for mirrors and quarantines.
    pub folder: PathBuf,
    /// The time.
    pub clock: Clock,
    /// The trail of mutations.
    pub audit: Arc<AuditLog>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Context {
    fn audit(&self, verb: Verb, object: &str, decision: Decision, reason: &str) {
        let line = Audit {
            at: (self.clock)(),
            who: Who::Controller(meta::RECORDER),
            verb,
            object: object.to_owned(),
            decision,
            reason: reason.to_owned(),
        };
        if let Err(error) = self.audit.record(&line) {
            tracing::error!(error = &error as &dyn std::error::Error, "a line of the audit trail is lost");
        }
    }
}

/// A delivery and whom to answer.
struct Letter {
    delivery: Delivery,
    reply: oneshot::Sender<Receipt>,
}

/// A way to talk to a recorder.
#[derive(Clone)]
pub struct Handle {
    ledger: watch::Receiver<Arc<State>>,
    outbox: mpsc::Sender<Letter>,
}

impl Handle {
    /// What the ledger says; changes as it does.
    #[must_use]
    pub fn ledger(&self) -> watch::Receiver<Arc<State>> {
        self.ledger.clone()
    }

    /// Hands a result over and waits until it is recorded, refused, or known to take longer. The folder is removed once
    /// the result is recorded.
    pub async fn deliver(&self, delivery: Delivery) -> Receipt {
        let (reply, answer) = oneshot::channel();
        if self.outbox.send(Letter { delivery, reply }).await.is_err() {
            return Receipt::Waiting;
        }
        answer.await.unwrap_or(Receipt::Waiting)
    }
}

/// The recorder of one repository. It also answers for runs that no repository records.
pub struct Recorder {
    context: Arc<Context>,
    repository: (Namespace, ObjectName),
    ledger: watch::Sender<Arc<State>>,
    inbox: mpsc::Receiver<Letter>,
}

impl Recorder {
    /// Makes it; nothing happens before [`Recorder::run`].
    #[must_use]
    pub fn new(context: Arc<Context>, repository: (Namespace, ObjectName)) -> (Self, Handle) {
        let unread = State::Unread;
        let (ledger, seen) = watch::channel(Arc::new(unread));
        let (outbox, inbox) = mpsc::channel(INBOX);
        (Self { context, repository, ledger, inbox }, Handle { ledger: seen, outbox })
    }

    /// Records until `stop`. Nothing is lost by stopping, or by being killed, at any moment.
    pub async fn run(mut self, stop: CancellationToken) {
        let caches = self.context.caches.clone();
        // before each kind was seen once, "there is none" means nothing
        if stop.run_until_cancelled(caches.ready()).await.is_none() {
            return;
        }
        let mut touched = world::touched(&caches);
        let mut world = World::new(caches);
        let interrupt = Arc::new(AtomicBool::new(false));
        let (context, own) = (self.context.clone(), self.repository.clone());
        let mut desk = Desk::new(context, own, self.ledger.clone(), interrupt.clone());
        loop {
            let wake = desk.wake();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(seen) = touched.next() => world.take(seen),
                Some(letter) = self.inbox.recv(), if desk.has_room() => desk.take(letter),
                Some(prepared) = desk.prepared() => desk.lay_out(prepared),
                () = tokio::time::sleep_until(wake) => {}
            }
            // Whatever else has come by now belongs to the same turn: a turn may take seconds, and thousands may have come.
            // Tokio would have us yield after 128 of them.
            tokio::task::unconstrained(async { self.take_in(&mut touched, &mut world, &mut desk) }).await;
            let mut turn = pin!(desk.turn(&world));
            tokio::select! {
                () = &mut turn => {}
                () = stop.cancelled() => {
                    // what is pushed is said, and noted; a remote is not waited for
                    interrupt.store(true, Ordering::Relaxed);
                    if tokio::time::timeout(LAST_TURN, turn).await.is_err() {
                        tracing::warn!("the last turn does not end; the next start goes on with it");
                    }
                    break;
                }
            }
        }
        interrupt.store(true, Ordering::Relaxed);
        if tokio::time::timeout(LAST_NOTE, desk.note(&world)).await.is_err() {
            tracing::warn!("the ledger's tip is not noted; the runs tell the next start what it has to hold");
        }
    }

    /// Takes in all that waits, without waiting for more.
    fn take_in(&mut self, touched: &mut BoxStream<'static, Touched>, world: &mut World, desk: &mut Desk) {
        while let Some(Some(seen)) = touched.next().now_or_never() {
            world.take(seen);
        }
        while desk.has_room()
            && let Ok(letter) = self.inbox.try_recv()
        {
            desk.take(letter);
        }
        while let Some(Some(prepared)) = desk.prepared().now_or_never() {
            desk.lay_out(prepared);
        }
    }
}
