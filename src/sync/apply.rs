//! Carries a plan out: applies first, deletes last. One object's failure does not keep the others back.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::{Context, Error};
use crate::{
    clock::Clock,
    kinds::{Kind, Object, ObjectId, meta},
    names::CommitId,
    plan::{self, Plan, Step},
    ports::objects::{self, Objects},
    telemetry::{Audit, AuditLog, Decision, Metrics, Verb, Who, metrics::Action},
};

/// Writes of one kind under way at once. The kinds come one after the other, because what is referred to has to be there
/// first: a run that comes before its session would say that it has none.
const CONCURRENCY: usize = 8;

/// What came of a plan.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Objects that were created or changed.
    pub(super) written: Vec<ObjectId>,
    /// Objects that were deleted.
    deleted: usize,
    /// Writes that were not, and why.
    pub(super) failed: Vec<(ObjectId, objects::Error)>,
}

impl Applied {
    /// Writes that were done.
    pub(super) fn done(&self) -> usize {
        self.written.len() + self.deleted
    }
}

/// Carries the steps out by `writer`, in order: those of one kind side by side.
pub(super) async fn apply(
    plan: Plan,
    commit: Option<&CommitId>,
    writer: objects::Store,
    context: &Context,
) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    let hand = Hand::of(commit, writer, context);
    for phase in phases(plan) {
        // whoever drops this stream keeps further steps from being begun; those under way end with their lines
        let begin = |step| context.writes.spawn(hand.clone().carry_out(held(step, context.runs)));
        let mut outcomes = stream::iter(phase).map(begin).buffered(CONCURRENCY);
        while let Some(outcome) = outcomes.next().await {
            let (id, action, outcome) = outcome.map_err(Error::Broken)?;
            match outcome {
                Ok(()) if action == Action::Delete => applied.deleted += 1,
                Ok(()) => applied.written.push(id),
                Err(source @ objects::Error::Unavailable(_)) => {
                    return Err(Error::Objects { what: format!("write {id}"), source });
                }
                Err(error) => applied.failed.push((id, error)),
            }
        }
    }
    Ok(applied)
}

/// The steps of one kind each, applies or deletes, in the plan's order.
fn phases(plan: Plan) -> Vec<Vec<Step>> {
    let phase = |step: &Step| (matches!(step, Step::Delete { .. }), step.id().kind);
    let mut phases: Vec<Vec<Step>> = Vec::new();
    for step in plan.steps {
        match phases.last_mut() {
            Some(last) if last.last().is_some_and(|last| phase(last) == phase(&step)) => last.push(step),
            _ => phases.push(vec![step]),
        }
    }
    phases
}

/// A run is made with the finalizer that its controller needs before its claim: one write less.
fn held(mut step: Step, runs: bool) -> Step {
    if let (true, Step::Create { id, body }) = (runs, &mut step)
        && id.kind == Kind::HarnessRun
    {
        plan::hold(body);
    }
    step
}

/// What one step needs, also when nobody waits for it any more.
#[derive(Clone)]
struct Hand {
    store: objects::Store,
    audit: Arc<AuditLog>,
    metrics: Arc<Metrics>,
    clock: Clock,
    who: Who,
}

impl Hand {
    fn of(commit: Option<&CommitId>, store: objects::Store, context: &Context) -> Self {
        Self {
            store,
            audit: context.audit.clone(),
            metrics: context.metrics.clone(),
            clock: context.clock.clone(),
            who: commit.map_or(Who::Controller(meta::SYNCER), |commit| Who::Commit(commit.clone())),
        }
    }

    async fn carry_out(self, step: Step) -> (ObjectId, Action, Result<(), objects::Error>) {
        let (id, action, outcome) = one(step, self.store.as_ref()).await;
        self.note(&id, action, &outcome);
        (id, action, outcome)
    }

    /// Tells the audit trail and the counters.
    fn note(self, id: &ObjectId, action: Action, outcome: &Result<(), objects::Error>) {
        let (decision, reason) = match outcome {
            Ok(()) => (Decision::Allowed, "as the commit says".to_owned()),
            Err(error) => (Decision::Failed, error.to_string()),
        };
        self.metrics.applied(id.kind, if outcome.is_ok() { action } else { Action::Refuse });
        let line = Audit {
            at: (self.clock)(),
            who: self.who,
            verb: match action {
                Action::Delete => Verb::Delete,
                Action::Create => Verb::Create,
                Action::Update | Action::Refuse => Verb::Update,
            },
            object: id.to_string(),
            decision,
            reason,
        };
        if let Err(error) = self.audit.record(&line) {
            tracing::error!(error = &error as &dyn std::error::Error, "a line of the audit trail is lost");
        }
    }
}

async fn one(step: Step, store: &dyn Objects) -> (ObjectId, Action, Result<(), objects::Error>) {
    let object = |id: &ObjectId, body| {
        let malformed = |source| objects::Error::Malformed { id: id.clone(), source };
        serde_json::from_value::<Object>(body).map_err(malformed)
    };
    match step {
        Step::Create { id, body } => {
            let outcome = match object(&id, body) {
                Ok(object) => store.apply(&object, meta::SYNCER, true, None).await.map(drop),
                Err(error) => Err(error),
            };
            (id, Action::Create, outcome)
        }
        Step::Update { id, body, at } => {
            let outcome = match object(&id, body) {
                Ok(object) => {
                    store.apply(&object, meta::SYNCER, true, Some(&at.any_version())).await.map(drop)
                }
                Err(error) => Err(error),
            };
            (id, Action::Update, outcome)
        }
        Step::Delete { id, at } => {
            let outcome = match store.delete(&id, &at.any_version()).await {
                Err(objects::Error::NotFound(_)) => Ok(()),
                other => other,
            };
            (id, Action::Delete, outcome)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_referred_to_is_written_before_what_refers_to_it_begins() {
        let id = |kind, name: &str| ObjectId::new(kind, "team".parse().unwrap(), name.parse().unwrap());
        let create = |kind, name| Step::Create { id: id(kind, name), body: serde_json::Value::Null };
        let at = objects::At { uid: "u".parse().unwrap(), resource_version: None };
        let delete = |kind, name| Step::Delete { id: id(kind, name), at: at.clone() };
        let steps = vec![
            create(Kind::Session, "a"),
            create(Kind::HarnessRun, "a"),
            create(Kind::HarnessRun, "b"),
            delete(Kind::HarnessRun, "c"),
            delete(Kind::HarnessRun, "d"),
            delete(Kind::Session, "b"),
        ];
        let lengths: Vec<usize> = phases(Plan { steps: steps.clone() }).iter().map(Vec::len).collect();
        assert_eq!(lengths, [1, 2, 2, 1]);
        assert_eq!(phases(Plan { steps: steps.clone() }).concat(), steps);
    }
}
