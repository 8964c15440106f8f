//! The one watch of all pods of runs.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::watch;

use super::{
    compose::{AGENT_ROLE, ROLE},
    pods::Pods,
    seen::Seen,
};

/// The most pods in one answer; each carries its place, up to 192 KiB.
const PAGE: u32 = 100;

/// How far the first look is.
#[derive(Debug, Clone, Default)]
pub(super) enum First {
    /// Not yet.
    #[default]
    Looking,
    /// It failed, and is tried again.
    Failed(Arc<watcher::Error>),
    /// All pods are known.
    Done,
}

/// Follows the pods until nobody needs them any more. Only what [`Seen`] takes is kept of each.
pub(super) async fn follow(api: Api<Pod>, pods: Weak<Pods>, first: watch::Sender<First>) {
    let config = watcher::Config::default().labels(&format!("{ROLE}={AGENT_ROLE}")).page_size(PAGE);
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let (mut listed, mut since) = (Vec::new(), Instant::now());
    while let Some(event) = events.next().await {
        let Some(pods) = pods.upgrade() else { return };
        match event {
            Ok(Event::Init) => (listed, since) = (Vec::new(), Instant::now()),
            Ok(Event::InitApply(pod)) => listed.extend(Seen::of(pod)),
            Ok(Event::InitDone) => {
                pods.are(std::mem::take(&mut listed), since);
                first.send_replace(First::Done);
            }
            Ok(Event::Apply(pod)) => {
                if let Some(seen) = Seen::of(pod) {
                    pods.shown(seen);
                }
            }
            Ok(Event::Delete(pod)) => {
                if let Some(seen) = Seen::of(pod) {
                    pods.gone(&seen);
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the pods of runs cannot be watched"
                );
                first.send_if_modified(|first| {
                    let looking = !matches!(first, First::Done);
                    if looking {
                        *first = First::Failed(Arc::new(error));
                    }
                    looking
                });
            }
        }
    }
}
