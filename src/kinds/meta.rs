//! Labels, annotations, finalizers and field managers that ostler writes or reads.

use std::collections::BTreeMap;

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
/// Annotation by authors: `true` takes an object over that somebody else made or that another engine tracks.
pub const ADOPT: &str = "ostler.dev/adopt";
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

/// Another engine that applies objects from Git and deletes them when they leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Argo CD.
    ArgoCd,
    /// Flux.
    Flux,
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ArgoCd => "Argo CD",
            Self::Flux => "Flux",
        })
    }
}

/// Annotation of what Argo CD tracks. The label `app.kubernetes.io/instance` says so only together with it: Helm writes
/// that label, too.
const ARGO_TRACKING_ID: &str = "argocd.argoproj.io/tracking-id";
/// Label of what Argo CD tracks, where it was told to leave `app.kubernetes.io/instance` to others.
const ARGO_INSTANCE: &str = "argocd.argoproj.io/instance";
/// Labels that Flux' kustomize-controller and helm-controller put on what they apply.
const FLUX_LABELS: [&str; 4] = [
    "kustomize.toolkit.fluxcd.io/name",
    "kustomize.toolkit.fluxcd.io/namespace",
    "helm.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/namespace",
];

/// Which other engine says by these labels and annotations that it tracks the object.
#[must_use]
pub fn tracked_by(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Option<Engine> {
    if annotations.contains_key(ARGO_TRACKING_ID) || labels.contains_key(ARGO_INSTANCE) {
        return Some(Engine::ArgoCd);
    }
    FLUX_LABELS.iter().any(|label| labels.contains_key(*label)).then_some(Engine::Flux)
}
