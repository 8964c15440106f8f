//! `Agent`: how an agent is run.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::{Context, DurationField, DurationText, EnvVar, KeyRef, NameRef, Resources};

/// How an agent is run. A preset fills in what is left out.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ostler.dev",
    version = "v1alpha1",
    kind = "Agent",
    plural = "agents",
    shortname = "agt",
    category = "all",
    category = "ostler",
    namespaced,
    status = "AgentStatus",
    printcolumn(json_path = ".spec.preset", name = "Preset", type_ = "string"),
    printcolumn(json_path = ".spec.model.id", name = "Model", type_ = "string"),
    printcolumn(json_path = ".spec.image", name = "Image", type_ = "string", priority = 1),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.preset) && self.preset != 'command' || has(self.command)",
    "message": "a command is needed unless a preset brings one"
}]))]
pub struct AgentSpec {
    /// A known agent; default `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// The image; without a cluster the host's tools are used and this says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Secrets of the namespace with which the image is pulled; in a cluster only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<NameRef>,
    /// What to execute, instead of the preset's command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 8192)))]
    pub command: Vec<String>,
    /// Arguments after the command; for a preset, between its own flags and the prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 8192)))]
    pub args: Vec<String>,
    /// Where the workspace is seen; default `/workspace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^/[A-Za-z0-9._/-]+$"), length(max = 256))]
    pub workspace_dir: Option<String>,
    /// The model that a preset talks to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// Secrets that the agent itself gets. Discouraged: it can read them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub credentials: Vec<Credential>,
    /// Environment. Merged by name: Agent < run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    /// Limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Time limit of a run; default 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DurationText>")]
    pub timeout: Option<DurationField>,
    /// Policies of every run of this agent, added to the session's and the run's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub egress_policy_refs: Vec<NameRef>,
    /// Contexts of every run of this agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub contexts: Vec<Context>,
    /// Instructions, written to the file that the agent reads first (`AGENTS.md`, `CLAUDE.md`, `GEMINI.md`) when the
    /// repository has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub instructions: Option<String>,
    /// Settings that count only without a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Local>,
}

/// A known agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Claude Code.
    ClaudeCode,
    /// Codex CLI.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// opencode.
    Opencode,
    /// pi.
    Pi,
    /// Any program.
    Command,
}

/// The model that a preset talks to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    /// The model's id at its provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub id: Option<String>,
    /// Base URL of the model API; default: the provider's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^https?://"), length(max = 2048))]
    pub base_url: Option<String>,
    /// The protocol spoken there, where the agent speaks several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<ModelApi>,
}

/// A wire protocol of model APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModelApi {
    /// `OpenAI` Chat Completions.
    ChatCompletions,
    /// `OpenAI` Responses.
    Responses,
    /// Anthropic Messages.
    AnthropicMessages,
    /// Google Generative AI.
    GoogleGenerativeAi,
}

/// A secret that the agent gets, as a variable or as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.env) != has(self.mountPath)", "message": "exactly one of env and mountPath is needed"
}]))]
pub struct Credential {
    /// Its name, for status.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The Secret's key; the Secret must allow use `env`.
    pub secret_ref: KeyRef,
    /// The variable that gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"), length(max = 253))]
    pub env: Option<String>,
    /// The file that gets it (mode 0400), relative to the agent's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub mount_path: Option<String>,
}

/// Settings that count only without a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Local {
    /// Folders of the host that the agent sees, read-only, at the same path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 512)))]
    pub binds: Vec<String>,
}

/// What ostler says of an agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
