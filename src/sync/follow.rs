//! One repository's loop: wait for a trigger, then one round of observe, validate, plan, apply, status.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use kube::ResourceExt;
use tokio::{sync::watch, time::Instant};

use super::{
    Context, Error,
    follower::{End, Follower},
    trigger::{Asked, Trigger, Wanted},
};
use crate::{
    cache::Change,
    class::Class,
    git::{self, Watch, poll_delay},
    kinds::ConfigRepository,
    ledger,
    telemetry::{Chain, metrics::SyncResult},
};

/// How often to look where no notice comes, when `spec.interval` says nothing.
const DEFAULT_INTERVAL: Duration = Duration::from_mins(1);
/// First delay after a failure that may pass; it doubles up to the interval.
const FIRST_RETRY: Duration = Duration::from_millis(750);

/// Changes of objects that are looked at in one go.
const AT_ONCE: usize = 1024;

/// Follows a repository until the task is aborted.
pub(super) async fn follow(repository: ConfigRepository, context: Arc<Context>) {
    let uid = repository.uid().unwrap_or_default();
    let (namespace, name) = (repository.namespace().unwrap_or_default(), repository.name_any());
    let mut follower = match Follower::open(&repository, &context) {
        Ok(follower) => follower,
        Err(error) => {
            tracing::error!(controller = "sync", %namespace, %name, error = %Chain(&error), "cannot follow the repository");
            context.progress.update(&uid, |settled| settled.failed = true);
            return;
        }
    };
    let mut changes = context.caches.changes().ready_chunks(AT_ONCE).boxed();
    let mut trigger = triggers(&repository, &context, follower.ledger.clone());
    let mut wanted = Wanted::EVERYTHING;
    let mut failures = 0_u32;
    loop {
        context.progress.update(&uid, |settled| settled.busy = true);
        let Some(current) = context.caches.repositories.get(&namespace, &name) else { return };
        let asked = Asked::of(&current);
        if follower.asked.as_ref() != Some(&asked) {
            wanted = Wanted::EVERYTHING;
            follower.asked = Some(asked);
        }
        let began = std::time::Instant::now();
        let outcome = follower.round(&current, wanted, &context).await;
        let retry = match &outcome {
            Ok(end) => end.again,
            Err(error) => {
                tracing::warn!(controller = "sync", %namespace, %name, error = %Chain(error), "round failed");
                error.class() != Class::Invalid
            }
        };
        count(&current, &outcome, began.elapsed(), &context);
        failures = if retry { failures + 1 } else { 0 };
        context.progress.update(&uid, |settled| settled.take(&outcome, retry));
        let delay = delay(&current, failures, seed(&uid, &context));
        wanted = next(&mut trigger, &mut changes, delay, &mut follower, &context).await;
        if retry {
            wanted = Wanted::EVERYTHING;
        }
    }
}

/// Waits for what calls for a round: a trigger, the end of `delay`, an object that is no longer as it was enforced, or
/// the calm after a fight. A change that calls for nothing costs a look into the cache.
async fn next(
    trigger: &mut Trigger,
    changes: &mut BoxStream<'static, Vec<Change>>,
    delay: Duration,
    follower: &mut Follower,
    context: &Context,
) -> Wanted {
    let due = Instant::now() + delay;
    loop {
        let calm = async {
            match follower.calm_in((context.clock)()) {
                Some(calm) => tokio::time::sleep(calm).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            wanted = trigger.next(due.saturating_duration_since(Instant::now())) => return wanted,
            () = calm => return Wanted::PLAN,
            Some(changed) = changes.next() => {
                if follower.drifted(&changed, context).await {
                    return Wanted::PLAN;
                }
            }
        }
    }
}

fn count(repository: &ConfigRepository, outcome: &Result<End, Error>, took: Duration, context: &Context) {
    let result = match outcome {
        Err(_) => SyncResult::Failed,
        Ok(end) if end.failed || end.again => SyncResult::Partial,
        Ok(end) if end.written > 0 => SyncResult::Applied,
        Ok(_) => SyncResult::Unchanged,
    };
    let namespace = repository.namespace().unwrap_or_default().parse();
    if let (Ok(namespace), Ok(name)) = (namespace, repository.name_any().parse()) {
        context.metrics.synced(&namespace, &name, result, took);
    }
}

fn seed(uid: &str, context: &Context) -> u64 {
    let rounds = context.progress.subscribe().borrow().get(uid).map_or(0, |settled| settled.rounds);
    uid.bytes().fold(rounds, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
}

fn delay(repository: &ConfigRepository, failures: u32, seed: u64) -> Duration {
    let interval =
        repository.spec.interval.map_or(DEFAULT_INTERVAL, Duration::from).max(Duration::from_secs(1));
    if failures == 0 {
        return poll_delay(interval, seed);
    }
    poll_delay((FIRST_RETRY * 2_u32.saturating_pow(failures.min(10) - 1)).min(interval), seed)
}

fn triggers(
    repository: &ConfigRepository,
    context: &Context,
    ledger: watch::Receiver<Arc<ledger::State>>,
) -> Trigger {
    let local =
        repository.spec.url.parse().ok().and_then(|l: git::Location| l.path().map(std::path::Path::to_owned));
    let notices = local.and_then(|path| match Watch::start(&path) {
        Ok(watch) => Some(watch),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(controller = "sync", path = %path.display(), error, "cannot watch; polling instead");
            None
        }
    });
    let (namespace, name) = (repository.namespace(), repository.name_any());
    let caches = context.caches.clone();
    let mut last = Some(Asked::of(repository));
    let touched = caches.repositories.touched();
    let asked = touched.filter_map(move |reference| {
        let ours = reference.name == name && reference.namespace == namespace;
        let namespace = reference.namespace.clone().unwrap_or_default();
        let asked = ours
            .then(|| caches.repositories.get(&namespace, &reference.name))
            .flatten()
            .map(|r| Asked::of(&r));
        let news = asked.is_some() && asked != last;
        if news {
            last = asked;
        }
        std::future::ready(news.then_some(()))
    });
    let notices = futures::stream::unfold(notices, |watch| async {
        let mut watch = watch?;
        watch.tick().await;
        Some(((), Some(watch)))
    });
    Trigger::new(notices.chain(futures::stream::pending()), asked, ledger)
}
