//! The volumes of a pod, and who sees them where.

use k8s_openapi::{
    api::core::v1::{
        DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, ObjectFieldSelector,
        PersistentVolumeClaimVolumeSource, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume,
        VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::claim_name;
use crate::{
    harness::pod::{ANNOTATION, BIN, HOME, PLACE, SHARED, STATE, TMP, TOKEN_DIR, TOKENS, WORKSPACE},
    ports::workloads::{AGENT_HOME, PlaceSpec},
};

/// How long a token lives, in seconds; the kubelet makes a new one after four fifths of it. An API server gives none for
/// less than 600.
const TOKEN_SECONDS: i64 = 3600;
/// Room for the program.
const BIN_BYTES: u64 = 256 << 20;
/// Room for the shim's socket.
const SHARED_BYTES: u64 = 1 << 20;
/// Room for what the sidecar keeps until it is acknowledged: output, recording, artifacts and commits.
pub(super) const STATE_BYTES: u64 = 4 << 30;

/// The kubelet's limit, above the sidecar's own: a pod that the kubelet evicts takes its result along.
pub(super) fn headroom(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 4).saturating_add(256 << 20)
}

pub(super) fn all(spec: &PlaceSpec) -> Vec<Volume> {
    let disk = headroom(spec.limits.disk_bytes.value);
    let workspace = match &spec.persistent_workspace {
        None => folder("workspace", disk),
        Some(session) => Volume {
            name: "workspace".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(session),
                read_only: None,
            }),
            ..Volume::default()
        },
    };
    vec![
        folder("bin", BIN_BYTES),
        folder("shared", SHARED_BYTES),
        folder("state", STATE_BYTES),
        workspace,
        folder("home", disk),
        folder("tmp", disk),
        place(),
        tokens(),
    ]
}

pub(super) fn of_install() -> Vec<VolumeMount> {
    vec![seen("bin", BIN)]
}

pub(super) fn of_sidecar() -> Vec<VolumeMount> {
    vec![
        seen("shared", SHARED),
        seen("state", STATE),
        seen("workspace", WORKSPACE),
        seen("home", HOME),
        seen("tmp", TMP),
        read_only("place", PLACE),
        read_only("tokens", TOKEN_DIR),
    ]
}

pub(super) fn of_agent(spec: &PlaceSpec) -> Vec<VolumeMount> {
    vec![
        read_only("bin", BIN),
        read_only("shared", SHARED),
        seen("workspace", &spec.workspace_dir),
        seen("home", AGENT_HOME),
        seen("tmp", "/tmp"),
    ]
}

fn folder(name: &str, bytes: u64) -> Volume {
    let empty_dir = EmptyDirVolumeSource { medium: None, size_limit: Some(Quantity(bytes.to_string())) };
    Volume { name: name.to_owned(), empty_dir: Some(empty_dir), ..Volume::default() }
}

fn place() -> Volume {
    let field_ref = ObjectFieldSelector {
        api_version: None,
        field_path: format!("metadata.annotations['{ANNOTATION}']"),
    };
    let file = DownwardAPIVolumeFile {
        path: "place.json".to_owned(),
        field_ref: Some(field_ref),
        ..DownwardAPIVolumeFile::default()
    };
    Volume {
        name: "place".to_owned(),
        downward_api: Some(DownwardAPIVolumeSource { items: Some(vec![file]), default_mode: None }),
        ..Volume::default()
    }
}

fn tokens() -> Volume {
    let token = |audience: &str| VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(audience.to_owned()),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: audience.to_owned(),
        }),
        ..VolumeProjection::default()
    };
    let sources = Some(TOKENS.map(token).to_vec());
    Volume {
        name: "tokens".to_owned(),
        projected: Some(ProjectedVolumeSource { default_mode: None, sources }),
        ..Volume::default()
    }
}

fn seen(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn read_only(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..seen(volume, path) }
}
