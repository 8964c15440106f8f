//! The Workloads port: one place per run.

mod place;
pub mod sidecar;
mod spec;

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    class::Class,
    kinds::Reason,
    names::{Namespace, ObjectName, Uid},
};

pub use place::{Place, Stage, Trouble};
pub use spec::{
    AGENT_HOME, Checkout, ContextContent, ContextFile, Limit, Limits, NamedPolicy, PROXY_URL, PlaceSpec,
    PodWishes, SecretKey,
};

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

    /// Opens a stream to the sidecar; what is spoken there is [`sidecar`].
    async fn open(&self, run: &Uid) -> Result<Box<dyn SidecarStream>, Error>;
}
