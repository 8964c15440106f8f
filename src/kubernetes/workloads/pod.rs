//! A run as a pod. Pure.
//!
//! The pod passes the Pod Security Standard *restricted*. It names no Secret but those with which images are pulled, and
//! takes over no label or annotation of its run: what tracks a run would take its pod for a leftover, and delete it.

mod check;
mod containers;
mod volumes;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        LocalObjectReference, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, PodSecurityContext,
        PodSpec, SeccompProfile, VolumeResourceRequirements,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference},
    },
};
use sha2::{Digest, Sha256};

use super::PodSettings;
use crate::{
    harness::pod::{ANNOTATION, PodFile},
    kinds::{HarnessRun, Reason},
    names::Uid,
    ports::workloads::{Error, PlaceSpec, RunKey},
};

/// Keeps a pod visible until its UID is in its run's status.
pub(super) const FINALIZER: &str = "ostler.dev/place";
/// Label: what the pod is. The network policy of its namespace selects it by this.
pub(super) const ROLE: &str = "ostler.dev/role";
/// The role of pods of runs.
pub(super) const AGENT_ROLE: &str = "agent";
/// Label: the run's name.
pub(super) const RUN: &str = "ostler.dev/run";
/// Label: the run's UID.
pub(super) const RUN_UID: &str = "ostler.dev/run-uid";
/// Label: the session's name.
pub(super) const SESSION: &str = "ostler.dev/session";
/// Label of a claim: the UID of the session whose workspace it is.
pub(super) const SESSION_UID: &str = "ostler.dev/session-uid";
/// The one user and group of all containers; by custom that of images for whoever is not root.
const USER: i64 = 65532;
/// How long the result may take to be collected and delivered once the agent has ended, in seconds, when the pod is
/// deleted. The recorder may be away for a while.
const DELIVERY_SECONDS: u64 = 3600;
/// The most bytes of the annotation. An API server takes 256 KiB for all annotations of an object.
const MAX_ANNOTATION: usize = 192 << 10;
/// The most bytes of a pod's name, so that it is its host's name, too.
const MAX_NAME: usize = 63;

/// The pod's name, the same for the same run: an API server takes a name once.
#[must_use]
pub fn name(run: &RunKey) -> String {
    let digest = Sha256::digest(run.uid.as_str());
    let id = u64::from_be_bytes(std::array::from_fn(|byte| digest[byte])) >> 24;
    let id = format!("{id:010x}");
    let start = run.name.as_str();
    let start = &start[..start.floor_char_boundary(MAX_NAME - 1 - id.len())];
    format!("{}-{id}", start.trim_end_matches(['-', '.']))
}

/// The name of the claim of a session's workspace.
pub(super) fn claim_name(session: &Uid) -> String {
    format!("ostler-{session}")
}

/// The pod of a run.
///
/// # Errors
/// `Refused`, when a pod cannot be what the run asks for.
pub(super) fn compose(settings: &PodSettings, spec: &PlaceSpec, now: Timestamp) -> Result<Pod, Error> {
    check::check(spec)?;
    let file = PodFile {
        created_at: now,
        spec: spec.clone(),
        terminal: None,
        allow_unenforced: settings.allow_unenforced,
        allow_node_reach: settings.allow_node_reach,
        proof_seconds: settings.proof_seconds,
        proxy: settings.proxy.clone(),
        api_server: settings.api_server,
    };
    let annotation = annotation(&file)?;
    let image = spec.image.clone().ok_or_else(|| {
        let text = "a run in a cluster needs an image; write spec.image of its Agent";
        refused(spec, Reason::InvalidSpec, text.to_owned())
    })?;
    Ok(Pod {
        metadata: ObjectMeta {
            name: Some(name(&spec.run)),
            namespace: Some(spec.run.namespace.to_string()),
            labels: Some(labels(spec)),
            annotations: Some([(ANNOTATION.to_owned(), annotation)].into()),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            owner_references: Some(vec![owner(&spec.run)]),
            ..ObjectMeta::default()
        },
        spec: Some(pod_spec(settings, spec, image)),
        status: None,
    })
}

fn pod_spec(settings: &PodSettings, spec: &PlaceSpec, image: String) -> PodSpec {
    let wishes = &spec.pod;
    let pull: Vec<LocalObjectReference> = settings
        .pull_secrets
        .iter()
        .chain(&wishes.pull_secrets)
        .map(|name| LocalObjectReference { name: name.to_string() })
        .collect();
    let some = |list: Vec<_>| Some(list).filter(|list| !list.is_empty());
    PodSpec {
        init_containers: Some(vec![containers::install(settings), containers::sidecar(settings)]),
        containers: vec![containers::agent(spec, image)],
        volumes: Some(volumes::all(spec)),
        image_pull_secrets: some(pull),
        runtime_class_name: wishes.runtime_class.clone(),
        service_account_name: wishes.service_account.clone(),
        node_selector: Some(wishes.node_selector.clone()).filter(|labels| !labels.is_empty()),
        tolerations: Some(wishes.tolerations.clone()).filter(|list| !list.is_empty()),
        affinity: wishes.affinity.as_deref().cloned(),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: i64::try_from(spec.grace.as_secs() + DELIVERY_SECONDS).ok(),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            // a session's workspace is not gone through file by file before each run
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

fn labels(spec: &PlaceSpec) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (ROLE.to_owned(), AGENT_ROLE.to_owned()),
        (RUN.to_owned(), spec.run.name.to_string()),
        (RUN_UID.to_owned(), spec.run.uid.to_string()),
    ]);
    if let Some(session) = &spec.pod.session {
        labels.insert(SESSION.to_owned(), session.to_string());
    }
    labels
}

fn owner(run: &RunKey) -> OwnerReference {
    use kube::Resource;
    OwnerReference {
        api_version: HarnessRun::api_version(&()).into_owned(),
        kind: HarnessRun::kind(&()).into_owned(),
        name: run.name.to_string(),
        uid: run.uid.to_string(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn annotation(file: &PodFile) -> Result<String, Error> {
    let text = serde_json::to_string(file).expect("a place is plain data");
    if text.len() > MAX_ANNOTATION {
        let message = format!(
            "the run with its agent, contexts and prompt takes {} bytes; a pod can carry {MAX_ANNOTATION}: \
             move the longest text to a repository, as a context of type git",
            text.len()
        );
        return Err(refused(&file.spec, Reason::LimitExceeded, message));
    }
    Ok(text)
}

/// The claim of a session's own workspace.
pub(super) fn claim(spec: &PlaceSpec, session: &Uid) -> PersistentVolumeClaim {
    let bytes = spec.pod.workspace_bytes.unwrap_or(spec.limits.disk_bytes.value);
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim_name(session)),
            namespace: Some(spec.run.namespace.to_string()),
            labels: Some([(SESSION_UID.to_owned(), session.to_string())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: spec.pod.storage_class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(bytes.to_string()))].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn refused(spec: &PlaceSpec, reason: Reason, message: String) -> Error {
    Error::Refused { run: spec.run.clone(), reason, message }
}

#[cfg(test)]
mod tests;
