//! The controller of runs.
//!
//! Each reconciliation is one pass: observe from caches and place, decide by `step`, apply effects, write the status.

mod apply;
mod asked;
mod observe;
mod step;
mod turns;
mod wakes;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    ResourceExt,
    runtime::controller::{Action, Config, Controller},
};

pub(super) use {asked::Asked, turns::Turns};

use super::{
    Context, Error,
    context::{report, retry},
};
use crate::{
    kinds::{HarnessRun, Reason},
    ports::objects::id_of,
    telemetry::metrics::Reconciler,
};

/// How soon to ask again for a place that a quota has no room for.
const QUOTA: Duration = Duration::from_secs(20);
/// Runs reconciled at once.
const CONCURRENCY: u16 = 16;

/// Runs the controller until `shutdown`.
pub async fn control(context: Arc<Context>, shutdown: impl Future<Output = ()> + Send + Sync + 'static) {
    let runs = &context.caches.runs;
    let controller = Controller::for_stream(futures::stream::pending(), runs.reader())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(runs.touched())
        .reconcile_on(wakes::wakes(&context))
        .graceful_shutdown_on(shutdown);
    let outcomes = controller.run(reconcile, |_, error, _| retry(error), context);
    outcomes
        .for_each(|outcome| {
            if let Err(kube::runtime::controller::Error::ReconcilerFailed(error, object)) = outcome {
                report("run", &error, &object.to_string());
            }
            std::future::ready(())
        })
        .await;
}

/// True when nothing would be done for a run as things stand: no effect, and no other status. A place that cannot be made
/// for want of a Secret is tried again when Secrets change, so trying is no effect.
///
/// # Errors
/// When its place cannot be looked at.
pub async fn is_at_rest(run: &HarnessRun, context: &Context) -> Result<bool, Error> {
    let place = observe::place(run, context).await?;
    let step = step::step(&observe::observe(run, place, context));
    let reason = run.status.as_ref().and_then(|status| status.reason);
    if let [step::Effect::Ensure(_)] = step.effects[..] {
        return Ok(matches!(reason, Some(Reason::SecretNotFound | Reason::SecretNotAllowed)));
    }
    Ok(step.effects.is_empty() && run.status.as_ref() == Some(&step.status))
}

async fn reconcile(run: Arc<HarnessRun>, context: Arc<Context>) -> Result<Action, Error> {
    let _timed = context.timed(Reconciler::Run);
    let Some(id) = id_of(<HarnessRun as crate::kinds::Typed>::KIND, run.as_ref()) else {
        return Err(Error::NotStored(run.name_any()));
    };
    let mut place = observe::place(&run, &context).await?;
    let mut seen = run.clone();
    let mut guard = 0;
    loop {
        let observed = observe::observe(&seen, place.clone(), &context);
        let step = step::step(&observed);
        let (made, at) = apply::effects(&id, &run, &step, &context).await?;
        match made {
            // the place was just made: the status tells of it at once, in the same write
            apply::Made::Place(new) if guard == 0 => {
                guard += 1;
                place = Some(*new);
                // how long its claim took is known in this pass only
                Arc::make_mut(&mut seen).status.get_or_insert_default().startup = step.status.startup;
            }
            apply::Made::Refused(standing) => {
                apply::refuse(&id, &at, &run, &standing, &context).await?;
                // nobody says when a quota is freed
                let quota = standing.reason == Reason::QuotaExceeded;
                return Ok(if quota { Action::requeue(QUOTA) } else { Action::await_change() });
            }
            apply::Made::Gone => return Ok(Action::await_change()),
            apply::Made::Nothing | apply::Made::Place(_) => {
                apply::status(&id, &at, &run, &step.status, &context).await?;
                return Ok(step.again.map_or_else(Action::await_change, Action::requeue));
            }
        }
    }
}
