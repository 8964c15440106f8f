//! The controller of runs.
//!
//! Each reconciliation is one pass: observe from caches and place, decide by `step`, apply effects, write the status.

mod apply;
mod asked;
mod observe;
mod step;
mod turns;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    ResourceExt,
    runtime::{
        controller::{Action, Config, Controller},
        reflector::ObjectRef,
    },
};

pub(super) use {asked::Asked, turns::Turns};

use super::{Context, Error, context::retry};
use crate::{
    kinds::{HarnessRun, Phase, Reason, Session},
    ports::objects::id_of,
    telemetry::{Chain, metrics::Reconciler},
};

/// How soon to ask again for a place that a quota has no room for.
const QUOTA: Duration = Duration::from_secs(20);
/// Runs reconciled at once.
const CONCURRENCY: u16 = 16;
/// Changes of what runs depend on that are looked at as one.
const AT_ONCE: usize = 1024;

/// Runs the controller until `shutdown`.
pub async fn control(context: Arc<Context>, shutdown: impl Future<Output = ()> + Send + Sync + 'static) {
    let runs = &context.caches.runs;
    let controller = Controller::for_stream(futures::stream::pending(), runs.reader())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(runs.touched())
        .reconcile_on(siblings(&context))
        .reconcile_on(places(&context))
        .reconcile_on(dependants(&context))
        .graceful_shutdown_on(shutdown);
    let outcomes = controller.run(reconcile, |_, error, _| retry(error), context);
    outcomes
        .for_each(|outcome| {
            if let Err(kube::runtime::controller::Error::ReconcilerFailed(error, object)) = outcome {
                report(&error, &object.to_string());
            }
            std::future::ready(())
        })
        .await;
}

fn report(error: &Error, object: &str) {
    if error.class() == crate::class::Class::Conflict {
        tracing::debug!(controller = "run", object, error = %Chain(error), "retrying");
    } else {
        tracing::warn!(controller = "run", object, error = %Chain(error), "reconciliation failed");
    }
}

/// A run that ends, starts or goes frees or takes a turn: the waiting runs of its session look again.
fn siblings(context: &Context) -> impl futures::Stream<Item = ObjectRef<HarnessRun>> + Send + 'static {
    let runs = context.caches.runs.clone();
    let touched = runs.touched();
    touched.flat_map(move |touched| {
        let session = runs.reader().get(&touched).and_then(|run| run.spec.session_ref.clone());
        let waiting = runs.reader().state_filter(|run| {
            // few runs wait, so this is asked first
            turns::waits(run)
                && run.metadata.namespace == touched.namespace
                && run.metadata.name.as_ref() != Some(&touched.name)
                && (session.is_none() || run.spec.session_ref == session)
        });
        futures::stream::iter(waiting.iter().map(|run| ObjectRef::from_obj(run.as_ref())).collect::<Vec<_>>())
    })
}

fn places(context: &Context) -> impl futures::Stream<Item = ObjectRef<HarnessRun>> + Send + 'static {
    let changes = context.workloads.changes();
    changes.map(|key| ObjectRef::new(key.name.as_str()).within(key.namespace.as_str()))
}

/// The runs that look again when something changes that runs depend on: those that have not ended, and those that their
/// session lets go some time after their end. There may be thousands of others, for which nothing can change.
fn dependants(context: &Context) -> impl futures::Stream<Item = ObjectRef<HarnessRun>> + Send + 'static {
    let (runs, sessions) = (context.caches.runs.clone(), context.caches.sessions.clone());
    dependencies(context).flat_map(move |()| {
        let letting_go =
            sessions.reader().state_filter(|session| session.spec.ttl_seconds_after_finished.is_some());
        let look = runs
            .reader()
            .state_filter(|run| !is_over(run) || letting_go.iter().any(|session| belongs(run, session)));
        futures::stream::iter(look.iter().map(|run| ObjectRef::from_obj(run.as_ref())).collect::<Vec<_>>())
    })
}

fn belongs(run: &HarnessRun, session: &Session) -> bool {
    let named = run.spec.session_ref.as_ref().map(|session| &session.name);
    run.metadata.namespace == session.metadata.namespace && named == session.metadata.name.as_ref()
}

fn is_over(run: &HarnessRun) -> bool {
    run.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_terminal)
}

/// Anything that a pending run may wait for. Many changes at once are one.
fn dependencies(context: &Context) -> impl futures::Stream<Item = ()> + Send + 'static {
    let caches = &context.caches;
    let all = futures::stream::select_all([
        caches.sessions.touched().map(drop).boxed(),
        caches.agents.touched().map(drop).boxed(),
        caches.policies.touched().map(drop).boxed(),
        caches.config_maps.touched().map(drop).boxed(),
        caches.repositories.touched().map(drop).boxed(),
        context.secrets.changes().map(drop).boxed(),
    ]);
    all.ready_chunks(AT_ONCE).map(drop)
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
