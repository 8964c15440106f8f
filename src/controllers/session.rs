//! The controller of sessions.
//!
//! A session is Ready when its runs can be resolved; it counts its active runs, names its last one, and removes its
//! persistent workspace when it goes. It goes only when no run of it is active.

mod step;

use std::{collections::BTreeSet, sync::Arc};

use futures::StreamExt;
use kube::{
    ResourceExt,
    runtime::{
        controller::{Action, Config, Controller},
        reflector::ObjectRef,
    },
};
use serde_json::{Value, json};
use step::{Effect, Observed};

use super::{
    Context, Error,
    context::{report, retry},
    news::News,
};
use crate::{
    kinds::{ObjectId, Session, Typed, meta, session::SessionStatus},
    ports::objects::{At, id_of, merge_patch},
    telemetry::metrics::Reconciler,
};

/// Runs the controller until `shutdown`.
pub async fn control(context: Arc<Context>, shutdown: impl Future<Output = ()> + Send + Sync + 'static) {
    let caches = &context.caches;
    let all = futures::stream::select_all([
        caches.agents.touched().map(drop).boxed(),
        caches.policies.touched().map(drop).boxed(),
    ]);
    let controller = Controller::for_stream(futures::stream::pending(), caches.sessions.reader())
        .with_config(Config::default().concurrency(4))
        .reconcile_on(caches.sessions.touched())
        .reconcile_on(of_runs(&context))
        .reconcile_all_on(all)
        .graceful_shutdown_on(shutdown);
    let outcomes = controller.run(reconcile, |_, error, _| retry(error), context);
    outcomes
        .for_each(|outcome| {
            if let Err(kube::runtime::controller::Error::ReconcilerFailed(error, object)) = outcome {
                report("session", &error, &object.to_string());
            }
            std::future::ready(())
        })
        .await;
}

/// Sessions of runs of which something else is to be said than before: a run's status is written many times.
fn of_runs(context: &Context) -> impl futures::Stream<Item = ObjectRef<Session>> + Send + 'static {
    let runs = context.caches.runs.clone();
    let mut news = News::default();
    let touched = runs.touched();
    touched.flat_map(move |reference| {
        let run = runs.reader().get(&reference);
        let now = run.and_then(|run| {
            let session = run.spec.session_ref.as_ref()?.name.clone();
            Some((session, step::Part::of(&run)))
        });
        let named = [news.last(&reference), now.as_ref()];
        let sessions: BTreeSet<String> = named.into_iter().flatten().map(|(name, _)| name.clone()).collect();
        let sessions = if news.is(&reference, now) { sessions } else { BTreeSet::new() };
        let namespace = reference.namespace.unwrap_or_default();
        futures::stream::iter(sessions).map(move |name| ObjectRef::new(&name).within(&namespace))
    })
}

async fn reconcile(session: Arc<Session>, context: Arc<Context>) -> Result<Action, Error> {
    let _timed = context.timed(Reconciler::Session);
    let Some(id) = id_of(Session::KIND, session.as_ref()) else {
        return Err(Error::NotStored(session.name_any()));
    };
    let at = At::of(session.as_ref()).ok_or_else(|| Error::NotStored(id.to_string()))?;
    let namespace = session.namespace().unwrap_or_default();
    let runs = context.caches.runs.of_session(&namespace, &session.name_any());
    let observed = Observed {
        session: &session,
        runs: runs.iter().map(Arc::as_ref).collect(),
        agents: context.caches.agents.within(&namespace).iter().map(|a| a.name_any()).collect(),
        policies: context.caches.policies.within(&namespace).iter().map(|p| p.name_any()).collect(),
        now: (context.clock)(),
    };
    let step = step::step(&observed);
    match step.effect {
        Some(Effect::RemoveWorkspaceAndFinalizer { keep }) => {
            if !keep {
                let removed = context.workloads.remove_workspace(&at.uid).await;
                removed.map_err(|source| Error::Workloads { what: "remove the workspace", source })?;
            }
            finalizer(&id, &at, &session, false, &context).await?;
        }
        Some(Effect::AddFinalizer) => finalizer(&id, &at, &session, true, &context).await?,
        None => status(&id, &at, &session, &step.status, &context).await?,
    }
    Ok(Action::await_change())
}

async fn finalizer(
    id: &ObjectId,
    at: &At,
    session: &Session,
    add: bool,
    context: &Context,
) -> Result<(), Error> {
    let mut finalizers = session.finalizers().to_vec();
    finalizers.retain(|f| f != meta::WORKSPACE_FINALIZER);
    if add {
        finalizers.push(meta::WORKSPACE_FINALIZER.to_owned());
    }
    let patch = json!({"metadata": {"finalizers": finalizers}});
    let merged = context.store.merge(id, at, &patch, meta::CONTROLLER).await;
    merged.map(drop).map_err(|source| Error::Objects { what: "change the finalizers", source })
}

/// False when only the phase of a run that goes on differs: the run tells that itself.
fn is_news(old: &SessionStatus, new: &SessionStatus) -> bool {
    let mut waits = new.clone();
    if new.last_run.as_ref().is_some_and(|run| !run.phase.is_terminal()) {
        waits.last_run.clone_from(&old.last_run);
    }
    waits != *old
}

async fn status(
    id: &ObjectId,
    at: &At,
    session: &Session,
    new: &SessionStatus,
    context: &Context,
) -> Result<(), Error> {
    let json = |status: &SessionStatus| serde_json::to_value(status).map_err(Error::Status);
    let old = session.status.as_ref().map_or_else(|| Ok(Value::Object(serde_json::Map::new())), json)?;
    if session.status.as_ref().is_some_and(|old| !is_news(old, new)) {
        return Ok(());
    }
    let Some(patch) = merge_patch(&old, &json(new)?) else { return Ok(()) };
    let written = context.store.write_status(id, at, &patch, meta::CONTROLLER).await;
    written.map(drop).map_err(|source| Error::Objects { what: "write the status", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_news_when_it_is_admitted_and_when_it_ends() {
        let status = |active: i64, run: &str, phase: &str| -> SessionStatus {
            let value = json!({"activeRuns": active, "lastRun": {"name": run, "phase": phase}});
            serde_json::from_value(value).unwrap()
        };
        let before = status(1, "a", "Succeeded");
        for (new, news) in [
            (status(0, "a", "Succeeded"), true),
            (status(1, "b", "Starting"), false),
            (status(1, "b", "Running"), false),
            (status(2, "b", "Running"), true),
            (status(1, "b", "Failed"), true),
            (before.clone(), false),
        ] {
            assert_eq!(is_news(&before, &new), news, "{new:?}");
        }
    }
}
