//! `Session`: a unit of work.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Phase,
    shared::{CodeRepository, Context, NameRef, QuantityText},
};

/// A unit of work: a repository, a workspace and defaults for its runs.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ostler.dev",
    version = "v1alpha1",
    kind = "Session",
    plural = "sessions",
    shortname = "ses",
    category = "all",
    category = "ostler",
    namespaced,
    status = "SessionStatus",
    printcolumn(json_path = ".spec.agentRef.name", name = "Agent", type_ = "string"),
    printcolumn(
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        name = "Ready",
        type_ = "string"
    ),
    printcolumn(
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        name = "Reason",
        type_ = "string"
    ),
    printcolumn(json_path = ".status.activeRuns", name = "Active", type_ = "integer"),
    printcolumn(json_path = ".status.lastRun.name", name = "Last run", type_ = "string"),
    printcolumn(json_path = ".status.lastRun.phase", name = "Phase", type_ = "string"),
    printcolumn(json_path = ".spec.repository.url", name = "Repository", type_ = "string", priority = 1),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionSpec {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub display_name: Option<String>,
    /// The agent of runs that name none; default: the namespace's agent `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_ref: Option<NameRef>,
    /// The repository of runs that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<CodeRepository>,
    /// Where the runs work; default ephemeral.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// The `ConfigRepository` whose ledger records the runs; default: the one the session came from, else the namespace's only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_ref: Option<NameRef>,
    /// Policies of every run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub egress_policy_refs: Vec<NameRef>,
    /// Contexts of every run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub contexts: Vec<Context>,
    /// True: no run starts; what runs goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// How many runs at once; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrent_runs: Option<u32>,
    /// Default of its runs' `ttlSecondsAfterFinished`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// Where runs work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.retain) || (has(self.type) && self.type == 'Persistent')",
    "message": "retain counts only for a Persistent workspace"
}]))]
pub struct Workspace {
    /// `Ephemeral` (the default): a fresh one for each run. `Persistent`: one for the session.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<WorkspaceType>,
    /// Its size; default: the run's disk limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<QuantityText>")]
    pub size: Option<String>,
    /// The `StorageClass` of a persistent workspace's volume; default: the cluster's own. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"), length(max = 253))]
    pub storage_class_name: Option<String>,
    /// What becomes of a persistent workspace with its session; default `Delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<Retain>,
}

/// How long a workspace lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WorkspaceType {
    /// As long as the run.
    Ephemeral,
    /// As long as the session.
    Persistent,
}

/// What becomes of a persistent workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retain {
    /// It goes with the session.
    Delete,
    /// It stays.
    Retain,
}

/// What ostler says of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Runs that hold a slot of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_runs: Option<i64>,
    /// The run that started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
}

/// The run that started last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// Its name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Its phase.
    pub phase: Phase,
}
