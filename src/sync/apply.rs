//! Carries a plan out: applies first, deletes last. One object's failure does not keep the others back.

use futures::{StreamExt, stream};

use super::{Context, Error};
use crate::{
    kinds::{Object, ObjectId, meta},
    plan::{Plan, Step},
    ports::objects::{self, Objects},
    telemetry::metrics::Action,
};

/// Writes under way at once. Kinds that others refer to come first only in the order of their start: a reference that
/// dangles for a moment is Pending for a moment.
const CONCURRENCY: usize = 8;

/// What came of a plan.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Writes that were done.
    pub(super) done: usize,
    /// Writes that were not, and why.
    pub(super) failed: Vec<(ObjectId, objects::Error)>,
}

/// Carries the steps out, in order.
pub(super) async fn apply(plan: Plan, context: &Context) -> Result<Applied, Error> {
    let (deletes, writes): (Vec<_>, Vec<_>) =
        plan.steps.into_iter().partition(|step| matches!(step, Step::Delete { .. }));
    let mut applied = Applied::default();
    for phase in [writes, deletes] {
        let store = context.store.as_ref();
        let mut outcomes = stream::iter(phase).map(|step| one(step, store)).buffered(CONCURRENCY);
        while let Some((id, action, outcome)) = outcomes.next().await {
            let refused = matches!(&outcome, Err(error) if !matches!(error, objects::Error::Unavailable(_)));
            if outcome.is_ok() || refused {
                context.metrics.applied(id.kind, if refused { Action::Refuse } else { action });
            }
            match outcome {
                Ok(()) => applied.done += 1,
                Err(source @ objects::Error::Unavailable(_)) => {
                    return Err(Error::Objects { what: format!("write {id}"), source });
                }
                Err(error) => applied.failed.push((id, error)),
            }
        }
    }
    Ok(applied)
}

async fn one(step: Step, store: &dyn Objects) -> (ObjectId, Action, Result<(), objects::Error>) {
    let malformed = |id: &ObjectId, source| objects::Error::Malformed { id: id.clone(), source };
    let object = |id: &ObjectId, body| serde_json::from_value::<Object>(body).map_err(|e| malformed(id, e));
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
                    let at = at.any_version();
                    store.apply(&object, meta::SYNCER, true, Some(&at)).await.map(drop)
                }
                Err(error) => Err(error),
            };
            (id, Action::Update, outcome)
        }
        Step::Delete { id, at } => {
            let at = at.any_version();
            let outcome = match store.delete(&id, &at).await {
                Err(objects::Error::NotFound(_)) => Ok(()),
                other => other,
            };
            (id, Action::Delete, outcome)
        }
    }
}
