//! When to look again: a notice, the clock, or a change of the repository's object. Many triggers become one round.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use kube::ResourceExt;

use crate::{
    kinds::{ConfigRepository, meta},
    ledger,
};

/// What a round is to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Ask the remote.
    pub(super) fetch: bool,
    /// Plan again even if the commit is the same.
    pub(super) plan: bool,
}

impl Wanted {
    pub(super) const EVERYTHING: Self = Self { fetch: true, plan: true };
    pub(super) const FETCH: Self = Self { fetch: true, plan: false };
    pub(super) const PLAN: Self = Self { fetch: false, plan: true };

    pub(super) fn and(self, other: Self) -> Self {
        Self { fetch: self.fetch || other.fetch, plan: self.plan || other.plan }
    }
}

/// What of a repository's object calls for a round: its spec and the request annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    generation: Option<i64>,
    pub(super) requested_at: Option<String>,
    allow_prune: Option<String>,
}

impl Asked {
    pub(super) fn of(repository: &ConfigRepository) -> Self {
        let annotation = |name: &str| repository.annotations().get(name).cloned();
        Self {
            generation: repository.metadata.generation,
            requested_at: annotation(meta::RECONCILE_REQUESTED_AT)
                .or_else(|| annotation(meta::FLUX_REQUESTED_AT)),
            allow_prune: annotation(meta::ALLOW_PRUNE),
        }
    }
}

type Triggers = Pin<Box<dyn Stream<Item = Wanted> + Send>>;

/// All triggers of one repository, in one stream.
pub(super) struct Trigger {
    stream: Triggers,
}

impl Trigger {
    /// `notices` are ticks of a local repository; `ledger` counts when it becomes readable, or stops being so.
    pub(super) fn new(
        notices: impl Stream<Item = ()> + Send + 'static,
        objects: impl Stream<Item = ()> + Send + 'static,
        ledger: tokio::sync::watch::Receiver<Arc<ledger::State>>,
    ) -> Self {
        let notices = notices.map(|()| Wanted::FETCH);
        let ledger = readiness(ledger).map(|()| Wanted::PLAN);
        let objects = objects.map(|()| Wanted::PLAN);
        let stream = futures::stream::select_all([
            Box::pin(notices) as Triggers,
            Box::pin(objects) as Triggers,
            Box::pin(ledger) as Triggers,
        ]);
        Self { stream: Box::pin(stream) }
    }

    /// Waits for the next trigger, or until `delay` has passed, and takes every other one that is there with it.
    pub(super) async fn next(&mut self, delay: Duration) -> Wanted {
        let first = tokio::time::timeout(delay, self.stream.next()).await;
        let mut wanted = match first {
            Ok(Some(wanted)) => wanted,
            Ok(None) => std::future::pending().await,
            Err(_) => Wanted::FETCH,
        };
        while let Some(Some(more)) = futures::FutureExt::now_or_never(self.stream.next()) {
            wanted = wanted.and(more);
        }
        wanted
    }
}

/// Changes of a ledger's readiness. What is recorded there calls for no plan: the next one reads it.
fn readiness(ledger: tokio::sync::watch::Receiver<Arc<ledger::State>>) -> impl Stream<Item = ()> + Send {
    let mut ready = ledger.borrow().view().is_some();
    tokio_stream::wrappers::WatchStream::from_changes(ledger).filter_map(move |state| {
        let now = state.view().is_some();
        let news = std::mem::replace(&mut ready, now) != now;
        std::future::ready(news.then_some(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    fn ticks(n: usize) -> impl Stream<Item = ()> + Send + 'static {
        futures::stream::iter(vec![(); n]).chain(futures::stream::pending())
    }

    #[tokio::test]
    async fn a_storm_is_one_round() {
        let (_ledger, watching) = tokio::sync::watch::channel(Arc::new(ledger::State::Unread));
        let mut trigger = Trigger::new(ticks(10), futures::stream::pending(), watching);
        assert_eq!(trigger.next(LONG).await, Wanted::FETCH);
        let left_over = futures::FutureExt::now_or_never(trigger.next(LONG));
        assert_eq!(left_over, None);
        assert_eq!(trigger.next(Duration::ZERO).await, Wanted::FETCH, "the poll");
    }

    #[tokio::test]
    async fn triggers_add_up() {
        let (ledger, watching) = tokio::sync::watch::channel(Arc::new(ledger::State::Unread));
        let mut trigger = Trigger::new(ticks(1), futures::stream::pending(), watching);
        let ready = ledger::State::Ready { view: ledger::View::default(), tip: None };
        ledger.send(Arc::new(ready)).unwrap();
        assert_eq!(trigger.next(LONG).await, Wanted::EVERYTHING);
    }
}
