//! Counts runs by phase, for the metrics. Many changes are one count.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures::StreamExt;
use kube::runtime::reflector::ObjectRef;

use super::Context;
use crate::kinds::{HarnessRun, Phase};

/// Changes that one count may stand for.
const AT_ONCE: usize = 1024;

/// Counts until `shutdown`.
pub async fn control(context: Arc<Context>, shutdown: impl Future<Output = ()> + Send) {
    let count = async {
        let runs = &context.caches.runs;
        let mut changes = runs.touched().ready_chunks(AT_ONCE).boxed();
        let mut census = Census::default();
        while let Some(touched) = changes.next().await {
            for reference in touched {
                let phase = runs
                    .reader()
                    .get(&reference)
                    .map(|run| run.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending));
                census.take(reference, phase);
            }
            context.metrics.set_runs(census.phases.clone());
        }
    };
    tokio::select! { () = count => {}, () = shutdown => {} }
}

/// The phase of each run, and how many are in it. There may be thousands, so nobody is counted twice.
#[derive(Default)]
struct Census {
    seen: HashMap<ObjectRef<HarnessRun>, Phase>,
    phases: BTreeMap<Phase, usize>,
}

impl Census {
    /// A run is in this phase now; `None`: it is gone.
    fn take(&mut self, run: ObjectRef<HarnessRun>, phase: Option<Phase>) {
        let before = match phase {
            Some(phase) => {
                *self.phases.entry(phase).or_default() += 1;
                self.seen.insert(run, phase)
            }
            None => self.seen.remove(&run),
        };
        if let Some(count) = before.and_then(|before| self.phases.get_mut(&before)) {
            *count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_counts_once() {
        let mut census = Census::default();
        let steps = [
            ("a", Some(Phase::Pending), vec![(Phase::Pending, 1)]),
            ("a", Some(Phase::Pending), vec![(Phase::Pending, 1)]),
            ("b", Some(Phase::Running), vec![(Phase::Pending, 1), (Phase::Running, 1)]),
            ("a", Some(Phase::Running), vec![(Phase::Running, 2)]),
            ("a", None, vec![(Phase::Running, 1)]),
            ("a", None, vec![(Phase::Running, 1)]),
        ];
        for (number, (run, phase, expected)) in steps.into_iter().enumerate() {
            census.take(ObjectRef::new(run).within("team"), phase);
            let counted = census.phases.iter().filter(|(_, count)| **count > 0);
            let counted: Vec<_> = counted.map(|(phase, count)| (*phase, *count)).collect();
            assert_eq!(counted, expected, "step {number}");
        }
    }
}
