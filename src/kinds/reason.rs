//! Phases and reasons: closed lists, the same words in conditions, events, metrics and results.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Something that it needs is missing.
    Pending,
    /// It waits for its turn, or for its claim.
    Queued,
    /// A doubt stops it: nothing happens until the doubt is gone.
    Held,
    /// Its place is being prepared.
    Starting,
    /// The agent works.
    Running,
    /// The agent has ended; its result is being collected and recorded.
    Collecting,
    /// Done, by the authoritative source.
    Succeeded,
    /// Ended without success.
    Failed,
    /// Ended by request.
    Stopped,
    /// Ended by its time limit.
    TimedOut,
    /// Nobody knows how it ended.
    Lost,
}

impl Phase {
    /// Every phase, in the order of a run's life.
    pub const ALL: [Self; 11] = [
        Self::Pending,
        Self::Queued,
        Self::Held,
        Self::Starting,
        Self::Running,
        Self::Collecting,
        Self::Succeeded,
        Self::Failed,
        Self::Stopped,
        Self::TimedOut,
        Self::Lost,
    ];

    /// True for a phase that never changes again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped | Self::TimedOut | Self::Lost)
    }

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Queued => "Queued",
            Self::Held => "Held",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Collecting => "Collecting",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Stopped => "Stopped",
            Self::TimedOut => "TimedOut",
            Self::Lost => "Lost",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Why something stands as it does. A closed list: what is not here cannot be said.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Reason { $($(#[$doc])* $name),* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    // === dependencies (Pending) ===
    /// The session that the run names does not exist.
    SessionNotFound,
    /// No agent is named, or it does not exist.
    AgentNotFound,
    /// An egress policy that is named does not exist.
    EgressPolicyNotFound,
    /// A ConfigMap or key that is named does not exist.
    ConfigMapNotFound,
    /// A Secret or key that is named does not exist.
    SecretNotFound,
    /// A Secret exists but its annotations do not allow this use or host.
    SecretNotAllowed,
    /// A code repository of the run is none of those that a `ConfigRepository` allows.
    RepositoryNotAllowed,
    /// The prompt is a path, and no syncer made it a ConfigMap.
    PromptNeedsSyncer,
    /// The session, or the repository it comes from, is suspended.
    Suspended,
    /// The spec cannot be carried out as written; the message says what to change.
    InvalidSpec,
    // === waiting (Queued) ===
    /// The session runs as many runs as it allows.
    SessionBusy,
    /// The claim is on its way to the ledger.
    ClaimRequested,
    // === doubt (Held) ===
    /// The ledger cannot be read or written.
    LedgerUnavailable,
    /// The ledger has an entry for this name that nobody trusted has signed.
    LedgerUntrusted,
    /// The ledger does not descend from the tip that was seen before.
    LedgerRewritten,
    // === on its way ===
    /// The object was just seen.
    Progressing,
    /// The place is being made.
    PlaceRequested,
    /// The repository is being cloned and the workspace written.
    PreparingWorkspace,
    /// The agent runs.
    AgentRunning,
    /// The result is being collected.
    CollectingResult,
    /// The result is being recorded.
    RecordingResult,
    /// Everything is as it should be.
    Ready,
    // === terminal ===
    /// The agent ended and its final record says success.
    Completed,
    /// The agent ended with a code other than 0.
    NonZeroExit,
    /// The agent's final record says failure, or there is none where one is due.
    AgentReportedFailure,
    /// The model refused the credential (401 or 403).
    ModelUnauthorized,
    /// The model answered with an error.
    ModelError,
    /// The agent ended without its final record.
    NoFinalRecord,
    /// A commit or a person asked for the end.
    StopRequested,
    /// Its file left the repository while it ran.
    Removed,
    /// The run's time limit passed.
    TimeLimit,
    /// The memory limit was passed.
    OutOfMemory,
    /// The disk limit was passed.
    DiskLimit,
    /// The process limit was passed.
    ProcessLimit,
    /// The command does not exist or cannot be executed in the place.
    CommandNotFound,
    /// The place could not be made.
    PlaceFailed,
    /// The image does not exist, or cannot be pulled.
    ImageUnavailable,
    /// No node of the cluster takes the pod.
    Unschedulable,
    /// The program could not be put into the pod.
    InstallFailed,
    /// The namespace's quota is used up.
    QuotaExceeded,
    /// A policy or webhook of the cluster refuses the pod.
    AdmissionRefused,
    /// The kubelet or somebody with the right to it evicted the pod.
    Evicted,
    /// The node went, and the pod with it.
    NodeLost,
    /// The sidecar passed its memory limit.
    SidecarOutOfMemory,
    /// The pod passed a deadline that somebody else gave it.
    PlaceDeadline,
    /// Somebody deleted the pod.
    PlaceDeleted,
    /// A limit that the author wrote cannot be enforced on this machine.
    LimitNotEnforceable,
    /// The repository could not be cloned.
    CloneFailed,
    /// The credential for the repository was refused.
    CloneUnauthorized,
    /// A context could not be written.
    ContextFailed,
    /// The way out is not closed: the agent was not started.
    EgressNotEnforced,
    /// The way out is closed but for the pod's own node, which was not allowed.
    NodeReachable,
    /// The pod was told to end before the agent had ended: a drain, an eviction or a deletion.
    Drained,
    /// No controller came back for ten minutes.
    ControllerGone,
    /// The place vanished before its result was acknowledged.
    ResultUnavailable,
    /// Another control plane claimed this name and has not recorded a result.
    ClaimedElsewhere,
    /// This name was used by another run of this control plane.
    NameUsed,
    /// Taken from the ledger: this name has run before.
    Recorded,
    /// The spec changed after the run was claimed; it is not run again.
    SpecChangedAfterRun,
    // === recording ===
    /// The run has no repository to be recorded in.
    NoRepository,
    /// The result was given up, after `giveUpAfter` or because its repository is gone.
    Abandoned,
    /// The ledger's remote refuses our push.
    PushRefused,
    /// The code branch was pushed.
    BranchPushed,
    /// Nothing was asked to be pushed.
    PushNotRequested,
    /// The agent made no change.
    NoChanges,
    /// The push would touch protected paths, and was withheld.
    ProtectedPath,
    /// The branch exists and does not lead to the new commits.
    BranchDiverged,
    /// The branch's name is not allowed.
    BranchRefused,
    /// The agent's commits are not acceptable.
    BundleRefused,
    // === repositories and sync ===
    /// The repository was read and applied.
    Succeeded,
    /// The repository could not be fetched.
    FetchFailed,
    /// The credential was refused.
    AuthenticationFailed,
    /// A cap on bytes, files or objects was passed.
    LimitExceeded,
    /// Some files have errors; the rest is applied.
    SomeFilesFailed,
    /// Objects are held; nothing of them was changed.
    ObjectsHeld,
    /// More objects would be pruned than the caps allow.
    PruneHeld,
    /// The tree holds no objects; nothing is pruned.
    EmptyTree,
    /// History was rewritten.
    HistoryRewritten,
    /// Commits are not verified: no signers were given.
    NotVerified,
    /// The ledger is this repository's own branch and is writable.
    LedgerReady,
    /// Active runs use the session.
    SessionInUse,
    /// Two writers fight over the object.
    Contested,
    /// Another engine applies the object from Git.
    TrackedElsewhere,
    // === places ===
    /// Every limit is enforced.
    LimitsEnforced,
    /// Some default limits are not enforced; the message lists them.
    LimitsNotEnforced,
    /// The way out was probed and is closed.
    EgressProven,
    /// The model's key is in the agent's environment.
    ModelKeyInPod,
    /// The image has no digest.
    ImageNotPinned,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_everywhere() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
