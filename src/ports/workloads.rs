//! The Workloads port: one place per run.

use std::{collections::BTreeMap, fmt, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{Affinity, Toleration};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    class::Class,
    kinds::{
        Phase, Reason,
        agent::Preset,
        egress_policy::EgressPolicySpec,
        harness_run::{EgressSeen, Startup},
        shared::GitRef,
    },
    names::{CommitId, Namespace, ObjectName, Uid},
};

/// The agent's home, as it sees it.
pub const AGENT_HOME: &str = "/home/agent";
/// The only way out, as the agent sees it.
pub const PROXY_URL: &str = "http://127.0.0.1:3128";

/// Which run, and which of that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunKey {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: ObjectName,
    /// Its UID.
    pub uid: Uid,
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

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

/// How far a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// It exists; nothing is proven or cloned yet.
    Created,
    /// The way out is proven closed; the workspace is being written.
    Preparing,
    /// The agent runs.
    Running,
    /// The agent has ended; its result is being collected.
    Collecting,
    /// The result waits for its acknowledgement.
    Delivering,
    /// The result is acknowledged; all processes have ended.
    Released,
    /// The processes are gone and no result was acknowledged.
    Vanished,
}

/// What is seen of a place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The run it belongs to.
    pub run: RunKey,
    /// Its own UID.
    pub uid: Uid,
    /// Its name: of the pod, or of the folder.
    pub name: String,
    /// The machine.
    pub node: Option<String>,
    /// How far it is.
    pub stage: Stage,
    /// False: nothing of it has run yet, so that it can be taken back as if it had never been asked for.
    pub begun: bool,
    /// What is in its way, if anything.
    pub trouble: Option<Trouble>,
    /// True once [`Workloads::confirm`] was called: its UID is in the run's status.
    pub confirmed: bool,
    /// When the agent was started.
    pub started_at: Option<jiff::Timestamp>,
    /// When it ended.
    pub ended_at: Option<jiff::Timestamp>,
    /// Steps of the start that the place knows (`egressProvenMs`, `clonedMs`, `firstOutputMs`).
    pub startup: Startup,
    /// The policies in force.
    pub policies: Vec<NamedPolicy>,
    /// What the proof of egress said; `None` before.
    pub egress_proven: Option<String>,
    /// Limits that are not enforced, by name; `None` before that is known.
    pub limits_not_enforced: Option<Vec<String>>,
    /// What the proxy saw so far.
    pub egress: EgressSeen,
    /// The commit that was checked out.
    pub base: Option<CommitId>,
    /// Why its result is not acknowledged yet, once that was tried.
    pub delivery_error: Option<String>,
}

/// What keeps a place from getting on, or ended it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// As a reason of the run.
    pub reason: Reason,
    /// For people, with the words of whoever noticed.
    pub message: String,
    /// The phase in which the run ends, because no result will come; `None`: it may pass by itself.
    pub ends: Option<Phase>,
}

/// Why the agent is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// `stop: true`.
    StopRequested,
    /// The run's file left the repository, or its object is being deleted.
    Removed,
}

impl StopReason {
    /// The same, as a reason of the run.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::StopRequested => Reason::StopRequested,
            Self::Removed => Reason::Removed,
        }
    }
}

/// A stream to a sidecar.
pub trait SidecarStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> SidecarStream for T {}

/// Why an operation on a place failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no place for that run.
    #[error("there is no place for run {0}")]
    NotFound(RunKey),
    /// The place cannot be made as specified; trying again changes nothing.
    #[error("the place of run {run} cannot be made: {message}")]
    Refused {
        /// The run.
        run: RunKey,
        /// Why, as a reason of the run.
        reason: Reason,
        /// What to do about it.
        message: String,
    },
    /// Something of the machine or cluster is in the way.
    #[error("the place of run {run} cannot be reached: {what}")]
    Unavailable {
        /// The run.
        run: RunKey,
        /// Which step.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound(_) => Class::Conflict,
            Self::Refused { .. } => Class::Invalid,
            Self::Unavailable { .. } => Class::Transient,
        }
    }
}

/// Places of runs.
///
/// # Guarantees
/// * A place is made at most once per run UID, whoever asks and however often.
/// * A place that was made and is not confirmed stays visible, dead or alive, until it is removed: so "never created" and
///   "vanished" are told apart.
/// * The agent starts only after the way out was proven closed and the workspace written.
/// * The sidecar delivers one report to the recorder, whatever happened, and keeps it until it is acknowledged.
#[async_trait]
pub trait Workloads: Send + Sync + 'static {
    /// Makes the place, or finds the one that exists. Secrets are resolved here.
    async fn ensure(&self, spec: &PlaceSpec) -> Result<Place, Error>;

    /// Looks at one place; `None` when there never was one, or it was removed.
    async fn observe(&self, run: &Uid) -> Result<Option<Place>, Error>;

    /// Looks at one place past any cache: for who would conclude something from there being none.
    async fn find(&self, run: &RunKey) -> Result<Option<Place>, Error> {
        self.observe(&run.uid).await
    }

    /// Looks at all places.
    async fn list(&self) -> Result<Vec<Place>, Error>;

    /// Runs whose places changed. A hint to look again: changes may be merged.
    fn changes(&self) -> BoxStream<'static, RunKey>;

    /// Lets the place go without a trace once it ends: its UID is in the run's status.
    async fn confirm(&self, run: &Uid) -> Result<(), Error>;

    /// Ends the agent: SIGTERM, grace, SIGKILL. The result is still collected and delivered. Does nothing when the agent
    /// has ended.
    async fn stop(&self, run: &Uid, reason: StopReason) -> Result<(), Error>;

    /// Replaces the policies of a running place; they count for new connections.
    async fn update_egress(&self, run: &Uid, policies: &[NamedPolicy]) -> Result<(), Error>;

    /// Removes the place and everything of it, ending what still runs. Does nothing when there is none.
    async fn remove(&self, run: &Uid) -> Result<(), Error>;

    /// Removes a session's persistent workspace. Does nothing when there is none.
    async fn remove_workspace(&self, session: &Uid) -> Result<(), Error>;

    /// Opens a stream to the sidecar; what is spoken there is [`crate::ports::workloads::sidecar`].
    async fn open(&self, run: &Uid) -> Result<Box<dyn SidecarStream>, Error>;
}

/// What is spoken with a sidecar, after a place exists: one JSON request line, then the answer.
pub mod sidecar {
    use serde::{Deserialize, Serialize};

    /// A request for the agent's output, from a byte offset on.
    ///
    /// The answer is the bytes themselves. With `follow` the stream stays open until the agent's output ends.
    #[derive(Debug, Clone, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct LogsRequest {
        /// The first byte wanted, counted from the start of the output; earlier than what is kept means the oldest kept.
        pub since: u64,
        /// True: go on until the output ends.
        pub follow: bool,
    }

    /// One request.
    #[derive(Debug, Clone, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub enum Request {
        /// The agent's output.
        Logs(LogsRequest),
    }
}
