//! `ConfigRepository`: what to pull, whom to trust, where to record.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::{DurationField, DurationText, GitRef, KeyRef, NameRef};

/// A repository whose files are the desired state. It never comes out of a repository itself.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ostler.dev",
    version = "v1alpha1",
    kind = "ConfigRepository",
    plural = "configrepositories",
    shortname = "cfgrepo",
    category = "all",
    category = "ostler",
    namespaced,
    status = "ConfigRepositoryStatus",
    printcolumn(json_path = ".spec.url", name = "URL", type_ = "string"),
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
    printcolumn(json_path = ".status.lastApplied.commit", name = "Applied", type_ = "string"),
    printcolumn(json_path = ".status.lastApplied.objects", name = "Objects", type_ = "integer"),
    printcolumn(
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        name = "Status",
        type_ = "string",
        priority = 1
    ),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigRepositorySpec {
    /// Where it is: `https://`, `http://` (no credentials but on loopback); `file://` and a local path on one machine only.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// What to follow; default: the remote's default branch.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<GitRef>,
    /// The folder that holds the manifests; default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// Globs of files that count; default `**/*.yaml` and `**/*.yml`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 512)))]
    pub include: Vec<String>,
    /// Globs of files that do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 512)))]
    pub exclude: Vec<String>,
    /// How often to look, where no notice comes; default 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DurationText>")]
    pub interval: Option<DurationField>,
    /// Time limit of one fetch; default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DurationText>")]
    pub timeout: Option<DurationField>,
    /// True: nothing is fetched or applied, and no run of it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// The Secret with its credential: `username` and `password`, or `bearerToken`; `ca.crt`; for ssh `identity`, `passphrase` and `known_hosts`. It must allow use `git` and the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
    /// The Secret with the HTTP proxy: `address`, `username`, `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_secret_ref: Option<NameRef>,
    /// The service account of this object's namespace in whose name its objects are written, and whose rights count. Default: ostler itself, in this namespace only. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"), length(max = 63))]
    pub service_account_name: Option<String>,
    /// Namespaces that its files may name; default: this object's own. In a cluster others need `serviceAccountName`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub allowed_namespaces: Vec<String>,
    /// What files must keep to, beyond their schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Checks>,
    /// What may be deleted when files go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<Prune>,
    /// Where claims and results go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_back: Option<WriteBack>,
}

/// What files must keep to, beyond their schema.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checks {
    /// Code repositories that runs may clone and push to, as patterns: `https://git.example.com/shop/*` for one segment, `/**` for any below, `*.` for the first label of a host. An empty list allows none; default: any. Every run in the namespaces that this repository may write to is held to it, whoever made the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 2048)))]
    pub allowed_repositories: Option<Vec<String>>,
}

/// What may be deleted when files go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Prune {
    /// Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The most objects that one commit may delete; default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_count: Option<u32>,
    /// The greatest share of all objects that one commit may delete, counted above 10 objects; default 0.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_fraction: Option<f64>,
}

/// Where claims and results go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WriteBack {
    /// The ledger's repository; default: `spec.url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub url: Option<String>,
    /// The ledger's branch; default `ostler/results`. Never the followed branch of the same repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub branch: Option<String>,
    /// The Secret with the push credential; default: `spec.secretRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
    /// The Secret with the OpenSSH private key that signs; it must allow use `sign`. Default on one machine: the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key_ref: Option<KeyRef>,
    /// `allowed_signers` lines: whose entries in the ledger prove something. Default: our own key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 2048)))]
    pub ledger_signers: Vec<String>,
    /// `Git` (the default): no run starts before its claim is in the ledger. `Cluster`: at most once by this store alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimMode>,
    /// How long to gather entries for one commit; default 200ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DurationText>")]
    pub window: Option<DurationField>,
    /// How long to try to record a result; default 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DurationText>")]
    pub give_up_after: Option<DurationField>,
    /// Where bulk (patch, recording, bundle) goes: `Refs` (the default) or `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk: Option<Bulk>,
    /// Author of the commits; default `ostler <ostler@localhost>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
}

/// What makes a run start at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimMode {
    /// The ledger.
    Git,
    /// The store alone.
    Cluster,
}

/// Where bulk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Bulk {
    /// `refs/ostler/runs/<namespace>/<name>`.
    Refs,
    /// Nowhere.
    None,
}

/// A name and address on commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Author {
    /// The name.
    #[schemars(regex(pattern = "^[^<>\\n]+$"), length(min = 1, max = 253))]
    pub name: String,
    /// The address.
    #[schemars(regex(pattern = "^[^<>\\n ]+$"), length(min = 1, max = 253))]
    pub email: String,
}

impl ConfigRepositorySpec {
    /// The patterns of `checks.allowedRepositories`; none: every code repository is allowed.
    #[must_use]
    pub fn allowed_repositories(&self) -> Option<&[String]> {
        self.checks.as_ref()?.allowed_repositories.as_deref()
    }
}

/// What ostler says of a repository.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigRepositoryStatus {
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The commit fetched last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub last_fetched: Option<String>,
    /// What is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied: Option<Applied>,
    /// The ledger's tip; it may only grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub ledger_tip: Option<String>,
    /// Errors and warnings of files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub diagnostics: Vec<Diagnostic>,
    /// How many there are in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics_total: Option<i64>,
    /// Objects that are held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub held: Vec<Held>,
    /// How many there are in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_total: Option<i64>,
    /// The last five commits that were applied, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub history: Vec<AppliedAt>,
    /// The last value of the reconcile annotation that was acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_handled_reconcile_at: Option<String>,
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The commit.
    #[schemars(length(max = 40))]
    pub commit: String,
    /// How many objects it holds.
    pub objects: i64,
}

/// A commit and when it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedAt {
    /// The commit.
    #[schemars(length(max = 40))]
    pub commit: String,
    /// When it was first fully applied.
    pub time: Time,
}

/// One error or warning of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// The file.
    #[schemars(length(max = 1024))]
    pub path: String,
    /// Line, from 1.
    pub line: i64,
    /// Column, from 1.
    pub column: i64,
    /// A stable code.
    #[schemars(length(max = 63))]
    pub code: String,
    /// What is wrong and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// An object that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// `Kind namespace/name`.
    #[schemars(length(max = 253))]
    pub object: String,
    /// Why.
    #[schemars(length(max = 1024))]
    pub reason: String,
}
