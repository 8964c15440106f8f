//! What a place is made from.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use serde::{Deserialize, Serialize};

use super::RunKey;
use crate::{
    kinds::{agent::Preset, egress_policy::EgressPolicySpec, shared::GitRef},
    names::{ObjectName, Uid},
};

/// The agent's home, as it sees it.
pub const AGENT_HOME: &str = "/home/agent";
/// The only way out, as the agent sees it.
pub const PROXY_URL: &str = "http://127.0.0.1:3128";

/// A secret by reference: it is resolved where the place is made, and never written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretKey {
    /// The Secret, of the run's namespace.
    pub secret: ObjectName,
    /// The key in it.
    pub key: String,
}

/// What really runs: everything merged and defaulted, every reference resolved but secrets. It is stored with the place
/// and does not change with the objects it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceSpec {
    /// The run.
    pub run: RunKey,
    /// Digest of the run as its author wrote it.
    pub digest: String,
    /// Who reads the agent's output.
    pub preset: Preset,
    /// What is executed, with all its arguments.
    pub command: Vec<String>,
    /// The agent's environment, in order; later wins.
    pub env: Vec<(String, String)>,
    /// Variables whose values are secrets.
    pub secret_env: Vec<(String, SecretKey)>,
    /// Files below the agent's home whose contents are secrets; mode 0400.
    pub secret_files: Vec<(String, SecretKey)>,
    /// Files below the agent's home: the agent's own configuration. Path and content.
    pub home_files: Vec<(String, String)>,
    /// Where the workspace is seen from inside; absolute.
    pub workspace_dir: String,
    /// Where the command starts, relative to the workspace; empty for its root.
    pub working_dir: String,
    /// Instructions, and the file that the agent reads first; written only if the checkout has none.
    pub instructions: Option<(String, String)>,
    /// What is checked out into the workspace.
    pub checkout: Option<Checkout>,
    /// Contexts, in order.
    pub contexts: Vec<ContextFile>,
    /// The policies in force at the start.
    pub egress: Vec<NamedPolicy>,
    /// Limits.
    pub limits: Limits,
    /// Time limit of the agent, counted from its start.
    #[serde(with = "seconds")]
    pub timeout: Duration,
    /// Between SIGTERM and SIGKILL.
    #[serde(with = "seconds")]
    pub grace: Duration,
    /// Files of the workspace to keep, with the most bytes of each.
    pub artifacts: Vec<(String, u64)>,
    /// The session's own workspace, by the session's UID; `None`: a fresh one that goes with the place.
    pub persistent_workspace: Option<Uid>,
    /// Folders of the host to show, read-only; without a cluster only.
    pub binds: Vec<String>,
    /// The container image; in a cluster only.
    pub image: Option<String>,
    /// What a pod gets besides; in a cluster only.
    #[serde(default)]
    pub pod: PodWishes,
}

/// What the pod of a run is asked for. Without a cluster it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodWishes {
    /// The session's name, for the pod's label.
    pub session: Option<ObjectName>,
    /// The `RuntimeClass`.
    pub runtime_class: Option<String>,
    /// The service account; `None`: the namespace's `default`.
    pub service_account: Option<String>,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that it may have.
    pub tolerations: Vec<Toleration>,
    /// Rules of scheduling.
    pub affinity: Option<Box<Affinity>>,
    /// Secrets with which the kubelet pulls the image.
    pub pull_secrets: Vec<ObjectName>,
    /// The class of the volume of a persistent workspace; `None`: the cluster's default.
    pub storage_class: Option<String>,
    /// Its size in bytes; `None`: the run's disk limit.
    pub workspace_bytes: Option<u64>,
}

/// A policy and its name, which denials tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedPolicy {
    /// The EgressPolicy's name.
    pub name: String,
    /// What it says.
    pub spec: EgressPolicySpec,
}

/// What is checked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkout {
    /// The repository, without credentials.
    pub url: String,
    /// What of it; `None`: its default branch.
    pub reference: Option<GitRef>,
    /// Commits of history; 0: all.
    pub depth: u32,
    /// The Secret with the clone credential.
    pub secret: Option<ObjectName>,
    /// The branch on which the agent works, so that its first `git commit` is not on a detached HEAD.
    pub branch: String,
}

/// A context as a file or folder of the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContextFile {
    /// Its name.
    pub name: String,
    /// Where, relative to the workspace.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// True: a failure to write it does not fail the run.
    pub optional: bool,
    /// What it holds.
    pub content: ContextContent,
}

/// What a context holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContextContent {
    /// Text.
    Text(String),
    /// A folder or file of a repository.
    Git {
        /// The repository; its branch is unused.
        checkout: Checkout,
        /// The folder or file; `None`: all.
        path: Option<String>,
    },
}

/// One limit, and whether its author insisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The value, in the unit of its field.
    pub value: u64,
    /// True: written by an author, so that it must be enforced or the run fails. False: our default.
    pub authored: bool,
}

/// Limits of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU, in thousandths of a core.
    pub cpu_millis: Limit,
    /// Memory, in bytes.
    pub memory_bytes: Limit,
    /// Workspace and temporary files together, in bytes.
    pub disk_bytes: Limit,
    /// Processes and threads.
    pub processes: Limit,
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(duration.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_secs(u64::deserialize(from)?))
    }
}
