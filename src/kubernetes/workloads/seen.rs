//! A pod of ours, as far as we look at it; and, with what its sidecar says, a place.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::ResourceExt;

use super::{
    compose::{self, FINALIZER, RUN_UID},
    events::Complaint,
    trouble::Look,
};
use crate::{
    harness::{
        place::State,
        pod::{ANNOTATION, INSTALL, PodFile},
    },
    kinds::harness_run::{EgressSeen, Startup},
    names::Uid,
    ports::workloads::{Place, RunKey, Stage},
};

/// A pod that is the place of a run: name, owner and annotation say the same run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) uid: Uid,
    pub(super) name: String,
    pub(super) node: Option<String>,
    /// True: our finalizer is off.
    pub(super) confirmed: bool,
    /// When it has to be gone, if it was deleted.
    pub(super) deleted: Option<Timestamp>,
    pub(super) created: Timestamp,
    pub(super) status: PodStatus,
    pub(super) file: Arc<PodFile>,
}

impl Seen {
    /// `None`: it is not one of ours, whatever its labels say.
    pub(super) fn of(pod: Pod) -> Option<Self> {
        let file: PodFile = serde_json::from_str(pod.annotations().get(ANNOTATION)?).ok()?;
        let run = &file.spec.run;
        let named = pod.name_any() == compose::name(run)
            && pod.namespace().as_deref() == Some(run.namespace.as_str());
        let labelled = pod.labels().get(RUN_UID).is_some_and(|uid| uid == run.uid.as_str());
        let owned = pod.owner_references().iter().any(|owner| owner.uid == run.uid.as_str());
        if !(named && labelled && owned) {
            return None;
        }
        Some(Self {
            uid: pod.uid()?.parse().ok()?,
            name: pod.name_any(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            confirmed: !pod.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
            deleted: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            created: pod.creation_timestamp().map(|time| time.0)?,
            status: pod.status.unwrap_or_default(),
            file: Arc::new(file),
        })
    }

    pub(super) fn run(&self) -> &RunKey {
        &self.file.spec.run
    }

    pub(super) fn look(&self, now: Timestamp) -> Look<'_> {
        Look { status: &self.status, deleted: self.deleted, now }
    }

    /// The place, with the last that its sidecar said, and what the cluster says about it.
    pub(super) fn place(&self, said: Option<&State>, complaint: Option<&Complaint>, now: Timestamp) -> Place {
        let look = self.look(now);
        let stage = stage(&look, said);
        let trouble = look.trouble().or_else(|| complaint.and_then(|complaint| look.stalled(complaint)));
        let startup = Startup {
            scheduled_ms: self.scheduled().map(|at| millis(self.created, at)),
            installed_ms: self.installed().zip(self.scheduled()).map(|(at, from)| millis(from, at)),
            ..said.map(|said| said.startup.clone()).unwrap_or_default()
        };
        let known = said.cloned();
        let first = &self.file.spec.egress;
        Place {
            run: self.run().clone(),
            uid: self.uid.clone(),
            name: self.name.clone(),
            node: self.node.clone(),
            stage,
            begun: look.begun() || said.is_some(),
            trouble: trouble.filter(|_| stage != Stage::Released),
            confirmed: self.confirmed,
            started_at: said.and_then(|said| said.started_at),
            ended_at: said.and_then(|said| said.ended_at),
            startup,
            policies: said.and_then(|said| said.policies.clone()).unwrap_or_else(|| first.clone()),
            egress_proven: said.and_then(|said| said.egress_proven.clone()),
            limits_not_enforced: said.and_then(|said| said.limits_not_enforced.clone()),
            egress: said.map_or_else(EgressSeen::default, |said| said.egress.clone()),
            base: known.and_then(|said| said.base),
            delivery_error: said.and_then(|said| said.delivery_error.clone()),
        }
    }

    /// When it got its node.
    fn scheduled(&self) -> Option<Timestamp> {
        let conditions = self.status.conditions.iter().flatten();
        let scheduled =
            conditions.filter(|condition| condition.status == "True" && condition.type_ == "PodScheduled");
        scheduled.filter_map(|condition| condition.last_transition_time.as_ref()).map(|time| time.0).next()
    }

    /// When our image was pulled and the program copied.
    fn installed(&self) -> Option<Timestamp> {
        let mut containers = self.status.init_container_statuses.iter().flatten();
        let install = containers.find(|container| container.name == INSTALL)?;
        let end = install.state.as_ref()?.terminated.as_ref()?;
        end.finished_at.as_ref().filter(|_| end.exit_code == 0).map(|time| time.0)
    }
}

fn stage(look: &Look<'_>, said: Option<&State>) -> Stage {
    match said.map(|said| said.stage) {
        Some(Stage::Released) => Stage::Released,
        _ if look.released() => Stage::Released,
        _ if look.vanished() => Stage::Vanished,
        Some(stage) => stage,
        None => Stage::Created,
    }
}

fn millis(from: Timestamp, to: Timestamp) -> i64 {
    (to.as_millisecond() - from.as_millisecond()).max(0)
}
