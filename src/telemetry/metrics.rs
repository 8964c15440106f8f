//! Metrics in the `OpenMetrics` text format.
//!
//! Every label has a bounded set of values: words of closed enums, or the first [`MAX_NAMES`] names that were seen; later
//! ones count as `other`.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::{
    kinds::{Kind, Phase},
    names::{Namespace, ObjectName},
};

/// The media type of what [`Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The most names that one label takes: repositories, and routes of the API.
pub const MAX_NAMES: usize = 128;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            /// The word in the label.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

words!(
    /// How a sync ended.
    SyncResult {
        /// Everything was applied.
        Applied = "applied",
        /// There was nothing to do.
        Unchanged = "unchanged",
        /// Some files or objects failed or are held; the rest was applied.
        Partial = "partial",
        /// Nothing could be fetched or applied.
        Failed = "failed",
    }
);
words!(
    /// What was done to an object.
    Action {
        /// It came into being.
        Create = "create",
        /// It was changed.
        Update = "update",
        /// It was deleted.
        Delete = "delete",
        /// The store refused it.
        Refuse = "refuse",
    }
);
words!(
    /// A call to the store of objects.
    Call {
        /// A watch was begun.
        Watch = "watch",
        /// One object was read.
        Get = "get",
        /// Objects of a kind were read.
        List = "list",
        /// An object was created.
        Create = "create",
        /// An object was applied.
        Apply = "apply",
        /// Metadata or spec was patched.
        Merge = "merge",
        /// A status was patched.
        Status = "status",
        /// An object was deleted.
        Delete = "delete",
        /// An event was told.
        Tell = "tell",
    }
);
words!(
    /// An entry of the ledger.
    Entry {
        /// A claim.
        Claim = "claim",
        /// A result.
        Result = "result",
    }
);
words!(
    /// What became of an entry.
    RecordResult {
        /// It was pushed.
        Pushed = "pushed",
        /// Its push failed and is tried again.
        Retried = "retried",
        /// It was refused for good.
        Refused = "refused",
        /// It was given up.
        Abandoned = "abandoned",
    }
);
words!(
    /// A controller.
    Reconciler {
        /// That of sessions.
        Session = "session",
        /// That of runs.
        Run = "run",
    }
);
words!(
    /// A queue of work.
    Queue {
        /// Repositories to sync.
        Sync = "sync",
        /// Sessions to reconcile.
        Session = "session",
        /// Runs to reconcile.
        Run = "run",
        /// Claims and results to record.
        Record = "record",
    }
);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SyncLabels {
    repository: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AppliedLabels {
    kind: &'static str,
    action: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    verb: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RecordLabels {
    entry: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabels {
    controller: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

/// The first [`MAX_NAMES`] names; what comes later is `other`.
#[derive(Debug, Default)]
struct Names(Mutex<BTreeSet<String>>);

impl Names {
    fn bounded(&self, name: String) -> String {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains(&name) {
            if seen.len() >= MAX_NAMES {
                return "other".to_owned();
            }
            seen.insert(name.clone());
        }
        name
    }
}

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    repositories: Names,
    routes: Names,
    syncs: Family<SyncLabels, Counter>,
    sync_seconds: Histogram,
    applied: Family<AppliedLabels, Counter>,
    calls: Family<CallLabels, Counter>,
    reconcile_seconds: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    runs: Family<PhaseLabels, Gauge>,
    run_starts: Counter,
    recorded: Family<RecordLabels, Counter>,
    write_back_seconds: Histogram,
    egress_denials: Counter,
    queue: Family<QueueLabels, Gauge>,
    requests: Family<RequestLabels, Counter>,
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
        let mut metrics = Self {
            registry: Registry::with_prefix("ostler"),
            repositories: Names::default(),
            routes: Names::default(),
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
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let to = &mut self.registry;
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

    /// A sync ended.
    pub fn synced(&self, namespace: &Namespace, name: &ObjectName, result: SyncResult, took: Duration) {
        let repository = self.repositories.bounded(format!("{namespace}/{name}"));
        self.syncs.get_or_create(&SyncLabels { repository, result: result.as_str() }).inc();
        self.sync_seconds.observe(took.as_secs_f64());
    }

    /// The syncer wrote an object, or was refused.
    pub fn applied(&self, kind: Kind, action: Action) {
        self.applied.get_or_create(&AppliedLabels { kind: kind.as_str(), action: action.as_str() }).inc();
    }

    /// The store of objects was called.
    pub fn called(&self, call: Call) {
        self.calls.get_or_create(&CallLabels { verb: call.as_str() }).inc();
    }

    /// A controller looked at an object, and did what was to be done.
    pub fn reconciled(&self, by: Reconciler, took: Duration) {
        let labels = ControllerLabels { controller: by.as_str() };
        self.reconcile_seconds.get_or_create_owned(&labels).observe(took.as_secs_f64());
    }

    /// How many runs there are of each phase now; phases that are left out have none.
    pub fn set_runs(&self, counts: impl IntoIterator<Item = (Phase, usize)>) {
        let counts: Vec<_> = counts.into_iter().collect();
        for phase in PHASES {
            let count: usize = counts.iter().filter(|(of, _)| *of == phase).map(|(_, count)| count).sum();
            let gauge = self.runs.get_or_create_owned(&PhaseLabels { phase: phase.as_str() });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A place was made.
    pub fn run_started(&self) {
        self.run_starts.inc();
    }

    /// Something became of an entry of the ledger.
    pub fn recorded(&self, entry: Entry, result: RecordResult) {
        self.recorded.get_or_create(&RecordLabels { entry: entry.as_str(), result: result.as_str() }).inc();
    }

    /// An entry was acknowledged this long after it was taken in.
    pub fn written_back(&self, took: Duration) {
        self.write_back_seconds.observe(took.as_secs_f64());
    }

    /// So many connections were refused.
    pub fn egress_denied(&self, count: u64) {
        self.egress_denials.inc_by(count);
    }

    /// How much waits in a queue now.
    pub fn set_queue(&self, queue: Queue, length: usize) {
        let gauge = self.queue.get_or_create_owned(&QueueLabels { queue: queue.as_str() });
        gauge.set(i64::try_from(length).unwrap_or(i64::MAX));
    }

    /// The API answered. `route` is the route's pattern, not the request's path; `None` when none matched.
    pub fn answered(&self, route: Option<&str>, status: u16) {
        let route = self.routes.bounded(route.unwrap_or("unmatched").to_owned());
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
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

const PHASES: [Phase; 11] = [
    Phase::Pending,
    Phase::Queued,
    Phase::Held,
    Phase::Starting,
    Phase::Running,
    Phase::Collecting,
    Phase::Succeeded,
    Phase::Failed,
    Phase::Stopped,
    Phase::TimedOut,
    Phase::Lost,
];

/// Buckets from 5 ms to 41 s, each twice the one before.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 14))
}

/// Buckets from 50 µs to 26 s: most looks lead to no write.
fn short() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.encode();
        assert!(text.lines().any(|l| l == line), "no line {line:?} in:\n{text}");
    }

    #[test]
    fn what_happens_is_counted_under_its_words() {
        let metrics = Metrics::new();
        let (namespace, name) = ("default".parse().unwrap(), "agents".parse().unwrap());
        metrics.synced(&namespace, &name, SyncResult::Partial, Duration::from_millis(7));
        metrics.applied(Kind::HarnessRun, Action::Create);
        metrics.run_started();
        metrics.recorded(Entry::Claim, RecordResult::Pushed);
        metrics.written_back(Duration::from_secs(100));
        metrics.egress_denied(3);
        metrics.set_queue(Queue::Record, 2);
        metrics.reconciled(Reconciler::Run, Duration::from_micros(70));
        metrics.answered(Some("/api/v1/runs/{ns}/{name}"), 200);
        metrics.answered(None, 404);
        for line in [
            r#"ostler_syncs_total{repository="default/agents",result="partial"} 1"#,
            r#"ostler_sync_seconds_bucket{le="0.005"} 0"#,
            r#"ostler_sync_seconds_bucket{le="0.01"} 1"#,
            r#"ostler_objects_applied_total{kind="HarnessRun",action="create"} 1"#,
            "ostler_run_starts_total 1",
            r#"ostler_recorded_total{entry="claim",result="pushed"} 1"#,
            r#"ostler_write_back_seconds_bucket{le="+Inf"} 1"#,
            "ostler_egress_denials_total 3",
            r#"ostler_queue_length{queue="record"} 2"#,
            r#"ostler_reconcile_seconds_bucket{le="0.00005",controller="run"} 0"#,
            r#"ostler_reconcile_seconds_bucket{le="0.0001",controller="run"} 1"#,
            r#"ostler_api_requests_total{route="/api/v1/runs/{ns}/{name}",status="200"} 1"#,
            r#"ostler_api_requests_total{route="unmatched",status="404"} 1"#,
            "# EOF",
        ] {
            has(&metrics, line);
        }
    }

    #[test]
    fn a_phase_without_runs_falls_back_to_zero() {
        let metrics = Metrics::new();
        metrics.set_runs([(Phase::Running, 2)]);
        has(&metrics, r#"ostler_runs{phase="Running"} 2"#);
        metrics.set_runs([(Phase::Succeeded, 2)]);
        has(&metrics, r#"ostler_runs{phase="Running"} 0"#);
        has(&metrics, r#"ostler_runs{phase="Succeeded"} 2"#);
    }

    #[test]
    fn a_flood_of_names_does_not_grow_the_labels() {
        let metrics = Metrics::new();
        let namespace = "default".parse().unwrap();
        for number in 0..MAX_NAMES + 50 {
            let name = format!("r{number}").parse().unwrap();
            metrics.synced(&namespace, &name, SyncResult::Applied, Duration::ZERO);
        }
        has(&metrics, r#"ostler_syncs_total{repository="other",result="applied"} 50"#);
        assert_eq!(metrics.encode().matches("ostler_syncs_total{").count(), MAX_NAMES + 1);
    }

    #[test]
    fn every_phase_has_its_gauge() {
        let metrics = Metrics::new();
        metrics.set_runs([]);
        let all = metrics.encode();
        for phase in PHASES {
            assert!(all.contains(&format!("phase=\"{phase}\"")), "{phase}");
        }
        assert_eq!(all.matches("ostler_runs{").count(), PHASES.len());
    }
}
