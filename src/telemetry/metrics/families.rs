//! The metrics by name: what each is called, what it means and which labels it has.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use super::words::{Action, Call, Entry, Queue, Reconciler, RecordResult, SyncResult};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SyncLabels {
    pub(super) repository: String,
    pub(super) result: SyncResult,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AppliedLabels {
    pub(super) kind: &'static str,
    pub(super) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CallLabels {
    pub(super) verb: Call,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PhaseLabels {
    pub(super) phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RecordLabels {
    pub(super) entry: Entry,
    pub(super) result: RecordResult,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct QueueLabels {
    pub(super) queue: Queue,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ControllerLabels {
    pub(super) controller: Reconciler,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) route: String,
    pub(super) status: u16,
}

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) syncs: Family<SyncLabels, Counter>,
    pub(super) sync_seconds: Histogram,
    pub(super) applied: Family<AppliedLabels, Counter>,
    pub(super) calls: Family<CallLabels, Counter>,
    pub(super) reconcile_seconds: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    pub(super) runs: Family<PhaseLabels, Gauge>,
    pub(super) run_starts: Counter,
    pub(super) recorded: Family<RecordLabels, Counter>,
    pub(super) write_back_seconds: Histogram,
    pub(super) egress_denials: Counter,
    pub(super) queue: Family<QueueLabels, Gauge>,
    pub(super) requests: Family<RequestLabels, Counter>,
}

impl Families {
    /// Families that have counted nothing yet.
    pub(super) fn new() -> Self {
        Self {
            syncs: Family::default(),
            sync_seconds: seconds(),
            applied: Family::default(),
            calls: Family::default(),
            reconcile_seconds: Family::new_with_constructor(short),
            runs: Family::default(),
            run_starts: Counter::default(),
            recorded: Family::default(),
            write_back_seconds: seconds(),
            egress_denials: Counter::default(),
            queue: Family::default(),
            requests: Family::default(),
        }
    }

    /// Adds them to a registry, with the version that runs.
    pub(super) fn register(&self, to: &mut Registry) {
        to.register(
            "build",
            "The version that runs",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        to.register("syncs", "Syncs of a repository, by how they ended", self.syncs.clone());
        let (sync, write_back) = (self.sync_seconds.clone(), self.write_back_seconds.clone());
        to.register_with_unit("sync", "From the start of a fetch to the last apply", Unit::Seconds, sync);
        to.register("objects_applied", "Objects that the syncer wrote", self.applied.clone());
        to.register("object_calls", "Calls to the store of objects", self.calls.clone());
        let help = "From a look at an object to the last write that it led to";
        to.register_with_unit("reconcile", help, Unit::Seconds, self.reconcile_seconds.clone());
        to.register("runs", "Runs that exist, by phase", self.runs.clone());
        to.register("run_starts", "Places made for runs", self.run_starts.clone());
        to.register("recorded", "Claims and results for the ledger", self.recorded.clone());
        let help = "From a claim or result taken in to its acknowledged push";
        to.register_with_unit("write_back", help, Unit::Seconds, write_back);
        to.register("egress_denials", "Connections of runs that were refused", self.egress_denials.clone());
        to.register("queue_length", "Work that waits", self.queue.clone());
        to.register("api_requests", "Requests answered by the API", self.requests.clone());
    }
}

/// Buckets from 5 ms to 41 s, each twice the one before.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 14))
}

/// Buckets from 50 µs to 26 s: most looks lead to no write.
fn short() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 20))
}
