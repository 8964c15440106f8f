//! Watches the Secrets that somebody asked for, each by its name and by its metadata only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{PartialObjectMeta, WatchEvent, WatchParams},
};
use tokio::{sync::broadcast, time::timeout};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tokio_util::task::AbortOnDropHandle;

use super::PATIENCE;
use crate::names::{Namespace, ObjectName};

/// The most names that are watched, each over a connection of its own.
const MAX_WATCHED: usize = 256;
/// How many changes wait for one listener. One that is slower hears of every name.
const CHANGES: usize = 256;
/// The pause before a watch that failed begins again; doubled for each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_mins(1);

pub(super) type Name = (Namespace, ObjectName);
/// The version of a Secret that was seen last; `None` when there was none. Versions are never used again, so that one
/// that was deleted and made anew differs.
type Version = Option<String>;

/// What is watched, oldest use first by `turn`.
#[derive(Default)]
struct Watched {
    turn: u64,
    names: BTreeMap<Name, (u64, AbortOnDropHandle<()>)>,
}

/// The watches. They end when this is dropped.
pub(super) struct Watches {
    client: Client,
    told: broadcast::Sender<Name>,
    watched: Arc<Mutex<Watched>>,
}

impl Watches {
    pub(super) fn new(client: Client) -> Self {
        Self { client, told: broadcast::channel(CHANGES).0, watched: Arc::default() }
    }

    /// Watches a name from a version on that its asker saw. The name used longest ago makes room for it.
    pub(super) fn follow(&self, name: Name, seen: Version) {
        let mut watched = lock(&self.watched);
        watched.turn += 1;
        let turn = watched.turn;
        if let Some((used, _)) = watched.names.get_mut(&name) {
            *used = turn;
            return;
        }
        if watched.names.len() >= MAX_WATCHED
            && let Some(oldest) = watched.names.iter().min_by_key(|(_, (used, _))| *used)
        {
            let oldest = oldest.0.clone();
            watched.names.remove(&oldest);
        }
        let watch = watch(self.client.clone(), name.clone(), seen, self.told.clone());
        watched.names.insert(name, (turn, AbortOnDropHandle::new(tokio::spawn(watch))));
    }

    /// The names that change from now on.
    pub(super) fn changes(&self) -> BoxStream<'static, Name> {
        let watched = Arc::clone(&self.watched);
        let changes = BroadcastStream::new(self.told.subscribe()).flat_map(move |change| {
            futures::stream::iter(match change {
                Ok(name) => vec![name],
                Err(BroadcastStreamRecvError::Lagged(_)) => lock(&watched).names.keys().cloned().collect(),
            })
        });
        changes.boxed()
    }
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches one Secret for ever, and tells its name whenever its version differs from the one seen last.
///
/// A watch is opened first and the Secret compared after, so that no change falls in between. What happened while there
/// was no watch is found by the comparison.
async fn watch(client: Client, name: Name, mut seen: Version, told: broadcast::Sender<Name>) {
    let api = Api::<Secret>::namespaced(client, name.0.as_str());
    let params = WatchParams::default().fields(&format!("metadata.name={}", name.1)).disable_bookmarks();
    let mut pause = FIRST_PAUSE;
    let mut see = |version: Version| {
        if version != seen {
            seen = version;
            // nobody may be listening
            drop(told.send(name.clone()));
        }
    };
    loop {
        let opened = timeout(PATIENCE, api.watch_metadata(&params, "")).await;
        if let Ok(Ok(now)) = timeout(PATIENCE, api.get_metadata_opt(name.1.as_str())).await {
            see(now.and_then(|secret| secret.metadata.resource_version));
        }
        match opened {
            Ok(Ok(events)) => {
                pause = FIRST_PAUSE;
                follow_events(events, &mut see).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a Secret cannot be watched");
            }
            Err(_) => tracing::debug!("the API server does not answer a watch of a Secret"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Takes events until the stream ends or fails.
async fn follow_events(
    events: impl Stream<Item = kube::Result<WatchEvent<PartialObjectMeta<Secret>>>>,
    see: &mut (impl FnMut(Version) + Send),
) {
    let mut events = std::pin::pin!(events);
    while let Some(Ok(event)) = events.next().await {
        match event {
            WatchEvent::Added(secret) | WatchEvent::Modified(secret) => see(secret.metadata.resource_version),
            WatchEvent::Deleted(_) => see(None),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use kube::client::Body;
    use tower::{BoxError, service_fn};

    use super::*;

    #[tokio::test]
    async fn as_many_are_watched_as_there_is_room_for_and_the_one_asked_for_last_stays() {
        let silent = service_fn(|_: http::Request<Body>| {
            std::future::pending::<Result<http::Response<Empty<bytes::Bytes>>, BoxError>>()
        });
        let watches = Watches::new(Client::new(silent, "default"));
        let name = |i: usize| -> Name { ("team".parse().unwrap(), format!("s-{i}").parse().unwrap()) };
        for i in 0..MAX_WATCHED {
            watches.follow(name(i), None);
        }
        watches.follow(name(0), None);
        watches.follow(name(MAX_WATCHED), None);
        let watched = lock(&watches.watched);
        assert_eq!(watched.names.len(), MAX_WATCHED);
        assert!(watched.names.contains_key(&name(0)) && watched.names.contains_key(&name(MAX_WATCHED)));
        assert!(!watched.names.contains_key(&name(1)), "it was asked for longest ago");
    }
}
