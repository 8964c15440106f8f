//! Metrics in the `OpenMetrics` text format.
//!
//! Every label has a bounded set of values: words of closed enums, or the first [`MAX_NAMES`] names that were seen; later
//! ones count as `other`.

mod families;
mod names;
#[cfg(test)]
mod tests;
mod words;

use std::{fmt, time::Duration};

use prometheus_client::{encoding::text, registry::Registry};

use crate::{
    kinds::{Kind, Phase},
    names::{Namespace, ObjectName},
};
use families::{
    AppliedLabels, CallLabels, ControllerLabels, Families, PhaseLabels, QueueLabels, RecordLabels,
    RequestLabels, SyncLabels,
};
use names::Names;

pub use names::MAX_NAMES;
pub use words::{Action, Call, Entry, Queue, Reconciler, RecordResult, SyncResult};

/// The media type of what [`Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    repositories: Names,
    routes: Names,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that have counted nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let families = Families::new();
        let mut registry = Registry::with_prefix("ostler");
        families.register(&mut registry);
        Self { registry, families, repositories: Names::default(), routes: Names::default() }
    }

    /// A sync ended.
    pub fn synced(&self, namespace: &Namespace, name: &ObjectName, result: SyncResult, took: Duration) {
        let repository = self.repositories.bounded(format!("{namespace}/{name}"));
        self.families.syncs.get_or_create(&SyncLabels { repository, result }).inc();
        self.families.sync_seconds.observe(took.as_secs_f64());
    }

    /// The syncer wrote an object, or was refused.
    pub fn applied(&self, kind: Kind, action: Action) {
        self.families.applied.get_or_create(&AppliedLabels { kind: kind.as_str(), action }).inc();
    }

    /// The store of objects was called.
    pub fn called(&self, call: Call) {
        self.families.calls.get_or_create(&CallLabels { verb: call }).inc();
    }

    /// A controller looked at an object, and did what was to be done.
    pub fn reconciled(&self, by: Reconciler, took: Duration) {
        let labels = ControllerLabels { controller: by };
        self.families.reconcile_seconds.get_or_create_owned(&labels).observe(took.as_secs_f64());
    }

    /// How many runs there are of each phase now; phases that are left out have none.
    pub fn set_runs(&self, counts: impl IntoIterator<Item = (Phase, usize)>) {
        let counts: Vec<_> = counts.into_iter().collect();
        for phase in Phase::ALL {
            let count: usize = counts.iter().filter(|(of, _)| *of == phase).map(|(_, count)| count).sum();
            let gauge = self.families.runs.get_or_create_owned(&PhaseLabels { phase: phase.as_str() });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A place was made.
    pub fn run_started(&self) {
        self.families.run_starts.inc();
    }

    /// Something became of an entry of the ledger.
    pub fn recorded(&self, entry: Entry, result: RecordResult) {
        self.families.recorded.get_or_create(&RecordLabels { entry, result }).inc();
    }

    /// An entry was acknowledged this long after it was taken in.
    pub fn written_back(&self, took: Duration) {
        self.families.write_back_seconds.observe(took.as_secs_f64());
    }

    /// So many connections were refused.
    pub fn egress_denied(&self, count: u64) {
        self.families.egress_denials.inc_by(count);
    }

    /// How much waits in a queue now.
    pub fn set_queue(&self, queue: Queue, length: usize) {
        let gauge = self.families.queue.get_or_create_owned(&QueueLabels { queue });
        gauge.set(i64::try_from(length).unwrap_or(i64::MAX));
    }

    /// The API answered. `route` is the route's pattern, not the request's path; `None` when none matched.
    pub fn answered(&self, route: Option<&str>, status: u16) {
        let route = self.routes.bounded(route.unwrap_or("unmatched").to_owned());
        self.families.requests.get_or_create(&RequestLabels { route, status }).inc();
    }

    /// All of it, as [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            Err(fmt::Error) => unreachable!("writing into a String does not fail"),
        }
    }
}
