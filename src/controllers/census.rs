//! Counts runs by phase, for the metrics. Many changes are one count.

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt;

use super::Context;
use crate::kinds::Phase;

/// Changes that one count may stand for.
const AT_ONCE: usize = 1024;

/// Counts until `shutdown`.
pub async fn control(context: Arc<Context>, shutdown: impl Future<Output = ()> + Send) {
    let count = async {
        let mut changes = context.caches.runs.touched().ready_chunks(AT_ONCE).boxed();
        while changes.next().await.is_some() {
            let mut phases: BTreeMap<Phase, usize> = BTreeMap::new();
            for run in context.caches.runs.all() {
                let phase = run.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending);
                *phases.entry(phase).or_default() += 1;
            }
            context.metrics.set_runs(phases);
        }
    };
    tokio::select! { () = count => {}, () = shutdown => {} }
}
