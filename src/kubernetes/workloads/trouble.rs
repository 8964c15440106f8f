//! What the status of a pod says in words that people understand. Pure.
//!
//! What a scheduler, a kubelet or a controller wrote into the pod comes first; what events say counts only for a pod whose
//! status says nothing.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, PodStatus};

use super::events::Complaint;
use crate::{
    harness::pod::{AGENT, INSTALL, SIDECAR},
    kinds::{Phase, Reason},
    ports::workloads::Trouble,
};

/// How long a container may not be able to start, before the run ends: long enough for a registry that is restarted.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// How long past its time a deleted pod may still be there, before its node counts as lost.
const OVERDUE: SignedDuration = SignedDuration::from_mins(1);
/// How often a sidecar may end before its time.
const RESTARTS: i32 = 5;
/// Most bytes of a message.
const MAX_MESSAGE: usize = 700;

/// Reasons of a kubelet that has no image; the second word: waiting does not help.
const IMAGE: [(&str, bool); 7] = [
    ("ErrImagePull", false),
    ("ImagePullBackOff", false),
    ("ImageInspectError", false),
    ("RegistryUnavailable", false),
    ("SignatureValidationFailed", false),
    ("ErrImageNeverPull", true),
    ("InvalidImageName", true),
];
/// Reasons of a kubelet that cannot start a container.
const START: [&str; 5] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "PreCreateHookError",
    "PreStartHookError",
    "RunContainerError",
];

/// Reasons of events about a pod that will not start before somebody mends something.
const BARRED: [&str; 6] = [
    "FailedAttachVolume",
    "FailedCreatePodContainer",
    "FailedCreatePodSandBox",
    "FailedMapVolume",
    "FailedMount",
    "FailedPrepareDynamicResources",
];

/// A pod, as far as it says what happens to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'a> {
    /// Its status.
    pub(super) status: &'a PodStatus,
    /// When it has to be gone, if it was deleted.
    pub(super) deleted: Option<Timestamp>,
    /// The time.
    pub(super) now: Timestamp,
}

impl<'a> Look<'a> {
    /// True once no container of it runs, or ever will.
    pub(super) fn ended(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// True once its sidecar has run.
    pub(super) fn begun(&self) -> bool {
        self.sidecar().is_some_and(has_run)
    }

    /// True while its sidecar runs.
    pub(super) fn attended(&self) -> bool {
        !self.ended() && self.sidecar().and_then(state).is_some_and(|state| state.running.is_some())
    }

    /// True when the sidecar ended as one does whose result is acknowledged.
    pub(super) fn released(&self) -> bool {
        self.ended() && self.sidecar().and_then(terminated).is_some_and(|end| end.exit_code == 0)
    }

    /// True when it was deleted, and nothing of it will be heard any more.
    pub(super) fn vanished(&self) -> bool {
        self.ended() || self.deleted.is_some() && !self.begun() || self.overdue()
    }

    fn overdue(&self) -> bool {
        self.deleted.is_some_and(|due| self.now.duration_since(due) > OVERDUE)
    }

    fn sidecar(&self) -> Option<&'a ContainerStatus> {
        self.container(SIDECAR)
    }

    fn container(&self, name: &str) -> Option<&'a ContainerStatus> {
        self.containers().find(|container| container.name == name)
    }

    fn containers(&self) -> impl Iterator<Item = &'a ContainerStatus> {
        let init = self.status.init_container_statuses.iter().flatten();
        init.chain(self.status.container_statuses.iter().flatten())
    }

    /// What is wrong, if anything.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        if self.ended() {
            return self.after_the_end();
        }
        if self.deleted.is_some() {
            return Some(self.while_it_goes());
        }
        self.unscheduled().or_else(|| self.containers().find_map(|container| self.of_container(container)))
    }

    /// True while it is on a node that has started nothing of it yet.
    pub(super) fn untouched(&self) -> bool {
        let waits = |container| state(container).is_none_or(|state| state.waiting.is_some());
        !self.ended()
            && self.deleted.is_none()
            && self.condition("PodScheduled", "True").is_some()
            && self.containers().all(|container| waits(container) && last_end(container).is_none())
    }

    /// What is wrong in the cluster's words, when the status of an untouched pod says nothing.
    pub(super) fn stalled(&self, complaint: &Complaint) -> Option<Trouble> {
        let Complaint { reason, message } = complaint;
        let ends = BARRED.contains(&reason.as_str()) && self.is_past_patience();
        let message = with(&format!("the node cannot start the pod ({reason})"), message);
        self.untouched().then(|| trouble(Reason::PlaceFailed, message, ends.then(|| self.phase())))
    }

    /// The phase of a run without a result: it is known to have failed as long as the agent's container has not run.
    fn phase(&self) -> Phase {
        if self.container(AGENT).is_some_and(has_run) { Phase::Lost } else { Phase::Failed }
    }

    fn after_the_end(&self) -> Option<Trouble> {
        let said = self.status.message.as_deref().unwrap_or_default();
        let fatal = |reason, message| Some(trouble(reason, message, Some(self.phase())));
        match (self.disruption(), self.status.reason.as_deref()) {
            (Some((reason, message)), _) => return fatal(reason, message),
            (None, Some("Evicted")) => return fatal(Reason::Evicted, with("the pod was evicted", said)),
            (None, Some("DeadlineExceeded")) => {
                return fatal(Reason::PlaceDeadline, with("the pod passed a deadline", said));
            }
            (None, Some("NodeLost" | "NodeShutdown" | "Shutdown" | "Terminated")) => {
                return fatal(Reason::NodeLost, with("the node went", said));
            }
            (None, Some(other)) => {
                let message = with(&format!("the node ended the pod ({other})"), said);
                return fatal(Reason::PlaceFailed, message);
            }
            (None, None) => {}
        }
        let killed = |name| self.container(name).and_then(last_end).filter(|end| is_out_of_memory(end));
        if killed(SIDECAR).is_some() {
            return fatal(Reason::SidecarOutOfMemory, SIDECAR_MEMORY.to_owned());
        }
        if killed(AGENT).is_some() {
            let message = "the agent passed its memory limit, and no result came";
            return fatal(Reason::OutOfMemory, message.to_owned());
        }
        if let Some(trouble) = self.container(INSTALL).and_then(of_install) {
            return Some(trouble);
        }
        let unstarted = self.container(AGENT).and_then(terminated).filter(|end| is_unstarted(end));
        if let Some(end) = unstarted {
            let said = end.message.as_deref().unwrap_or_default();
            let message = with("the agent's container could not be started", said);
            return Some(trouble(Reason::PlaceFailed, message, Some(Phase::Failed)));
        }
        self.deleted.and_then(|_| fatal(Reason::PlaceDeleted, "the pod was deleted".to_owned()))
    }

    fn while_it_goes(&self) -> Trouble {
        let (reason, message) = self
            .disruption()
            .unwrap_or_else(|| (Reason::PlaceDeleted, "the pod was deleted by somebody else".to_owned()));
        if !self.begun() {
            return trouble(reason, format!("{message}, before it started"), Some(Phase::Failed));
        }
        if self.overdue() {
            let message = "the pod was deleted, and its node does not end it".to_owned();
            return trouble(Reason::NodeLost, message, Some(Phase::Lost));
        }
        trouble(reason, format!("{message}; what the agent did is still collected"), None)
    }

    /// Who ended the pod for the sake of others.
    fn disruption(&self) -> Option<(Reason, String)> {
        let target = self.condition("DisruptionTarget", "True")?;
        let said = target.message.as_deref().unwrap_or_default();
        Some(match target.reason.as_deref() {
            Some("DeletionByTaintManager" | "DeletionByPodGC") => {
                (Reason::NodeLost, with("the node is gone or unreachable", said))
            }
            Some("PreemptionByScheduler") => {
                (Reason::Evicted, with("a more important pod took its place", said))
            }
            Some("EvictionByEvictionAPI") => (Reason::Evicted, with("the pod was evicted by request", said)),
            _ => (Reason::Evicted, with("the node evicted the pod", said)),
        })
    }

    fn unscheduled(&self) -> Option<Trouble> {
        let waits = self.condition("PodScheduled", "False")?;
        let said = waits.message.as_deref().unwrap_or_default();
        Some(trouble(Reason::Unschedulable, with("no node takes the pod", said), None))
    }

    fn of_container(&self, container: &ContainerStatus) -> Option<Trouble> {
        let name = container.name.as_str();
        if name == INSTALL
            && let Some(trouble) = of_install(container)
        {
            return Some(trouble);
        }
        if name == AGENT && terminated(container).is_some_and(is_out_of_memory) {
            let message = "the agent passed its memory limit; what it did is still collected";
            return Some(trouble(Reason::OutOfMemory, message.to_owned(), None));
        }
        let waiting = state(container)?.waiting.as_ref()?;
        let (reason, said) = (waiting.reason.as_deref()?, waiting.message.as_deref().unwrap_or_default());
        let ends = |at_once: bool| (at_once || self.is_past_patience()).then(|| self.phase());
        if let Some((_, at_once)) = IMAGE.iter().find(|(word, _)| *word == reason) {
            let message = format!("the image {} of container {name} cannot be had", container.image);
            return Some(trouble(Reason::ImageUnavailable, with(&message, said), ends(*at_once)));
        }
        if START.contains(&reason) {
            let message = format!("container {name} cannot be started ({reason})");
            return Some(trouble(Reason::PlaceFailed, with(&message, said), ends(false)));
        }
        (reason == "CrashLoopBackOff").then(|| {
            let ends = (container.restart_count >= RESTARTS).then(|| self.phase());
            match last_end(container) {
                Some(end) if is_out_of_memory(end) => {
                    trouble(Reason::SidecarOutOfMemory, SIDECAR_MEMORY.to_owned(), ends)
                }
                _ => trouble(
                    Reason::PlaceFailed,
                    with(&format!("container {name} ends too early"), said),
                    ends,
                ),
            }
        })
    }

    /// True when the pod has been on its node for too long to go on waiting for a container.
    fn is_past_patience(&self) -> bool {
        let scheduled = self.condition("PodScheduled", "True");
        let since = scheduled.and_then(|condition| condition.last_transition_time.as_ref());
        since.is_some_and(|since| self.now.duration_since(since.0) > PATIENCE)
    }

    fn condition(&self, type_: &str, status: &str) -> Option<&'a k8s_openapi::api::core::v1::PodCondition> {
        let mut all = self.status.conditions.iter().flatten();
        all.find(|condition| condition.type_ == type_ && condition.status == status)
    }
}

const SIDECAR_MEMORY: &str = "the sidecar passed its memory limit";

fn state(container: &ContainerStatus) -> Option<&ContainerState> {
    container.state.as_ref()
}

fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    state(container)?.terminated.as_ref()
}

/// How it ended: this time, or the last.
fn last_end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let before = || container.last_state.as_ref()?.terminated.as_ref();
    terminated(container).or_else(before)
}

fn has_run(container: &ContainerStatus) -> bool {
    state(container).is_some_and(|state| state.running.is_some())
        || last_end(container).is_some_and(|end| !is_unstarted(end))
}

fn is_unstarted(end: &ContainerStateTerminated) -> bool {
    matches!(end.reason.as_deref(), Some("StartError" | "ContainerCannotRun" | "ContainerStatusUnknown"))
        && end.started_at.as_ref().is_none_or(|time| time.0 == Timestamp::UNIX_EPOCH)
}

fn is_out_of_memory(end: &ContainerStateTerminated) -> bool {
    end.reason.as_deref() == Some("OOMKilled")
}

fn trouble(reason: Reason, mut message: String, ends: Option<Phase>) -> Trouble {
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    Trouble { reason, message, ends }
}

fn of_install(install: &ContainerStatus) -> Option<Trouble> {
    let end = terminated(install).filter(|end| end.exit_code != 0)?;
    let message = format!("the program could not be copied into the pod: exit code {}", end.exit_code);
    let said = end.message.as_deref().or(end.reason.as_deref()).unwrap_or_default();
    Some(trouble(Reason::InstallFailed, with(&message, said), Some(Phase::Failed)))
}

/// Our words, then those of whoever noticed.
fn with(ours: &str, said: &str) -> String {
    if said.is_empty() { ours.to_owned() } else { format!("{ours}: {said}") }
}

#[cfg(test)]
mod tests;
