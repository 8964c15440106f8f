//! What a sidecar says of its run, and what that means.
//!
//! The report is the first file (`report.json`) of a tar stream; bulk files follow it: [`BULK`]. Its digest over the
//! whole stream makes the intake idempotent.

use serde::{Deserialize, Serialize};

use crate::{
    kinds::{
        Phase, Reason,
        harness_run::{EgressSeen, Startup, Usage},
    },
    names::{CommitId, RepoPath},
    ports::workloads::{RunKey, StopReason},
};

/// The report's name in the stream.
pub const REPORT: &str = "report.json";
/// The agent's commits as a git bundle (v2) with `base` as its prerequisite.
pub const BUNDLE: &str = "changes.bundle";
/// The difference between `base` and `head` as text.
pub const PATCH: &str = "changes.patch";
/// What the agent wrote, both streams in order.
pub const OUTPUT: &str = "output.log";
/// The most bytes of [`OUTPUT`]: 64 MiB as they came, the last of what came after them, and a line between.
pub const OUTPUT_BYTES: u64 = 80 << 20;
/// The terminal as asciicast v2.
pub const RECORDING: &str = "recording.cast";
/// Folder of artifacts.
pub const ARTIFACTS: &str = "artifacts/";
/// The bulk files, in the order of the stream; each may be missing.
pub const BULK: [&str; 4] = [BUNDLE, PATCH, OUTPUT, RECORDING];
/// The most bytes of a whole delivery.
pub const DELIVERY_BYTES: u64 = 512 << 20;

/// The most bytes of one file of a delivery; `None` for a name that is none of ours.
#[must_use]
pub fn most_bytes(name: &str) -> Option<u64> {
    match name {
        REPORT => Some(1 << 20),
        BUNDLE => Some(256 << 20),
        OUTPUT => Some(OUTPUT_BYTES),
        PATCH | RECORDING => Some(64 << 20),
        _ => name.strip_prefix(ARTIFACTS).and_then(|path| path.parse::<RepoPath>().ok()).map(|_| 16 << 20),
    }
}

/// A number of bytes for people; what is not a whole number of MiB is rounded up.
#[must_use]
pub fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// What a sidecar says of its run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The run.
    pub run: RunKey,
    /// The place's UID.
    pub place: String,
    /// Digest of the run as its author wrote it.
    pub digest: String,
    /// How it ended, as the agent's PID 1 saw it: the authoritative source.
    pub end: End,
    /// What the agent's final record said: the agent's word.
    pub record: FinalRecord,
    /// When the agent was started.
    pub started_at: Option<jiff::Timestamp>,
    /// When it ended.
    pub ended_at: Option<jiff::Timestamp>,
    /// Steps of the start.
    pub startup: Startup,
    /// What the proof of egress said.
    pub egress_proof: Option<String>,
    /// What the proxy saw.
    pub egress: EgressSeen,
    /// Limits that were not enforced.
    pub limits_not_enforced: Vec<String>,
    /// What the agent changed: the workspace's word.
    pub changes: ChangesSeen,
    /// What went wrong in collecting, for people.
    pub notes: Vec<String>,
    /// Artifacts that were asked for, in order.
    pub artifacts: Vec<ArtifactSeen>,
    /// Files that are not delivered with this, and why, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undelivered: Vec<String>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    /// The agent was never started.
    NotStarted {
        /// Why.
        reason: Reason,
        /// What to do.
        message: String,
    },
    /// The agent ended by itself.
    Exited {
        /// Its exit code; 128 + n for signal n.
        code: i32,
    },
    /// It was ended by request.
    Stopped {
        /// By whom.
        by: StopReason,
        /// Its exit code.
        code: i32,
    },
    /// It was ended by its time limit.
    TimedOut {
        /// Its exit code.
        code: i32,
    },
    /// It was ended because it passed a limit, or because nobody looked after it.
    Ended {
        /// `OutOfMemory`, `DiskLimit`, `ProcessLimit`, `ControllerGone`, `Drained` or `PlaceFailed`.
        reason: Reason,
        /// Which value was passed.
        message: String,
        /// Its exit code.
        code: i32,
    },
}

impl End {
    /// The agent's exit code, if it was started.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::NotStarted { .. } => None,
            Self::Exited { code }
            | Self::Stopped { code, .. }
            | Self::TimedOut { code }
            | Self::Ended { code, .. } => Some(*code),
        }
    }
}

/// What the agent's final record said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FinalRecord {
    /// Its verdict; `None`: the agent has no such record, and its exit code decides.
    pub verdict: Option<Verdict>,
    /// Its summary, at most 16 KiB.
    pub summary: String,
    /// Tokens and money.
    pub usage: Option<Usage>,
    /// The agent's own session.
    pub session: Option<String>,
}

/// The verdict of a final record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Success.
    Succeeded,
    /// Failure.
    Failed {
        /// Why: `AgentReportedFailure`, `ModelError` or `ModelUnauthorized`.
        reason: Reason,
        /// The agent's words.
        message: String,
    },
    /// There should be a record, and there is none.
    Missing,
}

/// What the agent changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangesSeen {
    /// The commit that it started from.
    pub base: Option<CommitId>,
    /// Its last commit; equal to `base` when there are no changes.
    pub head: Option<CommitId>,
    /// How many commits lie between.
    pub commits: u32,
    /// Files changed.
    pub files: u64,
    /// Lines added.
    pub additions: u64,
    /// Lines removed.
    pub deletions: u64,
}

/// An artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactSeen {
    /// Its path in the workspace.
    pub path: String,
    /// Bytes kept; `None`: there is no such file.
    pub bytes: Option<u64>,
    /// True: it was longer.
    pub cut: bool,
}

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// A terminal phase.
    pub phase: Phase,
    /// Why.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

/// Decides the outcome. Success needs both: exit code 0 as PID 1 saw it, and a final record that does not deny it.
#[must_use]
pub fn outcome(report: &Report) -> Outcome {
    ended(&report.end, &report.record)
}

fn ended(end: &End, record: &FinalRecord) -> Outcome {
    let of = |phase, reason, message: String| Outcome { phase, reason, message };
    match end {
        End::Stopped { by, .. } => {
            of(Phase::Stopped, by.reason(), "the agent was stopped by request".to_owned())
        }
        End::TimedOut { .. } => {
            of(Phase::TimedOut, Reason::TimeLimit, "the agent was ended by its time limit".to_owned())
        }
        End::NotStarted { reason: reason @ (Reason::StopRequested | Reason::Removed), message } => {
            of(Phase::Stopped, *reason, message.clone())
        }
        End::NotStarted { reason, message } | End::Ended { reason, message, .. } => {
            of(Phase::Failed, *reason, message.clone())
        }
        End::Exited { code } => exited(*code, record),
    }
}

fn exited(code: i32, record: &FinalRecord) -> Outcome {
    let of = |phase, reason, message: String| Outcome { phase, reason, message };
    match (code, &record.verdict) {
        (_, Some(Verdict::Failed { reason, message })) => of(Phase::Failed, *reason, message.clone()),
        (0, Some(Verdict::Missing)) => of(
            Phase::Failed,
            Reason::NoFinalRecord,
            "the agent exited with 0 but wrote no final record".to_owned(),
        ),
        (0, _) => of(Phase::Succeeded, Reason::Completed, "the agent completed its task".to_owned()),
        (126 | 127, _) => of(
            Phase::Failed,
            Reason::CommandNotFound,
            format!("the command could not be executed (exit code {code})"),
        ),
        (code, _) => of(Phase::Failed, Reason::NonZeroExit, format!("the agent exited with code {code}")),
    }
}

/// A report and its bulk, taken in and checked, as they lie in a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The report.
    pub report: Report,
    /// SHA-256 over the whole stream, hexadecimal: the same delivery again has the same.
    pub digest: String,
    /// The folder with the bulk files, by the names of the stream.
    pub folder: std::path::PathBuf,
    /// The bulk files that are there, in the order of the stream, with their lengths.
    pub files: Vec<(String, u64)>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// It is recorded for good; the sidecar may let go.
    Recorded,
    /// Not yet: ask again.
    Waiting,
    /// The run does not exist any more, or is another one of the same name.
    OtherRun,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(code: i32, verdict: Option<Verdict>) -> (Phase, Reason) {
        let outcome = exited(code, &FinalRecord { verdict, ..FinalRecord::default() });
        (outcome.phase, outcome.reason)
    }

    #[test]
    fn who_ended_it_decides() {
        let not_started = |reason| End::NotStarted { reason, message: "m".into() };
        let cases = [
            (not_started(Reason::StopRequested), Phase::Stopped, Reason::StopRequested),
            (not_started(Reason::Removed), Phase::Stopped, Reason::Removed),
            (not_started(Reason::ControllerGone), Phase::Failed, Reason::ControllerGone),
            (not_started(Reason::SecretNotFound), Phase::Failed, Reason::SecretNotFound),
            (End::Stopped { by: StopReason::Removed, code: 0 }, Phase::Stopped, Reason::Removed),
            (End::TimedOut { code: 143 }, Phase::TimedOut, Reason::TimeLimit),
            (
                End::Ended { reason: Reason::OutOfMemory, message: "m".into(), code: 137 },
                Phase::Failed,
                Reason::OutOfMemory,
            ),
            (End::Exited { code: 0 }, Phase::Succeeded, Reason::Completed),
        ];
        for (end, phase, reason) in cases {
            let outcome = ended(&end, &FinalRecord::default());
            assert_eq!((outcome.phase, outcome.reason), (phase, reason), "{end:?}");
        }
    }

    #[test]
    fn success_needs_exit_and_record() {
        let failed = || Some(Verdict::Failed { reason: Reason::ModelError, message: "500".into() });
        let cases = [
            (0, None, (Phase::Succeeded, Reason::Completed)),
            (0, Some(Verdict::Succeeded), (Phase::Succeeded, Reason::Completed)),
            (0, failed(), (Phase::Failed, Reason::ModelError)),
            (0, Some(Verdict::Missing), (Phase::Failed, Reason::NoFinalRecord)),
            (1, Some(Verdict::Succeeded), (Phase::Failed, Reason::NonZeroExit)),
            (1, failed(), (Phase::Failed, Reason::ModelError)),
            (127, None, (Phase::Failed, Reason::CommandNotFound)),
            (137, None, (Phase::Failed, Reason::NonZeroExit)),
        ];
        for (code, record, expected) in cases {
            assert_eq!(verdict(code, record.clone()), expected, "{code} {record:?}");
        }
    }
}
