//! Labels, annotations, finalizers and field managers that ostler writes or reads.

/// Field manager of the syncer: what it owns comes from Git.
pub const SYNCER: &str = "ostler-syncer";
/// Field manager of the controllers.
pub const CONTROLLER: &str = "ostler-controller";
/// Field manager of the recorder.
pub const RECORDER: &str = "ostler-recorder";
/// Field manager of the command line.
pub const CLI: &str = "ostler-cli";

/// Keeps a run until its result is recorded or given up.
pub const RECORD_FINALIZER: &str = "ostler.dev/record";
/// Keeps a session until its workspace is dealt with.
pub const WORKSPACE_FINALIZER: &str = "ostler.dev/workspace";

/// Annotation: the `ConfigRepository` an object came from, `namespace/name`.
pub const SOURCE: &str = "ostler.dev/source";
/// Annotation: the UID of that `ConfigRepository`.
pub const SOURCE_UID: &str = "ostler.dev/source-uid";
/// Annotation: the file, so that a restart knows what a broken file held.
pub const SOURCE_PATH: &str = "ostler.dev/source-path";
/// Annotation: digest of a run as its author wrote it, see [`crate::ledger`].
pub const DIGEST: &str = "ostler.dev/digest";
/// Annotation on a run: the ConfigMap that the syncer made of its prompt's file.
pub const PROMPT: &str = "ostler.dev/prompt";
/// The key in that ConfigMap.
pub const PROMPT_KEY: &str = "prompt";
/// Annotation: the commit in which the object was last changed by the syncer.
pub const SOURCE_COMMIT: &str = "ostler.dev/source-commit";
/// Annotation by people: `disabled` leaves the object alone.
pub const RECONCILE: &str = "ostler.dev/reconcile";
/// Annotation by people on a `ConfigRepository`: the commit whose prune may pass the caps.
pub const ALLOW_PRUNE: &str = "ostler.dev/allow-prune";
/// Annotation by people: sync now; any new value counts.
pub const RECONCILE_REQUESTED_AT: &str = "ostler.dev/reconcile-requested-at";
/// The same, as Flux users know it.
pub const FLUX_REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";
/// Annotation on a Secret: what it may be used for, comma-separated (`git`, `route`, `env`, `forge`, `sign`).
pub const SECRET_USE: &str = "ostler.dev/use";
/// Annotation on a Secret: the hosts it may be sent to, comma-separated.
pub const SECRET_HOSTS: &str = "ostler.dev/hosts";
