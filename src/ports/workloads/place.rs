//! What is seen of a place.

use serde::{Deserialize, Serialize};

use super::{NamedPolicy, RunKey};
use crate::{
    kinds::{
        Phase, Reason,
        harness_run::{EgressSeen, Startup},
    },
    names::{CommitId, Uid},
};

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
    /// True once [`super::Workloads::confirm`] was called: its UID is in the run's status.
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
