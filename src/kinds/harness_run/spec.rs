//! What is asked of a run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HarnessRunStatus;
use crate::kinds::shared::{
    CodeRepository, Context, DurationField, DurationText, EnvVar, KeyRef, NameRef, QuantityText, Resources,
};

/// One execution of an agent. It starts at most once; its result is recorded in Git.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ostler.dev",
    version = "v1alpha1",
    kind = "HarnessRun",
    plural = "harnessruns",
    shortname = "hrun",
    category = "all",
    category = "ostler",
    namespaced,
    status = "HarnessRunStatus",
    selectable = ".spec.sessionRef.name",
    selectable = ".status.phase",
    printcolumn(json_path = ".spec.sessionRef.name", name = "Session", type_ = "string"),
    printcolumn(json_path = ".status.phase", name = "Phase", type_ = "string"),
    printcolumn(json_path = ".status.reason", name = "Reason", type_ = "string"),
    printcolumn(json_path = ".status.startTime", name = "Started", type_ = "date"),
    printcolumn(json_path = ".status.completionTime", name = "Finished", type_ = "date"),
    printcolumn(json_path = ".status.changes.branch", name = "Branch", type_ = "string", priority = 1),
    printcolumn(json_path = ".status.result.commit", name = "Result", type_ = "string", priority = 1),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HarnessRunSpec {
    /// The session; absent: one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_ref: Option<NameRef>,
    /// The agent; default: the session's, then the namespace's agent `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_ref: Option<NameRef>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// What to execute, instead of the agent's command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 8192)))]
    pub command: Vec<String>,
    /// Arguments, instead of the agent's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 8192)))]
    pub args: Vec<String>,
    /// Where the command starts, relative to the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub working_dir: Option<String>,
    /// The repository; default: the session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<CodeRepository>,
    /// Where the worktree starts; default `Ref`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<StartFrom>,
    /// Contexts, besides the agent's and the session's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub contexts: Vec<Context>,
    /// Environment, over the agent's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    /// Policies, besides the agent's and the session's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub egress_policy_refs: Vec<NameRef>,
    /// Limits, over the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Time limit; default: the agent's, then 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DurationText>")]
    pub timeout: Option<DurationField>,
    /// The `RuntimeClass` of its pod, such as one of a sandbox. In a cluster only, like all of the next four.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"), length(max = 253))]
    pub runtime_class_name: Option<String>,
    /// The service account of its pod; default: `default`. The agent never gets its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"), length(max = 253))]
    pub service_account_name: Option<String>,
    /// Labels that its node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that its node may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Rules of its pod's scheduling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Box<Affinity>>,
    /// True stops the run: grace, collect, record. Taking it back does nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<bool>,
    /// What becomes of the agent's work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultSpec>,
    /// Removes the object this long after its end; the ledger keeps the record. Default: the session's, else never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// What to do; at most one source of the prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.prompt) != has(self.promptFrom)", "message": "exactly one of prompt and promptFrom is needed"
}]))]
pub struct Task {
    /// The prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub prompt: Option<String>,
    /// Where the prompt is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_from: Option<PromptFrom>,
}

/// Where the prompt is; exactly one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.path) != has(self.configMapKeyRef)",
    "message": "exactly one of path and configMapKeyRef is needed"
}]))]
pub struct PromptFrom {
    /// A file of the config repository, from its root; at most 64 KiB. The syncer makes it an immutable ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

/// Where the worktree starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StartFrom {
    /// At the repository's ref.
    Ref,
    /// At the code branch of the session's last run.
    PreviousRun,
}

/// What becomes of the agent's work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResultSpec {
    /// Push the agent's commits; absent: they are kept in the record as a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<Push>,
    /// Files of the workspace to keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub artifacts: Vec<Artifact>,
}

/// Where the agent's commits go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Push {
    /// The branch, below `ostler/`; `{namespace}` and `{run}` are replaced. Default `ostler/{namespace}/{run}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^ostler/[A-Za-z0-9._/{}-]+$"), length(max = 200))]
    pub branch: Option<String>,
    /// The Secret with the push credential; default: the repository's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
}

/// A file of the workspace to keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Artifact {
    /// The file, relative to the workspace.
    #[schemars(length(min = 1, max = 512))]
    pub path: String,
    /// More is cut off, and said; default 1Mi, at most 16Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<QuantityText>")]
    pub max_bytes: Option<String>,
}
