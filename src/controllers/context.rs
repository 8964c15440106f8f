//! What the controllers share, and how they fail.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::runtime::controller::Action;

use crate::{
    cache::Caches,
    class::Class,
    clock::Clock,
    kinds::{ObjectId, meta},
    ports::{Secrets, objects, workloads},
    telemetry::{Audit, AuditLog, Chain, Decision, Metrics, Verb, Who, metrics::Reconciler},
};

/// What the controllers share.
pub struct Context {
    /// The store, for writing.
    pub store: objects::Store,
    /// The caches, for reading.
    pub caches: Caches,
    /// The places.
    pub workloads: Arc<dyn workloads::Workloads>,
    /// Whose changes runs may wait for.
    pub secrets: Arc<dyn Secrets>,
    /// The trail of mutations.
    pub audit: Arc<AuditLog>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
    /// Turns that were given and are not in the caches yet.
    pub(super) turns: super::run::Turns,
    /// Stops that were asked for.
    pub(super) asked: super::run::Asked,
}

impl Context {
    /// Leaves a line in the audit trail: a controller did something for the reason that the object's spec gives.
    pub(super) fn note(&self, verb: Verb, object: &ObjectId, reason: &str) {
        let line = Audit {
            at: (self.clock)(),
            who: Who::Controller(meta::CONTROLLER),
            verb,
            object: object.to_string(),
            decision: Decision::Allowed,
            reason: reason.to_owned(),
        };
        if let Err(error) = self.audit.record(&line) {
            tracing::error!(error = &error as &dyn std::error::Error, "a line of the audit trail is lost");
        }
    }

    /// Counts the time until the guard is dropped as that of a reconciliation, however it ends.
    pub(super) fn timed(&self, by: Reconciler) -> impl Drop + use<> {
        struct Timed(Arc<Metrics>, Reconciler, Instant);
        impl Drop for Timed {
            fn drop(&mut self) {
                self.0.reconciled(self.1, self.2.elapsed());
            }
        }
        Timed(Arc::clone(&self.metrics), by, Instant::now())
    }

    /// Puts the parts together.
    #[must_use]
    pub fn new(
        store: objects::Store,
        caches: Caches,
        workloads: Arc<dyn workloads::Workloads>,
        secrets: Arc<dyn Secrets>,
        audit: Arc<AuditLog>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Arc<Self> {
        let (turns, asked) = (super::run::Turns::default(), super::run::Asked::default());
        Arc::new(Self { store, caches, workloads, secrets, audit, metrics, clock, turns, asked })
    }
}

/// Why a reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did.
    #[error("failed to {what}")]
    Objects {
        /// Which write or read.
        what: &'static str,
        /// Why.
        #[source]
        source: objects::Error,
    },
    /// The place did.
    #[error("failed to {what}")]
    Workloads {
        /// Which operation.
        what: &'static str,
        /// Why.
        #[source]
        source: workloads::Error,
    },
    /// A status that we composed cannot be written as JSON.
    #[error("failed to compose a status")]
    Status(#[source] serde_json::Error),
    /// An object from the cache has no UID or a name that is not one of ours.
    #[error("{0} is not an object that a store made")]
    NotStored(String),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Objects { source, .. } => source.class(),
            Self::Workloads { source, .. } => source.class(),
            Self::Status(_) | Self::NotStored(_) => Class::Bug,
        }
    }
}

/// When to try again: soon after a conflict, because the cache will have caught up; with growing distance when the world
/// is in the way is left to the caller's own events, so a fixed 2 s serves; a bug slowly; what is invalid not before it
/// changes.
pub(super) fn retry(error: &Error) -> Action {
    match error.class() {
        Class::Conflict => Action::requeue(Duration::from_millis(50)),
        Class::Transient => Action::requeue(Duration::from_secs(2)),
        Class::Bug => Action::requeue(Duration::from_mins(1)),
        Class::Invalid => Action::await_change(),
    }
}

/// Logs a reconciliation that failed; that somebody else wrote first is nothing to hear of.
pub(super) fn report(controller: &str, error: &Error, object: &str) {
    if error.class() == Class::Conflict {
        tracing::debug!(controller, object, error = %Chain(error), "retrying");
    } else {
        tracing::warn!(controller, object, error = %Chain(error), "reconciliation failed");
    }
}
