//! Ends places whose run is gone: whoever takes a run's finalizers off by hand takes away what its end would have cleaned up.
//!
//! A cluster deletes the pod of a run that is gone, but our finalizer keeps one whose run never knew of it; and on a machine
//! nobody else would end anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use kube::ResourceExt;

use super::{Context, Error};
use crate::{
    kinds::{Kind, ObjectId},
    names::{Namespace, Uid},
    ports::workloads::RunKey,
    telemetry::{Chain, Verb},
};

/// How long a run must be missed before the store itself is asked.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon to look again when the places could not be listed.
const AFTER_ERROR: Duration = Duration::from_mins(1);
/// How often to look though nothing happens.
const INTERVAL: Duration = Duration::from_mins(10);
/// Hints that one look may stand for.
const AT_ONCE: usize = 1024;

/// Sweeps at the start, and whenever something happens that may leave a place behind, until `shutdown`.
pub async fn control(context: std::sync::Arc<Context>, shutdown: impl Future<Output = ()> + Send) {
    let sweep = async {
        context.caches.ready().await;
        let mut hints = std::pin::pin!(hints(&context).ready_chunks(AT_ONCE));
        let mut missed = BTreeMap::new();
        loop {
            let next = match look(&context, &mut missed).await {
                Ok(()) if missed.is_empty() => INTERVAL,
                Ok(()) => PATIENCE,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "places without a run are looked for again in a minute");
                    AFTER_ERROR
                }
            };
            tokio::select! {
                Some(_) = hints.next() => {}
                () = tokio::time::sleep(next) => {}
            }
        }
    };
    tokio::select! { () = sweep => {}, () = shutdown => {} }
}

/// A place that changes, or a run that goes, while the other one is not there.
fn hints(context: &Context) -> impl Stream<Item = ()> + Send + use<> {
    let runs = context.caches.runs.clone();
    let of_places = context.workloads.changes().filter_map(move |key| {
        let known = runs.get(key.namespace.as_str(), key.name.as_str());
        let known = known.is_some_and(|run| run.metadata.uid.as_deref() == Some(key.uid.as_str()));
        std::future::ready((!known).then_some(()))
    });
    let runs = context.caches.runs.clone();
    let of_runs = context.caches.runs.touched().filter_map(move |run| {
        let known = runs.get(run.namespace.as_deref().unwrap_or_default(), &run.name).is_some();
        std::future::ready((!known).then_some(()))
    });
    futures::stream::select(of_places, of_runs)
}

/// Looks at all places once. What is missed for the first time is only noted.
async fn look(context: &Context, missed: &mut BTreeMap<Uid, Instant>) -> Result<(), Error> {
    let places = context.workloads.list().await;
    let places = places.map_err(|source| Error::Workloads { what: "list the places", source })?;
    let without: Vec<RunKey> =
        places.into_iter().map(|place| place.run).filter(|run| !is_cached(context, run)).collect();
    missed.retain(|uid, _| without.iter().any(|run| run.uid == *uid));
    let mut overdue: BTreeMap<Namespace, Vec<RunKey>> = BTreeMap::new();
    for run in without {
        let since = *missed.entry(run.uid.clone()).or_insert_with(Instant::now);
        if since.elapsed() >= PATIENCE {
            overdue.entry(run.namespace.clone()).or_default().push(run);
        }
    }
    for (namespace, runs) in overdue {
        let stored = stored(context, &namespace).await?;
        for run in runs.iter().filter(|run| !stored.contains(run.uid.as_str())) {
            end(context, run).await?;
        }
    }
    Ok(())
}

fn is_cached(context: &Context, run: &RunKey) -> bool {
    let cached = context.caches.runs.get(run.namespace.as_str(), run.name.as_str());
    cached.is_some_and(|cached| cached.metadata.uid.as_deref() == Some(run.uid.as_str()))
}

/// The UIDs of all runs that the store has in a namespace: a cache may be behind, or unable to read one. Listing is a right
/// that the controller has anyway.
async fn stored(context: &Context, namespace: &Namespace) -> Result<BTreeSet<String>, Error> {
    let listed = context.store.list(Kind::HarnessRun, Some(namespace)).await;
    let listed = listed.map_err(|source| Error::Objects { what: "list the runs", source })?;
    Ok(listed.into_iter().filter_map(|run| run.uid()).collect())
}

async fn end(context: &Context, run: &RunKey) -> Result<(), Error> {
    let removed = context.workloads.remove(&run.uid).await;
    removed.map_err(|source| Error::Workloads { what: "remove a place without a run", source })?;
    tracing::warn!(%run, uid = %run.uid, "the run of a place is gone: the place was removed");
    let id = ObjectId::new(Kind::HarnessRun, run.namespace.clone(), run.name.clone());
    context.note(Verb::Stop, &id, "the run is gone, and its place with it");
    Ok(())
}
